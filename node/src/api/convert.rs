//! From the core's words to the API's.
//!
//! Invariants: pure; a number that does not fit its field is clamped, never wrapped.
//! Does not: ask anything; callers run these inside a question to the Machine.

use starling_core::event::WorkSpec;
use starling_core::facts::view::{self, Counts, JobView, State};
use starling_core::facts::{Facts, Handler, Job, Outcome};
use starling_core::ids::{JobId, NodeId, Term};
use starling_core::lattice::IntervalSet;
use starling_core::machine::Machine;
use starling_core::namespace::job_fields;
use starling_core::namespace::simulation::{self, Pair};
use starling_core::schedule::Health;
use starling_core::time::{Now, Wall};
use starling_proto::v1::{
    Ending, IndexRange, JobDetail, JobState, JobSummary, Placement, Seal, Simulation, TaskCounts, View,
};

use super::attempts::{self, unix_ms};
use super::{facts, reason};
use crate::declare;

/// As `u32`, clamped.
pub(super) fn clamp(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

/// A task set as ranges.
pub(super) fn ranges(tasks: &IntervalSet) -> Vec<IndexRange> {
    let range = |range: &starling_core::lattice::Range| IndexRange { start: range.start, end: range.end };
    tasks.ranges().iter().map(range).collect()
}

/// The job's state.
pub(super) fn state(state: State) -> JobState {
    match state {
        State::Pending => JobState::Pending,
        State::Running => JobState::Running,
        State::Done => JobState::Done,
        State::Failed => JobState::Failed,
        State::Cancelled => JobState::Cancelled,
        State::Lost => JobState::Lost,
    }
}

/// How a task ended.
pub(super) fn ending(outcome: &Outcome) -> Ending {
    match outcome {
        Outcome::Exit(_) => Ending::Exited,
        Outcome::Signal(_) => Ending::Signalled,
        Outcome::NotStarted(..) => Ending::NotStarted,
        Outcome::TimedOut => Ending::TimedOut,
        Outcome::Cancelled => Ending::Cancelled,
        Outcome::Lost => Ending::Lost,
        Outcome::Broke(_) => Ending::Broke,
    }
}

fn counts(counts: &Counts) -> TaskCounts {
    TaskCounts {
        pending: clamp(counts.pending),
        running: clamp(counts.running),
        done: clamp(counts.done),
        failed: clamp(counts.failed),
        cancelled: clamp(counts.cancelled),
    }
}

/// A job in one line. One whose submission has not arrived is of unknown state.
pub(super) fn summary(machine: &Machine, now: Now, id: JobId, job: &Job) -> JobSummary {
    summary_of(machine.facts(), now.wall, id, job, |view| reason::of_job(machine, now, view, job))
}

/// The same by any Facts, as of a time; `reason` is asked once the submission is known.
pub(super) fn summary_of(
    facts: &Facts,
    as_of: Wall,
    id: JobId,
    job: &Job,
    reason: impl FnOnce(&JobView<'_>) -> String,
) -> JobSummary {
    let named = JobSummary {
        id: view::job_name(facts, &id),
        owner: view::node_name(facts, &facts.owner_of(&id)),
        ..JobSummary::default()
    };
    let Some(view) = view::job(id, job) else {
        return JobSummary { reason: "its submission has not arrived here yet".to_owned(), ..named };
    };
    let end = view.ended.map_or(as_of.0, |ended| ended.wall_ms);
    JobSummary {
        name: view.submit.name.to_string(),
        alias: view.submit.alias().map(ToString::to_string).unwrap_or_default(),
        ns: view.submit.ns.to_string(),
        state: state(view.state).into(),
        tasks: clamp(view.submit.tasks.len()),
        counts: Some(counts(&view.counts)),
        exit: view.worst.as_ref().map(Outcome::code),
        ending: view.worst.as_ref().map_or(Ending::None, ending).into(),
        nodes: view.nodes.iter().map(|node| view::node_name(facts, node)).collect(),
        submitted_unix_ms: view.submit.hlc.wall_ms,
        started_unix_ms: unix_ms(view.started),
        ended_unix_ms: unix_ms(view.ended),
        elapsed_ms: view.started.map_or(0, |start| end.saturating_sub(start.wall_ms)),
        reason: reason(&view),
        ..named
    }
}

/// Everything about a job.
pub(super) fn detail(machine: &Machine, now: Now, id: JobId, job: &Job) -> JobDetail {
    let mut detail = JobDetail {
        summary: Some(summary(machine, now, id, job)),
        placements: placements(machine, job),
        attempts: attempts::attempts(machine, job),
        usage: attempts::total_usage(job),
        seal: seal(machine, id, job),
        owner_term: u32::try_from(machine.facts().owners().term_of(&id.log).number()).unwrap_or(u32::MAX),
        extra_starts: view::extra_starts(job),
        view: Some(seen(machine, now)),
        ..JobDetail::default()
    };
    if let Some(JobView { submit, .. }) = view::job(id, job) {
        let spec = submit.spec();
        detail.command = spec.texts("command").map(ToString::to_string).collect();
        detail.simulation = (submit.handler() == Handler::Pair).then(|| {
            // The two commands are the same for all tasks and nodes.
            let Pair { env_command, policy, port_wait_ms } = simulation::pair(&spec, 0, &id.log.node);
            Simulation { env_command, policy_command: policy.command, port_wait_ms }
        });
        detail.cwd = spec.text("cwd").map(ToString::to_string).unwrap_or_default();
        detail.env_names = spec.entries("env").map(|(key, _)| key.to_string()).collect();
        detail.node = spec.text("node").map(ToString::to_string).unwrap_or_default();
        detail.constraint = spec.texts("constraint").map(ToString::to_string).collect();
        detail.image = spec.text("image").map(ToString::to_string).unwrap_or_default();
        detail.array = ranges(&submit.tasks);
        detail.cpus_milli = clamp(submit.need.cpu_milli);
        detail.mem_bytes = submit.need.mem_bytes;
        detail.priority = submit.priority;
        detail.retries = submit.retries.into();
        detail.timeout_ms = submit.timeout_ms;
        let phases = view::phases(machine.facts(), job);
        detail.phases = phases.into_iter().map(|(name, tasks)| (name.to_string(), tasks)).collect();
        if submit.schema().is_some() {
            detail.spec = own_fields(&spec);
            let state = view::state(job);
            (detail.registers, detail.labels) = (facts::registers(&state), facts::labels(&state));
        }
    }
    detail
}

/// What a spec says beside what every job may say, as JSON.
fn own_fields(spec: &WorkSpec) -> String {
    let common = job_fields();
    let own = spec.0.iter().filter(|(key, _)| !common.iter().any(|field| field.key == **key));
    own.map(|(key, value)| (key.to_string(), declare::to_json(value))).collect::<serde_json::Value>().to_string()
}

fn placements(machine: &Machine, job: &Job) -> Vec<Placement> {
    let sealed = job.sealed_tasks();
    let open = view::attempts(job).into_iter().filter(|attempt| attempt.outcome.is_none() && !attempt.void);
    open.filter_map(|attempt| {
        let tasks = attempt.tasks.difference(&sealed);
        (!tasks.is_empty())
            .then(|| Placement { node: view::node_name(machine.facts(), &attempt.node), tasks: ranges(&tasks) })
    })
    .collect()
}

fn seal(machine: &Machine, id: JobId, job: &Job) -> Option<Seal> {
    let (term, _) = job.seals.iter().next_back()?;
    Some(Seal {
        by: view::node_name(machine.facts(), &sealer(machine, id, *term)),
        term: u32::try_from(term.number()).unwrap_or(u32::MAX),
        at_unix_ms: unix_ms(job.sealed_at.0),
        tasks: clamp(job.sealed_tasks().len()),
    })
}

/// Who sealed in a term: the log's author, or whoever adopted its jobs in that term, as far as that is known still.
fn sealer(machine: &Machine, id: JobId, term: Term) -> NodeId {
    let facts = machine.facts();
    let is_theirs = |node: &&NodeId| term.is_of(&id.log.node, node);
    let last = facts.owner_of(&id);
    Some(&last)
        .filter(is_theirs)
        .or_else(|| facts.nodes().map(|(node, _)| node).find(is_theirs))
        .copied()
        .unwrap_or(last)
}

/// Who answers, and how fresh the answer is.
pub(super) fn seen(machine: &Machine, now: Now) -> View {
    let (fleet, facts) = (machine.fleet(), machine.facts());
    let me = machine.me();
    let others = || fleet.peers().filter(|(node, _)| **node != me);
    let live = others().filter(|(node, _)| fleet.health(now.mono, node) == Health::Live).count();
    let unheard = facts.nodes().filter(|(node, _)| **node != me && fleet.peer(node).is_none()).count();
    let roster = 1 + others().count() + unheard;
    let cut_off = live == 0 && roster > 1;
    // Cut off, the view is as old as the last word from anybody.
    let silence = others().map(|(_, peer)| now.mono.since_ms(peer.heard)).min();
    let age = if cut_off { silence.unwrap_or(0) } else { 0 };
    let lag_note = if cut_off {
        "no other node is heard; what happens elsewhere is not shown".to_owned()
    } else if machine.sync().is_pulling() {
        "catching up".to_owned()
    } else {
        String::new()
    };
    View {
        seen_by: machine.config().name.to_string(),
        as_of_unix_ms: now.wall.0.saturating_sub(age),
        live_nodes: clamp(live + 1),
        roster_nodes: clamp(roster),
        lag_note,
    }
}
