//! One job in its owner's books.
//!
//! Invariants: `ready`, `delayed`, the `left` of open grants and `sealed` are disjoint and together are the job's tasks.

use std::collections::BTreeMap;

use super::place::Candidate;
use super::pool::{SLOT, all_there};
use crate::facts::{Handler, Job, Outcome, Submit, Wishes};
use crate::ids::{Attempt, GrantNo, Seat, Term};
use crate::lattice::IntervalSet;
use crate::limits;
use crate::resources::Resources;
use crate::time::Mono;

/// The first retry waits this long, each later one twice as long.
const BACKOFF_MS: u64 = 100;
const BACKOFF_MS_MAX: u64 = 30_000;

/// A grant that is not finished.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) seat: Seat,
    pub(super) attempt: Attempt,
    pub(super) left: IntervalSet,
    pub(super) accepted: bool,
    /// Its executor may have been started anew since it spoke: what it reported before is no answer.
    doubted: bool,
    since: Mono,
    size: u64,
}

impl Open {
    pub(super) fn new(seat: Seat, attempt: Attempt, left: IntervalSet, since: Mono) -> Self {
        let size = left.len();
        Self { seat, attempt, left, accepted: false, doubted: false, since, size }
    }

    /// The executor took it.
    pub(super) fn accept(&mut self) {
        self.accepted = true;
        self.doubted = false;
    }

    /// The executor reported of it, which answers the offer, unless the report may be of an earlier life.
    pub(super) fn hear_report(&mut self) {
        self.accepted |= !self.doubted;
    }

    /// Whether the executor still knows of it, it must say again.
    pub(super) fn doubt(&mut self) {
        self.accepted = false;
        self.doubted = true;
    }
}

#[derive(Debug)]
pub(super) struct Owned {
    /// The term in which it is owned.
    pub(super) term: Term,
    pub(super) need: Resources,
    pub(super) priority: i32,
    /// The node that it must run on, and labels that must be there; mostly none.
    wishes: Option<Box<Wishes>>,
    /// The namespace whose relays run it; `None` if executors do so themselves.
    pub(super) relay: Option<smol_str::SmolStr>,
    pub(super) cancelled: bool,
    pub(super) next_grant: u32,
    pub(super) open: BTreeMap<GrantNo, Open>,
    pub(super) sealed: IntervalSet,
    retries: u16,
    pub(super) all: IntervalSet,
    /// Tasks to grant, by the attempt they are on, ascending. Mostly one entry, and queued jobs are many: a vector costs a tenth of a tree.
    ready: Vec<(Attempt, IntervalSet)>,
    delayed: Vec<(Mono, Attempt, IntervalSet)>,
    /// How often a task failed by itself; lost attempts do not count against the user's budget.
    failures: BTreeMap<u32, u16>,
    /// What one task seems to take on one slot, milliseconds.
    pub(super) task_ms: Option<u64>,
}

/// The namespace whose relays run it.
fn relay_of(submit: &Submit) -> Option<&smol_str::SmolStr> {
    (submit.handler() == Handler::Relay).then_some(&submit.ns)
}

fn wishes_of(submit: &Submit) -> Option<Box<Wishes>> {
    Some(submit.wishes()).filter(|wishes| *wishes != Wishes::anywhere()).map(Box::new)
}

impl Owned {
    pub(super) fn new(submit: &Submit, job: &Job, term: Term) -> Self {
        let sealed = job.sealed_tasks();
        let mut owned = Self {
            term,
            need: submit.need,
            priority: submit.priority,
            wishes: wishes_of(submit),
            relay: relay_of(submit).cloned(),
            cancelled: false,
            next_grant: 1,
            open: BTreeMap::new(),
            retries: submit.retries,
            all: submit.tasks.clone(),
            ready: Vec::new(),
            delayed: Vec::new(),
            failures: BTreeMap::new(),
            task_ms: None,
            sealed,
        };
        // After a restart a task goes on with the attempt after its last grant; an open grant takes it back out of `ready`.
        let mut waiting = owned.all.difference(&owned.sealed);
        for grant in job.grants.values().rev() {
            if let Some(placed) = grant.placed.as_ref() {
                let again = waiting.intersection(&placed.tasks);
                waiting.subtract(&again);
                owned.make_ready(Attempt(placed.attempt.0.saturating_add(1).min(limits::ATTEMPTS_MAX)), &again);
            }
        }
        owned.make_ready(Attempt(1), &waiting);
        owned
    }

