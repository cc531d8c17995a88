//! Workers that listen.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures::stream;
use starling_core::event::WorkSpec;
use starling_core::facts::Outcome;
use starling_proto::hwp;
use starling_proto::hwp::worker_service_client::WorkerServiceClient;
use starling_proto::hwp::worker_service_server::{WorkerService, WorkerServiceServer};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::world::*;
use crate::exec::output::Stream;
use crate::hwp::id::AssignmentId;

type Answer<T> = Result<Response<T>, Status>;

/// What the worker was called for.
#[derive(Debug)]
enum Heard {
    Assign(hwp::AssignJobRequest),
    Cancel(String),
}

/// A worker as others build them: it knows the published calls.
#[derive(Clone)]
struct Listener {
    heard: mpsc::Sender<Heard>,
    /// So many calls it refuses at first.
    refuses: Arc<AtomicU32>,
    tokens: Arc<Mutex<Vec<String>>>,
}

fn no<T>() -> Answer<T> {
    Err(Status::unimplemented("not this one"))
}

#[tonic::async_trait]
impl WorkerService for Listener {
    type JobStreamStream = stream::Empty<Result<hwp::ServerMessage, Status>>;

    async fn assign_job(&self, request: Request<hwp::AssignJobRequest>) -> Answer<hwp::JobAccepted> {
        if let Some(token) = request.metadata().get("authorization") {
            self.tokens.lock().unwrap().push(token.to_str().unwrap().to_owned());
        }
        let refuse = |left: u32| left.checked_sub(1);
        if self.refuses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refuse).is_ok() {
            return Err(Status::unavailable("in a moment"));
        }
        let request = request.into_inner();
        let job_id = request.job_id.clone();
        self.heard.send(Heard::Assign(request)).await.unwrap();
        Ok(Response::new(hwp::JobAccepted { job_id }))
    }

    async fn cancel_job(&self, request: Request<hwp::CancelJobRequest>) -> Answer<hwp::Empty> {
        self.heard.send(Heard::Cancel(request.into_inner().job_id)).await.unwrap();
        Ok(Response::new(hwp::Empty {}))
    }

    async fn register_worker(&self, _: Request<hwp::WorkerRegistration>) -> Answer<hwp::WorkerStatus> {
        no()
    }

    async fn stream_logs(&self, _: Request<Streaming<hwp::LogEntry>>) -> Answer<hwp::Empty> {
        no()
    }

    async fn heartbeat(&self, _: Request<hwp::HeartbeatRequest>) -> Answer<hwp::Empty> {
        no()
    }

    async fn get_worker_status(&self, _: Request<hwp::GetWorkerStatusRequest>) -> Answer<hwp::WorkerStatus> {
        no()
    }

    async fn job_stream(&self, _: Request<Streaming<hwp::AgentMessage>>) -> Answer<Self::JobStreamStream> {
        no()
    }

    async fn report_result(&self, _: Request<hwp::JobResult>) -> Answer<hwp::Empty> {
        no()
    }

    async fn upload_artifact(&self, _: Request<Streaming<hwp::Empty>>) -> Answer<hwp::Empty> {
        no()
    }

    async fn initiate_upload(&self, _: Request<hwp::Empty>) -> Answer<hwp::Empty> {
        no()
    }

    async fn resume_upload(&self, _: Request<hwp::Empty>) -> Answer<hwp::Empty> {
        no()
    }

    async fn finalize_upload(&self, _: Request<hwp::Empty>) -> Answer<hwp::Empty> {
        no()
    }
}

struct Called {
    heard: mpsc::Receiver<Heard>,
    reported: BTreeSet<String>,
    tokens: Arc<Mutex<Vec<String>>>,
    client: WorkerServiceClient<Channel>,
    endpoint: String,
    /// A runtime of its own: its connections end with it.
    server: Option<Runtime>,
}

