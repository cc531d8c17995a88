//! What an owner does about grants and seals that it did not make in this life: an earlier owner's, and its own before it was started anew.
//!
//! Invariants: a task that runs under somebody's grant is not granted again as long as its executor answers for it; what an earlier owner sealed stays sealed.
//! Does not: decide who owns a job (`machine` does).

use super::decision::Decision;
use super::owned::Open;
use super::owner::Owner;
use crate::facts::{Job, Submit};
use crate::ids::{GrantId, JobId, JobNo, LogId, NodeId};
use crate::time::Mono;

impl Owner {
    /// Keeps the idempotency key of a submission.
    pub fn remember_request(&mut self, id: JobId, submit: &Submit) {
        self.requests.add(&submit.request, id);
    }

    /// Tasks of a grant of this owner's were found, which its log may have lost with all of its epoch: no other grant gets that number.
    pub fn on_survivor(&mut self, grant: &GrantId) {
        self.first_grant = self.first_grant.max(grant.no.no.saturating_add(1));
    }

    /// Whether the books of a job, if they are open, were opened for the submission that counts.
    #[must_use]
    pub fn fits(&self, id: &JobId, job: &Job) -> bool {
        self.jobs.get(id).zip(job.submit.as_ref()).is_none_or(|(owned, submit)| owned.is_of(submit))
    }

    /// Whatever executors said before the books were opened, they are asked again: one may have been started anew meanwhile and know nothing of it.
    pub(super) fn ask_again(&mut self, now: Mono, id: JobId) {
        for (no, open) in self.jobs.get_mut(&id).into_iter().flat_map(|owned| owned.open.iter_mut()) {
            open.doubt();
            self.unanswered.insert((now, GrantId { job: id, no: *no }));
        }
    }

    /// News of a grant. One that somebody else withdrew, and that is counted on here, is not to be expected any more. It may be this owner's own: one that was
    /// superseded, and has heard of the grant before it heard of that, takes it for dead with its executor. What waits here, and another owner granted on the other
    /// side of a partition, is not granted here too, begun or not: books that are opened anew count on it as well.
    pub(super) fn on_news_of(&mut self, now: Mono, id: GrantId, job: &Job, decisions: &mut Vec<Decision>) {
        if self.is_open(&id) && job.grants.lookup(&id.no).is_some_and(|grant| grant.void) {
            return self.lose(now, id, decisions);
        }
        if self.jobs.get(&id.job).is_none_or(|owned| owned.term == id.no.term) {
            return;
        }
        let (Some(owned), Some(grant)) = (self.jobs.get_mut(&id.job), job.grants.lookup(&id.no)) else {
            return;
        };
        let Some(placed) = grant.placed.as_ref().filter(|_| !grant.void && !owned.open.contains_key(&id.no)) else {
            return;
        };
        let waiting = owned.waiting().intersection(&placed.tasks);
        if waiting.is_empty() {
            return;
        }
        owned.withhold(&waiting);
        let mut open = Open::new(placed.seat(), placed.attempt, waiting, now);
        open.doubt();
        owned.open.insert(id.no, open);
        self.unanswered.insert((now, id));
        self.by_seat.entry(placed.seat()).or_default().insert(id);
        self.recount(&placed.seat());
    }

    /// Outcomes that an earlier owner made final stay as they are.
    pub(super) fn learn_seals(&mut self, id: JobId, job: &Job) {
        let Some(owned) = self.jobs.get_mut(&id) else {
            return;
        };
        // One's own seals are known before they are in the log.
        if job.seals.iter().all(|(term, _)| *term == owned.term) {
            return;
        }
        let fresh = job.sealed_tasks().difference(&owned.sealed);
        if fresh.is_empty() {
            return;
        }
        owned.withhold(&fresh);
        let _ = owned.sealed.union_with(&fresh);
        self.forgo_sealed(id);
    }

    /// What is sealed is not expected of any grant any more: an executor that knows of the seal says nothing.
    pub(super) fn forgo_sealed(&mut self, id: JobId) {
        let Some(owned) = self.jobs.get_mut(&id) else {
            return;
        };
        let mut seats = Vec::new();
        for open in owned.open.values_mut() {
            let before = open.left.len();
            open.left.subtract(&owned.sealed);
            if open.left.len() < before {
                seats.push(open.seat.clone());
            }
        }
        let over = owned.open.iter().filter(|(_, open)| open.left.is_empty());
        for no in over.map(|(no, _)| *no).collect::<Vec<_>>() {
            self.close(GrantId { job: id, no });
        }
        seats.iter().for_each(|seat| self.recount(seat));
    }

    /// Another node owns the jobs of `log` now.
    pub fn hand_over(&mut self, log: &LogId) {
        let range = JobId { log: *log, no: JobNo(0) }..=JobId { log: *log, no: JobNo(u64::MAX) };
        for id in self.jobs.range(range).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.forget(id);
        }
    }

    /// A node was started anew: of whatever it was offered or had accepted, it must say again whether it knows of it.
    pub fn doubt(&mut self, now: Mono, node: &NodeId) {
        let grants: Vec<GrantId> = self.seats_of(node).flat_map(|(_, grants)| grants).copied().collect();
        for grant in grants {
            let Some(open) = self.open_mut(&grant) else {
                continue;
            };
            let was_answered = open.accepted;
            // Also if no answer came yet: a report of before, which may come only now, is none.
            open.doubt();
            // What is not in the log yet must not be offered, and what was not answered is asked for anyway.
            if was_answered {
                self.unanswered.insert((now, grant));
            }
        }
    }
}
