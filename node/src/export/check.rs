//! Is it sound? Checksums, form, signatures, cluster, order and chain of everything in a directory or an export file.
//!
//! Invariants: looking changes nothing; all faults are told, not only the first; a fault says where and what to do. What a node's own snapshots contain need not be in
//! its log; in a file it is told as missing, and is no fault: the file is what was exported.
//! Does not: know the cluster's secret, so a log's admission is seen to be there, and judged by the node that imports it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use starling_core::event::SignedBatch;
use starling_core::ids::{ClusterId, Epoch, Hash, LogId, NodeId, Seq};
use starling_core::limits;
use starling_core::log::{LogEnd, Survey, Surveyed};
use starling_core::machine::Note;
use starling_core::machine::snapshot::Shared;

use super::dir::{self, DirError};
use super::form::{Counts, FormError, Reader};
use crate::storage::look::{Look, Looked};
use crate::storage::{self, LogKey, Record, snapshots};

/// Faults told of one place; what is beyond is counted.
const FAULTS_MAX: usize = 1_000;

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In which file.
    pub file: PathBuf,
    /// At which byte, where that can be said.
    pub offset: Option<u64>,
    /// What, and what to do.
    pub sentence: String,
}

/// One log in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Whose, and which.
    pub log: LogId,
    /// The name that its author gave itself; may be empty.
    pub name: String,
    /// The position of its last event.
    pub len: Seq,
    /// Events that are there, those of other branches included.
    pub events: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// The head of the last batch.
    pub head: Hash,
    /// Batches on other branches: its author signed two different things for one position.
    pub forks: usize,
    /// Positions that are not there, first and last.
    pub missing: Vec<(Seq, Seq)>,
}

/// What was found in a place.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Whose logs they are; `None` if there are none.
    pub cluster: Option<ClusterId>,
    /// Each log.
    pub logs: Vec<LogLine>,
    /// Everything wrong.
    pub faults: Vec<Fault>,
    /// Faults beyond those told.
    pub more_faults: u64,
    /// What is worth knowing and no fault.
    pub notes: Vec<String>,
    /// Batches and events in all.
    pub counts: Counts,
}

/// A place, looked through.
#[derive(Clone, Debug, Default)]
pub struct Examined {
    /// What is to be said of it.
    pub verdict: Verdict,
    /// Its batches.
    pub survey: Survey,
    /// Up to where snapshots hold what may be missing.
    pub covered: BTreeMap<LogId, LogEnd>,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    fn fault(&mut self, file: &Path, offset: Option<u64>, sentence: String) {
        if self.faults.len() >= FAULTS_MAX {
            self.more_faults += 1;
        } else {
            self.faults.push(Fault { file: file.to_owned(), offset, sentence });
        }
    }
}

/// Looks through a node's data directory.
///
/// # Errors
/// If there is none, or it cannot be listed.
pub fn directory(dir: &Path) -> Result<Examined, DirError> {
    let mut look = Look::at(&dir::log_dir(dir)?)?;
    let mut found = Examined::default();
    let mut holes = Vec::new();
    loop {
        match look.next_record() {
            Ok(None) => break,
            Ok(Some(looked)) => {
                if !found.record(&look, looked, &mut holes) {
                    break;
                }
            }
            Err(error) => {
                let (file, offset) = place_of(&error);
                found.verdict.fault(&file, offset, error.to_string());
            }
        }
    }
    found.snapshots(dir, &look)?;
    for Hole { file, offset, log, from, to } in holes {
        if found.covered.get(&log).is_some_and(|end| end.len >= to) {
            continue;
        }
        let name = found.name_of(&log);
        let sentence = format!(
            "{} at byte {offset}: events {from} to {to} of {name} are missing before it; start the node: it asks its peers for them",
            file.display()
        );
        found.verdict.fault(&file, Some(offset), sentence);
    }
    if let Some((file, offset)) = look.unfinished() {
        let text = "an unfinished write, which a starting node cuts off and a running one is about to finish";
        found.verdict.notes.push(format!("{} ends at byte {offset} in {text}", file.display()));
    }
    found.openings(&dir.join("log"));
    found.sum_up();
    Ok(found)
}

