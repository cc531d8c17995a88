//! The world's own table of processes: what really runs where, whatever the Machines believe.
//!
//! Invariants: a process belongs to one life of one node. When only the daemon goes down, the machine's own processes go on, and the next life of the node takes
//! them up; what relays and workers do dies with the daemon; a machine that goes down takes everything along.
//! Source: ADR 16.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::facts::{Outcome, Usage};
use starling_core::ids::{GrantId, JobId, RunId};
use starling_core::lattice::IntervalSet;
use starling_core::machine::{Books, Fate, Input, Spawn, Survivor, Work};
use starling_core::resources::Resources;
use starling_core::time::Mono;

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
    /// Whether it is the machine's own, so that it outlives the daemon.
    pub(crate) stays: bool,
    pub(crate) since: Mono,
}

/// What every task used.
pub(crate) const USAGE: Usage = Usage { cpu_user_ms: 0, cpu_sys_ms: 0, wall_ms: 7, max_rss_bytes: 0 };

/// What goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The machine, with everything on it.
    Machine,
    /// The daemon alone.
    Daemon,
}

/// A run of one life of a node.
type Past = (Seat, u32, RunId);

/// How often one task was started, and how often it ended badly by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Starts {
    pub(crate) count: u32,
    pub(crate) failed: u32,
    pub(crate) retries: u16,
}

impl Starts {
    /// Starts beyond the first that no failure of the task's own explains. An owner on the other side of a partition knows of none of them, and has retries of its own.
    pub(crate) fn extra(&self, owners: u32) -> u32 {
        let retries = u32::from(self.retries).saturating_mul(owners);
        self.count.saturating_sub(1).saturating_sub(self.failed.min(retries))
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    running: BTreeMap<(Seat, RunId), Process>,
    starts: BTreeMap<(JobId, u32), Starts>,
    /// Processes that go on while their daemon is down.
    resting: BTreeMap<Past, Process>,
    /// Which run of which later life took up a process.
    heirs: BTreeMap<Past, (u32, RunId)>,
    /// Ends that the supervisors keep until the log has them.
    ended: BTreeMap<(Seat, GrantId, u32), Outcome>,
    /// Jobs of which relays or workers do something for a node.
    frail: BTreeSet<(Seat, JobId)>,
    /// Nodes whose machine has not gone down since they first started.
    booked: BTreeSet<Seat>,
}

impl Processes {
    pub(crate) fn start(&mut self, seat: Seat, run: RunId, process: Process, retries: u16) {
        let starts = self.starts.entry((process.grant.job, process.task)).or_default();
        starts.count += 1;
        starts.retries = retries;
        if !process.stays {
            self.frail.insert((seat, process.grant.job));
        }
        self.running.insert((seat, run), process);
    }

    /// An assignment that reached nobody: it will be told lost, and nothing started.
    pub(crate) fn hold(&mut self, seat: Seat, run: RunId, process: Process) {
        self.frail.insert((seat, process.grant.job));
        self.running.insert((seat, run), process);
    }

    /// The process ends; `None` if it is gone already.
    pub(crate) fn end(&mut self, seat: Seat, run: RunId) -> Option<Process> {
        let process = self.running.remove(&(seat, run))?;
        self.on_end(seat, &process);
        Some(process)
    }

    fn on_end(&mut self, seat: Seat, process: &Process) {
        if process.stays {
            self.ended.insert((seat, process.grant, process.task), process.outcome.clone());
        }
        if !process.outcome.is_success()
            && process.outcome != Outcome::Lost
            && let Some(starts) = self.starts.get_mut(&(process.grant.job, process.task))
        {
            starts.failed += 1;
        }
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

    /// The node is gone, in this life.
    pub(crate) fn crash(&mut self, seat: Seat, life: u32, crash: Crash) {
        let here = |at: &Seat| *at == seat;
        match crash {
            Crash::Machine => {
                self.resting.retain(|(at, _, _), _| !here(at));
                self.ended.retain(|(at, _, _), _| !here(at));
                self.booked.remove(&seat);
            }
            Crash::Daemon => {
                let stay = self.running.iter().filter(|((at, _), process)| here(at) && process.stays);
                let stay = stay.map(|((_, run), process)| ((seat, life, *run), process.clone()));
                self.resting.extend(stay.collect::<Vec<_>>());
            }
        }
        self.running.retain(|(at, _), _| !here(at));
    }

    /// The jobs of which something at this node does not outlive its daemon.
    pub(crate) fn frail(&self, seat: Seat) -> impl Iterator<Item = JobId> + '_ {
        self.frail.iter().filter(move |(at, _)| *at == seat).map(|(_, job)| *job)
    }

