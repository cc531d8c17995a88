//! A supervisor's journal: what it started and how that ended, until the daemon's log has it.
//!
//! Invariants: the file holds whole frames and at most one torn one at its end; what the daemon has is forgotten, and the file is emptied with the last of it.
//! A process's death loses nothing that was written; a machine's may, and then the tasks are gone, too: so nothing is synced.
//! Does not: know the daemon.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use starling_core::ids::GrantId;
use starling_core::lattice::IntervalSet;

use super::frame::{self, Ended, PROTOCOL, Word};
use crate::output::Place;

/// A file larger than this is written anew when little of it still counts.
const WORTH_REWRITING: u64 = 256 << 10;
/// How much larger than what counts it may be.
const SPARSE: u64 = 4;

/// What is written of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// The machine's age at the start, in milliseconds.
    pub(super) uptime_ms: u64,
    /// Its process groups.
    pub(super) groups: Vec<u32>,
    /// Where its environment listens.
    pub(super) port: Option<(String, u16)>,
    pub(super) ended: Option<Box<Ended>>,
}

/// What is written of all tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Book(pub(super) BTreeMap<Place, Entry>);

impl Book {
    pub(super) fn note(&mut self, word: &Word) {
        match word {
            Word::Host { .. } | Word::CaughtUp => {}
            Word::Launched { place, uptime_ms } => {
                self.0.insert(*place, Entry { uptime_ms: *uptime_ms, ..Entry::default() });
            }
            Word::Group { place, pid } => {
                if let Some(entry) = self.0.get_mut(place) {
                    entry.groups.push(*pid);
                }
            }
            Word::Port { place, host, port } => {
                if let Some(entry) = self.0.get_mut(place) {
                    entry.port = Some((host.clone(), *port));
                }
            }
            Word::Ended(ended) => {
                if let Some(entry) = self.0.get_mut(&ended.place) {
                    entry.ended = Some(ended.clone());
                }
            }
        }
    }

    pub(super) fn forget(&mut self, grant: &GrantId, tasks: &IntervalSet) {
        let first = Place { grant: *grant, task: 0 };
        let last = Place { grant: *grant, task: u32::MAX };
        let told = self.0.range(first..=last).map(|(place, _)| *place).filter(|place| tasks.contains(place.task));
        for place in told.collect::<Vec<_>>() {
            self.0.remove(&place);
        }
    }

    /// All of it as frames, with the opening.
    pub(super) fn frames(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, &Word::Host { protocol: PROTOCOL, pid: std::process::id() });
        for (place, entry) in &self.0 {
            let place = *place;
            frame::put(&mut bytes, &Word::Launched { place, uptime_ms: entry.uptime_ms });
            for pid in &entry.groups {
                frame::put(&mut bytes, &Word::Group { place, pid: *pid });
            }
            if let Some((host, port)) = &entry.port {
                frame::put(&mut bytes, &Word::Port { place, host: host.clone(), port: *port });
            }
            if let Some(ended) = &entry.ended {
                frame::put(&mut bytes, &Word::Ended(ended.clone()));
            }
        }
        bytes
    }

    /// What a supervisor that is gone left. Ends at the first bytes that are no frame.
    ///
    /// Errors: what the system says, other than that there is no such file.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let (mut book, mut at) = (Self::default(), 0);
        while let Ok(Some(word)) = frame::take(&bytes, &mut at) {
            book.note(&word);
        }
        Ok(book)
    }
}

/// The journal of a supervisor that lives.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Whole frames in the file, in bytes.
    len: u64,
    /// Not written yet.
    waiting: Vec<u8>,
    book: Book,
}

impl Journal {
    /// Begins one.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
        let book = Book::default();
        Ok(Self { waiting: book.frames(), path, file, len: 0, book })
    }

    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    /// Notes a word; `write` brings it to the file.
    pub(super) fn note(&mut self, word: &Word) {
        self.book.note(word);
        frame::put(&mut self.waiting, word);
    }

    /// Whether something was noted and not written.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes what was noted. What the disk refuses waits for the next time, in whole frames.
    pub(super) fn write(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.file.write_all_at(&self.waiting, self.len)?;
        self.len += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Forgets what the daemon's log has.
    pub(super) fn forget(&mut self, grant: &GrantId, tasks: &IntervalSet) -> io::Result<()> {
        self.book.forget(grant, tasks);
        if self.book.0.is_empty() {
            self.file.set_len(0)?;
            self.len = 0;
            // All that is left to say is who it is.
            self.waiting = self.book.frames();
            return Ok(());
        }
        if self.len < WORTH_REWRITING {
            return Ok(());
        }
        let frames = self.book.frames();
        if frames.len() as u64 * SPARSE > self.len {
            return Ok(());
        }
        self.rewrite(&frames)
    }

    /// Puts a fresh file in the place of the old one.
    fn rewrite(&mut self, frames: &[u8]) -> io::Result<()> {
        let fresh = self.path.with_extension("fresh");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        file.write_all(frames)?;
        fs::rename(&fresh, &self.path)?;
        self.file = file;
        self.len = frames.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}
