//! Peers that open tunnels as no node of ours would.
//!
//! Invariants: no sleeping; the hostile side is a real node whose raw streams the test writes to.
//! Does not: test what well-behaved nodes do with tunnels (`tests/net/tunnels.rs`).

use std::net::SocketAddr;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::swarm::Stream;

use super::{Incoming, Tunnels, ask};
use crate::error::TunnelError;
use crate::event::{Event, Events};
use crate::handle::Handle;
use crate::limits;
use crate::{Config, start};

const DEADLINE: Duration = Duration::from_secs(20);

struct Node {
    handle: Handle,
    events: Events,
    tunnels: Tunnels,
}

fn node(seed: u8, join: Vec<SocketAddr>) -> Node {
    let mut config = Config::new([seed; 32], [1; 32], [2; 32]);
    config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.join = join;
    let (handle, events, tunnels) = start(config).unwrap();
    Node { handle, events, tunnels }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("not in {DEADLINE:?}: {what}"),
    }
}

async fn pair() -> (Node, Node) {
    let mut host = node(1, Vec::new());
    let mut guest = node(2, host.handle.listening());
    for node in [&mut host, &mut guest] {
        within("a link", async { while !matches!(node.events.recv().await, Some(Event::LinkUp { .. })) {} }).await;
    }
    (host, guest)
}

/// A stream on which nothing was said yet, and no room was asked for.
async fn raw(from: &Node, to: &Node) -> Stream {
    let link = from.handle.link(to.handle.me()).expect("they are linked");
    within("a stream", from.handle.stream(to.handle.me(), link)).await.unwrap()
}

async fn incoming(node: &mut Node) -> Incoming {
    within("a peer asks for a tunnel", node.tunnels.next()).await.expect("the network runs")
}

/// That a proper tunnel still opens.
async fn is_well(host: &mut Node, guest: &Node) {
    let (opened, accepted) = tokio::join!(guest.handle.open_tunnel(host.handle.me(), "proper".into()), async {
        let incoming = incoming(host).await;
        assert_eq!(&incoming.opening[..], b"proper");
        incoming.accept().await
    });
    opened.unwrap();
    accepted.unwrap();
}

#[tokio::test]
async fn oversize_opening_is_refused_and_the_link_lives() {
    let (mut host, guest) = pair().await;
    for length in [limits::TUNNEL_OPENING_BYTES_MAX + 1, usize::from(u16::MAX)] {
        let mut stream = raw(&guest, &host).await;
        let result = within("an answer", ask(&mut stream, &vec![b'x'; length])).await;
        assert!(matches!(&result, Err(TunnelError::Refused(reason)) if reason.contains("too large")), "{result:?}");
    }
    is_well(&mut host, &guest).await;
}

#[tokio::test]
async fn broken_off_opening_is_dropped() {
    let (mut host, guest) = pair().await;
    for said in [&b""[..], &[0], &[0, 5, b'x']] {
        let mut stream = raw(&guest, &host).await;
        stream.write_all(said).await.unwrap();
        stream.close().await.unwrap();
        let mut answer = Vec::new();
        within("the end", stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.is_empty());
    }
    is_well(&mut host, &guest).await;
}

#[tokio::test]
async fn a_peer_that_asks_for_too_many_is_refused_beyond_its_share() {
    let (mut host, guest) = pair().await;
    let mut streams = Vec::new();
    for _ in 0..limits::TUNNELS_PER_PEER_MAX {
        let mut stream = raw(&guest, &host).await;
        stream.write_all(&[0, 1, b'x']).await.unwrap();
        stream.flush().await.unwrap();
        streams.push((stream, incoming(&mut host).await.accept().await.unwrap()));
    }
    for _ in 0..3 * limits::TUNNELS_PER_PEER_MAX {
        let mut stream = raw(&guest, &host).await;
        let result = within("an answer", ask(&mut stream, b"one more")).await;
        assert!(matches!(&result, Err(TunnelError::Refused(reason)) if reason.contains("too many")), "{result:?}");
    }
    drop(streams);
    is_well(&mut host, &guest).await;
}

#[tokio::test]
async fn openings_that_never_come_hold_only_their_peers_share() {
    let (mut host, guest) = pair().await;
    let mut other = node(3, host.handle.listening());
    for node in [&mut host, &mut other] {
        within("a link", async { while !matches!(node.events.recv().await, Some(Event::LinkUp { .. })) {} }).await;
    }
    let mut silent = Vec::new();
    for _ in 0..2 * limits::TUNNELS_PER_PEER_MAX {
        silent.push(raw(&guest, &host).await);
    }
    is_well(&mut host, &other).await;
    // They are given up after a while, without a link lost.
    let mut first = silent.remove(0);
    within("the end of a silent one", first.read(&mut [0])).await.unwrap();
    drop(silent);
    assert!(host.handle.linked().contains(&guest.handle.me()));
}

#[tokio::test]
async fn chunks_that_lie_are_an_error_of_their_own_tunnel() {
    let (mut host, guest) = pair().await;
    let mut stream = raw(&guest, &host).await;
    stream.write_all(&[0, 1, b'x']).await.unwrap();
    stream.flush().await.unwrap();
    let mut tunnel = incoming(&mut host).await.accept().await.unwrap();
    // A chunk of 9 bytes, of which 2 come.
    stream.write_all(&[0, 9, 1, 2]).await.unwrap();
    stream.close().await.unwrap();
    let mut got = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut tunnel, &mut got);
    let error = within("an error", read).await.unwrap_err();
    assert_eq!((&got[..], error.kind()), (&[1, 2][..], std::io::ErrorKind::ConnectionReset));
    is_well(&mut host, &guest).await;
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error() {
    let (mut near, mut far) = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dial = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let (dialled, accepted) = tokio::join!(dial, listener.accept());
        (libp2p::tcp::tokio::TcpStream(dialled.unwrap()), libp2p::tcp::tokio::TcpStream(accepted.unwrap().0))
    };
    far.write_all(&[2]).await.unwrap();
    let result = within("an answer", ask(&mut near, b"x")).await;
    let Err(TunnelError::Broken(error)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}
