//! What is known of one job: its submission, who was granted which tasks, what the executors report, and what the owner sealed.
//!
//! Invariants: a lattice in every part; authority is in the key: an executor's report lies under its own name and counts only where the owner granted
//! it those tasks, so a forged report is inert (DESIGN section 6).
//! Does not: decide anything. `status` is a query; seals are the owner's decision.

use minicbor::{Decode, Encode};
use smol_str::SmolStr;

use super::run::Run;
use super::state::State;
use crate::event::{Event, WorkSpec};
use crate::ids::{Attempt, GrantNo, Hash, NodeId, PoolName, Seat, Term};
use crate::lattice::{Change, IntervalSet, Lattice, Max, Min, VecMap, WriteOnce};
use crate::resources::Resources;
use crate::time::Hlc;

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Outcome {
    /// The process exited with this code.
    #[n(0)]
    Exit(#[n(0)] i32),
    /// The process was ended by this signal.
    #[n(1)]
    Signal(#[n(0)] i32),
    /// The process could not be started: a shell's code (126, 127) and the reason.
    #[n(2)]
    NotStarted(#[n(0)] i32, #[cbor(n(1), with = "crate::facts::text")] SmolStr),
    /// The task ran longer than its limit and was stopped.
    #[n(3)]
    TimedOut,
    /// Somebody cancelled the job.
    #[n(4)]
    Cancelled,
    /// The executor went away and took the result along.
    #[n(5)]
    Lost,
    /// What the task depends on broke while it ran, for instance the environment of a simulation.
    #[n(6)]
    Broke(#[cbor(n(0), with = "crate::facts::text")] SmolStr),
}

impl Outcome {
    /// Exit code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        *self == Self::Exit(0)
    }

    /// The code a shell would show: 128 + signal, 124 for a timeout, 125 for a cancel, 75 for a lost task, 70 for one that lost what it depends on.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::Exit(code) | Self::NotStarted(code, _) => *code,
            Self::Signal(signal) => 128 + signal,
            Self::TimedOut => 124,
            Self::Cancelled => 125,
            Self::Lost => 75,
            Self::Broke(_) => 70,
        }
    }
}

/// Who runs a job's tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Handler {
    /// The executor itself, one process a task.
    #[default]
    #[n(0)]
    Process,
    /// The executor itself, an environment and a policy a task.
    #[n(1)]
    Pair,
    /// A relay: a program outside that registered for the job's namespace.
    #[n(2)]
    Relay,
}

/// What only some submissions have.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Handling {
    /// Who runs it.
    #[n(0)]
    pub handler: Handler,
    /// The declaration of its namespace, if that is a declared one.
    #[n(1)]
    pub schema: Option<Hash>,
    /// The name that the client chose for the job; may be empty.
    #[cbor(n(2), with = "crate::facts::text")]
    pub alias: SmolStr,
}

/// A submission, as its owner logged it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Submit {
    /// When.
    #[n(0)]
    pub hlc: Hlc,
    /// The namespace.
    #[cbor(n(1), with = "crate::facts::text")]
    pub ns: SmolStr,
    /// The user's name for the job; may be empty.
    #[cbor(n(2), with = "crate::facts::text")]
    pub name: SmolStr,
    /// The array's indexes.
    #[n(3)]
    pub tasks: IntervalSet,
    /// Higher goes first.
    #[n(4)]
    pub priority: i32,
    /// What each task reserves.
    #[n(5)]
    pub need: Resources,
    /// How often a failed task may be tried again.
    #[n(6)]
    pub retries: u16,
    /// Longest run of a task in milliseconds; 0 for no limit.
    #[n(7)]
    pub timeout_ms: u64,
    /// The client's idempotency key; may be empty.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub request: Vec<u8>,
    /// The whole spec, encoded: queued jobs are many, and only their executor reads all of it.
    #[cbor(n(9), with = "minicbor::bytes")]
    spec: Vec<u8>,
    /// Absent where all of it is as in most jobs.
    #[n(10)]
    handling: Option<Box<Handling>>,
}

impl Submit {
    /// Reads what every job namespace's spec has in common from an event that submits a job. A task that says nothing needs one core, unless a relay runs it.
    #[must_use]
    pub fn new(event: &Event, handler: Handler) -> Self {
        let spec = &event.spec;
        let alias = spec.text("alias").cloned().unwrap_or_default();
        let handling = Handling { handler, schema: event.ctx.schema, alias };
        let cpu_milli = if handler == Handler::Relay { 0 } else { 1_000 };
        Self {
            hlc: event.hlc,
            ns: event.ns.clone(),
            name: spec.text("name").cloned().unwrap_or_default(),
            tasks: event.ctx.tasks.clone(),
            priority: event.ctx.priority,
            need: Resources {
                cpu_milli: spec.uint("cpu").unwrap_or(cpu_milli),
                mem_bytes: spec.uint("memory").unwrap_or(0),
            },
            retries: spec.uint("retries").and_then(|count| u16::try_from(count).ok()).unwrap_or(0),
            timeout_ms: spec.uint("timeout_ms").unwrap_or(0),
            request: spec.bytes("request").map(<[u8]>::to_vec).unwrap_or_default(),
            spec: compact(spec),
            handling: (handling != Handling::default()).then(|| Box::new(handling)),
        }
    }

