//! The results of jobs that have ended, kept until the server has acknowledged them.
//!
//! Invariants: a result is on disk before it is handed out (in memory when the disk refuses); at most `COUNT_MAX` results and `BYTES_MAX` bytes are kept, the
//! oldest give way; files are whole or absent, however the worker dies.
//! Does not: send.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prost::Message as _;
use starling_proto::hwp::agent_message::Payload;
use starling_proto::hwp::{AgentMessage, LogEntry, StreamedResult};
use tokio::sync::watch;

use super::Error;
use super::home::io_error;

const COUNT_MAX: usize = 1_000;
const BYTES_MAX: usize = 64 << 20;
const SUFFIX: &str = "result";

/// A result, and the line of log that belongs right before it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kept {
    pub(super) result: StreamedResult,
    pub(super) note: Option<String>,
}

impl Kept {
    /// As messages, in the order in which they are sent; this is also what a file holds, each with its length before it.
    pub(super) fn messages(self) -> Vec<AgentMessage> {
        let job_id = self.result.job_id.clone();
        let note = self.note.map(|data| Payload::LogEntry(LogEntry { job_id, data }));
        let payloads = note.into_iter().chain([Payload::JobResult(self.result)]);
        payloads.map(|payload| AgentMessage { payload: Some(payload) }).collect()
    }

    /// `None` if the bytes are not what `messages` gives.
    fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut note = None;
        while !bytes.is_empty() {
            match AgentMessage::decode_length_delimited(&mut bytes).ok()?.payload? {
                Payload::LogEntry(entry) => note = Some(entry.data),
                Payload::JobResult(result) => return Some(Self { result, note }),
                Payload::JobAccepted(_) => return None,
            }
        }
        None
    }
}

#[derive(Debug)]
pub(super) struct Results {
    dir: PathBuf,
    state: Mutex<State>,
    /// Counts what `ready` may show.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    kept: BTreeMap<u64, Entry>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    job_id: String,
    bytes: usize,
    stage: Stage,
    /// What the disk did not take.
    memory: Option<Kept>,
}

/// Whether a result may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Lines of its job are still being sent.
    Held,
    Ready,
}

