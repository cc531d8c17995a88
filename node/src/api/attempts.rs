//! Attempts as the API shows them: where, how they ended, what they used, where their environments listened.
//!
//! Invariants: as many attempts as there are, but a bounded number of ports, and of those that differ by their worker alone.
//! Does not: decide what an attempt is (`facts::view` does).

use starling_core::facts::view::{self, AttemptView};
use starling_core::facts::{self, Grant, Job, Outcome, Run};
use starling_core::lattice::IntervalSet;
use starling_core::machine::Machine;
use starling_core::time::Hlc;
use starling_proto::v1::{Attempt, Ending, JobState, TaskPort, Usage};

use super::convert::{clamp, ending, ranges};
use super::reason;

/// Ports in one reply: about 25 bytes each, and clients take 4 MiB.
const PORTS_MAX: usize = 10_000;
/// Attempts in one reply that are split by worker, for the same reason.
const BY_WORKER_MAX: usize = 10_000;

/// Everything that was tried and came to something.
pub(super) fn attempts(machine: &Machine, job: &Job) -> Vec<Attempt> {
    let mut room = PORTS_MAX;
    let mut all = Vec::new();
    for view in view::attempts(job) {
        let attempt = attempt(machine, job, &view, room);
        // A grant that came to nothing says nothing to a user. An environment may have listened before its policy started.
        if !view.void || view.started || view.outcome.is_some() || !attempt.ports.is_empty() {
            room -= attempt.ports.len();
            if all.len() < BY_WORKER_MAX {
                all.extend(by_worker(job, &view, attempt));
            } else {
                all.push(attempt);
            }
        }
    }
    all
}

/// The attempt once for each worker that ran some of its tasks, and once for those that no worker ran.
fn by_worker(job: &Job, view: &AttemptView, attempt: Attempt) -> Vec<Attempt> {
    let run = job.grants.lookup(&view.grant).and_then(Grant::run);
    let extra = run.and_then(|run| run.extra.as_ref()).and_then(|extra| extra.workers.as_ref());
    let Some(workers) = extra else {
        return vec![attempt];
    };
    let (mut rest, mut parts) = (view.tasks.clone(), Vec::new());
    for (worker, tasks) in workers.iter() {
        let tasks = rest.intersection(tasks);
        if tasks.is_empty() {
            continue;
        }
        rest.subtract(&tasks);
        let (tasks, worker) = (ranges(&tasks), worker.to_string());
        parts.push(Attempt { tasks, worker, ports: Vec::new(), ..attempt.clone() });
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(Attempt { tasks: ranges(&rest), ..attempt });
    }
    parts
}

/// What all attempts together used; `None` while no node has said.
pub(super) fn total_usage(job: &Job) -> Option<Usage> {
    let used = |grant: &Grant| Some((*grant.run()?.usage()?, ended(grant)?));
    let all = job.grants.values().filter_map(used);
    all.reduce(|(sum, count), (usage, tasks)| (sum.plus(&usage), count + tasks))
        .map(|(usage, tasks)| of_usage(&usage, tasks))
}

fn attempt(machine: &Machine, job: &Job, view: &AttemptView, room: usize) -> Attempt {
    let (state, reason) = match &view.outcome {
        Some(Outcome::Exit(0)) => (JobState::Done, String::new()),
        Some(Outcome::Cancelled) => (JobState::Cancelled, String::new()),
        Some(Outcome::Lost) => (JobState::Lost, reason::of_outcome(&Outcome::Lost)),
        Some(
            outcome @ (Outcome::Exit(_)
            | Outcome::Signal(_)
            | Outcome::NotStarted(..)
            | Outcome::TimedOut
            | Outcome::Broke(_)),
        ) => (JobState::Failed, reason::of_outcome(outcome)),
        None if view.void => (JobState::Lost, "withdrawn: its node was silent".to_owned()),
        None if view.started => (JobState::Running, String::new()),
        None => (JobState::Pending, String::new()),
    };
    let grant = job.grants.lookup(&view.grant);
    let run = grant.and_then(Grant::run);
    let usage = run.and_then(Run::usage).filter(|_| view.outcome.is_some());
    Attempt {
        tasks: ranges(&view.tasks),
        attempt: view.attempt.0.into(),
        node: view::node_name(machine.facts(), &view.node),
        state: state.into(),
        exit: view.outcome.as_ref().map(Outcome::code),
        ending: view.outcome.as_ref().map_or(Ending::None, ending).into(),
        reason,
        started_unix_ms: unix_ms(view.first_start),
        ended_unix_ms: match view.outcome {
            Some(_) => unix_ms(view.last_end),
            None => 0,
        },
        worker: String::new(),
        ports: run.map(|run| ports(run, &view.tasks, room)).unwrap_or_default(),
        usage: usage.map(|usage| of_usage(usage, grant.and_then(ended).unwrap_or_default())),
    }
}