    /// Whether this submission is the one that these books were opened for.
    pub(super) fn is_of(&self, submit: &Submit) -> bool {
        let how = (self.need, self.priority, self.retries) == (submit.need, submit.priority, submit.retries);
        let what = self.all == submit.tasks && self.relay.as_ref() == relay_of(submit);
        how && what && self.wishes == wishes_of(submit)
    }

    /// Whether the candidate is of the kind that the job may run on, whatever its room.
    pub(super) fn wants(&self, candidate: &Candidate) -> bool {
        let fits = candidate.room.is_none_or(|room| room.covers(&self.need) && self.relay.is_none());
        fits && self.wishes.as_ref().is_none_or(|wishes| {
            let here = wishes.node.as_ref().is_none_or(|wanted| *wanted == candidate.name);
            here && all_there(&candidate.labels, &wishes.labels) && (wishes.by_workers || candidate.room.is_none())
        })
    }

    /// What one task takes of the room at a seat.
    pub(super) fn need_at(&self, seat: &Seat) -> Resources {
        if seat.pool.is_some() { SLOT } else { self.need }
    }

    /// Counts failures of the tasks' own; lost and cancelled attempts do not count against the user's budget.
    pub(super) fn remember(&mut self, outcome: &Outcome, tasks: &IntervalSet) {
        match outcome {
            Outcome::Exit(0) | Outcome::Cancelled | Outcome::Lost => {}
            Outcome::Exit(_) | Outcome::Signal(_) | Outcome::NotStarted(..) | Outcome::TimedOut | Outcome::Broke(_) => {
                if self.retries > 0 {
                    for task in tasks.intersection(&self.all).iter() {
                        *self.failures.entry(task).or_default() += 1;
                    }
                }
            }
        }
    }

    pub(super) fn make_ready(&mut self, attempt: Attempt, tasks: &IntervalSet) {
        if !tasks.is_empty() {
            match self.ready.binary_search_by_key(&attempt, |(attempt, _)| *attempt) {
                Ok(found) => {
                    let _ = self.ready[found].1.union_with(tasks);
                }
                Err(place) => {
                    self.ready.reserve_exact(1);
                    self.ready.insert(place, (attempt, tasks.clone()));
                }
            }
        }
    }

    pub(super) fn ready_remove(&mut self, tasks: &IntervalSet) {
        for (_, ready) in &mut self.ready {
            ready.subtract(tasks);
        }
        self.ready.retain(|(_, ready)| !ready.is_empty());
    }

    /// Takes tasks out of those that wait.
    pub(super) fn withhold(&mut self, tasks: &IntervalSet) {
        self.ready_remove(tasks);
        for (_, _, delayed) in &mut self.delayed {
            delayed.subtract(tasks);
        }
        self.delayed.retain(|(_, _, delayed)| !delayed.is_empty());
    }

    /// Everything that waits, ready or delayed.
    pub(super) fn waiting(&self) -> IntervalSet {
        let mut all = IntervalSet::new();
        let ready = self.ready.iter().map(|(_, tasks)| tasks);
        for tasks in ready.chain(self.delayed.iter().map(|(_, _, tasks)| tasks)) {
            let _ = all.union_with(tasks);
        }
        all
    }

    pub(super) fn ready_len(&self) -> u64 {
        self.ready.iter().map(|(_, ready)| ready.len()).sum()
    }

