//! History: what is kept of retired jobs, in a local file that only grows, for as long as the data directory lasts (DESIGN J9).
//!
//! Invariants: what was appended is found at once, also before it is on disk; a job is kept once, however often it is told of; memory grows with the bytes on
//! disk by a thousandth of them; a file torn at any byte opens and keeps every whole block.
//! Does not: decide what is retired (`starling_core::machine` does), or fetch what was retired before this node joined.

mod block;
mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use starling_core::facts::Past;
use starling_core::ids::{JobId, LogId, NodeId};
use starling_core::lattice::Numbers;

use self::block::{Blocks, Names};

/// One entry of the index covers about this many bytes of the file.
const SPAN_BYTES: u64 = 64 * 1024;
/// Bytes of records in one block, so that a reader never takes in much more than it looks for.
const BLOCK_BYTES: usize = 64 * 1024;
/// Records that wait for a disk that takes none. More are not taken in: they come again from the log, after a restart.
const PENDING_MAX: usize = 200_000;

/// Why history cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Bytes are not what was written.
    #[error("{} is damaged at byte {offset}; what is kept of some retired jobs is lost on this node", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
    /// Written by a later version.
    #[error("{} has history format {found}, this program reads format {supported}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format of this program.
        supported: u32,
    },
    /// More than can wait came while the disk took nothing.
    #[error(
        "the disk took nothing for so long that retired jobs were not kept; restart the node once it does: they come again from its log"
    )]
    Overflow,
}

/// Numbers about the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Jobs in it.
    pub jobs: u64,
    /// Bytes of its file.
    pub bytes: u64,
}

/// The store. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct History {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    file: File,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    names: Names,
    spans: Vec<Span>,
    /// Which jobs are in it: mostly one range a log.
    have: BTreeMap<LogId, Numbers>,
    jobs: u64,
    /// Where the good blocks end.
    len: u64,
    /// Not on disk yet.
    pending: Vec<Past>,
    overflow: bool,
}

/// Neighbouring blocks, and which jobs may be in them.
#[derive(Clone, Debug)]
struct Span {
    offset: u64,
    bytes: u64,
    /// The least and the greatest number of each log.
    logs: Vec<(LogId, u64, u64)>,
}

impl History {
    /// Opens the store under a node's data directory, and makes it where there is none.
    ///
    /// # Errors
    /// What the system says, or a file of a later version. A damaged file is moved aside and its good part goes on.
    pub fn open(dir: &Path) -> Result<Self, HistoryError> {
        let dir = dir.join("history");
        let path = dir.join("jobs");
        let (file, inner) = file::open(&dir, &path)?;
        Ok(Self { shared: Arc::new(Shared { path, file, inner: RwLock::new(inner) }) })
    }

    /// Takes in what is kept of retired jobs; `flush` brings it to disk. Never blocks for long.
    pub fn append(&self, past: Vec<Past>) {
        let mut inner = self.write();
        for past in past {
            if inner.have.get(&past.id.log).is_some_and(|have| have.contains(past.id.no.0)) {
                continue;
            }
            if inner.pending.len() >= PENDING_MAX {
                inner.overflow = true;
                return;
            }
            let _ = inner.have.entry(past.id.log).or_default().insert(past.id.no.0);
            inner.jobs += 1;
            inner.pending.push(past);
        }
    }

    /// Brings everything that was appended to disk. For one thread at a time, which may block.
    ///
    /// # Errors
    /// If the disk takes nothing; everything is kept for the next try. `Overflow` for good, once something could not be kept.
    pub fn flush(&self) -> Result<(), HistoryError> {
        let (pending, mut names, mut len) = {
            let inner = self.read();
            if inner.overflow {
                return Err(HistoryError::Overflow);
            }
            (inner.pending.clone(), inner.names.clone(), inner.len)
        };
        if pending.is_empty() {
            return Ok(());
        }
        let start = len;
        let mut bytes = Vec::new();
        let mut spans = Vec::new();
        let mut done = 0;
        while done < pending.len() {
            let (block, count, logs) = block::encode(&pending[done..], &mut names, BLOCK_BYTES);
            spans.push(Span { offset: len, bytes: block.len() as u64, logs });
            len += block.len() as u64;
            bytes.extend_from_slice(&block);
            done += count;
        }
        file::append(&self.shared.file, &self.shared.path, start, &bytes)?;
        let mut inner = self.write();
        inner.pending.drain(..done);
        (inner.names, inner.len) = (names, len);
        spans.into_iter().for_each(|span| inner.add_span(span));
        Ok(())
    }

