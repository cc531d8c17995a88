//! Views: questions to Facts, answered as users think of jobs and nodes.
//!
//! Invariants: pure queries; nothing here changes Facts; a name that could mean two things is refused, never guessed.

pub use super::phase::{phases, state};
use super::{Facts, Job, Outcome, Submit};
use crate::ids::{Attempt, GrantNo, JobId, JobNo, NodeId};
use crate::lattice::IntervalSet;
use crate::time::Hlc;

/// A job's or task group's state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing has started.
    Pending,
    /// Something has started and not everything is sealed.
    Running,
    /// Sealed, all with exit code 0.
    Done,
    /// Sealed, and something failed.
    Failed,
    /// Sealed, and something was cancelled.
    Cancelled,
    /// Sealed, and something was lost.
    Lost,
}

/// Tasks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not running and not sealed.
    pub pending: u64,
    /// Running.
    pub running: u64,
    /// Sealed with exit code 0.
    pub done: u64,
    /// Sealed otherwise: failed, timed out, lost.
    pub failed: u64,
    /// Sealed as cancelled.
    pub cancelled: u64,
}

/// One job, summed up.
#[derive(Clone, Debug)]
pub struct JobView<'a> {
    /// Which.
    pub id: JobId,
    /// Its submission.
    pub submit: &'a Submit,
    /// In one word.
    pub state: State,
    /// Tasks by state.
    pub counts: Counts,
    /// The sealed outcome with the highest code; `None` while nothing is sealed.
    pub worst: Option<Outcome>,
    /// Executors that ran or run parts of it.
    pub nodes: Vec<NodeId>,
    /// First start.
    pub started: Option<Hlc>,
    /// Last seal, once everything is sealed.
    pub ended: Option<Hlc>,
}

/// Tasks that share an attempt, an executor and a fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptView {
    /// The tasks.
    pub tasks: IntervalSet,
    /// The attempt.
    pub attempt: Attempt,
    /// Under which grant.
    pub grant: GrantNo,
    /// The executor.
    pub node: NodeId,
    /// How they ended; `None` while they wait or run.
    pub outcome: Option<Outcome>,
    /// Whether they have started.
    pub started: bool,
    /// Whether the owner withdrew the grant.
    pub void: bool,
    /// First start under the grant.
    pub first_start: Option<Hlc>,
    /// Last end under the grant.
    pub last_end: Option<Hlc>,
}

/// A name that names nothing, or too much.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Nothing.
    #[error("no job is called `{0}`")]
    UnknownJob(String),
    /// Nothing.
    #[error("no node is called `{0}`")]
    UnknownNode(String),
    /// More than one.
    #[error("`{0}` could be any of: {1}")]
    Ambiguous(String, String),
}

/// Sums up a job; `None` while its submission has not arrived.
#[must_use]
pub fn job(id: JobId, job: &Job) -> Option<JobView<'_>> {
    let submit: &Submit = job.submit.as_ref()?;
    let outcomes = job.outcomes();
    let counts = counts(job, submit, &outcomes);
    let runs = || job.grants.values().filter_map(super::Grant::run);
    let started = runs().filter_map(|run| run.first_start.0).min();
    let mut nodes: Vec<NodeId> = job
        .grants
        .values()
        .filter(|grant| grant.run().is_some_and(|run| !run.started.is_empty()))
        .filter_map(|grant| grant.placed.as_ref().map(|placed| placed.node))
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    let worst = outcomes.iter().map(|(outcome, _)| outcome).max_by_key(|outcome| outcome.code()).cloned();
    let all_sealed = counts.pending == 0 && counts.running == 0;
    let state = if all_sealed {
        sealed_state(&outcomes)
    } else if started.is_some() || !outcomes.is_empty() {
        State::Running
    } else {
        State::Pending
    };
    let ended = if all_sealed { job.sealed_at.0 } else { None };
    Some(JobView { id, submit, state, counts, worst, nodes, started, ended })
}