    /// Who runs its tasks.
    #[must_use]
    pub fn handler(&self) -> Handler {
        self.handling.as_ref().map(|handling| handling.handler).unwrap_or_default()
    }

    /// The declaration of its namespace, if that is a declared one.
    #[must_use]
    pub fn schema(&self) -> Option<Hash> {
        self.handling.as_ref().and_then(|handling| handling.schema)
    }

    /// The name that the client chose for the job, if it chose one.
    #[must_use]
    pub fn alias(&self) -> Option<&SmolStr> {
        self.handling.as_ref().map(|handling| &handling.alias).filter(|alias| !alias.is_empty())
    }

    /// The whole spec.
    #[must_use]
    pub fn spec(&self) -> WorkSpec {
        minicbor::decode(&self.spec).expect("written by `new`")
    }

    /// Where it may run.
    #[must_use]
    pub fn wishes(&self) -> Wishes {
        let spec = self.spec();
        let mut labels: Vec<SmolStr> = spec.texts("constraint").cloned().collect();
        if spec.text("image").is_some_and(|image| !image.is_empty()) {
            labels.push(SmolStr::new_static("docker"));
        }
        Wishes {
            node: spec.text("node").cloned(),
            labels,
            by_workers: self.handler() == Handler::Process && spec.bytes("stdin").is_none(),
        }
    }
}

/// Where a job may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// The name of the node that the submitter asked for, if any.
    pub node: Option<SmolStr>,
    /// Labels that a node or worker must have.
    pub labels: Vec<SmolStr>,
    /// Whether workers from outside can run it: a single process without standard input.
    pub by_workers: bool,
}

impl Wishes {
    /// Of a job that may run anywhere.
    #[must_use]
    pub fn anywhere() -> Self {
        Self { node: None, labels: Vec::new(), by_workers: true }
    }
}

/// The canonical bytes in no more memory than they need: queued jobs are many.
fn compact(spec: &WorkSpec) -> Vec<u8> {
    let mut bytes = minicbor::to_vec(spec).expect("writing to memory cannot fail");
    bytes.shrink_to_fit();
    bytes
}

/// The owner's words of a grant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Placed {
    /// The executor.
    #[n(0)]
    pub node: NodeId,
    /// The attempt these tasks are on.
    #[n(1)]
    pub attempt: Attempt,
    /// The tasks.
    #[n(2)]
    pub tasks: IntervalSet,
    /// When.
    #[n(3)]
    pub hlc: Hlc,
    /// The pool of workers that the executor runs them on; absent if it does so itself.
    #[n(4)]
    pub pool: Option<PoolName>,
}

impl Placed {
    /// Where the tasks run.
    #[must_use]
    pub fn seat(&self) -> Seat {
        Seat { node: self.node, pool: self.pool.clone() }
    }
}

/// A grant and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Grant {
    /// The owner's words.
    #[n(0)]
    pub placed: WriteOnce<Placed>,
    /// The owner withdrew it: refused by the executor, or the executor is gone.
    #[n(1)]
    pub void: bool,
    /// Reports by whoever claims to have run it. Only the granted node's counts: see `run`.
    #[n(2)]
    runs: VecMap<NodeId, Run>,
}

impl Grant {
    /// The granted executor's report.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        self.runs.lookup(&self.placed.as_ref()?.node)
    }

    /// What `node` itself reported, whether or not the grant has arrived here.
    #[must_use]
    pub fn run_by(&self, node: &NodeId) -> Option<&Run> {
        self.runs.lookup(node)
    }
}

impl Lattice for Grant {
    fn join(&mut self, other: Self) -> Change {
        self.placed.join(other.placed).or(self.void.join(other.void)).or(self.runs.join(other.runs))
    }
}

/// Who cancelled a job first, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Cancel {
    /// When.
    #[n(0)]
    pub hlc: Hlc,
    /// At which node.
    #[n(1)]
    pub by: NodeId,
}