    /// What the supervisors of a node know, and whether that is all there ever was.
    pub(crate) fn muster(&mut self, seat: Seat, now: Mono) -> (Vec<Survivor>, Books) {
        let resting = self.resting.iter().filter(|((at, _, _), _)| *at == seat);
        let running = resting.map(|(_, process)| Survivor {
            grant: process.grant,
            task: process.task,
            fate: Fate::Running { ran_ms: now.since_ms(process.since) },
        });
        let ended = self.ended.iter().filter(|((at, _, _), _)| *at == seat);
        let ended = ended.map(|((_, grant, task), outcome)| Survivor {
            grant: *grant,
            task: *task,
            fate: Fate::Ended { outcome: outcome.clone(), usage: USAGE },
        });
        let survivors = running.chain(ended).collect();
        (survivors, if self.booked.insert(seat) { Books::Partial } else { Books::Complete })
    }

    /// The next life of a node took these up; what it did not is stopped. `is_told` says which ends its log has.
    pub(crate) fn take_up(
        &mut self,
        seat: Seat,
        life: u32,
        runs: &BTreeMap<(GrantId, u32), RunId>,
        is_told: impl Fn(&GrantId, &IntervalSet) -> bool,
    ) {
        let here: Vec<Past> = self.resting.keys().filter(|(at, _, _)| *at == seat).copied().collect();
        for past in here {
            let Some(process) = self.resting.remove(&past) else { continue };
            if let Some(run) = runs.get(&(process.grant, process.task)) {
                self.heirs.insert(past, (life, *run));
                self.running.insert((seat, *run), process);
            }
        }
        self.ended.retain(|(at, grant, task), _| *at != seat || !is_told(grant, &IntervalSet::one(*task)));
    }

    /// The latest life and run of a process.
    pub(crate) fn heir(&self, seat: Seat, mut life: u32, mut run: RunId) -> (u32, RunId) {
        while let Some(heir) = self.heirs.get(&(seat, life, run)) {
            (life, run) = *heir;
        }
        (life, run)
    }

    /// A process ends while its daemon is down; false if it is none of those.
    pub(crate) fn end_resting(&mut self, seat: Seat, life: u32, run: RunId) -> bool {
        let process = self.resting.remove(&(seat, life, run));
        if let Some(process) = &process {
            self.on_end(seat, process);
        }
        process.is_some()
    }

    /// What the processes on `seat` reserve.
    pub(crate) fn used(&self, seat: Seat) -> Resources {
        let here = self.running.range((seat, RunId(0))..=(seat, RunId(u64::MAX)));
        here.fold(Resources::default(), |sum, (_, process)| sum.plus(&process.need, 1))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.resting.is_empty()
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
        let stays = matches!(work, Work::Process(_) | Work::Pair(_));
        let process = Process { grant, task, need, outcome, by_relay, stays, since: self.now };
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
        let found = self.rules.look_at_starts(&self.options.faults, grant.job, task, starts);
        self.broken(found);
        let life = self.node(seat).life;
        self.after(lasts_ms, Event::Process { seat, life, run });
    }

    pub(crate) fn on_process(&mut self, seat: Seat, life: u32, run: RunId) {
        let (life, run) = self.processes.heir(seat, life, run);
        if self.processes.end_resting(seat, life, run) {
            return;
        }
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
            self.step(seat, Input::TaskEnded { run, outcome, usage: USAGE });
        }
    }
}
