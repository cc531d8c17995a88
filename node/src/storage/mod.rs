//! One node's durable log: append-only segment files written by one thread with group commit.
//!
//! Invariants: a write completes with `Ok` only after its bytes were synced; completions come in the order of the writes;
//! reads see only synced batches; a file torn at any byte opens and keeps every whole record (ADR: no embedded store).
//! Does not: know events or chains (`starling_core`), decide when segments go, or talk to the driver other than through the
//! completion callback.

mod error;
mod frame;
mod index;
pub mod look;
mod queue;
mod recovery;
mod scan;
mod segment;
pub mod snapshots;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;

pub use self::error::{Error, QueueFull, WriteError};
pub use self::frame::RECORD_BYTES_MAX;
pub use self::recovery::{Recovery, TornTail};

use self::frame::{BATCH_BYTES, FRAME_BYTES};
use self::index::Index;
use self::queue::{Bounds, Queue};
use self::recovery::{Opened, Segment};
use self::segment::DirLock;
use self::snapshots::{Snapshots, Stored};
use self::writer::Writer;

/// Bound on segment length and on one write, so that offsets fit 32 bits.
const WRITE_BYTES_MAX: usize = 1 << 30;

/// One author's log: node id and epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogKey {
    /// The author's public key.
    pub node: [u8; 32],
    /// Its epoch.
    pub epoch: u64,
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.node;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}/{}", self.epoch)
    }
}

/// What can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A signed batch as it was received.
    Batch {
        /// Whose.
        log: LogKey,
        /// Sequence number of its first event.
        first_seq: u64,
        /// How many events it holds.
        count: u32,
        /// The batch, opaque here.
        bytes: Bytes,
    },
    /// A note for this machine alone, opaque here.
    Local(Bytes),
    /// Clean shutdown; says something only as the very last record.
    Clean,
}

/// Sizes and bounds.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment at least this long is followed by a new one. Low: many files. High: a long scan for what is behind a
    /// torn end, and log that a snapshot covers goes late. At most 1 GiB.
    pub segment_bytes: u64,
    /// Bound on queued writes. Low: refusals in bursts. High: latency of the last one.
    pub queue_writes_max: usize,
    /// Bound on queued bytes.
    pub queue_bytes_max: usize,
    /// Records before this segment are in a snapshot: its predecessors may be gone, and are not given by `Recovery`. 1 where there is no snapshot.
    pub covered_below: u32,
    /// One group commit takes about this much at most. Low: more syncs. High: longer waits for the first in the group.
    pub group_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            queue_writes_max: 65_536,
            queue_bytes_max: 64 << 20,
            covered_below: segment::FIRST,
            group_bytes_max: 8 << 20,
        }
    }
}

/// The end of one `write`.
#[derive(Debug)]
pub struct Completion {
    /// As given to `write`.
    pub id: u64,
    /// `Ok` once all its records are durable; otherwise none of them counts.
    pub result: Result<(), WriteError>,
}

/// The store's counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Length of all segments.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Number of segments.
    pub segments: u64,
    /// Group commits since opening.
    pub fsyncs: u64,
    /// Space left for this user on the file system, `None` when the system does not say.
    pub free_disk_bytes: Option<u64>,
}

/// The open log. Dropping it finishes all queued writes, then releases the directory.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    _lock: DirLock,
}

/// The reading half, cheap to clone and usable from any thread. Outlives the store harmlessly.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    options: Options,
    queue: Queue,
    index: RwLock<Index>,
    segments: RwLock<Segments>,
    counters: Counters,
}

/// All segments that there are; numbers without holes.
#[derive(Debug)]
struct Segments {
    /// The number of the first.
    first: u32,
    list: Vec<Segment>,
}

/// The half that makes room: cheap to clone, usable from any thread. Outlives the store harmlessly.
#[derive(Clone, Debug)]
pub struct Compactor {
    shared: Arc<Shared>,
}

/// Log that stays although snapshots contain it, so that whoever was away for a while needs no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recent {
    /// At least so much of the end, besides the segment that is being written.
    pub bytes: u64,
    /// Besides, what was written no longer ago than this,
    pub age: Duration,
    /// as long as that is no more than so much.
    pub bytes_max: u64,
}

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    records: AtomicU64,
    fsyncs: AtomicU64,
}

struct OnDone(Box<dyn Fn(Completion) + Send>);

impl fmt::Debug for OnDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDone")
    }
}

