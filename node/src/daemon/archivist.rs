//! The archivist: brings history and snapshots to disk, and drops the log that a snapshot made superfluous.
//!
//! Invariants: one thread, in the order of the Machine's effects, so that what is kept of a retired job is on disk before a snapshot that lacks the job; log is dropped
//! only below the older of two snapshots on disk, and none that is young.
//! Does not: decide when (`starling_core::machine` does).

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use starling_core::ids::JobId;
use starling_core::machine::{Input, snapshot};
use tracing::{info, warn};

use crate::driver::Handle;
use crate::history::History;
use crate::output::Files;
use crate::storage::snapshots::Snapshots;
use crate::storage::{Compactor, Recent};

/// A disk that took nothing is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// What is to be kept.
#[derive(Debug)]
pub(super) enum Keep {
    /// History was appended for these jobs.
    Retired(Vec<JobId>),
    /// A snapshot of all records before a segment.
    Snapshot { bytes: Box<snapshot::Bytes>, segment: u32 },
}

/// Whether the log is kept whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archive {
    /// For ever.
    Whole,
    /// What two snapshots do not contain, and what is recent.
    Recent(Recent),
}

/// What keeping stands on.
#[derive(Debug)]
pub(super) struct Archivist {
    pub(super) handle: Handle,
    pub(super) history: History,
    pub(super) snapshots: Snapshots,
    pub(super) compactor: Compactor,
    pub(super) archive: Archive,
    pub(super) files: Files,
}

impl Archivist {
    /// Serves until nobody can ask any more. For a thread of its own.
    pub(super) fn run(self, queue: &Receiver<Keep>) {
        let mut told = false;
        loop {
            let flushed = self.history.flush();
            match (&flushed, told) {
                (Err(error), false) => warn!(%error, "history is not written; it is kept in memory until it is"),
                (Ok(()), true) => info!("history is written again"),
                (Err(_), true) | (Ok(()), false) => {}
            }
            told = flushed.is_err();
            let next = if told {
                queue.recv_timeout(RETRY)
            } else {
                queue.recv().map_err(|_closed| RecvTimeoutError::Disconnected)
            };
            match next {
                Ok(Keep::Retired(jobs)) => jobs.iter().for_each(|job| self.tidy(job)),
                Ok(Keep::Snapshot { bytes, segment }) => {
                    let result = self.snapshot(&bytes, segment);
                    if !self.handle.input(Input::Snapshotted(result)) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // What could not be written comes again from the log.
                    let _last = self.history.flush();
                    return;
                }
            }
        }
    }

    fn snapshot(&self, bytes: &snapshot::Bytes, segment: u32) -> Result<(), String> {
        self.history.flush().map_err(|error| error.to_string())?;
        let needed = self.snapshots.write(segment, &bytes.shared, &bytes.local).map_err(|error| error.to_string())?;
        if let Archive::Recent(recent) = self.archive {
            // The snapshot stands all the same; the next one tries again.
            match self.compactor.drop_below(needed.min(self.compactor.recent(recent))) {
                Ok(freed) => info!(bytes = bytes.shared.len(), freed, "wrote a snapshot"),
                Err(error) => warn!(%error, "cannot drop old log"),
            }
        }
        Ok(())
    }

    /// Tasks that wrote nothing leave empty files, which nobody will ask for any more.
    fn tidy(&self, job: &JobId) {
        for dir in self.files.dirs(job) {
            if let Err(error) = remove_if_silent(&dir)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(dir = %dir.display(), %error, "empty output stays");
            }
        }
    }
}

fn remove_if_silent(dir: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.metadata()?.len() > 0 {
            return Ok(());
        }
        files.push(entry.path());
    }
    files.iter().try_for_each(std::fs::remove_file)?;
    std::fs::remove_dir(dir)
}
