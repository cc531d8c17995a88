//! The writer thread: takes all queued writes, puts them down with one write and one sync, then completes them in order.
//!
//! Invariants: an `Ok` completion follows a successful sync of its bytes; the index shows only synced batches; a failed
//! write leaves the file at its last good length before anything else is written; after one failed sync nothing is
//! written or synced again (the kernel may have dropped the pages and would answer yes to a second try).
//! Does not: read, or retry on its own. A caller that wants a retry writes again.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::frame::{self, BatchHead, FRAME_BYTES, HEADER_BYTES, Place, RECORD_BYTES_MAX};
use super::index::At;
use super::queue::Job;
use super::recovery::Segment;
use super::segment::{self, CreateError};
use super::{Completion, OnDone, Shared, WriteError};

/// The file is extended by this much at a time, because a sync that need not record a new file length is faster (p50 on
/// ext4: 50 instead of 73 us). Low: more of the slow syncs. High: more zeros to look through after a kill.
const RESERVE_BYTES: u64 = 1 << 20;
/// After a refused write an empty one succeeds only with this much room: a whole batch, so that not every small write brings a
/// full disk back for a moment.
const PROBE_BYTES: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    on_done: OnDone,
    number: u32,
    file: Arc<File>,
    salt: u32,
    /// Where the durable records end.
    len: u64,
    /// How far the file has been extended with zeros.
    reserved: u64,
    tail: Tail,
    last: Last,
    buffer: Vec<u8>,
    placed: Vec<(BatchHead, At)>,
}

/// What became of the last write that carried records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Taken,
    Refused,
}

