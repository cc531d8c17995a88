//! Opening a directory of segments: verify every byte, cut an unfinished write, refuse anything else.
//!
//! Invariants: every record before a tear is kept; only the last segment is ever cut, and only where nothing behind the
//! bad place proves that it was durable once; what is handed out has been synced, also when the last owner had not.
//! Does not: repair damage, or interpret batches.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, HEADER_BYTES, Header, HeaderBytes};
use super::index::{At, Index};
use super::scan::{self, Behind, Frames, Step};
use super::segment;
use super::{Error, Record};

/// The unfinished end of the log, as found and cut when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The last segment.
    pub file: PathBuf,
    /// Where the whole records ended; the file was cut here.
    pub offset: u64,
    /// How many bytes were behind.
    pub bytes_cut: u64,
}

/// All records found at opening that no snapshot covers, in the order they were written, plus what was noticed.
///
/// Iterating reads the segments again, one buffer at a time, up to where they ended at opening; the store may be written
/// meanwhile. Ends after the first error.
#[derive(Debug)]
pub struct Recovery {
    /// The tail that was cut, if any. Zeros alone are not a tear: a killed writer leaves reserved space behind.
    pub torn: Option<TornTail>,
    /// Whether the last record is `Record::Clean` and nothing was cut behind it.
    pub clean: bool,
    /// How many records there are, those that a snapshot covers included.
    pub records: u64,
    files: std::vec::IntoIter<(PathBuf, Segment)>,
    reading: Option<(PathBuf, Frames)>,
}

/// An open segment. `len` is its verified length at opening.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<File>,
    pub(super) salt: u32,
    pub(super) len: u64,
}

/// What opening found.
#[derive(Debug)]
pub(super) struct Opened {
    /// The number of the first segment.
    pub(super) first: u32,
    pub(super) segments: Vec<Segment>,
    pub(super) index: Index,
    pub(super) recovery: Recovery,
}

#[derive(Debug, Default)]
struct Found {
    index: Index,
    records: u64,
    clean: bool,
    torn: Option<TornTail>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Inner,
    Last,
}

/// Opens and verifies all segments of a locked directory; makes the first one in an empty directory.
pub(super) fn open(dir: &Path, covered_below: u32) -> Result<Opened, Error> {
    let mut numbers = segment::list(dir, covered_below)?;
    if numbers.is_empty() {
        let first = segment::path(dir, segment::FIRST);
        segment::create(dir, segment::FIRST).map_err(|error| Error::io("create", first)(error.into_inner()))?;
        numbers.push(segment::FIRST);
    }
    let mut found = Found::default();
    let mut segments = Vec::with_capacity(numbers.len());
    for (place, number) in numbers.iter().enumerate() {
        let position = if place + 1 == numbers.len() { Position::Last } else { Position::Inner };
        segments.push(open_segment(dir, *number, position, &mut found)?);
    }
    let beyond = numbers.iter().zip(&segments).filter(|(number, _)| **number >= covered_below);
    let files: Vec<_> = beyond.map(|(number, segment)| (segment::path(dir, *number), segment.clone())).collect();
    let first = numbers.first().copied().unwrap_or(segment::FIRST);
    let Found { index, records, clean, torn } = found;
    let clean = clean && torn.is_none();
    let recovery = Recovery { torn, clean, records, files: files.into_iter(), reading: None };
    Ok(Opened { first, segments, index, recovery })
}

fn open_segment(dir: &Path, number: u32, position: Position, found: &mut Found) -> Result<Segment, Error> {
    let path = segment::path(dir, number);
    let file = File::options().read(true).write(true).open(&path).map_err(Error::io("open", &path))?;
    let end = file.metadata().map_err(Error::io("read the size of", &path))?.len();
    let header = match Header::decode(&segment::head(&file).map_err(Error::io("read", &path))?) {
        HeaderBytes::Good(header) if header.number == number => header,
        HeaderBytes::OtherVersion(version) if end > HEADER_BYTES as u64 => {
            return Err(Error::Version { file: path, found: version, supported: frame::VERSION });
        }
        HeaderBytes::Good(_) | HeaderBytes::OtherVersion(_) | HeaderBytes::Bad => {
            return without_header(dir, number, position, (&file, end), found);
        }
    };
    let good = scan_segment(&file, &path, number, (header.salt, end), found)?;
    if good < end {
        cut(&file, &path, position, (header.salt, good, end), found)?;
    }
    if position == Position::Last {
        // The last owner may have died between write and sync: its records are in the page cache only.
        file.sync_all().map_err(Error::io("sync", &path))?;
    }
    Ok(Segment { file: Arc::new(file), salt: header.salt, len: good })
}

