//! Serving: connections in, the router on each, and a bounded goodbye.
//!
//! Invariants: at most `CONNECTIONS_MAX` connections; bytes that are no HTTP cost their own connection
//! only; after `shutdown` nothing is accepted and all is over within `GOODBYE`.
//! Does not: know any route (`http`, `grpc`).

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::context::{Api, Context};
use super::http;
use super::socket::{BindError, UnixSocket};

/// Connections at once; more are closed at once. Low: crowds are turned away. High: file descriptors run out.
const CONNECTIONS_MAX: usize = 1_024;
/// How long a connection may stay silent before its first request, or take to send its headers.
const FIRST_BYTES_WITHIN: Duration = Duration::from_secs(10);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(20);
/// Requests at once on one connection.
const STREAMS_PER_CONNECTION: u32 = 512;
/// What calls get to end after `shutdown`.
const GOODBYE: Duration = Duration::from_secs(3);
/// Rest after the system refused a connection, for instance for want of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves gRPC and HTTP on `tcp` and on a Unix socket at `socket` until `shutdown` is done, then for at
/// most `GOODBYE` more. Nothing guards the port: bind it to loopback unless something else does.
///
/// Cancel safety: dropping it closes every connection at once.
///
/// # Errors
/// If it cannot listen at `socket`; then nothing was served.
pub async fn serve(
    ctx: Context,
    tcp: TcpListener,
    socket: PathBuf,
    shutdown: impl Future<Output = ()>,
) -> Result<(), BindError> {
    let unix = UnixSocket::bind(&socket)?;
    let (stop, stopping) = watch::channel(false);
    let api = Api::new(ctx, stopping.clone());
    let (here, router) = (http::router(api.here()), http::router(api));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    error!(%error, "an API connection failed");
                }
            }
            stream = accept(&tcp, &unix) => match stream {
                Ok(_) if connections.len() >= CONNECTIONS_MAX => {
                    warn!("too many API connections; closed one");
                }
                Ok(Stream::Tcp(stream)) => {
                    // Without it small replies wait for acknowledgements; refused only on a dead socket.
                    let _dead = stream.set_nodelay(true);
                    let (router, mut stopping) = (router.clone(), stopping.clone());
                    connections.spawn(async move {
                        if speaks(stream.readable(), &mut stopping).await {
                            connection(stream, router, stopping).await;
                        }
                    });
                }
                Ok(Stream::Unix(stream)) => {
                    let (router, mut stopping) = (here.clone(), stopping.clone());
                    connections.spawn(async move {
                        if speaks(stream.readable(), &mut stopping).await {
                            connection(stream, router, stopping).await;
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept an API connection");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
        }
    }
    drop((tcp, unix));
    // Nobody may be connected.
    let _nobody = stop.send(true);
    let goodbye = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
        warn!(left = connections.len(), "API connections cut");
        connections.shutdown().await;
    }
    Ok(())
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Cancel safety: cancel safe.
async fn accept(tcp: &TcpListener, unix: &UnixSocket) -> io::Result<Stream> {
    tokio::select! {
        accepted = tcp.accept() => accepted.map(|(stream, _)| Stream::Tcp(stream)),
        accepted = unix.listener.accept() => accepted.map(|(stream, _)| Stream::Unix(stream)),
    }
}

/// Waits until the client has sent something; false if it never does, or the server stops.
///
/// Cancel safety: cancel safe.
async fn speaks(readable: impl Future<Output = io::Result<()>>, stopping: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        biased;
        () = stopped(stopping) => false,
        ready = tokio::time::timeout(FIRST_BYTES_WITHIN, readable) => matches!(ready, Ok(Ok(()))),
    }
}

async fn connection<S>(stream: S, router: Router, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(FIRST_BYTES_WITHIN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_WITHIN)
        .max_concurrent_streams(STREAMS_PER_CONNECTION);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        biased;
        () = stopped(&mut stopping) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        ended = serving.as_mut() => ended,
    };
    if let Err(error) = ended {
        debug!(%error, "API connection ended");
    }
}

/// Returns when the server stops or is gone.
///
/// Cancel safety: cancel safe.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone.
    let _either = stopping.wait_for(|stopping| *stopping).await;
}
