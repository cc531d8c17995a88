//! Resuming: what becomes of the tasks that a previous run of this node had accepted.
//!
//! Invariants: a task that still runs is neither lost nor started again; an end that was found is told as what it was; what was accepted and never started keeps
//! its place and its attempt; only what was started and left neither process nor end is told lost (ADR 16).
//! Does not: look for processes. The edges do, and say what they found (`Recovery::resume`).

use std::collections::BTreeMap;

use super::Machine;
use super::io::Effect;
use crate::facts::{Outcome, Run, Submit, Usage};
use crate::ids::{Attempt, GrantId, PoolName};
use crate::lattice::IntervalSet;
use crate::limits;
use crate::namespace::Voice;
use crate::schedule::{Ended, Offer, Resumed, is_on_machine};
use crate::time::{Mono, Now};

/// A task that a previous run of this node had started, as the edges found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Under which grant.
    pub grant: GrantId,
    /// The task.
    pub task: u32,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a task while this node was away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs.
    Running {
        /// Since so many milliseconds.
        ran_ms: u64,
    },
    /// It ended, and whether that was told is not known.
    Ended {
        /// How.
        outcome: Outcome,
        /// What it used.
        usage: Usage,
    },
    /// It was started, and neither it nor its end can be found; nothing of it runs.
    Gone,
}

/// How far the edges' books of started tasks can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Books {
    /// What is not in them did not start.
    Complete,
    /// What is not in them may have started: they are new, or the machine went down.
    Partial,
}

/// What the log says of a grant that this node had accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Accepted {
    /// The tasks.
    #[n(0)]
    pub tasks: IntervalSet,
    /// The attempt. Absent in notes of versions before ADR 16.
    #[n(1)]
    pub attempt: Option<Attempt>,
    /// The pool of workers that is to run them, if one is.
    #[n(2)]
    pub pool: Option<PoolName>,
}

type Fates = BTreeMap<u32, Fate>;

impl Machine {
    /// Takes up what was accepted.
    pub(super) fn resume(
        &mut self,
        now: Now,
        mut accepted: BTreeMap<GrantId, Accepted>,
        survivors: Vec<Survivor>,
        books: Books,
    ) {
        // A grant to oneself needs no note: the grant itself is in the log.
        for (id, job) in self.facts.jobs() {
            for (no, grant) in job.grants.iter().filter(|(no, _)| no.term.is_of(&id.log.node, &self.me)) {
                if let Some(placed) = grant.placed.as_ref().filter(|placed| placed.node == self.me) {
                    let (tasks, attempt, pool) = (placed.tasks.clone(), Some(placed.attempt), placed.pool.clone());
                    accepted.insert(GrantId { job: id, no: *no }, Accepted { tasks, attempt, pool });
                }
            }
        }
        let mut found: BTreeMap<GrantId, Fates> = BTreeMap::new();
        for Survivor { grant, task, fate } in survivors {
            if grant.no.term.is_of(&grant.job.log.node, &self.me) {
                self.owner.on_survivor(&grant);
            }
            // Even if the note of its acceptance went with a torn log: it was started.
            let _ = accepted.entry(grant).or_default().tasks.insert(task);
            found.entry(grant).or_default().insert(task, fate);
        }
        for (grant, accepted) in accepted {
            let fates = found.remove(&grant).unwrap_or_default();
            self.resume_grant(now, grant, accepted, (fates, books));
        }
    }

