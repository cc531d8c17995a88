//! One task's files while it runs.
//!
//! Invariants: the files hold what came, in order, up to the cap; a line of our own worker's that says how the task ended is held back until it is known whether
//! it was the last; what a compressed result unpacks to is never held in memory, and not unpacked beyond the cap.

use std::io::Read;
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;

use super::{Fill, Marker};
use crate::exec::output::{Capped, Stream, Streams, Written};

/// Unpacked at a time.
const UNPACK_BYTES: usize = 64 << 10;
/// No marker is longer, with its newline.
const MARKER_BYTES_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Tap {
    prefix: PathBuf,
    out: Capped,
    err: Capped,
    /// A marker that is the last line so far.
    held: Option<String>,
    has_lines: bool,
}

impl Tap {
    pub(super) fn new(prefix: PathBuf, cap_bytes: u64) -> Self {
        let of = |stream| Capped::new(stream, cap_bytes);
        Self { prefix, out: of(Stream::Out), err: of(Stream::Err), held: None, has_lines: false }
    }

    /// Takes whole lines.
    pub(super) fn lines(&mut self, chunk: &str, is_own: bool) {
        self.has_lines = true;
        self.release();
        let start = last_line(chunk);
        if is_own && Marker::read(chunk[start..].trim_end_matches('\n')).is_some() {
            self.out.keep(&self.prefix, &chunk.as_bytes()[..start]);
            self.held = Some(chunk[start..].to_owned());
        } else {
            self.out.keep(&self.prefix, chunk.as_bytes());
        }
    }

    fn release(&mut self) {
        if let Some(line) = self.held.take() {
            self.out.keep(&self.prefix, line.as_bytes());
        }
    }

    pub(super) fn park(&mut self) {
        self.out.park();
    }

    /// Completes the files.
    pub(super) fn close(mut self, fill: Option<Fill>, is_own: bool) -> (Streams<Written>, Option<Marker>) {
        let takes_marker = is_own && fill.as_ref().is_some_and(|fill| fill.exit_code < 0);
        let mut marker = None;
        if takes_marker {
            marker = self.held.take().and_then(|line| Marker::read(line.trim_end_matches('\n')));
        }
        self.release();
        if let Some(fill) = fill.filter(|_| !self.has_lines) {
            let mut take = |text: &mut String| {
                let start = last_line(text);
                let found = Marker::read(text[start..].trim_end_matches('\n')).filter(|_| takes_marker);
                if found.is_some() {
                    text.truncate(start);
                }
                marker = marker.or(found);
            };
            let Fill { mut stdout, mut stderr, compressed, .. } = fill;
            take(&mut stdout);
            take(&mut stderr);
            self.err.keep(&self.prefix, stderr.as_bytes());
            if compressed.is_empty() {
                self.out.keep(&self.prefix, stdout.as_bytes());
            } else {
                let found = self.unpack(&compressed, takes_marker);
                marker = marker.or(found);
            }
        }
        let out = self.out.finish(&self.prefix);
        let err = self.err.finish(&self.prefix);
        (Streams { out, err, ..Streams::default() }, marker)
    }

    /// Unpacks gzip into the file, up to the cap.
    fn unpack(&mut self, compressed: &[u8], takes_marker: bool) -> Option<Marker> {
        let mut decoder = MultiGzDecoder::new(compressed);
        let mut buffer = vec![0; UNPACK_BYTES];
        // The last bytes so far: they may be a marker.
        let mut tail: Vec<u8> = Vec::new();
        loop {
            let count = match decoder.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    self.out.keep(&self.prefix, &std::mem::take(&mut tail));
                    let line = format!("[starling: the worker's compressed output is damaged: {error}]");
                    self.out.remark(&self.prefix, &line);
                    break;
                }
            };
            tail.extend_from_slice(&buffer[..count]);
            let room = self.out.room();
            let (fits, ready) =
                (usize::try_from(room).unwrap_or(usize::MAX), tail.len().saturating_sub(MARKER_BYTES_MAX));
            if tail.len() > fits {
                self.out.keep(&self.prefix, &tail[..fits]);
                self.out.remark(&self.prefix, &format!("[starling: output cut at {} bytes]", self.out.kept()));
                return None;
            }
            self.out.keep(&self.prefix, &tail[..ready]);
            tail.drain(..ready);
        }
        let text = String::from_utf8_lossy(&tail);
        let start = last_line(&text);
        let marker = Marker::read(text[start..].trim_end_matches('\n')).filter(|_| takes_marker);
        let keep = if marker.is_some() { tail.len() - (text.len() - start) } else { tail.len() };
        self.out.keep(&self.prefix, &tail[..keep]);
        marker
    }
}

/// Where the last line begins.
fn last_line(text: &str) -> usize {
    text.strip_suffix('\n').unwrap_or(text).rfind('\n').map_or(0, |at| at + 1)
}
