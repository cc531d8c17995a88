//! The site of a data directory: which machine's, and as which file of its disk. A copy, or one that was restored from elsewhere, has another (ADR 20).
//!
//! Does not: notice a disk that was set back as a whole, as virtual machines are. The log itself tells of that (DESIGN L3).

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use starling_core::ids::NodeId;
use starling_core::machine::Notice;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

const MACHINE_ID: &str = "/etc/machine-id";

/// Where a data directory lies.
#[derive(Clone, Debug)]
pub(super) struct Site {
    path: PathBuf,
    here: String,
    /// Whether it was elsewhere when this was last written down.
    pub(super) moved: bool,
}

impl Site {
    /// Looks where the directory is, and where it was. `anchor` is a file in it that is written once.
    ///
    /// # Errors
    /// If either cannot be read.
    pub(super) fn find(dir: &Path, anchor: &Path) -> io::Result<Self> {
        // Some systems have none.
        let machine = fs::read_to_string(MACHINE_ID).unwrap_or_default();
        let here = format!("{} {}\n", fs::metadata(anchor)?.ino(), machine.trim());
        let path = dir.join("site");
        let before = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let moved = before.as_ref().is_some_and(|before| *before != here);
        let site = Self { path, here, moved };
        if before.is_none() {
            site.settle();
        }
        Ok(site)
    }

    /// Writes down that a copy is here, once it has an epoch of its own: until then every start must take it for one.
    pub(super) async fn settle_later(self, me: NodeId, mut news: broadcast::Receiver<Notice>) {
        loop {
            match news.recv().await {
                Ok(Notice::Folded(batch)) if batch.header().log.node == me => return self.settle(),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn settle(&self) {
        if let Err(error) = fs::write(&self.path, &self.here) {
            warn!(file = %self.path.display(), %error, "where the data directory lies was not written down; its next start takes it for a copy");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_elsewhere_until_it_has_settled() {
        let tmp = tempfile::tempdir().unwrap();
        let (first, copy) = (tmp.path().join("first"), tmp.path().join("copy"));
        let find = |dir: &Path| Site::find(dir, &dir.join("key")).unwrap();
        fs::create_dir(&first).unwrap();
        fs::write(first.join("key"), "secret").unwrap();
        assert!(!find(&first).moved);
        fs::create_dir(&copy).unwrap();
        for file in ["key", "site"] {
            fs::copy(first.join(file), copy.join(file)).unwrap();
        }
        assert!(find(&copy).moved);
        find(&copy).settle();
        assert!(!find(&copy).moved);
        fs::rename(&copy, tmp.path().join("renamed")).unwrap();
        assert!(!find(&tmp.path().join("renamed")).moved, "the same files under another name");
        assert!(!find(&first).moved);
    }
}
