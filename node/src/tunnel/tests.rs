//! The worker protocol through tunnels between two real networks on loopback.
//!
//! Invariants: no test sleeps; each waits for a condition with a deadline.
//! Does not: test what tunnels do below gRPC (`starling-net`).

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use starling_core::ids::NodeId;
use starling_net::{Config, Event, Events, PeerKey, TunnelError, start};
use starling_proto::hwp::worker_service_client::WorkerServiceClient;
use starling_proto::hwp::worker_service_server::{WorkerService, WorkerServiceServer};
use starling_proto::hwp::{
    AgentMessage, AssignJobRequest, CancelJobRequest, Empty, GetWorkerStatusRequest, HeartbeatRequest, JobAccepted,
    JobResult, LogEntry, ServerMessage, StreamedCancel, WorkerRegistration, WorkerStatus, agent_message,
    server_message,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Admit, Opening, Peer, Tunnels, channel, connections, server, unopened};

const DEADLINE: Duration = Duration::from_secs(20);
/// For links that are to be cut; others have the default, which a busy machine does not exceed.
const SILENCE: Duration = Duration::from_secs(1);
const TERM: u64 = 7;

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("not in {DEADLINE:?}: {what}"),
    }
}

/// Answers with what it was asked, and with who asked.
#[derive(Debug)]
struct Echo;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl WorkerService for Echo {
    type JobStreamStream = Pin<Box<dyn Stream<Item = Result<ServerMessage, Status>> + Send>>;

    async fn register_worker(&self, request: Request<WorkerRegistration>) -> Answer<WorkerStatus> {
        let peer: Peer = *request.extensions().get().expect("tonic gives what `Connected` says");
        let state = format!("{} {}", peer.node, peer.term);
        Ok(Response::new(WorkerStatus { worker_id: request.into_inner().worker_id, state, ..WorkerStatus::default() }))
    }

    /// Cancels each job that is accepted. With metadata `unread` it takes nothing, for ever.
    async fn job_stream(&self, request: Request<Streaming<AgentMessage>>) -> Answer<Self::JobStreamStream> {
        let unread = request.metadata().contains_key("unread");
        let messages = request.into_inner();
        if unread {
            let held = futures::stream::pending::<Result<ServerMessage, Status>>().map(move |message| {
                let _held = &messages;
                message
            });
            return Ok(Response::new(Box::pin(held)));
        }
        Ok(Response::new(Box::pin(messages.map(|message| {
            let Some(agent_message::Payload::JobAccepted(JobAccepted { job_id })) = message?.payload else {
                return Err(Status::invalid_argument("only job_accepted"));
            };
            let cancel = StreamedCancel { job_id, ..StreamedCancel::default() };
            Ok(ServerMessage { payload: Some(server_message::Payload::CancelJob(cancel)) })
        }))))
    }

    async fn stream_logs(&self, request: Request<Streaming<LogEntry>>) -> Answer<Empty> {
        let mut entries = request.into_inner();
        while entries.message().await?.is_some() {}
        Ok(Response::new(Empty {}))
    }

    async fn assign_job(&self, _: Request<AssignJobRequest>) -> Answer<JobAccepted> {
        Err(Status::unimplemented(""))
    }
    async fn cancel_job(&self, _: Request<CancelJobRequest>) -> Answer<Empty> {
        Err(Status::unimplemented(""))
    }
    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Answer<Empty> {
        Err(Status::unimplemented(""))
    }
    async fn get_worker_status(&self, _: Request<GetWorkerStatusRequest>) -> Answer<WorkerStatus> {
        Err(Status::unimplemented(""))
    }
    async fn report_result(&self, _: Request<JobResult>) -> Answer<Empty> {
        Err(Status::unimplemented(""))
    }
    async fn upload_artifact(&self, _: Request<Streaming<Empty>>) -> Answer<Empty> {
        Err(Status::unimplemented(""))
    }
    async fn initiate_upload(&self, _: Request<Empty>) -> Answer<Empty> {
        Err(Status::unimplemented(""))
    }
    async fn resume_upload(&self, _: Request<Empty>) -> Answer<Empty> {
        Err(Status::unimplemented(""))
    }
    async fn finalize_upload(&self, _: Request<Empty>) -> Answer<Empty> {
        Err(Status::unimplemented(""))
    }
}

