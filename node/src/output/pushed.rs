//! Pushed lines: what clients say about a job from outside, kept by its owner in one capped file, whichever node they say it to.
//!
//! Invariants: one node writes a job's file, and one piece at a time; the file never grows beyond its cap and the line that says so; a piece is answered for once it is
//! in the file; requests to peers are bounded in number and time.
//! Does not: know which jobs there are (whoever calls `keep` does), or split what it is given into pieces.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use starling_core::ids::{JobId, NodeId};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::{Files, Place};
use crate::exec::output::{self, Stream};

/// Kept of what is pushed to one job. Low: lines are lost. High: a client that floods fills the disk.
pub const PUSHED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest piece: one frame between nodes, far below what a lane takes.
pub const PIECE_BYTES_MAX: usize = 32 * 1024;
/// Pieces on their way to other nodes at once.
const ON_THEIR_WAY_MAX: usize = 4;
/// Pieces whose answer is awaited, those included whose asker has gone.
const PENDING_MAX: usize = 1_024;
/// How long the owner may take to answer for a piece.
const DEADLINE: Duration = Duration::from_secs(5);
/// Rest while the lane to the owner is full.
const FULL_REST: Duration = Duration::from_millis(10);

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub enum Kept {
    /// It is in the file.
    #[n(0)]
    All,
    /// The file is full: at least its end was dropped, and the file says so.
    #[n(1)]
    Cut,
    /// The owner could not write it.
    #[n(2)]
    Failed,
    /// The owner does not know the job, or does not own it.
    #[n(3)]
    Unknown,
}

/// Why a piece was not kept, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The owner does not answer. The piece may be in the file.
    #[error("the node that keeps this job's log cannot be reached; send the lines again later")]
    Unreachable,
    /// Too many pieces are under way. Nothing was sent.
    #[error("this node passes on as many lines as it can; send the lines again in a moment")]
    Busy,
    /// The owner cannot write. Nothing was kept.
    #[error("the node that keeps this job's log cannot write it; see that node's log")]
    Unwritable,
    /// The owner knows no such job. Nothing was kept.
    #[error("no such job")]
    Unknown,
}

/// Whether a piece is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is.
    Yes,
    /// The way is full at the moment.
    Full,
    /// There is no way.
    NotLinked,
}

/// Sends a piece to a node under a number.
pub type SendPiece = Box<dyn Fn(NodeId, u64, JobId, &Bytes) -> Sent + Send + Sync>;

type Waiting = HashMap<u64, oneshot::Sender<Kept>>;

struct Shared {
    me: NodeId,
    files: Files,
    send: SendPiece,
    /// So few that the lane stays free for other things.
    ways: Semaphore,
    /// A leaf: never held across an await.
    pending: Mutex<(u64, Waiting)>,
    /// Held by the one who writes, on a thread that may block.
    writing: Mutex<()>,
}

/// Pushed lines of every job, as one node sees them. Cheap to clone.
#[derive(Clone)]
pub struct Pushes(Arc<Shared>);

impl std::fmt::Debug for Pushes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pushes")
    }
}

impl Pushes {
    /// Keeps lines of `me`'s jobs in `files`, and sends those of others' through `send`.
    #[must_use]
    pub fn new(me: NodeId, files: Files, send: SendPiece) -> Self {
        let ways = Semaphore::new(ON_THEIR_WAY_MAX);
        let pending = Mutex::new((0, Waiting::new()));
        Self(Arc::new(Shared { me, files, send, ways, pending, writing: Mutex::new(()) }))
    }

    /// Has the job's owner keep a piece, which must end a line and be at most `PIECE_BYTES_MAX` long; true if it kept all of it.
    ///
    /// Cancel safety: the piece may be kept even if the future is dropped.
    ///
    /// # Errors
    /// If the owner does not answer in time, or refuses.
    pub async fn push(&self, job: JobId, piece: Bytes) -> Result<bool, PushError> {
        let owner = job.log.node;
        let kept = if owner == self.0.me { self.keep(job, piece).await } else { self.send(owner, job, piece).await? };
        match kept {
            Kept::All => Ok(true),
            Kept::Cut => Ok(false),
            Kept::Failed => Err(PushError::Unwritable),
            Kept::Unknown => Err(PushError::Unknown),
        }
    }

    /// Keeps a piece of a job of this node.
    ///
    /// Cancel safety: the piece is kept even if the future is dropped.
    pub async fn keep(&self, job: JobId, piece: Bytes) -> Kept {
        if job.log.node != self.0.me || piece.len() > PIECE_BYTES_MAX {
            return Kept::Unknown;
        }
        let shared = Arc::clone(&self.0);
        let write = move || {
            let _one_at_a_time = shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
            append(&shared.files.prefix(&Place::pushed(job)), &piece, PUSHED_BYTES_MAX)
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(error)) => {
                tracing::warn!(%error, "pushed lines cannot be written");
                Kept::Failed
            }
            Err(_stopping) => Kept::Failed,
        }
    }

    async fn send(&self, owner: NodeId, job: JobId, piece: Bytes) -> Result<Kept, PushError> {
        let deadline = Instant::now() + DEADLINE;
        let waited = tokio::time::timeout_at(deadline, self.0.ways.acquire()).await;
        let _way = waited.map_err(|_elapsed| PushError::Busy)?.map_err(|_closed| PushError::Busy)?;
        let (id, answer) = self.begin().ok_or(PushError::Busy)?;
        let sent = loop {
            match (self.0.send)(owner, id, job, &piece) {
                Sent::Yes => break true,
                Sent::Full if Instant::now() < deadline => tokio::time::sleep(FULL_REST).await,
                Sent::Full | Sent::NotLinked => break false,
            }
        };
        let kept = if sent { tokio::time::timeout_at(deadline, answer).await.ok().and_then(Result::ok) } else { None };
        self.pending().1.remove(&id);
        kept.ok_or(PushError::Unreachable)
    }

    fn begin(&self) -> Option<(u64, oneshot::Receiver<Kept>)> {
        let mut pending = self.pending();
        let (next, waiting) = &mut *pending;
        // Those whose asker has gone make room.
        if waiting.len() >= PENDING_MAX {
            waiting.retain(|_, answer| !answer.is_closed());
        }
        if waiting.len() >= PENDING_MAX {
            return None;
        }
        *next += 1;
        let (tx, rx) = oneshot::channel();
        waiting.insert(*next, tx);
        Some((*next, rx))
    }

    /// The owner has answered for a piece.
    pub fn answered(&self, id: u64, kept: Kept) {
        if let Some(answer) = self.pending().1.remove(&id) {
            // The asker may have given up.
            let _gone = answer.send(kept);
        }
    }

    fn pending(&self) -> MutexGuard<'_, (u64, Waiting)> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds to the file as much as fits. A file of more than `cap` bytes has said that it is full.
