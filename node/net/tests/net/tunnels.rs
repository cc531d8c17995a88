//! Tunnels between linked nodes: what flows, what waits, and what ends them.
//!
//! Invariants: as in `main`.
//! Does not: speak to a node as no node of ours would (`src/opening_tests.rs`).

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use starling_net::{DownReason, Event, Incoming, Lane, TUNNEL_OPENING_BYTES_MAX, Tunnel, TunnelError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::support::{DEADLINE, Node, Wire, config, eventually, joining, pair};

/// Far more than it takes on two busy cores, and far less than a window that does not grow or a writer that waits for
/// each of its chunks would take.
const HUNDRED_MEGABYTES: Duration = Duration::from_secs(10);
/// What the multiplexer lets a writer send ahead before the reader has read anything.
const WINDOW_BYTES: usize = 256 * 1024;
/// What a tunnel keeps of one write.
const CHUNK_BYTES: usize = 16 * 1024;

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("not in {DEADLINE:?}: {what}"),
    }
}

async fn incoming(node: &mut Node) -> Incoming {
    within("a peer asks for a tunnel", node.tunnels.next()).await.expect("the network runs")
}

/// A tunnel from the first to the second.
async fn tunnel(from: &Node, to: &mut Node, opening: &'static str) -> (Tunnel, Tunnel) {
    // Whichever fails fails both, at once.
    let both = tokio::try_join!(from.handle.open_tunnel(to.key, opening.into()), async {
        let incoming = incoming(to).await;
        assert_eq!((incoming.from, &incoming.opening[..]), (from.key, opening.as_bytes()));
        incoming.accept().await
    });
    both.unwrap()
}

/// Bytes of which no two chunks are alike.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

/// Two nodes whose link can be cut, with the first behind the wire.
async fn behind_a_wire() -> (Node, Node, Wire) {
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
    (a, b, wire)
}

#[tokio::test]
async fn bytes_flow_both_ways_whoever_opened() {
    let (mut a, mut b) = pair((1, 2)).await;
    let (near, far) = tunnel(&a, &mut b, "from a").await;
    let (near_too, far_too) = tunnel(&b, &mut a, "from b").await;
    for (mut near, mut far) in [(near, far), (near_too, far_too)] {
        for size in [1, 1_000, CHUNK_BYTES - 2, CHUNK_BYTES, 100_000] {
            let sent = pattern(size);
            near.write_all(&sent).await.unwrap();
            near.flush().await.unwrap();
            let mut got = vec![0; size];
            within("bytes", far.read_exact(&mut got)).await.unwrap();
            far.write_all(&got).await.unwrap();
            far.flush().await.unwrap();
            let mut back = vec![0; size];
            within("echo", near.read_exact(&mut back)).await.unwrap();
            assert_eq!(back, sent);
        }
    }
}

