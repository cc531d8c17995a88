//! The table of workers and tasks: who is here, who runs what, and until when each is waited for.
//!
//! Invariants: empty while this node is not the gateway; a task is in the hands of one worker, and ends once: by its result, because it was not accepted, was told to
//! stop and did not, or its worker is gone; whoever is told of a task is attached. What is to be done outside is collected and carried out by the actor: first
//! who the workers are, then what ended, so that no task is given to a worker that is gone.
//! Does not: read a clock, wait, or speak but into outboxes.

mod tasks;
mod workers;

use std::collections::{BTreeMap, BTreeSet};

use starling_core::facts::{Outcome, Usage};
use starling_core::ids::{GatewayTerm, NodeId, RunId, WorkerName};
use starling_core::schedule::Worker as Sponsored;
use tonic::Status;

pub(super) use self::tasks::Taken;
use self::tasks::Task;
pub(super) use self::workers::Beat;
use self::workers::Worker;
use super::dial::Call;
use super::logs::{Close, Heard, Logs};
use super::outbox::Outbox;
use super::{Options, Refusal};
use crate::hwp::id::AssignmentId;

/// Milliseconds by the driver's monotonic clock.
pub(super) type Millis = u64;

/// Streams that wait for their worker to register. Beyond, such a stream is ended at once.
const PARKED_MAX: usize = 256;

/// What is to be done outside, in this order.
#[derive(Debug, Default)]
pub(super) struct Todo {
    /// Who the workers are now, if that changed.
    pub(super) workers: Option<Vec<Sponsored>>,
    /// Tasks that ended.
    pub(super) ended: Vec<(RunId, Outcome, Usage)>,
    /// Outputs that are complete.
    pub(super) closes: Vec<Close>,
    /// Calls to workers that listen.
    pub(super) calls: Vec<Call>,
}

/// Whom or what a time is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Task(AssignmentId),
    Worker(WorkerName),
    Parked(u64),
}

/// A stream whose worker has not registered.
#[derive(Debug)]
struct Parked {
    worker: WorkerName,
    outbox: Outbox,
    heard: Heard,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    me: NodeId,
    timing: Options,
    logs: Logs,
    acting: Option<GatewayTerm>,
    workers: BTreeMap<WorkerName, Worker>,
    tasks: BTreeMap<AssignmentId, Task>,
    runs: BTreeMap<RunId, AssignmentId>,
    parked: BTreeMap<u64, Parked>,
    /// When to look at what again, once each. A look that comes too early does no harm.
    times: BTreeSet<(Millis, Due)>,
    looks: BTreeMap<Due, Millis>,
    next_session: u64,
    is_changed: bool,
    todo: Todo,
}

impl Table {
    pub(super) fn new(me: NodeId, timing: Options, logs: Logs) -> Self {
        Self {
            me,
            timing,
            logs,
            acting: None,
            workers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            runs: BTreeMap::new(),
            parked: BTreeMap::new(),
            times: BTreeSet::new(),
            looks: BTreeMap::new(),
            next_session: 0,
            is_changed: false,
            todo: Todo::default(),
        }
    }

    /// How this node stands. Whatever belongs to another term goes.
    pub(super) fn stand(&mut self, acting: Option<GatewayTerm>) {
        if self.acting == acting {
            return;
        }
        self.acting = acting;
        for worker in self.workers.values() {
            worker.end(|| Refusal::NotActing.into());
        }
        for parked in self.parked.values() {
            parked.outbox.end(Refusal::NotActing.into());
        }
        self.parked.clear();
        let all: Vec<WorkerName> = self.workers.keys().cloned().collect();
        all.iter().for_each(|worker| self.forget(worker));
        self.times.clear();
        self.looks.clear();
        self.is_changed = true;
    }

    /// # Errors
    /// While this node is not the gateway.
    pub(super) fn acts(&self) -> Result<(), Refusal> {
        self.acting.map(|_term| ()).ok_or(Refusal::NotActing)
    }

    /// When `settle` is to be called at the latest.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.times.first().map(|(at, _)| *at)
    }

    /// Looks at what is due, and says what is to be done.
    pub(super) fn settle(&mut self, now: Millis) -> Todo {
        while let Some((at, _)) = self.times.first()
            && *at <= now
            && let Some((_, due)) = self.times.pop_first()
        {
            self.looks.remove(&due);
            match due {
                Due::Task(id) => self.look_at_task(now, id),
                Due::Worker(worker) => self.look_at_worker(now, &worker),
                Due::Parked(session) => {
                    if let Some(parked) = self.parked.remove(&session) {
                        parked.outbox.end(unregistered(&parked.worker));
                    }
                }
            }
        }
        if std::mem::take(&mut self.is_changed) {
            self.todo.workers = Some(self.workers.iter().map(|(name, worker)| worker.sponsored(name)).collect());
        }
        std::mem::take(&mut self.todo)
    }

    /// Looks at it by then.
    fn look_at(&mut self, at: Millis, due: Due) {
        match self.looks.get(&due).copied() {
            Some(before) if before <= at => return,
            Some(later) => {
                self.times.remove(&(later, due.clone()));
            }
            None => {}
        }
        self.looks.insert(due.clone(), at);
        self.times.insert((at, due));
    }
}

/// UNAVAILABLE, not NOT_FOUND: it is what a worker hears when the gateway is gone, after which it must connect and register anew in any case, while a code that
/// speaks of a wrong call makes some give up.
fn unregistered(worker: &WorkerName) -> Status {
    Status::unavailable(format!(
        "worker `{worker}` is not registered here (any more); call RegisterWorker, then JobStream"
    ))
}
