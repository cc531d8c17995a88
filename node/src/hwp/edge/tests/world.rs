//! A node whose disk answers at once and whose tasks run until they are killed; a gateway that says back what it hears.
//!
//! Invariants: as for the real edges, each write is answered exactly once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use starling_core::config::Config;
use starling_core::event::Signer;
use starling_core::facts::{Outcome, Usage};
use starling_core::ids::{GatewayTerm, Hash, NodeId, RunId};
use starling_core::machine::{Command, Effect, Identity, Input, Machine, Recovery, Reply};
use starling_core::namespace::Registry;
use starling_core::resources::Resources;
use starling_core::time::Now;
use starling_proto::hwp::worker_service_client::WorkerServiceClient;
use starling_proto::hwp::worker_service_server::{WorkerService, WorkerServiceServer};
use starling_proto::hwp::{
    AgentMessage, AssignJobRequest, CancelJobRequest, Empty, GetWorkerStatusRequest, HeartbeatRequest, JobAccepted,
    JobResult, LogEntry, ServerMessage, StreamedCancel, WorkerRegistration, WorkerStatus, agent_message,
    server_message,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tonic::codegen::BoxStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use crate::driver::{self, Clock, Edges, Handle};
use crate::hwp::edge::outlook::{Outlook, Route};
use crate::hwp::edge::{Edge, Gateways, Line, Setup, Tls, serve};
use crate::hwp::gateway::{Reach, WorkerLine};
use crate::output::{Files, Pushes, SendPiece, Sent};

/// Longest wait of any test.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for something.
pub(super) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

struct World {
    handle: Handle,
    running: BTreeSet<RunId>,
}

impl Edges for World {
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Write { write, .. } => {
                self.handle.input(Input::Durable(write));
            }
            Effect::Spawn(spawn) => {
                self.running.insert(spawn.run);
            }
            Effect::Kill(run) => {
                if self.running.remove(&run) {
                    let outcome = Outcome::Signal(15);
                    self.handle.input(Input::TaskEnded { run, outcome, usage: Usage::default() });
                }
            }
            Effect::Gossip(_)
            | Effect::Publish(_)
            | Effect::Send { .. }
            | Effect::Serve { .. }
            | Effect::Reply { .. }
            | Effect::Retire(_)
            | Effect::Snapshot(_)
            | Effect::Fetch { .. }
            | Effect::Notice(_) => {}
        }
    }
}

/// A gateway that remembers what it heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Echo {
    /// Calls, each as one line.
    pub(super) heard: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    pub(super) fn line(&self) -> Line {
        Line::new(WorkerServiceServer::new(self.clone()))
    }

    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    fn hear(&self, metadata: &MetadataMap, what: &str) {
        let by = metadata.get("worker-id").map_or("", |id| id.to_str().unwrap());
        self.heard.lock().unwrap().push(format!("{by}:{what}"));
    }
}

#[tonic::async_trait]
impl WorkerService for Echo {
    type JobStreamStream = BoxStream<ServerMessage>;

    async fn register_worker(&self, request: Request<WorkerRegistration>) -> Result<Response<WorkerStatus>, Status> {
        self.hear(request.metadata(), "register");
        let worker_id = request.into_inner().worker_id;
        Ok(Response::new(WorkerStatus { worker_id, state: "ready".to_owned(), ..WorkerStatus::default() }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<Empty>, Status> {
        self.hear(request.metadata(), "heartbeat");
        Ok(Response::new(Empty {}))
    }

    async fn get_worker_status(
        &self,
        request: Request<GetWorkerStatusRequest>,
    ) -> Result<Response<WorkerStatus>, Status> {
        self.hear(request.metadata(), "status");
        Err(Status::not_found("no such worker"))
    }

    async fn report_result(&self, request: Request<JobResult>) -> Result<Response<Empty>, Status> {
        self.hear(request.metadata(), "result");
        Ok(Response::new(Empty {}))
    }

    async fn stream_logs(&self, request: Request<Streaming<LogEntry>>) -> Result<Response<Empty>, Status> {
        self.hear(request.metadata(), "logs");
        let mut entries = request.into_inner();
        while let Some(entry) = entries.message().await? {
            self.heard.lock().unwrap().push(entry.data);
        }
        Ok(Response::new(Empty {}))
    }

    async fn job_stream(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::JobStreamStream>, Status> {
        self.hear(request.metadata(), "stream");
        let echo = |message: Result<AgentMessage, Status>| {
            let job_id = match message?.payload {
                Some(agent_message::Payload::JobAccepted(accepted)) => accepted.job_id,
                Some(agent_message::Payload::LogEntry(entry)) => entry.data,
                Some(agent_message::Payload::JobResult(result)) => result.stdout,
                None => String::new(),
            };
            let cancel = StreamedCancel { job_id, ..StreamedCancel::default() };
            Ok(ServerMessage { payload: Some(server_message::Payload::CancelJob(cancel)) })
        };
        Ok(Response::new(Box::pin(request.into_inner().map(echo))))
    }

    async fn assign_job(&self, _request: Request<AssignJobRequest>) -> Result<Response<JobAccepted>, Status> {
        Err(Status::unimplemented("the edge answers this"))
    }

    async fn cancel_job(&self, _request: Request<CancelJobRequest>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("the edge answers this"))
    }

    async fn upload_artifact(&self, _request: Request<Streaming<Empty>>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("the edge answers this"))
    }

    async fn initiate_upload(&self, _request: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("the edge answers this"))
    }

    async fn resume_upload(&self, _request: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("the edge answers this"))
    }

    async fn finalize_upload(&self, _request: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("the edge answers this"))
    }
}

impl Gateways for Echo {
    fn here(&self) -> Line {
        self.line()
    }