    fn resume_grant(&mut self, now: Now, grant: GrantId, accepted: Accepted, found: (Fates, Books)) {
        let job = self.facts.job(&grant.job);
        let known = job.and_then(|job| job.grants.lookup(&grant.no));
        let run = known.and_then(|known| known.run_by(&self.me));
        let left = run.map_or_else(|| accepted.tasks.clone(), |run| accepted.tasks.difference(&run.all_ended()));
        // Mostly: jobs of long ago are many. Nobody waits for what a retired one has left.
        if left.is_empty() || self.facts.is_retired(&grant.job) {
            return self.executor.refuse(grant);
        }
        let run = run.cloned().unwrap_or_default();
        let placed = known.and_then(|known| known.placed.as_ref());
        let attempt = placed.map(|placed| placed.attempt).or(accepted.attempt);
        let pool = placed.map_or(accepted.pool, |placed| placed.pool.clone());
        let submit = job.and_then(|job| job.submit.as_ref()).map(|submit| submit.as_ref().clone());
        // Relays and workers have books of their own, which end with the daemon.
        let resumable = submit.as_ref().filter(|submit| is_on_machine(submit, pool.as_ref())).zip(attempt);
        // A grant to oneself that was not considered yet, when as many as there may be are held: it is placed again.
        let is_too_many = run == Run::default() && self.executor.held() >= limits::HELD_GRANTS_MAX;
        let mut parts = Parts::sort(left, found, resumable.is_some());
        // Nobody waits for what was withdrawn or is sealed.
        parts.drop_unwanted(&job.map(|job| job.sealed_tasks()).unwrap_or_default());
        if known.is_some_and(|known| known.void) {
            parts.drop_unwanted(&accepted.tasks);
        }
        let is_cancelled = job.is_some_and(|job| job.cancel.0.is_some());
        let voice = submit.as_ref().map(Voice::of).unwrap_or_default();
        let mut usage = run.usage().copied().unwrap_or_default();
        for (task, outcome, used) in core::mem::take(&mut parts.ended) {
            usage = usage.plus(&used);
            let outcome = judged(outcome, &used, submit.as_ref(), is_cancelled);
            let tasks = IntervalSet::one(task);
            self.outbox.push_finished(Ended { grant, voice: voice.clone(), tasks, outcome, usage });
        }
        if !parts.lost.is_empty() {
            let ended = Ended { grant, voice: voice.clone(), tasks: parts.lost, outcome: Outcome::Lost, usage };
            self.outbox.push_finished(ended);
        }
        let nothing_left = parts.running.is_empty() && (parts.queue.is_empty() || is_too_many);
        let Some((submit, attempt)) = resumable.filter(|_| !nothing_left) else {
            // Its ends are being told; only what never started may be placed anew.
            return if parts.queue.is_empty() { self.executor.close(grant) } else { self.executor.refuse(grant) };
        };
        for (task, _) in parts.running.iter().filter(|(task, _)| !run.started.contains(*task)) {
            self.outbox.push_started(grant, voice.clone(), *task, None);
        }
        let offer = Offer { grant, attempt, tasks: parts.queue, pool };
        self.executor.resume(now.mono, Resumed { offer, running: parts.running, usage }, submit);
        if is_cancelled {
            let (kills, dropped) = self.executor.on_cancel(&grant.job);
            self.effects.extend(kills.into_iter().map(Effect::Kill));
            dropped.into_iter().for_each(|ended| self.report(ended));
        }
    }

    /// Those of `tasks` whose end this node has told durably under `grant`: whoever kept the end for it may forget it.
    #[must_use]
    pub fn told(&self, grant: &GrantId, tasks: &IntervalSet) -> IntervalSet {
        let Some(job) = self.facts.job(&grant.job) else {
            // A job that is known no more was over long ago, unless the report that names it is being written.
            return if self.has_told_all() { tasks.clone() } else { IntervalSet::new() };
        };
        let run = job.grants.lookup(&grant.no).and_then(|grant| grant.run_by(&self.me));
        run.map(|run| run.all_ended().intersection(tasks)).unwrap_or_default()
    }

    /// Whether nothing of this node's waits for the disk.
    #[must_use]
    pub fn has_told_all(&self) -> bool {
        self.outbox.is_empty() && self.outbox.in_flight.is_none()
    }

    /// Stops taking work, stops what runs here, and hands all of it back: its owners grant it again.
    pub(super) fn on_give_up(&mut self) {
        self.stopping = true;
        // Owners should hear of it before they hear of the losses, or they would offer the same tasks again.
        self.about.next_presence = Mono::default();
        let (kills, dropped) = self.executor.give_up();
        self.effects.extend(kills.into_iter().map(Effect::Kill));
        dropped.into_iter().for_each(|ended| self.report(ended));
    }
}

/// A grant's unfinished tasks by what becomes of them.
#[derive(Debug, Default)]
struct Parts {
    running: Vec<(u32, u64)>,
    queue: IntervalSet,
    lost: IntervalSet,
    ended: Vec<(u32, Outcome, Usage)>,
}

impl Parts {
    fn sort(mut left: IntervalSet, (fates, books): (Fates, Books), is_resumable: bool) -> Self {
        let mut parts = Self::default();
        for (task, fate) in fates {
            if !left.contains(task) {
                continue;
            }
            left.subtract(&IntervalSet::one(task));
            match fate {
                Fate::Running { ran_ms } if is_resumable => parts.running.push((task, ran_ms)),
                Fate::Running { .. } | Fate::Gone => {
                    let _ = parts.lost.insert(task);
                }
                Fate::Ended { outcome, usage } => parts.ended.push((task, outcome, usage)),
            }
        }
        if books == Books::Complete && is_resumable {
            parts.queue = left;
        } else {
            let _ = parts.lost.union_with(&left);
        }
        parts
    }

    fn drop_unwanted(&mut self, tasks: &IntervalSet) {
        self.queue.subtract(tasks);
        self.lost.subtract(tasks);
    }
}

/// What an end means that came while nobody watched: a task that was being stopped, or should have been, did not fail by itself.
fn judged(outcome: Outcome, used: &Usage, submit: Option<&Submit>, is_cancelled: bool) -> Outcome {
    let limit_ms = submit.map_or(0, |submit| submit.timeout_ms);
    match outcome {
        Outcome::Exit(0) => outcome,
        _ if is_cancelled => Outcome::Cancelled,
        _ if limit_ms > 0 && used.wall_ms >= limit_ms => Outcome::TimedOut,
        Outcome::Exit(_)
        | Outcome::Signal(_)
        | Outcome::NotStarted(..)
        | Outcome::TimedOut
        | Outcome::Cancelled
        | Outcome::Lost
        | Outcome::Broke(_) => outcome,
    }
}
