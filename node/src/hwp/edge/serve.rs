//! Connections of workers and their clients, on TCP with or without TLS.
//!
//! Invariants: at most `CONNECTIONS_MAX` connections, of which each has `STREAMS_PER_CONNECTION` calls; one on which nobody was let in within `LET_IN_WITHIN`, or whose
//! peer is silent, is closed. After `shutdown` calls get `GOODBYE` to end.
//! Does not: look at calls (`door`, `service`).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use starling_proto::hwp::worker_service_server::WorkerServiceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::Edge;
use super::door::{Door, Guest};
use super::tls::Tls;
use crate::hwp::gateway::MESSAGE_BYTES_MAX;

/// Connections served at once. Low: workers are turned away. High: descriptors run out.
const CONNECTIONS_MAX: usize = 4_096;
/// Calls at once on one connection.
const STREAMS_PER_CONNECTION: u32 = 1_024;
/// How long a connection may last without a call that is let in: a refusal, and a second try.
const LET_IN_WITHIN: Duration = Duration::from_secs(15);
/// Longest TLS handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(20);
/// What one call may have under way, and all calls of a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// What calls get to end after `shutdown`.
const GOODBYE: Duration = Duration::from_secs(2);
/// Rest after the system refused a connection, for instance for want of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

type Service = WorkerServiceServer<Edge>;

/// Serves the worker protocol on `tcp` until `shutdown` is done, then for at most `GOODBYE` more.
///
/// Cancel safety: dropping it closes every connection at once.
pub async fn serve(edge: Edge, tcp: TcpListener, tls: Option<Tls>, shutdown: impl Future<Output = ()>) {
    let (stop, stopping) = watch::channel(false);
    let service = WorkerServiceServer::new(edge.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let host = Host { door: Door::of(edge), service, tls, stopping };
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    error!(%error, "a connection of a worker failed");
                }
            }
            accepted = tcp.accept() => match accepted {
                Ok(_) if connections.len() >= CONNECTIONS_MAX => {
                    warn!("too many connections of workers; closed one");
                }
                Ok((stream, peer)) => {
                    connections.spawn(host.clone().welcome(stream, peer));
                }
                Err(error) => {
                    warn!(%error, "cannot accept a worker's connection");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
        }
    }
    drop(tcp);
    // Nobody may be connected.
    let _nobody = stop.send(true);
    let goodbye = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
        debug!(left = connections.len(), "connections of workers cut");
        connections.shutdown().await;
    }
}

/// What every connection needs.
#[derive(Clone, Debug)]
struct Host {
    door: Door,
    service: Service,
    tls: Option<Tls>,
    stopping: watch::Receiver<bool>,
}

impl Host {
    async fn welcome(self, stream: TcpStream, peer: SocketAddr) {
        // Without it small answers wait for acknowledgements; refused only on a dead socket.
        let _dead = stream.set_nodelay(true);
        let guest = Guest::at(peer.ip());
        match self.tls.clone() {
            None => self.connection(stream, guest).await,
            Some(tls) => match tokio::time::timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.connection(stream, guest).await,
                Ok(Err(error)) => debug!(%peer, %error, "no TLS with a worker"),
                Err(_elapsed) => debug!(%peer, "no TLS with a worker in time"),
            },
        }
    }

    async fn connection<S>(mut self, stream: S, guest: Guest)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_EVERY)
            .keep_alive_timeout(KEEP_ALIVE_WITHIN)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_PER_CONNECTION);
        let guarded = self.door.guard(guest.clone(), self.service);
        let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(guarded));
        let mut serving = std::pin::pin!(serving);
        let stranger = async {
            tokio::time::sleep(LET_IN_WITHIN).await;
            if guest.was_let_in() {
                std::future::pending::<()>().await;
            }
        };
        let ended: Result<(), _> = tokio::select! {
            biased;
            () = stopped(&mut self.stopping) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
            ended = serving.as_mut() => ended,
            () = guest.turned_away() => {
                serving.as_mut().graceful_shutdown();
                // The refusal itself goes out first.
                tokio::time::timeout(GOODBYE, serving).await.unwrap_or(Ok(()))
            }
            () = stranger => Ok(()),
        };
        if let Err(error) = ended {
            debug!(%error, "connection of a worker ended");
        }
    }
}

/// Returns when the server stops or is gone.
///
/// Cancel safety: cancel safe.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone.
    let _either = stopping.wait_for(|stopping| *stopping).await;
}

/// Binds the first free port of loopback, or the very address that was asked for.
///
/// # Errors
/// What the system says of the last address that was tried.
pub async fn bind(candidates: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in candidates {
        match TcpListener::bind(addr).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}
