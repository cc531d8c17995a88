//! A server of the protocol for tests: tells the test all it hears, and sends what the test wants.
//!
//! Invariants: it serves what servers in the field serve, and checks the token.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use starling_proto::hwp::agent_message::Payload;
use starling_proto::hwp::worker_service_server::{WorkerService, WorkerServiceServer};
use starling_proto::hwp::{
    AgentMessage, AssignJobRequest, CancelJobRequest, Empty, GetWorkerStatusRequest, HeartbeatRequest, JobAccepted,
    JobResult, LogEntry, ServerMessage, WorkerRegistration, WorkerStatus, server_message,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// What the server hears that the test has not taken.
const HEARD: usize = 100_000;

/// How a server treats the worker's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Reads,
    /// Takes the stream and never looks at it.
    Ignores,
}

#[derive(Debug)]
pub(super) enum Heard {
    Registered(WorkerRegistration),
    /// A stream of a worker; what `Server::send` sends goes there from now on.
    Opened,
    /// The worker ended its stream.
    Closed,
    Said(Payload),
    Beat(HeartbeatRequest),
    Logged(LogEntry),
    Reported(JobResult),
}

type Sender = mpsc::Sender<Result<ServerMessage, Status>>;

pub(super) struct Server {
    pub(super) url: String,
    pub(super) heard: mpsc::Receiver<Heard>,
    shared: Arc<Shared>,
    serving: tokio::task::AbortHandle,
}

struct Shared {
    heard: mpsc::Sender<Heard>,
    to: Mutex<Option<Sender>>,
    way: Mutex<Way>,
    token: Option<String>,
    /// How many reports are refused before one is taken.
    refuse_reports: Mutex<usize>,
    refused: Mutex<usize>,
}

impl Server {
    pub(super) async fn start(token: Option<&str>, way: Way) -> Self {
        Self::with(token, way, tonic::transport::Server::builder()).await
    }

    /// As `start`, with certificates or whatever else `builder` was given.
    pub(super) async fn with(token: Option<&str>, way: Way, mut builder: tonic::transport::Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (heard_tx, heard) = mpsc::channel(HEARD);
        let shared = Arc::new(Shared {
            heard: heard_tx,
            to: Mutex::new(None),
            way: Mutex::new(way),
            token: token.map(str::to_owned),
            refuse_reports: Mutex::new(0),
            refused: Mutex::new(0),
        });
        let service = WorkerServiceServer::new(Service(Arc::clone(&shared)));
        let serve = builder.add_service(service);
        let serving = serve.serve_with_incoming(TcpListenerStream::new(listener));
        let serving = tokio::runtime::Handle::current().spawn(serving).abort_handle();
        Self { url, heard, shared, serving }
    }

    pub(super) fn send(&self, payload: server_message::Payload) {
        let to = self.shared.to.lock().unwrap().clone().expect("a worker is attached");
        to.try_send(Ok(ServerMessage { payload: Some(payload) })).unwrap();
    }

    /// Ends the worker's stream.
    pub(super) fn hang_up(&self, status: Option<Status>) {
        let to = self.shared.to.lock().unwrap().take().expect("a worker is attached");
        if let Some(status) = status {
            to.try_send(Err(status)).unwrap();
        }
    }

    /// From the next stream on.
    pub(super) fn way(&self, way: Way) {
        *self.shared.way.lock().unwrap() = way;
    }

    pub(super) fn refuse_reports(&self, count: usize) {
        *self.shared.refuse_reports.lock().unwrap() = count;
    }

    /// Calls with a wrong token so far.
    pub(super) fn refused(&self) -> usize {
        *self.shared.refused.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Service(Arc<Shared>);

impl Service {
    async fn hear(&self, heard: Heard) {
        // The test may have heard enough.
        let _over = self.0.heard.send(heard).await;
    }

    fn check<T>(&self, request: Request<T>) -> Result<T, Status> {
        let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let expected = self.0.token.as_ref().map(|token| format!("Bearer {token}"));
        if expected.as_deref() != given {
            *self.0.refused.lock().unwrap() += 1;
            return Err(Status::unauthenticated("wrong token"));
        }
        Ok(request.into_inner())
    }
}

#[tonic::async_trait]
impl WorkerService for Service {
    type JobStreamStream = Pin<Box<dyn futures::Stream<Item = Result<ServerMessage, Status>> + Send>>;

    async fn register_worker(&self, request: Request<WorkerRegistration>) -> Result<Response<WorkerStatus>, Status> {
        let registration = self.check(request)?;
        self.hear(Heard::Registered(registration)).await;
        Ok(Response::new(WorkerStatus { state: "ready".to_owned(), ..WorkerStatus::default() }))
    }

    async fn job_stream(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::JobStreamStream>, Status> {
        assert_eq!(request.metadata().get("worker-id").unwrap(), "w1");
        let mut said = self.check(request)?;
        let (to, messages) = mpsc::channel(1_000);
        *self.0.to.lock().unwrap() = Some(to);
        let heard = self.0.heard.clone();
        let way = *self.0.way.lock().unwrap();
        self.hear(Heard::Opened).await;
        tokio::runtime::Handle::current().spawn(async move {
            if way == Way::Ignores {
                // Holds the stream until the worker goes.
                heard.closed().await;
                return drop(said);
            }
            while let Some(Ok(message)) = said.next().await {
                if heard.send(Heard::Said(message.payload.unwrap())).await.is_err() {
                    return;
                }
            }
            let _over = heard.send(Heard::Closed).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<Empty>, Status> {
        let beat = self.check(request)?;
        self.hear(Heard::Beat(beat)).await;
        Ok(Response::new(Empty {}))
    }

    async fn stream_logs(&self, request: Request<Streaming<LogEntry>>) -> Result<Response<Empty>, Status> {
        let mut entries = self.check(request)?;
        while let Some(entry) = entries.next().await {
            self.hear(Heard::Logged(entry?)).await;
        }
        Ok(Response::new(Empty {}))
    }

    async fn report_result(&self, request: Request<JobResult>) -> Result<Response<Empty>, Status> {
        let result = self.check(request)?;
        let refuse = {
            let mut left = self.0.refuse_reports.lock().unwrap();
            let refuse = *left > 0;
            *left = left.saturating_sub(1);
            refuse
        };
        if refuse {
            return Err(Status::unavailable("not now"));
        }
        self.hear(Heard::Reported(result)).await;
        Ok(Response::new(Empty {}))
    }

    async fn assign_job(&self, _: Request<AssignJobRequest>) -> Result<Response<JobAccepted>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_job(&self, _: Request<CancelJobRequest>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_worker_status(&self, _: Request<GetWorkerStatusRequest>) -> Result<Response<WorkerStatus>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn upload_artifact(&self, _: Request<Streaming<Empty>>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn initiate_upload(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn resume_upload(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn finalize_upload(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(""))
    }
}
