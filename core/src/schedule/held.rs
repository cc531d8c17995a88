//! What passes between an owner and an executor, and what an executor holds of it.
//!
//! Does not: decide anything (`executor` does).

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::facts::{Handler, Outcome, Submit, Usage};
use crate::ids::{Attempt, GrantId, PoolName, RunId, WorkerName};
use crate::lattice::IntervalSet;
use crate::namespace::Voice;
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
    /// The pool of workers that is to run them; absent for the machine itself, and for relays.
    #[n(3)]
    pub pool: Option<PoolName>,
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
pub(super) struct Held {
    pub(super) arrival: u64,
    pub(super) submit: Arc<Submit>,
    pub(super) lane: Lane,
    pub(super) attempt: Attempt,
    pub(super) queue: IntervalSet,
    pub(super) running: BTreeMap<u32, RunId>,
    pub(super) durable: bool,
    pub(super) usage: Usage,
}

impl Held {
    pub(super) fn ended(&self, grant: GrantId, tasks: IntervalSet, outcome: Outcome) -> Ended {
        Ended { grant, voice: Voice::of(&self.submit), tasks, outcome, usage: self.usage }
    }
}

/// Grants wait apart for what they need: the room of this machine, a relay, or a worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Machine,
    Relay(SmolStr),
    Pool(PoolName),
}

impl Lane {
    pub(super) fn of(submit: &Submit, pool: Option<&PoolName>) -> Self {
        match (submit.handler(), pool) {
            (Handler::Process, Some(pool)) => Self::Pool(pool.clone()),
            (Handler::Process | Handler::Pair, _) => Self::Machine,
            (Handler::Relay, _) => Self::Relay(submit.ns.clone()),
        }
    }

    /// What a task that needs `need` takes of this machine.
    pub(super) fn reserves(&self, need: &Resources) -> Resources {
        match self {
            Self::Machine | Self::Relay(_) => *need,
            Self::Pool(_) => Resources::default(),
        }
    }
}

/// Within a lane: most urgent first, then as they came.
pub(super) type Place = (core::cmp::Reverse<i32>, u64, GrantId);

#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) grant: GrantId,
    pub(super) task: u32,
    /// Who runs it, if not this machine.
    pub(super) worker: Option<WorkerName>,
    pub(super) deadline: Option<Mono>,
    /// Why it is being stopped, if it is.
    pub(super) stopping: Option<Stop>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Timeout,
    Cancel,
    /// The node is being emptied.
    GiveUp,
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
    /// The worker that is to run it; absent if it is not for workers.
    pub worker: Option<WorkerName>,
}

/// Tasks that ended alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The grant.
    pub grant: GrantId,
    /// How their job is spoken of.
    pub voice: Voice,
    /// The tasks.
    pub tasks: IntervalSet,
    /// How.
    pub outcome: Outcome,
    /// What all tasks of the grant used so far.
    pub usage: Usage,
}
