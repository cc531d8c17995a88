//! What can go wrong with the durable log, and what a person should do about it.
//!
//! Invariants: every variant names the file or directory; a message shown to people says the next step.
//! Does not: decide what the node does about a failure (the daemon and the driver do).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Record;

/// Why the log could not be opened or read. Nothing on disk was changed, except where a variant says so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another live process owns this data directory.
    #[error(
        "data directory {} is in use by {}; stop that node or choose another directory",
        dir.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The owner, where its lock file could be read.
        pid: Option<u32>,
    },
    /// Bytes that were once durable are no longer what was written.
    #[error(
        "{} is damaged at byte {offset} ({what}); it was left as it is. Check the disk, then start with an empty data \
         directory: the node gets the shared history back from its peers",
        file.display()
    )]
    Corrupt {
        /// The damaged segment.
        file: PathBuf,
        /// Where the first bad byte range starts.
        offset: u64,
        /// How the damage shows.
        what: &'static str,
    },
    /// A segment is gone that no snapshot covers.
    #[error(
        "{} is missing although later segments or snapshots exist. Restore it, or start with an empty data directory: the node \
         gets the shared history back from its peers",
        file.display()
    )]
    Missing {
        /// The segment that should be there.
        file: PathBuf,
    },
    /// Written by another version of this program.
    #[error("{} has log format {found}, this program reads format {supported}; use the program that wrote it", file.display())]
    Version {
        /// The segment.
        file: PathBuf,
        /// Its format number.
        found: u32,
        /// The only format number this program reads.
        supported: u32,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Why one write is not durable. None of its records will be found by a later read or recovery, unless the variant says so.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// No space (or quota) left. Later writes may succeed.
    #[error("the disk holding {} is full; free some space", file.display())]
    Full {
        /// The segment.
        file: PathBuf,
    },
    /// The file system is mounted read-only. Later writes may succeed.
    #[error("the file system holding {} is read-only", file.display())]
    ReadOnly {
        /// The segment.
        file: PathBuf,
    },
    /// Any other failed write. Later writes may succeed.
    #[error("cannot write {}: {source}", file.display())]
    Io {
        /// The segment.
        file: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// A sync failed, now or earlier. The kernel may have dropped the dirty pages and would report success if asked
    /// again, so nothing is written any more; records of the failed group may or may not be found after a restart.
    #[error(
        "cannot sync {}: {source}; the log takes no more writes, check the disk and restart the node",
        file.display()
    )]
    Poisoned {
        /// The segment or directory whose sync failed.
        file: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// One record is larger than `RECORD_BYTES_MAX`.
    #[error("a record of {bytes} bytes is larger than the limit of {max} bytes")]
    TooLarge {
        /// Its payload.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// The queue to the writer is at its bound: nothing was queued, the records come back.
#[derive(Debug, thiserror::Error)]
#[error("the log's write queue is full")]
pub struct QueueFull(pub Vec<Record>);

impl Error {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl WriteError {
    /// Sorts a failed write by what the user can do about it.
    pub(super) fn from_io(file: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { file },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { file },
            // `ErrorKind` is non-exhaustive: everything else reads the same to the user.
            _ => Self::Io { file, source: Arc::new(source) },
        }
    }

    pub(super) fn poisoned(file: PathBuf, source: io::Error) -> Self {
        Self::Poisoned { file, source: Arc::new(source) }
    }
}
