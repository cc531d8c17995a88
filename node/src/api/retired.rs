//! Retired jobs: what history keeps of them, as the API shows it.
//!
//! Invariants: history is read on threads that may block, never in a question to the driver; a node that has no record of a job says so, and who may have one.
//! Does not: keep anything (`history` does).

use std::sync::Arc;

use starling_core::facts::view::{self, AttemptView, State};
use starling_core::facts::{Facts, Outcome, Past};
use starling_core::ids::JobId;
use starling_core::machine::Machine;
use starling_core::time::Now;
use starling_proto::v1::{ExplainReply, JobDetail, JobState, JobSummary, ListJobsRequest, Seal, TaskCounts};

use super::context::Api;
use super::convert::{clamp, ending, ranges, seen, state};
use super::status::ApiError;
use super::{attempts, reason};
use crate::history::{HistoryError, Size};

/// Retired jobs looked at for one list. Older ones are found by their names.
const LOOK_AT_MAX: usize = 200_000;

/// Retired jobs in one list, however long a list was asked for.
const ROWS_MAX: usize = 20_000;

/// What history keeps of one job.
///
/// Cancel safety: cancel safe.
pub(super) async fn of(api: &Api, id: JobId) -> Result<Option<Past>, ApiError> {
    let Some(history) = api.ctx.retired.clone() else {
        return Ok(None);
    };
    blocking(move || history.find(&id)).await
}

/// The jobs retired last that a list asks for, at most `limit`, and how many there are in all.
///
/// Cancel safety: cancel safe.
pub(super) async fn newest(api: &Api, limit: usize, wanted: Wanted) -> Result<(Vec<Past>, u64), ApiError> {
    let Some(history) = api.ctx.retired.clone() else {
        return Ok((Vec::new(), 0));
    };
    let Size { jobs, .. } = history.size();
    if jobs == 0 {
        return Ok((Vec::new(), 0));
    }
    let limit = limit.min(ROWS_MAX);
    let all_match = wanted.matches_all();
    let look_at = if all_match { limit } else { LOOK_AT_MAX };
    let found = blocking(move || history.newest(limit, look_at, |past| wanted.matches(past)));
    let (found, matched) = found.await?;
    Ok((found, if all_match { jobs } else { matched }))
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, ApiError> {
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.map_err(|panicked| ApiError::History(panicked.to_string()))?;
    read.map_err(|error| ApiError::History(error.to_string()))
}

/// What a list asks of retired jobs.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    states: Vec<i32>,
    name: String,
    node: Option<starling_core::ids::NodeId>,
    /// Only jobs that were retired by then.
    then: Option<Arc<Facts>>,
}

impl Wanted {
    /// `None` if no retired job can be meant.
    pub(super) fn of(request: &ListJobsRequest, node: Option<starling_core::ids::NodeId>) -> Option<Self> {
        let open = [JobState::Pending, JobState::Running].map(i32::from);
        let ended = request.states.is_empty() || request.states.iter().any(|state| !open.contains(state));
        let meant = ended && request.jobs.is_empty();
        meant.then(|| Self { states: request.states.clone(), name: request.name.clone(), node, then: None })
    }

    fn matches_all(&self) -> bool {
        self.states.is_empty() && self.name.is_empty() && self.node.is_none() && self.then.is_none()
    }

    /// Only those that these Facts, of an earlier time, call retired.
    pub(super) fn by(self, then: Arc<Facts>) -> Self {
        Self { then: Some(then), ..self }
    }

    fn matches(&self, past: &Past) -> bool {
        let in_state = self.states.is_empty() || self.states.contains(&state(past.state()).into());
        let named = self.name.is_empty() || past.name == self.name;
        let by_then = self.then.as_ref().is_none_or(|facts| facts.is_retired(&past.id));
        in_state && named && by_then && self.node.is_none_or(|node| past.ran.iter().any(|ran| ran.node == node))
    }
}

/// A retired job in one line.
pub(super) fn summary(machine: &Machine, id: JobId, past: Option<&Past>) -> JobSummary {
    summary_of(machine.facts(), id, past)
}

