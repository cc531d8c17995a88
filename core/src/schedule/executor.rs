//! The executor's side: which grants this node holds, what runs, and what fits.
//!
//! Invariants: what is reserved never exceeds what the node has; a task starts only under a grant whose acceptance is on disk (DESIGN J3); a grant once
//! refused stays refused, so a repeated offer cannot start what the owner has placed elsewhere.
//! Does not: start processes or write events; `machine` turns the answers into Effects.

mod resume;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use resume::{Resumed, is_on_machine};
use smol_str::SmolStr;

use super::fleet::RelaySlots;
use super::held::{Ended, Held, Lane, Offer, Place, Running, Start, Stop, Verdict};
use super::pool::{Pool, Worker, Workers};
use crate::facts::{Outcome, Submit, Usage};
use crate::ids::{GrantId, GrantNo, JobId, NodeId, RunId, Term};
use crate::lattice::IntervalSet;
use crate::limits;
use crate::namespace::Voice;
use crate::resources::Resources;
use crate::time::Mono;

/// The executor's books.
#[derive(Debug)]
pub struct Executor {
    me: NodeId,
    total: Resources,
    used: Resources,
    held: BTreeMap<GrantId, Held>,
    /// Grants with tasks to start. A lane that is not here is empty.
    lanes: BTreeMap<Lane, BTreeSet<Place>>,
    /// Runs per relay lane.
    relayed: BTreeMap<SmolStr, u32>,
    relays: Vec<RelaySlots>,
    workers: Workers,
    /// Runs that workers do.
    pooled: usize,
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
            lanes: BTreeMap::new(),
            relayed: BTreeMap::new(),
            relays: Vec::new(),
            workers: Workers::default(),
            pooled: 0,
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
        self.is_free() && self.free().cpu_milli > 0
    }

    /// What relays here serve.
    #[must_use]
    pub fn relays(&self) -> &[RelaySlots] {
        &self.relays
    }

    /// Takes note of what relays here serve now. What waits for one that is gone is lost to this node: its owner finds another.
    pub fn set_relays(&mut self, relays: Vec<RelaySlots>) -> Vec<Ended> {
        self.relays = relays;
        self.drop_lanes_without_hands()
    }

    /// The pools of the workers that take tasks now.
    #[must_use]
    pub fn pools(&self) -> Vec<Pool> {
        self.workers.pools()
    }

    /// How many workers there are.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// These are the workers now. What a worker had that is gone, and what waits for a pool that is gone, is lost to this node. Returns the runs that were
    /// lost, and how all of them ended.
    pub fn set_workers(&mut self, workers: Vec<Worker>) -> (Vec<RunId>, Vec<Ended>) {
        let gone = self.workers.set(workers);
        let is_lost = |running: &Running| running.worker.as_ref().is_some_and(|worker| gone.contains(worker));
        let lost: Vec<RunId> = self.runs.iter().filter(|(_, running)| is_lost(running)).map(|(run, _)| *run).collect();
        let mut ended: Vec<Ended> =
            lost.iter().filter_map(|run| self.on_ended(*run, Outcome::Lost, Usage::default())).collect();
        ended.extend(self.drop_lanes_without_hands());
        (lost, ended)
    }

    fn drop_lanes_without_hands(&mut self) -> Vec<Ended> {
        let gone: Vec<Lane> = self.lanes.keys().filter(|lane| !self.has_hands(lane)).cloned().collect();
        let places = gone.iter().filter_map(|lane| self.lanes.get(lane)).flatten();
        let grants: Vec<GrantId> = places.map(|(_, _, grant)| *grant).collect();
        grants.into_iter().filter_map(|grant| self.drop_queue(&grant, Outcome::Lost)).collect()
    }

    fn relay_slots(&self, ns: &str) -> u32 {
        self.relays.iter().find(|relay| relay.ns == ns).map_or(0, |relay| relay.slots)
    }

    /// Whether the grant was accepted here, and if so, whether that is on disk. An offer of it that comes late must neither start it again nor be refused.
    #[must_use]
    pub fn knows(&self, grant: &GrantId) -> Option<bool> {
        let over = self.is_over(grant).then_some(true);
        self.held.get(grant).map(|held| held.durable).or(over)
    }

    /// Whether the grant was accepted here, and nothing of it is left.
    #[must_use]
    pub fn is_over(&self, grant: &GrantId) -> bool {
        self.over.contains(grant) && !self.held.contains_key(grant)
    }

    /// Decides on an offer for a job with this submission.
    pub fn consider(&mut self, offer: &Offer, submit: &Submit) -> Verdict {
        if let Some(durable) = self.knows(&offer.grant) {
            return Verdict::Held(durable);
        }
        let same_job = self.held.keys().any(|grant| grant.job == offer.grant.job);
        let lane = Lane::of(submit, offer.pool.as_ref());
        let fits = match &lane {
            Lane::Machine => {
                self.total.covers(&submit.need) && (same_job || (self.is_free() && self.free().covers(&submit.need)))
            }
            // Relays are kept one round ahead.
            Lane::Relay(ns) => self.total.covers(&submit.need) && self.relay_slots(ns) > 0,
            Lane::Pool(pool) => {
                let has_room = !self.lanes.contains_key(&lane) && self.workers.is_free(pool);
                self.workers.fits(pool, &submit.need) && (same_job || has_room)
            }
        };
        let legal = !offer.tasks.is_empty() && submit.tasks.is_superset(&offer.tasks);
        if self.refused.contains(&offer.grant) || !fits || !legal || self.held.len() >= limits::HELD_GRANTS_MAX {
            self.refuse(offer.grant);
            return Verdict::Refuse;
        }
        self.next_arrival += 1;
        let held = Held {
            arrival: self.next_arrival,
            submit: Arc::new(submit.clone()),
            lane,
            attempt: offer.attempt,
            queue: offer.tasks.clone(),
            running: BTreeMap::new(),
            durable: false,
            usage: Usage::default(),
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

    /// Whether no grant waits for room on this machine.
    fn is_free(&self) -> bool {
        !self.lanes.contains_key(&Lane::Machine)
    }

    /// The acceptance is on disk: its tasks may start. If the hands that it was accepted for have gone meanwhile, they are lost, and that is returned.
    #[must_use]
    pub fn on_durable(&mut self, grant: &GrantId) -> Option<Ended> {
        let held = self.held.get_mut(grant)?;
        held.durable = true;
        if held.queue.is_empty() {
            return None;
        }
        let (lane, place) = (held.lane.clone(), (core::cmp::Reverse(held.submit.priority), held.arrival, *grant));
        if !self.has_hands(&lane) {
            return self.drop_queue(grant, Outcome::Lost);
        }
        self.lanes.entry(lane).or_default().insert(place);
        None
    }

    /// Whether there is anybody who could run a lane's tasks.
    fn has_hands(&self, lane: &Lane) -> bool {
        match lane {
            Lane::Machine => true,
            Lane::Relay(ns) => self.relay_slots(ns) > 0,
            Lane::Pool(pool) => self.workers.has(pool),
        }
    }

    /// Starts whatever fits, in order. Each lane stops at its first grant that does not fit, so that large tasks are not starved by small ones.
    pub fn pump(&mut self, now: Mono) -> Vec<Start> {
        let mut starts = Vec::new();
        for (lane, mut places) in core::mem::take(&mut self.lanes) {
            while let Some(place) = places.first().copied() {
                match self.start(now, &lane, place.2) {
                    Pumped::Full => break,
                    Pumped::Empty => {
                        places.pop_first();
                    }
                    Pumped::Started(start) => {
                        if self.held.get(&place.2).is_none_or(|held| held.queue.is_empty()) {
                            places.pop_first();
                        }
                        starts.push(start);
                    }
                }
            }
            if !places.is_empty() {
                self.lanes.insert(lane, places);
            }
        }
        starts
    }

    fn start(&mut self, now: Mono, lane: &Lane, grant: GrantId) -> Pumped {
        let slots_left = match lane {
            Lane::Machine | Lane::Pool(_) => u32::MAX,
            Lane::Relay(ns) => self.relay_slots(ns).saturating_sub(self.relayed.get(ns).copied().unwrap_or(0)),
        };
        let here = self.runs.len() - self.pooled - self.relayed.values().sum::<u32>() as usize;
        let Some(held) = self.held.get_mut(&grant) else {
            return Pumped::Empty;
        };
        if slots_left == 0
            || !self.total.minus(&self.used, 1).covers(&lane.reserves(&held.submit.need))
            || (*lane == Lane::Machine && slots_taken(here, &held.submit, &self.total))
        {
            return Pumped::Full;
        }
        let Some(task) = held.queue.first() else {
            return Pumped::Empty;
        };
        let worker = match lane {
            Lane::Machine => None,
            Lane::Relay(ns) => {
                *self.relayed.entry(ns.clone()).or_default() += 1;
                None
            }
            Lane::Pool(pool) => match self.workers.take(pool) {
                None => return Pumped::Full,
                worker => worker,
            },
        };
        held.queue.subtract(&IntervalSet::one(task));
        self.pooled += usize::from(worker.is_some());
        self.used = self.used.plus(&lane.reserves(&held.submit.need), 1);
        self.next_run += 1;
        let run = RunId(self.next_run);
        held.running.insert(task, run);
        let timeout_ms = held.submit.timeout_ms;
        let deadline = (timeout_ms > 0).then(|| now.after_ms(timeout_ms));
        self.runs.insert(run, Running { grant, task, worker: worker.clone(), deadline, stopping: None });
        Pumped::Started(Start { run, grant, task, attempt: held.attempt, submit: Arc::clone(&held.submit), worker })
    }

    /// A task ended and used so much; `None` if the run is not known.
    pub fn on_ended(&mut self, run: RunId, outcome: Outcome, usage: Usage) -> Option<Ended> {
        let running = self.runs.remove(&run)?;
        let held = self.held.get_mut(&running.grant)?;
        held.running.remove(&running.task);
        held.usage = held.usage.plus(&usage);
        self.used = self.used.minus(&held.lane.reserves(&held.submit.need), 1);
        if let Some(worker) = &running.worker {
            self.workers.give_back(worker);
            self.pooled = self.pooled.saturating_sub(1);
        }
        if let Lane::Relay(ns) = &held.lane
            && let Some(count) = self.relayed.get_mut(ns)
        {
            *count = count.saturating_sub(1);
        }
        let outcome = match (running.stopping, outcome) {
            // A task that was told to stop but finished well all the same did finish.
            (None, outcome) | (Some(_), outcome @ Outcome::Exit(0)) => outcome,
            (Some(Stop::Timeout), _) => Outcome::TimedOut,
            (Some(Stop::Cancel), _) => Outcome::Cancelled,
            (Some(Stop::GiveUp), _) => Outcome::Lost,
        };
        let ended = held.ended(running.grant, IntervalSet::one(running.task), outcome);
        if held.running.is_empty() && held.queue.is_empty() {
            self.let_go(running.grant);
        }
        Some(ended)
    }

    /// The job was cancelled: what must be killed, and what will never start.
    pub fn on_cancel(&mut self, job: &JobId) -> (Vec<RunId>, Vec<Ended>) {
        let mut kills = Vec::new();
        let mut dropped = Vec::new();
        for grant in self.grants_of(job) {
            dropped.extend(self.drop_queue(&grant, Outcome::Cancelled));
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
        let _withdrawn = self.drop_queue(&grant, Outcome::Lost);
        self.refuse(grant);
    }

    fn let_go(&mut self, grant: GrantId) {
        self.held.remove(&grant);
        self.close(grant);
    }

    /// Remembers that nothing of a grant is left to do here: an offer of it that comes late has been accepted.
    pub fn close(&mut self, grant: GrantId) {
        self.over.push_back(grant);
        if self.over.len() > limits::HELD_GRANTS_MAX {
            self.over.pop_front();
        }
    }

    /// Grants held now.
    #[must_use]
    pub fn held_grants(&self) -> Vec<GrantId> {
        self.held.keys().copied().collect()
    }

    /// Whether anything of a job is held.
    #[must_use]
    pub fn holds(&self, job: &JobId) -> bool {
        let first = GrantId { job: *job, no: GrantNo { term: Term::default(), no: 0 } };
        self.held.range(first..).next().is_some_and(|(grant, _)| grant.job == *job)
    }

    fn grants_of(&self, job: &JobId) -> Vec<GrantId> {
        self.held.keys().filter(|grant| grant.job == *job).copied().collect()
    }

    /// Takes what has not started out of a grant.
    fn drop_queue(&mut self, grant: &GrantId, outcome: Outcome) -> Option<Ended> {
        let held = self.held.get_mut(grant)?;
        let tasks = core::mem::take(&mut held.queue);
        let lane = held.lane.clone();
        let place = (core::cmp::Reverse(held.submit.priority), held.arrival, *grant);
        let dropped = (!tasks.is_empty()).then(|| held.ended(*grant, tasks, outcome));
        if held.running.is_empty() {
            self.let_go(*grant);
        }
        if let Some(places) = self.lanes.get_mut(&lane) {
            places.remove(&place);
            if places.is_empty() {
                self.lanes.remove(&lane);
            }
        }
        dropped
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

    /// The grant and task of a run, and how their job is spoken of.
    #[must_use]
    pub fn run(&self, run: &RunId) -> Option<(GrantId, u32, Voice)> {
        let running = self.runs.get(run)?;
        let held = self.held.get(&running.grant)?;
        Some((running.grant, running.task, Voice::of(&held.submit)))
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

/// What came of an attempt to start the next task of a grant.
enum Pumped {
    /// It started.
    Started(Start),
    /// There is nothing to start.
    Empty,
    /// There is no room for it.
    Full,
}

/// Tasks that need nothing are still bounded: as many as there are cores.
fn slots_taken(running: usize, submit: &Submit, total: &Resources) -> bool {
    submit.need == Resources::default() && running >= total.slots(&Resources::default()) as usize
}
