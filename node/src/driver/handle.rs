//! The cloneable handle to the driver: inputs from edges, commands and questions from the API.
//!
//! Invariants: the queue is bounded; edges on their own threads wait when it is full, async callers are refused.

use std::fmt;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use starling_core::machine::{Command, Input, Machine, Notice, Reply};
use starling_core::time::{Mono, Now, Wall};
use tokio::sync::{broadcast, oneshot};

/// Reads both clocks. `Mono` counts from when the process started.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Both readings.
    #[must_use]
    pub fn now(&self) -> Now {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        Now { mono: Mono(millis(self.origin.elapsed())), wall: Wall(wall) }
    }
}

/// Something to be run on the Machine, between two steps.
pub struct Question(pub(super) Ask);

type Ask = Box<dyn FnOnce(&mut Machine, Now) + Send>;

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}

#[derive(Debug)]
pub(super) enum Message {
    Input(Box<Input>),
    Command(Box<Command>, oneshot::Sender<Reply>),
    Question(Question),
}

/// The driver cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// Its queue is full. Nothing changed; try again.
    #[error("this node is busy; try again in a moment")]
    Busy,
    /// It has ended.
    #[error("this node is shutting down")]
    Gone,
}

/// Access to the driver.
#[derive(Clone, Debug)]
pub struct Handle {
    tx: SyncSender<Message>,
    news: broadcast::Sender<Notice>,
    clock: Clock,
}

impl Handle {
    pub(super) fn new(tx: SyncSender<Message>, news: broadcast::Sender<Notice>, clock: Clock) -> Self {
        Self { tx, news, clock }
    }

    /// Hands over an input, waiting while the queue is full. For edges on their own threads. False once the driver has ended.
    pub fn input(&self, input: Input) -> bool {
        self.tx.send(Message::Input(Box::new(input))).is_ok()
    }

    /// Hands over an input without waiting; false if the queue is full or the driver has ended. For callers on the driver's own thread.
    pub fn try_input(&self, input: Input) -> bool {
        self.tx.try_send(Message::Input(Box::new(input))).is_ok()
    }

    /// Gives a command and waits for its reply.
    ///
    /// Cancel safety: the command is carried out even if the future is dropped.
    ///
    /// # Errors
    /// If the driver is busy (nothing changed) or has ended (the command may or may not be durable).
    pub async fn command(&self, command: Command) -> Result<Reply, Stopped> {
        let (answer, reply) = oneshot::channel();
        self.post(Message::Command(Box::new(command), answer))?;
        reply.await.map_err(|_closed| Stopped::Gone)
    }

    /// Asks the Machine something and waits for the answer. The question runs on the driver's thread: keep it short.
    ///
    /// Cancel safety: cancel safe.
    ///
    /// # Errors
    /// If the driver is busy or has ended.
    pub async fn ask<T, F>(&self, question: F) -> Result<T, Stopped>
    where
        T: Send + 'static,
        F: FnOnce(&mut Machine, Now) -> T + Send + 'static,
    {
        let (answer, reply) = oneshot::channel();
        let ask = move |machine: &mut Machine, now: Now| {
            // The asker may have gone.
            let _gone = answer.send(question(machine, now));
        };
        self.post(Message::Question(Question(Box::new(ask))))?;
        reply.await.map_err(|_closed| Stopped::Gone)
    }

    fn post(&self, message: Message) -> Result<(), Stopped> {
        self.tx.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => Stopped::Busy,
            TrySendError::Disconnected(_) => Stopped::Gone,
        })
    }

    /// News from now on. A subscriber that lags must ask again instead of counting on every piece.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.news.subscribe()
    }

    /// The clocks that the Machine is driven by.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }
}
