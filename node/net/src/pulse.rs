//! When a peer was last heard, and a reader that notices.
//!
//! Invariants: a link that waits for the application counts as heard, because bytes may be there unread.
//! Does not: end anything (`link` does).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::AsyncRead;

/// When the peer was last heard.
#[derive(Debug)]
pub(crate) struct Pulse {
    start: Instant,
    heard_us: AtomicU64,
    // How many readers wait for the application, so that bytes may be there unread.
    stalled: AtomicUsize,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), heard_us: AtomicU64::new(0), stalled: AtomicUsize::new(0) }
    }

    pub(crate) fn touch(&self) {
        let us = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.heard_us.store(us, Ordering::Relaxed);
    }

    /// A reader begins to wait for the application.
    pub(crate) fn stall(&self) {
        self.stalled.fetch_add(1, Ordering::Relaxed);
    }

    /// It reads again.
    pub(crate) fn resume(&self) {
        self.touch();
        self.stalled.fetch_sub(1, Ordering::Relaxed);
    }

    /// How long nothing has arrived.
    pub(crate) fn silent_for(&self) -> Duration {
        if self.stalled.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.start.elapsed().saturating_sub(Duration::from_micros(self.heard_us.load(Ordering::Relaxed)))
    }
}

/// A reader that touches the pulse when bytes arrive.
pub(crate) struct Heard<R> {
    reader: R,
    pulse: Arc<Pulse>,
}

impl<R> Heard<R> {
    pub(crate) fn new(reader: R, pulse: Arc<Pulse>) -> Self {
        Self { reader, pulse }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Heard<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.reader).poll_read(cx, buf);
        if let Poll::Ready(Ok(1..)) = result {
            this.pulse.touch();
        }
        result
    }
}
