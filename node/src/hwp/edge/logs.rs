//! Log intake: StreamLogs, by workers about their assignments and by clients about jobs.
//!
//! Invariants: lines about an assignment go to the gateway, lines about a job to its owner; those of one id stay in the order in which they came; a caller is read no
//! faster than its lines are kept; one call speaks of at most `IDS_MAX` jobs.
//! Does not: keep lines (`output::Pushes` and the gateway do).

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use starling_core::ids::JobId;
use starling_proto::hwp::LogEntry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status, Streaming};
use tracing::debug;

use super::forward::{PATIENCE, told};
use super::{Edge, refusal, submit};
use crate::hwp::id::AssignmentId;
use crate::output::{PIECE_BYTES_MAX, PushError};

/// Jobs that one call may speak of. Low: a client needs several calls. High: each call takes more memory.
const IDS_MAX: usize = 1_024;
/// Lines on their way to the gateway. Full: the caller waits.
const FORWARDED_MAX: usize = 64;

impl Edge {
    /// Reads a caller's lines to their end.
    ///
    /// Cancel safety: lines that were read may be kept even if the future is dropped.
    pub(super) async fn take_logs(
        &self,
        metadata: MetadataMap,
        mut entries: Streaming<LogEntry>,
    ) -> Result<(), Status> {
        let mut pushing = Pushing::default();
        let mut forwarding: Option<Forwarding> = None;
        let mut spelled = Spelled::default();
        loop {
            // Lines gather while earlier ones are kept, and wait for nothing else.
            let entry = match entries.message().now_or_never() {
                Some(entry) => entry?,
                None => {
                    pushing.flush(self).await?;
                    tokio::select! {
                        biased;
                        status = given_up(forwarding.as_mut()) => return Err(status),
                        entry = entries.message() => entry?,
                    }
                }
            };
            let Some(entry) = entry else { break };
            if !spelled.is_assignment(&entry.job_id) {
                pushing.take(self, entry).await?;
                continue;
            }
            let to_gateway = match &mut forwarding {
                Some(open) => open,
                none @ None => none.insert(self.forward_logs(metadata.clone()).await?),
            };
            to_gateway.send(entry).await?;
        }
        pushing.flush(self).await?;
        match forwarding {
            Some(open) => open.finish().await,
            None => Ok(()),
        }
    }

    async fn forward_logs(&self, metadata: MetadataMap) -> Result<Forwarding, Status> {
        let way = self.way(Instant::now() + PATIENCE).await?;
        let (lines, entries) = mpsc::channel(FORWARDED_MAX);
        let edge = self.clone();
        let call = self.runtime.spawn(async move {
            let request = Request::from_parts(metadata, Extensions::default(), ReceiverStream::new(entries));
            let mut client = way.client.clone();
            tokio::select! {
                biased;
                status = edge.moved(&way) => Err(status),
                answer = client.stream_logs(request) => answer.map(|_empty| ()).map_err(told),
            }
        });
        Ok(Forwarding { lines, call })
    }
}

/// How the id of the last line was spelled. Mostly the next one's is the same, and reading an id takes longer than passing a line on.
#[derive(Debug, Default)]
struct Spelled {
    text: String,
    is_assignment: bool,
}

impl Spelled {
    fn is_assignment(&mut self, job_id: &str) -> bool {
        if self.text != job_id {
            self.is_assignment = AssignmentId::parse(job_id).is_some();
            job_id.clone_into(&mut self.text);
        }
        self.is_assignment
    }
}

/// Lines on their way to the gateway.
#[derive(Debug)]
struct Forwarding {
    lines: mpsc::Sender<LogEntry>,
    call: JoinHandle<Result<(), Status>>,
}

impl Forwarding {
    async fn send(&mut self, entry: LogEntry) -> Result<(), Status> {
        if self.lines.send(entry).await.is_ok() {
            return Ok(());
        }
        Err(given_up(Some(self)).await)
    }

    async fn finish(self) -> Result<(), Status> {
        drop(self.lines);
        let answer = self.call.await;
        answer.map_err(|_stopping| Status::unavailable("this node is shutting down; connect to another"))?
    }
}

/// Returns when the gateway has ended the call, which is over then; its answer says why. Never, where there is no call.
///
/// Cancel safety: cancel safe.
async fn given_up(forwarding: Option<&mut Forwarding>) -> Status {
    let Some(forwarding) = forwarding else {
        return std::future::pending().await;
    };
    match (&mut forwarding.call).await {
        Ok(Ok(())) => Status::unavailable("the gateway has ended the stream; connect again"),
        Ok(Err(status)) => status,
        Err(_stopping) => Status::unavailable("this node is shutting down; connect to another"),
    }
}

/// Lines about jobs, gathered into pieces.
#[derive(Debug, Default)]
struct Pushing {
    jobs: HashMap<String, JobId>,
    /// Of one job at a time; a client mostly speaks of one.
    piece: BytesMut,
    of: Option<JobId>,
    cut: bool,
}

impl Pushing {
    async fn take(&mut self, edge: &Edge, entry: LogEntry) -> Result<(), Status> {
        let LogEntry { job_id, data } = entry;
        let job = match self.jobs.get(&job_id) {
            Some(job) => *job,
            None => {
                let job = submit::find(&edge.handle, job_id.clone()).await?;
                if self.jobs.len() >= IDS_MAX {
                    return Err(Status::resource_exhausted(format!(
                        "one call may speak of {IDS_MAX} jobs; open another"
                    )));
                }
                self.jobs.insert(job_id, job);
                job
            }
        };
        if self.of != Some(job) {
            self.flush(edge).await?;
            self.of = Some(job);
        }
        self.add(edge, data.as_bytes()).await?;
        if data.ends_with('\n') { Ok(()) } else { self.add(edge, b"\n").await }
    }

    async fn add(&mut self, edge: &Edge, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(PIECE_BYTES_MAX - self.piece.len()));
            self.piece.extend_from_slice(now);
            data = later;
            if self.piece.len() == PIECE_BYTES_MAX {
                self.flush(edge).await?;
            }
        }
        Ok(())
    }

    /// Has what was gathered kept.
    async fn flush(&mut self, edge: &Edge) -> Result<(), Status> {
        let (Some(job), false) = (self.of, self.piece.is_empty()) else {
            return Ok(());
        };
        let piece: Bytes = self.piece.split().freeze();
        let is_whole = edge.pushes.push(job, piece).await.map_err(refused)?;
        if !is_whole && !self.cut {
            self.cut = true;
            debug!(?job, "the log that clients push to a job is full; the rest is dropped");
        }
        Ok(())
    }
}

fn refused(error: PushError) -> Status {
    match error {
        PushError::Unreachable | PushError::Busy | PushError::Unwritable => Status::unavailable(error.to_string()),
        PushError::Unknown => refusal::no_such_job(),
    }
}
