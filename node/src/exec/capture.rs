//! One output stream of one task: pipe to file, capped.
//!
//! Invariants: the file is made with the first byte; the pipe is emptied whatever happens to the file, so the task never
//! blocks on us; what is not kept is counted and the file says so in its last line.
//! Does not: poll.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::output::{self, Stream, Written};

const READ_BYTES: usize = 64 << 10;
/// Enough for the first line that names a port.
const HEAD_BYTES_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Capture<P> {
    /// `None` after end of file.
    pub(super) pipe: Option<P>,
    /// The first bytes, for whoever asked for them by setting this; they are there even if the file cannot be written.
    pub(super) head: Option<Vec<u8>>,
    stream: Stream,
    cap: u64,
    kept: u64,
    dropped: u64,
    file: Option<File>,
}

impl<P: Read> Capture<P> {
    pub(super) fn new(pipe: Option<P>, stream: Stream, cap: u64) -> Self {
        Self { pipe, head: None, stream, cap, kept: 0, dropped: 0, file: None }
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
        let room = usize::try_from(self.cap - self.kept).unwrap_or(usize::MAX);
        // Once something was dropped nothing more is kept: the file has no holes.
        let keep = if self.dropped == 0 { bytes.len().min(room) } else { 0 };
        self.dropped += (bytes.len() - keep) as u64;
        if keep == 0 {
            return;
        }
        match self.append(&output::path(prefix, self.stream), &bytes[..keep]) {
            Ok(()) => self.kept += keep as u64,
            Err(error) => {
                tracing::warn!(%error, out = %prefix.display(), "task output cannot be written and is dropped");
                self.dropped += keep as u64;
            }
        }
    }

    fn append(&mut self, path: &PathBuf, bytes: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() {
            let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.write_all(bytes)
    }

    /// Closes the pipe and the file.
    pub(super) fn finish(&mut self, prefix: &Path) -> Written {
        self.pipe = None;
        if self.dropped > 0 {
            let newline = if self.kept > 0 { "\n" } else { "" };
            let line = format!("{newline}[starling: {} bytes dropped, cap is {}]\n", self.dropped, self.cap);
            // If even this line cannot be written, the count in the event still says it.
            let _ = self.append(&output::path(prefix, self.stream), line.as_bytes());
        }
        let len = self.file.take().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
        Written { len, dropped_bytes: self.dropped }
    }
}
