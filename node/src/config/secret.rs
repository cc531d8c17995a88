//! The cluster's secret: 32 bytes in a file that only its owner may read, as 64 hex digits.
//!
//! Invariants: a secret file that others may read is refused; nothing prints the secret but `cluster init`, once.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What nodes without a secret share instead: a hash of the rendezvous directory's path. It protects nothing, so such nodes stay on loopback; it keeps clusters
/// of different users and directories on one host apart.
pub fn open(rendezvous: &Path) -> [u8; 32] {
    let path = fs::canonicalize(rendezvous).unwrap_or_else(|_| rendezvous.to_owned());
    blake3::derive_key("starling 2026 open cluster v1", path.as_os_str().as_encoded_bytes())
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Named, but not there.
    #[error("cannot read the cluster secret {path}: {source}; `starling cluster init` makes one")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Readable by others.
    #[error("the cluster secret {0} can be read by others; run: chmod 600 {0}")]
    Open(PathBuf),
    /// Not 64 hex digits.
    #[error("the cluster secret {0} does not hold 64 hex digits; copy the file again from a member")]
    Malformed(PathBuf),
    /// Exists already.
    #[error("{0} exists already; with --force it is replaced, and nodes that hold the old secret are cut off")]
    Exists(PathBuf),
    /// Cannot be written.
    #[error("cannot write the cluster secret {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads a secret.
///
/// # Errors
/// If the file is missing, open to others, or malformed.
pub fn read(path: &Path) -> Result<[u8; 32], SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(SecretError::Open(path.to_owned()));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    parse_hex(text.trim()).ok_or_else(|| SecretError::Malformed(path.to_owned()))
}

/// Whether an existing secret may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and that is an error.
    Keep,
    /// It is overwritten.
    Replace,
}

/// Writes a secret, mode 0600.
///
/// # Errors
/// If one exists and is to be kept, or the file cannot be written.
pub fn write(path: &Path, secret: &[u8; 32], existing: Existing) -> Result<(), SecretError> {
    let failed = |source| SecretError::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    if existing == Existing::Replace && path.exists() {
        fs::remove_file(path).map_err(failed)?;
    }
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => SecretError::Exists(path.to_owned()),
        _ => failed(source),
    })?;
    writeln!(file, "{}", to_hex(secret)).and_then(|()| file.sync_all()).map_err(failed)
}

/// 64 lower-case hex digits.
pub fn to_hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 64 hex digits back to bytes.
pub fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_the_file_and_refuses_company() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.secret");
        write(&path, &[0xab; 32], Existing::Keep).unwrap();
        assert_eq!(read(&path).unwrap(), [0xab; 32]);
        assert!(matches!(write(&path, &[1; 32], Existing::Keep), Err(SecretError::Exists(_))));
        write(&path, &[1; 32], Existing::Replace).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read(&path), Err(SecretError::Open(_))));
    }
}
