//! Logs: what workers' tasks write, brought into the files where any task's output lies.
//!
//! Sessions hand over lines in order and wait for room, so that a worker that floods is slowed down by its own stream; one thread writes. The last word on a task is
//! `Close`, which comes through the same queue and so after the lines that were sent before it.
//! Invariants: what waits to be written is bounded in bytes over all sessions; lines of a task that is over, or is another worker's, are dropped; every task that
//! was opened is closed once, and its tails are told then.
//! Does not: decide how a task ended; it only reads what our own worker's last line says.

mod tap;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use starling_core::ids::{JobId, WorkerName};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::warn;

use self::tap::Tap;
use super::outcome::Marker;
use super::table::Millis;
use super::{Refusal, Tails};
use crate::driver::Stopped;
use crate::hwp::id::AssignmentId;
use crate::output::{Files, Place};

/// Bytes that wait to be written, of all sessions together. Full: sessions do not read on.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// What is counted as waiting for anything, however short.
const UNIT_BYTES: usize = 1_024;
/// Commands in the queue. Full: as above.
const QUEUE: usize = 1_024;
/// Lines of one task that follow each other are written together, up to about this.
const CHUNK_BYTES: usize = 64 << 10;
/// Files that are kept open.
const OPEN_FILES_MAX: usize = 256;

/// When something was last heard of a worker, by the driver's monotonic clock. Written by its sessions, read by the actor.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<AtomicU64>);

impl Heard {
    pub(super) fn now(&self, now: Millis) {
        self.0.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn at(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// A task whose output is taken.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Whose lines are taken.
    pub(super) worker: WorkerName,
    /// Whether it is our own worker, whose last line may say how the task ended.
    pub(super) is_own: bool,
    /// When the worker was last heard of.
    pub(super) heard: Heard,
}

/// What a result brings along beside the code.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) exit_code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) compressed: Bytes,
    /// Its share of what may wait.
    _share: Option<OwnedSemaphorePermit>,
}

impl Fill {
    /// A result that is a code and nothing else.
    pub(super) fn code(exit_code: i32) -> Self {
        let (stdout, stderr, compressed) = (String::new(), String::new(), Bytes::new());
        Self { exit_code, stdout, stderr, compressed, _share: None }
    }
}

/// The last word on a task's output.
#[derive(Debug)]
pub(super) struct Close {
    pub(super) id: AssignmentId,
    /// Absent where no result came.
    pub(super) fill: Option<Fill>,
}

/// The files of a task are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) id: AssignmentId,
    /// What the last line said, taken out of the output.
    pub(super) marker: Option<Marker>,
}

#[derive(Debug)]
enum Command {
    Lines { chunks: Vec<(AssignmentId, String)>, _share: OwnedSemaphorePermit },
    Close(Box<Close>),
}

/// The writer is gone: the process is ending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

impl From<Gone> for Refusal {
    fn from(_gone: Gone) -> Self {
        Stopped::Gone.into()
    }
}

/// Access to the writer.
#[derive(Clone, Debug)]
pub(super) struct Logs {
    queue: mpsc::Sender<Command>,
    budget: Arc<Semaphore>,
    open: Open,
}

#[derive(Clone, Debug, Default)]
struct Open(Arc<Mutex<BTreeMap<AssignmentId, Entry>>>);

impl Open {
    fn table(&self) -> MutexGuard<'_, BTreeMap<AssignmentId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines that a session has read and not handed over.
#[derive(Debug, Default)]
pub(super) struct Batch {
    chunks: Vec<(AssignmentId, String)>,
    bytes: usize,
    /// How the id of the last line was spelled: mostly the next one's is the same.
    last: Option<(String, AssignmentId)>,
}

impl Batch {
    /// Adds a line, or several. `None` if that is no assignment's id.
    pub(super) fn add(&mut self, job_id: &str, mut data: String) -> Option<AssignmentId> {
        let id = match &self.last {
            Some((text, id)) if text == job_id => *id,
            Some(_) | None => {
                let id = AssignmentId::parse(job_id)?;
                self.last = Some((job_id.to_owned(), id));
                id
            }
        };
        if !data.ends_with('\n') {
            data.push('\n');
        }
        self.bytes += data.len();
        match self.chunks.last_mut() {
            Some((last, chunk)) if *last == id && chunk.len() + data.len() <= CHUNK_BYTES => chunk.push_str(&data),
            Some(_) | None => self.chunks.push((id, data)),
        }
        Some(id)
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= CHUNK_BYTES
    }
}

impl Logs {
    /// Starts the thread that writes. It ends when nobody can hand it anything any more.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(
        files: Files,
        cap_bytes: u64,
        tails: Tails,
        closed: mpsc::Sender<Closed>,
    ) -> std::io::Result<Self> {
        let (queue, commands) = mpsc::channel(QUEUE);
        let open = Open::default();
        let writer = Writer {
            files,
            cap_bytes,
            tails,
            closed,
            open: open.clone(),
            taps: BTreeMap::new(),
            made: BTreeSet::new(),
        };
        std::thread::Builder::new().name("worker-logs".to_owned()).spawn(move || writer.run(commands))?;
        let budget = Arc::new(Semaphore::new(WAITING_BYTES_MAX / UNIT_BYTES));
        Ok(Self { queue, budget, open })
    }

