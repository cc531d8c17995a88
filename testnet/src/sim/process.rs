//! The world's own table of processes: what really runs where, whatever the Machines believe.
//!
//! Invariants: a process belongs to one life of one node and dies with it.

use std::collections::BTreeMap;

use starling_core::facts::{Outcome, Usage};
use starling_core::ids::{GrantId, JobId, RunId};
use starling_core::machine::{Input, Spawn, Work};
use starling_core::resources::Resources;

use super::clients::Report;
use super::options::Sabotage;
use super::world::{Event, Seat, World};

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) grant: GrantId,
    pub(crate) task: u32,
    pub(crate) need: Resources,
    pub(crate) outcome: Outcome,
    /// Whether a relay does it, and speaks of its end.
    pub(crate) by_relay: bool,
}

/// How often one task was started, and how often it ended badly by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Starts {
    pub(crate) count: u32,
    pub(crate) failed: u32,
    pub(crate) retries: u16,
}

impl Starts {
    /// Starts beyond the first that no failure of the task's own explains.
    pub(crate) fn extra(&self) -> u32 {
        self.count.saturating_sub(1).saturating_sub(self.failed.min(u32::from(self.retries)))
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    running: BTreeMap<(Seat, RunId), Process>,
    starts: BTreeMap<(JobId, u32), Starts>,
}

impl Processes {
    pub(crate) fn start(&mut self, seat: Seat, run: RunId, process: Process, retries: u16) {
        let starts = self.starts.entry((process.grant.job, process.task)).or_default();
        starts.count += 1;
        starts.retries = retries;
        self.running.insert((seat, run), process);
    }

    /// An assignment that reached nobody: it will be told lost, and nothing started.
    pub(crate) fn hold(&mut self, seat: Seat, run: RunId, process: Process) {
        self.running.insert((seat, run), process);
    }

    /// The process ends; `None` if it is gone already.
    pub(crate) fn end(&mut self, seat: Seat, run: RunId) -> Option<Process> {
        let process = self.running.remove(&(seat, run))?;
        if !process.outcome.is_success()
            && process.outcome != Outcome::Lost
            && let Some(starts) = self.starts.get_mut(&(process.grant.job, process.task))
        {
            starts.failed += 1;
        }
        Some(process)
    }

    /// Somebody stops it: it will end by a signal.
    pub(crate) fn kill(&mut self, seat: Seat, run: RunId) {
        if let Some(process) = self.running.get_mut(&(seat, run)).filter(|process| process.outcome != Outcome::Lost) {
            process.outcome = Outcome::Signal(15);
        }
    }

    /// A task vanishes with whoever did it.
    pub(crate) fn lose(&mut self, seat: Seat, run: RunId) {
        self.running.remove(&(seat, run));
    }

    /// What the relay of `seat` has in its hands.
    pub(crate) fn relayed(&self, seat: Seat) -> Vec<RunId> {
        let here = self.running.range((seat, RunId(0))..=(seat, RunId(u64::MAX)));
        here.filter(|(_, process)| process.by_relay).map(|((_, run), _)| *run).collect()
    }

    /// Whether the task still runs.
    pub(crate) fn runs(&self, seat: Seat, run: RunId) -> bool {
        self.running.contains_key(&(seat, run))
    }

    /// The node is gone, and its processes with it.
    pub(crate) fn crash(&mut self, seat: Seat) {
        self.running.retain(|(at, _), _| *at != seat);
    }

    /// What the processes on `seat` reserve.
    pub(crate) fn used(&self, seat: Seat) -> Resources {
        let here = self.running.range((seat, RunId(0))..=(seat, RunId(u64::MAX)));
        here.fold(Resources::default(), |sum, (_, process)| sum.plus(&process.need, 1))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    pub(crate) fn starts(&self) -> impl Iterator<Item = (&(JobId, u32), &Starts)> {
        self.starts.iter()
    }

    pub(crate) fn starts_of(&self, job: JobId, task: u32) -> Starts {
        self.starts.get(&(job, task)).copied().unwrap_or_default()
    }
}

impl World {
    pub(crate) fn spawn(&mut self, seat: Seat, spawn: Spawn) {
        let Spawn { run, grant, task, work, .. } = spawn;
        let node = &self.nodes[seat.0];
        let submit = node
            .machine
            .as_ref()
            .and_then(|machine| machine.facts().job(&grant.job))
            .and_then(|job| job.submit.as_ref());
        let Some((need, retries)) = submit.map(|submit| (submit.need, submit.retries)) else {
            return;
        };
        let (mut outcome, mut lasts_ms) = self.clients.fate(&mut self.rng);
        let (mut need, mut reaches) = (need, true);
        if let Work::Worker(errand) = &work {
            reaches = self.is_delivered(seat, errand);
            need = Resources::default();
            if !reaches {
                (outcome, lasts_ms) = Self::vanished();
            }
        }
        let by_relay = matches!(work, Work::Relay(_));
        if matches!(work, Work::Pair(_)) {
            let life = self.node(seat).life;
            self.after(1, Event::Port { seat, life, run });
        }
        let process = Process { grant, task, need, outcome, by_relay };
        if !reaches {
            self.processes.hold(seat, run, process);
            let life = self.node(seat).life;
            return self.after(lasts_ms, Event::Process { seat, life, run });
        }
        let double = self.options.sabotage == Sabotage::DoubleStart && self.rng.below(10) == 0;
        for _ in 0..=usize::from(double) {
            self.totals.starts += 1;
            self.processes.start(seat, run, process.clone(), retries);
        }
        let node = &self.nodes[seat.0];
        let found = crate::invariant::capacity::look(seat, &node.total, &self.processes.used(seat));
        self.broken(found);
        let starts = self.processes.starts_of(grant.job, task);
        let found = self.rules.look_at_starts(&self.options.faults, grant.job, task, starts.extra());
        self.broken(found);
        let life = self.node(seat).life;
        self.after(lasts_ms, Event::Process { seat, life, run });
    }

    pub(crate) fn on_process(&mut self, seat: Seat, life: u32, run: RunId) {
        let node = self.node(seat);
        if node.life != life || node.machine.is_none() {
            return;
        }
        if node.paused_until > self.now {
            return self.defer(seat, Event::Process { seat, life, run });
        }
        if let Some(Process { outcome, by_relay, .. }) = self.processes.end(seat, run)
            && self.options.sabotage != Sabotage::SilentEnds
        {
            if by_relay && matches!(outcome, Outcome::Exit(_)) {
                return self.relay_reports(Report { seat, life, run, outcome });
            }
            let usage = Usage { wall_ms: 7, ..Usage::default() };
            self.step(seat, Input::TaskEnded { run, outcome, usage });
        }
    }
}
