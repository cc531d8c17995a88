//! Reads what tasks wrote.
//!
//! Invariants: never more than `max` bytes in memory; a file that is not there is an empty one (a silent stream makes none).
//! Does not: follow; callers ask again from where they are.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// Which of a task's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The file of one stream, `prefix` being `Launch::out`.
pub fn path(prefix: &Path, stream: Stream) -> PathBuf {
    let mut name = OsString::from(prefix);
    name.push(match stream {
        Stream::Out => ".out",
        Stream::Err => ".err",
    });
    name.into()
}

/// At most `max` bytes from `offset` on, and the stream's present length. Beyond the end the bytes are empty.
///
/// Errors: what the system says, other than that there is no such file.
pub fn read(prefix: &Path, stream: Stream, offset: u64, max: usize) -> io::Result<(Bytes, u64)> {
    let file = match File::open(path(prefix, stream)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Bytes::new(), 0)),
        Err(error) => return Err(error),
    };
    let total = file.metadata()?.len();
    let left = usize::try_from(total.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; left.min(max)];
    let mut have = 0;
    while have < bytes.len() {
        match file.read_at(&mut bytes[have..], offset + have as u64) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(have);
    Ok((bytes.into(), total))
}