impl Store {
    /// Locks `dir` (created where needed), verifies the whole log and starts the writer thread, which calls `on_done`
    /// once for each accepted write, in order; a slow `on_done` holds up the writer.
    ///
    /// Errors: `InUse`; `Corrupt`, `Missing`, `Version` (nothing changed); `Io`.
    pub fn open(
        dir: &Path,
        options: Options,
        on_done: Box<dyn Fn(Completion) + Send>,
    ) -> Result<(Self, Recovery), Error> {
        Self::open_locked(segment::lock(dir)?, dir, options, on_done)
    }

    /// The same, beside snapshots in `snapshots`: what the newest good one of them contains need not be in the log. `naming`
    /// tells how a snapshot is named.
    ///
    /// Errors: as `open`, and of `Snapshots::open`.
    pub fn open_beside(
        dir: &Path,
        snapshots: &Path,
        naming: fn(&[u8]) -> snapshots::Name,
        options: Options,
        on_done: Box<dyn Fn(Completion) + Send>,
    ) -> Result<(Self, Recovery, Snapshots, Stored), Error> {
        let lock = segment::lock(dir)?;
        let (snapshots, found) = Snapshots::open(snapshots, naming)?;
        let covered_below = found.own.as_ref().map_or(segment::FIRST, |own| own.segment);
        let (store, recovery) = Self::open_locked(lock, dir, Options { covered_below, ..options }, on_done)?;
        Ok((store, recovery, snapshots, found))
    }

    fn open_locked(
        lock: DirLock,
        dir: &Path,
        options: Options,
        on_done: Box<dyn Fn(Completion) + Send>,
    ) -> Result<(Self, Recovery), Error> {
        let options = Options { segment_bytes: options.segment_bytes.min(WRITE_BYTES_MAX as u64), ..options };
        let Opened { first, segments, index, recovery } = recovery::open(dir, options.covered_below)?;
        let (Some(last), Ok(count)) = (segments.last().cloned(), u32::try_from(segments.len())) else {
            return Err(Error::Missing { file: segment::path(dir, segment::FIRST) });
        };
        let counters = Counters::default();
        counters.bytes.store(segments.iter().map(|segment| segment.len).sum(), Relaxed);
        counters.records.store(recovery.records, Relaxed);
        let bounds = Bounds { writes: options.queue_writes_max, bytes: options.queue_bytes_max };
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            options,
            queue: Queue::new(bounds),
            index: RwLock::new(index),
            segments: RwLock::new(Segments { first, list: segments }),
            counters,
        });
        let number = first + count - 1;
        let writer = Writer::new(Arc::clone(&shared), OnDone(on_done), number, &last);
        let thread = thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run());
        let writer = Some(thread.map_err(Error::io("start the writer thread for", dir))?);
        Ok((Self { shared, writer, _lock: lock }, recovery))
    }

    /// Queues records to be made durable together: all of them or, on failure, none. Never blocks. When the queue is at
    /// its bound (or the write is beyond 1 GiB) the records come back and nothing was queued.
    pub fn write(&self, id: u64, records: Vec<Record>) -> Result<(), QueueFull> {
        self.shared.queue.push(id, records)
    }

    /// Whole batches of `log` that contain a sequence number `>= from_seq`, ascending by `first_seq`: at least one if
    /// there is any, otherwise at most `max_bytes` of batch bytes. A gap in what is stored is not marked.
    ///
    /// Errors: `Corrupt` when a batch is no longer what was written; `Io`.
    pub fn read(&self, log: LogKey, from_seq: u64, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        read(&self.shared, log, from_seq, max_bytes)
    }

    /// A handle that can only read.
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared) }
    }

    /// A handle that makes room.
    pub fn compactor(&self) -> Compactor {
        Compactor { shared: Arc::clone(&self.shared) }
    }

    /// The segment that is being written. Everything before it is durable, and complete in the order of the writes.
    pub fn current(&self) -> u32 {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.first + u32::try_from(segments.list.len()).unwrap_or(u32::MAX) - 1
    }

    /// Counters, and the free space as of now.
    pub fn stats(&self) -> Stats {
        let shared = &*self.shared;
        let free = rustix::fs::statvfs(&shared.dir).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        let segments = shared.segments.read().unwrap_or_else(PoisonError::into_inner).list.len();
        Stats {
            bytes: shared.counters.bytes.load(Relaxed),
            records: shared.counters.records.load(Relaxed),
            segments: segments as u64,
            fsyncs: shared.counters.fsyncs.load(Relaxed),
            free_disk_bytes: free,
        }
    }
}

