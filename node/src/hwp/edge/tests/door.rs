//! Who is let in.

use std::time::Instant;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use starling_proto::hwp::{AgentMessage, CancelJobRequest};
use tokio::net::TcpStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::world::{Node, assignment, by, within};

#[tokio::test]
async fn a_valid_token_lets_in_and_others_are_refused_late() {
    let node = Node::start().await;
    let mut client = node.client().await;
    within(client.assign_job(assignment("before", &["hold"]))).await.expect("no token yet: this host may call");
    node.add_token("red").await;
    node.add_token("blue").await;
    let refused = |client: &mut _, request| {
        let mut client: starling_proto::hwp::worker_service_client::WorkerServiceClient<_> = Clone::clone(client);
        async move {
            let began = Instant::now();
            let status = within(client.assign_job(request)).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated);
            assert!(status.message().contains("gateway token add"), "{status}");
            assert!(began.elapsed().as_millis() >= 1_000, "{:?}", began.elapsed());
        }
    };
    tokio::join!(
        refused(&mut client.clone(), by("green", assignment("a", &["hold"]))),
        refused(&mut client.clone(), tonic::Request::new(assignment("b", &["hold"]))),
    );
    within(client.assign_job(by("red", assignment("c", &["hold"])))).await.unwrap();
    node.revoke_token("red").await;
    refused(&mut client, by("red", assignment("d", &["hold"]))).await;
    within(client.assign_job(by("blue", assignment("e", &["hold"])))).await.unwrap();
    assert_eq!(node.ask(|machine| machine.facts().job_count()).await, 3);
}

#[tokio::test]
async fn a_revoked_token_ends_its_streams_and_no_others() {
    let node = Node::start().await;
    node.add_token("red").await;
    node.add_token("blue").await;
    let mut client = node.client().await;
    let mut open = Vec::new();
    for token in ["red", "blue"] {
        let (said, stream) = tokio::sync::mpsc::channel::<AgentMessage>(1);
        let heard = within(client.job_stream(by(token, ReceiverStream::new(stream)))).await.expect("headers at once");
        open.push((said, heard.into_inner()));
    }
    node.revoke_token("red").await;
    let ended = within(open[0].1.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    let cancel = CancelJobRequest { job_id: "x".to_owned() };
    assert_eq!(within(client.cancel_job(by("blue", cancel))).await.unwrap_err().code(), Code::NotFound);
    assert!(futures::poll!(Box::pin(open[1].1.message())).is_pending());
}

#[tokio::test]
async fn a_flood_of_bad_tokens_leaves_room_for_a_good_one() {
    const FLOOD: usize = 3_000;
    let node = Node::start().await;
    node.add_token("red").await;
    // More than may wait, over connections that each may have 1,024 calls.
    let bad = node.client().await;
    let others = [node.client().await, node.client().await, node.client().await];
    let mut calls: FuturesUnordered<_> = (0..FLOOD)
        .map(|number| {
            let mut client = others[number % others.len()].clone();
            async move {
                let began = Instant::now();
                let status = client.assign_job(by("bad", assignment("a", &["hold"]))).await.unwrap_err();
                (status.code(), began.elapsed())
            }
        })
        .collect();
    let first = within(calls.next()).await.unwrap();
    assert_ne!(first.0, Code::Ok);
    let mut good = node.client().await;
    let began = Instant::now();
    within(good.assign_job(by("red", assignment("good", &["hold"])))).await.unwrap();
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    let (mut late, mut at_once) = (0, 0);
    while let Some((code, waited)) = within(calls.next()).await {
        assert_ne!(code, Code::Ok);
        if waited.as_millis() >= 1_000 { late += 1 } else { at_once += 1 }
    }
    assert!(late + at_once + 1 == FLOOD);
    assert!(node.ask(|machine| machine.facts().job_called("a").is_none()).await);
    // The door does not hold it against whoever comes later.
    let mut client = bad.clone();
    within(client.assign_job(by("red", assignment("later", &["hold"])))).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_call_end_their_connection_only() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let node = Node::start().await;
    let mut stream = TcpStream::connect(node.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Whatever it says, it ends.
    let _reset = within(stream.read_to_end(&mut answer)).await;
    within(node.client().await.assign_job(assignment("a", &["hold"]))).await.unwrap();
}