fn config(seed: u8, join: &[SocketAddr]) -> Config {
    let mut config = Config::new([seed; 32], [1; 32], [2; 32]);
    config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.join = join.to_vec();
    config
}

/// One node's network with its tunnels.
struct Node {
    net: starling_net::Handle,
    events: Events,
    tunnels: Tunnels,
    id: NodeId,
    tasks: JoinSet<()>,
}

impl Node {
    fn start(config: Config) -> Self {
        let id = NodeId(PeerKey::from_seed(config.seed).0);
        let (net, events, incoming) = start(config).unwrap();
        let tunnels = Tunnels::new(net.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(tunnels.clone().run(incoming));
        Self { net, events, tunnels, id, tasks }
    }

    async fn linked(&mut self, to: NodeId) {
        let up = async {
            loop {
                if let Event::LinkUp { peer, .. } = self.events.recv().await.expect("the network runs")
                    && peer.0 == to.0
                {
                    break;
                }
            }
        };
        within("a link", up).await;
    }

    /// Serves the worker protocol to tunnels of `TERM`.
    fn serve(&mut self) {
        let incoming = self.tunnels.register("hwp", this_term());
        let serving = server().add_service(WorkerServiceServer::new(Echo)).serve_with_incoming(connections(incoming));
        self.tasks.spawn(async { serving.await.unwrap() });
    }

    fn client(&self, of: NodeId) -> WorkerServiceClient<Channel> {
        WorkerServiceClient::new(channel(&self.tunnels, of, "hwp", TERM))
    }
}

fn this_term() -> Admit {
    Box::new(|_from, term| if term == TERM { Ok(()) } else { Err(format!("the term is {TERM}, not {term}")) })
}

/// A gateway that serves, and another node linked to it.
async fn pair() -> (Node, Node) {
    let mut gateway = Node::start(config(1, &[]));
    let mut other = Node::start(config(2, &gateway.net.listening()));
    gateway.linked(other.id).await;
    other.linked(gateway.id).await;
    gateway.serve();
    (gateway, other)
}

fn accepted(job: usize) -> AgentMessage {
    let accepted = JobAccepted { job_id: job.to_string() };
    AgentMessage { payload: Some(agent_message::Payload::JobAccepted(accepted)) }
}

fn cancelled(message: Option<ServerMessage>) -> String {
    match message.and_then(|message| message.payload) {
        Some(server_message::Payload::CancelJob(cancel)) => cancel.job_id,
        other => panic!("{other:?}"),
    }
}

async fn register(client: &mut WorkerServiceClient<Channel>) -> Result<WorkerStatus, Status> {
    let registration = WorkerRegistration { worker_id: "w".to_owned(), capabilities: Vec::new() };
    within("an answer", client.register_worker(registration)).await.map(Response::into_inner)
}

#[test]
fn opening_is_frozen() {
    let opening = Opening { purpose: "hwp".to_owned(), term: TERM };
    let bytes = crate::wire::encode(&opening);
    assert_eq!(bytes[..], [0x82, 0x63, b'h', b'w', b'p', 7]);
    // What a later version appends is left alone.
    let longer = [&[0x83][..], &bytes[1..], &[0x18, 99]].concat();
    assert_eq!(minicbor::decode::<Opening>(&longer).unwrap(), opening);
}

#[tokio::test]
async fn calls_pass_and_say_who_makes_them() {
    let (gateway, other) = pair().await;
    let mut client = other.client(gateway.id);
    let status = register(&mut client).await.unwrap();
    assert_eq!((status.worker_id.as_str(), status.state), ("w", format!("{} {TERM}", other.id)));

    let logs = (0..1_000).map(|n| LogEntry { job_id: n.to_string(), data: "x".repeat(1_000) });
    within("logs are read", client.stream_logs(futures::stream::iter(logs))).await.unwrap();
    // An error is the service's own, and not for want of a tunnel.
    let status = client.heartbeat(HeartbeatRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), unopened(&status).is_some()), (Code::Unimplemented, false));
}

