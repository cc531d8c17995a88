//! The reports that executors make in every namespace of jobs: `JobStarted` and `JobFinished`.
//!
//! Invariants: each kind and version reads the same for ever; a report lies under its author's name, and counts only where the owner granted it the tasks.
//! Does not: know submissions, nor what a namespace adds to reports.

use crate::event::{Event, Value, WorkSpec};
use crate::facts::{Delta, Extra, Job, Outcome, Run, Usage};
use crate::ids::{Dot, WorkerName};
use crate::lattice::{IntervalSet, Max, Min, VecMap};

/// Tasks of a grant started.
pub const STARTED: &str = "JobStarted";
/// Tasks of a grant ended.
pub const FINISHED: &str = "JobFinished";
/// The fields of these kinds, over all versions. The fields of a declared namespace's own rules for them have other names.
pub const FIELDS: [&str; 13] = [
    "worker",
    "broke",
    "exit",
    "signal",
    "not_started",
    "reason",
    "timed_out",
    "cancelled",
    "lost",
    "cpu_user_ms",
    "cpu_sys_ms",
    "wall_ms",
    "max_rss_bytes",
];

/// Whether `kind` is a standard report.
#[must_use]
pub fn is_standard(kind: &str) -> bool {
    kind == STARTED || kind == FINISHED
}

/// What an event says as a standard report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It is one.
    Run(Run),
    /// It would be one, but says no outcome.
    Unfit,
    /// A kind or version that this binary does not know.
    Unknown,
}

/// Reads a standard report.
#[must_use]
pub fn read(event: &Event) -> Reading {
    match (event.kind.as_str(), event.ver) {
        (STARTED, 1) => Reading::Run(run(event, None)),
        // Version 2 names the worker.
        (STARTED, 2) => Reading::Run(run(event, None).with(started_by(event))),
        (FINISHED, 1) => ended(event, Usage::default()),
        (FINISHED, 2) => ended(event, usage_of(&event.spec)),
        _ => Reading::Unknown,
    }
}

fn started_by(event: &Event) -> Extra {
    let name = event.spec.text("worker").cloned().map(WorkerName);
    let workers = name.map(|name| Box::new(VecMap::one(name, event.ctx.tasks.clone())));
    Extra { workers, ..Extra::default() }
}

/// Reads an end, whatever its kind is called, by an executor that used so much.
pub(super) fn ended(event: &Event, usage: Usage) -> Reading {
    match outcome_of(&event.spec) {
        Some(outcome) => Reading::Run(run(event, Some(outcome)).with(Extra { usage, ..Extra::default() })),
        None => Reading::Unfit,
    }
}

/// What a standard report adds to Facts; other kinds and versions are `Delta::Opaque`.
#[must_use]
pub fn delta(dot: Dot, event: &Event) -> Delta {
    told(dot, event, read(event))
}

/// What a report that was read so adds to Facts.
pub(super) fn told(dot: Dot, event: &Event, reading: Reading) -> Delta {
    match (reading, event.ctx.job, event.ctx.grant) {
        (Reading::Run(run), Some(id), Some(no)) => Delta::Job(id, Box::new(Job::reported(no, dot.log.node, run))),
        (Reading::Run(_) | Reading::Unfit, _, _) => Delta::Nothing,
        (Reading::Unknown, _, _) => super::opaque(dot, event),
    }
}

/// The words of a report that the event's tasks started and, with an outcome, ended.
#[must_use]
pub fn run(event: &Event, outcome: Option<Outcome>) -> Run {
    let tasks = &event.ctx.tasks;
    // Whatever ended had started, unless it says that it could not.
    let started = match &outcome {
        Some(Outcome::NotStarted(..) | Outcome::Cancelled | Outcome::Lost) => IntervalSet::new(),
        Some(Outcome::Exit(_) | Outcome::Signal(_) | Outcome::TimedOut | Outcome::Broke(_)) | None => tasks.clone(),
    };
    let first_start = if started.is_empty() { Min::default() } else { Min::new(event.hlc) };
    let last_end = if outcome.is_some() { Max::new(event.hlc) } else { Max::default() };
    let ended = outcome.map(|outcome| VecMap::one(outcome, tasks.clone())).unwrap_or_default();
    Run { started, ended, first_start, last_end, extra: None }
}

/// How an outcome is written into a spec.
#[must_use]
pub fn outcome_spec(outcome: &Outcome) -> WorkSpec {
    let spec = WorkSpec::new();
    match outcome {
        Outcome::Exit(code) => spec.with("exit", Value::int(*code)),
        Outcome::Signal(signal) => spec.with("signal", Value::int(*signal)),
        Outcome::NotStarted(code, reason) => {
            spec.with("not_started", Value::int(*code)).with("reason", Value::text(reason.clone()))
        }
        Outcome::TimedOut => spec.with("timed_out", Value::Bool(true)),
        Outcome::Cancelled => spec.with("cancelled", Value::Bool(true)),
        Outcome::Lost => spec.with("lost", Value::Bool(true)),
        Outcome::Broke(reason) => spec.with("broke", Value::text(reason.clone())),
    }
}

/// Reads what `outcome_spec` wrote.
#[must_use]
pub fn outcome_of(spec: &WorkSpec) -> Option<Outcome> {
    let number = |key| spec.int(key).and_then(|number| i32::try_from(number).ok());
    let says = |key| spec.field(key) == Some(&Value::Bool(true));
    if let Some(code) = number("exit") {
        Some(Outcome::Exit(code))
    } else if let Some(signal) = number("signal") {
        Some(Outcome::Signal(signal))
    } else if let Some(code) = number("not_started") {
        Some(Outcome::NotStarted(code, spec.text("reason").cloned().unwrap_or_default()))
    } else if says("timed_out") {
        Some(Outcome::TimedOut)
    } else if says("cancelled") {
        Some(Outcome::Cancelled)
    } else if says("lost") {
        Some(Outcome::Lost)
    } else {
        spec.text("broke").map(|reason| Outcome::Broke(reason.clone()))
    }
}

/// Adds what was used to the spec of an end of version 2.
pub(super) fn with_usage(spec: WorkSpec, usage: &Usage) -> WorkSpec {
    let parts = [
        ("cpu_user_ms", usage.cpu_user_ms),
        ("cpu_sys_ms", usage.cpu_sys_ms),
        ("wall_ms", usage.wall_ms),
        ("max_rss_bytes", usage.max_rss_bytes),
    ];
    parts.into_iter().filter(|(_, value)| *value > 0).fold(spec, |spec, (key, value)| spec.with(key, Value::int(value)))
}

/// Reads what an end of version 2 says of usage; what it does not name is 0.
#[must_use]
pub(super) fn usage_of(spec: &WorkSpec) -> Usage {
    let part = |key| spec.uint(key).unwrap_or(0);
    Usage {
        cpu_user_ms: part("cpu_user_ms"),
        cpu_sys_ms: part("cpu_sys_ms"),
        wall_ms: part("wall_ms"),
        max_rss_bytes: part("max_rss_bytes"),
    }
}
