//! A file that keeps the beginning of a stream, up to a cap.
//!
//! Invariants: the file is made with the first byte; it has no holes: once something was dropped nothing more is kept; what is not kept is counted, and the
//! file says so in its last line.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::output::{self, Stream, Written};

/// One stream's file, not yet finished.
#[derive(Debug)]
pub struct Capped {
    stream: Stream,
    cap: u64,
    kept: u64,
    dropped: u64,
    made: bool,
    file: Option<File>,
}

impl Capped {
    /// Keeps at most `cap` bytes of `stream`.
    #[must_use]
    pub fn new(stream: Stream, cap: u64) -> Self {
        Self { stream, cap, kept: 0, dropped: 0, made: false, file: None }
    }

    /// Appends to the file with this prefix, the same each time, or counts what it does not keep.
    pub fn keep(&mut self, prefix: &Path, bytes: &[u8]) {
        let room = usize::try_from(self.room()).unwrap_or(usize::MAX);
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

    /// Bytes that it would still keep.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.cap - self.kept
    }

    /// Bytes that it keeps.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Gives the descriptor back; it is taken again when there is more to keep.
    pub fn park(&mut self) {
        self.file = None;
    }

    /// Appends a line of our own, whatever the cap; with a newline before it if there is anything before it.
    pub fn remark(&mut self, prefix: &Path, line: &str) {
        let newline = if self.kept > 0 { "\n" } else { "" };
        // If even this line cannot be written, whoever counts bytes still knows.
        let _ = self.append(&output::path(prefix, self.stream), format!("{newline}{line}\n").as_bytes());
    }

    /// Says what was dropped, and closes the file.
    pub fn finish(&mut self, prefix: &Path) -> Written {
        if self.dropped > 0 {
            let line = format!("[starling: {} bytes dropped, cap is {}]", self.dropped, self.cap);
            self.remark(prefix, &line);
        }
        let len = match self.file.take() {
            Some(file) => file.metadata().map(|metadata| metadata.len()),
            None if self.made => output::path(prefix, self.stream).metadata().map(|metadata| metadata.len()),
            None => Ok(0),
        };
        Written { len: len.unwrap_or(0), dropped_bytes: self.dropped }
    }

    fn append(&mut self, path: &PathBuf, bytes: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() {
            let mut options = File::options();
            if self.made {
                options.append(true);
            } else {
                options.write(true).create(true).truncate(true);
            }
            self.file = Some(options.mode(0o600).open(path)?);
            self.made = true;
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.write_all(bytes)
    }
}
