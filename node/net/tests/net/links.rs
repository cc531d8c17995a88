//! Links, frames and gossip between healthy nodes.
//!
//! Invariants: as in `main`.
//! Does not: break anything (`faults`).

use std::time::Duration;

use bytes::Bytes;
use starling_net::{
    BULK_FRAME_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, Error, Event, GOSSIP_BYTES_MAX, Lane, PublishError, SendError,
    Topic, Verdict, start,
};

use crate::support::{Node, config, eventually, joining, pair};

#[tokio::test]
async fn two_nodes_exchange_frames_on_both_lanes() {
    let (mut a, mut b) = pair((1, 2)).await;
    for (lane, bytes_max) in [(Lane::Control, CONTROL_FRAME_BYTES_MAX), (Lane::Bulk, BULK_FRAME_BYTES_MAX)] {
        for size in [0, 1, 1_000, bytes_max] {
            let bytes = Bytes::from(vec![7; size]);
            a.handle.send(b.key, lane, bytes.clone()).unwrap();
            b.handle.send(a.key, lane, bytes.clone()).unwrap();
            for node in [&mut a, &mut b] {
                let got = node.wait("frame", |event| match event {
                    Event::Frame { lane: on, bytes, .. } => Some((on, bytes)),
                    _ => None,
                });
                assert_eq!(got.await, (lane, bytes.clone()));
            }
        }
    }
}

#[tokio::test]
async fn frames_of_a_lane_arrive_in_order() {
    let (a, mut b) = pair((1, 2)).await;
    for n in 0..900u32 {
        a.handle.send(b.key, Lane::Control, Bytes::copy_from_slice(&n.to_be_bytes())).unwrap();
    }
    for n in 0..900u32 {
        let got = b.wait("frame", |event| match event {
            Event::Frame { bytes, .. } => Some(bytes),
            _ => None,
        });
        assert_eq!(got.await, n.to_be_bytes()[..]);
    }
}

#[tokio::test]
async fn oversize_is_refused_at_the_sender_and_costs_nothing() {
    let (a, mut b) = pair((1, 2)).await;
    for (lane, bytes_max) in [(Lane::Control, CONTROL_FRAME_BYTES_MAX), (Lane::Bulk, BULK_FRAME_BYTES_MAX)] {
        let result = a.handle.send(b.key, lane, vec![0; bytes_max + 1].into());
        assert_eq!(result, Err(SendError::TooLarge { bytes: bytes_max + 1, bytes_max }));
    }
    let result = a.handle.publish(Topic::Log, vec![0; GOSSIP_BYTES_MAX + 1].into());
    assert!(matches!(result, Err(PublishError::TooLarge { .. })));
    a.handle.send(b.key, Lane::Control, "still here".into()).unwrap();
    b.wait_frame(b"still here").await;
}

#[tokio::test]
async fn peer_without_a_link_cannot_be_sent_to() {
    let a = Node::start(config(1));
    let stranger = starling_net::PeerKey::from_seed([9; 32]);
    assert_eq!(a.handle.send(stranger, Lane::Control, Bytes::new()), Err(SendError::NotLinked));
    // Nobody hears it, which is no error.
    a.handle.publish(Topic::Log, "alone".into()).unwrap();
}

#[tokio::test]
async fn three_nodes_find_each_other_through_one_and_gossip() {
    let first = Node::start(config(1));
    let second = Node::start(joining(2, &[first.addr]));
    let third = Node::start(joining(3, &[first.addr]));
    let mut nodes = [first, second, third];
    eventually("two links at each of three nodes", || nodes.iter().all(|node| node.handle.linked().len() == 2)).await;
    eventually("one connection per pair", || nodes.iter().all(|node| node.handle.stats().connections == 2)).await;

    for from in 0..nodes.len() {
        for (topic, size) in [(Topic::Log, 100), (Topic::Presence, 10), (Topic::Log, GOSSIP_BYTES_MAX)] {
            let bytes = Bytes::from(vec![u8::try_from(from).unwrap(); size]);
            for to in (0..nodes.len()).filter(|to| *to != from) {
                hear(&mut nodes, (from, to), topic, &bytes).await;
            }
        }
    }
    assert!(nodes.iter().all(|node| node.handle.stats().connections == 2));
}

