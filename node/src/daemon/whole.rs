//! The whole log for the API: the node's own directory, read from outside while the node writes it.
//!
//! Invariants: read-only. Does not: bound what is durable (`api` asks the driver for that).

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;

use starling_core::event::SignedBatch;
use starling_core::ids::ClusterId;
use starling_core::machine::snapshot::{Local, Shared};

use crate::api::{Base, ReadLog};
use crate::export::dir::{self, DirError};
use crate::storage::snapshots;

/// A node's data directory.
pub(super) struct Whole {
    pub(super) dir: PathBuf,
    pub(super) cluster: ClusterId,
}

impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whole").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Why reading ended early.
enum Ended {
    Asked,
    Failed(DirError),
}

impl From<DirError> for Ended {
    fn from(error: DirError) -> Self {
        Self::Failed(error)
    }
}

impl ReadLog for Whole {
    fn batches(&self, take: &mut dyn FnMut(SignedBatch) -> ControlFlow<()>) -> Result<(), String> {
        let each = |_cluster, batch| match take(batch) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Ended::Asked),
        };
        match dir::each_batch(&self.dir, each) {
            Ok(()) | Err(Ended::Asked) => Ok(()),
            Err(Ended::Failed(error)) => Err(error.to_string()),
        }
    }

    fn bases(&self) -> Result<Vec<Base>, String> {
        let (own, _joined) = dir::snapshot_files(&self.dir).map_err(|error| error.to_string())?;
        let mut bases = Vec::new();
        for path in own {
            // A damaged one is told of when the node starts, and by `starling log verify`.
            let Some(loaded) = snapshots::load(&path).map_err(|error| error.to_string())? else {
                continue;
            };
            let named = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
            let local = Local::from_bytes(&loaded.local).map_err(|error| named(&error))?;
            let shared = Shared::from_bytes(&loaded.shared, &self.cluster).map_err(|error| named(&error))?;
            bases.push(Base { made_unix_ms: local.clock.wall_ms, shared });
        }
        Ok(bases)
    }
}
