//! Tasks: told to a worker, accepted, stopped, ended.

use smol_str::SmolStr;
use starling_core::facts::{Outcome, Usage};
use starling_core::ids::{RunId, WorkerName};
use starling_core::machine::Spawn;
use starling_proto::hwp;
use starling_proto::hwp::server_message::Payload;
use tonic::Code;
use tracing::debug;

use super::super::dial::{Call, Called, What};
use super::super::logs::{Close, Closed, Entry, Fill};
use super::super::outcome::{self, Known};
use super::super::work::{self, Assignment, Trust};
use super::workers::{Link, Worker};
use super::{Due, Millis, Table};
use crate::hwp::id::AssignmentId;

/// What a task ends with that was told to stop before any worker had heard of it, and one whose worker did not stop it in time.
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// As a shell says that a command was found and not run.
const NOT_RUN: i32 = 126;
/// Tasks that a worker was told and has not accepted. Low: fast workers wait. High: what is told fills the outbox of a slow one.
const SENT_MAX: usize = 128;

/// How far a task has come.
#[derive(Clone, Debug, PartialEq)]
enum Stage {
    /// The worker has not been told of it.
    Unsent,
    /// It was told, and has not accepted.
    Sent,
    /// It works on it.
    Accepted,
    /// It worked on it before its stream broke. Our own worker says again what it works on; what it does not name it has lost.
    Doubted,
    /// The end is known; its output is being completed.
    Ending(End),
}

#[derive(Clone, Debug, PartialEq)]
enum End {
    Result { exit_code: i32, reason: SmolStr, wall_ms: u64 },
    Known(Outcome),
}

/// A task in a worker's hands.
#[derive(Debug)]
pub(super) struct Task {
    run: RunId,
    worker: WorkerName,
    assignment: Assignment,
    stage: Stage,
    /// When it came, or was last told.
    begin: Millis,
    /// When it is given up: not accepted (again), or not stopped.
    until: Option<Millis>,
    was_stopped: bool,
}

/// What a result was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Taken {
    /// A task that runs here: it counts.
    Counts,
    /// None that runs here (any more).
    Late,
}

impl Table {
    /// A task for a worker.
    pub(in super::super) fn assign(&mut self, now: Millis, spawn: &Spawn) {
        let run = spawn.run;
        let Some(errand) = work::errand(spawn) else {
            return self.over(run, Outcome::Lost, 0);
        };
        let Some(worker) = self.workers.get_mut(&errand.worker) else {
            // It has just gone; the Machine will hear of that too.
            return self.over(run, Outcome::Lost, 0);
        };
        // A worker that is called gets the command alone.
        let trust = if matches!(worker.link, Link::Calls { .. }) { Trust::Command } else { worker.trust() };
        let assignment = match work::assignment(spawn, errand, trust, &self.me) {
            Ok(assignment) => assignment,
            Err(reason) => return self.over(run, Outcome::NotStarted(NOT_RUN, reason.into()), 0),
        };
        let id = AssignmentId { grant: spawn.grant, task: spawn.task };
        worker.tasks.insert(id);
        worker.unsent.insert(id);
        let is_own = worker.trust() == Trust::Own;
        let name = errand.worker.clone();
        self.logs.open(id, Entry { worker: name.clone(), is_own, heard: worker.heard.clone() });
        self.runs.insert(run, id);
        let stage = Stage::Unsent;
        let task = Task { run, worker: name.clone(), assignment, stage, begin: now, until: None, was_stopped: false };
        self.tasks.insert(id, task);
        self.send_unsent(now, &name);
    }

