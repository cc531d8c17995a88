//! What goes on to the gateway, and what becomes of it when the gateway moves.

use std::time::Instant;

use starling_proto::hwp::worker_service_client::WorkerServiceClient;
use starling_proto::hwp::{
    AgentMessage, GetWorkerStatusRequest, HeartbeatRequest, JobAccepted, JobResult, ServerMessage, WorkerRegistration,
    agent_message, server_message,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::world::{Echo, Made, Node, seat, within, worker};
use crate::hwp::edge::Line;
use crate::hwp::edge::seat::{Route, Seat};

type Open = (mpsc::Sender<AgentMessage>, Streaming<ServerMessage>);

async fn open(client: &mut WorkerServiceClient<Channel>, worker_id: Option<&str>) -> Result<Open, Status> {
    let (said, stream) = mpsc::channel(4);
    let mut request = Request::new(ReceiverStream::new(stream));
    if let Some(id) = worker_id {
        request.metadata_mut().insert("worker-id", id.parse().unwrap());
    }
    Ok((said, within(client.job_stream(request)).await?.into_inner()))
}

fn accepted(job_id: &str) -> AgentMessage {
    let accepted = JobAccepted { job_id: job_id.to_owned() };
    AgentMessage { payload: Some(agent_message::Payload::JobAccepted(accepted)) }
}

fn said_back(message: Option<ServerMessage>) -> String {
    match message.and_then(|message| message.payload) {
        Some(server_message::Payload::CancelJob(cancel)) => cancel.job_id,
        other => format!("{other:?}"),
    }
}

async fn node(first: Option<Seat>) -> (Node, watch::Sender<Option<Seat>>) {
    let (seats, following) = watch::channel(first);
    (Node::made(Made { seats: Some(following), ..Made::default() }).await, seats)
}

fn nowhere() -> Option<Seat> {
    Some(Seat { tokens: Default::default(), route: Route::Nowhere("nobody claims"), acting: None })
}

#[tokio::test]
async fn what_a_worker_says_reaches_the_gateway_with_its_name() {
    let echo = Echo::default();
    let (node, _seats) = node(seat(9, 1, echo.line())).await;
    let mut client = node.client().await;
    let named = |mut request: Request<HeartbeatRequest>| {
        request.metadata_mut().insert("worker-id", "w".parse().unwrap());
        request
    };
    let registration = WorkerRegistration { worker_id: "w".into(), ..WorkerRegistration::default() };
    let status = within(client.register_worker(registration)).await.unwrap().into_inner();
    assert_eq!((status.worker_id.as_str(), status.state.as_str()), ("w", "ready"));
    within(client.heartbeat(named(Request::new(HeartbeatRequest::default())))).await.unwrap();
    within(client.report_result(JobResult::default())).await.unwrap();
    let refused = within(client.get_worker_status(GetWorkerStatusRequest::default())).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "no such worker"));
    let (said, mut heard) = open(&mut client, Some("w")).await.unwrap();
    for id in ["a", "b"] {
        said.send(accepted(id)).await.unwrap();
        assert_eq!(said_back(within(heard.message()).await.unwrap()), id);
    }
    drop(said);
    assert!(within(heard.message()).await.unwrap().is_none(), "it ends with the worker's half");
    assert_eq!(echo.heard(), [":register", "w:heartbeat", ":result", ":status", "w:stream"]);
}

#[tokio::test]
async fn a_stream_without_a_name_is_inert_and_needs_no_gateway() {
    let (node, seats) = node(nowhere()).await;
    let mut client = node.client().await;
    let (said, mut heard) = open(&mut client, None).await.unwrap();
    said.send(accepted("a")).await.unwrap();
    assert!(futures::poll!(Box::pin(heard.message())).is_pending());
    let echo = Echo::default();
    seats.send(seat(9, 1, echo.line())).unwrap();
    drop(said);
    assert!(within(heard.message()).await.unwrap().is_none());
    assert!(echo.heard().is_empty());
}

