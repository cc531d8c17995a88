//! A session's outbox: what a worker is told over its stream, and how the stream ends.
//!
//! Invariants: bounded: a worker that does not read is cut off instead of waited for; once ended nothing more is said, and what waited is forgotten at once, so
//! that a stream that is never read holds no memory.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::Stream;
use futures::task::AtomicWaker;
use starling_proto::hwp::ServerMessage;
use tokio::sync::watch;
use tonic::Status;

/// Messages that wait for a worker to read. Low: one that pauses for a moment is cut off. High: memory.
const WAITING_MAX: usize = 256;

#[derive(Debug)]
struct State {
    waiting: VecDeque<ServerMessage>,
    /// Set once; taken when it is told.
    end: Option<Option<Status>>,
    is_over: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    reader: AtomicWaker,
    over: watch::Sender<bool>,
}

/// The gateway's end.
#[derive(Clone, Debug)]
pub(super) struct Outbox(Arc<Shared>);

/// The worker's end: the body of the answer.
#[derive(Debug)]
pub struct Told(Arc<Shared>);

/// Both ends.
pub(super) fn outbox() -> (Outbox, Told) {
    let state = Mutex::new(State { waiting: VecDeque::new(), end: None, is_over: false });
    let (over, _) = watch::channel(false);
    let shared = Arc::new(Shared { state, reader: AtomicWaker::new(), over });
    (Outbox(Arc::clone(&shared)), Told(shared))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, status: Option<Status>) {
        {
            let mut state = self.state();
            if state.is_over {
                return;
            }
            state.is_over = true;
            state.end = Some(status);
            state.waiting = VecDeque::new();
        }
        self.reader.wake();
        self.over.send_replace(true);
    }
}

impl Outbox {
    /// Says something. False if the stream is over, or is over now because the worker does not read.
    #[must_use]
    pub(super) fn say(&self, message: ServerMessage) -> bool {
        let is_full = {
            let mut state = self.0.state();
            if state.is_over {
                return false;
            }
            if state.waiting.len() < WAITING_MAX {
                state.waiting.push_back(message);
                false
            } else {
                true
            }
        };
        if is_full {
            self.end(Status::unavailable("this worker does not read its stream; connect again"));
        } else {
            self.0.reader.wake();
        }
        !is_full
    }

    /// Ends the stream with a sentence why. The first end counts.
    pub(super) fn end(&self, status: Status) {
        self.0.end(Some(status));
    }

    /// Ends the stream as the worker wanted.
    pub(super) fn close(&self) {
        self.0.end(None);
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.state().is_over
    }

    /// Waits until the stream is over.
    ///
    /// Cancel safety: cancel safe.
    pub(super) async fn over(&self) {
        let mut over = self.0.over.subscribe();
        // The sender lives in the same place, so it cannot be gone.
        let _never = over.wait_for(|over| *over).await;
    }
}

impl Stream for Told {
    type Item = Result<ServerMessage, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.reader.register(cx.waker());
        let mut state = self.0.state();
        if let Some(end) = state.end.take() {
            return Poll::Ready(end.map(Err));
        }
        match state.waiting.pop_front() {
            Some(message) => Poll::Ready(Some(Ok(message))),
            None if state.is_over => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_lags_is_cut_off_and_nothing_is_kept_for_it() {
        let (outbox, mut told) = outbox();
        for _ in 0..WAITING_MAX {
            assert!(outbox.say(ServerMessage::default()));
        }
        assert!(!outbox.say(ServerMessage::default()));
        assert!(told.0.state().waiting.is_empty());
        let first = told.next().await.unwrap().unwrap_err();
        assert_eq!(first.code(), tonic::Code::Unavailable);
        assert!(told.next().await.is_none());
        outbox.end(Status::aborted("late"));
        assert!(told.next().await.is_none());
    }

    #[tokio::test]
    async fn an_end_is_heard_by_both_sides() {
        let (outbox, told) = outbox();
        assert!(outbox.say(ServerMessage::default()));
        drop(told);
        outbox.over().await;
        assert!(!outbox.say(ServerMessage::default()));
    }
}
