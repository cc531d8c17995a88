//! The cloneable handle to the relays' manager.
//!
//! Invariants: what the driver says never waits: there is room for all that it can say; callers of the API wait for room.

use std::sync::Arc;

use starling_core::event::WorkSpec;
use starling_core::ids::{JobId, RunId};
use starling_core::machine::Spawn;
use tokio::sync::{mpsc, oneshot};

use super::news::Touched;
use super::table::{Link, Poll, link};
use super::{Batch, GeneratorView, Held, Registered, Registration, RelayError, WAIT_MS_MAX, Wants};
use crate::driver::Stopped;

/// What the driver wants.
#[derive(Debug)]
pub(super) enum Effect {
    Assign(Box<Spawn>),
    Kill(RunId),
}

type Answer<T> = oneshot::Sender<Result<T, RelayError>>;

/// What everybody else wants.
#[derive(Debug)]
pub(super) enum Message {
    Register { registration: Registration, link: Link, answer: Answer<(Registered, u64)> },
    Leave { gid: String, answer: Answer<()> },
    Contact { gid: String, answer: Answer<()> },
    Poll { gid: String, session: Option<u64>, wait_ms: u64, poll: Poll, refusal: Answer<()> },
    TaskOf { job: JobId, index: u32, answer: Answer<Held> },
    Report { gid: String, token: String, kind: String, spec: WorkSpec, answer: Answer<()> },
    List { answer: Answer<Vec<GeneratorView>> },
    Parted { gid: String, session: u64 },
    Touched(Touched),
}

/// Access to the manager.
#[derive(Clone, Debug)]
pub struct Handle {
    effects: mpsc::Sender<Effect>,
    messages: mpsc::Sender<Message>,
}

impl Handle {
    pub(super) fn new(effects: mpsc::Sender<Effect>, messages: mpsc::Sender<Message>) -> Self {
        Self { effects, messages }
    }

    /// A task to hand over. False if there is no room, which only a local bug can bring about, or the manager has ended.
    #[must_use]
    pub fn assign(&self, spawn: Spawn) -> bool {
        self.effects.try_send(Effect::Assign(Box::new(spawn))).is_ok()
    }

    /// A task to stop. A run that no relay was given is left alone.
    pub fn kill(&self, run: RunId) {
        // Without room the run's limit kills it later; see `assign`.
        let _full = self.effects.try_send(Effect::Kill(run));
    }

    /// Registers a generator that calls, or is called.
    ///
    /// Cancel safety: it may be registered.
    ///
    /// # Errors
    /// If a field is out of its bounds, or too many are registered.
    pub async fn register(&self, registration: Registration) -> Result<Registered, RelayError> {
        let (registered, _) = self.enter(registration, Link::Calls).await?;
        Ok(registered)
    }

    /// Registers a generator that is live as long as the session.
    ///
    /// Cancel safety: it may be registered, for its lease.
    ///
    /// # Errors
    /// As `register`.
    pub async fn open(&self, registration: Registration) -> Result<Session, RelayError> {
        let (end, link) = link();
        let gid = registration.gid.clone();
        let (registered, number) = self.enter(registration, link).await?;
        Ok(Session { handle: self.clone(), gid, registered, number, _end: end })
    }

    async fn enter(&self, registration: Registration, link: Link) -> Result<(Registered, u64), RelayError> {
        let registration = registration.complete()?;
        self.ask(|answer| Message::Register { registration, link, answer }).await
    }

    /// Forgets a generator; its tasks are granted again.
    ///
    /// Cancel safety: it may be forgotten.
    ///
    /// # Errors
    /// If it is not registered.
    pub async fn leave(&self, gid: &str) -> Result<(), RelayError> {
        let gid = gid.to_owned();
        self.ask(|answer| Message::Leave { gid, answer }).await
    }

    /// Renews a generator's lease.
    ///
    /// Cancel safety: cancel safe.
    ///
    /// # Errors
    /// If it is not registered.
    pub async fn contact(&self, gid: &str) -> Result<(), RelayError> {
        let gid = gid.to_owned();
        self.ask(|answer| Message::Contact { gid, answer }).await
    }

