//! A worker that is called: it serves the published protocol itself, registers where, and calls back with lines and results.
//!
//! Invariants: only published messages (and ReportResult) are used; the lines of a job have reached the server before its result is reported; a result is reported
//! until the server has it or does not know the job.
//! Does not: hold a stream to the server longer than a job runs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use starling_proto::hwp::agent_message::Payload;
use starling_proto::hwp::worker_service_server::{WorkerService, WorkerServiceServer};
use starling_proto::hwp::{
    AgentMessage, AssignJobRequest, CancelJobRequest, Empty, GetWorkerStatusRequest, HeartbeatRequest, JobAccepted,
    JobResult, LogEntry, ServerMessage, WorkerRegistration, WorkerStatus,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Error;
use super::backoff::Backoff;
use super::desk::{Cancelled, Handle, Taken};
use super::follow::{Phase, Sender};
use super::job::Assignment;
use super::link::{CALL_MAX, Parting, Servers};
use super::results::Kept;
use super::session::{Told, Worker, register, within};

/// Lines of one job on their way.
const LINES: usize = 64;

/// Takes the address.
pub(super) async fn bind(addr: SocketAddr) -> Result<TcpListener, Error> {
    if addr.ip().is_unspecified() {
        let why = format!(
            "{addr} is no address that a server can call; give --listen the one by which it reaches this machine"
        );
        return Err(Error::Link(why));
    }
    TcpListener::bind(addr).await.map_err(|source| Error::Listen { addr, source })
}

/// Serves, registers and reports until the worker closes.
pub(super) async fn run(worker: Worker, listener: TcpListener, token: Option<String>) {
    let Ok(addr) = listener.local_addr() else { return };
    let expected = token.map(|token| blake3::hash(format!("Bearer {token}").as_bytes()));
    let service = WorkerServiceServer::new(Called { handle: worker.handle.clone(), expected });
    let serve = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
    let mut capabilities = worker.capabilities.clone();
    capabilities.push(format!("endpoint=http://{addr}"));
    (worker.tell)(&format!("listening at http://{addr}"));
    tokio::select! {
        served = serve => tracing::error!(?served, "the worker does not serve any more"),
        () = announce(&worker, &capabilities) => {}
        () = report(&worker) => {}
    }
}

/// Registers again and again.
async fn announce(worker: &Worker, capabilities: &[String]) {
    let (mut backoff, mut told) = (Backoff::default(), Told::default());
    loop {
        let (mut client, url) = worker.servers.client();
        let pause = match register(worker, &mut client, capabilities.to_vec()).await {
            Ok(()) => {
                told.well(&worker.tell, &format!("registered at {url} as worker {}", worker.id));
                backoff.reset();
                sleep(worker.limits.register).await;
                continue;
            }
            Err(Parting::Refused(why)) => {
                told.refused(&worker.tell, &url, &why);
                worker.limits.refused
            }
            Err(Parting::Lost(why)) => {
                told.lost(&worker.tell, &url, &why);
                backoff.pause()
            }
            Err(Parting::Closed) => return,
        };
        worker.servers.rotate();
        sleep(pause).await;
    }
}

/// Reports results until the worker closes, and then those that are ready once more.
async fn report(worker: &Worker) {
    let (mut changes, mut closing) = (worker.results.changes(), worker.closing.clone());
    let (mut backoff, mut noted) = (Backoff::default(), BTreeSet::new());
    loop {
        changes.borrow_and_update();
        let is_last = *closing.borrow_and_update();
        let ready = worker.results.ready();
        noted.retain(|no| ready.contains(no));
        let mut pause = None;
        for no in ready {
            let results = Arc::clone(&worker.results);
            let Ok(Some(kept)) = tokio::task::spawn_blocking(move || results.load(no)).await else { continue };
            match tell(&worker.servers, kept, noted.insert(no)).await {
                Ok(()) => worker.results.forget(no),
                Err(status) => {
                    tracing::debug!(%status, "a result could not be reported");
                    let again = match Parting::from(status) {
                        Parting::Refused(_) => worker.limits.refused,
                        Parting::Lost(_) | Parting::Closed => backoff.pause(),
                    };
                    pause = Some(pause.map_or(again, |pause: Duration| pause.max(again)));
                }
            }
        }
        if is_last {
            return;
        }
        let again = async {
            match pause {
                Some(pause) => {
                    worker.servers.rotate();
                    sleep(pause).await;
                }
                None => {
                    backoff.reset();
                    // What was forgotten above is no news; what came meanwhile is seen at once.
                    let _never = changes.changed().await;
                }
            }
        };
        tokio::select! {
            () = again => {}
            _ = closing.changed() => {}
        }
    }
}

/// Reports one result, and before it (`is_new`) what the published messages have no field for.
async fn tell(servers: &Servers, kept: Kept, is_new: bool) -> Result<(), Status> {
    let Kept { result, note } = kept;
    let mut client = servers.shared();
    let reason = Some(result.stderr).filter(|reason| result.exit_code == -1 && !reason.is_empty());
    let job_id = result.job_id;
    let entry = |data| LogEntry { job_id: job_id.clone(), data };
    let last: Vec<LogEntry> = reason.into_iter().chain(note).map(entry).collect();
    if is_new && !last.is_empty() {
        // Without this line the result is less precise, and still a result.
        let said = within(client.stream_logs(futures::stream::iter(last))).await;
        said.inspect_err(|status| tracing::debug!(%status, "the last line of a job was not taken")).ok();
    }
    match within(client.report_result(JobResult { job_id, exit_code: result.exit_code })).await {
        Err(status) if status.code() != Code::NotFound => Err(status),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The way of lines to the server.
#[derive(Debug)]
pub(super) struct Gateway {
    servers: Arc<Servers>,
}

impl Gateway {
    pub(super) fn new(servers: Arc<Servers>) -> Self {
        Self { servers }
    }

    /// Carries one job's lines, which come in by `session`, in a call of their own, made again when it breaks, until the job's `sent` is dropped; then waits for the
    /// server to have them all, for a while.
    pub(super) async fn carry(
        &self,
        session: watch::Sender<Option<Sender>>,
        mut sent: oneshot::Receiver<()>,
        mut phase: watch::Receiver<Phase>,
    ) {
        if phase.wait_for(|phase| *phase != Phase::Waiting).await.is_err() {
            return;
        }
        let mut backoff = Backoff::default();
        loop {
            let (tx, rx) = mpsc::channel(LINES);
            let mut client = self.servers.shared();
            let mut call = pin!(
                client.stream_logs(ReceiverStream::new(rx).filter_map(|message| std::future::ready(entry(message))))
            );
            session.send_replace(Some(tx));
            let ended = tokio::select! {
                ended = &mut call => ended,
                _ = &mut sent => {
                    session.send_replace(None);
                    let done = timeout(CALL_MAX, call).await;
                    return tracing::trace!(?done, "the lines of a job are sent");
                }
            };
            session.send_replace(None);
            if ended.is_err_and(|status| matches!(Parting::from(status), Parting::Refused(_))) {
                return swallow(&session, sent).await;
            }
            self.servers.rotate();
            tokio::select! {
                _ = &mut sent => return,
                () = sleep(backoff.pause()) => {}
            }
        }
    }
}

/// The server wants none of these lines.
async fn swallow(session: &watch::Sender<Option<Sender>>, mut sent: oneshot::Receiver<()>) {
    let (tx, mut rx) = mpsc::channel(LINES);
    session.send_replace(Some(tx));
    loop {
        tokio::select! {
            _ = &mut sent => return,
            message = rx.recv() => if message.is_none() { return },
        }
    }
}

fn entry(message: AgentMessage) -> Option<LogEntry> {
    match message.payload? {
        Payload::LogEntry(entry) => Some(entry),
        Payload::JobAccepted(_) | Payload::JobResult(_) => None,
    }
}

/// What servers call.
struct Called {
    handle: Handle,
    /// The hash of what `authorization` must be; comparing hashes takes the same time for all that is wrong.
    expected: Option<blake3::Hash>,
}

impl Called {
    fn check<T>(&self, request: Request<T>) -> Result<T, Status> {
        let given = request.metadata().get("authorization").map(|value| blake3::hash(value.as_bytes()));
        if self.expected.is_some() && self.expected != given {
            return Err(Status::unauthenticated(
                "this worker expects `authorization: Bearer TOKEN` with the token it was started with",
            ));
        }
        Ok(request.into_inner())
    }
}

fn unserved<T>(what: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!(
        "this is a worker: it serves AssignJob and CancelJob, {what} is the server's to serve"
    )))
}

#[tonic::async_trait]
impl WorkerService for Called {
    type JobStreamStream = Pin<Box<dyn futures::Stream<Item = Result<ServerMessage, Status>> + Send>>;

    async fn assign_job(&self, request: Request<AssignJobRequest>) -> Result<Response<JobAccepted>, Status> {
        let AssignJobRequest { job_id, image, command, .. } = self.check(request)?;
        if job_id.is_empty() {
            return Err(Status::invalid_argument("job_id is empty"));
        }
        let assignment = Assignment { job_id: job_id.clone(), image, command, ..Assignment::default() };
        match self.handle.assign(assignment).await {
            Taken::New | Taken::Known => Ok(Response::new(JobAccepted { job_id })),
            Taken::Full => Err(Status::resource_exhausted("worker is full")),
            Taken::Stopping => Err(Status::unavailable("worker is stopping")),
        }
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Result<Response<Empty>, Status> {
        let CancelJobRequest { job_id } = self.check(request)?;
        match self.handle.cancel(job_id).await {
            Cancelled::Asked | Cancelled::Acknowledged => Ok(Response::new(Empty {})),
            Cancelled::Unknown => Err(Status::not_found("this worker has no such job")),
        }
    }

    async fn register_worker(&self, _: Request<WorkerRegistration>) -> Result<Response<WorkerStatus>, Status> {
        unserved("RegisterWorker")
    }

    async fn stream_logs(&self, _: Request<Streaming<LogEntry>>) -> Result<Response<Empty>, Status> {
        unserved("StreamLogs")
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<Empty>, Status> {
        unserved("Heartbeat")
    }

    async fn get_worker_status(&self, _: Request<GetWorkerStatusRequest>) -> Result<Response<WorkerStatus>, Status> {
        unserved("GetWorkerStatus")
    }

    async fn job_stream(&self, _: Request<Streaming<AgentMessage>>) -> Result<Response<Self::JobStreamStream>, Status> {
        unserved("JobStream")
    }

    async fn report_result(&self, _: Request<JobResult>) -> Result<Response<Empty>, Status> {
        unserved("ReportResult")
    }

    async fn upload_artifact(&self, _: Request<Streaming<Empty>>) -> Result<Response<Empty>, Status> {
        unserved("UploadArtifact")
    }

    async fn initiate_upload(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        unserved("InitiateUpload")
    }

    async fn resume_upload(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        unserved("ResumeUpload")
    }

    async fn finalize_upload(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        unserved("FinalizeUpload")
    }
}
