//! The spool: the directory of the supervisors' sockets and journals.
//!
//! Invariants: only the node's own user can look inside (mode 0700); a name is given once. Sockets are bound and reached through the open directory, whose path
//! may be longer than a socket's.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use starling_core::machine::Books;

use super::MARK;
use crate::exec::orphans;

const DIR: &str = "spool";
/// Holds the machine's boot id of when the spool was last in use.
const BOOT: &str = "boot";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const JOURNAL: &str = ".journal";
const SOCKET: &str = ".sock";
const OWNER_ONLY: u32 = 0o600;

/// Why there is no spool. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[error("the spool {} cannot be used: {source}", path.display())]
pub struct SpoolError {
    path: PathBuf,
    source: io::Error,
}

/// The directory, opened.
#[derive(Debug)]
pub struct Spool {
    /// Absolute, so that marks mean the same to everybody.
    path: PathBuf,
    dir: File,
}

impl Spool {
    /// The spool of a data directory, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made or opened.
    pub fn open(data_dir: &Path) -> Result<Self, SpoolError> {
        let path = data_dir.join(DIR);
        let open = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
            let path = path.canonicalize()?;
            Ok(Self { dir: File::open(&path)?, path })
        };
        open().map_err(|source| SpoolError { path: path.clone(), source })
    }

    /// The spool at this path, as its supervisors are told of it.
    ///
    /// # Errors
    /// If it is not there.
    pub fn at(path: &Path) -> Result<Self, SpoolError> {
        let open = || Ok(Self { dir: File::open(path)?, path: path.to_owned() });
        open().map_err(|source| SpoolError { path: path.to_owned(), source })
    }

    /// Its absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where supervisors complain.
    pub(super) fn complaints(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(OWNER_ONLY).open(self.path.join("log"))
    }

    /// What marks the processes of a supervisor, and itself.
    pub(super) fn mark(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    pub(super) fn journal(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{JOURNAL}"))
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{SOCKET}"))
    }

    /// The socket's path as the kernel takes it, however long the directory's is.
    fn short(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}{SOCKET}", self.dir.as_raw_fd()))
    }

    /// A socket for a supervisor to come, and a connection to it that waits there already.
    pub(super) fn bind(&self, name: &str) -> io::Result<(UnixListener, UnixStream)> {
        let path = self.short(name);
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(OWNER_ONLY))?;
        Ok((listener, UnixStream::connect(&path)?))
    }

    /// A connection to a supervisor; an error if it is gone.
    pub(super) fn connect(&self, name: &str) -> io::Result<UnixStream> {
        UnixStream::connect(self.short(name))
    }

    /// Every name that a supervisor had or has here.
    pub(super) fn names(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            let file = entry?.file_name();
            let file = file.to_string_lossy();
            names.extend(file.strip_suffix(JOURNAL).or_else(|| file.strip_suffix(SOCKET)).map(str::to_owned));
        }
        Ok(names)
    }

    /// Forgets a supervisor that is gone.
    pub(super) fn remove(&self, name: &str) {
        for path in [self.socket(name), self.journal(name)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, file = %path.display(), "a file of the spool cannot be removed");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// How far the spool can be trusted: all the way if it was in use since the machine started. From now on it is.
    pub(super) fn renew(&self) -> io::Result<Books> {
        let boot = fs::read_to_string(BOOT_ID)?;
        let path = self.path.join(BOOT);
        let before = fs::read_to_string(&path).unwrap_or_default();
        if before == boot {
            return Ok(Books::Complete);
        }
        fs::write(&path, boot)?;
        Ok(Books::Partial)
    }

    /// Processes that bear the mark of this directory's supervisors, of which there is no journal: somebody wiped the directory while they ran. In the order of
    /// their ids.
    #[must_use]
    pub fn orphans(&self) -> Vec<u32> {
        let known = self.names().unwrap_or_default();
        let prefix = format!("{MARK}={}/", self.path.display());
        let marked = orphans::carriers(&prefix).into_iter();
        let mut found: Vec<u32> = marked.filter(|(_, name)| !known.contains(name)).map(|(pid, _)| pid).collect();
        found.sort_unstable();
        found
    }

    /// Kills a supervisor and whatever it had started.
    pub(super) fn kill(&self, name: &str) -> Vec<u32> {
        orphans::kill_orphans(&format!("{MARK}={}", self.mark(name)))
    }
}

/// The machine's age in milliseconds, sleep included.
pub(super) fn uptime_ms() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let (seconds, hundredths) =
        text.split_ascii_whitespace().next().and_then(|age| age.split_once('.')).unwrap_or_default();
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    number(seconds) * 1_000 + number(hundredths) * 10
}