/// Looks through an export file. `each` gets its batches as they are read, while the file is good.
///
/// # Errors
/// If it cannot be opened. Whatever is wrong with its content is in the verdict.
pub fn file(path: &Path) -> std::io::Result<Examined> {
    let mut found = Examined::default();
    let from = BufReader::new(File::open(path)?);
    if let Err(error) = found.whole_file(from, path) {
        let offset = match &error {
            FormError::CutOff(offset) | FormError::Trailing(offset) => Some(*offset),
            FormError::Length { offset, .. } | FormError::Batch { offset, .. } => Some(*offset),
            FormError::NotAnExport | FormError::Version(_) | FormError::Header => Some(0),
            FormError::Hash | FormError::Count { .. } | FormError::Io(_) => None,
        };
        found.verdict.fault(path, offset, format!("{}: {error}", path.display()));
    }
    found.openings(path);
    found.sum_up();
    let missing = |line: &LogLine| (!line.missing.is_empty()).then(|| (describe(line), spans(&line.missing)));
    for (log, spans) in found.verdict.logs.iter().filter_map(missing) {
        found.verdict.notes.push(format!(
            "events {spans} of {log} are not in it: where it was made a snapshot had taken their place; a node that runs with --archive exports all"
        ));
    }
    Ok(found)
}

/// A hole in a log, judged once the snapshots are known.
struct Hole {
    file: PathBuf,
    offset: u64,
    log: LogId,
    from: Seq,
    to: Seq,
}

impl Examined {
    fn whole_file(&mut self, from: BufReader<File>, path: &Path) -> Result<(), FormError> {
        let mut reader = Reader::open(from)?;
        self.verdict.cluster = Some(reader.cluster());
        while let Some(placed) = reader.next_batch()? {
            if self.survey.take(&placed.batch) == Surveyed::Full {
                self.too_much(path);
                break;
            }
        }
        Ok(())
    }

    fn too_much(&mut self, path: &Path) {
        let sentence = format!(
            "{} holds more than {} batches, which is more than is looked at in one go",
            path.display(),
            limits::SURVEY_BATCHES_MAX
        );
        self.verdict.fault(path, None, sentence);
    }

    /// False when there is no point in going on.
    fn record(&mut self, look: &Look, looked: Looked, holes: &mut Vec<Hole>) -> bool {
        let (file, offset) = (look.path(looked.segment), looked.offset);
        match self.judge(looked.record) {
            Ok((_, Surveyed::Next | Surveyed::Again | Surveyed::Branch) | (None, _)) => {}
            Ok((Some(log), Surveyed::Hole { from, to })) => holes.push(Hole { file, offset, log, from, to }),
            Ok((Some(_), Surveyed::Full)) => {
                self.too_much(&file);
                return false;
            }
            Err(what) => {
                let error = storage::Error::Corrupt { file: file.clone(), offset, what };
                self.verdict.fault(&file, Some(offset), error.to_string());
            }
        }
        true
    }