    fn there(&self, _node: NodeId, _term: GatewayTerm) -> Line {
        self.line()
    }

    fn workers_here(&self) -> BoxFuture<'_, Vec<WorkerLine>> {
        std::future::ready(vec![worker("here")]).boxed()
    }

    fn workers_there(&self, _node: NodeId, term: GatewayTerm) -> BoxFuture<'_, Result<Vec<WorkerLine>, String>> {
        std::future::ready(Ok(vec![worker(&format!("there under term {term}"))])).boxed()
    }
}

/// A worker, for people.
pub(super) fn worker(id: &str) -> WorkerLine {
    WorkerLine {
        id: id.to_owned(),
        labels: vec!["docker".to_owned(), "gpu=2".to_owned()],
        slots: 4,
        tasks: vec!["a".to_owned()],
        reach: Reach::Stream,
        attached: true,
        heard: Duration::from_millis(1_500),
        cpu_milli: Some(250),
        mem_bytes: None,
    }
}

/// The outlook where the cluster has no token and the gateway is `node`, under `term`.
pub(super) fn outlook(node: u8, term: u64, line: Line) -> Option<Outlook> {
    let route = Route::To { node: NodeId([node; 32]), term: GatewayTerm(term), line };
    Some(Outlook { tokens: Arc::default(), route, acting: None })
}

/// A serving node.
pub(super) struct Node {
    pub(super) edge: Edge,
    pub(super) handle: Handle,
    pub(super) me: NodeId,
    pub(super) files: Files,
    pub(super) pushes: Pushes,
    pub(super) addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    driver: Option<JoinHandle<()>>,
    _serving: JoinSet<()>,
    _dir: TempDir,
}

/// How a node is made.
pub(super) struct Made {
    pub(super) gateways: Option<Echo>,
    /// In place of what the driver says.
    pub(super) outlooks: Option<watch::Receiver<Option<Outlook>>>,
    pub(super) send: SendPiece,
    pub(super) tls: Option<Tls>,
}

impl Default for Made {
    fn default() -> Self {
        Self { gateways: None, outlooks: None, send: Box::new(|_, _, _, _| Sent::NotLinked), tls: None }
    }
}

impl Node {
    pub(super) async fn start() -> Self {
        Self::made(Made::default()).await
    }

    pub(super) async fn made(made: Made) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let (handle, queue) = driver::channel(clock);
        let total = Resources { cpu_milli: 64_000, mem_bytes: 1 << 30 };
        let identity = Identity { signer: Signer::from_seed(&[1; 32]), secret: [7; 32], boot: 1 };
        let machine = Recovery::new(Config::new("wren", total), Registry::built_in(), identity).finish(clock.now());
        let (me, files) = (machine.me(), Files::under(dir.path()));
        let world = World { handle: handle.clone(), running: BTreeSet::new() };
        let driver = std::thread::spawn(move || driver::run(machine, queue, world));
        let pushes = Pushes::new(me, files.clone(), made.send);
        let edge = match made.outlooks {
            Some(outlooks) => Edge::following(
                Setup {
                    handle: handle.clone(),
                    gateways: Arc::new(Echo::default()),
                    pushes: pushes.clone(),
                    runtime: tokio::runtime::Handle::current(),
                },
                outlooks,
            ),
            None => {
                let gateways = Arc::new(made.gateways.unwrap_or_default());
                Edge::start(Setup {
                    handle: handle.clone(),
                    gateways,
                    pushes: pushes.clone(),
                    runtime: tokio::runtime::Handle::current(),
                })
            }
        };
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = tcp.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut serving = JoinSet::new();
        serving.spawn(serve(edge.clone(), tcp, made.tls, async { drop(stopped.await) }));
        let (stop, driver) = (Some(stop), Some(driver));
        Self { edge, handle, me, files, pushes, addr, stop, driver, _serving: serving, _dir: dir }
    }

    /// A client on a connection of its own.
    pub(super) async fn client(&self) -> WorkerServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addr)).unwrap().timeout(DEADLINE);
        WorkerServiceClient::new(endpoint.connect().await.unwrap())
    }

    pub(super) async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&Machine) -> T + Send + 'static) -> T {
        self.handle.ask(move |machine: &mut Machine, _now: Now| question(machine)).await.unwrap()
    }

    pub(super) async fn add_token(&self, token: &str) {
        let command = Command::AddToken { hash: hash(token), name: token.into() };
        assert_eq!(self.handle.command(command).await.unwrap(), Reply::Noted);
        self.sees(|outlook| outlook.tokens.contains(&hash(token))).await;
    }

    pub(super) async fn revoke_token(&self, token: &str) {
        assert_eq!(self.handle.command(Command::RevokeToken(hash(token))).await.unwrap(), Reply::Noted);
        self.sees(|outlook| !outlook.tokens.contains(&hash(token))).await;
    }

    /// Waits until the edge has heard of it: news take a moment.
    async fn sees(&self, it: impl Fn(&Outlook) -> bool) {
        let mut outlooks = self.edge.outlooks.clone();
        within(outlooks.wait_for(|outlook| outlook.as_ref().is_some_and(&it))).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.handle.input(Input::Shutdown);
        if let Some(driver) = self.driver.take() {
            driver.join().unwrap();
        }
    }
}

fn hash(token: &str) -> Hash {
    Hash(*blake3::hash(token.as_bytes()).as_bytes())
}

/// A request that shows a token.
pub(super) fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// A submission.
pub(super) fn assignment(job_id: &str, command: &[&str]) -> AssignJobRequest {
    let command = command.iter().map(ToString::to_string).collect();
    AssignJobRequest { job_id: job_id.to_owned(), command, ..AssignJobRequest::default() }
}
