//! The worker's role of the protocol, as it is served at the gateway.
//!
//! Invariants: a stream's headers are answered at once; what concerns workers is refused as UNAVAILABLE while this node is not the gateway.
//! Does not: check who calls, or answer submissions and cancels (`edge` does).

use std::time::{SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use starling_core::machine::Machine;
use starling_core::time::Now;
use starling_proto::hwp;
use starling_proto::hwp::worker_service_server::WorkerService;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use super::dial::Dialler;
use super::handle::{Handle, Message};
use super::logs::{Batch, Fill};
use super::outbox::{Told, outbox};
use super::table::{Beat, Taken};
use super::{Refusal, capabilities};
use crate::hwp::id::AssignmentId;

/// Which worker a stream belongs to.
const WORKER_ID: &str = "worker-id";
const MIB: u64 = 1 << 20;
/// Lines that are taken together, if they are there already.
const BURST: usize = 256;

/// Serves workers.
#[derive(Clone, Debug)]
pub struct Service {
    handle: Handle,
    via: String,
}

impl Service {
    pub(super) fn new(handle: Handle, via: String) -> Self {
        Self { handle, via }
    }

    /// Whether anything here, or of a job of this cluster, was called so.
    async fn is_late(&self, id: AssignmentId) -> Result<bool, Refusal> {
        let job = id.grant.job;
        let look = move |machine: &mut Machine, _now: Now| machine.facts().job(&job).is_some();
        Ok(self.handle.driver.ask(look).await?)
    }

    async fn take_lines(&self, lines: Vec<Result<hwp::LogEntry, Status>>, batch: &mut Batch) -> Result<(), Status> {
        for line in lines {
            let hwp::LogEntry { job_id, data } = line?;
            if batch.add(&job_id, data).is_none() {
                return Err(Refusal::UnknownTask(shown(&job_id)).into());
            }
            if batch.is_full() {
                self.flush(batch).await?;
            }
        }
        self.flush(batch).await
    }

    async fn flush(&self, batch: &mut Batch) -> Result<(), Status> {
        let written = self.handle.logs.write(self.handle.now(), batch, None).await;
        written.map_err(|gone| Refusal::from(gone).into())
    }
}

#[tonic::async_trait]
impl WorkerService for Service {
    type JobStreamStream = Told;

    async fn register_worker(
        &self,
        request: Request<hwp::WorkerRegistration>,
    ) -> Result<Response<hwp::WorkerStatus>, Status> {
        let authorization = request.metadata().get("authorization").cloned();
        let hwp::WorkerRegistration { worker_id, capabilities } = request.into_inner();
        let name = capabilities::worker_name(&worker_id)?;
        let capabilities = Box::new(capabilities::parse(&capabilities)?);
        let dialler = match &capabilities.endpoint {
            Some(endpoint) => Some(Dialler::new(endpoint, authorization)?),
            None => None,
        };
        self.handle.ask(|answer| Message::Register { name: name.clone(), capabilities, dialler, answer }).await?;
        info!(worker = %name, via = %self.via, "worker registered");
        Ok(Response::new(hwp::WorkerStatus { worker_id, state: "ready".to_owned(), ..hwp::WorkerStatus::default() }))
    }

    async fn job_stream(
        &self,
        request: Request<Streaming<hwp::AgentMessage>>,
    ) -> Result<Response<Self::JobStreamStream>, Status> {
        let name = match request.metadata().get(WORKER_ID).map(|value| value.to_str()) {
            None => None,
            Some(Ok(name)) => Some(capabilities::worker_name(name)?),
            Some(Err(_)) => return Err(Status::invalid_argument("metadata `worker-id`: expected printable ASCII")),
        };
        let (outbox, told) = outbox();
        let inbound = Box::new(request.into_inner());
        match name {
            Some(name) => {
                debug!(worker = %name, via = %self.via, "worker opened its stream");
                self.handle.ask(|answer| Message::Attach { name, inbound, outbox, answer }).await?;
            }
            None => self.handle.ask(|answer| Message::Idle { inbound, outbox, answer }).await?,
        }
        Ok(Response::new(told))
    }

    async fn heartbeat(&self, request: Request<hwp::HeartbeatRequest>) -> Result<Response<hwp::Empty>, Status> {
        let hwp::HeartbeatRequest { worker_id, resource_usage, .. } = request.into_inner();
        let name = capabilities::worker_name(&worker_id)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let used = resource_usage.map(|usage| (usage.cpu_usage_m, usage.memory_usage_mb.saturating_mul(MIB)));
        self.handle.ask(|answer| Message::Beat { name, beat: Beat { at_ms, used }, answer }).await?;
        Ok(Response::new(hwp::Empty {}))
    }

    async fn get_worker_status(
        &self,
        request: Request<hwp::GetWorkerStatusRequest>,
    ) -> Result<Response<hwp::WorkerStatus>, Status> {
        let name = capabilities::worker_name(&request.into_inner().worker_id)?;
        let status = self.handle.ask(|answer| Message::Status { name, answer }).await?;
        Ok(Response::new(status))
    }

    async fn stream_logs(&self, request: Request<Streaming<hwp::LogEntry>>) -> Result<Response<hwp::Empty>, Status> {
        let mut chunks = request.into_inner().ready_chunks(BURST);
        let mut batch = Batch::default();
        loop {
            let lines = tokio::select! {
                biased;
                () = self.handle.stood_down() => return Err(Refusal::NotActing.into()),
                lines = chunks.next() => lines,
            };
            match lines {
                Some(lines) => self.take_lines(lines, &mut batch).await?,
                None => return Ok(Response::new(hwp::Empty {})),
            }
        }
    }

    async fn report_result(&self, request: Request<hwp::JobResult>) -> Result<Response<hwp::Empty>, Status> {
        let hwp::JobResult { job_id, exit_code } = request.into_inner();
        let unknown = || Status::from(Refusal::UnknownTask(shown(&job_id)));
        let id = AssignmentId::parse(&job_id).ok_or_else(unknown)?;
        let fill = Box::new(Fill::code(exit_code));
        let taken = self.handle.ask(|answer| Message::Result { from: None, id, fill, answer: Some(answer) }).await?;
        match taken {
            Taken::Counts => {}
            Taken::Late if self.is_late(id).await? => {}
            Taken::Late => return Err(unknown()),
        }
        Ok(Response::new(hwp::Empty {}))
    }

    async fn assign_job(&self, _: Request<hwp::AssignJobRequest>) -> Result<Response<hwp::JobAccepted>, Status> {
        Err(elsewhere())
    }

    async fn cancel_job(&self, _: Request<hwp::CancelJobRequest>) -> Result<Response<hwp::Empty>, Status> {
        Err(elsewhere())
    }

    async fn upload_artifact(&self, _: Request<Streaming<hwp::Empty>>) -> Result<Response<hwp::Empty>, Status> {
        Err(elsewhere())
    }

    async fn initiate_upload(&self, _: Request<hwp::Empty>) -> Result<Response<hwp::Empty>, Status> {
        Err(elsewhere())
    }

    async fn resume_upload(&self, _: Request<hwp::Empty>) -> Result<Response<hwp::Empty>, Status> {
        Err(elsewhere())
    }

    async fn finalize_upload(&self, _: Request<hwp::Empty>) -> Result<Response<hwp::Empty>, Status> {
        Err(elsewhere())
    }
}

fn elsewhere() -> Status {
    Status::unimplemented("this is answered by the node that was asked, not by the gateway")
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}
