//! Workers for loads: each on a connection and a stream of its own, spread over the nodes.
//!
//! Invariants: a worker accepts whatever it is told and answers at once with code 0, or hands it to the load where the command is `HOLD`; when its stream ends it
//! goes on to the next node, for ever, as workers in the field do.
//! Does not: start processes.

use std::time::Duration;

use anyhow::Context as _;
use starling_proto::hwp::agent_message::Payload;
use starling_proto::hwp::server_message::Payload as Wish;
use starling_proto::hwp::worker_service_client::WorkerServiceClient;
use starling_proto::hwp::{
    AgentMessage, HeartbeatRequest, JobAccepted, ServerMessage, StreamedResult, WorkerRegistration,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

/// A client of one node's HWP port.
pub(super) type Client = WorkerServiceClient<Channel>;

/// The command of a task that is accepted and not answered.
pub(super) const HOLD: &str = "hold";
/// As often as workers in the field.
const BEAT_EVERY: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Before the next node is tried; our own worker waits as long.
const REST: Duration = Duration::from_millis(100);
/// What a worker has said and is not sent yet. Full: it waits.
const SAID: usize = 64;

/// A task that was accepted and is kept running.
#[derive(Debug)]
pub(super) struct Held {
    /// The assignment's id.
    pub(super) id: String,
    say: mpsc::Sender<AgentMessage>,
}

impl Held {
    /// Ends it.
    pub(super) async fn finish(self) -> anyhow::Result<()> {
        self.say.send(result(self.id)).await.context("the held task's worker has lost its stream")
    }
}

/// Running workers; all end when it is dropped.
#[derive(Debug)]
pub(super) struct Flock {
    attached: watch::Receiver<usize>,
    held: mpsc::Receiver<Held>,
    _workers: JoinSet<()>,
}

impl Flock {
    /// Starts `count` workers with one slot each, the first at the first address and so on.
    pub(super) fn start(count: usize, addresses: &[String]) -> Self {
        let (attached_tx, attached) = watch::channel(0);
        let (held_tx, held) = mpsc::channel(1);
        let mut workers = JoinSet::new();
        for number in 0..count {
            let (attached, held) = (attached_tx.clone(), held_tx.clone());
            workers.spawn(Worker { number, addresses: addresses.to_vec(), attached, held }.run());
        }
        Self { attached, held, _workers: workers }
    }

    /// Waits until so many hold a stream that was answered.
    pub(super) async fn attached(&mut self, count: usize) -> anyhow::Result<()> {
        self.attached.wait_for(|attached| *attached == count).await.context("the workers have ended")?;
        Ok(())
    }

    /// The next task that is held.
    pub(super) async fn held(&mut self) -> anyhow::Result<Held> {
        self.held.recv().await.context("the workers have ended")
    }
}

/// Connects to a node's HWP port.
pub(super) async fn connect(address: &str) -> anyhow::Result<Client> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    let channel = endpoint.connect_timeout(CONNECT_WITHIN).connect().await;
    Ok(WorkerServiceClient::new(channel.with_context(|| format!("connecting to {address}"))?))
}

struct Worker {
    number: usize,
    addresses: Vec<String>,
    attached: watch::Sender<usize>,
    held: mpsc::Sender<Held>,
}

/// Counts as attached until it is dropped.
struct Attached<'a>(&'a watch::Sender<usize>);

impl<'a> Attached<'a> {
    fn at(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Worker {
    async fn run(self) {
        for at in self.addresses.iter().cycle().skip(self.number % self.addresses.len()) {
            // Whatever ended it, the next node is asked.
            let _ended = self.session(at).await;
            tokio::time::sleep(REST).await;
        }
    }

    async fn session(&self, address: &str) -> anyhow::Result<()> {
        let mut client = connect(address).await?;
        let worker_id = format!("bench-{}", self.number);
        let capabilities = vec!["bench".to_owned(), "slots=1".to_owned()];
        client.register_worker(WorkerRegistration { worker_id: worker_id.clone(), capabilities }).await?;
        let (say, said) = mpsc::channel(SAID);
        let mut request = Request::new(ReceiverStream::new(said));
        request.metadata_mut().insert("worker-id", worker_id.parse()?);
        let told = client.job_stream(request).await?.into_inner();
        let _attached = Attached::at(&self.attached);
        tokio::select! {
            ended = self.work(told, say) => ended,
            ended = beat(client, worker_id) => ended,
        }
    }

    async fn work(&self, mut told: Streaming<ServerMessage>, say: mpsc::Sender<AgentMessage>) -> anyhow::Result<()> {
        while let Some(message) = told.message().await? {
            let Some(Wish::AssignJob(task)) = message.payload else { continue };
            let accepted = Payload::JobAccepted(JobAccepted { job_id: task.job_id.clone() });
            say.send(AgentMessage { payload: Some(accepted) }).await?;
            let program = task.job_spec.as_ref().and_then(|spec| spec.command.last());
            if program.is_some_and(|program| program == HOLD) {
                self.held.send(Held { id: task.job_id, say: say.clone() }).await?;
            } else {
                say.send(result(task.job_id)).await?;
            }
        }
        Ok(())
    }
}

fn result(job_id: String) -> AgentMessage {
    AgentMessage { payload: Some(Payload::JobResult(StreamedResult { job_id, ..StreamedResult::default() })) }
}

async fn beat(mut client: Client, worker_id: String) -> anyhow::Result<()> {
    let mut beats = tokio::time::interval(BEAT_EVERY);
    loop {
        beats.tick().await;
        client.heartbeat(HeartbeatRequest { worker_id: worker_id.clone(), ..HeartbeatRequest::default() }).await?;
    }
}
