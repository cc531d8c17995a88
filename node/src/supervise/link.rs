//! One end of a socket between a supervisor and its daemon: bytes in, bytes out, neither waited for.
//!
//! Invariants: frames leave whole and in order; what cannot leave yet waits here.
//! Does not: poll.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::frame::{self, FrameError};

/// Room for a read. Low: more reads for an output of many tasks. High: memory, for each link.
const READ_BYTES: usize = 16 << 10;

/// One end.
#[derive(Debug)]
pub(super) struct Link {
    stream: Arc<UnixStream>,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// How much of `outbox` has left.
    sent: usize,
}

/// Why a link is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the other end is gone")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Link {
    /// Takes over a stream, of which `inbox` was read already.
    pub(super) fn new(stream: UnixStream, inbox: Vec<u8>) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: Arc::new(stream), inbox, outbox: Vec::new(), sent: 0 })
    }

    /// What to poll it for.
    pub(super) fn interest(&self) -> PollFd<'_> {
        PollFd::new(&*self.stream, self.flags())
    }

    /// The same, for whoever cannot hold on to it while polling.
    pub(super) fn watch(&self) -> (Arc<UnixStream>, PollFlags) {
        (Arc::clone(&self.stream), self.flags())
    }

    fn flags(&self) -> PollFlags {
        if self.has_waiting() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
    }

    /// Whether something waits to leave.
    pub(super) fn has_waiting(&self) -> bool {
        self.sent < self.outbox.len()
    }

    pub(super) fn put<T: minicbor::Encode<()>>(&mut self, word: &T) {
        frame::put(&mut self.outbox, word);
    }

    pub(super) fn put_frames(&mut self, frames: &[u8]) {
        self.outbox.extend_from_slice(frames);
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), LinkError> {
        while self.has_waiting() {
            match (&*self.stream).write(&self.outbox[self.sent..]) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.outbox.clear();
        self.sent = 0;
        Ok(())
    }

    /// Everything that has arrived, and whether there will be more.
    pub(super) fn pull<T: for<'a> minicbor::Decode<'a, ()>>(&mut self, into: &mut Vec<T>) -> Result<(), LinkError> {
        let ended = self.fill();
        let mut at = 0;
        while let Some(word) = frame::take(&self.inbox, &mut at)? {
            into.push(word);
        }
        self.inbox.drain(..at);
        ended
    }

    fn fill(&mut self) -> Result<(), LinkError> {
        loop {
            self.inbox.reserve(READ_BYTES);
            match rustix::io::read(&*self.stream, spare_capacity(&mut self.inbox)) {
                Ok(0) => return Err(LinkError::Closed),
                // Less than there was room for: that was all. What comes later, an end included, shows in the next poll.
                Ok(read) if read < READ_BYTES => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}