impl Reader {
    /// Whether batches of `log` with numbers `>= from_seq`, in segments below `below`, take more than so many bytes.
    #[must_use]
    pub fn holds_more_than(&self, log: LogKey, from_seq: u64, below: u32, bytes: u64) -> bool {
        let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
        index.holds_more_than(log, from_seq, below, bytes)
    }

    /// As `Store::read`.
    pub fn read(&self, log: LogKey, from_seq: u64, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        read(&self.shared, log, from_seq, max_bytes)
    }
}

impl Compactor {
    /// The first segment that is recent. One whose age cannot be told is.
    #[must_use]
    pub fn recent(&self, recent: Recent) -> u32 {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        let mut number = segments.first + u32::try_from(segments.list.len()).unwrap_or(u32::MAX);
        let mut behind = 0;
        for (place, segment) in segments.list.iter().rev().enumerate() {
            let meta = segment.file.metadata().ok();
            let age = meta.as_ref().and_then(|meta| meta.modified().ok()?.elapsed().ok());
            let young = age.is_none_or(|age| age <= recent.age) && behind < recent.bytes_max;
            if behind >= recent.bytes && !young {
                break;
            }
            number -= 1;
            if place > 0 {
                behind += meta.map_or(segment.len, |meta| meta.len());
            }
        }
        number
    }

    /// Deletes the segments before `number`, the oldest first, but never the one that is being written. Returns how many
    /// bytes that made free. Readers of what is gone find nothing.
    ///
    /// Errors: `Io`; what was deleted stays deleted.
    pub fn drop_below(&self, number: u32) -> Result<u64, Error> {
        let shared = &*self.shared;
        let mut freed = 0;
        loop {
            let mut segments = shared.segments_mut();
            let first = segments.first;
            if first >= number || segments.list.len() < 2 {
                break;
            }
            drop(segments);
            // Out of the index first, so that hardly a reader looks for what is gone.
            shared.index_mut().forget_below(first + 1);
            segments = shared.segments_mut();
            let gone = segments.list.remove(0);
            segments.first += 1;
            drop(segments);
            let path = segment::path(&shared.dir, first);
            let bytes = gone.file.metadata().map_or(gone.len, |meta| meta.len());
            std::fs::remove_file(&path).map_err(Error::io("delete", &path))?;
            freed += bytes;
            shared.counters.bytes.fetch_sub(bytes, Relaxed);
        }
        if freed > 0 {
            segment::sync_dir(&shared.dir).map_err(Error::io("sync", &shared.dir))?;
        }
        Ok(freed)
    }
}

fn read(shared: &Shared, log: LogKey, from_seq: u64, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, Error> {
    let index = shared.index.read().unwrap_or_else(PoisonError::into_inner);
    let entries = index.find(log, from_seq, max_bytes, BATCH_BYTES);
    // Files are read outside the lock, so a slow disk never holds up the writer.
    drop(index);
    let mut batches = Vec::with_capacity(entries.len());
    let mut open: Option<(u32, Segment)> = None;
    for entry in entries {
        let segment = match &open {
            Some((number, segment)) if *number == entry.segment => segment,
            _ => &open.insert((entry.segment, shared.segment(entry.segment)?)).1,
        };
        let offset = u64::from(entry.offset);
        let frame = scan::frame_at(&segment.file, segment.salt, offset, entry.len);
        let path = || segment::path(&shared.dir, entry.segment);
        let Some(frame) = frame.map_err(|error| Error::io("read", path())(error))? else {
            return Err(Error::Corrupt { file: path(), offset, what: "a batch is not what was written" });
        };
        batches.push((entry.first_seq, Bytes::from(frame).slice(FRAME_BYTES + BATCH_BYTES..)));
    }
    Ok(batches)
}

impl Shared {
    fn segment(&self, number: u32) -> Result<Segment, Error> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let found = number.checked_sub(segments.first).and_then(|place| segments.list.get(place as usize));
        found.cloned().ok_or_else(|| {
            let missing = io::Error::from(io::ErrorKind::NotFound);
            Error::io("find", segment::path(&self.dir, number))(missing)
        })
    }

    // No code panics between two halves of a change under these locks, so a poisoned one still guards whole data.
    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn segments_mut(&self) -> RwLockWriteGuard<'_, Segments> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            // A panic in the thread has been reported by the panic hook; there is nobody left to tell.
            let _ = writer.join();
        }
    }
}