/// The same with the names of any Facts.
pub(super) fn summary_of(facts: &Facts, id: JobId, past: Option<&Past>) -> JobSummary {
    let owner = view::node_name(facts, &id.log.node);
    let named = JobSummary { id: view::job_name(facts, &id), owner: owner.clone(), ..JobSummary::default() };
    let Some(past) = past else {
        return JobSummary { reason: absence(&owner), ..named };
    };
    let worst = past.worst();
    JobSummary {
        name: past.name.to_string(),
        alias: past.alias.to_string(),
        ns: past.ns.to_string(),
        state: state(past.state()).into(),
        tasks: clamp(past.tasks),
        counts: Some(counts(past)),
        exit: worst.map(Outcome::code),
        ending: worst.map_or(starling_proto::v1::Ending::None, ending).into(),
        nodes: past.nodes().iter().map(|node| view::node_name(facts, node)).collect(),
        submitted_unix_ms: past.submitted_ms,
        started_unix_ms: past.started_ms.unwrap_or(0),
        ended_unix_ms: past.ended_ms,
        elapsed_ms: past.started_ms.map_or(0, |start| past.ended_ms.saturating_sub(start)),
        reason: worst.map(reason::of_outcome).unwrap_or_default(),
        ..named
    }
}

/// Why a retired job cannot be shown, and who may know more.
pub(super) fn absence(owner: &str) -> String {
    format!(
        "retired before this node could keep a record of it; ask a node that was there, such as its owner {owner}, with --via"
    )
}

fn counts(past: &Past) -> TaskCounts {
    let (mut done, mut failed, mut cancelled) = (0, 0, 0);
    for ended in &past.ended {
        match ended.outcome {
            Outcome::Exit(0) => done += ended.count,
            Outcome::Cancelled => cancelled += ended.count,
            Outcome::Exit(_)
            | Outcome::Signal(_)
            | Outcome::NotStarted(..)
            | Outcome::TimedOut
            | Outcome::Lost
            | Outcome::Broke(_) => failed += ended.count,
        }
    }
    TaskCounts { done: clamp(done), failed: clamp(failed), cancelled: clamp(cancelled), ..TaskCounts::default() }
}

/// Everything that is kept of a retired job.
pub(super) fn detail(machine: &Machine, now: Now, id: JobId, past: Option<&Past>) -> JobDetail {
    let mut summary = summary(machine, id, past);
    let view = Some(seen(machine, now));
    let Some(past) = past else {
        return JobDetail { summary: Some(summary), view, ..JobDetail::default() };
    };
    let retired = "retired: its command and attempts are not kept any more";
    summary.reason =
        if summary.reason.is_empty() { retired.to_owned() } else { format!("{}; {retired}", summary.reason) };
    let mut tasks = starling_core::lattice::IntervalSet::new();
    for ended in &past.ended {
        let _ = tasks.union_with(&ended.tasks);
    }
    let owner = summary.owner.clone();
    JobDetail {
        summary: Some(summary),
        array: ranges(&tasks),
        usage: (past.usage != starling_core::facts::Usage::default())
            .then(|| attempts::of_usage(&past.usage, past.tasks)),
        seal: Some(Seal { by: owner, at_unix_ms: past.ended_ms, tasks: clamp(past.tasks), ..Seal::default() }),
        view,
        ..JobDetail::default()
    }
}

/// What happened to a retired job.
pub(super) fn explanation(machine: &Machine, now: Now, id: JobId, past: Option<&Past>) -> ExplainReply {
    let JobSummary { id: job, state, owner, counts, reason, .. } = summary(machine, id, past);
    let counts = counts.unwrap_or_default();
    let sentence = match past.map(Past::state) {
        None => absence(&owner),
        Some(State::Done) => format!("all {} tasks ended with exit code 0", counts.done),
        Some(State::Cancelled) => format!("{} tasks were cancelled", counts.cancelled),
        Some(State::Failed | State::Lost | State::Pending | State::Running) => {
            let worst = past.and_then(Past::worst).map_or_else(String::new, |worst| match worst {
                Outcome::Exit(code) => format!("exit code {code}"),
                Outcome::Signal(_)
                | Outcome::NotStarted(..)
                | Outcome::TimedOut
                | Outcome::Cancelled
                | Outcome::Lost
                | Outcome::Broke(_) => reason,
            });
            format!("{} tasks failed; the worst: {worst}", counts.failed)
        }
    };
    let notes = vec!["it is retired: its attempts are not kept any more".to_owned()];
    ExplainReply { job, state, summary: sentence, notes, view: Some(seen(machine, now)), ..ExplainReply::default() }
}

/// Where a retired job's tasks ran, as the readers of output want to know.
pub(super) fn runs(past: &Past) -> Vec<AttemptView> {
    let runs = past.ran.iter().map(|ran| AttemptView {
        tasks: ran.tasks.clone(),
        attempt: ran.attempt,
        grant: ran.grant,
        node: ran.node,
        // How a single task ended is not needed to find what it wrote.
        outcome: past.worst().cloned(),
        started: true,
        void: false,
        first_start: None,
        last_end: None,
    });
    runs.collect()
}
