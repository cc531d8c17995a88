//! One output stream of one task: pipe to file, capped.
//!
//! Invariants: the pipe is emptied whatever happens to the file, so the task never blocks on us.
//! Does not: poll, or know the file (`capped` does).

use std::io::Read;
use std::path::Path;

use super::capped::Capped;
use super::output::{Stream, Written};

const READ_BYTES: usize = 64 << 10;
/// Enough for the first line that names a port.
const HEAD_BYTES_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Capture<P> {
    /// `None` after end of file.
    pub(super) pipe: Option<P>,
    /// The first bytes, for whoever asked for them by setting this; they are there even if the file cannot be written.
    pub(super) head: Option<Vec<u8>>,
    file: Capped,
}

impl<P: Read> Capture<P> {
    pub(super) fn new(pipe: Option<P>, stream: Stream, cap: u64) -> Self {
        Self { pipe, head: None, file: Capped::new(stream, cap) }
    }

    /// Moves one pipe-full, after `poll` said that a read will not block.
    pub(super) fn pull(&mut self, prefix: &Path, scratch: &mut Vec<u8>) {
        let Some(pipe) = &mut self.pipe else { return };
        if scratch.is_empty() {
            scratch.resize(READ_BYTES, 0);
        }
        match pipe.read(scratch) {
            Ok(0) => self.pipe = None,
            Ok(read) => self.keep(prefix, &scratch[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, out = %prefix.display(), "reading task output failed");
                self.pipe = None;
            }
        }
    }

    fn keep(&mut self, prefix: &Path, bytes: &[u8]) {
        if let Some(head) = &mut self.head {
            let room = HEAD_BYTES_MAX.saturating_sub(head.len());
            head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        self.file.keep(prefix, bytes);
    }

    /// Closes the pipe and the file.
    pub(super) fn finish(&mut self, prefix: &Path) -> Written {
        self.pipe = None;
        self.file.finish(prefix)
    }
}
