//! A session: what a worker says over its stream.
//!
//! Invariants: what it says is taken in order, lines before the result they belong to; while there is no room for lines nothing more is read; the session ends with
//! the stream, or when the outbox does.

use futures::StreamExt as _;
use starling_core::ids::WorkerName;
use starling_proto::hwp;
use starling_proto::hwp::agent_message::Payload;
use tonic::{Status, Streaming};
use tracing::debug;

use super::Refusal;
use super::handle::{Handle, Message};
use super::logs::{Batch, Heard};
use super::outbox::Outbox;
use crate::hwp::id::AssignmentId;

/// Messages that are taken together, if they are there already.
const BURST: usize = 256;

/// One worker's stream.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) name: WorkerName,
    pub(super) number: u64,
    pub(super) handle: Handle,
    pub(super) outbox: Outbox,
    /// Shared with the table.
    pub(super) heard: Heard,
}

impl Session {
    /// Takes what the worker says until it is over.
    ///
    /// Cancel safety: what was read may be lost; it runs for as long as the stream.
    pub(super) async fn run(self, inbound: Streaming<hwp::AgentMessage>) {
        let mut chunks = inbound.ready_chunks(BURST);
        let mut batch = Batch::default();
        loop {
            let chunk = tokio::select! {
                biased;
                () = self.outbox.over() => break,
                chunk = chunks.next() => chunk,
            };
            let Some(chunk) = chunk else {
                self.outbox.close();
                break;
            };
            self.heard.now(self.handle.now());
            if let Err(status) = self.take(chunk, &mut batch).await {
                debug!(worker = %self.name, code = ?status.code(), "a worker's stream ended");
                self.outbox.end(status);
                break;
            }
        }
        // If the actor is gone there is nobody to tell.
        let _gone = self.handle.tell(Message::Detach { name: self.name, session: self.number }).await;
    }

    async fn take(&self, chunk: Vec<Result<hwp::AgentMessage, Status>>, batch: &mut Batch) -> Result<(), Status> {
        for message in chunk {
            let message = match message {
                Ok(message) => message,
                Err(status) => {
                    self.flush(batch).await?;
                    return Err(status);
                }
            };
            match message.payload {
                // A kind of message of a later protocol.
                None => {}
                Some(Payload::LogEntry(hwp::LogEntry { job_id, data })) => {
                    // Lines of anything else have no place to go.
                    let _taken = batch.add(&job_id, data);
                    if batch.is_full() {
                        self.flush(batch).await?;
                    }
                }
                Some(Payload::JobAccepted(hwp::JobAccepted { job_id })) => {
                    if let Some(id) = AssignmentId::parse(&job_id) {
                        self.handle.tell(Message::Accepted { name: self.name.clone(), id }).await?;
                    }
                }
                Some(Payload::JobResult(result)) => {
                    self.flush(batch).await?;
                    self.result(result).await?;
                }
            }
        }
        self.flush(batch).await
    }

    async fn flush(&self, batch: &mut Batch) -> Result<(), Status> {
        let by = Some(&self.name);
        self.handle.logs.write(self.handle.now(), batch, by).await.map_err(|gone| Refusal::from(gone).into())
    }

    async fn result(&self, result: hwp::StreamedResult) -> Result<(), Status> {
        let hwp::StreamedResult { job_id, exit_code, stdout, stderr, compressed_logs } = result;
        let Some(id) = AssignmentId::parse(&job_id) else {
            debug!(worker = %self.name, "a result for something that no worker was given");
            return Ok(());
        };
        let fill = self.handle.logs.fill(exit_code, stdout, stderr, compressed_logs).await.map_err(Refusal::from)?;
        let from = Some(self.name.clone());
        self.handle.tell(Message::Result { from, id, fill: Box::new(fill), answer: None }).await?;
        Ok(())
    }
}

/// Reads a stream without a name to its end and makes nothing of it.
///
/// Cancel safety: as `Session::run`.
pub(super) async fn idle(mut inbound: Streaming<hwp::AgentMessage>, outbox: Outbox) {
    loop {
        tokio::select! {
            biased;
            () = outbox.over() => return,
            message = inbound.next() => match message {
                Some(Ok(_nothing)) => {}
                Some(Err(_)) | None => return outbox.close(),
            },
        }
    }
}
