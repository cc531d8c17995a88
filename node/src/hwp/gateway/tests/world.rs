//! A node with a disk that is always done and no room of its own, so that jobs run on workers or not at all; and what plays a worker.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use starling_core::config::Config;
use starling_core::event::{Signer, Value, WorkSpec};
use starling_core::facts::Outcome;
use starling_core::ids::{JobId, NodeId};
use starling_core::lattice::IntervalSet;
use starling_core::machine::{AckLevel, Command, Effect, Identity, Input, Machine, Recovery, Reply, Submission};
use starling_core::namespace::Registry;
use starling_core::resources::Resources;
use starling_proto::hwp;
use starling_proto::hwp::worker_service_client::WorkerServiceClient;
use starling_proto::hwp::worker_service_server::WorkerServiceServer;
use starling_proto::hwp::{agent_message, server_message};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::driver::{self, Clock, Edges};
use crate::exec::output::Stream;
use crate::hwp::gateway::{Handle, MESSAGE_BYTES_MAX, Options, start_with};
use crate::hwp::id::AssignmentId;
use crate::output::{Files, Place, Which};

/// Longest wait of any test.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// Bounds that tests reach.
pub(super) const QUICK: Options = Options {
    lease_ms: 600,
    accept_ms: 600,
    stop_ms: 600,
    silence_ms: 20_000,
    park_ms: 300,
    probe_ms: 200,
    output_bytes_max: 1 << 20,
};

/// Waits for a future, but not for ever.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it should have happened by now")
}

struct World {
    driver: driver::Handle,
    gateway: Arc<OnceLock<Handle>>,
}

impl Edges for World {
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Write { write, .. } => assert!(self.driver.input(Input::Durable(write))),
            Effect::Spawn(spawn) => assert!(self.gateway.get().unwrap().assign(*spawn)),
            Effect::Kill(run) => self.gateway.get().unwrap().kill(run),
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

/// What was told of complete output: the place, and the lengths of both streams.
pub(super) type Told = std::sync::mpsc::Receiver<(Place, u64, u64)>;

/// A node that is the gateway.
pub(super) struct Node {
    pub(super) driver: driver::Handle,
    pub(super) gateway: Handle,
    pub(super) files: Files,
    pub(super) client: WorkerServiceClient<Channel>,
    pub(super) told: Told,
    url: String,
    _server: JoinSet<()>,
    _dir: TempDir,
}

impl Node {
    pub(super) async fn start() -> Self {
        Self::with(QUICK).await
    }

    pub(super) async fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let (driver, queue) = driver::channel(clock);
        let identity = Identity { signer: Signer::from_seed(&[1; 32]), secret: [7; 32], boot: 1 };
        let quick =
            Config { presence_ms: 50, suspect_ms: 500, settle_ms: 20, ..Config::new("wren", Resources::default()) };
        let machine = Recovery::new(quick, Registry::built_in(), identity).finish(clock.now());
        let me = machine.me();
        let cell = Arc::new(OnceLock::new());
        let world = World { driver: driver.clone(), gateway: Arc::clone(&cell) };
        let files = Files::under(dir.path());
        let (tell, told) = std::sync::mpsc::channel();
        let tails: super::super::Tails = Arc::new(move |place, output| {
            let _over = tell.send((*place, output.out.len, output.err.len));
        });
        let runtime = tokio::runtime::Handle::current();
        let gateway = start_with(driver.clone(), files.clone(), me, tails, options, &runtime).unwrap();
        cell.set(gateway.clone()).unwrap();
        std::thread::spawn(move || driver::run(machine, queue, world));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service =
            WorkerServiceServer::new(gateway.service("here".to_owned())).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        let client = connect(&url).await;
        let node = Self { driver, gateway, files, client, told, url, _server: server, _dir: dir };
        soon(async { while node.probe().await.is_err() {} }).await;
        node
    }

