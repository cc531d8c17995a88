//! Snapshots on disk: one file each, written beside the log, so that the segments below need not be kept.
//!
//! Two kinds: `N.own`, which this node made of all that it holds, and `N.joined`, the shared part of another node's that it took over and that its own next one
//! contains. Invariants: a file has its name only once it is whole and synced; its checksum covers every byte; the two newest of one's own are kept, and
//! the log beyond the older of them, so that damage to one file loses nothing.
//! Does not: know what is in a snapshot (`starling_core::machine::snapshot`), or delete segments.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::Error;

const MAGIC: [u8; 8] = *b"STARSNAP";
const VERSION: u32 = 1;
/// magic 8, version 4, segment 4, length of the shared part 8, of the local part 8, hash 32.
const HEADER_BYTES: usize = 64;
const HASHED_HEADER_BYTES: usize = 32;
/// Written in pieces of this size, so that a large file does not take as much memory again.
const PIECE_BYTES: usize = 1 << 20;

/// The name of a snapshot: the hash of its shared part.
pub type Name = [u8; 32];

/// A snapshot as it was read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The first segment with records that it does not contain; 1 for another node's.
    pub segment: u32,
    /// What all nodes share.
    pub shared: Vec<u8>,
    /// What is this node's alone.
    pub local: Vec<u8>,
}

/// What a directory holds.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The newest of this node's own that is good.
    pub own: Option<Loaded>,
    /// Other nodes' that were joined since, in that order.
    pub joined: Vec<Loaded>,
    /// Files that are not what was written. They are left as they are.
    pub damaged: Vec<PathBuf>,
}

/// A file that can be served.
#[derive(Clone, Debug)]
struct Kept {
    number: u32,
    segment: u32,
    name: Name,
    shared_bytes: u64,
}

/// The directory. Cheap to clone, usable from any thread; one of them writes.
#[derive(Clone, Debug)]
pub struct Snapshots {
    dir: Arc<PathBuf>,
    /// How a snapshot is named.
    naming: fn(&[u8]) -> Name,
    /// One's own, oldest first. A leaf cache of what is on disk.
    kept: Arc<Mutex<Vec<Kept>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Own,
    Joined,
}

impl Kind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Joined => "joined",
        }
    }
}

impl Snapshots {
    /// Opens the directory, makes it where needed, and reads what is there.
    ///
    /// Errors: `Io`; `Version`.
    pub fn open(dir: &Path, naming: fn(&[u8]) -> Name) -> Result<(Self, Stored), Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("create the directory", dir))?;
        let (mut found, mut kept) = (Stored::default(), Vec::new());
        let mut newest = 0;
        for number in numbers(dir, Kind::Own)?.into_iter().rev() {
            let path = path(dir, number, Kind::Own);
            let Some(loaded) = load(&path)? else {
                found.damaged.push(path);
                continue;
            };
            let name = naming(&loaded.shared);
            kept.insert(0, Kept { number, segment: loaded.segment, name, shared_bytes: loaded.shared.len() as u64 });
            if found.own.is_none() {
                newest = number;
                found.own = Some(loaded);
            }
        }
        for number in numbers(dir, Kind::Joined)?.into_iter().filter(|number| *number > newest) {
            let path = path(dir, number, Kind::Joined);
            match load(&path)? {
                Some(loaded) => found.joined.push(loaded),
                None => found.damaged.push(path),
            }
        }
        Ok((Self { dir: Arc::new(dir.to_owned()), naming, kept: Arc::new(Mutex::new(kept)) }, found))
    }

    /// Writes one of one's own, which contains all records before `segment`. Returns the segment below which the log is not
    /// needed any more.
    ///
    /// Errors: `Io`; nothing changed.
    pub fn write(&self, segment: u32, shared: &[u8], local: &[u8]) -> Result<u32, Error> {
        let number = self.put(Kind::Own, segment, shared, local)?;
        let name = (self.naming)(shared);
        let needed = {
            let mut kept = self.kept();
            kept.push(Kept { number, segment, name, shared_bytes: shared.len() as u64 });
            let surplus = kept.len().saturating_sub(2);
            kept.drain(..surplus);
            kept.first().map(|older| (older.number, older.segment))
        };
        let Some((older, segment)) = needed.filter(|(older, _)| *older != number) else {
            return Ok(super::segment::FIRST);
        };
        for kind in [Kind::Own, Kind::Joined] {
            for number in numbers(&self.dir, kind)?.into_iter().filter(|number| *number < older) {
                let path = path(&self.dir, number, kind);
                fs::remove_file(&path).map_err(Error::io("delete", &path))?;
            }
        }
        Ok(segment)
    }

    /// Writes the shared part of another node's, so that it outlives a crash before one's own contains it.
    ///
    /// Errors: `Io`; nothing changed.
    pub fn write_joined(&self, shared: &[u8]) -> Result<(), Error> {
        self.put(Kind::Joined, super::segment::FIRST, shared, &[]).map(drop)
    }

    /// All records before this segment are in the newest of one's own.
    #[must_use]
    pub fn covered_below(&self) -> u32 {
        self.kept().last().map_or(super::segment::FIRST, |newest| newest.segment)
    }

    /// The newest of one's own: its name and the length of its shared part.
    #[must_use]
    pub fn newest(&self) -> Option<(Name, u64)> {
        self.kept().last().map(|kept| (kept.name, kept.shared_bytes))
    }

    /// A piece of the shared part of one of one's own; `None` if it is not there (any more), or the offset lies beyond it.
    ///
    /// Errors: `Io`.
    pub fn piece(&self, name: &Name, offset: u64, max: usize) -> Result<Option<Bytes>, Error> {
        let Some(kept) = self.kept().iter().find(|kept| kept.name == *name).cloned() else {
            return Ok(None);
        };
        let left = kept.shared_bytes.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(max);
        if len == 0 {
            return Ok(None);
        }
        let path = path(&self.dir, kept.number, Kind::Own);
        let mut bytes = vec![0; len];
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, HEADER_BYTES as u64 + offset));
        match read {
            Ok(()) => Ok(Some(Bytes::from(bytes))),
            // A newer one took its place a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    fn put(&self, kind: Kind, segment: u32, shared: &[u8], local: &[u8]) -> Result<u32, Error> {
        let taken = numbers(&self.dir, Kind::Own)?.into_iter().chain(numbers(&self.dir, Kind::Joined)?);
        let number = taken.max().unwrap_or(0) + 1;
        let path = path(&self.dir, number, kind);
        let draft = self.dir.join("draft");
        let written = fill(&draft, segment, shared, local)
            .and_then(|()| fs::rename(&draft, &path))
            .and_then(|()| super::segment::sync_dir(&self.dir));
        if written.is_err() {
            // What stays behind has no name that counts.
            let _ = fs::remove_file(&draft);
        }
        written.map_err(Error::io("write", &path))?;
        Ok(number)
    }

    // Nothing panics between two halves of a change under this lock.
    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Files of a directory that somebody else may be writing: one's own and other nodes', each oldest first. None where there is no directory.
