//! Links that break, and come back.
//!
//! Invariants: as in `main`.
//! Does not: involve strangers (`refusals`).

use std::time::{Duration, Instant};

use bytes::Bytes;
use starling_net::{DownReason, Event, Lane, SendError, Topic};

use crate::support::{Node, Wire, config, eventually, joining, pair};

fn down(event: Event) -> Option<DownReason> {
    match event {
        Event::LinkDown { reason, .. } => Some(reason),
        _ => None,
    }
}

#[tokio::test]
async fn killed_peer_is_noticed_and_relinked_when_it_returns() {
    let (a, mut b) = pair((1, 2)).await;
    let mut again = config(1);
    again.listen = vec![a.addr];
    let key = a.key;
    a.kill();
    assert_eq!(b.wait("end of the link", down).await, DownReason::Closed);
    assert_eq!(b.handle.send(key, Lane::Control, Bytes::new()), Err(SendError::NotLinked));

    // The old one's port may take a moment to be free.
    let mut restarted = None;
    eventually("port is free", || std::net::TcpListener::bind(again.listen[0]).is_ok()).await;
    restarted.replace(Node::start(again));
    b.wait_up(key).await;
    b.handle.send(key, Lane::Control, "welcome back".into()).unwrap();
    restarted.unwrap().wait_frame(b"welcome back").await;
}

#[tokio::test]
async fn silent_peer_is_noticed_in_time_and_relinked_after_healing() {
    for (listener, dialer) in [(1, 2), (2, 1)] {
        let (tell, told) = tokio::sync::oneshot::channel();
        let wire = Wire::new(async { told.await.unwrap() }).await;
        let mut behind = config(listener);
        behind.announce = Some(vec![wire.addr]);
        let silence = behind.silence;
        let mut a = Node::start(behind);
        tell.send(a.addr).unwrap();
        let mut hidden = joining(dialer, &[wire.addr]);
        hidden.announce = Some(Vec::new());
        let mut b = Node::start(hidden);
        a.wait_up(b.key).await;
        b.wait_up(a.key).await;

        wire.cut();
        let start = Instant::now();
        assert_eq!(a.wait("end of the link", down).await, DownReason::Silence);
        assert_eq!(b.wait("end of the link", down).await, DownReason::Silence);
        assert!(start.elapsed() < silence * 2, "noticed after {:?}", start.elapsed());
        assert!(a.handle.linked().is_empty());

        wire.heal();
        a.wait_up(b.key).await;
        b.wait_up(a.key).await;
        a.handle.send(b.key, Lane::Control, "healed".into()).unwrap();
        b.wait_frame(b"healed").await;
    }
}

#[tokio::test]
async fn stranded_connection_does_not_stand_in_the_way_of_a_new_one() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let wire = Wire::new(async { told.await.unwrap() }).await;
    let mut behind = config(1);
    behind.announce = Some(vec![wire.addr]);
    let mut a = Node::start(behind);
    tell.send(a.addr).unwrap();
    let mut hidden = joining(2, &[wire.addr]);
    hidden.announce = Some(Vec::new());
    let mut b = Node::start(hidden);
    a.wait_up(b.key).await;
    b.wait_up(a.key).await;

    wire.strand();
    // Something for each end to be stuck with.
    let frame = Bytes::from(vec![0; 1024 * 1024]);
    for _ in 0..8 {
        a.handle.send(b.key, Lane::Bulk, frame.clone()).unwrap();
        b.handle.send(a.key, Lane::Bulk, frame.clone()).unwrap();
    }
    assert_eq!(a.wait("end of the link", down).await, DownReason::Silence);
    assert_eq!(b.wait("end of the link", down).await, DownReason::Silence);
    a.wait_up(b.key).await;
    b.wait_up(a.key).await;
    eventually("the old connection is given up", || {
        a.handle.stats().connections == 1 && b.handle.stats().connections == 1
    })
    .await;
    gossip_flows(&a, &mut b).await;
    gossip_flows(&b, &mut a).await;
}

/// Says something else every time: what was sent over a link that was just lost is not sent again.
async fn gossip_flows(from: &Node, to: &mut Node) {
    let said = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        for word in 0_u64.. {
            tick.tick().await;
            from.handle.publish(Topic::Presence, Bytes::from(word.to_be_bytes().to_vec())).unwrap();
        }
    };
    tokio::select! {
        () = to.wait("gossip", |event| matches!(event, Event::Gossip { .. }).then_some(())) => {}
        () = said => {}
    }
}

#[tokio::test]
async fn peer_that_takes_nothing_fills_a_bounded_queue_and_loses_its_link() {
    let (mut a, mut b) = pair((1, 2)).await;
    let frame = Bytes::from(vec![0; 200 * 1024]);
    let mut sent = 0u32;
    eventually("the queue is full", || {
        while sent < 5_000 {
            match a.handle.send(b.key, Lane::Control, frame.clone()) {
                Ok(()) => sent += 1,
                Err(SendError::Full) => return true,
                Err(other) => panic!("{other}"),
            }
        }
        false
    })
    .await;
    assert_eq!(a.wait("end of the link", down).await, DownReason::Overflow);
    // Once it listens again the link comes back by itself.
    b.wait("end of the link", down).await;
    b.wait_up(a.key).await;
    a.wait_up(b.key).await;
}

#[tokio::test]
async fn busy_application_does_not_look_like_silence() {
    let (a, mut b) = pair((1, 2)).await;
    // More than the reader can queue for an application that takes nothing, less than the sender's own bound.
    let frame = Bytes::from(vec![0; 1024 * 1024]);
    let mut sent = 0u32;
    let start = Instant::now();
    eventually("bulk is refused for twice the silence", || {
        while a.handle.send(b.key, Lane::Bulk, frame.clone()).is_ok() {
            sent += 1;
        }
        start.elapsed() > config(1).silence * 3
    })
    .await;
    assert_eq!(a.handle.linked(), [b.key]);
    for _ in 0..sent {
        b.wait_frame(&frame).await;
    }
}

#[tokio::test]
async fn disconnected_peer_gets_what_was_queued_and_may_return() {
    let (mut a, mut b) = pair((1, 2)).await;
    a.handle.send(b.key, Lane::Control, "last words".into()).unwrap();
    a.handle.disconnect(b.key);
    b.wait_frame(b"last words").await;
    assert_eq!(a.wait("end of the link", down).await, DownReason::Local);
    assert_eq!(b.wait("end of the link", down).await, DownReason::Closed);
    a.wait_up(b.key).await;
}

#[tokio::test]
async fn shutdown_tells_the_end_of_each_link_and_then_of_events() {
    let (mut a, mut b) = pair((1, 2)).await;
    a.handle.send(b.key, Lane::Control, "goodbye".into()).unwrap();
    a.handle.shutdown().await;
    assert_eq!(a.wait("end of the link", down).await, DownReason::Shutdown);
    assert!(a.events.recv().await.is_none());
    b.wait_frame(b"goodbye").await;
    assert_eq!(b.wait("end of the link", down).await, DownReason::Closed);
    a.handle.shutdown().await;
}
