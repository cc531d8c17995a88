//! What the API stands on, and the bounds within which it serves.
//!
//! Invariants: at most `CALLS_MAX` unary calls and `STREAMS_MAX` streams at once, more are refused as
//! busy; a unary call ends within `CALL_DEADLINE`.
//! Does not: answer anything itself.

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use starling_core::event::SignedBatch;
use starling_core::ids::{LogId, Seq};
use starling_core::machine::Machine;
use starling_core::machine::snapshot::Shared;
use starling_core::time::Now;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tonic::Status;

use super::hub::{Generators, Hub};
use super::status::ApiError;
use super::stream::Produced;
use super::workers::ReadWorkers;
use crate::driver::Handle;
use crate::monitor::History;
use crate::output::Outputs;
use crate::relay;

/// Unary calls served at once. Low: bursts are refused. High: a flood takes more memory.
const CALLS_MAX: usize = 4_096;
/// Streams served at once.
const STREAMS_MAX: usize = 1_024;
/// Readers of the whole log at once: each takes a disk's time, and a question about the past as much memory as Facts.
const READERS_MAX: usize = 2;
/// Longest unary call.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// The disk as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageStats {
    /// Bytes left for this node; `None` when the system does not say.
    pub free_disk_bytes: Option<u64>,
    /// "ok", or what is wrong.
    pub state: String,
}

/// Reads the disk's state. May block briefly.
pub type ReadStorage = Arc<dyn Fn() -> StorageStats + Send + Sync>;

/// Raw batches of a log that hold events from a position on, about so many bytes; empty at the end. May block.
pub type ReadHistory = Arc<dyn Fn(LogId, Seq, usize) -> Result<Vec<Bytes>, String> + Send + Sync>;

/// The ids of processes of a supervisor that this node knows nothing of. May block.
pub type ReadOrphans = Arc<dyn Fn() -> Vec<u32> + Send + Sync>;
/// A snapshot that this node made.
#[derive(Clone, Debug)]
pub struct Base {
    /// Nothing that it holds was written later, by this node's clock; milliseconds since 1970.
    pub made_unix_ms: u64,
    /// What it holds.
    pub shared: Shared,
}

/// The log on disk from end to end, and the snapshots beside it.
pub trait ReadLog: fmt::Debug + Send + Sync {
    /// Hands out all batches in the order in which they were written, until told to stop. May block.
    ///
    /// # Errors
    /// If the log cannot be read, in words.
    fn batches(&self, take: &mut dyn FnMut(SignedBatch) -> ControlFlow<()>) -> Result<(), String>;

    /// This node's own snapshots, oldest first. May block.
    ///
    /// # Errors
    /// If one cannot be read, in words.
    fn bases(&self) -> Result<Vec<Base>, String>;
}

/// What the node tells of itself.
#[derive(Clone, Debug)]
pub struct About {
    /// Its name.
    pub name: String,
    /// Where its files lie.
    pub data_dir: PathBuf,
    /// The program's version.
    pub version: String,
    /// Whether it has no cluster secret and so stays on loopback.
    pub loopback_only: bool,
    /// When it started.
    pub started: Instant,
}

/// Everything the API needs.
#[derive(Clone)]
pub struct Context {
    /// The driver.
    pub handle: Handle,
    /// Task output, wherever it lies.
    pub outputs: Outputs,
    /// Relays at this node.
    pub relays: relay::Handle,
    /// This node.
    pub about: About,
    /// The disk.
    pub storage: ReadStorage,
    /// The log on disk.
    pub history: ReadHistory,
    /// The same from end to end.
    pub log: Arc<dyn ReadLog>,
    /// The past hour of readings.
    pub past: History,
    /// Programs outside that run jobs, if they are served here.
    pub generators: Option<Arc<dyn Generators>>,
    /// What is kept of retired jobs, if it is.
    pub retired: Option<crate::history::History>,
    /// The gateway's workers, if this node can tell of them.
    pub workers: Option<Arc<dyn ReadWorkers>>,
    /// Told when a user of this machine wants the node to stop.
    pub stop: Arc<Notify>,
    /// Tasks whose data directory was wiped while they ran.
    pub orphans: ReadOrphans,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("about", &self.about).finish_non_exhaustive()
    }
}

/// Where a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// On this machine, as the node's own user: it came through the Unix socket.
    Here,
    /// Anywhere.
    Anywhere,
}

/// The API, shared by gRPC and HTTP.
#[derive(Clone, Debug)]
pub(super) struct Api {
    pub(super) ctx: Arc<Context>,
    pub(super) hub: Arc<Hub>,
    /// Where those are who reach it by this handle.
    pub(super) reach: Reach,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// For those who read the whole log.
    pub(super) readers: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Api {
    /// Serves from `ctx` until `stopping` turns true.
    pub(super) fn new(ctx: Context, stopping: watch::Receiver<bool>) -> Self {
        Self {
            ctx: Arc::new(ctx),
            hub: Arc::default(),
            reach: Reach::Anywhere,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            stopping,
        }
    }

    /// The same, for callers on the Unix socket.
    pub(super) fn here(&self) -> Self {
        Self { reach: Reach::Here, ..self.clone() }
    }

    /// Asks the Machine.
    ///
    /// Cancel safety: cancel safe.
    pub(super) async fn ask<T, F>(&self, question: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Machine, Now) -> T + Send + 'static,
    {
        Ok(self.ctx.handle.ask(question).await?)
    }

    /// Runs a unary call within the bounds.
    ///
    /// Cancel safety: as `work`.
    pub(super) async fn call<T>(&self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, Status> {
        let _permit = self.calls.try_acquire().map_err(|_full| ApiError::Overloaded)?;
        match tokio::time::timeout(CALL_DEADLINE, work).await {
            Ok(result) => Ok(result?),
            Err(_elapsed) => Err(ApiError::Deadline(CALL_DEADLINE).into()),
        }
    }

    /// Runs a call that waits for news as long as its caller says, as if it were a stream.
    ///
    /// Cancel safety: as `work`.
    pub(super) async fn long_call<T>(&self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, Status> {
        let _permit = self.streams.try_acquire().map_err(|_full| ApiError::Overloaded)?;
        let mut stopping = self.stopping.clone();
        tokio::select! {
            biased;
            _stopped = stopping.wait_for(|stopping| *stopping) => {
                Err(ApiError::Stopped(crate::driver::Stopped::Gone).into())
            }
            result = work => Ok(result?),
        }
    }

    /// A stream of whatever `make`'s future sends, within the bounds; it ends when the node stops.
    pub(super) fn stream<T, M, F>(&self, make: M) -> Result<Produced<T>, Status>
    where
        T: Send + 'static,
        M: FnOnce(mpsc::Sender<T>) -> F,
        F: Future<Output = Result<(), ApiError>> + Send + 'static,
    {
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_full| ApiError::Overloaded)?;
        let mut stopping = self.stopping.clone();
        Ok(Produced::new(|tx| {
            let work = make(tx);
            async move {
                let _permit = permit;
                tokio::select! {
                    biased;
                    // An error means that the server is gone, which ends the stream as well.
                    _stopped = stopping.wait_for(|stopping| *stopping) => {
                        Err(ApiError::Stopped(crate::driver::Stopped::Gone))
                    }
                    result = work => result,
                }
            }
        }))
    }
}
