//! Task output: where it lies on this node, and how any node reads it.
//!
//! Output stays on its executor, in `<dir>/output/<owner>-<epoch>-<job>/<grant>-<task>.{out,err,env.out,env.err}`; the last 64 KiB of each stream also goes to the job's owner
//! (`<dir>/tails/…`), so that something is left when the executor is not. What clients push to a job lies at its owner, in `0.0-0.pushed` beside its tasks' output.
//! Invariants: a read names what it could not reach; requests to peers are bounded in number and time.
//! Does not: know who runs what (`facts::view` does).

mod pushed;
mod remote;

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
pub use pushed::{Kept, PIECE_BYTES_MAX, PUSHED_BYTES_MAX, PushError, Pushes, SendPiece, Sent};
pub use remote::{Fetch, Remote, SendFetch};
use starling_core::facts::view::AttemptView;
use starling_core::ids::{GrantId, GrantNo, JobId, NodeId, Term};

use crate::exec::output::{Stream, read};

/// Bytes of each stream that go to the owner when a task ends.
pub const TAIL_BYTES: u64 = 64 * 1024;
/// Most bytes of one answer.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// One task's output under one grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub struct Place {
    /// The grant.
    #[n(0)]
    pub grant: GrantId,
    /// The task.
    #[n(1)]
    pub task: u32,
}

impl Place {
    /// Where lies what clients push to a job. No grant has number 0.
    #[must_use]
    pub fn pushed(job: JobId) -> Self {
        Self { grant: GrantId { job, no: GrantNo { term: Term::default(), no: 0 } }, task: 0 }
    }
}

/// The two directories of one node.
#[derive(Clone, Debug)]
pub struct Files {
    output: PathBuf,
    tails: PathBuf,
}

impl Files {
    /// Under a node's data directory.
    #[must_use]
    pub fn under(dir: &Path) -> Self {
        Self { output: dir.join("output"), tails: dir.join("tails") }
    }

    /// The directory of a job's output here.
    #[must_use]
    pub fn job_dir(&self, job: &JobId) -> PathBuf {
        self.output.join(job_part(job))
    }

    /// Where a job's output and tails may lie here.
    #[must_use]
    pub fn dirs(&self, job: &JobId) -> [PathBuf; 2] {
        [self.job_dir(job), self.tails.join(job_part(job))]
    }

    /// The prefix of a task's output files here.
    #[must_use]
    pub fn prefix(&self, place: &Place) -> PathBuf {
        self.job_dir(&place.grant.job).join(task_part(place))
    }

    /// The prefix of a task's tails here, if this node owns the job.
    #[must_use]
    pub fn tail_prefix(&self, place: &Place) -> PathBuf {
        self.tails.join(job_part(&place.grant.job)).join(task_part(place))
    }

    /// Reads output that lies here.
    ///
    /// # Errors
    /// What the system says, other than that there is no such file.
    pub fn read(
        &self,
        which: Which,
        place: &Place,
        stream: Stream,
        offset: u64,
        max: usize,
    ) -> io::Result<(Bytes, u64)> {
        let prefix = match which {
            Which::Full => self.prefix(place),
            Which::Tail => self.tail_prefix(place),
        };
        read(&prefix, stream, offset, max.min(CHUNK_BYTES_MAX))
    }

    /// Keeps a tail that an executor sent.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep_tail(&self, place: &Place, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let path = crate::exec::output::path(&self.tail_prefix(place), stream);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, bytes)
    }
}

/// The whole stream, or the tail that its owner keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub enum Which {
    /// On the executor.
    #[n(0)]
    Full,
    /// On the owner.
    #[n(1)]
    Tail,
}

fn job_part(job: &JobId) -> String {
    format!("{}-{}-{}", job.log.node, job.log.epoch, job.no)
}

fn task_part(place: &Place) -> String {
    format!("{}.{}-{}", place.grant.no.term, place.grant.no.no, place.task)
}

/// Where a chunk came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The executor.
    Executor(NodeId),
    /// The owner's copy of the tail: the executor cannot be reached.
    OwnersTail(NodeId),
    /// Nobody who has it can be reached.
    Unreachable,
}

/// A piece of a stream.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The bytes from the asked offset on; empty at the end.
    pub data: Bytes,
    /// The stream's length so far, where it came from.
    pub len: u64,
    /// Where it came from.
    pub origin: Origin,
}

/// Reads output wherever it lies.
#[derive(Clone, Debug)]
pub struct Outputs {
    me: NodeId,
    files: Files,
    remote: Remote,
}

impl Outputs {
    /// Reads through `remote` what does not lie in `files`.
    #[must_use]
    pub fn new(me: NodeId, files: Files, remote: Remote) -> Self {
        Self { me, files, remote }
    }

    /// One chunk of a stream of one attempt at a task of `job`.
    ///
    /// Cancel safety: cancel safe.
    pub async fn read(&self, job: &JobId, attempt: &AttemptView, task: u32, stream: Stream, offset: u64) -> Chunk {
        let place = Place { grant: GrantId { job: *job, no: attempt.grant }, task };
        let fetch = Fetch { which: Which::Full, place, stream, offset };
        if let Some((data, len)) = self.read_at(attempt.node, fetch).await {
            return Chunk { data, len, origin: Origin::Executor(attempt.node) };
        }
        let owner = job.log.node;
        match self.read_at(owner, Fetch { which: Which::Tail, ..fetch }).await {
            Some((data, len)) if len > 0 => Chunk { data, len, origin: Origin::OwnersTail(owner) },
            Some(_) | None => Chunk { data: Bytes::new(), len: 0, origin: Origin::Unreachable },
        }
    }

    /// One chunk of what clients pushed to a job; `None` if its owner cannot be reached.
    ///
    /// Cancel safety: cancel safe.
    pub async fn pushed(&self, job: &JobId, offset: u64) -> Option<Chunk> {
        let (owner, place) = (job.log.node, Place::pushed(*job));
        let fetch = Fetch { which: Which::Full, place, stream: Stream::Pushed, offset };
        let (data, len) = self.read_at(owner, fetch).await?;
        Some(Chunk { data, len, origin: Origin::Executor(owner) })
    }

    async fn read_at(&self, node: NodeId, fetch: Fetch) -> Option<(Bytes, u64)> {
        if node == self.me {
            return answer(&self.files, &fetch).await;
        }
        self.remote.fetch(node, fetch).await
    }
}

/// Answers a fetch from this node's files, on a thread that may block.
pub async fn answer(files: &Files, fetch: &Fetch) -> Option<(Bytes, u64)> {
    let (files, fetch) = (files.clone(), *fetch);
    let read = move || files.read(fetch.which, &fetch.place, fetch.stream, fetch.offset, CHUNK_BYTES_MAX);
    tokio::task::spawn_blocking(read).await.ok()?.ok()
}