    /// A task has come so far.
    fn enter(&mut self, id: AssignmentId, stage: Stage) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        if let Some(worker) = self.workers.get_mut(&task.worker) {
            worker.unsent.remove(&id);
            worker.sent.remove(&id);
            match stage {
                Stage::Unsent => worker.unsent.insert(id),
                Stage::Sent => worker.sent.insert(id),
                Stage::Accepted | Stage::Doubted | Stage::Ending(_) => false,
            };
        }
        task.stage = stage;
    }

    /// Tells the worker of a task. False if it cannot be told.
    fn send(&mut self, now: Millis, id: AssignmentId) -> bool {
        let Some(task) = self.tasks.get_mut(&id) else {
            return false;
        };
        let name = task.worker.clone();
        let Some(worker) = self.workers.get(&name) else {
            return false;
        };
        let is_said = match &worker.link {
            Link::Awaited | Link::Lost { .. } => return false,
            Link::Stream { outbox, .. } => {
                let job_spec = Some(task.assignment.spec.clone());
                let (worker_id, job_id) = (name.to_string(), id.to_string());
                let assign = hwp::StreamedAssignment { worker_id, job_id, job_spec };
                outbox.say(hwp::ServerMessage { payload: Some(Payload::AssignJob(assign)) })
            }
            Link::Calls { dialler, .. } => {
                let hwp::JobSpec { name, image, command, .. } = task.assignment.spec.clone();
                let request = hwp::AssignJobRequest { job_id: id.to_string(), name, image, command };
                let what = What::Assign(id, Box::new(request));
                self.todo.calls.push(Call { worker: task.worker.clone(), dialler: dialler.clone(), what });
                true
            }
        };
        if !is_said {
            self.lose(now, &name);
            return false;
        }
        task.begin = now;
        let until = now + self.timing.accept_ms;
        task.until = Some(until);
        self.enter(id, Stage::Sent);
        self.look_at(until, Due::Task(id));
        true
    }

    /// Tells a worker of what it was not told, as much as it may have to think about at once.
    pub(super) fn send_unsent(&mut self, now: Millis, name: &WorkerName) {
        while let Some(worker) = self.workers.get(name)
            && worker.sent.len() < SENT_MAX
            && let Some(id) = worker.unsent.first().copied()
            && self.send(now, id)
        {}
    }

    /// A new stream: what was not accepted over the old one is told again, cancels too.
    pub(super) fn tell_again(&mut self, now: Millis, name: &WorkerName) {
        let Some(worker) = self.workers.get(name) else {
            return;
        };
        let is_own = worker.trust() == Trust::Own;
        let ids: Vec<AssignmentId> = worker.tasks.iter().copied().collect();
        for id in ids {
            let Some(task) = self.tasks.get_mut(&id) else {
                continue;
            };
            match (&task.stage, task.was_stopped) {
                (Stage::Sent | Stage::Accepted | Stage::Doubted, true) => self.say_cancel(now, name, id),
                (Stage::Sent, false) => self.enter(id, Stage::Unsent),
                (Stage::Accepted | Stage::Doubted, false) if is_own => {
                    task.stage = Stage::Doubted;
                    let until = now + self.timing.accept_ms;
                    task.until = Some(until);
                    self.look_at(until, Due::Task(id));
                }
                (Stage::Unsent | Stage::Accepted | Stage::Doubted | Stage::Ending(_), _) => {}
            }
        }
        self.send_unsent(now, name);
    }

    fn say_cancel(&mut self, now: Millis, name: &WorkerName, id: AssignmentId) {
        let is_said = match self.workers.get(name).map(|worker| &worker.link) {
            None | Some(Link::Awaited | Link::Lost { .. }) => true,
            Some(Link::Stream { outbox, .. }) => {
                let cancel = hwp::StreamedCancel { worker_id: name.to_string(), job_id: id.to_string() };
                outbox.say(hwp::ServerMessage { payload: Some(Payload::CancelJob(cancel)) })
            }
            Some(Link::Calls { dialler, .. }) => {
                let what = What::Cancel(id);
                self.todo.calls.push(Call { worker: name.clone(), dialler: dialler.clone(), what });
                true
            }
        };
        if !is_said {
            self.lose(now, name);
        }
    }

    /// A task is to be stopped. Runs of others are left alone.
    pub(in super::super) fn kill(&mut self, now: Millis, run: RunId) {
        let Some(id) = self.runs.get(&run).copied() else {
            return;
        };
        let until = now + self.timing.stop_ms;
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        match task.stage {
            Stage::Unsent => self.end(id, End::Known(Outcome::Signal(SIGTERM)), None),
            Stage::Sent | Stage::Accepted | Stage::Doubted if task.was_stopped => {}
            Stage::Sent | Stage::Accepted | Stage::Doubted => {
                task.was_stopped = true;
                task.until = Some(until);
                let name = task.worker.clone();
                self.look_at(until, Due::Task(id));
                self.say_cancel(now, &name, id);
            }
            Stage::Ending(_) => {}
        }
    }

    /// A worker accepted a task.
    pub(in super::super) fn accepted(&mut self, now: Millis, name: &WorkerName, id: AssignmentId) {
        self.hear(now, name);
        match self.tasks.get_mut(&id).filter(|task| task.worker == *name) {
            Some(task) => {
                if matches!(task.stage, Stage::Sent | Stage::Doubted) {
                    if !task.was_stopped {
                        task.until = None;
                    }
                    self.enter(id, Stage::Accepted);
                    self.send_unsent(now, name);
                }
            }
            None => self.let_go(now, name, id),
        }
    }

    /// Our own worker keeps a result, and works on, until it hears a cancel; of others nobody knows what one would do to them.
    fn let_go(&mut self, now: Millis, name: &WorkerName, id: AssignmentId) {
        let is_own = |worker: &&Worker| worker.trust() == Trust::Own && matches!(worker.link, Link::Stream { .. });
        if self.workers.get(name).filter(is_own).is_some() {
            self.say_cancel(now, name, id);
        }
    }

    /// A result came, `from` a stream or from nobody knows whom.
    pub(in super::super) fn result(
        &mut self,
        now: Millis,
        from: Option<&WorkerName>,
        id: AssignmentId,
        fill: Fill,
    ) -> Taken {
        if let Some(from) = from {
            self.hear(now, from);
        }
        let is_theirs = |task: &&Task| from.is_none_or(|from| task.worker == *from);
        let running = self.tasks.get(&id).filter(is_theirs).filter(|task| !matches!(task.stage, Stage::Ending(_)));
        let Some(task) = running else {
            if let Some(from) = from {
                self.let_go(now, from, id);
            }
            return Taken::Late;
        };
        let wall_ms = now.saturating_sub(task.begin);
        let reason = outcome::reason(&fill.stderr);
        let end = End::Result { exit_code: fill.exit_code, reason, wall_ms };
        self.end(id, end, Some(fill));
        Taken::Counts
    }

    /// How it ended is known; when its output is complete too, that is told.
    fn end(&mut self, id: AssignmentId, end: End, fill: Option<Fill>) {
        if let Some(task) = self.tasks.get_mut(&id) {
            task.until = None;
            self.todo.closes.push(Close { id, fill });
            self.enter(id, Stage::Ending(end));
        }
    }

    /// A task's output is complete.
    pub(in super::super) fn closed(&mut self, now: Millis, closed: Closed) {
        let Closed { id, marker } = closed;
        let is_ending = |task: &&mut Task| matches!(task.stage, Stage::Ending(_));
        if self.tasks.get_mut(&id).filter(is_ending).is_none() {
            return;
        }
        let Some(task) = self.tasks.remove(&id) else {
            return;
        };
        self.runs.remove(&task.run);
        let mut is_own = false;
        if let Some(worker) = self.workers.get_mut(&task.worker) {
            worker.tasks.remove(&id);
            is_own = worker.trust() == Trust::Own;
        }
        let Task { run, worker, assignment, stage, begin, was_stopped, .. } = task;
        let (outcome, wall_ms) = match stage {
            Stage::Ending(End::Result { exit_code, reason, wall_ms }) => {
                let known = Known { wrapped_ms: assignment.wrapped_ms, wall_ms, was_stopped, is_own };
                (outcome::read(exit_code, reason, marker, known), wall_ms)
            }
            Stage::Ending(End::Known(outcome)) => (outcome, now.saturating_sub(begin)),
            Stage::Unsent | Stage::Sent | Stage::Accepted | Stage::Doubted => return,
        };
        self.over(run, outcome, wall_ms);
        self.let_go(now, &worker, id);
        self.send_unsent(now, &worker);
    }

    fn over(&mut self, run: RunId, outcome: Outcome, wall_ms: u64) {
        self.todo.ended.push((run, outcome, Usage { wall_ms, ..Usage::default() }));
    }

    /// A worker is gone, and this task with it.
    pub(super) fn drop_task(&mut self, id: &AssignmentId) {
        let Some(task) = self.tasks.remove(id) else {
            return;
        };
        self.runs.remove(&task.run);
        if !matches!(task.stage, Stage::Ending(_)) {
            self.todo.closes.push(Close { id: *id, fill: None });
        }
        // The Machine takes it for lost as soon as it hears of the worker; should worker and all be back by then, it hears it from here.
        self.over(task.run, Outcome::Lost, 0);
    }

    /// Looks whether a task is to be given up.
    pub(super) fn look_at_task(&mut self, now: Millis, id: AssignmentId) {
        let Some(task) = self.tasks.get(&id) else {
            return;
        };
        match task.until {
            None => return,
            Some(until) if until > now => return self.look_at(until, Due::Task(id)),
            Some(_) => {}
        }
        let (name, was_stopped) = (task.worker.clone(), task.was_stopped);
        if was_stopped {
            debug!(worker = %name, task = %id, "a worker did not stop a task in time");
            return self.end(id, End::Known(Outcome::Signal(SIGKILL)), None);
        }
        debug!(worker = %name, task = %id, "a worker did not accept a task in time");
        self.say_cancel(now, &name, id);
        self.end(id, End::Known(Outcome::Lost), None);
    }

    /// A call to a worker that listens is over.
    pub(in super::super) fn called(&mut self, now: Millis, called: Called) {
        self.reached(now, &called.worker, called.is_reached());
        let Some(id) = called.assigned else {
            return;
        };
        let is_waiting = self.tasks.get(&id).is_some_and(|task| task.stage == Stage::Sent);
        match called.result {
            Ok(()) if self.tasks.contains_key(&id) => self.accepted(now, &called.worker, id),
            Ok(()) => {
                // It was given up meanwhile.
                let Called { worker, dialler, .. } = called;
                self.todo.calls.push(Call { worker, dialler, what: What::Cancel(id) });
            }
            Err(_) if !is_waiting => {}
            Err(status) => {
                debug!(worker = %called.worker, task = %id, code = ?status.code(), "a worker did not take a task");
                let outcome = match status.code() {
                    // Nothing came of it, or the worker is busy: another may do better.
                    Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::ResourceExhausted
                    | Code::Aborted => Outcome::Lost,
                    Code::Ok
                    | Code::InvalidArgument
                    | Code::NotFound
                    | Code::AlreadyExists
                    | Code::PermissionDenied
                    | Code::FailedPrecondition
                    | Code::OutOfRange
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::DataLoss
                    | Code::Unauthenticated => {
                        let reason = format!("the worker refused it: {}", status.message());
                        Outcome::NotStarted(NOT_RUN, outcome::reason(&reason))
                    }
                };
                self.end(id, End::Known(outcome), None);
            }
        }
    }
}
