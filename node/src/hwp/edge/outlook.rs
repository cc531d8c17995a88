//! The outlook: which tokens let in, and where the gateway is, as this node's Facts have it.
//!
//! Invariants: a line to a gateway is bound to one node and one term; it is dropped as soon as a greater claim is folded here.
//! Does not: check anybody (`door`), or carry calls (`forward`).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use starling_core::facts::Claim;
use starling_core::ids::{GatewayTerm, Hash, NodeId};
use starling_core::machine::{Machine, Notice};
use starling_core::time::Now;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tonic::body::Body;
use tonic::codegen::http;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};

use crate::driver::{Handle, Stopped};
use crate::hwp::gateway::WorkerLine;

/// Rest while the driver's queue is full.
const BUSY_REST: Duration = Duration::from_millis(50);

/// A call that did not reach a gateway, or whose answer did not come back.
#[derive(Debug, thiserror::Error)]
#[error("the gateway cannot be reached")]
pub struct Cut(#[source] BoxError);

/// Calls to one gateway: its own service in this process, or a channel through a tunnel. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Line(BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Cut>);

impl Line {
    /// Through a service, which connects, if it must, when it is first used.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
    {
        Self(BoxCloneSyncService::new(service.map_err(|error| Cut(error.into()))))
    }
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Body>;
    type Error = Cut;
    type Future = BoxFuture<'static, Result<Self::Response, Cut>>;

    fn poll_ready(&mut self, ctx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        self.0.poll_ready(ctx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

/// The gateway at this node, and the way to the one at another.
pub trait Gateways: fmt::Debug + Send + Sync + 'static {
    /// The workers' service of this node.
    fn here(&self) -> Line;

    /// The workers' service of another node, which serves this line only while it acts under `term`.
    fn there(&self, node: NodeId, term: GatewayTerm) -> Line;

    /// The workers of this node, while it is the gateway.
    fn workers_here(&self) -> BoxFuture<'_, Vec<WorkerLine>>;

    /// The workers of another node, which acts under `term`; if it does not answer, why.
    fn workers_there(&self, node: NodeId, term: GatewayTerm) -> BoxFuture<'_, Result<Vec<WorkerLine>, String>>;
}

/// Where workers are served.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// By a node, this one or another, under a term.
    To {
        /// Which.
        node: NodeId,
        /// Its claim's.
        term: GatewayTerm,
        /// Calls to it.
        line: Line,
    },
    /// By nobody, for a reason.
    Nowhere(&'static str),
}

impl Route {
    /// The claim that it serves.
    pub(super) fn claim(&self) -> Option<(NodeId, GatewayTerm)> {
        match self {
            Self::To { node, term, .. } => Some((*node, *term)),
            Self::Nowhere(_) => None,
        }
    }
}

/// What the edge must know of the Facts.
#[derive(Clone, Debug)]
pub(super) struct Outlook {
    /// Hashes of the tokens that let in.
    pub(super) tokens: Arc<BTreeSet<Hash>>,
    /// Where workers are served.
    pub(super) route: Route,
    /// The term under which this node is the gateway, if it is.
    pub(super) acting: Option<GatewayTerm>,
}

/// The same as the Machine has it.
#[derive(Debug)]
struct Seen {
    me: NodeId,
    tokens: BTreeSet<Hash>,
    claim: Option<Claim>,
    acting: Option<GatewayTerm>,
}

/// Keeps the outlook up to date until the driver ends.
pub(super) async fn follow(handle: Handle, gateways: Arc<dyn Gateways>, outlooks: watch::Sender<Option<Outlook>>) {
    let mut news = handle.subscribe();
    loop {
        match handle.ask(look).await {
            Ok(seen) => {
                outlooks.send_if_modified(|outlook| renew(outlook, seen, &*gateways));
            }
            Err(Stopped::Busy) => {
                tokio::time::sleep(BUSY_REST).await;
                continue;
            }
            Err(Stopped::Gone) => break,
        }
        if !changed(&mut news).await {
            break;
        }
    }
    outlooks.send_if_modified(|outlook| {
        let Some(outlook) = outlook else { return false };
        outlook.route = Route::Nowhere("this node is shutting down; connect to another");
        outlook.acting = None;
        true
    });
}

fn look(machine: &mut Machine, _now: Now) -> Seen {
    let gateway = machine.facts().gateway();
    Seen {
        me: machine.me(),
        tokens: gateway.valid_tokens().map(|(hash, _)| *hash).collect(),
        claim: gateway.claim().copied(),
        acting: machine.election().standing().acting(),
    }
}

/// Waits for news of the claim, the tokens, or how this node stands; false once the driver has ended.
async fn changed(news: &mut broadcast::Receiver<Notice>) -> bool {
    loop {
        match news.recv().await {
            // Whoever lagged has missed something, perhaps this.
            Ok(Notice::Gateway(_) | Notice::GatewayFacts) | Err(RecvError::Lagged(_)) => return true,
            Ok(Notice::Stopped) | Err(RecvError::Closed) => return false,
            Ok(
                Notice::Folded(_)
                | Notice::NodeDead(_)
                | Notice::Adopted { .. }
                | Notice::Twin
                | Notice::Forked(_)
                | Notice::RootMismatch(_)
                | Notice::DiskRefuses(_)
                | Notice::Snapshot(_)
                | Notice::DiskAccepts,
            ) => {}
        }
    }
}

/// Whether anything has changed.
fn renew(outlook: &mut Option<Outlook>, seen: Seen, gateways: &dyn Gateways) -> bool {
    let target = seen.claim.map(|claim| (claim.node, claim.term)).filter(|(node, term)| {
        // Its own node does not act yet, or no more, or under an older claim.
        *node != seen.me || seen.acting == Some(*term)
    });
    if let Some(outlook) = outlook
        && *outlook.tokens == seen.tokens
        && target.is_some()
        && outlook.route.claim() == target
    {
        return false;
    }
    let kept = outlook.as_ref().map(|outlook| outlook.route.clone()).filter(|route| route.claim() == target);
    let route = match (kept, target) {
        (Some(route @ Route::To { .. }), _) => route,
        (_, Some((node, term))) => {
            let line = if node == seen.me { gateways.here() } else { gateways.there(node, term) };
            Route::To { node, term, line }
        }
        (_, None) if seen.claim.is_some() => {
            Route::Nowhere("this node is to be the gateway and does not act yet; try again in a moment")
        }
        (_, None) => Route::Nowhere("no node is the gateway yet; try again in a moment"),
    };
    let acting = target.filter(|(node, _)| *node == seen.me).map(|(_, term)| term);
    *outlook = Some(Outlook { tokens: Arc::new(seen.tokens), route, acting });
    true
}
