//! Segment files on disk: names, creation, the lock of the directory, and the syncs that make names durable.
//!
//! Invariants: files are 0600 and the directory 0700; a segment's header and its name are synced before a record goes in.
//! Does not: know frames beyond the header, or decide when to rotate.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::Error;
use super::frame::{HEADER_BYTES, Header};

/// Number of a directory's first segment.
pub(super) const FIRST: u32 = 1;

/// Held for as long as the store is open. The kernel drops the lock with the process, however it dies.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

/// Creates the directory where needed (0700) and takes its lock.
pub(super) fn lock(dir: &Path) -> Result<DirLock, Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("create the directory", dir))?;
    let path = dir.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // The owner may be between locking and writing its pid: the refusal stands without it.
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(Error::InUse { dir: dir.to_owned(), pid });
        }
        Err(errno) => return Err(Error::io("lock", &path)(errno.into())),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = written {
        // A full disk: the lock holds all the same, only its note for others is missing.
        tracing::debug!(%error, path = %path.display(), "no pid in the lock file");
    }
    Ok(DirLock { _file: file })
}

pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.log"))
}

/// Numbers of the segments in `dir`, ascending. Files with other names are left alone.
pub(super) fn numbers(dir: &Path) -> Result<Vec<u32>, Error> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        let Some(digits) = name.to_str().and_then(|name| name.strip_suffix(".log")) else {
            continue;
        };
        if digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            numbers.extend(digits.parse::<u32>());
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Numbers of the segments in `dir`, ascending and without holes; those before `covered_below` may be missing.
pub(super) fn list(dir: &Path, covered_below: u32) -> Result<Vec<u32>, Error> {
    let numbers = numbers(dir)?;
    let first = numbers.first().copied().unwrap_or(FIRST);
    if first > covered_below || (numbers.is_empty() && covered_below > FIRST) {
        return Err(Error::Missing { file: path(dir, covered_below) });
    }
    for pair in numbers.windows(2) {
        if pair[1] != pair[0] + 1 {
            return Err(Error::Missing { file: path(dir, pair[0] + 1) });
        }
    }
    Ok(numbers)
}

/// A failed creation, told apart because a failed sync must not be tried again.
#[derive(Debug)]
pub(super) enum CreateError {
    Write(io::Error),
    Sync(io::Error),
}

impl CreateError {
    pub(super) fn into_inner(self) -> io::Error {
        match self {
            Self::Write(error) | Self::Sync(error) => error,
        }
    }
}

/// Makes segment `number` with a fresh salt, over whatever has its name, and syncs file and directory.
pub(super) fn create(dir: &Path, number: u32) -> Result<(File, Header), CreateError> {
    let path = path(dir, number);
    let made = fill(dir, &path, number);
    if made.is_err() {
        // Best effort: what stays behind is shorter than a header, which recovery takes for a torn one.
        let _ = fs::remove_file(&path);
    }
    made
}

fn fill(dir: &Path, path: &Path, number: u32) -> Result<(File, Header), CreateError> {
    let mut salt = [0; 4];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut salt)).map_err(CreateError::Write)?;
    let header = Header { number, salt: u32::from_le_bytes(salt) };
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(CreateError::Write)?;
    file.write_all_at(&header.encode(), 0).map_err(CreateError::Write)?;
    file.sync_all().map_err(CreateError::Sync)?;
    sync_dir(dir).map_err(CreateError::Sync)?;
    Ok((file, header))
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The first bytes of a segment, fewer than a header when the file is shorter.
pub(super) fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER_BYTES];
    let mut have = 0;
    while have < bytes.len() {
        match file.read_at(&mut bytes[have..], have as u64)? {
            0 => break,
            read => have += read,
        }
    }
    bytes.truncate(have);
    Ok(bytes)
}
