//! The file of history: opening, appending, reading.
//!
//! Invariants: blocks are whole and synced before they count; a torn end is cut; a file that is damaged before its end is kept aside, and its good part goes on.
//! Does not: know what is in a block.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use tracing::warn;

use super::block::{HEAD_BYTES, Head};
use super::{HistoryError, Inner};

const MAGIC: [u8; 8] = *b"STARHIST";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 12;
const BUFFER_BYTES: usize = 1 << 20;

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> HistoryError + use<'a> {
    move |source| HistoryError::Io { action, path: path.to_owned(), source }
}

/// Opens the file and reads all of it, or makes it.
pub(super) fn open(dir: &Path, path: &Path) -> Result<(File, Inner), HistoryError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create the directory", dir))?;
    let file = create(path)?;
    let end = file.metadata().map_err(failed("read the size of", path))?.len();
    if end < HEADER_BYTES as u64 {
        return begin(file, dir, path);
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(failed("read", path))?;
    let (magic, version) = header.split_at(MAGIC.len());
    let version = version.iter().rev().fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
    if magic == MAGIC && version != VERSION {
        return Err(HistoryError::Version { path: path.to_owned(), found: version, supported: VERSION });
    }
    let mut inner = Inner { len: HEADER_BYTES as u64, ..Inner::default() };
    if magic == MAGIC {
        scan(&file, path, end, &mut inner)?;
    }
    if inner.len == end {
        return Ok((file, inner));
    }
    if magic == MAGIC && is_torn(&file, inner.len, end).map_err(failed("read", path))? {
        warn!(file = %path.display(), offset = inner.len, bytes = end - inner.len, "history had a torn end; it was cut after the last whole block");
        file.set_len(inner.len).and_then(|()| file.sync_all()).map_err(failed("cut", path))?;
        return Ok((file, inner));
    }
    set_aside(file, dir, path, inner)
}

fn create(path: &Path) -> Result<File, HistoryError> {
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(failed("open", path))
}

/// An empty file, or one whose header is not whole.
fn begin(file: File, dir: &Path, path: &Path) -> Result<(File, Inner), HistoryError> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&VERSION.to_le_bytes());
    file.set_len(0).and_then(|()| file.write_all_at(&header, 0)).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))?;
    sync_dir(dir).map_err(failed("sync", dir))?;
    Ok((file, Inner { len: HEADER_BYTES as u64, ..Inner::default() }))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Takes in all whole blocks, one at a time.
fn scan(file: &File, path: &Path, end: u64, inner: &mut Inner) -> Result<(), HistoryError> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    reader.seek(SeekFrom::Start(inner.len)).map_err(failed("read", path))?;
    let mut payload = Vec::new();
    while end - inner.len >= HEAD_BYTES as u64 {
        let mut head = [0; HEAD_BYTES];
        reader.read_exact(&mut head).map_err(failed("read", path))?;
        let Some(head) = Head::read(&head).filter(|head| (HEAD_BYTES + head.len) as u64 <= end - inner.len) else {
            return Ok(());
        };
        payload.resize(head.len, 0);
        reader.read_exact(&mut payload).map_err(failed("read", path))?;
        if !head.matches(&payload) {
            return Ok(());
        }
        let Some(past) = inner.names.learn(&payload) else {
            return Ok(());
        };
        inner.found(inner.len, (HEAD_BYTES + head.len) as u64, &past);
    }
    Ok(())
}

/// Whether what lies behind `good` is one write that did not come to its end: a block that reaches beyond the file, or zeros.
fn is_torn(file: &File, good: u64, end: u64) -> io::Result<bool> {
    let mut head = vec![0; usize::try_from(end - good).unwrap_or(usize::MAX).min(HEAD_BYTES)];
    file.read_exact_at(&mut head, good)?;
    let reaches_end = Head::read(&head).is_some_and(|head| good + (HEAD_BYTES + head.len) as u64 >= end);
    Ok(head.len() < HEAD_BYTES || reaches_end || head.iter().all(|byte| *byte == 0))
}

/// Keeps the damaged file under another name and goes on with its good part.
fn set_aside(file: File, dir: &Path, path: &Path, inner: Inner) -> Result<(File, Inner), HistoryError> {
    let aside = (1..).map(|number| dir.join(format!("damaged-{number}"))).find(|aside| !aside.exists());
    let aside = aside.unwrap_or_else(|| dir.join("damaged"));
    let error = HistoryError::Damaged { path: aside.clone(), offset: inner.len };
    drop(file);
    fs::rename(path, &aside).map_err(failed("move aside", path))?;
    let mut good = File::open(&aside).map_err(failed("open", &aside))?.take(inner.len);
    let (mut file, _) = begin(create(path)?, dir, path)?;
    io::copy(&mut good, &mut file).and_then(|_| file.sync_all()).map_err(failed("write", path))?;
    warn!(%error, "history was damaged; its good part goes on");
    if inner.len < HEADER_BYTES as u64 { begin(file, dir, path) } else { Ok((file, inner)) }
}

/// Appends and syncs. What a failed try left behind is cut by the next.
pub(super) fn append(file: &File, path: &Path, at: u64, bytes: &[u8]) -> Result<(), HistoryError> {
    file.set_len(at).and_then(|()| file.write_all_at(bytes, at)).map_err(failed("write", path))?;
    file.sync_data().map_err(failed("sync", path))
}

/// Reads a part of the file.
pub(super) fn read(file: &File, path: &Path, offset: u64, bytes: u64) -> Result<Vec<u8>, HistoryError> {
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_exact_at(&mut buffer, offset).map_err(failed("read", path))?;
    Ok(buffer)
}
