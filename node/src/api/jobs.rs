//! Jobs: list, detail, explain, cancel.
//!
//! Invariants: the driver is held for one slice of a long list at a time; a reply stays below the
//! size that clients accept.
//! Does not: wait for anything but the driver.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use prost::Message as _;
use starling_core::facts::view::{self, FindError, State};
use starling_core::facts::{Facts, Job, Outcome, Past};
use starling_core::ids::{JobId, NodeId};
use starling_core::machine::{Command, CommandError, Machine, Reply};
use starling_core::schedule::{Explanation, Health, explain as explain_job};
use starling_core::time::{Hlc, Now};
use starling_proto::Word as _;
use starling_proto::v1::{
    CancelReply, CancelRequest, CancelResult, ExplainNode, ExplainReply, JobDetail, JobRef, JobState, JobSummary,
    ListJobsReply, ListJobsRequest,
};

use super::context::Api;
use super::convert::{clamp, detail, seen, state, summary};
use super::retired::{self, Wanted};
use super::status::{ApiError, violation};
use super::{past, reason};

/// Jobs in a list when no limit is asked for.
const LIMIT_DEFAULT: u32 = 1_000;
/// Jobs looked at in one question, so that the driver serves others in between.
const SLICE: usize = 256;
/// Bytes of one list: clients take 4 MiB.
pub(super) const LIST_BYTES_MAX: usize = 3 << 20;
/// References in one request.
pub(super) const REFERENCES_MAX: usize = 10_000;

/// What a list asks of each job.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) states: Vec<i32>,
    pub(super) node: Option<NodeId>,
}

