//! What this crate's tests share: short names for nodes, logs, jobs and times, and an author that signs one batch after another.
//!
//! Does not: exist outside tests.

use crate::event::{Event, SignedBatch, Signer, Value, WorkSpec, cluster_id, membership_mac};
use crate::facts::{Job, Outcome, Placed, Run, Submit};
use crate::ids::{Attempt, ClusterId, Epoch, GrantId, GrantNo, Hash, JobId, JobNo, LogId, NodeId, Seq, Term};
use crate::lattice::{IntervalSet, Max, Min, VecMap};
use crate::namespace::sys;
use crate::time::Hlc;

/// The secret of every test's cluster.
pub(crate) const SECRET: [u8; 32] = [7; 32];

pub(crate) fn cluster() -> ClusterId {
    cluster_id(&SECRET)
}

pub(crate) fn signer(seed: u8) -> Signer {
    Signer::from_seed(&[seed; 32])
}

pub(crate) fn node(seed: u8) -> NodeId {
    signer(seed).node()
}

pub(crate) fn log(seed: u8) -> LogId {
    LogId { node: node(seed), epoch: Epoch(1) }
}

pub(crate) fn job_id(seed: u8, no: u64) -> JobId {
    JobId { log: log(seed), no: JobNo(no) }
}

pub(crate) fn grant_no(no: u32) -> GrantNo {
    GrantNo { term: Term(1), no }
}

pub(crate) fn grant_id(job: JobId, no: u32) -> GrantId {
    GrantId { job, no: grant_no(no) }
}

pub(crate) fn hlc(wall_ms: u64) -> Hlc {
    Hlc { wall_ms, count: 0 }
}

/// `first..=last`; empty if `last < first`.
pub(crate) fn tasks(first: u32, last: u32) -> IntervalSet {
    IntervalSet::from_range(first, last)
}

/// The least spec that `batch` takes.
pub(crate) fn command() -> WorkSpec {
    WorkSpec::new().with("command", Value::List(vec![Value::text("true")]))
}

pub(crate) fn submit(tasks: IntervalSet, spec: &WorkSpec) -> Submit {
    let event = crate::namespace::batch::submit_job(hlc(1), job_id(1, 1), tasks, 0, spec.clone());
    Submit::new(&event, crate::facts::Handler::Process)
}

pub(crate) fn placed(node: NodeId, attempt: u16, tasks: IntervalSet) -> Placed {
    Placed { node, attempt: Attempt(attempt), tasks, hlc: hlc(2), pool: None }
}

/// A report that `tasks` started.
pub(crate) fn started(tasks: IntervalSet) -> Run {
    Run { started: tasks, first_start: Min::new(hlc(3)), ..Run::default() }
}

/// A report that `tasks` started and ended.
pub(crate) fn ended(tasks: IntervalSet, outcome: Outcome) -> Run {
    Run { ended: VecMap::one(outcome, tasks.clone()), last_end: Max::new(hlc(4)), ..started(tasks) }
}

/// The join of deltas.
pub(crate) fn joined(parts: impl IntoIterator<Item = Job>) -> Job {
    let mut whole = Job::default();
    for part in parts {
        let _ = crate::lattice::Lattice::join(&mut whole, part);
    }
    whole
}

/// A member that appends to its own log.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    signer: Signer,
    pub(crate) epoch: Epoch,
    next: Seq,
    prev: Hash,
}

impl Author {
    pub(crate) fn new(seed: u8) -> Self {
        Self { signer: signer(seed), epoch: Epoch(1), next: Seq(1), prev: Hash::ZERO }
    }

    pub(crate) fn log(&self) -> LogId {
        LogId { node: self.signer.node(), epoch: self.epoch }
    }

    /// The event that opens the log.
    pub(crate) fn admit(&self, name: &str) -> Event {
        sys::admit(hlc(1), membership_mac(&SECRET, &self.signer.node()), name)
    }

    /// Goes on after `batch`, as a clone of this node's disk would.
    pub(crate) fn resume(&mut self, batch: &SignedBatch) {
        self.next = Seq(batch.header().last_seq().0 + 1);
        self.prev = batch.head();
    }

    /// The next batch.
    pub(crate) fn append(&mut self, events: Vec<Event>) -> SignedBatch {
        let events = events
            .into_iter()
            .map(|event| {
                let bytes = event.to_bytes();
                (event, bytes)
            })
            .collect();
        let batch = SignedBatch::seal(&self.signer, cluster(), self.epoch, self.next, self.prev, events);
        self.next = Seq(batch.header().last_seq().0 + 1);
        self.prev = batch.head();
        batch
    }

    /// A batch that says little, `count` times: the cancel of job `no`.
    pub(crate) fn say(&mut self, no: u64, count: usize) -> SignedBatch {
        let event = sys::cancel(hlc(no), JobId { log: self.log(), no: JobNo(no) });
        self.append(vec![event; count])
    }

    /// The batch that opens the log.
    pub(crate) fn open(&mut self, name: &str) -> SignedBatch {
        let admit = self.admit(name);
        self.append(vec![admit])
    }
}
