//! The owner's side: which tasks of its jobs wait, who is granted them, and what is sealed.
//!
//! Invariants: a task is in exactly one place: ready, delayed, in one open grant, or sealed; only the owner raises an attempt (DESIGN J6) and only it seals (J8);
//! everything here can be rebuilt from Facts, after a restart and by another node that adopts the job.
//! Does not: write events or talk to nodes; `machine` carries out its `Decision`s.

use std::collections::{BTreeMap, BTreeSet};

use super::decision::{Decision, Pending};
use super::owned::{Open, Owned};
use super::place::Candidate;
use super::pool::{Pool, as_room};
use super::requests::Requests;
use crate::facts::{Job, Outcome};
use crate::ids::{Epoch, GrantId, GrantNo, JobId, NodeId, Seat, Term};
use crate::lattice::IntervalSet;
use crate::limits;
use crate::resources::Resources;
use crate::time::Mono;

/// A seat's room, as the owner reckons it between two presences.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    pub(super) total: Resources,
    /// Reserved there by other owners' tasks, when the node last spoke.
    pub(super) others: Resources,
    /// Reserved there by this owner's open grants.
    pub(super) mine: Resources,
    /// Tasks for its relays or workers were refused; holds until the node speaks of itself again, so that a refusal is not answered by the same offer at once.
    pub(super) refused: bool,
}

impl Room {
    pub(super) fn free(&self) -> Resources {
        self.total.minus(&self.others, 1).minus(&self.mine, 1)
    }
}

/// The owner's books.
#[derive(Debug, Default)]
pub struct Owner {
    /// Boxed, because a tree's nodes are half empty.
    pub(super) jobs: BTreeMap<JobId, Box<Owned>>,
    /// Jobs with tasks ready to be granted, most urgent first.
    pub(super) queue: BTreeSet<(core::cmp::Reverse<i32>, JobId)>,
    /// Jobs that no candidate could ever take, kept out of the way of those that can be placed.
    parked: BTreeSet<(core::cmp::Reverse<i32>, JobId)>,
    /// The candidates that `parked` was judged against.
    judged: Vec<Candidate>,
    pub(super) rooms: BTreeMap<Seat, Room>,
    /// Open grants by where they run.
    pub(super) by_seat: BTreeMap<Seat, BTreeSet<GrantId>>,
    /// Delayed retries: when, and of which job.
    delayed: BTreeSet<(Mono, JobId)>,
    /// Clients' idempotency keys.
    pub(super) requests: Requests,
    /// Grants on disk whose offer has not been answered, by when to ask (again).
    pub(super) unanswered: BTreeSet<(Mono, GrantId)>,
    /// No grant gets a lower number.
    pub(super) first_grant: u32,
}

/// Grants of one job in one epoch of its owner, before their numbers run into the next epoch's.
const GRANTS_PER_EPOCH: u32 = 1 << 16;
/// Later epochs share their numbers with this one.
const NUMBERED_EPOCHS: u64 = 1 << 15;

impl Owner {
    /// From now on this node writes in `epoch`. An owner whose disk has lost grants may come to hear of them after it has made others, so those of each epoch have
    /// numbers of their own: no two grants are taken for one.
    pub fn on_epoch(&mut self, epoch: Epoch) {
        let before = epoch.0.saturating_sub(1).min(NUMBERED_EPOCHS - 1);
        let first = u32::try_from(before).unwrap_or(0) * GRANTS_PER_EPOCH + 1;
        self.first_grant = self.first_grant.max(first);
    }