    /// Takes up to `count` tasks of one attempt, the lowest attempt first.
    pub(super) fn take_ready(&mut self, count: u64) -> Option<(Attempt, IntervalSet)> {
        let (attempt, ready) = self.ready.first_mut()?;
        let (attempt, tasks) = (*attempt, ready.take_first(count));
        if ready.is_empty() {
            self.ready.remove(0);
        }
        (!tasks.is_empty()).then_some((attempt, tasks))
    }

    /// Everything that waits, ready or delayed.
    pub(super) fn take_waiting(&mut self) -> IntervalSet {
        let all = self.waiting();
        self.ready.clear();
        self.delayed.clear();
        all
    }

    /// Decides what becomes of tasks that ended: sealed, or another attempt later.
    pub(super) fn settle(
        &mut self,
        now: Mono,
        tasks: &IntervalSet,
        outcome: &Outcome,
        attempt: Attempt,
        mut seal: impl FnMut(IntervalSet, Outcome),
    ) {
        let tasks = tasks.difference(&self.sealed);
        self.withhold(&tasks);
        let mut again = IntervalSet::new();
        self.remember(outcome, &tasks);
        let retryable = !self.cancelled && attempt.0 < limits::ATTEMPTS_MAX;
        match outcome {
            Outcome::Lost if retryable => again = tasks.clone(),
            Outcome::Exit(0) | Outcome::Cancelled | Outcome::Lost => {}
            Outcome::Exit(_) | Outcome::Signal(_) | Outcome::NotStarted(..) | Outcome::TimedOut | Outcome::Broke(_) => {
                if retryable && self.retries > 0 {
                    for task in tasks.iter() {
                        let failures = self.failures.get(&task).copied().unwrap_or(0);
                        if failures <= self.retries {
                            let _ = again.insert(task);
                        }
                    }
                }
            }
        }
        let finished = tasks.difference(&again);
        if !finished.is_empty() {
            let _ = self.sealed.union_with(&finished);
            let outcome =
                if self.cancelled && *outcome == Outcome::Lost { Outcome::Cancelled } else { outcome.clone() };
            seal(finished, outcome);
        }
        if !again.is_empty() {
            self.delay(now, attempt, outcome, again);
        }
    }

    fn delay(&mut self, now: Mono, attempt: Attempt, outcome: &Outcome, tasks: IntervalSet) {
        let next = Attempt(attempt.0 + 1);
        // A lost task did nothing wrong the first time: it goes again at once.
        if *outcome == Outcome::Lost && attempt.0 <= 2 {
            self.make_ready(next, &tasks);
            return;
        }
        let exponent = u32::from(attempt.0.saturating_sub(1)).min(16);
        let wait = BACKOFF_MS.saturating_mul(1 << exponent).min(BACKOFF_MS_MAX);
        // Spread by task number, so that retries of one array do not all come at once.
        let spread = u64::from(tasks.first().unwrap_or(0)) % (wait / 4 + 1);
        self.delayed.push((now.after_ms(wait + spread), next, tasks));
    }

    pub(super) fn release_due(&mut self, now: Mono) {
        for (due, attempt, tasks) in core::mem::take(&mut self.delayed) {
            if due <= now {
                self.make_ready(attempt, &tasks);
            } else {
                self.delayed.push((due, attempt, tasks));
            }
        }
    }

    pub(super) fn next_due(&self) -> Option<Mono> {
        self.delayed.iter().map(|(due, _, _)| *due).min()
    }

    /// Tasks not yet reported from a seat under open grants.
    pub(super) fn open_at(&self, seat: &Seat) -> u64 {
        self.open.values().filter(|open| open.seat == *seat).map(|open| open.left.len()).sum()
    }

    /// A finished grant tells how long a task takes: time from grant to last end, times the slots it could use, per task.
    pub(super) fn learn(&mut self, now: Mono, no: GrantNo) {
        let Some(open) = self.open.get(&no) else {
            return;
        };
        let sample = now.since_ms(open.since).checked_div(open.size).unwrap_or(0);
        self.task_ms = Some(self.task_ms.map_or(sample, |old| (old * 3 + sample) / 4));
    }
}