#[tokio::test]
async fn when_the_gateway_moves_calls_follow_and_streams_end() {
    let (old, new) = (Echo::default(), Echo::default());
    let (node, seats) = node(seat(8, 1, old.line())).await;
    let mut client = node.client().await;
    let (said, mut heard) = open(&mut client, Some("w")).await.unwrap();
    said.send(accepted("a")).await.unwrap();
    assert_eq!(said_back(within(heard.message()).await.unwrap()), "a");
    seats.send(seat(9, 2, new.line())).unwrap();
    let ended = within(heard.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    assert!(ended.message().contains("connect again"), "{ended}");
    within(client.heartbeat(HeartbeatRequest::default())).await.unwrap();
    let (said, mut heard) = open(&mut client, Some("w")).await.unwrap();
    said.send(accepted("b")).await.unwrap();
    assert_eq!(said_back(within(heard.message()).await.unwrap()), "b");
    assert_eq!((old.heard(), new.heard()), (vec!["w:stream".into()], vec![":heartbeat".into(), "w:stream".into()]));
}

#[tokio::test]
async fn the_same_node_under_a_new_term_is_another_gateway() {
    let (old, new) = (Echo::default(), Echo::default());
    let (node, seats) = node(seat(9, 1, old.line())).await;
    let mut client = node.client().await;
    let (_said, mut heard) = open(&mut client, Some("w")).await.unwrap();
    seats.send(seat(9, 2, new.line())).unwrap();
    assert_eq!(within(heard.message()).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn calls_wait_for_a_gateway_and_give_up_with_a_reason() {
    let (node, seats) = node(nowhere()).await;
    let mut client = node.client().await;
    let began = Instant::now();
    let refused = within(client.heartbeat(HeartbeatRequest::default())).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "nobody claims"));
    assert!(began.elapsed().as_secs() >= 4, "{:?}", began.elapsed());
    let refused = open(&mut client, Some("w")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let echo = Echo::default();
    let (answer, ()) = tokio::join!(within(client.heartbeat(HeartbeatRequest::default())), async {
        tokio::task::yield_now().await;
        seats.send(seat(9, 1, echo.line())).unwrap();
    });
    answer.unwrap();
}

#[tokio::test]
async fn a_gateway_that_cannot_be_reached_is_tried_again() {
    let dead = Line::new(tower::service_fn(|_request: http::Request<Body>| async {
        Err::<http::Response<Body>, _>(std::io::Error::other("no link"))
    }));
    let (node, seats) = node(seat(8, 1, dead)).await;
    let mut client = node.client().await;
    let refused = open(&mut client, Some("w")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("cannot be reached"), "{refused}");
    let refused = within(client.heartbeat(HeartbeatRequest::default())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let (mut other, echo) = (client.clone(), Echo::default());
    let call = tokio::runtime::Handle::current()
        .spawn(async move { within(other.heartbeat(HeartbeatRequest::default())).await });
    seats.send(seat(9, 2, echo.line())).unwrap();
    within(call).await.unwrap().unwrap();
    assert_eq!(echo.heard(), [":heartbeat"]);
}

#[tokio::test]
async fn a_node_alone_becomes_the_gateway_and_serves_workers_itself() {
    let echo = Echo::default();
    let node = Node::made(Made { gateways: Some(echo.clone()), ..Made::default() }).await;
    let mut client = node.client().await;
    let registers = async { while client.register_worker(WorkerRegistration::default()).await.is_err() {} };
    within(registers).await;
    let term = node.ask(|machine| machine.election().standing().acting()).await;
    assert!(term.is_some());
    assert_eq!(echo.heard(), [":register"]);
    assert_eq!(node.edge.acting(), term);
    assert_eq!(node.edge.workers().await, Ok(vec![worker("here")]));
}

#[tokio::test]
async fn workers_are_told_by_the_gateway_wherever_it_is() {
    let (node, seats) = node(seat(9, 3, Echo::default().line())).await;
    assert_eq!(node.edge.workers().await, Ok(vec![worker("there under term 3")]));
    assert_eq!(node.edge.acting(), None);
    seats.send(nowhere()).unwrap();
    assert_eq!(node.edge.workers().await, Err("nobody claims".to_owned()));
}