    /// A fold changed a job that this node owns in `term`; `grant` names the grant it concerned, if one.
    pub fn on_job(
        &mut self,
        now: Mono,
        (id, term): (JobId, Term),
        job: &Job,
        grant: Option<GrantNo>,
        decisions: &mut Vec<Decision>,
    ) {
        let Some(submit) = job.submit.as_ref() else {
            return;
        };
        if !self.jobs.contains_key(&id) {
            self.remember_request(id, submit);
            if job.is_sealed() {
                return;
            }
            let mut owned = Owned::new(submit, job, term);
            owned.next_grant = owned.next_grant.max(self.first_grant);
            self.jobs.insert(id, Box::new(owned));
            // A task that was granted again later is no longer the earlier grant's to decide.
            let mut later = IntervalSet::new();
            for (no, grant) in job.grants.iter().rev() {
                self.reopen(now, GrantId { job: id, no: *no }, grant, &later);
                if let Some(placed) = grant.placed.as_ref() {
                    let _ = later.union_with(&placed.tasks);
                }
            }
            for no in job.grants.iter().map(|(no, _)| *no).collect::<Vec<_>>() {
                self.on_report(now, GrantId { job: id, no }, job, decisions);
            }
            self.ask_again(now, id);
        } else if let Some(no) = grant {
            let grant = GrantId { job: id, no };
            self.on_news_of(now, grant, job, decisions);
            self.on_report(now, grant, job, decisions);
        }
        self.learn_seals(id, job);
        if job.cancel.0.is_some() {
            self.cancel(id, decisions);
        }
        self.requeue(id);
        // Only once the seals are in the log: until then a fold must not find the job gone and begin it anew.
        if job.is_sealed() {
            self.forget(id);
        }
    }

    fn reopen(&mut self, now: Mono, id: GrantId, grant: &crate::facts::Grant, later: &IntervalSet) {
        let (Some(owned), Some(placed)) = (self.jobs.get_mut(&id.job), grant.placed.as_ref()) else {
            return;
        };
        owned.next_grant = owned.next_grant.max(id.no.no.saturating_add(1));
        // An author that forked may have granted tasks of another job of this id.
        let mut left = owned.all.intersection(&placed.tasks).difference(&owned.sealed);
        left.subtract(later);
        if grant.void {
            left = IntervalSet::new();
        }
        for (outcome, tasks) in grant.run().iter().flat_map(|run| run.ended.iter()) {
            owned.remember(outcome, &tasks.difference(&left));
        }
        owned.ready_remove(&left);
        if left.is_empty() {
            return;
        }
        owned.open.insert(id.no, Open::new(placed.seat(), placed.attempt, left, now));
        self.by_seat.entry(placed.seat()).or_default().insert(id);
        self.recount(&placed.seat());
    }

    /// Looks at what the granted executor reports: seals, retries, closes.
    fn on_report(&mut self, now: Mono, id: GrantId, job: &Job, decisions: &mut Vec<Decision>) {
        let Some(grant) = job.grants.lookup(&id.no) else {
            return;
        };
        let (Some(run), Some(placed)) = (grant.run(), grant.placed.as_ref()) else {
            return;
        };
        let Some(owned) = self.jobs.get_mut(&id.job) else {
            return;
        };
        let was_open = owned.open.contains_key(&id.no);
        let mut ended_any = false;
        for (outcome, tasks) in run.ended.iter() {
            let fresh = match owned.open.get(&id.no) {
                Some(open) => open.left.intersection(tasks),
                // A withdrawn grant that finished after all: its success spares the retry.
                None if outcome.is_success() => placed.tasks.intersection(tasks).difference(&owned.sealed),
                None => IntervalSet::new(),
            };
            if fresh.is_empty() {
                continue;
            }
            ended_any = true;
            if let Some(open) = owned.open.get_mut(&id.no) {
                open.left.subtract(&fresh);
            }
            owned.settle(now, &fresh, outcome, placed.attempt, |tasks, outcome| {
                decisions.push(Decision::Seal { job: id.job, tasks, outcome });
            });
        }
        if let Some(open) = owned.open.get_mut(&id.no) {
            open.hear_report();
        }
        if let Some(due) = owned.next_due() {
            self.delayed.insert((due, id.job));
        }
        if owned.open.get(&id.no).is_some_and(|open| open.left.is_empty()) {
            owned.learn(now, id.no);
            self.close(id);
        } else if ended_any && was_open {
            self.recount(&placed.seat());
        } else if ended_any {
            self.forgo_sealed(id.job);
        }
    }

