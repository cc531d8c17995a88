//! Strangers at the door.
//!
//! Invariants: as in `main`.
//! Does not: test the challenge's cryptography (unit tests beside it).

use std::time::Duration;

use starling_net::{Event, Lane, RefusedReason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{DEADLINE, Node, config, eventually, joining, pair};

fn refused(event: Event) -> Option<RefusedReason> {
    match event {
        Event::Refused { reason, .. } => Some(reason),
        Event::LinkUp { .. } => panic!("a stranger was let in"),
        _ => None,
    }
}

#[tokio::test]
async fn wrong_secret_is_refused_and_told_at_both_ends() {
    let mut a = Node::start(config(1));
    let mut stranger = joining(2, &[a.addr]);
    stranger.cluster_secret = [99; 32];
    let mut b = Node::start(stranger);
    assert_eq!(a.wait("refusal", refused).await, RefusedReason::WrongSecret);
    assert_eq!(b.wait("refusal", refused).await, RefusedReason::WrongSecret);
    eventually("a second attempt is refused too", || a.handle.stats().refused >= 2).await;
    assert!(a.handle.linked().is_empty() && b.handle.linked().is_empty());
}

#[tokio::test]
async fn other_cluster_with_the_same_secret_is_refused() {
    let mut a = Node::start(config(1));
    let mut stranger = joining(2, &[a.addr]);
    stranger.cluster_id = [99; 32];
    let mut b = Node::start(stranger);
    assert_eq!(a.wait("refusal", refused).await, RefusedReason::WrongSecret);
    assert_eq!(b.wait("refusal", refused).await, RefusedReason::WrongSecret);
}

#[tokio::test]
async fn copy_of_a_node_is_told_from_the_node_itself() {
    let mut a = Node::start(config(1));
    let mut b = Node::start(joining(1, &[a.addr]));
    assert_eq!(a.wait("refusal", refused).await, RefusedReason::SameIdentity);
    assert_eq!(b.wait("refusal", refused).await, RefusedReason::SameIdentity);
}

#[tokio::test]
async fn garbage_on_the_port_changes_nothing() {
    let (a, mut b) = pair((1, 2)).await;
    let zeros = vec![0; 100_000];
    let ones = vec![255; 100_000];
    let hostile: [&[u8]; 5] = [b"GET / HTTP/1.1\r\n\r\n", b"", &zeros, &ones, b"\x13/multistream/1.0.0\n"];
    for bytes in hostile {
        let mut stream = TcpStream::connect(a.addr).await.unwrap();
        // It may be cut off before it has said everything.
        let _cut = stream.write_all(bytes).await;
        let _cut = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "not closed");
        assert!(answer.is_empty(), "garbage was answered");
    }
    eventually("garbage is counted", || a.handle.stats().garbage >= 4).await;
    assert_eq!(a.handle.stats().refused, 0);
    // Callers that say nothing hold a place for a while, but not the door.
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(a.addr).await.unwrap());
    }
    let mut c = Node::start(joining(3, &[a.addr]));
    c.wait_up(a.key).await;

    a.handle.send(b.key, Lane::Control, "undisturbed".into()).unwrap();
    let heard = b.wait("frame", |event| match event {
        Event::Frame { bytes, .. } => Some(bytes),
        Event::LinkDown { peer, reason } => panic!("lost {peer}: {reason:?}"),
        _ => None,
    });
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), heard).await.unwrap(), "undisturbed");
}