    /// What is kept of one job. May block.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn find(&self, id: &JobId) -> Result<Option<Past>, HistoryError> {
        let spans: Vec<Span> = {
            let inner = self.read();
            if !inner.have.get(&id.log).is_some_and(|have| have.contains(id.no.0)) {
                return Ok(None);
            }
            if let Some(past) = inner.pending.iter().find(|past| past.id == *id) {
                return Ok(Some(past.clone()));
            }
            let may_hold = |span: &&Span| {
                span.logs.iter().any(|(log, first, last)| *log == id.log && (*first..=*last).contains(&id.no.0))
            };
            inner.spans.iter().rev().filter(may_hold).cloned().collect()
        };
        for span in spans {
            if let Some(past) = self.load(&span)?.into_iter().find(|past| past.id == *id) {
                return Ok(Some(past));
            }
        }
        Ok(None)
    }

    /// Of the last `look_at` jobs those that `wanted` accepts, newest first: at most `limit` of them, and how many there are. May block.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn newest(
        &self,
        limit: usize,
        look_at: usize,
        wanted: impl Fn(&Past) -> bool,
    ) -> Result<(Vec<Past>, u64), HistoryError> {
        let (pending, spans) = {
            let inner = self.read();
            (inner.pending.clone(), inner.spans.clone())
        };
        let (mut found, mut matched, mut seen) = (Vec::new(), 0, 0);
        let mut take = |past: Vec<Past>| {
            for past in past.into_iter().rev().take(look_at - seen) {
                seen += 1;
                if wanted(&past) {
                    matched += 1;
                    if found.len() < limit {
                        found.push(past);
                    }
                }
            }
            seen < look_at
        };
        let mut more = take(pending);
        let mut spans = spans.iter().rev();
        while more && let Some(span) = spans.next() {
            more = take(self.load(span)?);
        }
        Ok((found, matched))
    }

    /// How much is kept.
    #[must_use]
    pub fn size(&self) -> Size {
        let inner = self.read();
        Size { jobs: inner.jobs, bytes: inner.len }
    }

    fn load(&self, span: &Span) -> Result<Vec<Past>, HistoryError> {
        let bytes = file::read(&self.shared.file, &self.shared.path, span.offset, span.bytes)?;
        let names = self.read().names.clone();
        let mut all = Vec::new();
        let mut blocks = Blocks::new(&bytes);
        while let Some(block) = blocks.next() {
            let read = block.and_then(|payload| names.decode(payload));
            let damaged = || HistoryError::Damaged { path: self.shared.path.clone(), offset: span.offset };
            all.extend(read.ok_or_else(damaged)?);
        }
        Ok(all)
    }

    // Every change under this lock leaves the state whole, so a poisoned one still guards whole data.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.shared.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.shared.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Small neighbours become one entry, so that many small blocks cost no more than few large ones.
    fn add_span(&mut self, span: Span) {
        match self.spans.last_mut() {
            Some(last) if last.bytes + span.bytes <= SPAN_BYTES => {
                last.bytes += span.bytes;
                for (log, first, end) in span.logs {
                    match last.logs.iter_mut().find(|(known, _, _)| *known == log) {
                        Some((_, low, high)) => (*low, *high) = ((*low).min(first), (*high).max(end)),
                        None => last.logs.push((log, first, end)),
                    }
                }
            }
            Some(_) | None => self.spans.push(span),
        }
    }

    /// A block that was found in the file.
    fn found(&mut self, offset: u64, bytes: u64, past: &[Past]) {
        let mut logs: Vec<(LogId, u64, u64)> = Vec::new();
        for Past { id, .. } in past {
            let _ = self.have.entry(id.log).or_default().insert(id.no.0);
            self.jobs += 1;
            block::widen(&mut logs, id);
        }
        self.add_span(Span { offset, bytes, logs });
        self.len = offset + bytes;
    }
}

/// A node as the file spells it.
type NodeIndex = u32;

const _: () = assert!(size_of::<NodeId>() == 32);