    /// The log of a batch and how it fits, or what is wrong with a record.
    fn judge(&mut self, record: Record) -> Result<(Option<LogId>, Surveyed), &'static str> {
        let (log, first_seq, count, bytes) = match record {
            Record::Clean => return Ok((None, Surveyed::Next)),
            Record::Local(bytes) => {
                let note: Result<Note, _> = minicbor::decode(&bytes);
                return if note.is_ok() { Ok((None, Surveyed::Next)) } else { Err("a note that is none") };
            }
            Record::Batch { log, first_seq, count, bytes } => (log, first_seq, count, bytes),
        };
        let cluster = self.verdict.cluster.or_else(|| dir::cluster_of(&bytes)).ok_or("a batch that is none")?;
        let batch = SignedBatch::open(&bytes, &cluster).map_err(|error| dir::what_is_wrong(&error))?;
        let header = batch.header();
        let key = LogKey { node: header.log.node.0, epoch: header.log.epoch.0 };
        if (key, header.first_seq.0, header.count) != (log, first_seq, count) {
            return Err("a batch under another's name");
        }
        self.verdict.cluster = Some(cluster);
        Ok((Some(header.log), self.survey.take(&batch)))
    }

    /// Reads the snapshots, one at a time, and holds them against the log.
    fn snapshots(&mut self, dir: &Path, look: &Look) -> Result<(), DirError> {
        let (own, joined) = dir::snapshot_files(dir)?;
        let mut covered_below = None;
        for (path, is_own) in own.iter().map(|path| (path, true)).chain(joined.iter().map(|path| (path, false))) {
            let loaded = match snapshots::load(path) {
                Ok(Some(loaded)) => loaded,
                Ok(None) => {
                    let to_do = "the node starts from the other one; it writes a new one in time";
                    let sentence = format!("{} is damaged (its hash does not fit); {to_do}", path.display());
                    self.verdict.fault(path, None, sentence);
                    continue;
                }
                Err(error) => {
                    self.verdict.fault(path, None, error.to_string());
                    continue;
                }
            };
            if is_own {
                covered_below = covered_below.max(Some(loaded.segment));
            }
            let cluster =
                self.verdict.cluster.or_else(|| cluster_of_snapshot(&loaded.shared)).unwrap_or(ClusterId([0; 32]));
            match Shared::from_bytes(&loaded.shared, &cluster) {
                Ok(shared) => {
                    self.verdict.cluster = Some(cluster);
                    self.cover(path, shared.logs);
                }
                Err(error) => {
                    let to_do = "the node starts from the other one; it writes a new one in time";
                    self.verdict.fault(path, None, format!("{}: {error}; {to_do}", path.display()));
                }
            }
        }
        if let Some(first) = look.first().filter(|first| *first > 1 && covered_below.is_none_or(|below| *first > below))
        {
            let error = storage::Error::Missing { file: look.path(first - 1) };
            let (file, offset) = place_of(&error);
            self.verdict.fault(&file, offset, error.to_string());
        }
        Ok(())
    }

    fn cover(&mut self, path: &Path, ends: Vec<LogEnd>) {
        for end in ends {
            if self.survey.log(&end.log).is_some_and(|span| disagree(span, &end)) {
                let name = self.name_of(&end.log);
                let sentence = format!(
                    "{} says that event {} of {name} ends another batch than the log has; start with an empty data directory: the node gets the shared history back from its peers",
                    path.display(),
                    end.len
                );
                self.verdict.fault(path, None, sentence);
            }
            let known = self.covered.entry(end.log).or_insert_with(|| end.clone());
            if known.len < end.len {
                *known = end;
            }
        }
    }

    /// Every log opens with its author's admission.
    fn openings(&mut self, place: &Path) {
        let bad: Vec<LogId> = self.survey.logs().filter(|(_, span)| !span.opens_well()).map(|(log, _)| *log).collect();
        for log in bad {
            let sentence = format!(
                "{}: {} does not open with an admission, so no node will take it; ask whoever made it",
                place.display(),
                self.name_of(&log)
            );
            self.verdict.fault(place, None, sentence);
        }
    }

    fn sum_up(&mut self) {
        for (log, span) in self.survey.logs() {
            self.verdict.counts.batches += span.batches();
            self.verdict.counts.events += span.events();
            self.verdict.logs.push(LogLine {
                log: *log,
                name: span.name().to_owned(),
                len: span.len(),
                events: span.events(),
                bytes: span.bytes(),
                head: span.head(),
                forks: span.branches().count(),
                missing: span.holes().to_vec(),
            });
        }
    }

    fn name_of(&self, log: &LogId) -> String {
        named(log, self.survey.log(log).map_or("", |span| span.name()))
    }
}

/// Whether the log has another batch where a snapshot says that one ends.
fn disagree(span: &starling_core::log::Span, end: &LogEnd) -> bool {
    let missing = span.holes().iter().any(|(from, to)| (*from..=*to).contains(&end.last()));
    if missing || end.len > span.len() {
        return false;
    }
    let has = |head: u64| span.marks().any(|mark| mark == (end.last(), head)) || span.branches().any(|one| one == head);
    !has(end.head.prefix())
}

fn cluster_of_snapshot(shared: &[u8]) -> Option<ClusterId> {
    let mut decoder = minicbor::Decoder::new(shared);
    decoder.array().ok()?;
    decoder.u8().ok()?;
    decoder.decode().ok()
}

fn place_of(error: &storage::Error) -> (PathBuf, Option<u64>) {
    match error {
        storage::Error::Corrupt { file, offset, .. } => (file.clone(), Some(*offset)),
        storage::Error::Missing { file } | storage::Error::Version { file, .. } => (file.clone(), None),
        storage::Error::InUse { dir, .. } => (dir.clone(), None),
        storage::Error::Io { path, .. } => (path.clone(), None),
    }
}

/// `the log of wren (3f2a91c04b5d)`, and its epoch from the second on.
#[must_use]
pub fn named(log: &LogId, name: &str) -> String {
    let LogId { node, epoch: Epoch(epoch) } = log;
    let short = short(node);
    let author = if name.is_empty() { short } else { format!("{name} ({short})") };
    if *epoch <= 1 { format!("the log of {author}") } else { format!("the log of {author}, epoch {epoch}") }
}

/// The beginning of a node's id.
#[must_use]
pub fn short(node: &NodeId) -> String {
    let mut text = node.to_hex();
    text.truncate(12);
    text
}

fn describe(line: &LogLine) -> String {
    named(&line.log, &line.name)
}

/// `1 to 500, 900 to 950`; three at most.
#[must_use]
pub fn spans(missing: &[(Seq, Seq)]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = missing.iter().take(SHOWN).map(|(from, to)| format!("{from} to {to}")).collect();
    let more = if missing.len() > SHOWN { " and more" } else { "" };
    shown.join(", ") + more
}
