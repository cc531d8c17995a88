//! A worker's directory: its lock, its name, the mark on its processes, and what a dead worker left.
//!
//! Invariants: whoever has a `Home` is alone in the directory; when it is open, nothing of an earlier worker in it runs any more.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Error;
use crate::exec::orphans::kill_orphans;

/// Directories tried by `open_free`.
const WORKERS_MAX: u32 = 1_000;
/// The variable that marks processes as this worker's.
const MARK: &str = "STARLING_WORKER";

/// An open directory. The lock is held as long as this lives.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    _lock: File,
    name: String,
    mark: String,
}

impl Home {
    /// Opens a directory, which is made where needed (0700), and kills what an earlier worker left running.
    ///
    /// # Errors
    /// `InUse` if another worker is there, else what the system says.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let make =
            |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create", path));
        make(dir)?;
        // Absolute, because jobs may run in other directories.
        let dir = std::path::absolute(dir).map_err(io_error("find", dir))?;
        let lock = lock(&dir)?;
        let mark = kept(&dir.join("mark"), || format!("{:032x}", rand::random::<u128>()))?;
        let name = kept(&dir.join("id"), || {
            let host = sysinfo::System::host_name().unwrap_or_else(|_| "worker".to_owned());
            format!("{host}-{:06x}", rand::random_range(0..0x0100_0000))
        })?;
        let home = Self { dir, _lock: lock, name, mark };
        let (variable, value) = home.mark();
        let killed = kill_orphans(&format!("{variable}={value}"));
        if !killed.is_empty() {
            tracing::warn!(processes = ?killed, "killed what an earlier worker in this directory left running");
        }
        // Nobody asks for the output of jobs that died with their worker.
        match fs::remove_dir_all(home.out()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("clear", &home.out())(error)),
            Ok(()) | Err(_) => make(&home.out())?,
        }
        Ok(home)
    }

    /// Opens the first directory `<base>/hwp-worker-K` that no other worker is in.
    ///
    /// # Errors
    /// As `open`; `InUse` of the last one if all are taken.
    pub fn open_free(base: &Path) -> Result<Self, Error> {
        let mut number = 1;
        loop {
            match Self::open(&base.join(format!("hwp-worker-{number}"))) {
                Err(Error::InUse { .. }) if number < WORKERS_MAX => number += 1,
                other => return other,
            }
        }
    }

    /// A name for the worker, chosen once and kept: the host's and six hexadecimal digits.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where running jobs write.
    pub(super) fn out(&self) -> PathBuf {
        self.dir.join("out")
    }

    /// The environment entry by which the next worker here finds what this one leaves.
    pub(super) fn mark(&self) -> (String, String) {
        (MARK.to_owned(), self.mark.clone())
    }
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let mut options = File::options();
    let open = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = open.map_err(io_error("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // The owner may be between locking and writing its pid: the refusal stands without it.
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(Error::InUse { dir: dir.to_owned(), pid });
        }
        Err(errno) => return Err(io_error("lock", &path)(errno.into())),
    }
    // Only a note for others; the lock holds without it.
    let _unwritten = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// The text of a file, written once.
fn kept(path: &Path, fresh: impl FnOnce() -> String) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("read", path)(error)),
        Ok(_) | Err(_) => {}
    }
    let text = fresh();
    fs::write(path, format!("{text}\n")).map_err(io_error("write", path))?;
    Ok(text)
}

pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}