    /// Waits up to `wait_ms` for something to tell a generator.
    ///
    /// Cancel safety: until it is ready, nothing has changed hands.
    ///
    /// # Errors
    /// If it is not registered (any more).
    pub async fn poll(&self, gid: &str, wants: Wants, max: usize, wait_ms: u64) -> Result<Batch, RelayError> {
        self.poll_as(gid, None, wants, max, wait_ms).await
    }

    async fn poll_as(
        &self,
        gid: &str,
        session: Option<u64>,
        wants: Wants,
        max: usize,
        wait_ms: u64,
    ) -> Result<Batch, RelayError> {
        let (answer, batch) = oneshot::channel();
        let wait_ms = wait_ms.min(WAIT_MS_MAX);
        // The actor knows the time.
        let poll = Poll { wants, max: max.max(1), until: 0, answer };
        let own = gid.to_owned();
        self.ask(|refusal| Message::Poll { gid: own, session, wait_ms, poll, refusal }).await?;
        batch.await.map_err(|_dropped| RelayError::TakenOver(gid.to_owned()))
    }

    /// Who has one task of a job, for programs that find their tasks in Facts. One that waits is taken by the generator with the most room.
    ///
    /// Cancel safety: it may have been taken.
    ///
    /// # Errors
    /// If no such task is with relays here.
    pub async fn task_of(&self, job: JobId, index: u32) -> Result<Held, RelayError> {
        self.ask(|answer| Message::TaskOf { job, index, answer }).await
    }

    /// A generator's word on a task, durable when this returns.
    ///
    /// Cancel safety: once the manager has it, it is carried out.
    ///
    /// # Errors
    /// If the task is not in its hands, or the word is none of the namespace's.
    pub async fn report(&self, gid: &str, token: &str, kind: &str, spec: WorkSpec) -> Result<(), RelayError> {
        let (gid, token, kind) = (gid.to_owned(), token.to_owned(), kind.to_owned());
        self.ask(|answer| Message::Report { gid, token, kind, spec, answer }).await
    }

    /// All generators here.
    ///
    /// Cancel safety: cancel safe.
    ///
    /// # Errors
    /// If the manager has ended.
    pub async fn list(&self) -> Result<Vec<GeneratorView>, RelayError> {
        self.ask(|answer| Message::List { answer }).await
    }

    async fn ask<T>(&self, message: impl FnOnce(Answer<T>) -> Message) -> Result<T, RelayError> {
        let (answer, reply) = oneshot::channel();
        self.messages.send(message(answer)).await.map_err(|_closed| Stopped::Gone)?;
        reply.await.map_err(|_dropped| Stopped::Gone)?
    }
}

/// A generator's open stream. Dropped, its lease begins.
#[derive(Debug)]
pub struct Session {
    handle: Handle,
    gid: String,
    registered: Registered,
    number: u64,
    _end: Arc<()>,
}

impl Session {
    /// What was agreed on.
    #[must_use]
    pub fn registered(&self) -> Registered {
        self.registered
    }

    /// Waits for something to tell.
    ///
    /// Cancel safety: until it is ready, nothing has changed hands.
    ///
    /// # Errors
    /// If somebody else registered under the name.
    pub async fn poll(&self, max: usize) -> Result<Batch, RelayError> {
        self.handle.poll_as(&self.gid, Some(self.number), Wants::Both, max, WAIT_MS_MAX).await
    }

    /// A word on a task; see `Handle::report`.
    ///
    /// # Errors
    /// As that.
    pub async fn report(&self, token: &str, kind: &str, spec: WorkSpec) -> Result<(), RelayError> {
        self.handle.report(&self.gid, token, kind, spec).await
    }

    /// Leaves: its tasks are granted again at once.
    ///
    /// # Errors
    /// If somebody else registered under the name.
    pub async fn leave(self) -> Result<(), RelayError> {
        self.handle.leave(&self.gid).await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Without room the manager notices by itself, a third of the lease later at most.
        let _full = self.handle.messages.try_send(Message::Parted { gid: self.gid.clone(), session: self.number });
    }
}
