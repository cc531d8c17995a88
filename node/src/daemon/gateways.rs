//! The gateway as the edge and the API need it: in this process, or through a tunnel to another node.
//!
//! Invariants: a tunnel is accepted, and each call in it served, only under the term under which this node is the gateway.
//! Does not: know workers (`hwp::gateway` does) or who is let in (`hwp::edge` does).

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use starling_core::ids::{GatewayTerm, NodeId};
use starling_proto::hwp::worker_service_server::WorkerServiceServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use tracing::{debug, error};

use crate::api;
use crate::driver;
use crate::hwp::edge::{Edge, Gateways, Line, Setup, listing};
use crate::hwp::gateway::{self, MESSAGE_BYTES_MAX, WorkerLine};
use crate::output::Pushes;
use crate::tunnel::{self, Admit, Incoming, Peer, Tunnels};

/// Workers' calls.
const CALLS: &str = "hwp";
/// The list of workers.
const LIST: &str = "workers";
/// How long the list may take, either way.
const LIST_WITHIN: Duration = Duration::from_secs(5);

/// Starts the edge, and serves the tunnels of other nodes' edges.
pub(super) fn start(
    handle: driver::Handle,
    gateway: &gateway::Handle,
    tunnels: &Tunnels,
    pushes: Pushes,
    runtime: &Runtime,
) -> Edge {
    let gateways = Arc::new(Here { gateway: gateway.clone(), tunnels: tunnels.clone() });
    let edge = Edge::start(Setup { handle, gateways, pushes, runtime: runtime.clone() });
    let calls = tunnels.register(CALLS, admit(edge.clone()));
    runtime.spawn(serve_calls(edge.clone(), gateway.clone(), calls));
    let lists = tunnels.register(LIST, admit(edge.clone()));
    runtime.spawn(serve_lists(gateway.clone(), lists, runtime.clone()));
    edge
}

/// This node's gateway, and the way to the others'.
#[derive(Debug)]
struct Here {
    gateway: gateway::Handle,
    tunnels: Tunnels,
}

impl Gateways for Here {
    fn here(&self) -> Line {
        Line::new(service(&self.gateway, "its own port"))
    }

    fn there(&self, node: NodeId, term: GatewayTerm) -> Line {
        Line::new(tunnel::channel(&self.tunnels, node, CALLS, term.0))
    }

    fn workers_here(&self) -> BoxFuture<'_, Vec<WorkerLine>> {
        self.gateway.list().boxed()
    }

    fn workers_there(&self, node: NodeId, term: GatewayTerm) -> BoxFuture<'_, Result<Vec<WorkerLine>, String>> {
        let list = async move {
            let told =
                |error: &(dyn Error + 'static)| format!("the gateway does not tell its workers: {}", innermost(error));
            let tunnel = self.tunnels.open(node, LIST, term.0).await.map_err(|error| told(&error))?;
            let mut bytes = Vec::new();
            tunnel.take(listing::LIST_BYTES_MAX).read_to_end(&mut bytes).await.map_err(|error| told(&error))?;
            listing::decode(&bytes).map_err(|error| error.to_string())
        };
        let late = |_elapsed| Err("the gateway does not tell its workers in time; try again".to_owned());
        tokio::time::timeout(LIST_WITHIN, list).map(move |told| told.unwrap_or_else(late)).boxed()
    }
}

fn service(gateway: &gateway::Handle, via: &str) -> WorkerServiceServer<gateway::Service> {
    WorkerServiceServer::new(gateway.service(via.to_owned())).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

fn innermost<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}

/// Tunnels under the term under which this node acts.
fn admit(edge: Edge) -> Admit {
    Box::new(move |_from, term| {
        if edge.acting() == Some(GatewayTerm(term)) {
            return Ok(());
        }
        Err(format!("this node is not the gateway under term {term}"))
    })
}

/// Serves workers that came in by other nodes, until the node ends.
async fn serve_calls(edge: Edge, gateway: gateway::Handle, calls: mpsc::Receiver<Incoming>) {
    // A tunnel may outlive the term under which it was opened.
    let fence = move |request: Request<()>| match request.extensions().get::<Peer>() {
        Some(peer) if edge.acting() == Some(GatewayTerm(peer.term)) => Ok(request),
        Some(_) | None => Err(Status::unavailable("this node is not the gateway any more; connect again")),
    };
    let service = InterceptedService::new(service(&gateway, "another node"), fence);
    let serving = tunnel::server().add_service(service).serve_with_incoming(tunnel::connections(calls));
    if let Err(error) = serving.await {
        error!(%error, "workers of other nodes are served no more");
    }
}

/// Tells other nodes which workers there are, until the node ends.
async fn serve_lists(gateway: gateway::Handle, mut lists: mpsc::Receiver<Incoming>, runtime: Runtime) {
    while let Some(Incoming { from, mut tunnel, .. }) = lists.recv().await {
        let gateway = gateway.clone();
        // As many at once as a peer may have tunnels.
        runtime.spawn(async move {
            let tell = async {
                tunnel.write_all(&listing::encode(&gateway.list().await)).await?;
                tunnel.shutdown().await
            };
            match tokio::time::timeout(LIST_WITHIN, tell).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(node = %from, %error, "list of workers not sent"),
                Err(_elapsed) => debug!(node = %from, "list of workers not read in time"),
            }
        });
    }
}

/// The workers, for the API.
#[derive(Debug)]
pub(super) struct Listed(pub(super) Edge);

impl api::ReadWorkers for Listed {
    fn list(&self) -> BoxFuture<'_, Result<Vec<WorkerLine>, String>> {
        self.0.workers().boxed()
    }
}