/// How many of a job's tasks are in which state, given its final outcomes.
pub(super) fn counts(job: &Job, submit: &Submit, outcomes: &[(Outcome, IntervalSet)]) -> Counts {
    let mut counts = Counts::default();
    let mut sealed = 0;
    for (outcome, tasks) in outcomes {
        sealed += tasks.len();
        match outcome {
            Outcome::Exit(0) => counts.done += tasks.len(),
            Outcome::Cancelled => counts.cancelled += tasks.len(),
            Outcome::Exit(_)
            | Outcome::Signal(_)
            | Outcome::NotStarted(..)
            | Outcome::TimedOut
            | Outcome::Lost
            | Outcome::Broke(_) => {
                counts.failed += tasks.len();
            }
        }
    }
    counts.running = job.running_tasks().len();
    counts.pending = submit.tasks.len().saturating_sub(sealed + counts.running);
    counts
}

fn sealed_state(outcomes: &[(Outcome, IntervalSet)]) -> State {
    let any = |wanted: fn(&Outcome) -> bool| outcomes.iter().any(|(outcome, _)| wanted(outcome));
    if any(|outcome| *outcome == Outcome::Cancelled) {
        State::Cancelled
    } else if outcomes.iter().all(|(outcome, _)| outcome.is_success()) {
        State::Done
    } else if outcomes.iter().all(|(outcome, _)| outcome.is_success() || *outcome == Outcome::Lost) {
        State::Lost
    } else {
        State::Failed
    }
}

/// Everything that was tried, in the order of the grants.
#[must_use]
pub fn attempts(job: &Job) -> Vec<AttemptView> {
    let mut views = Vec::new();
    for (no, grant) in job.grants.iter() {
        let Some(placed) = grant.placed.as_ref() else {
            continue;
        };
        let run = grant.run();
        let view = |tasks: IntervalSet, outcome: Option<Outcome>, started: bool| AttemptView {
            tasks,
            attempt: placed.attempt,
            grant: *no,
            node: placed.node,
            outcome,
            started,
            void: grant.void,
            first_start: run.and_then(|run| run.first_start.0),
            last_end: run.and_then(|run| run.last_end.0),
        };
        let mut left = placed.tasks.clone();
        if let Some(run) = run {
            for (outcome, tasks) in run.ended.iter() {
                let tasks = tasks.intersection(&placed.tasks);
                if tasks.is_empty() {
                    continue;
                }
                left.subtract(&tasks);
                let has_started = !run.started.intersection(&tasks).is_empty();
                views.push(view(tasks, Some(outcome.clone()), has_started));
            }
            let active = left.intersection(&run.started);
            left.subtract(&active);
            if !active.is_empty() {
                views.push(view(active, None, true));
            }
        }
        if !left.is_empty() {
            views.push(view(left, None, false));
        }
    }
    views
}

/// Starts of a job's tasks beyond the first of each, as far as reports tell: retries, and what ran twice because a node was taken for dead.
#[must_use]
pub fn extra_starts(job: &Job) -> u64 {
    let mut once = IntervalSet::new();
    let mut starts = 0;
    for (grant, run) in job.grants.values().filter_map(|grant| Some((grant.placed.as_ref()?, grant.run()?))) {
        let mut ran = run.started.clone();
        for (outcome, tasks) in run.ended.iter() {
            match outcome {
                Outcome::Exit(_) | Outcome::Signal(_) | Outcome::TimedOut | Outcome::Broke(_) => {
                    let _ = ran.union_with(tasks);
                }
                Outcome::NotStarted(..) | Outcome::Cancelled | Outcome::Lost => {}
            }
        }
        let ran = ran.intersection(&grant.tasks);
        starts += ran.len();
        let _ = once.union_with(&ran);
    }
    starts - once.len()
}

/// The executor and grant of a task's latest attempt that started or ended.
#[must_use]
pub fn latest_run(job: &Job, task: u32) -> Option<AttemptView> {
    let tried = attempts(job).into_iter().filter(|view| view.tasks.contains(task));
    tried.filter(|view| view.started || view.outcome.is_some()).max_by_key(|view| (view.attempt, view.grant))
}

