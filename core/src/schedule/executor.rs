//! The executor's side: which grants this node holds, what runs, and what fits.
//!
//! Invariants: what is reserved never exceeds what the node has; a task starts only under a grant whose acceptance is on disk (DESIGN J3); a grant once
//! refused stays refused, so a repeated offer cannot start what the owner has placed elsewhere.
//! Does not: start processes or write events; `machine` turns the answers into Effects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::facts::{Outcome, Submit};
use crate::ids::{Attempt, GrantId, JobId, NodeId, RunId};
use crate::lattice::IntervalSet;
use crate::limits;
use crate::resources::Resources;
use crate::time::Mono;

/// What an owner asks of an executor.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Offer {
    /// The grant, already in the owner's log.
    #[n(0)]
    pub grant: GrantId,
    /// The attempt.
    #[n(1)]
    pub attempt: Attempt,
    /// The tasks.
    #[n(2)]
    pub tasks: IntervalSet,
}

/// What the executor makes of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// New: to be written to disk, then started.
    Accept,
    /// Accepted before; `true` once that is on disk.
    Held(bool),
    /// It does not fit now, or was refused before.
    Refuse,
}

#[derive(Debug)]
struct Held {
    arrival: u64,
    submit: Arc<Submit>,
    attempt: Attempt,
    queue: IntervalSet,
    running: BTreeMap<u32, RunId>,
    durable: bool,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    grant: GrantId,
    task: u32,
    deadline: Option<Mono>,
    /// Why it is being stopped, if it is.
    stopping: Option<Stop>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Timeout,
    Cancel,
}

/// A task to start now.
#[derive(Clone, Debug)]
pub struct Start {
    /// The handle under which its end will be told.
    pub run: RunId,
    /// The grant.
    pub grant: GrantId,
    /// The task.
    pub task: u32,
    /// The attempt.
    pub attempt: Attempt,
    /// The submission with its spec.
    pub submit: Arc<Submit>,
}

/// A task that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The grant.
    pub grant: GrantId,
    /// The tasks.
    pub tasks: IntervalSet,
    /// How.
    pub outcome: Outcome,
}

/// The executor's books.
#[derive(Debug)]
pub struct Executor {
    me: NodeId,
    total: Resources,
    used: Resources,
    held: BTreeMap<GrantId, Held>,
    /// Grants with tasks to start, first come first served within a priority.
    order: BTreeSet<(core::cmp::Reverse<i32>, u64, GrantId)>,
    runs: BTreeMap<RunId, Running>,
    refused: VecDeque<GrantId>,
    /// Accepted once, nothing of it left.
    over: VecDeque<GrantId>,
    next_arrival: u64,
    next_run: u64,
}

impl Executor {
    /// A node that offers `total`.
    #[must_use]
    pub fn new(me: NodeId, total: Resources) -> Self {
        Self {
            me,
            total,
            used: Resources::default(),
            held: BTreeMap::new(),
            order: BTreeSet::new(),
            runs: BTreeMap::new(),
            refused: VecDeque::new(),
            over: VecDeque::new(),
            next_arrival: 0,
            next_run: 0,
        }
    }

    /// What is not reserved.
    #[must_use]
    pub fn free(&self) -> Resources {
        self.total.minus(&self.used, 1)
    }

    /// What is reserved.
    #[must_use]
    pub fn used(&self) -> Resources {
        self.used
    }

    /// Everything.
    #[must_use]
    pub fn total(&self) -> Resources {
        self.total
    }