fn append(prefix: &Path, piece: &[u8], cap: u64) -> io::Result<Kept> {
    let path = output::path(prefix, Stream::Pushed);
    let open = || File::options().append(true).create(true).mode(0o600).open(&path);
    let mut file = match (open(), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(parent)?;
            open()?
        }
        (opened, _) => opened?,
    };
    // Only the line about the cut goes beyond.
    let Some(room) = cap.checked_sub(file.metadata()?.len()) else {
        return Ok(Kept::Cut);
    };
    match usize::try_from(room) {
        Ok(room) if room < piece.len() => {
            file.write_all(&piece[..room])?;
            let line = format!("\n[starling: cut here, cap is {cap} bytes; what was pushed after this was dropped]\n");
            file.write_all(line.as_bytes())?;
            Ok(Kept::Cut)
        }
        Ok(_) | Err(_) => {
            file.write_all(piece)?;
            Ok(Kept::All)
        }
    }
}

#[cfg(test)]
mod tests {
    use starling_core::ids::{Epoch, JobNo, LogId};

    use super::*;
    use crate::output::Which;

    fn job(node: u8) -> JobId {
        JobId { log: LogId { node: NodeId([node; 32]), epoch: Epoch(1) }, no: JobNo(1) }
    }

    fn pushes(dir: &Path, send: SendPiece) -> Pushes {
        Pushes::new(NodeId([1; 32]), Files::under(dir), send)
    }

    #[tokio::test]
    async fn pieces_of_own_jobs_are_kept_in_order_and_those_of_others_are_not_kept_here() {
        let dir = tempfile::tempdir().unwrap();
        let pushes = pushes(dir.path(), Box::new(|_, _, _, _| Sent::NotLinked));
        for line in ["one\n", "two\n"] {
            assert_eq!(pushes.push(job(1), Bytes::from(line)).await, Ok(true));
        }
        let read = Files::under(dir.path()).read(Which::Full, &Place::pushed(job(1)), Stream::Pushed, 0, 100).unwrap();
        assert_eq!(read, (Bytes::from("one\ntwo\n"), 8));
        assert_eq!(pushes.keep(job(2), Bytes::from("x\n")).await, Kept::Unknown);
        assert_eq!(pushes.push(job(2), Bytes::from("x\n")).await, Err(PushError::Unreachable), "no link");
    }

    #[tokio::test]
    async fn the_owner_answers_for_a_piece_and_a_late_answer_hurts_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let asked: Arc<Mutex<Vec<(u64, Bytes)>>> = Arc::default();
        let sent = Arc::clone(&asked);
        let send: SendPiece = Box::new(move |_, id, _, piece| {
            sent.lock().unwrap().push((id, piece.clone()));
            Sent::Yes
        });
        let pushes = pushes(dir.path(), send);
        let answering = pushes.clone();
        let answer = async {
            let (id, _) = loop {
                let asked = asked.lock().unwrap().pop();
                if let Some(asked) = asked {
                    break asked;
                }
                tokio::task::yield_now().await;
            };
            answering.answered(id, Kept::Cut);
            answering.answered(id, Kept::All);
        };
        let (pushed, ()) = tokio::join!(pushes.push(job(2), Bytes::from("x\n")), answer);
        assert_eq!(pushed, Ok(false));
    }

    #[test]
    fn a_full_file_says_so_once_and_grows_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("job").join("all");
        assert_eq!(append(&prefix, b"12345678\n", 16).unwrap(), Kept::All);
        assert_eq!(append(&prefix, b"12345678\n", 16).unwrap(), Kept::Cut);
        let full = std::fs::read_to_string(output::path(&prefix, Stream::Pushed)).unwrap();
        assert!(full.starts_with("12345678\n1234567\n[starling: cut here"), "{full}");
        assert_eq!(append(&prefix, b"more\n", 16).unwrap(), Kept::Cut);
        let just = dir.path().join("job").join("just");
        assert_eq!(append(&just, b"12345678", 8).unwrap(), Kept::All);
        assert_eq!(append(&just, b"\n", 8).unwrap(), Kept::Cut);
        let full_too = std::fs::read_to_string(output::path(&just, Stream::Pushed)).unwrap();
        assert!(full_too.starts_with("12345678\n[starling: cut here"), "{full_too}");
        assert_eq!(std::fs::read_to_string(output::path(&prefix, Stream::Pushed)).unwrap(), full);
    }
}