    pub(super) fn close(&mut self, id: GrantId) {
        let Some(open) = self.jobs.get_mut(&id.job).and_then(|owned| owned.open.remove(&id.no)) else {
            return;
        };
        if let Some(grants) = self.by_seat.get_mut(&open.seat) {
            grants.remove(&id);
        }
        self.recount(&open.seat);
    }

    pub(super) fn recount(&mut self, seat: &Seat) {
        let Some(total) = self.rooms.get(seat).map(|room| room.total) else {
            return;
        };
        let mine = self.reserved(seat, &total);
        if let Some(room) = self.rooms.get_mut(seat) {
            room.mine = mine;
        }
    }

    /// What this owner's open grants reserve at a seat that has `total`.
    fn reserved(&self, seat: &Seat, total: &Resources) -> Resources {
        let mut mine = Resources::default();
        for grant in self.by_seat.get(seat).into_iter().flatten() {
            let Some(owned) = self.jobs.get(&grant.job) else {
                continue;
            };
            let left = owned.open.get(&grant.no).map_or(0, |open| open.left.len());
            let need = owned.need_at(seat);
            mine = mine.plus(&need, left.min(u64::from(total.slots(&need))));
        }
        mine
    }

    /// Tasks for a namespace's relays that this owner's open grants have at a node.
    pub(super) fn relay_tasks_at(&self, seat: &Seat, ns: &str) -> u64 {
        let grants = self.by_seat.get(seat).into_iter().flatten();
        let open = grants.filter_map(|grant| {
            let owned = self.jobs.get(&grant.job).filter(|owned| owned.relay.as_deref() == Some(ns))?;
            owned.open.get(&grant.no).map(|open| open.left.len())
        });
        open.sum()
    }

    fn cancel(&mut self, id: JobId, decisions: &mut Vec<Decision>) {
        let Some(owned) = self.jobs.get_mut(&id) else {
            return;
        };
        owned.cancelled = true;
        let tasks = owned.take_waiting();
        if !tasks.is_empty() {
            let _ = owned.sealed.union_with(&tasks);
            decisions.push(Decision::Seal { job: id, tasks, outcome: Outcome::Cancelled });
        }
    }

    fn requeue(&mut self, id: JobId) {
        let Some(owned) = self.jobs.get(&id) else {
            return;
        };
        let key = (core::cmp::Reverse(owned.priority), id);
        if owned.ready_len() > 0 {
            self.queue.insert(key);
        } else {
            self.queue.remove(&key);
            self.parked.remove(&key);
        }
    }

    /// Takes a job that no candidate could ever run out of the queue, until the candidates change.
    pub(super) fn park(&mut self, id: JobId) {
        let Some(owned) = self.jobs.get(&id) else {
            return;
        };
        let key = (core::cmp::Reverse(owned.priority), id);
        if self.queue.remove(&key) {
            self.parked.insert(key);
        }
    }

    /// Looks at parked jobs again if the candidates are not those that they were judged against.
    pub(super) fn unpark_if_changed(&mut self, candidates: &[Candidate]) {
        if self.judged != candidates {
            self.judged = candidates.to_vec();
            self.queue.append(&mut self.parked);
        }
    }

    pub(super) fn forget(&mut self, id: JobId) {
        if let Some(owned) = self.jobs.remove(&id) {
            let key = (core::cmp::Reverse(owned.priority), id);
            self.queue.remove(&key);
            self.parked.remove(&key);
            for (no, open) in &owned.open {
                if let Some(grants) = self.by_seat.get_mut(&open.seat) {
                    grants.remove(&GrantId { job: id, no: *no });
                }
                self.recount(&open.seat);
            }
        }
    }

