//! What clients were told, on disk before they go on: one file a client, one line an entry.
//!
//! Invariants: an entry is written and synced before the client does anything else; what is checked at the end is what is read from disk.
//! Does not: judge (`judge` does).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};

/// How far an acknowledged job had reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// The disk of the node that answered.
    Local,
    /// That and another node's.
    Remote1,
}

/// Something a client did or was told. Times are milliseconds since the start of the run, nodes are numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A submission is on its way. `tag` names it from now on; tasks are counted from 0.
    Tried { at_ms: u64, tag: String, node: usize, tasks: u32 },
    /// It was acknowledged.
    Acked { at_ms: u64, tag: String, job: String, level: Level },
    /// It was not, so it may exist or not.
    Unknown { at_ms: u64, tag: String, why: String },
    /// A cancel is on its way.
    Cancelling { at_ms: u64, tag: String, node: usize },
    /// The cancel was acknowledged.
    Cancelled { at_ms: u64, tag: String },
}

/// One client's file.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
}

/// What the ledger knows of one submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Submission {
    pub(super) tag: String,
    pub(super) node: usize,
    pub(super) tasks: u32,
    pub(super) tried_ms: u64,
    /// When, as which job, and how durable; `None` if no client was ever told so.
    pub(super) acked: Option<Ack>,
    /// Whether a cancel may have reached it.
    pub(super) cancel: Cancel,
}

/// An acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) at_ms: u64,
    pub(super) job: String,
    pub(super) level: Level,
}

/// How far a submission's cancel came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancel {
    /// Nobody asked.
    Unasked,
    /// Somebody asked and was told nothing, or that it failed.
    Asked,
    /// It was acknowledged.
    Acked,
}

impl Ledger {
    /// A new file.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create_new(path).with_context(|| format!("making the ledger {}", path.display()))?;
        Ok(Self { file })
    }

    /// Writes and syncs.
    pub(super) fn note(&mut self, entry: &Entry) -> anyhow::Result<()> {
        self.file.write_all(line(entry).as_bytes()).context("writing the ledger")?;
        self.file.sync_data().context("syncing the ledger")
    }
}

fn line(entry: &Entry) -> String {
    match entry {
        Entry::Tried { at_ms, tag, node, tasks } => format!("tried\t{at_ms}\t{tag}\t{node}\t{tasks}\n"),
        Entry::Acked { at_ms, tag, job, level } => {
            let level = match level {
                Level::Local => "local",
                Level::Remote1 => "remote1",
            };
            format!("acked\t{at_ms}\t{tag}\t{job}\t{level}\n")
        }
        Entry::Unknown { at_ms, tag, why } => {
            format!("unknown\t{at_ms}\t{tag}\t{}\n", why.replace(['\t', '\n'], " "))
        }
        Entry::Cancelling { at_ms, tag, node } => format!("cancelling\t{at_ms}\t{tag}\t{node}\n"),
        Entry::Cancelled { at_ms, tag } => format!("cancelled\t{at_ms}\t{tag}\n"),
    }
}

fn entry(line: &str) -> anyhow::Result<Entry> {
    let fields: Vec<&str> = line.split('\t').collect();
    Ok(match fields[..] {
        ["tried", at, tag, node, tasks] => {
            Entry::Tried { at_ms: at.parse()?, tag: tag.to_owned(), node: node.parse()?, tasks: tasks.parse()? }
        }
        ["acked", at, tag, job, level] => {
            let level = match level {
                "local" => Level::Local,
                "remote1" => Level::Remote1,
                other => bail!("no acknowledgement level `{other}`"),
            };
            Entry::Acked { at_ms: at.parse()?, tag: tag.to_owned(), job: job.to_owned(), level }
        }
        ["unknown", at, tag, why] => Entry::Unknown { at_ms: at.parse()?, tag: tag.to_owned(), why: why.to_owned() },
        ["cancelling", at, tag, node] => {
            Entry::Cancelling { at_ms: at.parse()?, tag: tag.to_owned(), node: node.parse()? }
        }
        ["cancelled", at, tag] => Entry::Cancelled { at_ms: at.parse()?, tag: tag.to_owned() },
        _ => bail!("not an entry: {line}"),
    })
}

/// Reads the ledgers of all clients: submissions by tag.
///
/// # Errors
/// If a file cannot be read, or says something of a submission that was never tried.
pub(super) fn read(paths: &[impl AsRef<Path>]) -> anyhow::Result<BTreeMap<String, Submission>> {
    let mut submissions = BTreeMap::new();
    for path in paths {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        for line in text.lines() {
            let entry = entry(line).with_context(|| format!("in {}", path.display()))?;
            add(&mut submissions, entry).with_context(|| format!("in {}", path.display()))?;
        }
    }
    Ok(submissions)
}

fn add(submissions: &mut BTreeMap<String, Submission>, entry: Entry) -> anyhow::Result<()> {
    if let Entry::Tried { at_ms: tried_ms, tag, node, tasks } = entry {
        let (acked, cancel) = (None, Cancel::Unasked);
        // A client that was told nothing tries again under the same name.
        submissions.entry(tag.clone()).or_insert(Submission { tag, node, tasks, tried_ms, acked, cancel });
        return Ok(());
    }
    let tag = match &entry {
        Entry::Tried { tag, .. }
        | Entry::Acked { tag, .. }
        | Entry::Unknown { tag, .. }
        | Entry::Cancelling { tag, .. }
        | Entry::Cancelled { tag, .. } => tag,
    };
    let submission = submissions.get_mut(tag).with_context(|| format!("{tag} was never tried"))?;
    match entry {
        Entry::Tried { .. } | Entry::Unknown { .. } => {}
        Entry::Acked { at_ms, job, level, .. } => submission.acked = Some(Ack { at_ms, job, level }),
        Entry::Cancelling { .. } => submission.cancel = Cancel::Asked,
        Entry::Cancelled { .. } => submission.cancel = Cancel::Acked,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client-1");
        let mut ledger = Ledger::create(&path).unwrap();
        let tag = "1-1".to_owned();
        let entries = [
            Entry::Tried { at_ms: 5, tag: tag.clone(), node: 3, tasks: 4 },
            Entry::Unknown { at_ms: 6, tag: tag.clone(), why: "timed\nout".to_owned() },
            Entry::Tried { at_ms: 7, tag: tag.clone(), node: 3, tasks: 4 },
            Entry::Acked { at_ms: 8, tag: tag.clone(), job: "wren-12".to_owned(), level: Level::Remote1 },
            Entry::Cancelling { at_ms: 9, tag: tag.clone(), node: 1 },
            Entry::Cancelled { at_ms: 10, tag: tag.clone() },
        ];
        for entry in &entries {
            ledger.note(entry).unwrap();
        }
        let ack = Ack { at_ms: 8, job: "wren-12".to_owned(), level: Level::Remote1 };
        let whole =
            Submission { tag: tag.clone(), node: 3, tasks: 4, tried_ms: 5, acked: Some(ack), cancel: Cancel::Acked };
        assert_eq!(read(&[path]).unwrap(), [(tag, whole)].into());
    }

    #[test]
    fn a_torn_or_foreign_line_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client-1");
        for text in ["acked\t1\t1-1", "acked\t1\t1-1\twren-1\tlocal\n", "nothing"] {
            std::fs::write(&path, text).unwrap();
            read(&[&path]).unwrap_err();
        }
    }
}
