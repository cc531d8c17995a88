//! Streams of replies, and the news that moves them.
//!
//! Invariants: a stream owns its work: dropping it ends the work; what was sent before an error is
//! delivered before it; a reader that is slow holds the work up, never memory.
//! Does not: know what is sent.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use starling_core::event::{Entry, Event};
use starling_core::machine::Notice;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tonic::Status;

use super::status::ApiError;
use crate::driver::{Handle, Stopped};

/// Replies that wait for a slow reader; then the work waits.
const AHEAD: usize = 16;

/// A stream driven by a future that sends into it.
pub(super) struct Produced<T> {
    rx: mpsc::Receiver<T>,
    work: Option<BoxFuture<'static, Result<(), ApiError>>>,
    failure: Option<ApiError>,
}

impl<T> fmt::Debug for Produced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Produced")
    }
}

impl<T: Send + 'static> Produced<T> {
    /// What the future made by `make` sends; its error ends the stream.
    pub(super) fn new<M, F>(make: M) -> Self
    where
        M: FnOnce(mpsc::Sender<T>) -> F,
        F: Future<Output = Result<(), ApiError>> + Send + 'static,
    {
        let (tx, rx) = mpsc::channel(AHEAD);
        Self { rx, work: Some(Box::pin(make(tx))), failure: None }
    }
}

impl<T> Stream for Produced<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(work) = &mut this.work
            && let Poll::Ready(result) = work.as_mut().poll(cx)
        {
            // Dropping it drops the sender, so that the channel ends.
            this.work = None;
            this.failure = result.err();
        }
        match this.rx.poll_recv(cx) {
            Poll::Ready(Some(item)) => Poll::Ready(Some(Ok(item))),
            Poll::Ready(None) if this.work.is_none() => Poll::Ready(this.failure.take().map(|error| Err(error.into()))),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Sends one reply.
///
/// # Errors
/// If the reader has gone.
pub(super) async fn send<T>(tx: &mpsc::Sender<T>, item: T) -> Result<(), ApiError> {
    tx.send(item).await.map_err(|_closed| ApiError::ReaderGone)
}

/// News from the driver, for somebody who asks again when something of interest happened.
#[derive(Debug)]
pub(super) struct News {
    rx: broadcast::Receiver<Notice>,
}

impl News {
    /// From now on. Subscribe before the first question, so that nothing falls between.
    pub(super) fn of(handle: &Handle) -> Self {
        Self { rx: handle.subscribe() }
    }

    /// Returns when an event of interest was folded, news were missed, or `within` is over. What else
    /// is queued is dropped: the next question sees it.
    ///
    /// Cancel safety: cancel safe, except that news may be dropped; ask again after it.
    pub(super) async fn wait(
        &mut self,
        within: Duration,
        is_of_interest: impl Fn(&Event) -> bool,
    ) -> Result<(), ApiError> {
        let deadline = Instant::now() + within;
        loop {
            match tokio::time::timeout_at(deadline, self.rx.recv()).await {
                Err(_elapsed) => return Ok(()),
                Ok(Ok(Notice::Folded(batch))) => {
                    let mut events = batch.entries().filter_map(|(_, entry)| match entry {
                        Entry::Event(event) => Some(event),
                        Entry::Unread(_) => None,
                    });
                    if events.any(&is_of_interest) {
                        self.drain();
                        return Ok(());
                    }
                }
                Ok(Ok(Notice::Stopped) | Err(RecvError::Closed)) => {
                    return Err(Stopped::Gone.into());
                }
                // After a join anything may have changed.
                Ok(Ok(Notice::Snapshot(_)) | Err(RecvError::Lagged(_))) => return Ok(()),
                Ok(Ok(
                    Notice::NodeDead(_)
                    | Notice::Forked(_)
                    | Notice::RootMismatch(_)
                    | Notice::DiskRefuses(_)
                    | Notice::DiskAccepts
                    | Notice::Gateway(_)
                    | Notice::Adopted { .. }
                    | Notice::Twin
                    | Notice::GatewayFacts,
                )) => {}
            }
        }
    }

    /// The next batch of events; `None` if some were missed.
    ///
    /// Cancel safety: cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Notice>, ApiError> {
        match self.rx.recv().await {
            Ok(Notice::Stopped) | Err(RecvError::Closed) => Err(Stopped::Gone.into()),
            Ok(notice) => Ok(Some(notice)),
            Err(RecvError::Lagged(_)) => Ok(None),
        }
    }

    /// Forgets what is queued.
    pub(super) fn drain(&mut self) {
        while matches!(self.rx.try_recv(), Ok(_) | Err(TryRecvError::Lagged(_))) {}
    }
}
