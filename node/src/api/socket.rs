//! The Unix socket for users of this machine.
//!
//! Invariants: only the node's own user may connect (mode 0600, before anybody can); a socket on which
//! somebody answers is never taken over; a stale one is.
//! Does not: accept.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// What the kernel allows for a socket's path, with room for the suffix used while binding.
const PATH_BYTES_MAX: usize = 103;
const OWNER_ONLY: u32 = 0o600;

/// Why there is no socket. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process answers there.
    #[error("another node answers at {}; is it running already?", .0.display())]
    InUse(PathBuf),
    /// The kernel takes shorter ones only.
    #[error("{} is too long for a socket ({PATH_BYTES_MAX} bytes at most); choose a shorter data directory", .0.display())]
    PathTooLong(PathBuf),
    /// The system refuses.
    #[error("cannot listen at {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A bound socket.
#[derive(Debug)]
pub(super) struct UnixSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl UnixSocket {
    /// Listens at `path`, replacing a file that a dead process left.
    ///
    /// # Errors
    /// If somebody answers there, the path is too long, or the system refuses.
    pub(super) fn bind(path: &Path) -> Result<Self, BindError> {
        if path.as_os_str().len() > PATH_BYTES_MAX {
            return Err(BindError::PathTooLong(path.to_owned()));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(BindError::InUse(path.to_owned()));
        }
        // Under another name until its mode is right: nobody else can slip in between.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        let bind = || -> io::Result<UnixListener> {
            match std::fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let listener = UnixListener::bind(&fresh)?;
            std::fs::set_permissions(&fresh, Permissions::from_mode(OWNER_ONLY))?;
            std::fs::rename(&fresh, path)?;
            Ok(listener)
        };
        let listener = bind().map_err(|source| BindError::Io { path: path.to_owned(), source })?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Gone already, or stale for the next start to replace.
        let _left = std::fs::remove_file(&self.path);
    }
}
