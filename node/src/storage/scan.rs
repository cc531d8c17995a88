//! Reads one segment front to back and says where its good part ends.
//!
//! Invariants: memory is bounded by one buffer of the largest frame; a frame is shown only after its checksum matched.
//! Does not: change files. `recovery` decides what to do about a bad end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::frame::{self, FRAME_BYTES, HEADER_BYTES, Prefix};

const BUFFER_BYTES: usize = 1 << 20;
/// Checksum work allowed when looking for a frame behind a bad one: hostile bytes may look plausible at every offset.
const SEARCH_BYTES_MAX: u64 = 8 << 30;

/// Streams the frames of `file` between the header and `end`.
#[derive(Debug)]
pub(super) struct Frames {
    file: File,
    salt: u32,
    end: u64,
    /// File offset of `buffer[at]`.
    offset: u64,
    buffer: Vec<u8>,
    at: usize,
}

/// The next thing in a segment.
#[derive(Debug)]
pub(super) enum Step<'a> {
    Frame { offset: u64, prefix: Prefix, payload: &'a [u8] },
    End,
    Bad { offset: u64 },
}

/// What lies behind a bad frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing that was written after the bad place had been synced: an unfinished write.
    Unfinished,
    /// A later group, so the bad place was durable once.
    LaterGroup,
    /// The search ran out of its budget.
    Unknown,
}

impl Frames {
    pub(super) fn new(file: File, salt: u32, end: u64) -> Self {
        Self { file, salt, end, offset: HEADER_BYTES as u64, buffer: Vec::new(), at: 0 }
    }

    /// After `End` or `Bad` the same answer comes again.
    pub(super) fn next(&mut self) -> io::Result<Step<'_>> {
        let offset = self.offset;
        if offset >= self.end {
            return Ok(Step::End);
        }
        if !self.fill(FRAME_BYTES)? {
            return Ok(Step::Bad { offset });
        }
        let Some(prefix) = Prefix::plausible(&self.buffer[self.at..]) else {
            return Ok(Step::Bad { offset });
        };
        let whole = FRAME_BYTES + prefix.len;
        if !self.fill(whole)? {
            return Ok(Step::Bad { offset });
        }
        let payload = self.at + FRAME_BYTES..self.at + whole;
        if !prefix.matches(self.salt, &self.buffer[payload.clone()]) {
            return Ok(Step::Bad { offset });
        }
        self.at += whole;
        self.offset += whole as u64;
        Ok(Step::Frame { offset, prefix, payload: &self.buffer[payload] })
    }

    /// Makes `bytes` available at `at`; false when the segment ends before.
    fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        let have = self.buffer.len() - self.at;
        if have >= bytes {
            return Ok(true);
        }
        if self.end - self.offset < bytes as u64 {
            return Ok(false);
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        self.buffer.resize(left.min(bytes.max(BUFFER_BYTES)), 0);
        self.file.read_exact_at(&mut self.buffer[have..], self.offset + have as u64)?;
        Ok(true)
    }
}

/// Looks behind a bad frame for one that opens a later group.
pub(super) fn behind(file: &File, salt: u32, bad: u64, end: u64) -> io::Result<Behind> {
    let mut rest = vec![0; usize::try_from(end.saturating_sub(bad)).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut rest, bad)?;
    let mut budget = SEARCH_BYTES_MAX;
    for start in 1..rest.len().saturating_sub(FRAME_BYTES - 1) {
        let Some(prefix) = Prefix::plausible(&rest[start..]) else {
            continue;
        };
        if !prefix.starts_group() {
            continue;
        }
        let from = start + FRAME_BYTES;
        let Some(payload) = rest.get(from..from + prefix.len) else {
            continue;
        };
        if prefix.matches(salt, payload) {
            return Ok(Behind::LaterGroup);
        }
        budget = budget.saturating_sub(prefix.len as u64);
        if budget == 0 {
            return Ok(Behind::Unknown);
        }
    }
    Ok(Behind::Unfinished)
}

/// True when all bytes from `start` to `end` are zero.
pub(super) fn is_zero(file: &File, start: u64, end: u64) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut offset = start;
    while offset < end {
        let part = usize::try_from(end - offset).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        file.read_exact_at(&mut buffer[..part], offset)?;
        if buffer[..part].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset += part as u64;
    }
    Ok(true)
}

/// Reads and verifies one frame whose place the index knows; `None` when it is not what was written.
pub(super) fn frame_at(file: &File, salt: u32, offset: u64, len: u32) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; FRAME_BYTES + len as usize];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let good = Prefix::plausible(&bytes).is_some_and(|prefix| {
        prefix.matches(salt, &bytes[FRAME_BYTES..]) && frame::batch_head(prefix, &bytes[FRAME_BYTES..]).is_some()
    });
    Ok(good.then_some(bytes))
}
