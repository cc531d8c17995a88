//! What is kept of a retired job: who, what, when, where, how it ended and what it used (DESIGN J9).
//!
//! Invariants: a pure function of what this node knew of the job when it was retired; bounded, however many tasks and attempts there were.
//! Does not: keep anything (`node::history` does).

use minicbor::{Decode, Encode};
use smol_str::SmolStr;

use super::run::Usage;
use super::view::{self, State};
use super::{Job, Outcome};
use crate::ids::{Attempt, GrantNo, JobId, NodeId};
use crate::lattice::IntervalSet;
use crate::limits;

/// Tasks that ended alike.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ended {
    /// How.
    #[n(0)]
    pub outcome: Outcome,
    /// How many.
    #[n(1)]
    pub count: u64,
    /// Which; empty where they are scattered over more ranges than are kept.
    #[n(2)]
    pub tasks: IntervalSet,
}

/// Tasks whose output lies in one place.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ran {
    /// The executor.
    #[n(0)]
    pub node: NodeId,
    /// Under which grant.
    #[n(1)]
    pub grant: GrantNo,
    /// On which attempt.
    #[n(2)]
    pub attempt: Attempt,
    /// Which.
    #[n(3)]
    pub tasks: IntervalSet,
}

/// A retired job. Times are milliseconds since 1970 by the authors' clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Which.
    pub id: JobId,
    /// Its namespace.
    pub ns: SmolStr,
    /// The user's name for it; may be empty.
    pub name: SmolStr,
    /// The name that its client chose; may be empty.
    pub alias: SmolStr,
    /// The client's idempotency key; may be empty. Not kept by history.
    pub request: Vec<u8>,
    /// How many tasks it had.
    pub tasks: u64,
    /// When it was submitted.
    pub submitted_ms: u64,
    /// When its first task started; absent if none did.
    pub started_ms: Option<u64>,
    /// When the last outcome became final.
    pub ended_ms: u64,
    /// How its tasks ended, each once.
    pub ended: Vec<Ended>,
    /// Where they ran, latest attempts; those of the latest grants where there were too many.
    pub ran: Vec<Ran>,
    /// What all attempts used together.
    pub usage: Usage,
}

impl Past {
    /// Sums up a job that is being retired; `None` while its submission has not arrived here.
    #[must_use]
    pub fn of(id: JobId, job: &Job) -> Option<Self> {
        let view = view::job(id, job)?;
        let submit = view.submit;
        let mut ranges = 0;
        let mut kept = |tasks: IntervalSet| {
            ranges += tasks.ranges().len();
            if ranges > limits::PAST_RANGES_MAX { IntervalSet::new() } else { tasks }
        };
        let ended = job.outcomes().into_iter().map(|(outcome, tasks)| Ended {
            outcome,
            count: tasks.len(),
            tasks: kept(tasks),
        });
        let ended = ended.collect();
        let runs = view::latest_runs(job).into_iter().map(|run| Ran {
            node: run.node,
            grant: run.grant,
            attempt: run.attempt,
            tasks: kept(run.tasks),
        });
        let ran = runs.take(limits::PAST_RANGES_MAX).filter(|ran| !ran.tasks.is_empty()).collect();
        let used = job.grants.values().filter_map(|grant| grant.run()?.usage());
        Some(Self {
            id,
            ns: submit.ns.clone(),
            name: submit.name.clone(),
            alias: submit.alias().cloned().unwrap_or_default(),
            request: submit.request.clone(),
            tasks: submit.tasks.len(),
            submitted_ms: submit.hlc.wall_ms,
            started_ms: view.started.map(|start| start.wall_ms),
            ended_ms: job.sealed_at.0.map_or(submit.hlc.wall_ms, |sealed| sealed.wall_ms),
            ended,
            ran,
            usage: used.fold(Usage::default(), |sum, one| sum.plus(one)),
        })
    }

    /// In one word.
    #[must_use]
    pub fn state(&self) -> State {
        view::ended_state(self.ended.iter().map(|ended| &ended.outcome))
    }

    /// The outcome with the highest code.
    #[must_use]
    pub fn worst(&self) -> Option<&Outcome> {
        self.ended.iter().map(|ended| &ended.outcome).max_by_key(|outcome| outcome.code())
    }

    /// Executors that ran parts of it, each once.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.ran.iter().map(|ran| ran.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}