/// All that is known of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Job {
    /// The submission. Absent while only later events have arrived.
    #[n(0)]
    pub submit: WriteOnce<Box<Submit>>,
    /// Grants.
    #[n(1)]
    pub grants: VecMap<GrantNo, Grant>,
    /// Outcomes the owner made final, by its term.
    #[n(2)]
    pub seals: VecMap<Term, VecMap<Outcome, IntervalSet>>,
    /// The earliest cancel.
    #[n(3)]
    pub cancel: Min<Cancel>,
    /// The latest seal.
    #[n(4)]
    pub sealed_at: Max<Hlc>,
    /// What anybody said of the job in its namespace's words, where its rules allow that.
    #[n(5)]
    pub remarks: Option<Box<State>>,
}

impl Lattice for Job {
    fn join(&mut self, other: Self) -> Change {
        let parts = self.submit.join(other.submit).or(self.grants.join(other.grants));
        let parts = parts.or(self.seals.join(other.seals)).or(self.cancel.join(other.cancel));
        parts.or(self.sealed_at.join(other.sealed_at)).or(self.remarks.join(other.remarks))
    }
}

/// Deltas: what one event adds.
impl Job {
    /// A submission.
    #[must_use]
    pub fn submitted(submit: Submit) -> Self {
        Self { submit: WriteOnce::new(Box::new(submit)), ..Self::default() }
    }

    /// A grant.
    #[must_use]
    pub fn granted(no: GrantNo, placed: Placed) -> Self {
        let grant = Grant { placed: WriteOnce::new(placed), ..Grant::default() };
        Self { grants: VecMap::one(no, grant), ..Self::default() }
    }

    /// A withdrawn grant.
    #[must_use]
    pub fn voided(no: GrantNo) -> Self {
        Self { grants: VecMap::one(no, Grant { void: true, ..Grant::default() }), ..Self::default() }
    }

    /// An executor's report.
    #[must_use]
    pub fn reported(no: GrantNo, by: NodeId, run: Run) -> Self {
        let grant = Grant { runs: VecMap::one(by, run), ..Grant::default() };
        Self { grants: VecMap::one(no, grant), ..Self::default() }
    }

    /// A word about the job by anybody.
    #[must_use]
    pub fn remarked(state: State) -> Self {
        Self { remarks: Some(Box::new(state)), ..Self::default() }
    }

    /// A seal.
    #[must_use]
    pub fn sealed(term: Term, outcome: Outcome, tasks: IntervalSet, hlc: Hlc) -> Self {
        let seals = VecMap::one(term, VecMap::one(outcome, tasks));
        Self { seals, sealed_at: Max::new(hlc), ..Self::default() }
    }

    /// A cancel.
    #[must_use]
    pub fn cancelled(cancel: Cancel) -> Self {
        Self { cancel: Min::new(cancel), ..Self::default() }
    }
}

/// Queries.
impl Job {
    /// The tasks whose outcome is final.
    #[must_use]
    pub fn sealed_tasks(&self) -> IntervalSet {
        let mut all = IntervalSet::new();
        for tasks in self.seals.values().flat_map(VecMap::values) {
            let _ = all.union_with(tasks);
        }
        all
    }

    /// Final outcomes, each task once: the highest term decides.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(Outcome, IntervalSet)> {
        self.final_outcomes().into_iter().map(|(_, outcome, tasks)| (outcome, tasks)).collect()
    }

    /// Final outcomes, each task once, with the term that decided.
    #[must_use]
    pub fn final_outcomes(&self) -> Vec<(Term, Outcome, IntervalSet)> {
        let mut seen = IntervalSet::new();
        let mut outcomes = Vec::new();
        for (term, sealed) in self.seals.iter().rev() {
            for (outcome, tasks) in sealed.iter() {
                let fresh = tasks.difference(&seen);
                let _ = seen.union_with(&fresh);
                if !fresh.is_empty() {
                    outcomes.push((*term, outcome.clone(), fresh));
                }
            }
        }
        outcomes
    }

    /// The final outcome of one task.
    #[must_use]
    pub fn outcome(&self, task: u32) -> Option<Outcome> {
        self.outcomes().into_iter().find(|(_, tasks)| tasks.contains(task)).map(|(outcome, _)| outcome)
    }

    /// Whether every task is sealed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.submit.as_ref().is_some_and(|submit| self.sealed_tasks().is_superset(&submit.tasks))
    }

    /// Tasks that run now, as far as reports tell.
    #[must_use]
    pub fn running_tasks(&self) -> IntervalSet {
        let sealed = self.sealed_tasks();
        let mut running = IntervalSet::new();
        for grant in self.grants.values().filter(|grant| !grant.void) {
            if let (Some(run), Some(placed)) = (grant.run(), grant.placed.as_ref()) {
                // An executor's word counts for the tasks that it was granted, and no others.
                let mut active = run.started.intersection(&placed.tasks);
                active.subtract(&run.all_ended());
                active.subtract(&sealed);
                let _ = running.union_with(&active);
            }
        }
        running
    }
}