    /// Tasks running now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.runs.len()
    }

    /// Grants held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether it could start something that needs little.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.order.is_empty() && self.free().cpu_milli > 0
    }

    /// Whether the grant was accepted here, and if so, whether that is on disk. An offer of it that comes late must neither start it again nor be refused.
    #[must_use]
    pub fn knows(&self, grant: &GrantId) -> Option<bool> {
        let over = self.over.contains(grant).then_some(true);
        self.held.get(grant).map(|held| held.durable).or(over)
    }

    /// Decides on an offer for a job with this submission.
    pub fn consider(&mut self, offer: &Offer, submit: &Submit) -> Verdict {
        if let Some(durable) = self.knows(&offer.grant) {
            return Verdict::Held(durable);
        }
        let same_job = self.held.keys().any(|grant| grant.job == offer.grant.job);
        let fits = self.total.covers(&submit.need)
            && (same_job || (self.order.is_empty() && self.free().covers(&submit.need)));
        let legal = !offer.tasks.is_empty() && submit.tasks.is_superset(&offer.tasks);
        if self.refused.contains(&offer.grant) || !fits || !legal || self.held.len() >= limits::HELD_GRANTS_MAX {
            self.refuse(offer.grant);
            return Verdict::Refuse;
        }
        self.next_arrival += 1;
        let held = Held {
            arrival: self.next_arrival,
            submit: Arc::new(submit.clone()),
            attempt: offer.attempt,
            queue: offer.tasks.clone(),
            running: BTreeMap::new(),
            durable: false,
        };
        self.held.insert(offer.grant, held);
        Verdict::Accept
    }

    /// Remembers that a grant will not be run here.
    pub fn refuse(&mut self, grant: GrantId) {
        if !self.refused.contains(&grant) {
            self.refused.push_back(grant);
        }
        if self.refused.len() > limits::HELD_GRANTS_MAX {
            self.refused.pop_front();
        }
    }

    /// The acceptance is on disk: its tasks may start.
    pub fn on_durable(&mut self, grant: &GrantId) {
        if let Some(held) = self.held.get_mut(grant) {
            held.durable = true;
            if !held.queue.is_empty() {
                self.order.insert((core::cmp::Reverse(held.submit.priority), held.arrival, *grant));
            }
        }
    }

    /// Starts whatever fits, in order. Stops at the first grant that does not fit, so that large tasks are not starved by small ones.
    pub fn pump(&mut self, now: Mono) -> Vec<Start> {
        let mut starts = Vec::new();
        while let Some((priority, arrival, grant)) = self.order.first().copied() {
            let Some(held) = self.held.get_mut(&grant) else {
                self.order.pop_first();
                continue;
            };
            if !self.total.minus(&self.used, 1).covers(&held.submit.need)
                || slots_taken(&self.runs, &held.submit, &self.total)
            {
                break;
            }
            let Some(task) = held.queue.take_first(1).first() else {
                self.order.remove(&(priority, arrival, grant));
                continue;
            };
            self.used = self.used.plus(&held.submit.need, 1);
            self.next_run += 1;
            let run = RunId(self.next_run);
            held.running.insert(task, run);
            let timeout_ms = held.submit.timeout_ms;
            let deadline = (timeout_ms > 0).then(|| now.after_ms(timeout_ms));
            self.runs.insert(run, Running { grant, task, deadline, stopping: None });
            starts.push(Start { run, grant, task, attempt: held.attempt, submit: Arc::clone(&held.submit) });
            if held.queue.is_empty() {
                self.order.remove(&(priority, arrival, grant));
            }
        }
        starts
    }

    /// A task's process ended; `None` if the run is not known.
    pub fn on_ended(&mut self, run: RunId, outcome: Outcome) -> Option<Ended> {
        let running = self.runs.remove(&run)?;
        let held = self.held.get_mut(&running.grant)?;
        held.running.remove(&running.task);
        self.used = self.used.minus(&held.submit.need, 1);
        if held.running.is_empty() && held.queue.is_empty() {
            self.let_go(running.grant);
        }
        let outcome = match (running.stopping, outcome) {
            // A task that was told to stop but finished well all the same did finish.
            (None, outcome) | (Some(_), outcome @ Outcome::Exit(0)) => outcome,
            (Some(Stop::Timeout), _) => Outcome::TimedOut,
            (Some(Stop::Cancel), _) => Outcome::Cancelled,
        };
        Some(Ended { grant: running.grant, tasks: IntervalSet::one(running.task), outcome })
    }

    /// The job was cancelled: what must be killed, and what will never start.
    pub fn on_cancel(&mut self, job: &JobId) -> (Vec<RunId>, Vec<Ended>) {
        let mut kills = Vec::new();
        let mut dropped = Vec::new();
        for grant in self.grants_of(job) {
            dropped.extend(self.drop_queue(&grant).map(|tasks| Ended { grant, tasks, outcome: Outcome::Cancelled }));
        }
        for (run, running) in &mut self.runs {
            if running.grant.job == *job && running.stopping.is_none() {
                running.stopping = Some(Stop::Cancel);
                kills.push(*run);
            }
        }
        (kills, dropped)
    }

    /// The owner withdrew the grant: what has not started never will.
    pub fn on_void(&mut self, grant: GrantId) {
        let _ = self.drop_queue(&grant);
        self.refuse(grant);
    }

    fn let_go(&mut self, grant: GrantId) {
        self.held.remove(&grant);
        self.over.push_back(grant);
        if self.over.len() > limits::HELD_GRANTS_MAX {
            self.over.pop_front();
        }
    }

    fn grants_of(&self, job: &JobId) -> Vec<GrantId> {
        self.held.keys().filter(|grant| grant.job == *job).copied().collect()
    }

    fn drop_queue(&mut self, grant: &GrantId) -> Option<IntervalSet> {
        let held = self.held.get_mut(grant)?;
        let tasks = core::mem::take(&mut held.queue);
        self.order.remove(&(core::cmp::Reverse(held.submit.priority), held.arrival, *grant));
        if held.running.is_empty() {
            self.let_go(*grant);
        }
        (!tasks.is_empty()).then_some(tasks)
    }

    /// Runs past their limit, to be killed.
    pub fn overdue(&mut self, now: Mono) -> Vec<RunId> {
        let mut kills = Vec::new();
        for (run, running) in &mut self.runs {
            if running.stopping.is_none() && running.deadline.is_some_and(|deadline| deadline <= now) {
                running.stopping = Some(Stop::Timeout);
                kills.push(*run);
            }
        }
        kills
    }

    /// The next moment at which `overdue` would find something.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.runs.values().filter(|running| running.stopping.is_none()).filter_map(|running| running.deadline).min()
    }

    /// The grant and task of a run.
    #[must_use]
    pub fn run(&self, run: &RunId) -> Option<(GrantId, u32)> {
        self.runs.get(run).map(|running| (running.grant, running.task))
    }

    /// All runs, for `invariants::check`.
    pub fn runs(&self) -> impl Iterator<Item = (GrantId, u32)> + '_ {
        self.runs.values().map(|running| (running.grant, running.task))
    }

    /// Which node this is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.me
    }
}

/// Tasks that need nothing are still bounded: as many as there are cores.
fn slots_taken(runs: &BTreeMap<RunId, Running>, submit: &Submit, total: &Resources) -> bool {
    submit.need == Resources::default() && runs.len() >= total.slots(&Resources::default()) as usize
}
