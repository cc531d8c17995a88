//! Looking at a node's log on disk without taking it over, whether its node runs or not.
//!
//! Invariants: nothing is locked or changed; memory is bounded by one buffer of the largest frame (and one segment, where its end is bad); after a fault in
//! one segment the next one is looked at.
//! Does not: know what is synced: the last records of a running node may not be yet.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::frame::{self, HEADER_BYTES, Header, HeaderBytes};
use super::scan::{self, Behind, Frames, Step};
use super::{Error, Record, segment};

/// A record and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The number of its segment, see [`Look::path`].
    pub segment: u32,
    /// Where its frame begins.
    pub offset: u64,
    /// What it says.
    pub record: Record,
}

/// All records of a directory, in the order they were written.
#[derive(Debug)]
pub struct Look {
    dir: PathBuf,
    numbers: Vec<u32>,
    /// The first number of each hole in them, yet to be told.
    missing: Vec<u32>,
    /// Index of the next segment to open.
    next: usize,
    reading: Option<Reading>,
    /// Where the whole records of the last segment end, if an unfinished write follows.
    unfinished: Option<(PathBuf, u64)>,
}

#[derive(Debug)]
struct Reading {
    number: u32,
    end: u64,
    salt: u32,
    file: File,
    frames: Frames,
}

impl Look {
    /// Lists the segments of `dir`.
    ///
    /// Errors: `Io`.
    pub fn at(dir: &Path) -> Result<Self, Error> {
        let numbers = segment::numbers(dir)?;
        let holes = numbers.windows(2).filter(|pair| pair[1] > pair[0] + 1);
        let missing = holes.map(|pair| pair[0] + 1).rev().collect();
        Ok(Self { dir: dir.to_owned(), numbers, missing, next: 0, reading: None, unfinished: None })
    }

    /// The number of the first segment, if there is one.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.numbers.first().copied()
    }

    /// The file of a segment.
    #[must_use]
    pub fn path(&self, number: u32) -> PathBuf {
        segment::path(&self.dir, number)
    }

    /// Once all was read: where an unfinished write at the very end begins. The node cuts it when it starts; a running one is just writing it.
    #[must_use]
    pub fn unfinished(&self) -> Option<&(PathBuf, u64)> {
        self.unfinished.as_ref()
    }

    fn is_last(&self, number: u32) -> bool {
        self.numbers.last() == Some(&number)
    }

    /// The next record; `None` at the end. An error belongs to one segment, and the next call goes on behind it.
    ///
    /// Errors: `Corrupt`, `Missing`, `Version`, `Io`.
    pub fn next_record(&mut self) -> Result<Option<Looked>, Error> {
        if let Some(number) = self.missing.pop() {
            return Err(Error::Missing { file: self.path(number) });
        }
        loop {
            if self.reading.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some(reading) = &mut self.reading else {
                continue;
            };
            let number = reading.number;
            match reading.frames.next() {
                Ok(Step::Frame { offset, prefix, payload }) => {
                    return Ok(Some(Looked { segment: number, offset, record: frame::decode(prefix, payload) }));
                }
                Ok(Step::End) => self.reading = None,
                Ok(Step::Bad { offset }) => self.bad(offset)?,
                Err(error) => {
                    self.reading = None;
                    return Err(Error::io("read", segment::path(&self.dir, number))(error));
                }
            }
        }
    }

    /// False when there are no more.
    fn open_next(&mut self) -> Result<bool, Error> {
        let Some(number) = self.numbers.get(self.next).copied() else {
            return Ok(false);
        };
        self.next += 1;
        let path = self.path(number);
        let file = match File::open(&path) {
            Ok(file) => file,
            // The node runs, and a snapshot took the place of its oldest segments since they were listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_last(number) => return Ok(true),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let end = file.metadata().map_err(Error::io("read the size of", &path))?.len();
        let head = segment::head(&file).map_err(Error::io("read", &path))?;
        match Header::decode(&head) {
            HeaderBytes::Good(header) if header.number == number => {
                let frames = Frames::new(file.try_clone().map_err(Error::io("open", &path))?, header.salt, end);
                self.reading = Some(Reading { number, end, salt: header.salt, file, frames });
                Ok(true)
            }
            HeaderBytes::OtherVersion(version) if end > HEADER_BYTES as u64 => {
                Err(Error::Version { file: path, found: version, supported: frame::VERSION })
            }
            HeaderBytes::Good(_) | HeaderBytes::OtherVersion(_) | HeaderBytes::Bad => {
                let unfinished =
                    end <= HEADER_BYTES as u64 || scan::is_zero(&file, 0, end).map_err(Error::io("read", &path))?;
                if !self.is_last(number) || !unfinished {
                    let what = "the header is not that of this segment";
                    return Err(Error::Corrupt { file: path, offset: 0, what });
                }
                self.unfinished = Some((path, 0));
                Ok(true)
            }
        }
    }

    /// A frame that is none: the end of an unfinished write, reserved space, or damage.
    fn bad(&mut self, offset: u64) -> Result<(), Error> {
        let Some(Reading { number, end, salt, file, .. }) = self.reading.take() else {
            return Ok(());
        };
        let path = self.path(number);
        let read = |error| Error::io("read", &path)(error);
        let what = if !self.is_last(number) {
            "a bad record in a finished segment"
        } else if scan::is_zero(&file, offset, end).map_err(read)? {
            return Ok(());
        } else {
            match scan::behind(&file, salt, offset, end).map_err(read)? {
                Behind::LaterGroup => "a bad record before good ones",
                Behind::Unknown => "a bad record, and no telling what is behind it",
                Behind::Unfinished => {
                    self.unfinished = Some((path, offset));
                    return Ok(());
                }
            }
        };
        Err(Error::Corrupt { file: path, offset, what })
    }
}
