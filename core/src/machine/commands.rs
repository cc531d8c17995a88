//! Commands: submissions and cancels from users.
//!
//! Invariants: a refused command changes nothing; an accepted one is answered only once it is durable at the level asked for, or says the level it reached.

use super::io::{AckLevel, Command, CommandError, Effect, Reply, Submission};
use super::{Machine, Owed};
use crate::ids::{JobId, JobNo, RequestId};
use crate::limits;
use crate::namespace::{batch, sys};
use crate::time::Now;

impl Machine {
    pub(super) fn on_command(&mut self, now: Now, request: RequestId, command: Command) {
        let result = match command {
            Command::Submit(submission) => self.submit(now, request, *submission),
            Command::Cancel(job) => self.cancel(now, job).map(Some),
        };
        let reply = match result {
            Ok(Some(reply)) => reply,
            Ok(None) => return,
            Err(error) => Reply::Error(error),
        };
        self.effects.push(Effect::Reply { request, reply });
    }

    /// Checks and queues a submission; the reply comes when it is durable, unless it is known already.
    fn submit(&mut self, now: Now, request: RequestId, submission: Submission) -> Result<Option<Reply>, CommandError> {
        let Submission { ns, tasks, priority, spec, ack } = submission;
        let namespace = self.registry.namespace(&ns).ok_or_else(|| {
            let known: Vec<&str> = self.registry.names().map(smol_str::SmolStr::as_str).collect();
            CommandError::UnknownNamespace(ns.clone(), known.join(", "))
        })?;
        if namespace.spec().handler_type.is_empty() {
            return Err(CommandError::NoJobs(ns));
        }
        namespace.spec().validate(&spec)?;
        if tasks.is_empty() || tasks.len() > u64::from(limits::TASKS_MAX) {
            return Err(CommandError::Tasks(tasks.len()));
        }
        if self.stopping {
            return Err(CommandError::ShuttingDown);
        }
        if let Some(reason) = self.disk_refusal() {
            return Err(CommandError::DiskRefuses(reason.to_owned()));
        }
        let waiting = self.outbox.own_len().max(self.owed_local.len() + self.owed_remote.len());
        if self.outbox.own_len() >= limits::OUTBOX_EVENTS_MAX || waiting >= limits::PENDING_REPLIES_MAX {
            return Err(CommandError::Busy(waiting));
        }
        if let Some(job) = spec.bytes("request").and_then(|key| self.request(key)) {
            return Ok(Some(Reply::Submitted { job, level: AckLevel::Local, fresh: false }));
        }
        let id = JobId { log: self.own_log(), no: JobNo(self.next_job) };
        let event = batch::submit_job(self.clock.tick(now.wall), id, tasks, priority, spec);
        let size = event.to_bytes().len();
        if size > limits::EVENT_BYTES_MAX {
            return Err(CommandError::TooLarge(size));
        }
        self.next_job += 1;
        self.outbox.push(event);
        self.owed_local.insert(id, Owed { request, job: id, level: ack, since: now.mono });
        Ok(None)
    }

    /// The job that this node accepted under an idempotency key, if its submission is durable.
    fn request(&self, key: &[u8]) -> Option<JobId> {
        if key.is_empty() { None } else { self.owner.request(key) }
    }

    fn cancel(&mut self, now: Now, id: JobId) -> Result<Reply, CommandError> {
        let job = self.facts.job(&id).ok_or(CommandError::UnknownJob)?;
        if job.is_sealed() {
            return Err(CommandError::AlreadyFinished);
        }
        if let Some(reason) = self.disk_refusal() {
            return Err(CommandError::DiskRefuses(reason.to_owned()));
        }
        if job.cancel.0.is_none() {
            let hlc = self.clock.tick(now.wall);
            self.outbox.push(sys::cancel(hlc, id));
        }
        Ok(Reply::Cancelled)
    }
}