/// What is behind `len` in the current file.
#[derive(Debug)]
enum Tail {
    Nothing,
    /// A failed write that could not be cut yet.
    Leftover,
    /// A failed sync.
    Poisoned(WriteError),
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, on_done: OnDone, number: u32, segment: &Segment) -> Self {
        let Segment { file, salt, len } = segment.clone();
        let (buffer, placed) = (Vec::new(), Vec::new());
        Self {
            shared,
            on_done,
            number,
            file,
            salt,
            len,
            reserved: len,
            tail: Tail::Nothing,
            last: Last::Taken,
            buffer,
            placed,
        }
    }

    /// Runs until the queue is closed and drained.
    pub(super) fn run(mut self) {
        let mut jobs = Vec::new();
        loop {
            self.shared.queue.take(self.shared.options.group_bytes_max, &mut jobs);
            if jobs.is_empty() {
                // A failure leaves zeros, which the next opening cuts.
                let _ = self.cut();
                return;
            }
            self.group(&mut jobs);
        }
    }

    fn group(&mut self, jobs: &mut Vec<Job>) {
        // Oversize writes fail alone; the rest of the group is not to suffer for them.
        let mut refused: VecDeque<Option<WriteError>> = jobs.iter().map(too_large).collect();
        let written = self.commit(jobs, &refused);
        for job in jobs.drain(..) {
            let result = match refused.pop_front().flatten() {
                Some(error) => Err(error),
                None => written.clone(),
            };
            // The caller's buffers go before the caller hears of it.
            let Job { id, records, .. } = job;
            drop(records);
            (self.on_done.0)(Completion { id, result });
        }
    }

    fn commit(&mut self, jobs: &[Job], refused: &VecDeque<Option<WriteError>>) -> Result<(), WriteError> {
        self.ready()?;
        let records = self.encode(jobs, refused);
        if records == 0 {
            return self.probe();
        }
        self.reserve();
        if let Err(source) = self.file.write_all_at(&self.buffer, self.len) {
            let error = WriteError::from_io(self.path(), source);
            tracing::warn!(%error, "log write failed");
            (self.tail, self.last) = (Tail::Leftover, Last::Refused);
            // If cutting fails too, `ready` tries again before the next write.
            let _ = self.cut();
            return Err(error);
        }
        if let Err(source) = self.file.sync_data() {
            return Err(self.poison(self.path(), source));
        }
        self.last = Last::Taken;
        let stats = &self.shared.counters;
        self.len += self.buffer.len() as u64;
        stats.fsyncs.fetch_add(1, Relaxed);
        stats.records.fetch_add(records, Relaxed);
        stats.bytes.fetch_add(self.buffer.len() as u64, Relaxed);
        if !self.placed.is_empty() {
            let mut index = self.shared.index_mut();
            for (batch, at) in self.placed.drain(..) {
                index.insert(batch, at);
            }
        }
        Ok(())
    }

    /// Makes the current file fit to be written to: not poisoned, nothing behind the good end, room in the segment.
    fn ready(&mut self) -> Result<(), WriteError> {
        if let Tail::Poisoned(error) = &self.tail {
            return Err(error.clone());
        }
        if matches!(self.tail, Tail::Leftover) {
            self.cut().map_err(|source| WriteError::from_io(self.path(), source))?;
        }
        if self.len < self.shared.options.segment_bytes {
            return Ok(());
        }
        self.rotate()
    }

    /// Finishes the current segment, exactly at its last record, and goes on in a new one.
    fn rotate(&mut self) -> Result<(), WriteError> {
        if self.reserved > self.len {
            self.cut().map_err(|source| WriteError::from_io(self.path(), source))?;
            // Its length has to be durable before a successor is: only the last segment may have an open end.
            if let Err(source) = self.file.sync_all() {
                return Err(self.poison(self.path(), source));
            }
        }
        let next = self.number + 1;
        let path = segment::path(&self.shared.dir, next);
        let (file, header) = match segment::create(&self.shared.dir, next) {
            Ok(made) => made,
            Err(CreateError::Write(source)) => return Err(WriteError::from_io(path, source)),
            Err(CreateError::Sync(source)) => return Err(self.poison(path, source)),
        };
        (self.number, self.file, self.salt, self.len) = (next, Arc::new(file), header.salt, HEADER_BYTES as u64);
        self.shared.counters.bytes.fetch_add(HEADER_BYTES as u64, Relaxed);
        self.reserved = self.len;
        let segment = Segment { file: Arc::clone(&self.file), salt: self.salt, len: self.len };
        self.shared.segments_mut().list.push(segment);
        Ok(())
    }

    /// Fills the buffer with the group's frames; returns how many.
    fn encode(&mut self, jobs: &[Job], refused: &VecDeque<Option<WriteError>>) -> u64 {
        let mut buffer = mem::take(&mut self.buffer);
        buffer.clear();
        buffer.shrink_to(self.shared.options.group_bytes_max);
        self.placed.clear();
        let mut records = 0;
        let accepted = jobs.iter().zip(refused).filter(|(_, refused)| refused.is_none());
        for record in accepted.flat_map(|(job, _)| &job.records) {
            let place = if records == 0 { Place::First } else { Place::Later };
            let offset = self.len + buffer.len() as u64;
            frame::encode(&mut buffer, self.salt, place, record);
            records += 1;
            if let super::Record::Batch { log, first_seq, count, .. } = *record {
                let within = "segments and writes are bounded to 1 GiB each";
                let at = At {
                    segment: self.number,
                    offset: u32::try_from(offset).expect(within),
                    len: u32::try_from(frame::payload_bytes(record)).expect(within),
                };
                self.placed.push((BatchHead { log, first_seq, count }, at));
            }
        }
        self.buffer = buffer;
        records
    }

    /// Extends the file with zeros where that is possible; where it is not, the write does it, more slowly.
    fn reserve(&mut self) {
        let end = self.len + self.buffer.len() as u64;
        if end <= self.reserved {
            return;
        }
        let bytes = self.buffer.len() as u64 + RESERVE_BYTES;
        self.reserved = match fallocate(&self.file, FallocateFlags::empty(), self.len, bytes) {
            Ok(()) => self.len + bytes,
            // Perhaps in part: at least as far as the write goes there is something to cut.
            Err(_) => end,
        };
    }

    /// Whether a disk that refused the last write would take one now. Where room cannot be reserved, only a real write tells.
    fn probe(&mut self) -> Result<(), WriteError> {
        if self.last == Last::Taken {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::empty(), self.len, PROBE_BYTES) {
            Ok(()) => self.reserved = self.len + PROBE_BYTES,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => {
                // It may have extended the file in part.
                self.tail = Tail::Leftover;
                let _ = self.cut();
                return Err(WriteError::from_io(self.path(), errno.into()));
            }
        }
        self.last = Last::Taken;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.reserved = self.len;
        self.tail = Tail::Nothing;
        Ok(())
    }

    fn poison(&mut self, file: PathBuf, source: io::Error) -> WriteError {
        let error = WriteError::poisoned(file, source);
        tracing::error!(%error, "log sync failed");
        // Drops the doubtful pages from the cache, so that a restart judges what the disk really holds.
        let _ = self.cut();
        self.tail = Tail::Poisoned(error.clone());
        error
    }

    fn path(&self) -> PathBuf {
        segment::path(&self.shared.dir, self.number)
    }
}

fn too_large(job: &Job) -> Option<WriteError> {
    if job.bytes <= RECORD_BYTES_MAX + FRAME_BYTES {
        return None;
    }
    let bytes = job.records.iter().map(frame::payload_bytes).find(|bytes| *bytes > RECORD_BYTES_MAX)?;
    Some(WriteError::TooLarge { bytes, max: RECORD_BYTES_MAX })
}
