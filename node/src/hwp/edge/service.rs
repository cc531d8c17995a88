//! The service: who answers what.
//!
//! Invariants: submissions, cancels and pushed lines are answered here; everything that a worker says goes to the gateway.
//! Does not: see anybody whom the door did not let in.

use starling_proto::hwp::worker_service_server::WorkerService;
use starling_proto::hwp::{
    AgentMessage, AssignJobRequest, CancelJobRequest, Empty, GetWorkerStatusRequest, HeartbeatRequest, JobAccepted,
    JobResult, LogEntry, ServerMessage, WorkerRegistration, WorkerStatus,
};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::door::Access;
use super::{Edge, submit};

const NO_ARTIFACTS: &str = "Starling keeps no artifacts yet; leave files where every node can read them";
/// By which a worker says who opens a stream.
const WORKER_ID: &str = "worker-id";

#[tonic::async_trait]
impl WorkerService for Edge {
    type JobStreamStream = BoxStream<ServerMessage>;

    async fn assign_job(&self, request: Request<AssignJobRequest>) -> Result<Response<JobAccepted>, Status> {
        let request = request.into_inner();
        let job_id = request.job_id.clone();
        submit::assign(self, request).await?;
        Ok(Response::new(JobAccepted { job_id }))
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Result<Response<Empty>, Status> {
        submit::cancel(self, request.into_inner().job_id).await?;
        Ok(Response::new(Empty {}))
    }

    async fn stream_logs(&self, request: Request<Streaming<LogEntry>>) -> Result<Response<Empty>, Status> {
        let access = access(&request)?;
        let (metadata, _, entries) = request.into_parts();
        tokio::select! {
            biased;
            status = self.revoked(access) => Err(status),
            result = self.take_logs(metadata, entries) => result.map(|()| Response::new(Empty {})),
        }
    }

    async fn register_worker(&self, request: Request<WorkerRegistration>) -> Result<Response<WorkerStatus>, Status> {
        self.unary(request, |mut gateway, request| async move { gateway.register_worker(request).await }).await
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<Empty>, Status> {
        self.unary(request, |mut gateway, request| async move { gateway.heartbeat(request).await }).await
    }

    async fn get_worker_status(
        &self,
        request: Request<GetWorkerStatusRequest>,
    ) -> Result<Response<WorkerStatus>, Status> {
        self.unary(request, |mut gateway, request| async move { gateway.get_worker_status(request).await }).await
    }

    async fn report_result(&self, request: Request<JobResult>) -> Result<Response<Empty>, Status> {
        self.unary(request, |mut gateway, request| async move { gateway.report_result(request).await }).await
    }

    async fn job_stream(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::JobStreamStream>, Status> {
        let access = access(&request)?;
        let (metadata, _, said) = request.into_parts();
        if !metadata.contains_key(WORKER_ID) {
            return Ok(self.inert(access, said));
        }
        self.job_stream(access, metadata, said).await
    }

    async fn upload_artifact(&self, _request: Request<Streaming<Empty>>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(NO_ARTIFACTS))
    }

    async fn initiate_upload(&self, _request: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(NO_ARTIFACTS))
    }

    async fn resume_upload(&self, _request: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(NO_ARTIFACTS))
    }

    async fn finalize_upload(&self, _request: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(NO_ARTIFACTS))
    }
}

/// How the caller was let in.
fn access<T>(request: &Request<T>) -> Result<Access, Status> {
    request.extensions().get::<Access>().copied().ok_or_else(|| Status::internal("nobody was asked for a token"))
}
