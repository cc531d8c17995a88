//! Commands: submissions and cancels from users.
//!
//! Invariants: a refused command changes nothing; an accepted one is answered only once it is durable at the level asked for, or says the level it reached.

use smol_str::SmolStr;

use super::io::{AckLevel, Command, CommandError, Effect, Reply, Submission};
use super::{Machine, Owed};
use crate::event::{Event, SysContext, WorkSpec};
use crate::facts::Usage;
use crate::ids::{Hash, JobId, JobNo, RequestId, RunId};
use crate::limits;
use crate::namespace::{Declaration, Speaker, sys};
use crate::time::Now;

/// What a submission is written as.
struct Form {
    kind: SmolStr,
    schema: Option<Hash>,
    spec: WorkSpec,
}

impl Machine {
    pub(super) fn on_command(&mut self, now: Now, request: RequestId, command: Command) {
        let result = match command {
            Command::Submit(submission) => self.submit(now, request, *submission),
            Command::Cancel(job) => self.cancel(now, job).map(Some),
            Command::Declare(declaration) => self.declare(now, request, &declaration),
            Command::Drain { node, on, reason } => self.drain(now, request, node, on, &reason),
            Command::Forget(node) => self.forget(now, request, node),
            Command::AddToken { hash, name } => self.add_token(now, request, hash, &name),
            Command::RevokeToken(hash) => self.revoke_token(now, request, hash),
            Command::Import(batches) => self.import(now, request, batches),
            Command::Report { run, kind, spec } => self.relay_report(now, request, run, &kind, spec).map(|()| None),
            Command::Remark { job, kind, spec } => self.remark(now, request, job, &kind, spec).map(|()| None),
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
        let Submission { ns, kind, tasks, priority, spec, ack } = submission;
        let Form { kind, schema, spec } = self.form(&ns, kind, spec)?;
        if tasks.is_empty() || tasks.len() > u64::from(limits::TASKS_MAX) {
            return Err(CommandError::Tasks(tasks.len()));
        }
        self.takes_writes()?;
        let waiting = self.outbox.own_len().max(self.owed_local.len() + self.owed_remote.len());
        if self.outbox.own_len() >= limits::OUTBOX_EVENTS_MAX || waiting >= limits::PENDING_REPLIES_MAX {
            return Err(CommandError::Busy(waiting));
        }
        let known = spec.bytes("request").and_then(|key| self.request(key));
        let known = known.or_else(|| spec.text("alias").and_then(|alias| self.facts.job_called(alias)));
        if let Some(job) = known {
            return Ok(Some(Reply::Submitted { job, level: AckLevel::Local, fresh: false }));
        }
        let id = JobId { log: self.own_log(), no: JobNo(self.next_job) };
        let ctx = SysContext { job: Some(id), tasks, priority, schema, ..SysContext::default() };
        let event = Event { hlc: self.clock.tick(now.wall), ns, kind, ver: 1, ctx, spec };
        check_size(&event)?;
        self.next_job += 1;
        self.outbox.push(event);
        self.owed_local.insert(id, Owed { request, job: id, level: ack, since: now.mono });
        Ok(None)
    }

    /// The job that this node accepted under an idempotency key, if its submission is durable.
    fn request(&self, key: &[u8]) -> Option<JobId> {
        if key.is_empty() { None } else { self.owner.request(key) }
    }

    /// What a submission to a namespace looks like in the log: by a namespace of this binary, or by the current declaration of that name.
    fn form(&self, ns: &SmolStr, kind: SmolStr, spec: WorkSpec) -> Result<Form, CommandError> {
        if let Some(namespace) = self.registry.namespace(ns) {
            let usual = namespace.submit_kind().ok_or_else(|| CommandError::NoJobs(ns.clone()))?;
            if !kind.is_empty() && kind != usual {
                return Err(CommandError::NotASubmission { kind, expected: format!("`{usual}`"), ns: ns.clone() });
            }
            namespace.spec().validate(&spec)?;
            return Ok(Form { kind: SmolStr::new_static(usual), schema: None, spec });
        }
        let Some((hash, declaration)) = self.facts.declarations().current(ns) else {
            return Err(CommandError::UnknownNamespace(ns.clone(), self.namespaces().join(", ")));
        };
        let kind = if kind.is_empty() { declaration.usual_submit_kind() } else { kind };
        if !declaration.is_submit(&kind) {
            let expected = format!("`{}`", declaration.usual_submit_kind());
            return Err(CommandError::NotASubmission { kind, expected, ns: ns.clone() });
        }
        Ok(Form { kind, schema: Some(hash), spec: declaration.complete(spec)? })
    }

    /// The names of all namespaces known here, in order.
    #[must_use]
    pub fn namespaces(&self) -> Vec<SmolStr> {
        let declared = self.facts.declarations().iter().map(|(_, one)| one.declaration.spec.name.clone());
        let mut names: Vec<SmolStr> = self.registry.names().cloned().chain(declared).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(super) fn takes_writes(&self) -> Result<(), CommandError> {
        if self.stopping {
            return Err(CommandError::ShuttingDown);
        }
        match self.disk_refusal() {
            Some(reason) => Err(CommandError::DiskRefuses(reason.to_owned())),
            None => Ok(()),
        }
    }

    fn declare(
        &mut self,
        now: Now,
        request: RequestId,
        declaration: &Declaration,
    ) -> Result<Option<Reply>, CommandError> {
        declaration.check()?;
        let (name, version, id) = (&declaration.spec.name, declaration.version, declaration.id());
        let known = self.facts.declarations();
        if known.by_hash(&id).is_some() {
            return Ok(Some(Reply::Declared { id, fresh: false }));
        }
        if known.called(name).iter().any(|(_, one)| one.declaration.version == version) {
            return Err(CommandError::VersionTaken { name: name.clone(), version });
        }
        if known.len() >= limits::DECLARATIONS_MAX {
            return Err(CommandError::TooManyNamespaces(known.len()));
        }
        self.takes_writes()?;
        let hlc = self.clock.tick(now.wall);
        self.outbox.push_for(sys::register_namespace(hlc, declaration), request, Reply::Declared { id, fresh: true });
        Ok(None)
    }

    fn relay_report(
        &mut self,
        now: Now,
        request: RequestId,
        run: RunId,
        kind: &str,
        spec: WorkSpec,
    ) -> Result<(), CommandError> {
        let (grant, task, voice) = self.executor.run(&run).ok_or(CommandError::NotHeld)?;
        // As the job was when it was accepted: if its author forked, another submission of its id may count by now.
        let outcome = match voice.schema().and_then(|hash| self.facts.declarations().by_hash(&hash)) {
            Some(declaration) => declaration.check_event(kind, &spec)?,
            None => self.registry.check_event(voice.ns(), kind, &spec)?,
        };
        self.takes_writes()?;
        let event = voice.report(self.clock.tick(now.wall), kind, grant, task, spec);
        check_size(&event)?;
        self.outbox.push_for(event, request, Reply::Noted);
        if let Some(outcome) = outcome {
            // The event itself tells of the end; the books only need to be closed.
            let _told = self.executor.on_ended(run, outcome, Usage::default());
            self.place_due = true;
        }
        Ok(())
    }

    fn remark(
        &mut self,
        now: Now,
        request: RequestId,
        id: JobId,
        kind: &str,
        spec: WorkSpec,
    ) -> Result<(), CommandError> {
        if self.facts.is_retired(&id) {
            return Err(CommandError::AlreadyFinished);
        }
        let submit = self.facts.job(&id).and_then(|job| job.submit.as_ref()).ok_or(CommandError::UnknownJob)?;
        let not_allowed = || CommandError::NotForAnyone(SmolStr::new(kind));
        let (ns, schema) = (submit.ns.clone(), submit.schema().ok_or_else(not_allowed)?);
        let declaration = self.facts.declarations().by_hash(&schema).ok_or_else(not_allowed)?;
        declaration.check_event(kind, &spec)?;
        if declaration.rule(kind).is_none_or(|rule| rule.by != Speaker::Anyone) {
            return Err(not_allowed());
        }
        self.takes_writes()?;
        let ctx = SysContext { job: Some(id), schema: Some(schema), ..SysContext::default() };
        let event = Event { hlc: self.clock.tick(now.wall), ns, kind: SmolStr::new(kind), ver: 1, ctx, spec };
        check_size(&event)?;
        self.outbox.push_for(event, request, Reply::Noted);
        Ok(())
    }

    fn cancel(&mut self, now: Now, id: JobId) -> Result<Reply, CommandError> {
        if self.facts.is_retired(&id) {
            return Err(CommandError::AlreadyFinished);
        }
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

fn check_size(event: &Event) -> Result<(), CommandError> {
    let size = event.to_bytes().len();
    if size > limits::EVENT_BYTES_MAX { Err(CommandError::TooLarge(size)) } else { Ok(()) }
}