///
/// Errors: `Io`.
pub fn files(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
    let of = |kind| match numbers(dir, kind) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => Ok(other?.into_iter().map(|number| path(dir, number, kind)).collect()),
    };
    Ok((of(Kind::Own)?, of(Kind::Joined)?))
}

fn path(dir: &Path, number: u32, kind: Kind) -> PathBuf {
    dir.join(format!("{number:08}.{}", kind.suffix()))
}

/// Numbers of the files of one kind, ascending.
fn numbers(dir: &Path, kind: Kind) -> Result<Vec<u32>, Error> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        let Some((digits, suffix)) = name.to_str().and_then(|name| name.split_once('.')) else {
            continue;
        };
        if suffix == kind.suffix() && digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            numbers.extend(digits.parse::<u32>());
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn header(segment: u32, shared: &[u8], local: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&segment.to_le_bytes());
    header[16..24].copy_from_slice(&(shared.len() as u64).to_le_bytes());
    header[24..32].copy_from_slice(&(local.len() as u64).to_le_bytes());
    let hash = hash_of(&header[..HASHED_HEADER_BYTES], shared, local);
    header[HASHED_HEADER_BYTES..].copy_from_slice(&hash);
    header
}

fn hash_of(header: &[u8], shared: &[u8], local: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(shared).update(local);
    *hasher.finalize().as_bytes()
}

fn fill(draft: &Path, segment: u32, shared: &[u8], local: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
    file.write_all(&header(segment, shared, local))?;
    for piece in shared.chunks(PIECE_BYTES).chain(local.chunks(PIECE_BYTES)) {
        file.write_all(piece)?;
    }
    file.sync_all()
}

/// Reads and checks a file; `None` if it is not what was written.
///
/// Errors: `Io`; `Version`.
pub fn load(path: &Path) -> Result<Option<Loaded>, Error> {
    let mut bytes = fs::read(path).map_err(Error::io("read", path))?;
    if bytes.len() < HEADER_BYTES || bytes[..8] != MAGIC {
        return Ok(None);
    }
    let u32_at = |at: usize| bytes[at..at + 4].iter().rev().fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
    let u64_at = |at: usize| bytes[at..at + 8].iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    let (version, segment, shared, local) = (u32_at(8), u32_at(12), u64_at(16), u64_at(24));
    if version != VERSION {
        return Err(Error::Version { file: path.to_owned(), found: version, supported: VERSION });
    }
    let body = (bytes.len() - HEADER_BYTES) as u64;
    let Some(shared) = usize::try_from(shared).ok().filter(|_| shared.checked_add(local) == Some(body)) else {
        return Ok(None);
    };
    let (head, body) = bytes.split_at(HEADER_BYTES);
    let (first, second) = body.split_at(shared);
    if hash_of(&head[..HASHED_HEADER_BYTES], first, second) != head[HASHED_HEADER_BYTES..] {
        return Ok(None);
    }
    let local = bytes.split_off(HEADER_BYTES + shared);
    bytes.drain(..HEADER_BYTES);
    Ok(Some(Loaded { segment, shared: bytes, local }))
}