impl Results {
    /// What an earlier worker in this directory kept is ready.
    ///
    /// # Errors
    /// If the directory cannot be made or read. A file that does not hold a result is removed, with a warning.
    pub(super) fn open(home: &Path) -> Result<Self, Error> {
        let dir = home.join("results");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(io_error("create", &dir))?;
        let mut state = State::default();
        for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
            let path = entry.map_err(io_error("list", &dir))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
            let no = stem.filter(|_| path.extension().is_some_and(|end| end == SUFFIX));
            let bytes = fs::read(&path).map_err(io_error("read", &path))?;
            let Some((no, kept)) = no.zip(Kept::read(&bytes)) else {
                tracing::warn!(path = %path.display(), "not a whole result, removed");
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
                continue;
            };
            state.next = state.next.max(no + 1);
            state.bytes += bytes.len();
            let entry = Entry { job_id: kept.result.job_id, bytes: bytes.len(), stage: Stage::Ready, memory: None };
            state.kept.insert(no, entry);
        }
        Ok(Self { dir, state: Mutex::new(state), changed: watch::Sender::new(0) })
    }

    /// Keeps a result, which is handed out after `release` of the number returned. Blocks for the disk.
    pub(super) fn put(&self, kept: Kept) -> u64 {
        let job_id = kept.result.job_id.clone();
        let bytes: Vec<u8> =
            kept.clone().messages().iter().flat_map(AgentMessage::encode_length_delimited_to_vec).collect();
        let mut state = self.locked();
        let no = state.next;
        state.next += 1;
        drop(state);
        let memory = match write(&self.path(no), &bytes) {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%error, job = job_id, "a result cannot be written and is kept in memory only");
                Some(kept)
            }
        };
        let mut state = self.locked();
        state.bytes += bytes.len();
        state.kept.insert(no, Entry { job_id, bytes: bytes.len(), stage: Stage::Held, memory });
        while state.kept.len() > COUNT_MAX || state.bytes > BYTES_MAX {
            let Some((oldest, entry)) = state.kept.pop_first() else { break };
            state.bytes -= entry.bytes;
            tracing::warn!(job = entry.job_id, "too many results wait to be acknowledged, the oldest is dropped");
            self.unlink(oldest);
        }
        no
    }

    /// From now on the result may be sent.
    pub(super) fn release(&self, no: u64) {
        if let Some(entry) = self.locked().kept.get_mut(&no) {
            entry.stage = Stage::Ready;
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// The server has the result, or does not want it. False if there was none.
    pub(super) fn forget_job(&self, job_id: &str) -> bool {
        let state = self.locked();
        let of_job: Vec<u64> =
            state.kept.iter().filter(|(_, entry)| entry.job_id == job_id).map(|(no, _)| *no).collect();
        drop(state);
        of_job.iter().for_each(|no| self.forget(*no));
        !of_job.is_empty()
    }

    /// As `forget_job`, for one result.
    pub(super) fn forget(&self, no: u64) {
        let mut state = self.locked();
        if let Some(entry) = state.kept.remove(&no) {
            state.bytes -= entry.bytes;
            self.unlink(no);
        }
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    /// The results that may be sent, the oldest first.
    pub(super) fn ready(&self) -> Vec<u64> {
        self.locked().kept.iter().filter(|(_, entry)| entry.stage == Stage::Ready).map(|(no, _)| *no).collect()
    }

    /// One result; `None` if it is gone. Blocks for the disk.
    pub(super) fn load(&self, no: u64) -> Option<Kept> {
        let state = self.locked();
        if let Some(kept) = &state.kept.get(&no)?.memory {
            return Some(kept.clone());
        }
        drop(state);
        match fs::read(self.path(no)) {
            Ok(bytes) => Kept::read(&bytes),
            // Dropped since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, "a kept result cannot be read");
                None
            }
        }
    }

    /// Changes when `ready` may have more, or less, to show.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn path(&self, no: u64) -> PathBuf {
        self.dir.join(format!("{no:012}.{SUFFIX}"))
    }

    fn unlink(&self, no: u64) {
        match fs::remove_file(self.path(no)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "a result that nobody wants any more cannot be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }

    // No critical section leaves the table in between.
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(job_id: &str, note: Option<&str>, bytes: usize) -> Kept {
        let result = StreamedResult {
            job_id: job_id.to_owned(),
            exit_code: 3,
            compressed_logs: vec![7; bytes].into(),
            ..StreamedResult::default()
        };
        Kept { result, note: note.map(str::to_owned) }
    }

    #[test]
    fn results_survive_the_process_and_are_forgotten_by_job() {
        let dir = tempfile::tempdir().unwrap();
        let results = Results::open(dir.path()).unwrap();
        let (a, b) = (kept("a", None, 10), kept("b", Some("[starling: signal 9]"), 0));
        let (first, second) = (results.put(a.clone()), results.put(b.clone()));
        assert_eq!(results.ready(), [0_u64; 0], "nothing was released");
        results.release(second);
        assert_eq!(results.ready(), [second]);
        drop(results);
        let results = Results::open(dir.path()).unwrap();
        assert_eq!(results.ready(), [first, second]);
        assert_eq!((results.load(first), results.load(second)), (Some(a), Some(b)));
        assert!(results.forget_job("a") && !results.forget_job("a"));
        assert_eq!(Results::open(dir.path()).unwrap().ready(), [second]);
        assert_eq!(results.put(kept("c", None, 0)), second + 1, "numbers are not used twice");
    }

    #[test]
    fn the_oldest_give_way_and_rubbish_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let results = Results::open(dir.path()).unwrap();
        let numbers: Vec<u64> = (0..4).map(|at| results.put(kept(&at.to_string(), None, BYTES_MAX / 3))).collect();
        assert_eq!(results.load(numbers[0]), None);
        assert_eq!(results.load(numbers[1]), None);
        assert!(results.load(numbers[3]).is_some());
        fs::write(dir.path().join("results/000000000099.result"), b"\xff\xff").unwrap();
        fs::write(dir.path().join("results/000000000098.new"), b"half").unwrap();
        drop(results);
        assert_eq!(Results::open(dir.path()).unwrap().ready(), numbers[2..]);
        assert_eq!(fs::read_dir(dir.path().join("results")).unwrap().count(), 2);
    }

    #[test]
    fn too_many_are_too_many_whatever_their_size() {
        let dir = tempfile::tempdir().unwrap();
        let results = Results::open(dir.path()).unwrap();
        // In memory, which is quicker.
        fs::remove_dir(dir.path().join("results")).unwrap();
        for at in 0..=COUNT_MAX {
            let no = results.put(kept(&at.to_string(), None, 0));
            results.release(no);
        }
        assert_eq!((results.ready().len(), results.ready()[0]), (COUNT_MAX, 1));
    }

    #[test]
    fn what_the_disk_refuses_is_kept_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let results = Results::open(dir.path()).unwrap();
        fs::remove_dir(dir.path().join("results")).unwrap();
        let a = kept("a", None, 1);
        assert_eq!(results.load(results.put(a.clone())), Some(a));
    }
}
