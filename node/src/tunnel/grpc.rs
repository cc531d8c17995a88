//! gRPC through tunnels: a client's channel, and the connections of a server.
//!
//! Invariants: a channel opens its tunnel when it is first used, and another one whenever that broke, always under its own
//! term; a stream that nobody reads holds up at most one 128th of its connection.
//! Does not: retry calls.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use hyper_util::rt::TokioIo;
use starling_core::ids::NodeId;
use starling_net::Tunnel;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server};
use tower::service_fn;

use super::{Incoming, OpenError, Tunnels};

/// The link has a heartbeat of its own; this finds a peer whose links live and whose server does not.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(5);
/// What one stream may send before it is read. Too low slows far nodes down (this much per round trip); too high lets fewer
/// unread streams hold up the rest.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
/// All streams of one connection. Also what a peer may make a node keep, per tunnel.
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// Calls at once through one tunnel: a gateway's workers may all have come in by one node.
const STREAMS: u32 = 4_096;

/// A client's channel to `node`, through a tunnel that is opened with the first call, and anew after it broke. Many
/// clones share one tunnel. A call for which no tunnel can be opened ends with UNAVAILABLE, see [`unopened`].
///
/// Must be called on a tokio runtime.
#[must_use]
pub fn channel(tunnels: &Tunnels, node: NodeId, purpose: &'static str, term: u64) -> Channel {
    let tunnels = tunnels.clone();
    let connector = service_fn(move |_uri| {
        let tunnels = tunnels.clone();
        async move { Ok::<_, OpenError>(TokioIo::new(tunnels.open(node, purpose, term).await?)) }
    });
    // The name goes nowhere but into the calls' `:authority`.
    Endpoint::from_static("http://tunnel.starling.internal")
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_WITHIN)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector_lazy(connector)
}

/// Why there was no tunnel, when that is why a call through a [`channel`] failed. Such a call has reached nobody and
/// may be made again.
#[must_use]
pub fn unopened(status: &Status) -> Option<&OpenError> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(unopened) = error.downcast_ref() {
            return Some(unopened);
        }
        cause = error.source();
    }
    None
}

/// A server whose settings match those of [`channel`]. Serve it with [`connections`].
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_WITHIN))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS)
}

/// Accepted tunnels as `serve_with_incoming` wants its connections. Ends when nothing can come any more.
pub fn connections(incoming: mpsc::Receiver<Incoming>) -> impl Stream<Item = Result<Connection, Infallible>> {
    futures::stream::unfold(incoming, async |mut incoming| {
        let Incoming { from, term, tunnel } = incoming.recv().await?;
        Some((Ok(Connection { peer: Peer { node: from, term }, tunnel }), incoming))
    })
}

/// Who calls through a tunnel: an extension of every request that came through one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node that opened it.
    pub node: NodeId,
    /// Under which term.
    pub term: u64,
}

/// A tunnel as a server sees it.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    tunnel: Tunnel,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tunnel).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_shutdown(cx)
    }
}
