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

pub use super::capped::Capped;

/// Which of a task's output streams. A plain task has the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub enum Stream {
    /// Standard output; of a pair, the policy's.
    #[n(0)]
    Out,
    /// Standard error; of a pair, the policy's.
    #[n(1)]
    Err,
    /// Standard output of a pair's environment server.
    #[n(2)]
    EnvOut,
    /// Standard error of a pair's environment server.
    #[n(3)]
    EnvErr,
    /// Not a task's: what clients push to the whole job. Kept by its owner.
    #[n(4)]
    Pushed,
}

impl Stream {
    /// Every stream of a task.
    pub const ALL: [Self; 4] = [Self::Out, Self::Err, Self::EnvOut, Self::EnvErr];
    /// Those of a task without an environment server.
    pub const PLAIN: [Self; 2] = [Self::Out, Self::Err];
}

/// What one stream came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Length of its file in bytes, with the line about dropped bytes; 0 means no file.
    pub len: u64,
    /// Bytes that were not kept: over the cap, or not writable.
    pub dropped_bytes: u64,
}

/// One value for each stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams<T> {
    /// Of `Stream::Out`.
    pub out: T,
    /// Of `Stream::Err`.
    pub err: T,
    /// Of `Stream::EnvOut`.
    pub env_out: T,
    /// Of `Stream::EnvErr`.
    pub env_err: T,
    /// Of `Stream::Pushed`.
    pub pushed: T,
}

impl<T> Streams<T> {
    /// The value of one stream.
    pub fn of(&self, stream: Stream) -> &T {
        match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
            Stream::EnvOut => &self.env_out,
            Stream::EnvErr => &self.env_err,
            Stream::Pushed => &self.pushed,
        }
    }

    /// The value of one stream, to change it.
    pub fn of_mut(&mut self, stream: Stream) -> &mut T {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
            Stream::EnvOut => &mut self.env_out,
            Stream::EnvErr => &mut self.env_err,
            Stream::Pushed => &mut self.pushed,
        }
    }
}

/// The file of one stream, `prefix` being `Launch::out`.
pub fn path(prefix: &Path, stream: Stream) -> PathBuf {
    let suffix = match stream {
        Stream::Out => ".out",
        Stream::Err => ".err",
        Stream::EnvOut => ".env.out",
        Stream::EnvErr => ".env.err",
        Stream::Pushed => ".pushed",
    };
    with_suffix(prefix, suffix)
}

/// `prefix` with something behind it. Its last part has dots of its own, so this is no extension.
pub(super) fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(prefix);
    name.push(suffix);
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