    /// Fails while the node does not act.
    async fn probe(&self) -> Result<(), Status> {
        tokio::task::yield_now().await;
        let beat = hwp::HeartbeatRequest { worker_id: "probe".to_owned(), ..hwp::HeartbeatRequest::default() };
        self.client.clone().heartbeat(beat).await.map(|_empty| ())
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn me(&self) -> NodeId {
        Signer::from_seed(&[1; 32]).node()
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> WorkerServiceClient<Channel> {
        connect(&self.url).await
    }

    pub(super) async fn register(&self, worker: &str, capabilities: &[&str]) -> Result<(), Status> {
        let capabilities = capabilities.iter().map(ToString::to_string).collect();
        let registration = hwp::WorkerRegistration { worker_id: worker.to_owned(), capabilities };
        let status = self.client.clone().register_worker(registration).await?.into_inner();
        assert_eq!(status.state, "ready");
        Ok(())
    }

    /// A registered worker with a stream.
    pub(super) async fn worker(&self, name: &str, capabilities: &[&str]) -> Worker {
        self.register(name, capabilities).await.unwrap();
        self.stream(name).await
    }

    pub(super) async fn stream(&self, name: &str) -> Worker {
        let mut client = self.connect().await;
        let (tx, rx) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(rx));
        request.metadata_mut().insert("worker-id", name.parse().unwrap());
        let told = soon(client.job_stream(request)).await.unwrap().into_inner();
        Worker { tx, told, name: name.to_owned() }
    }

    /// Submits a job for workers with this label.
    pub(super) async fn submit(&self, label: &str, command: &[&str], tasks: u32, more: WorkSpec) -> JobId {
        let texts = |words: &[&str]| Value::List(words.iter().map(|word| Value::text(*word)).collect());
        let spec = more.with("command", texts(command)).with("constraint", texts(&[label]));
        let submission = Submission {
            ns: "batch".into(),
            kind: "".into(),
            tasks: IntervalSet::from_range(0, tasks - 1),
            priority: 0,
            spec,
            ack: AckLevel::Local,
        };
        match self.driver.command(Command::Submit(Box::new(submission))).await.unwrap() {
            Reply::Submitted { job, .. } => job,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn cancel(&self, job: JobId) {
        let reply = self.driver.command(Command::Cancel(job)).await.unwrap();
        assert_eq!(reply, Reply::Cancelled);
    }

    /// Waits until so many tasks of the job ended so.
    pub(super) async fn ended(&self, job: JobId, outcome: Outcome, count: u64) {
        let all = async {
            loop {
                let outcomes = self.outcomes(job).await;
                let found: u64 = outcomes.iter().filter(|(found, _)| *found == outcome).map(|(_, count)| count).sum();
                if found >= count {
                    return;
                }
                assert!(!outcomes.iter().any(|(found, _)| *found != outcome), "{outcomes:?}, not {outcome:?}");
                tokio::task::yield_now().await;
            }
        };
        soon(all).await;
    }

    pub(super) async fn outcomes(&self, job: JobId) -> Vec<(Outcome, u64)> {
        let look = move |machine: &mut Machine, _now| -> Vec<(Outcome, u64)> {
            let job = machine.facts().job(&job).unwrap();
            job.outcomes().into_iter().map(|(outcome, tasks)| (outcome, tasks.len())).collect()
        };
        self.driver.ask(look).await.unwrap()
    }

    /// The output of a task so far.
    pub(super) fn output(&self, task: &Assigned, stream: Stream) -> String {
        let AssignmentId { grant, task } = task.id;
        let (bytes, _) = self.files.read(Which::Full, &Place { grant, task }, stream, 0, usize::MAX).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last KiB of a task's standard output.
    pub(super) fn tail(&self, task: &Assigned) -> String {
        let AssignmentId { grant, task } = task.id;
        let bytes = std::fs::read(crate::exec::output::path(&self.files.prefix(&Place { grant, task }), Stream::Out));
        let bytes = bytes.unwrap();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(1 << 10)..]).into_owned()
    }

    /// Waits until whatever the worker has said is taken: its lines follow.
    pub(super) async fn accepted(&self, worker: &Worker, task: &Assigned) {
        worker.logs(task, "begun").await;
        soon(async {
            while self.output(task, Stream::Out).is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Waits until the gateway's list of workers is as wanted.
    pub(super) async fn list(&self, is_so: impl Fn(&[super::super::WorkerLine]) -> bool) {
        let until = async {
            while !is_so(&self.gateway.list().await) {
                tokio::task::yield_now().await;
            }
        };
        soon(until).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.driver.try_input(Input::Shutdown);
    }
}

async fn connect(url: &str) -> WorkerServiceClient<Channel> {
    WorkerServiceClient::connect(url.to_owned()).await.unwrap()
}

/// What a worker was given.
#[derive(Clone, Debug)]
pub(super) struct Assigned {
    pub(super) job_id: String,
    pub(super) id: AssignmentId,
    pub(super) spec: hwp::JobSpec,
}

/// A worker with a stream, as others build them.
pub(super) struct Worker {
    pub(super) tx: mpsc::Sender<hwp::AgentMessage>,
    pub(super) told: Streaming<hwp::ServerMessage>,
    name: String,
}

impl Worker {
    pub(super) async fn say(&self, payload: agent_message::Payload) {
        soon(self.tx.send(hwp::AgentMessage { payload: Some(payload) })).await.unwrap();
    }

    /// What it hears next.
    pub(super) async fn hears(&mut self) -> Result<server_message::Payload, Status> {
        let message = soon(self.told.message()).await?;
        Ok(message.ok_or_else(|| Status::ok("over"))?.payload.unwrap())
    }

    /// A task, accepted.
    pub(super) async fn accepts(&mut self) -> Assigned {
        let assigned = self.is_given().await;
        self.say(agent_message::Payload::JobAccepted(hwp::JobAccepted { job_id: assigned.job_id.clone() })).await;
        assigned
    }

    /// A task.
    pub(super) async fn is_given(&mut self) -> Assigned {
        match self.hears().await.unwrap() {
            server_message::Payload::AssignJob(assign) => {
                assert_eq!(assign.worker_id, self.name);
                let id = AssignmentId::parse(&assign.job_id).unwrap();
                Assigned { id, job_id: assign.job_id, spec: assign.job_spec.unwrap() }
            }
            other @ server_message::Payload::CancelJob(_) => panic!("{other:?}"),
        }
    }

    /// A cancel; the id in it.
    pub(super) async fn is_cancelled(&mut self) -> String {
        match self.hears().await.unwrap() {
            server_message::Payload::CancelJob(cancel) => cancel.job_id,
            other @ server_message::Payload::AssignJob(_) => panic!("{other:?}"),
        }
    }

    pub(super) async fn logs(&self, task: &Assigned, data: &str) {
        let entry = hwp::LogEntry { job_id: task.job_id.clone(), data: data.to_owned() };
        self.say(agent_message::Payload::LogEntry(entry)).await;
    }

    pub(super) async fn ends(&self, task: &Assigned, exit_code: i32) {
        self.results(result(task, exit_code)).await;
    }

    pub(super) async fn results(&self, result: hwp::StreamedResult) {
        self.say(agent_message::Payload::JobResult(result)).await;
    }
}

pub(super) fn result(task: &Assigned, exit_code: i32) -> hwp::StreamedResult {
    hwp::StreamedResult { job_id: task.job_id.clone(), exit_code, ..hwp::StreamedResult::default() }
}