    /// A grant is in the log: it may be offered now.
    pub fn on_granted(&mut self, now: Mono, grant: GrantId) {
        if self.jobs.get(&grant.job).is_some_and(|owned| owned.open.contains_key(&grant.no)) {
            self.unanswered.insert((now, grant));
        }
    }

    /// The executor `by` took the grant.
    pub fn on_accepted(&mut self, by: &NodeId, grant: &GrantId) {
        if let Some(open) = self.open_mut(grant).filter(|open| open.seat.node == *by) {
            open.accept();
        }
    }

    /// The executor refused the grant, so none of it started or will: place it elsewhere, same attempt.
    pub fn on_refused(&mut self, by: &NodeId, grant: GrantId, decisions: &mut Vec<Decision>) {
        let Some(owned) = self.jobs.get_mut(&grant.job) else {
            return;
        };
        let Some(open) = owned.open.get(&grant.no) else {
            return;
        };
        if open.accepted || open.seat.node != *by {
            return;
        }
        if (owned.relay.is_some() || open.seat.pool.is_some())
            && let Some(room) = self.rooms.get_mut(&open.seat)
        {
            room.refused = true;
        }
        decisions.push(Decision::Void(grant));
        let (attempt, left) = (open.attempt, open.left.difference(&owned.sealed));
        owned.make_ready(attempt, &left);
        self.after_void(grant, decisions);
    }

    /// A node is dead: what it had not reported is granted again as the next attempt.
    pub fn on_dead(&mut self, now: Mono, node: &NodeId, decisions: &mut Vec<Decision>) {
        let grants: Vec<GrantId> = self.seats_of(node).flat_map(|(_, grants)| grants).copied().collect();
        for grant in grants.into_iter().filter(|grant| self.is_open(grant)).collect::<Vec<_>>() {
            decisions.push(Decision::Void(grant));
            self.lose(now, grant, decisions);
        }
        self.by_seat.retain(|seat, _| seat.node != *node);
        self.rooms.retain(|seat, _| seat.node != *node);
    }

    pub(super) fn seats_of(&self, node: &NodeId) -> impl Iterator<Item = (&Seat, &BTreeSet<GrantId>)> {
        let node = *node;
        self.by_seat.range(Seat::machine(node)..).take_while(move |(seat, _)| seat.node == node)
    }

    /// What is left of a grant will not be done under it.
    pub(super) fn lose(&mut self, now: Mono, grant: GrantId, decisions: &mut Vec<Decision>) {
        let Some(owned) = self.jobs.get_mut(&grant.job) else {
            return;
        };
        let Some(open) = owned.open.get(&grant.no).cloned() else {
            return;
        };
        owned.settle(now, &open.left, &Outcome::Lost, open.attempt, |tasks, outcome| {
            decisions.push(Decision::Seal { job: grant.job, tasks, outcome });
        });
        if let Some(due) = owned.next_due() {
            self.delayed.insert((due, grant.job));
        }
        self.after_void(grant, decisions);
    }

    fn after_void(&mut self, grant: GrantId, decisions: &mut Vec<Decision>) {
        self.close(grant);
        if self.jobs.get(&grant.job).is_some_and(|owned| owned.cancelled) {
            self.cancel(grant.job, decisions);
        }
        self.requeue(grant.job);
    }

    /// A node said what it has at one of its seats.
    pub fn on_room(&mut self, seat: Seat, total: Resources, free: Resources) {
        let mine = self.reserved(&seat, &total);
        let room = self.rooms.entry(seat).or_default();
        if room.total != total {
            room.total = total;
            self.judged.clear();
        }
        room.mine = mine;
        room.others = total.minus(&free, 1).minus(&mine, 1);
    }

