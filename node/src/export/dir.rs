//! A node's data directory, read from outside: its log, batch by batch, and its snapshots.
//!
//! Invariants: read-only; only `Claim` takes the directory's lock, shared, so that no node starts while it is held.
//! Does not: judge what it reads (`check` does).

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use starling_core::event::{BatchError, SignedBatch};
use starling_core::ids::ClusterId;

use crate::storage::look::Look;
use crate::storage::{self, Record, snapshots};

/// Why a directory is not read.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// No node ever ran there.
    #[error("{} holds no node's log; name a node's data directory, as `starling cluster info` shows it", .0.display())]
    NoLog(PathBuf),
    /// A node runs there.
    #[error("a node runs in {} (process {pid}); ask it with --via, or stop it first", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The node's process, as far as it can be told.
        pid: String,
    },
    /// The log.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

/// Keeps nodes from starting in a directory.
#[derive(Debug)]
pub struct Claim {
    _lock: Option<File>,
}

/// Where the log lies.
///
/// # Errors
/// `NoLog`.
pub fn log_dir(dir: &Path) -> Result<PathBuf, DirError> {
    let log = dir.join("log");
    if log.is_dir() { Ok(log) } else { Err(DirError::NoLog(dir.to_owned())) }
}

/// Claims the directory of a stopped node for as long as the claim lives.
///
/// # Errors
/// `NoLog`; `InUse`.
pub fn claim(dir: &Path) -> Result<Claim, DirError> {
    // Without a lock file, or the right to open it, no node of this user runs there.
    let Ok(mut file) = File::open(log_dir(dir)?.join("lock")) else {
        return Ok(Claim { _lock: None });
    };
    if flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
        let mut pid = String::new();
        // The node may be between locking and writing its pid: the refusal stands without it.
        let _unread = file.read_to_string(&mut pid);
        let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
        return Err(DirError::InUse { dir: dir.to_owned(), pid });
    }
    Ok(Claim { _lock: Some(file) })
}

/// Snapshots beside a log: a node's own and others', each oldest first.
///
/// # Errors
/// If they cannot be listed.
pub fn snapshot_files(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), storage::Error> {
    snapshots::files(&dir.join("snapshots"))
}

/// The cluster that a signed batch says it was made for. Nothing else of it is believed.
#[must_use]
pub fn cluster_of(batch: &[u8]) -> Option<ClusterId> {
    let mut decoder = minicbor::Decoder::new(batch);
    decoder.array().ok()?;
    decoder.u8().ok()?;
    decoder.bytes().ok()?.try_into().ok().map(ClusterId)
}

/// Hands out the signed batches of a node's log in the order in which they were written, checked for form but not for their signatures: the node checked them before it
/// wrote them, and every frame has a checksum.
///
/// # Errors
/// Whatever is wrong with the log; nothing more is handed out then. What `each` answers.
pub fn each_batch<E: From<DirError>>(
    dir: &Path,
    mut each: impl FnMut(ClusterId, SignedBatch) -> Result<(), E>,
) -> Result<(), E> {
    let storage = |error| E::from(DirError::Storage(error));
    let mut look = Look::at(&log_dir(dir)?).map_err(storage)?;
    while let Some(looked) = look.next_record().map_err(storage)? {
        let Record::Batch { bytes, .. } = looked.record else {
            continue;
        };
        let not_one =
            |what| storage(storage::Error::Corrupt { file: look.path(looked.segment), offset: looked.offset, what });
        let cluster = cluster_of(&bytes).ok_or_else(|| not_one("a batch that is none"))?;
        let batch = SignedBatch::open_own(&bytes, &cluster).map_err(|error| not_one(what_is_wrong(&error)))?;
        each(cluster, batch)?;
    }
    Ok(())
}

/// In a few words.
#[must_use]
pub fn what_is_wrong(error: &BatchError) -> &'static str {
    match error {
        BatchError::Signature(_) => "a batch that its author did not sign",
        BatchError::OtherCluster => "a batch of another cluster",
        BatchError::TooLarge(_) | BatchError::Malformed(_) | BatchError::Count(_) | BatchError::EventTooLarge(_) => {
            "a batch that is none"
        }
    }
}