/// Cuts what is behind `good`, if it never was durable.
fn cut(
    file: &File,
    path: &Path,
    position: Position,
    (salt, good, end): (u32, u64, u64),
    found: &mut Found,
) -> Result<(), Error> {
    // Space that the writer had reserved, and the usual end of a log whose owner was killed.
    let reserved = scan::is_zero(file, good, end).map_err(Error::io("read", path))?;
    let behind = match (position, reserved) {
        (Position::Last, true) => Behind::Unfinished,
        (Position::Last | Position::Inner, _) => {
            scan::behind(file, salt, good, end).map_err(Error::io("read", path))?
        }
    };
    let what = match (position, behind) {
        (Position::Inner, _) => Some("a bad record in a finished segment"),
        (Position::Last, Behind::LaterGroup) => Some("a bad record before good ones"),
        (Position::Last, Behind::Unknown) => Some("a bad record, and no telling what is behind it"),
        (Position::Last, Behind::Unfinished) => None,
    };
    if let Some(what) = what {
        return Err(Error::Corrupt { file: path.to_owned(), offset: good, what });
    }
    file.set_len(good).map_err(Error::io("cut the torn end of", path))?;
    if !reserved {
        let bytes_cut = end - good;
        found.torn = Some(TornTail { file: path.to_owned(), offset: good, bytes_cut });
    }
    Ok(())
}

/// A last segment that was being created has part of a header, or zeros; anything else is damage.
fn without_header(
    dir: &Path,
    number: u32,
    position: Position,
    (file, end): (&File, u64),
    found: &mut Found,
) -> Result<Segment, Error> {
    let path = segment::path(dir, number);
    let unfinished = end <= HEADER_BYTES as u64 || scan::is_zero(file, 0, end).map_err(Error::io("read", &path))?;
    if position == Position::Inner || !unfinished {
        return Err(Error::Corrupt { file: path, offset: 0, what: "the header is not that of this segment" });
    }
    let made = segment::create(dir, number);
    let (file, header) = made.map_err(|error| Error::io("create again", &path)(error.into_inner()))?;
    found.torn = Some(TornTail { file: path, offset: 0, bytes_cut: end });
    Ok(Segment { file: Arc::new(file), salt: header.salt, len: HEADER_BYTES as u64 })
}

/// Verifies and indexes all frames; returns where the good ones end.
fn scan_segment(
    file: &File,
    path: &Path,
    number: u32,
    (salt, end): (u32, u64),
    found: &mut Found,
) -> Result<u64, Error> {
    let reader = file.try_clone().map_err(Error::io("open", path))?;
    let mut frames = Frames::new(reader, salt, end);
    loop {
        match frames.next().map_err(Error::io("read", path))? {
            Step::End => return Ok(end),
            Step::Bad { offset } => return Ok(offset),
            Step::Frame { offset, prefix, payload } => {
                found.records += 1;
                found.clean = prefix.is_clean_marker();
                if let Some(batch) = frame::batch_head(prefix, payload) {
                    let (Ok(offset), Ok(len)) = (u32::try_from(offset), u32::try_from(prefix.len)) else {
                        let what = "a segment larger than this program writes";
                        return Err(Error::Corrupt { file: path.to_owned(), offset, what });
                    };
                    found.index.insert(batch, At { segment: number, offset, len });
                }
            }
        }
    }
}

impl Recovery {
    fn step(&mut self) -> Result<Option<Record>, Error> {
        loop {
            if let Some((path, frames)) = &mut self.reading {
                match frames.next().map_err(Error::io("read", &*path))? {
                    Step::Frame { prefix, payload, .. } => return Ok(Some(frame::decode(prefix, payload))),
                    Step::Bad { offset } => {
                        // It was good a moment ago, when the store was opened.
                        let what = "a record changed while it was being read";
                        return Err(Error::Corrupt { file: path.clone(), offset, what });
                    }
                    Step::End => {}
                }
            }
            let Some((path, segment)) = self.files.next() else {
                return Ok(None);
            };
            let file = segment.file.try_clone().map_err(Error::io("open", &path))?;
            self.reading = Some((path, Frames::new(file, segment.salt, segment.len)));
        }
    }
}

impl Iterator for Recovery {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.reading = None;
            self.files = Vec::new().into_iter();
        }
        next
    }
}