/// Lists jobs, newest first.
///
/// Cancel safety: cancel safe.
pub(super) async fn list(api: &Api, request: ListJobsRequest) -> Result<ListJobsReply, ApiError> {
    let limit = match request.limit {
        0 => LIMIT_DEFAULT,
        limit => limit,
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let history = request.clone();
    let states = request.states.clone();
    if let Some(unknown) = states.iter().find(|state| JobState::try_from(**state).is_err()) {
        return Err(ApiError::field("states", "known states", &unknown.to_string()));
    }
    if request.at_unix_ms > 0 {
        return past::jobs(api, request, limit).await;
    }
    let ask = move |machine: &mut Machine, now: Now| -> Result<_, FindError> {
        let node = match request.node.as_str() {
            "" => None,
            name => Some(view::find_node(machine.facts(), name)?),
        };
        let ids = matching(machine.facts(), &request)?;
        Ok((ids, node, seen(machine, now)))
    };
    let ((mut found, gone), node, view) = api.ask(ask).await??;
    // Here rather than in the question: it takes a while for many jobs.
    found.sort_unstable();
    let ids: Vec<JobId> = found.into_iter().map(|(_, id)| id).collect();
    let wanted = Wanted::of(&history, node);
    let filter = Filter { states, node };
    let all_match = filter.states.is_empty() && filter.node.is_none();
    let mut reply = ListJobsReply { view: Some(view), ..ListJobsReply::default() };
    let (mut bytes, mut matched) = (0, 0);
    for slice in ids.chunks(SLICE) {
        let full = reply.jobs.len() >= limit || bytes >= LIST_BYTES_MAX;
        if full && all_match {
            matched = ids.len();
            break;
        }
        let (slice, filter) = (slice.to_vec(), filter.clone());
        let room = if full { 0 } else { limit - reply.jobs.len() };
        let look = move |machine: &mut Machine, now: Now| look_at(machine, now, &slice, &filter, room);
        let (jobs, more) = api.ask(look).await?;
        matched += more;
        for job in jobs {
            bytes += job.encoded_len();
            if bytes < LIST_BYTES_MAX {
                reply.jobs.push(job);
            }
        }
    }
    let room = limit.saturating_sub(reply.jobs.len());
    let (retired, total) = match wanted {
        Some(wanted) => retired::newest(api, room, wanted).await?,
        None => (Vec::new(), 0),
    };
    add_retired(api, &mut reply, retired).await?;
    for id in gone.into_iter().take(room) {
        let past = retired::of(api, id).await?;
        reply.jobs.push(api.ask(move |machine, _now| retired::summary(machine, id, past.as_ref())).await?);
        matched += 1;
    }
    reply.total = clamp(matched as u64 + total);
    Ok(reply)
}

/// Adds what history keeps, newest first, as far as the reply has room.
async fn add_retired(api: &Api, reply: &mut ListJobsReply, retired: Vec<Past>) -> Result<(), ApiError> {
    if retired.is_empty() {
        return Ok(());
    }
    let mut bytes: usize = reply.jobs.iter().map(JobSummary::encoded_len).sum();
    for slice in retired.chunks(SLICE) {
        if bytes >= LIST_BYTES_MAX {
            break;
        }
        let slice = slice.to_vec();
        let show = move |machine: &mut Machine, _now: Now| -> Vec<JobSummary> {
            slice.iter().map(|past| retired::summary(machine, past.id, Some(past))).collect()
        };
        for job in api.ask(show).await? {
            bytes += job.encoded_len();
            if bytes < LIST_BYTES_MAX {
                reply.jobs.push(job);
            }
        }
    }
    reply.jobs.sort_by_key(|job| Reverse(job.submitted_unix_ms));
    Ok(())
}

/// Jobs, so that they sort newest first; and those asked for that are retired.
pub(super) type Matching = (Vec<(Reverse<Hlc>, JobId)>, Vec<JobId>);

/// The jobs with the asked names.
pub(super) fn matching(facts: &Facts, request: &ListJobsRequest) -> Result<Matching, FindError> {
    let asked: BTreeSet<JobId> =
        request.jobs.iter().map(|text| view::find_job(facts, text)).collect::<Result<_, _>>()?;
    let named = |job: &Job| {
        let submit = job.submit.as_ref()?;
        let wanted = request.name.is_empty() || submit.name == request.name;
        wanted.then_some(submit.hlc)
    };
    let gone = asked.iter().filter(|id| facts.is_retired(id)).copied().collect();
    let found = if asked.is_empty() {
        let all = facts.jobs();
        all.filter_map(|(id, job)| Some((Reverse(named(job)?), id))).collect()
    } else {
        let some = asked.into_iter().filter_map(|id| Some((id, facts.job(&id)?)));
        some.filter_map(|(id, job)| Some((Reverse(named(job)?), id))).collect()
    };
    Ok((found, gone))
}

/// Summaries of at most `room` of the jobs that match, and how many match.
fn look_at(machine: &Machine, now: Now, ids: &[JobId], filter: &Filter, room: usize) -> (Vec<JobSummary>, usize) {
    let (mut found, mut matched) = (Vec::new(), 0);
    for id in ids {
        let Some(job) = machine.facts().job(id) else {
            continue;
        };
        if !matches(*id, job, filter) {
            continue;
        }
        matched += 1;
        if found.len() < room {
            found.push(summary(machine, now, *id, job));
        }
    }
    (found, matched)
}

pub(super) fn matches(id: JobId, job: &Job, filter: &Filter) -> bool {
    if let Some(node) = &filter.node {
        let placed = |grant: &starling_core::facts::Grant| {
            grant.placed.as_ref().is_some_and(|placed| placed.node == *node) && !grant.void
        };
        if !job.grants.values().any(placed) {
            return false;
        }
    }
    filter.states.is_empty() || view::job(id, job).is_some_and(|view| filter.states.contains(&state(view.state).into()))
}

/// Everything about one job.
///
/// Cancel safety: cancel safe.
pub(super) async fn get(api: &Api, request: JobRef) -> Result<JobDetail, ApiError> {
    let ask = move |machine: &mut Machine, now: Now| -> Result<Known<JobDetail>, ApiError> {
        find(machine, &request.job, |id, job| detail(machine, now, id, job))
    };
    match api.ask(ask).await?? {
        Known::Live(detail) => Ok(detail),
        Known::Retired(id) => {
            let past = retired::of(api, id).await?;
            api.ask(move |machine, now| retired::detail(machine, now, id, past.as_ref())).await
        }
    }
}

/// A job that a user means.
#[derive(Clone, Debug)]
pub(super) enum Known<T> {
    /// What was made of what Facts know of it.
    Live(T),
    /// Only history knows of it.
    Retired(JobId),
}

/// Makes something of the job that a user means, unless it is retired.
pub(super) fn find<T>(
    machine: &Machine,
    text: &str,
    make: impl FnOnce(JobId, &Job) -> T,
) -> Result<Known<T>, ApiError> {
    let facts = machine.facts();
    let id = view::find_job(facts, text)?;
    match facts.job(&id) {
        Some(job) => Ok(Known::Live(make(id, job))),
        None if facts.is_retired(&id) => Ok(Known::Retired(id)),
        None => Err(CommandError::UnknownJob.into()),
    }
}

/// Why a job waits, or what happened to it.
///
/// Cancel safety: cancel safe.
pub(super) async fn explain(api: &Api, request: JobRef) -> Result<ExplainReply, ApiError> {
    let ask = move |machine: &mut Machine, now: Now| -> Result<Known<ExplainReply>, ApiError> {
        find(machine, &request.job, |id, job| explanation(machine, now, id, job))
    };
    match api.ask(ask).await?? {
        Known::Live(reply) => Ok(reply),
        Known::Retired(id) => {
            let past = retired::of(api, id).await?;
            api.ask(move |machine, now| retired::explanation(machine, now, id, past.as_ref())).await
        }
    }
}

fn explanation(machine: &Machine, now: Now, id: JobId, job: &Job) -> ExplainReply {
    let facts = machine.facts();
    let explained = explain_job(now.mono, &facts.owner_of(&id), job, machine.fleet());
    let mut reply = ExplainReply {
        job: view::job_name(facts, &id),
        state: view::job(id, job).map_or(JobState::Unknown, |view| state(view.state)).into(),
        view: Some(seen(machine, now)),
        ..ExplainReply::default()
    };
    if job.cancel.0.is_some() && !job.is_sealed() {
        reply.notes.push("a cancel was asked for".to_owned());
    }
    reply.summary = match &explained {
        Explanation::Unknown => "its submission has not arrived here yet".to_owned(),
        Explanation::Finished => ended_sentence(id, job),
        Explanation::Running { tasks } => match tasks {
            0 => "all its tasks have ended; the outcome is about to be sealed".to_owned(),
            1 => "1 task is running and none waits".to_owned(),
            tasks => format!("{tasks} tasks are running and none waits"),
        },
        Explanation::Waiting { tasks, .. } => {
            let noun = if *tasks == 1 { "1 task waits".to_owned() } else { format!("{tasks} tasks wait") };
            format!("{noun}: {}", reason::waiting(&explained, job, &reason::succession(machine, now, id)))
        }
    };
    if let Explanation::Waiting { need, owner, nodes, .. } = &explained {
        for (_, name, why) in nodes {
            let (eligible, reason) = reason::of_node(why, *need);
            reply.nodes.push(ExplainNode { node: name.to_string(), eligible, reason });
        }
        reply.notes.push(queue_note(machine, id, job, *owner));
        reply.notes.push(format!("a task needs {}", reason::resources(*need)));
    }
    reply
}

/// Where the job stands with its owner.
fn queue_note(machine: &Machine, id: JobId, job: &Job, health: Health) -> String {
    let owner_id = machine.facts().owner_of(&id);
    let owner = view::node_name(machine.facts(), &owner_id);
    let is_open = |attempt: &view::AttemptView| attempt.outcome.is_none() && !attempt.void;
    match machine.owner().position(&id) {
        Some(0) => format!("first in the queue of its owner {owner}"),
        Some(before) => format!("{before} jobs stand before it in the queue of its owner {owner}"),
        None if health != Health::Live => format!("its owner {owner} is silent"),
        None if owner_id != machine.me() => {
            format!("its place in the queue is known at its owner {owner}")
        }
        None if view::attempts(job).iter().any(is_open) => "placed; its executor has not started it yet".to_owned(),
        None => format!("set aside by its owner {owner} until it can be placed"),
    }
}

fn ended_sentence(id: JobId, job: &Job) -> String {
    let Some(view) = view::job(id, job) else {
        return String::new();
    };
    let (counts, total) = (view.counts, view.submit.tasks.len());
    match view.state {
        State::Done if total == 1 => "it ended with exit code 0".to_owned(),
        State::Done => format!("all {total} tasks ended with exit code 0"),
        State::Cancelled => format!("{} of {total} tasks were cancelled", counts.cancelled),
        State::Failed | State::Lost | State::Pending | State::Running => {
            let worst = view.worst.as_ref().map_or_else(String::new, |worst| match worst {
                Outcome::Exit(code) => format!("exit code {code}"),
                Outcome::Signal(_)
                | Outcome::NotStarted(..)
                | Outcome::TimedOut
                | Outcome::Cancelled
                | Outcome::Lost
                | Outcome::Broke(_) => reason::of_outcome(worst),
            });
            format!("{} of {total} tasks failed; the worst: {worst}", counts.failed)
        }
    }
}

/// Asks for jobs to stop. If one is unknown, nothing is asked for any.
///
/// Cancel safety: jobs may be cancelled even if the caller leaves.
pub(super) async fn cancel(api: &Api, request: CancelRequest) -> Result<CancelReply, ApiError> {
    check_references(&request.jobs)?;
    let texts = request.jobs;
    let resolve = move |machine: &mut Machine, _now: Now| -> Result<Vec<JobId>, FindError> {
        texts.iter().map(|text| view::find_job(machine.facts(), text)).collect()
    };
    let ids = api.ask(resolve).await??;
    let mut accepted = Vec::new();
    for id in &ids {
        accepted.push(match api.ctx.handle.command(Command::Cancel(*id)).await? {
            Reply::Error(CommandError::AlreadyFinished) => false,
            Reply::Error(error) => return Err(error.into()),
            Reply::Cancelled | Reply::Submitted { .. } | Reply::Declared { .. } | Reply::Noted | Reply::Imported(_) => {
                true
            }
        });
    }
    let tell = move |machine: &mut Machine, now: Now| {
        let results = ids.iter().zip(accepted);
        CancelReply {
            results: results.map(|(id, accepted)| result(machine, *id, accepted)).collect(),
            view: Some(seen(machine, now)),
        }
    };
    api.ask(tell).await
}

fn result(machine: &Machine, id: JobId, accepted: bool) -> CancelResult {
    let job = machine.facts().job(&id).and_then(|job| view::job(id, job));
    let state = job.map_or(JobState::Unknown, |view| state(view.state));
    let note = if accepted {
        String::new()
    } else if machine.facts().is_retired(&id) {
        "already retired".to_owned()
    } else {
        format!("already {}", state.word().to_uppercase())
    };
    CancelResult { job: view::job_name(machine.facts(), &id), state: state.into(), accepted, note }
}

/// At least one reference, and not too many.
pub(super) fn check_references(jobs: &[String]) -> Result<(), ApiError> {
    if jobs.is_empty() || jobs.len() > REFERENCES_MAX {
        let expected = format!("1 to {REFERENCES_MAX} job ids");
        let wrong = violation("jobs", &expected, &jobs.len().to_string());
        return Err(ApiError::Fields(vec![wrong]));
    }
    Ok(())
}