#[tokio::test]
async fn hundreds_of_streams_share_one_tunnel() {
    let (gateway, other) = pair().await;
    let client = other.client(gateway.id);
    let mut streams = Vec::new();
    for _ in 0..300 {
        let (messages, outgoing) = mpsc::channel(1);
        let mut client = client.clone();
        let opening = client.job_stream(ReceiverStream::new(outgoing));
        let mut incoming = within("headers", opening).await.unwrap().into_inner();
        messages.send(accepted(streams.len())).await.unwrap();
        assert_eq!(cancelled(within("an answer", incoming.message()).await.unwrap()), streams.len().to_string());
        streams.push((messages, incoming));
    }
    for (messages, incoming) in &mut streams {
        messages.send(accepted(1)).await.unwrap();
        assert_eq!(cancelled(within("an answer", incoming.message()).await.unwrap()), "1");
    }
}

#[tokio::test]
async fn unread_streams_do_not_hold_up_others() {
    let (gateway, other) = pair().await;
    let mut client = other.client(gateway.id);
    let entry = LogEntry { job_id: "flood".to_owned(), data: "x".repeat(64 * 1024) };
    let flood = AgentMessage { payload: Some(agent_message::Payload::LogEntry(entry)) };
    let mut unread = Vec::new();
    for _ in 0..8 {
        // Without end, and made as fast as it is taken.
        let mut request = Request::new(futures::stream::repeat(flood.clone()));
        request.metadata_mut().insert("unread", "1".parse().unwrap());
        unread.push(within("headers", client.job_stream(request)).await.unwrap());
    }
    let start = Instant::now();
    for _ in 0..50 {
        register(&mut client).await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn refused_and_unlinked_are_told_apart_from_failed_calls() {
    let (gateway, other) = pair().await;
    let refused = |status: &Status| match unopened(status).map(|unopened| &unopened.reason) {
        Some(TunnelError::Refused(reason)) => reason.clone(),
        other => panic!("{other:?} in {status:?}"),
    };
    let mut client = WorkerServiceClient::new(channel(&other.tunnels, gateway.id, "hwp", TERM - 1));
    let status = register(&mut client).await.unwrap_err();
    assert_eq!((status.code(), refused(&status)), (Code::Unavailable, "the term is 7, not 6".to_owned()));

    let mut client = WorkerServiceClient::new(channel(&other.tunnels, gateway.id, "tea", TERM));
    let status = register(&mut client).await.unwrap_err();
    assert_eq!(refused(&status), "nobody serves tea at this node");

    let mut client = other.client(NodeId([9; 32]));
    let status = register(&mut client).await.unwrap_err();
    let reason = unopened(&status).map(|unopened| &unopened.reason);
    assert!(matches!(reason, Some(TunnelError::NotLinked)), "{status:?}");
    assert_eq!(status.code(), Code::Unavailable);

    let result = other.net.open_tunnel(PeerKey(gateway.id.0), "no CBOR".into()).await;
    assert!(matches!(&result, Err(TunnelError::Refused(reason)) if reason == "the opening is malformed"));
}

#[tokio::test]
async fn a_server_that_takes_no_more_refuses() {
    let (mut gateway, other) = pair().await;
    // In place of the server, which sees its queue end.
    let mut incoming = gateway.tunnels.register("hwp", this_term());
    within("the server's end", gateway.tasks.join_next()).await.unwrap().unwrap();
    let mut open = Vec::new();
    for _ in 0..super::WAITING {
        open.push(within("a tunnel", other.tunnels.open(gateway.id, "hwp", TERM)).await.unwrap());
    }
    open.truncate(1);
    let refusal = async {
        loop {
            // The other end lives on in the queue, so the peer's share of tunnels is used up as well.
            match other.tunnels.open(gateway.id, "hwp", TERM).await {
                Err(error) => break error.reason.to_string(),
                Ok(tunnel) => open.push(tunnel),
            }
        }
    };
    let reason = within("a refusal", refusal).await;
    assert!(reason.contains("busy") || reason.contains("too many"), "{reason}");

    let mut first = within("the first tunnel", incoming.recv()).await.unwrap();
    assert_eq!((first.from, first.term), (other.id, TERM));
    first.tunnel.write_all(b"taken").await.unwrap();
    first.tunnel.flush().await.unwrap();
    within("bytes", open[0].read_exact(&mut [0; 5])).await.unwrap();

    drop(incoming);
    let again = other.tunnels.open(gateway.id, "hwp", TERM);
    let reason = within("a refusal", again).await.unwrap_err().reason;
    assert!(matches!(&reason, TunnelError::Refused(reason) if reason.contains("any more")), "{reason:?}");
}

#[tokio::test]
async fn a_lost_link_ends_streams_and_the_channel_lives_on() {
    let (mut gateway, mut other) = pair().await;
    let mut client = other.client(gateway.id);
    let (messages, outgoing) = mpsc::channel(1);
    let mut stream = within("headers", client.job_stream(ReceiverStream::new(outgoing))).await.unwrap().into_inner();
    messages.send(accepted(1)).await.unwrap();
    within("an answer", stream.message()).await.unwrap();

    gateway.net.disconnect(PeerKey(other.id.0));
    let status = within("the end of the stream", stream.message()).await.unwrap_err();
    assert!(unopened(&status).is_none());
    gateway.linked(other.id).await;
    other.linked(gateway.id).await;
    register(&mut client).await.unwrap();
}

#[tokio::test]
async fn a_cut_link_ends_streams_after_its_silence() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut wire = Wire::new(async { told.await.unwrap() }).await;
    let quick = |config| Config { heartbeat: SILENCE / 5, silence: SILENCE, ..config };
    let mut gateway = Node::start(quick(Config { announce: Some(vec![wire.addr]), ..config(1, &[]) }));
    tell.send(gateway.net.listening()[0]).unwrap();
    let mut other = Node::start(quick(Config { announce: Some(Vec::new()), ..config(2, &[wire.addr]) }));
    gateway.linked(other.id).await;
    other.linked(gateway.id).await;
    gateway.serve();
    let mut client = other.client(gateway.id);
    let (messages, outgoing) = mpsc::channel(1);
    let mut stream = within("headers", client.job_stream(ReceiverStream::new(outgoing))).await.unwrap().into_inner();
    messages.send(accepted(1)).await.unwrap();
    within("an answer", stream.message()).await.unwrap();

    let start = Instant::now();
    wire.cut();
    within("the end of the stream", stream.message()).await.unwrap_err();
    assert!(start.elapsed() < SILENCE * 2, "after {:?}", start.elapsed());
    let status = register(&mut client).await.unwrap_err();
    assert!(unopened(&status).is_some(), "{status:?}");
}

/// A TCP forwarder that can stop forwarding without closing anything.
struct Wire {
    addr: SocketAddr,
    flows: watch::Sender<bool>,
    _forwarder: JoinSet<()>,
}

impl Wire {
    async fn new(target: impl Future<Output = SocketAddr> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (flows, state) = watch::channel(true);
        let mut forwarder = JoinSet::new();
        forwarder.spawn(async move {
            let target = target.await;
            let mut halves = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (near, far) = (near.into_split(), TcpStream::connect(target).await.unwrap().into_split());
                halves.spawn(forward(near.0, far.1, state.clone()));
                halves.spawn(forward(far.0, near.1, state.clone()));
            }
        });
        Self { addr, flows, _forwarder: forwarder }
    }

    fn cut(&mut self) {
        self.flows.send_replace(false);
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flows: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if flows.wait_for(|flows| *flows).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