impl Called {
    async fn start(node: &Node, refuses: u32) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("endpoint=http://{}", listener.local_addr().unwrap());
        let (tx, heard) = mpsc::channel(64);
        let tokens = Arc::default();
        let service = Listener { heard: tx, refuses: Arc::new(AtomicU32::new(refuses)), tokens: Arc::clone(&tokens) };
        let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = listener.into_std().unwrap();
        server.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let builder = &mut tonic::transport::Server::builder();
            let router = builder.add_service(WorkerServiceServer::new(service));
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { heard, reported: BTreeSet::new(), tokens, client: node.connect().await, endpoint, server: Some(server) }
    }

    fn kill(&mut self) {
        self.server.take().unwrap().shutdown_background();
    }

    async fn register(&mut self, capabilities: &[&str]) {
        let capabilities = capabilities.iter().copied().chain([self.endpoint.as_str()]).map(String::from).collect();
        let mut request = Request::new(hwp::WorkerRegistration { worker_id: "d1".to_owned(), capabilities });
        request.metadata_mut().insert("authorization", "Bearer T".parse().unwrap());
        self.client.register_worker(request).await.unwrap();
    }

    /// The next call. Passes over a cancel of what it has reported: the report may overtake the answer to the call that gave it, and the cancel then makes sure.
    async fn hears(&mut self) -> Heard {
        loop {
            match soon(self.heard.recv()).await.unwrap() {
                Heard::Cancel(job_id) if self.reported.contains(&job_id) => {}
                heard => return heard,
            }
        }
    }

    async fn is_given(&mut self) -> hwp::AssignJobRequest {
        match self.hears().await {
            Heard::Assign(request) => request,
            other @ Heard::Cancel(_) => panic!("{other:?}"),
        }
    }

    async fn reports(&mut self, job_id: &str, exit_code: i32) {
        self.reported.insert(job_id.to_owned());
        let report = hwp::JobResult { job_id: job_id.to_owned(), exit_code };
        self.client.report_result(report).await.unwrap();
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
    }
}

fn assigned(job_id: &str) -> Assigned {
    Assigned { job_id: job_id.to_owned(), id: AssignmentId::parse(job_id).unwrap(), spec: hwp::JobSpec::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_listens_is_called_and_reports() {
    let node = Node::with(super::super::Options { accept_ms: 10_000, stop_ms: 10_000, ..QUICK }).await;
    let mut worker = Called::start(&node, 2).await;
    worker.register(&["w", "slots=2"]).await;
    let job = node.submit("w", &["echo", "a"], 1, WorkSpec::new()).await;
    let request = worker.is_given().await;
    assert_eq!(request.command[0], "env", "{:?}", request.command);
    let line = |data: &str| hwp::LogEntry { job_id: request.job_id.clone(), data: data.to_owned() };
    worker.client.stream_logs(stream::iter([line("one"), line("two")])).await.unwrap();
    worker.reports(&request.job_id, 0).await;
    node.ended(job, Outcome::Exit(0), 1).await;
    assert_eq!(node.output(&assigned(&request.job_id), Stream::Out), "one\ntwo\n");
    assert_eq!(*worker.tokens.lock().unwrap(), ["Bearer T", "Bearer T", "Bearer T"], "two calls were tried again");
    worker.reports(&request.job_id, 5).await;
    let job = node.submit("w", &["echo", "a"], 1, WorkSpec::new()).await;
    let request = worker.is_given().await;
    node.cancel(job).await;
    match worker.hears().await {
        Heard::Cancel(job_id) => assert_eq!(job_id, request.job_id),
        other @ Heard::Assign(_) => panic!("{other:?}"),
    }
    worker.reports(&request.job_id, -1).await;
    node.ended(job, Outcome::Cancelled, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_does_not_answer_any_more_is_given_up() {
    let node = Node::start().await;
    let mut worker = Called::start(&node, 0).await;
    worker.register(&["w"]).await;
    let job = node.submit("w", &["x"], 1, WorkSpec::new().with("retries", starling_core::event::Value::int(2))).await;
    let first = worker.is_given().await;
    worker.kill();
    node.list(<[_]>::is_empty).await;
    let mut other = node.worker("w2", &["w"]).await;
    let second = other.accepts().await;
    assert_ne!(second.job_id, first.job_id);
    other.ends(&second, 0).await;
    node.ended(job, Outcome::Exit(0), 1).await;
}
