//! Rendezvous: a directory in which nodes of one host, or of one shared file system, find each other.
//!
//! Each node keeps `<dir>/<cluster>/<node id>`, one address a line, its name first, touched while it lives. A hint only: whoever answers there must still prove membership.
//! Invariants: files that were not touched for a while are ignored; unreadable ones do no harm.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use starling_core::ids::{ClusterId, NodeId};

/// A file that was not touched for this long names a node that is gone.
const STALE: Duration = Duration::from_secs(60);
const ENTRIES_MAX: usize = 1_000;
const FILE_BYTES_MAX: u64 = 4_096;

/// What a node left there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name.
    pub(super) name: String,
    /// Where its links listen.
    pub(super) links: Vec<SocketAddr>,
}

/// This cluster's corner of the directory.
#[derive(Clone, Debug)]
pub(super) struct Rendezvous {
    dir: PathBuf,
    own: PathBuf,
}

impl Rendezvous {
    /// Opens the corner for `node`; makes the directory.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(dir: &Path, cluster: &ClusterId, node: &NodeId) -> io::Result<Self> {
        let dir = dir.join(cluster.to_string());
        fs::create_dir_all(&dir)?;
        Ok(Self { own: dir.join(node.to_hex()), dir })
    }

    /// Writes this node's entry anew, so that readers see a whole one and a fresh time.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn announce(&self, entry: &Entry) -> io::Result<()> {
        let links: Vec<String> = entry.links.iter().map(ToString::to_string).collect();
        let text = format!("{}\n{}\n", entry.name, links.join("\n"));
        let draft = self.own.with_extension("new");
        fs::write(&draft, text)?;
        fs::rename(draft, &self.own)
    }

    /// Claims a name for this node, for good; false if another node has it. Without a working directory every name is free.
    #[must_use]
    pub(super) fn claim(&self, name: &str) -> bool {
        // An extension, so that it is not taken for an entry.
        let names = self.dir.join("names.d");
        let me = self.own.file_name().unwrap_or_default().as_encoded_bytes();
        let path = names.join(name);
        let claimed = fs::create_dir_all(&names)
            .and_then(|()| fs::OpenOptions::new().write(true).create_new(true).open(&path))
            .and_then(|mut file| io::Write::write_all(&mut file, me));
        match claimed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::read(&path).is_ok_and(|owner| owner == me)
            }
            Ok(()) | Err(_) => true,
        }
    }

    /// Removes this node's entry.
    pub(super) fn leave(&self) {
        // Gone already, or stale soon.
        let _absent = fs::remove_file(&self.own);
    }

    /// The other nodes' entries.
    #[must_use]
    pub(super) fn others(&self) -> Vec<Entry> {
        let Ok(files) = fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        let paths = files.take(ENTRIES_MAX).filter_map(Result::ok).map(|file| file.path());
        paths.filter(|path| *path != self.own && path.extension().is_none()).filter_map(|path| read(&path)).collect()
    }
}

fn read(path: &Path) -> Option<Entry> {
    let data = fs::metadata(path).ok()?;
    let age = SystemTime::now().duration_since(data.modified().ok()?).unwrap_or_default();
    if age > STALE || data.len() > FILE_BYTES_MAX {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let name = lines.next()?.to_owned();
    Some(Entry { name, links: lines.filter_map(|line| line.parse().ok()).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_see_each_other_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId([1; 32]);
        let open = |node: u8| Rendezvous::open(dir.path(), &cluster, &NodeId([node; 32])).unwrap();
        let (one, two) = (open(1), open(2));
        let entry = Entry { name: "wren".into(), links: vec!["127.0.0.1:7400".parse().unwrap()] };
        one.announce(&entry).unwrap();
        assert_eq!(two.others(), [entry]);
        assert_eq!(one.others(), []);
        fs::write(dir.path().join(cluster.to_string()).join("ff"), [0xff; 100]).unwrap();
        assert_eq!(two.others().len(), 1, "garbage is skipped");
        one.leave();
        assert_eq!(two.others(), []);
    }

    #[test]
    fn a_name_is_claimed_by_one_node_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let open = |node: u8| Rendezvous::open(dir.path(), &ClusterId([1; 32]), &NodeId([node; 32])).unwrap();
        assert!(open(1).claim("wren"));
        assert!(open(1).claim("wren"), "after a restart too");
        assert!(!open(2).claim("wren"));
        assert!(open(2).claim("lark"));
        assert_eq!(open(3).others(), [], "claims are no entries");
    }
}