/// All tasks that started or ended, each once, under its latest attempt.
#[must_use]
pub fn latest_runs(job: &Job) -> Vec<AttemptView> {
    let mut runs: Vec<AttemptView> =
        attempts(job).into_iter().filter(|view| view.started || view.outcome.is_some()).collect();
    runs.sort_by_key(|view| core::cmp::Reverse((view.attempt, view.grant)));
    let mut seen = IntervalSet::new();
    runs.retain_mut(|view| {
        view.tasks.subtract(&seen);
        let _ = seen.union_with(&view.tasks);
        !view.tasks.is_empty()
    });
    runs
}

/// A node's name, or the start of its id if it has none.
#[must_use]
pub fn node_name(facts: &Facts, node: &NodeId) -> String {
    match facts.node(node).map(super::NodeInfo::name) {
        Some(name) if !name.is_empty() => name.to_owned(),
        Some(_) | None => node.to_string(),
    }
}

/// A job's name on the screen: `<node-name>-<n>`.
#[must_use]
pub fn job_name(facts: &Facts, id: &JobId) -> String {
    format!("{}-{}", node_name(facts, &id.log.node), id.no)
}

/// The node with this name or id, or the only one that begins so.
///
/// # Errors
/// If there is none, or more than one.
pub fn find_node(facts: &Facts, text: &str) -> Result<NodeId, FindError> {
    let exact: Vec<NodeId> =
        facts.nodes().filter(|(id, info)| info.name() == text || id.to_hex() == text).map(|(id, _)| *id).collect();
    let begins = |(id, info): &(&NodeId, &super::NodeInfo)| {
        !text.is_empty() && (info.name().starts_with(text) || id.to_hex().starts_with(text))
    };
    let found = if exact.is_empty() { facts.nodes().filter(begins).map(|(id, _)| *id).collect() } else { exact };
    match found.as_slice() {
        [] => Err(FindError::UnknownNode(text.to_owned())),
        [one] => Ok(*one),
        many => {
            let names: Vec<String> = many.iter().map(|id| format!("{} ({id})", node_name(facts, id))).collect();
            Err(FindError::Ambiguous(text.to_owned(), names.join(", ")))
        }
    }
}

/// The job with this name: the alias that its client chose, or `<node>-<n>`, where `<node>` is a name, an id, or a unique beginning of either.
///
/// # Errors
/// If there is none, or more than one.
pub fn find_job(facts: &Facts, text: &str) -> Result<JobId, FindError> {
    let unknown = || FindError::UnknownJob(text.to_owned());
    if let Some(id) = facts.job_called(text) {
        return Ok(id);
    }
    let (node, number) = text.rsplit_once('-').ok_or_else(unknown)?;
    let no = JobNo(number.parse().ok().ok_or_else(unknown)?);
    let jobs_called = |owner: &NodeId| -> Vec<JobId> {
        facts
            .jobs_of(owner)
            // Anyone may speak of a job that its owner never submitted; such words name nothing.
            .filter(|(id, job)| id.no == no && job.submit.as_ref().is_some())
            .map(|(id, _)| id)
            .collect()
    };
    let found: Vec<JobId> = match find_node(facts, node) {
        Ok(owner) => jobs_called(&owner),
        Err(FindError::Ambiguous(..)) => facts
            .nodes()
            .filter(|(id, info)| info.name().starts_with(node) || id.to_hex().starts_with(node))
            .flat_map(|(id, _)| jobs_called(id))
            .collect(),
        Err(FindError::UnknownJob(_) | FindError::UnknownNode(_)) => Vec::new(),
    };
    match found.as_slice() {
        [] => Err(unknown()),
        [one] => Ok(*one),
        many => {
            let names: Vec<String> = many.iter().map(|id| format!("{}-{}", id.log.node.to_hex(), id.no)).collect();
            Err(FindError::Ambiguous(text.to_owned(), names.join(", ")))
        }
    }
}