/// How many tasks a grant's usage adds up.
fn ended(grant: &Grant) -> Option<u64> {
    Some(grant.run()?.all_ended().intersection(&grant.placed.as_ref()?.tasks).len())
}

pub(super) fn of_usage(usage: &facts::Usage, tasks: u64) -> Usage {
    Usage {
        cpu_user_ms: usage.cpu_user_ms,
        cpu_sys_ms: usage.cpu_sys_ms,
        wall_ms: usage.wall_ms,
        max_rss_bytes: usage.max_rss_bytes,
        tasks: clamp(tasks),
    }
}

/// Where the environments of these tasks listened, as far as there is room.
fn ports(run: &Run, tasks: &IntervalSet, room: usize) -> Vec<TaskPort> {
    let told = run.extra.iter().flat_map(|extra| extra.ports.iter());
    told.filter(|(task, _)| tasks.contains(**task))
        .filter_map(|(task, port)| {
            let port = port.0.as_ref()?;
            Some(TaskPort { task: *task, host: port.host.to_string(), port: port.port.into() })
        })
        .take(room)
        .collect()
}

/// The wall part of a clock, 0 for none.
pub(super) fn unix_ms(hlc: Option<Hlc>) -> u64 {
    hlc.map_or(0, |hlc| hlc.wall_ms)
}

#[cfg(test)]
mod tests {
    use starling_core::facts::{Extra, Placed};
    use starling_core::ids::{GrantNo, NodeId, Term, WorkerName};
    use starling_core::lattice::{Lattice as _, VecMap};
    use starling_proto::v1::IndexRange;

    use super::*;

    fn range(start: u32, end: u32) -> IntervalSet {
        IntervalSet::from_range(start, end)
    }

    /// Ten tasks under one grant, of which workers `w1` and `w2` started some.
    fn job() -> Job {
        let (no, node) = (GrantNo { term: Term(1), no: 1 }, NodeId([1; 32]));
        let hlc = Hlc { wall_ms: 5, count: 0 };
        let placed = Placed { node, attempt: starling_core::ids::Attempt(1), tasks: range(0, 9), hlc, pool: None };
        let mut job = Job::granted(no, placed);
        for (worker, tasks) in [("w1", range(0, 3)), ("w2", range(4, 7))] {
            let workers = Some(Box::new(VecMap::one(WorkerName(worker.into()), tasks.clone())));
            let run = Run { started: tasks, ..Run::default() };
            let _ = job.join(Job::reported(no, node, run.with(Extra { workers, ..Extra::default() })));
        }
        let rest = Run { started: range(8, 8), ..Run::default() };
        let _ = job.join(Job::reported(no, node, rest));
        job
    }

    #[test]
    fn tasks_of_one_attempt_are_told_apart_by_their_worker() {
        let job = job();
        let views = view::attempts(&job);
        let parts: Vec<Attempt> = views
            .iter()
            .flat_map(|view| by_worker(&job, view, Attempt { tasks: ranges(&view.tasks), ..Attempt::default() }))
            .collect();
        let shown: Vec<(&str, &[IndexRange])> =
            parts.iter().map(|part| (part.worker.as_str(), part.tasks.as_slice())).collect();
        let of = |start, end| [IndexRange { start, end }];
        let expected = [of(0, 3), of(4, 7), of(8, 8), of(9, 9)];
        assert_eq!(shown, [("w1", &expected[0][..]), ("w2", &expected[1]), ("", &expected[2]), ("", &expected[3])]);
    }
}