    /// A node's workers, as it tells of them now.
    pub fn on_pools(&mut self, node: NodeId, pools: &[Pool]) {
        for pool in pools {
            let seat = Seat { node, pool: Some(pool.name.clone()) };
            self.on_room(seat, as_room(pool.slots), as_room(pool.free));
        }
        let is_gone = |seat: &&Seat| seat.pool.as_ref().is_some_and(|name| pools.iter().all(|pool| pool.name != *name));
        let seats = self.rooms.range(Seat::machine(node)..).map(|(seat, _)| seat).take_while(|seat| seat.node == node);
        let gone: Vec<Seat> = seats.filter(is_gone).cloned().collect();
        for seat in gone {
            self.rooms.remove(&seat);
        }
    }

    /// A node spoke of itself: its relays and workers may be offered tasks again.
    pub fn on_word(&mut self, node: &NodeId) {
        let seats = self.rooms.range_mut(Seat::machine(*node)..).take_while(|(seat, _)| seat.node == *node);
        for (_, room) in seats {
            room.refused = false;
        }
    }

    /// Moves retries whose delay is over to the queue.
    pub fn on_time(&mut self, now: Mono) {
        while let Some((due, id)) = self.delayed.first().copied() {
            if due > now {
                break;
            }
            self.delayed.pop_first();
            if let Some(owned) = self.jobs.get_mut(&id) {
                owned.release_due(now);
                if let Some(next) = owned.next_due() {
                    self.delayed.insert((next, id));
                }
                self.requeue(id);
            }
        }
    }

    /// Offers to make now; each comes again after `retry_ms` until it is answered.
    pub fn offers_due(&mut self, now: Mono, retry_ms: u64) -> Vec<Pending> {
        let mut offers = Vec::new();
        while let Some((due, grant)) = self.unanswered.first().copied() {
            if due > now {
                break;
            }
            self.unanswered.pop_first();
            let Some(open) = self.jobs.get(&grant.job).and_then(|owned| owned.open.get(&grant.no)) else {
                continue;
            };
            if open.accepted {
                continue;
            }
            offers.push(Pending { seat: open.seat.clone(), grant, attempt: open.attempt, tasks: open.left.clone() });
            self.unanswered.insert((now.after_ms(retry_ms), grant));
        }
        offers
    }

    /// The next moment at which `on_time` or `offers_due` would do something.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let retry = self.delayed.first().map(|(due, _)| *due);
        let offer = self.unanswered.first().map(|(due, _)| *due);
        retry.into_iter().chain(offer).min()
    }

    pub(super) fn is_open(&self, grant: &GrantId) -> bool {
        self.jobs.get(&grant.job).is_some_and(|owned| owned.open.contains_key(&grant.no))
    }

    pub(super) fn open_mut(&mut self, grant: &GrantId) -> Option<&mut Open> {
        self.jobs.get_mut(&grant.job)?.open.get_mut(&grant.no)
    }

    pub(super) fn add_open(&mut self, grant: GrantId, seat: &Seat) {
        self.by_seat.entry(seat.clone()).or_default().insert(grant);
        self.recount(seat);
    }

    /// Tasks ready to be granted, over all jobs.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.queue
            .iter()
            .take(limits::PLACE_SCAN_MAX)
            .filter_map(|(_, id)| self.jobs.get(id))
            .map(|owned| owned.ready_len())
            .sum()
    }

    /// Whether any task waits to be granted, be it to nodes that are not there.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.parked.is_empty()
    }

    /// Jobs not yet sealed.
    #[must_use]
    pub fn unsealed(&self) -> usize {
        self.jobs.len()
    }

    /// Nodes that hold open grants, so that their death matters. One with several seats may come several times.
    pub fn executors(&self) -> impl Iterator<Item = &NodeId> {
        self.by_seat.iter().filter(|(_, grants)| !grants.is_empty()).map(|(seat, _)| &seat.node)
    }

    /// How many jobs stand before `id` in the queue.
    #[must_use]
    pub fn position(&self, id: &JobId) -> Option<usize> {
        self.queue.iter().position(|(_, queued)| queued == id)
    }
}
