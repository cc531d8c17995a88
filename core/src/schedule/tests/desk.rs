//! An owner with everything that it talks to: a log that writes at once, and workers with two slots each.

use std::collections::BTreeMap;

use expect_test::Expect;

use crate::event::{Value, WorkSpec};
use crate::facts::{Cancel, Job, Outcome, Placed, Run};
use crate::ids::{GrantId, GrantNo, JobId, NodeId, Seat, Term};
use crate::lattice::{IntervalSet, Lattice};
use crate::resources::Resources;
use crate::schedule::{Candidate, Decision, Owner};
use crate::testing::{command, ended, grant_no, hlc, job_id, node, placed, submit, tasks};
use crate::time::Mono;

pub(super) const SLOT: Resources = Resources { cpu_milli: 1_000, mem_bytes: 0 };

/// An owner whose decisions are written at once.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) owner: Owner,
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) said: String,
    pub(super) now: u64,
}

impl Desk {
    /// Node 1, with workers that have two slots each.
    pub(super) fn new(workers: &[u8]) -> Self {
        let mut desk = Self::default();
        for worker in workers {
            desk.join(*worker);
        }
        desk
    }

    pub(super) fn join(&mut self, worker: u8) {
        let total = SLOT.plus(&SLOT, 1);
        self.owner.on_room(Seat::machine(node(worker)), total, total);
        self.candidates.push(Candidate {
            seat: Seat::machine(node(worker)),
            labels: Vec::new(),
            room: None,
            name: format!("worker-{worker}").into(),
            relays: Vec::new(),
        });
    }

    pub(super) fn leave(&mut self, worker: u8) {
        self.candidates.retain(|candidate| candidate.seat.node != node(worker));
        let mut decisions = Vec::new();
        self.owner.on_dead(Mono(self.now), &node(worker), &mut decisions);
        self.write(decisions);
    }

    pub(super) fn submit(&mut self, no: u64, set: IntervalSet, spec: &WorkSpec) {
        self.fold(job_id(1, no), Job::submitted(submit(set, spec)), None);
    }

    pub(super) fn fold(&mut self, id: JobId, delta: Job, grant: Option<GrantNo>) {
        let job = self.jobs.entry(id).or_default();
        let _ = job.join(delta);
        let job = job.clone();
        let mut decisions = Vec::new();
        self.owner.on_job(Mono(self.now), (id, Term::FIRST), &job, grant, &mut decisions);
        self.write(decisions);
    }

    pub(super) fn write(&mut self, decisions: Vec<Decision>) {
        for decision in decisions {
            match decision {
                Decision::Grant { grant, seat, attempt, tasks } => {
                    let pool = seat.pool.as_ref().map(|pool| format!(" pool {}", pool.0)).unwrap_or_default();
                    let to = self.worker(&seat.node);
                    self.said += &format!("grant {:?} tasks {tasks} attempt {attempt} to {to}{pool}\n", grant.no);
                    let placed = Placed { pool: seat.pool, ..placed(seat.node, attempt.0, tasks) };
                    let delta = Job::granted(grant.no, placed);
                    self.fold(grant.job, delta, Some(grant.no));
                    self.owner.on_granted(Mono(self.now), grant);
                }
                Decision::Void(grant) => {
                    self.said += &format!("void {:?}\n", grant.no);
                    self.fold(grant.job, Job::voided(grant.no), Some(grant.no));
                }
                Decision::Seal { job, tasks, outcome } => {
                    self.said += &format!("seal {tasks} {outcome:?}\n");
                    self.fold(job, Job::sealed(Term(1), outcome, tasks, hlc(9)), None);
                }
            }
        }
    }

    pub(super) fn worker(&self, id: &NodeId) -> String {
        (1..20).find(|seed| node(*seed) == *id).map_or_else(|| "?".into(), |seed| format!("node {seed}"))
    }

    pub(super) fn place(&mut self) {
        let mut decisions = Vec::new();
        self.owner.place(Mono(self.now), &node(1), &self.candidates.clone(), &mut decisions);
        self.write(decisions);
    }

    /// Offers at once what it grants, as the Machine does.
    pub(super) fn place_and_offer(&mut self) {
        self.place();
        self.owner.offers_due(Mono(self.now), 1_000);
    }

    pub(super) fn report(&mut self, job: u64, grant: u32, by: u8, run: Run) {
        let no = grant_no(grant);
        self.fold(job_id(1, job), Job::reported(no, node(by), run), Some(no));
    }

    pub(super) fn end(&mut self, grant: u32, by: u8, first: u32, last: u32, outcome: Outcome) {
        self.report(1, grant, by, ended(tasks(first, last), outcome));
    }

    pub(super) fn refuse(&mut self, grant: u32, by: u8) {
        let mut decisions = Vec::new();
        let grant = GrantId { job: job_id(1, 1), no: grant_no(grant) };
        self.owner.on_refused(&node(by), grant, &mut decisions);
        self.write(decisions);
    }

    pub(super) fn cancel(&mut self, job: u64) {
        let cancel = Cancel { hlc: hlc(5), by: node(3) };
        self.fold(job_id(1, job), Job::cancelled(cancel), None);
    }

    /// Time passes to `ms`.
    pub(super) fn at(&mut self, ms: u64) {
        self.now = ms;
        self.owner.on_time(Mono(ms));
    }

    /// What was decided since the last check.
    pub(super) fn check(&mut self, expected: &Expect) {
        expected.assert_eq(&std::mem::take(&mut self.said));
    }
}

pub(super) fn retries(count: i64) -> WorkSpec {
    command().with("retries", Value::Int(count))
}
