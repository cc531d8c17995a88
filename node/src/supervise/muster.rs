//! The muster: what a starting daemon finds of the tasks of the one before.
//!
//! Invariants: a supervisor that answers is asked, and has by then done all that the old daemon had told it; of one that does not, the journal is read, after
//! everything that it had started was killed.
//! Does not: decide what becomes of the tasks (`Recovery::resume` does).

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use starling_core::machine::{Books, Fate, Survivor};
use tracing::{info, warn};

use super::frame::{self, Word};
use super::journal::{Book, Entry};
use super::spool::{Spool, uptime_ms};
use crate::output::Place;

/// How long a supervisor may take to say what it knows. Low: one on a loaded machine is killed with its tasks. High: a hung one delays the start.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A supervisor that lives, and what it said.
#[derive(Debug)]
pub(super) struct Living {
    pub(super) name: String,
    pub(super) stream: UnixStream,
    /// Read, and not yet understood.
    pub(super) rest: Vec<u8>,
    pub(super) book: Book,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    pub(super) living: Vec<Living>,
    /// Of supervisors that are gone.
    pub(super) left: Vec<(String, Book)>,
    books: Books,
}

/// Looks through the spool.
///
/// # Errors
/// If it cannot be read.
pub fn muster(spool: &Spool) -> io::Result<Found> {
    let books = spool.renew()?;
    let mut found = Found { living: Vec::new(), left: Vec::new(), books };
    for name in spool.names()? {
        match ask(spool, &name) {
            Ok(living) => found.living.push(living),
            Err(error) => {
                if error.kind() != io::ErrorKind::ConnectionRefused && error.kind() != io::ErrorKind::NotFound {
                    warn!(supervisor = name, %error, "a supervisor does not answer");
                }
                found.left.push((name.clone(), bury(spool, &name)?));
            }
        }
    }
    Ok(found)
}

/// What a supervisor left that is gone, or not to be trusted: nothing that it had started runs any more.
pub(super) fn bury(spool: &Spool, name: &str) -> io::Result<Book> {
    let path = spool.journal(name);
    let book = Book::read(&path)?;
    if book.0.values().all(|entry| entry.ended.is_some()) {
        return Ok(book);
    }
    let killed = spool.kill(name);
    if !killed.is_empty() {
        warn!(supervisor = name, processes = killed.len(), "stopped what a supervisor had left behind that is gone");
    }
    Book::read(&path)
}

fn ask(spool: &Spool, name: &str) -> io::Result<Living> {
    let mut stream = spool.connect(name)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let (mut rest, mut at, mut book) = (Vec::new(), 0, Book::default());
    let mut scratch = vec![0; 64 << 10];
    loop {
        match frame::take(&rest, &mut at).map_err(io::Error::other)? {
            Some(Word::CaughtUp) => break,
            Some(
                word @ (Word::Host { .. }
                | Word::Launched { .. }
                | Word::Group { .. }
                | Word::Port { .. }
                | Word::Ended(_)),
            ) => {
                book.note(&word);
            }
            None => match stream.read(&mut scratch) {
                Ok(0) => return Err(io::ErrorKind::ConnectionRefused.into()),
                Ok(read) => rest.extend_from_slice(&scratch[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            },
        }
    }
    rest.drain(..at);
    Ok(Living { name: name.to_owned(), stream, rest, book })
}

impl Default for Found {
    fn default() -> Self {
        Self { living: Vec::new(), left: Vec::new(), books: Books::Partial }
    }
}

impl Found {
    /// Whether nobody kept books here since the machine started.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.books == Books::Partial && self.living.is_empty()
    }

    /// How far what was found can be trusted.
    #[must_use]
    pub fn books(&self) -> Books {
        self.books
    }

    /// What the Machine must know.
    #[must_use]
    pub fn survivors(&self) -> Vec<Survivor> {
        let now_ms = uptime_ms();
        let living = self.living.iter().flat_map(|living| {
            of_book(&living.book, |entry| Fate::Running { ran_ms: now_ms.saturating_sub(entry.uptime_ms) })
        });
        let left = self.left.iter().flat_map(|(_, book)| of_book(book, |_| Fate::Gone));
        let survivors: Vec<Survivor> = living.chain(left).collect();
        if !survivors.is_empty() {
            let running = survivors.iter().filter(|survivor| matches!(survivor.fate, Fate::Running { .. })).count();
            info!(running, known = survivors.len(), "took up the tasks of the previous run of this node");
        }
        survivors
    }
}

fn of_book(book: &Book, unfinished: impl Fn(&Entry) -> Fate) -> Vec<Survivor> {
    let fate = |(place, entry): (&Place, &Entry)| {
        let fate = match &entry.ended {
            Some(ended) => Fate::Ended { outcome: ended.outcome.clone(), usage: ended.usage },
            None => unfinished(entry),
        };
        Survivor { grant: place.grant, task: place.task, fate }
    };
    book.0.iter().map(fate).collect()
}
