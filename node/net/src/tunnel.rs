//! A tunnel: a byte stream to a linked peer, beside the lanes.
//!
//! On the wire, in each direction: chunks, each a u16 big-endian length of at least 1 and as many bytes; then the
//! length 0, which says that the direction ends. The multiplexer tells readers of an end, of a reset and of a broken
//! connection alike; the end mark is what tells a whole stream from a cut one. A tunnel is never closed below: dropping
//! it resets what is left of it, and the peer still reads all that came before.
//!
//! Invariants: a reader sees the end only if the peer's writer was shut down, and all it wrote before; a link that
//! goes down wakes both halves; a tunnel holds one chunk of what was written, the rest waits in the multiplexer's window.
//! Does not: agree on what a tunnel is for (`opening`).

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::Shared;
use futures::{AsyncRead as _, AsyncWrite as _, FutureExt};
use libp2p::swarm::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::limits;

const HEADER_BYTES: usize = 2;
const END_MARK: [u8; HEADER_BYTES] = [0; HEADER_BYTES];

/// Held by a link while it is up.
pub(crate) type Up = oneshot::Sender<Infallible>;

/// Becomes ready when the link has dropped its `Up`.
#[derive(Clone, Debug)]
pub(crate) struct Down(Option<Shared<oneshot::Receiver<Infallible>>>);

/// A link's `Up`, and what to clone for its tunnels.
pub(crate) fn up() -> (Up, Down) {
    let (up, down) = oneshot::channel();
    (up, Down(Some(down.shared())))
}

impl Down {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(down) = &mut self.0 {
            // Nothing is ever sent, so all that can come is the end.
            let _end = ready!(down.poll_unpin(cx));
            self.0 = None;
        }
        Poll::Ready(())
    }

    /// Waits for the link's end.
    ///
    /// Cancel safety: cancel safe.
    pub(crate) async fn wait(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

/// What all tunnels of one link share.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) down: Down,
    /// Room for tunnels that we open.
    pub(crate) ours: Arc<Semaphore>,
    /// Room for tunnels that the peer opens.
    pub(crate) theirs: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new(down: Down) -> Self {
        let room = || Arc::new(Semaphore::new(limits::TUNNELS_PER_PEER_MAX));
        Self { down, ours: room(), theirs: room() }
    }
}

/// A byte stream to a peer, with backpressure in both directions.
///
/// `poll_shutdown` ends the writing half alone; the peer reads to the end and may go on writing. Dropping the tunnel
/// ends both: whatever the peer has not read yet it still reads, then it gets an error unless we had shut down;
/// what it writes from then on fails. What was written but not flushed may be lost.
///
/// Errors: `ConnectionAborted` when this side has ended the link; `ConnectionReset` when a read finds that the peer has
/// dropped its end before shutting down, or that the link broke; `BrokenPipe` when a write has nowhere to go.
#[derive(Debug)]
pub struct Tunnel {
    stream: Stream,
    reading: Reading,
    writing: Writing,
    // One for each half: each remembers one waker.
    reader_down: Down,
    writer_down: Down,
    // The tunnel's place among those of its peer.
    _room: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Reading {
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// Of the chunk under way.
    left: usize,
    ended: bool,
}

#[derive(Debug, Default)]
struct Writing {
    /// A chunk, or the end mark, that the stream has not taken yet, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    ended: bool,
}

impl Tunnel {
    pub(crate) fn new(stream: Stream, down: Down, room: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            reading: Reading::default(),
            writing: Writing::default(),
            reader_down: down.clone(),
            writer_down: down,
            _room: room,
        }
    }

    /// Reads something of the chunk under way; `Ok(0)` at the end of the stream.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let Self { stream, reading, .. } = self;
        while reading.left == 0 {
            if reading.ended {
                return Poll::Ready(Ok(0));
            }
            let space = &mut reading.header[reading.header_bytes..];
            match ready!(Pin::new(&mut *stream).poll_read(cx, space)).map_err(broken)? {
                0 => return Poll::Ready(Err(reset())),
                count => reading.header_bytes += count,
            }
            if reading.header_bytes == HEADER_BYTES {
                reading.header_bytes = 0;
                reading.left = usize::from(u16::from_be_bytes(reading.header));
                reading.ended = reading.left == 0;
            }
        }
        let space = buf.initialize_unfilled_to(reading.left.min(buf.remaining()));
        match ready!(Pin::new(stream).poll_read(cx, space)).map_err(broken)? {
            0 => Poll::Ready(Err(reset())),
            count => {
                reading.left -= count;
                buf.advance(count);
                Poll::Ready(Ok(count))
            }
        }
    }

    /// Hands what is kept to the stream; ready when nothing is.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writer_down.poll(cx).is_ready() {
            return Poll::Ready(Err(aborted()));
        }
        let Self { stream, writing, .. } = self;
        while let Some(rest) = writing.out.get(writing.sent..)
            && !rest.is_empty()
        {
            match ready!(Pin::new(&mut *stream).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Ok(count) => writing.sent += count,
                Err(error) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, error))),
            }
        }
        writing.out.clear();
        writing.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match this.poll_chunk(cx, buf) {
            Poll::Ready(result) => Poll::Ready(result.map(|_count| ())),
            Poll::Pending => this.reader_down.poll(cx).map(|()| Err(aborted())),
        }
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.writing.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_out(cx))?;
        let taken = &buf[..buf.len().min(limits::TUNNEL_CHUNK_BYTES)];
        // Length 0 would be the end.
        if let Some(length) = u16::try_from(taken.len()).ok().filter(|length| *length > 0) {
            this.writing.out.extend(length.to_be_bytes());
            this.writing.out.extend(taken);
            // Pending: it is kept, and the next call finds it first.
            if let Poll::Ready(Err(error)) = this.poll_out(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        let flushed = ready!(Pin::new(&mut this.stream).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.writing.ended {
            ready!(self.poll_out(cx))?;
            self.writing.out.extend(END_MARK);
            self.writing.ended = true;
        }
        self.poll_flush(cx)
    }
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the peer dropped the tunnel, or its link broke")
}

/// The multiplexer is closing, and says so in its own words.
fn broken(error: io::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, error)
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the link to the peer is down")
}