/// Gossips until it is heard: the first messages of a new link may be lost by design.
async fn hear(nodes: &mut [Node], (from, to): (usize, usize), topic: Topic, bytes: &Bytes) {
    let sender = nodes[from].handle.clone();
    let again = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            sender.publish(topic, bytes.clone()).unwrap();
        }
    };
    let heard = nodes[to].wait("gossip", |event| match event {
        Event::Gossip { topic: about, tag, bytes: got, .. } if about == topic && got == *bytes => Some(tag),
        _ => None,
    });
    let tag = tokio::select! {
        tag = heard => tag,
        () = again => return,
    };
    nodes[to].handle.verdict(tag, Verdict::Accept);
}

#[tokio::test]
async fn nodes_that_dial_each_other_at_once_keep_one_connection() {
    let (mut a, mut b) = (Node::start(config(1)), Node::start(config(2)));
    a.handle.hint(b.addr, None);
    b.handle.hint(a.addr, None);
    a.wait_up(b.key).await;
    b.wait_up(a.key).await;
    eventually("one connection", || a.handle.stats().connections == 1 && b.handle.stats().connections == 1).await;
    eventually("a link at both ends", || !a.handle.linked().is_empty() && !b.handle.linked().is_empty()).await;
    a.handle.send(b.key, Lane::Control, "one".into()).unwrap();
    b.wait_frame(b"one").await;
}

#[cfg(feature = "quic")]
#[tokio::test]
async fn quic_links_members_and_refuses_strangers() {
    let over_quic = |mut config: starling_net::Config| {
        config.transport = starling_net::Transport::Quic;
        config
    };
    let mut a = Node::start(over_quic(config(1)));
    let mut b = Node::start(over_quic(joining(2, &[a.addr])));
    a.wait_up(b.key).await;
    b.wait_up(a.key).await;
    a.handle.send(b.key, Lane::Bulk, vec![5; BULK_FRAME_BYTES_MAX].into()).unwrap();
    b.wait_frame(&vec![5; BULK_FRAME_BYTES_MAX]).await;
    b.handle.send(a.key, Lane::Control, "answer".into()).unwrap();
    a.wait_frame(b"answer").await;

    let mut stranger = over_quic(joining(3, &[a.addr]));
    stranger.cluster_secret = [99; 32];
    let mut c = Node::start(stranger);
    for node in [&mut a, &mut c] {
        let reason = node.wait("refusal", |event| match event {
            Event::Refused { reason, .. } => Some(reason),
            _ => None,
        });
        assert_eq!(reason.await, starling_net::RefusedReason::WrongSecret);
    }
    let (b_key, b_addr) = (b.key, b.addr);
    b.kill();
    a.wait("end of the link", |event| matches!(event, Event::LinkDown { .. }).then_some(())).await;
    let mut again = over_quic(config(2));
    again.listen = vec![b_addr];
    let _b = Node::start(again);
    a.wait_up(b_key).await;
}

#[tokio::test]
async fn larger_key_dials_when_the_smaller_cannot() {
    let (a, b) = (Node::start(config(1)), Node::start(config(2)));
    let (small, large) = if a.key < b.key { (a, b) } else { (b, a) };
    large.handle.hint(small.addr, Some(small.key));
    eventually("a link", || large.handle.linked() == [small.key]).await;
}

#[tokio::test]
async fn address_in_use_is_an_error_of_its_own() {
    let a = Node::start(config(1));
    let mut second = config(2);
    second.listen = vec![a.addr];
    match start(second) {
        Err(Error::AddrInUse { addr }) => assert_eq!(addr, a.addr),
        other => panic!("{other:?}"),
    }
}