    /// From now on lines of this task are taken.
    pub(super) fn open(&self, id: AssignmentId, entry: Entry) {
        self.open.table().insert(id, entry);
    }

    /// Hands over what was read by `now`, and waits for room. Lines of tasks that are not open, or not `by` this worker, are dropped.
    ///
    /// Cancel safety: the batch may be lost.
    pub(super) async fn write(&self, now: Millis, batch: &mut Batch, by: Option<&WorkerName>) -> Result<(), Gone> {
        let bytes = std::mem::take(&mut batch.bytes);
        let mut chunks = std::mem::take(&mut batch.chunks);
        {
            let open = self.open.table();
            chunks.retain(|(id, _)| {
                let entry = open.get(id).filter(|entry| by.is_none_or(|by| entry.worker == *by));
                entry.inspect(|entry| entry.heard.now(now)).is_some()
            });
        }
        if chunks.is_empty() {
            return Ok(());
        }
        let _share = self.share(bytes).await?;
        self.queue.send(Command::Lines { chunks, _share }).await.map_err(|_closed| Gone)
    }

    /// What a result brings along; waits for room for it.
    ///
    /// Cancel safety: cancel safe.
    pub(super) async fn fill(
        &self,
        exit_code: i32,
        stdout: String,
        stderr: String,
        compressed: Bytes,
    ) -> Result<Fill, Gone> {
        let bytes = stdout.len() + stderr.len() + compressed.len();
        let _share = if bytes > UNIT_BYTES { Some(self.share(bytes).await?) } else { None };
        Ok(Fill { exit_code, stdout, stderr, compressed, _share })
    }

    /// Says the last word on a task, or gives it back if there is no room at once.
    pub(super) fn try_close(&self, close: Close) -> Option<Close> {
        match self.queue.try_reserve() {
            Ok(room) => {
                room.send(Command::Close(Box::new(close)));
                None
            }
            Err(TrySendError::Full(())) => Some(close),
            // The process is ending.
            Err(TrySendError::Closed(())) => None,
        }
    }

    /// Waits until there may be room for a `try_close`.
    ///
    /// Cancel safety: cancel safe.
    pub(super) async fn room(&self) {
        // If the writer is gone there is nothing to wait for.
        let _permit = self.queue.reserve().await;
    }

    async fn share(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Gone> {
        let units = bytes.div_ceil(UNIT_BYTES).clamp(1, WAITING_BYTES_MAX / UNIT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        Arc::clone(&self.budget).acquire_many_owned(units).await.map_err(|_closed| Gone)
    }
}

struct Writer {
    files: Files,
    cap_bytes: u64,
    tails: Tails,
    closed: mpsc::Sender<Closed>,
    open: Open,
    taps: BTreeMap<AssignmentId, Tap>,
    made: BTreeSet<JobId>,
}

impl Writer {
    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            match command {
                Command::Lines { chunks, _share } => {
                    for (id, chunk) in chunks {
                        self.write(id, &chunk);
                    }
                }
                Command::Close(close) => self.close(*close),
            }
        }
    }

    fn write(&mut self, id: AssignmentId, chunk: &str) {
        // A line that was overtaken by the end of its task must not begin the file anew.
        let Some(is_own) = self.open.table().get(&id).map(|entry| entry.is_own) else {
            return;
        };
        self.tap(id).lines(chunk, is_own);
        if self.taps.len() > OPEN_FILES_MAX
            && let Some(tap) = self.taps.get_mut(&id)
        {
            tap.park();
        }
    }

    fn tap(&mut self, id: AssignmentId) -> &mut Tap {
        let fresh = (!self.taps.contains_key(&id)).then(|| Tap::new(self.prefix(&id), self.cap_bytes));
        self.taps.entry(id).or_insert_with(|| fresh.expect("made just now if it was not there"))
    }

    fn prefix(&mut self, id: &AssignmentId) -> PathBuf {
        let job = id.grant.job;
        if self.made.insert(job) {
            let dir = self.files.job_dir(&job);
            if let Err(error) = std::fs::create_dir_all(&dir) {
                warn!(dir = %dir.display(), %error, "no directory for output");
                self.made.remove(&job);
            }
        }
        self.files.prefix(&Place { grant: id.grant, task: id.task })
    }

    fn close(&mut self, close: Close) {
        let Close { id, fill } = close;
        let Some(entry) = self.open.table().remove(&id) else {
            return;
        };
        let (written, marker) = match self.taps.remove(&id) {
            Some(tap) => tap.close(fill, entry.is_own),
            None => Tap::new(self.prefix(&id), self.cap_bytes).close(fill, entry.is_own),
        };
        (self.tails)(&Place { grant: id.grant, task: id.task }, &written);
        // The actor never waits for this thread, so this waits for it at most for a moment.
        let _gone = self.closed.blocking_send(Closed { id, marker });
    }
}