#[tokio::test]
async fn both_directions_at_once_do_not_block_each_other() {
    let (a, mut b) = pair((1, 2)).await;
    let (near, far) = tunnel(&a, &mut b, "").await;
    let sent = Arc::new(pattern(8 * 1024 * 1024));
    let mut tasks = JoinSet::new();
    for end in [near, far] {
        let (mut reader, mut writer) = tokio::io::split(end);
        let (out, expected) = (sent.clone(), sent.clone());
        tasks.spawn(async move {
            writer.write_all(&out).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        tasks.spawn(async move {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).await.unwrap();
            assert!(got == *expected);
        });
    }
    within("both directions", tasks.join_all()).await;
}

#[tokio::test]
async fn writer_waits_for_a_reader_that_does_not_read() {
    let (mut a, mut b) = pair((1, 2)).await;
    let (mut near, mut far) = tunnel(&a, &mut b, "").await;
    let (taken, bytes) = (Arc::new(AtomicUsize::new(0)), 16 * 1024 * 1024);
    let mut writer = JoinSet::new();
    let count = taken.clone();
    writer.spawn(async move {
        let data = pattern(bytes);
        while count.load(Ordering::SeqCst) < bytes {
            let written = near.write(&data[count.load(Ordering::SeqCst)..]).await.unwrap();
            count.fetch_add(written, Ordering::SeqCst);
        }
        near.shutdown().await.unwrap();
        near
    });
    eventually("the window fills", || taken.load(Ordering::SeqCst) >= WINDOW_BYTES - 2 * CHUNK_BYTES).await;
    // Time for much more, had it a place to go.
    for _ in 0..100 {
        round_trip(&mut a, &mut b).await;
    }
    assert!(taken.load(Ordering::SeqCst) <= WINDOW_BYTES + CHUNK_BYTES, "{taken:?}");

    let (mut got, mut most) = (Vec::<u8>::with_capacity(bytes), 0);
    let mut piece = vec![0; 64 * 1024];
    loop {
        let count = within("bytes", far.read(&mut piece)).await.unwrap();
        if count == 0 {
            break;
        }
        got.extend(&piece[..count]);
        most = most.max(taken.load(Ordering::SeqCst) - got.len());
        round_trip(&mut a, &mut b).await;
    }
    assert!(got == pattern(bytes));
    assert!(most < 4 * 1024 * 1024, "{most} bytes under way");
}

/// Something that takes a while, and less under less load.
async fn round_trip(a: &mut Node, b: &mut Node) {
    a.handle.send(b.key, Lane::Control, "there".into()).unwrap();
    b.wait_frame(b"there").await;
    b.handle.send(a.key, Lane::Control, "back".into()).unwrap();
    a.wait_frame(b"back").await;
}

#[tokio::test]
async fn a_full_tunnel_holds_up_neither_lanes_nor_other_tunnels() {
    let (mut a, mut b) = pair((1, 2)).await;
    let (mut full, _unread) = tunnel(&a, &mut b, "full").await;
    let mut writer = JoinSet::new();
    writer.spawn(async move { full.write_all(&pattern(1024 * 1024)).await });
    let (mut near, mut far) = tunnel(&a, &mut b, "free").await;
    for _ in 0..100 {
        round_trip(&mut a, &mut b).await;
        near.write_all(b"free").await.unwrap();
        near.flush().await.unwrap();
        within("bytes", far.read_exact(&mut [0; 4])).await.unwrap();
    }
    assert!(writer.try_join_next().is_none(), "nobody reads, so it cannot have been written");
}

#[tokio::test]
async fn half_that_is_shut_down_ends_and_the_other_goes_on() {
    let (a, mut b) = pair((1, 2)).await;
    let (mut near, mut far) = tunnel(&a, &mut b, "").await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(near.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut question = String::new();
    within("the end", far.read_to_string(&mut question)).await.unwrap();
    assert_eq!(question, "question");

    let answer = pattern(1024 * 1024);
    let mut got = Vec::new();
    let (wrote, read) = within("the answer", async {
        tokio::join!(
            async {
                far.write_all(&answer).await?;
                far.shutdown().await
            },
            near.read_to_end(&mut got)
        )
    })
    .await;
    wrote.unwrap();
    read.unwrap();
    assert!(got == answer);
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0, "an end stays an end");
}

#[tokio::test]
async fn dropped_end_is_an_error_at_the_other_after_what_it_wrote() {
    let (a, mut b) = pair((1, 2)).await;
    let (mut near, mut far) = tunnel(&a, &mut b, "").await;
    near.write_all(b"said").await.unwrap();
    near.flush().await.unwrap();
    drop(near);
    let mut got = Vec::new();
    let error = within("the reset", far.read_to_end(&mut got)).await.unwrap_err();
    assert_eq!((&got[..], error.kind()), (&b"said"[..], ErrorKind::ConnectionReset));
    assert_eq!(far.write(b"unheard").await.unwrap_err().kind(), ErrorKind::BrokenPipe);

    // Also while the other is blocked on writing, and after an orderly end of its own.
    let (mut near, mut far) = tunnel(&a, &mut b, "").await;
    near.shutdown().await.unwrap();
    let mut writer = JoinSet::new();
    writer.spawn(async move { far.write_all(&pattern(1024 * 1024)).await });
    drop(near);
    let error = within("the reset", writer.join_next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn refusal_tells_the_reason() {
    let (a, mut b) = pair((1, 2)).await;
    let long = format!("{}ä", "x".repeat(199));
    for (reason, told) in [("not today", "not today"), ("", ""), ("two\nlines", "two lines"), (&long, &long[..199])] {
        let (result, ()) = tokio::join!(a.handle.open_tunnel(b.key, Bytes::new()), async {
            incoming(&mut b).await.refuse(reason).await;
        });
        assert!(matches!(&result, Err(TunnelError::Refused(reason)) if reason == told), "{result:?}");
    }
    // An unanswered one is no tunnel either.
    let (result, ()) = tokio::join!(a.handle.open_tunnel(b.key, Bytes::new()), async { drop(incoming(&mut b).await) });
    assert!(matches!(result, Err(TunnelError::Broken(_))), "{result:?}");

    let Node { tunnels, .. } = &mut b;
    tunnels.close();
    let result = a.handle.open_tunnel(b.key, Bytes::new()).await;
    assert!(matches!(&result, Err(TunnelError::Refused(reason)) if reason == "this node takes no tunnels"));
}

#[tokio::test]
async fn what_cannot_be_is_told_at_once() {
    let (a, b) = pair((1, 2)).await;
    let stranger = starling_net::PeerKey::from_seed([9; 32]);
    assert!(matches!(a.handle.open_tunnel(stranger, Bytes::new()).await, Err(TunnelError::NotLinked)));
    let bytes = TUNNEL_OPENING_BYTES_MAX + 1;
    let result = a.handle.open_tunnel(b.key, vec![0; bytes].into()).await;
    assert!(matches!(result, Err(TunnelError::TooLarge { bytes: told, .. }) if told == bytes));
    a.handle.shutdown().await;
    assert!(matches!(a.handle.open_tunnel(b.key, Bytes::new()).await, Err(TunnelError::NotLinked)));
}

#[tokio::test]
async fn peer_that_does_not_answer_is_given_up() {
    let (a, mut b) = pair((1, 2)).await;
    let (result, held) = tokio::join!(a.handle.open_tunnel(b.key, Bytes::new()), incoming(&mut b));
    assert!(matches!(result, Err(TunnelError::Timeout)), "{result:?}");
    // The yes comes too late for anybody to hear.
    let (a, b) = (&a, held.accept().await);
    if let Ok(mut late) = b {
        let error = within("the reset", late.read(&mut [0])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(a.handle.linked().len(), 1);
}

#[tokio::test]
async fn tunnels_to_one_peer_are_counted_and_given_back() {
    let (a, mut b) = pair((1, 2)).await;
    let mut open = Vec::new();
    let too_many = loop {
        let asked = a.handle.open_tunnel(b.key, Bytes::new());
        let (result, accepted) = tokio::join!(asked, async {
            if open.len() == 64 { None } else { Some(incoming(&mut b).await.accept().await.unwrap()) }
        });
        match (result, accepted) {
            (Ok(near), Some(far)) => open.push((near, far)),
            (result, _) => break result,
        }
    };
    assert!(matches!(too_many, Err(TunnelError::TooMany { count_max: 64 })), "{too_many:?}");
    assert_eq!(open.len(), 64);
    let (near, mut far) = open.swap_remove(7);
    drop(near);
    within("the reset", far.read(&mut [0])).await.unwrap_err();
    drop(far);
    open.push(tunnel(&a, &mut b, "again").await);
    // The other direction has room of its own.
    let mut a = a;
    tunnel(&b, &mut a, "back").await;
    for (near, far) in &mut open {
        near.write_all(b"!").await.unwrap();
        near.flush().await.unwrap();
        within("bytes", far.read_exact(&mut [0])).await.unwrap();
    }
}

#[tokio::test]
async fn silence_ends_tunnels_at_both_ends() {
    let (a, mut b, wire) = behind_a_wire().await;
    let (mut near, mut far) = tunnel(&a, &mut b, "").await;
    let blocked = tunnel(&a, &mut b, "").await;
    let mut writers = JoinSet::new();
    for mut end in [blocked.0, blocked.1] {
        writers.spawn(async move { end.write_all(&pattern(8 * 1024 * 1024)).await });
    }
    wire.cut();
    let start = Instant::now();
    for end in [&mut near, &mut far] {
        let error = within("an error", end.read(&mut [0])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert_eq!(end.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    }
    for result in within("blocked writers end", writers.join_all()).await {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    }
    let silence = config(1).silence;
    assert!(start.elapsed() < silence * 2, "noticed after {:?}", start.elapsed());
    assert!(matches!(a.handle.open_tunnel(b.key, Bytes::new()).await, Err(TunnelError::NotLinked)));
}

#[tokio::test]
async fn disconnected_link_ends_its_tunnels_and_the_next_one_has_new_ones() {
    let (mut a, mut b) = pair((1, 2)).await;
    let (mut near, mut far) = tunnel(&a, &mut b, "").await;
    a.handle.disconnect(b.key);
    for end in [&mut near, &mut far] {
        let kind = within("an error", end.read(&mut [0])).await.unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset), "{kind}");
    }
    let reason = b.wait("end of the link", |event| match event {
        Event::LinkDown { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(reason.await, DownReason::Closed);
    b.wait_up(a.key).await;
    a.wait_up(b.key).await;
    let (mut near, mut far) = tunnel(&a, &mut b, "").await;
    near.write_all(b"anew").await.unwrap();
    near.flush().await.unwrap();
    within("bytes", far.read_exact(&mut [0; 4])).await.unwrap();
}

#[tokio::test]
async fn killed_peer_ends_tunnels_and_openings() {
    let (a, mut b) = pair((1, 2)).await;
    let (mut near, far) = tunnel(&a, &mut b, "").await;
    let unanswered = a.handle.open_tunnel(b.key, Bytes::new());
    let (result, kind) = tokio::join!(unanswered, async {
        let incoming = incoming(&mut b).await;
        b.kill();
        let kind = within("an error", near.read(&mut [0])).await.unwrap_err().kind();
        drop((incoming, far));
        kind
    });
    assert!(matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset), "{kind}");
    assert!(matches!(result, Err(TunnelError::Broken(_))), "{result:?}");
}

#[tokio::test]
async fn a_hundred_megabytes_pass_quickly() {
    let (a, mut b) = pair((1, 2)).await;
    let (mut near, mut far) = tunnel(&a, &mut b, "").await;
    let bytes = 100 * 1000 * 1000;
    let mut writer = JoinSet::new();
    let start = Instant::now();
    writer.spawn(async move {
        let piece = vec![7; 64 * 1024];
        let mut left = bytes;
        while left > 0 {
            let count = left.min(piece.len());
            near.write_all(&piece[..count]).await.unwrap();
            left -= count;
        }
        near.shutdown().await.unwrap();
        near
    });
    let mut piece = vec![0; 64 * 1024];
    let mut got = 0;
    within("all of it", async {
        loop {
            match far.read(&mut piece).await.unwrap() {
                0 => break,
                count => got += count,
            }
        }
    })
    .await;
    assert_eq!(got, bytes);
    assert!(start.elapsed() < HUNDRED_MEGABYTES, "{:?}", start.elapsed());
}
