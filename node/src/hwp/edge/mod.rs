//! The edge: the port that every node listens on for workers and their clients.
//!
//! Read in this order: `outlook` (which tokens let in and where the gateway is), `door` (who is let in), `serve` (connections), `service` (who answers what), then
//! `submit`, `logs` and `forward`.
//! Invariants: nobody is answered before the door has let them in; what a worker says reaches the gateway under the claim that counts here, or nobody; nothing that
//! a caller sends makes the node wait or grow without bound.
//! Does not: know workers (`hwp::gateway` does), or decide anything about jobs (the Machine does).

mod door;
mod forward;
pub mod listing;
mod logs;
mod outlook;
mod refusal;
mod serve;
mod service;
mod submit;
#[cfg(test)]
mod tests;
mod tls;
mod turns;

use std::fmt;
use std::sync::Arc;

pub use door::Access;
pub use outlook::{Cut, Gateways, Line};
use outlook::{Outlook, Route};
pub use serve::{bind, serve};
use starling_core::ids::GatewayTerm;
pub use tls::{Tls, TlsError, TlsFiles};
use tokio::runtime::Handle as Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;

use crate::driver;
use crate::hwp::gateway::WorkerLine;
use crate::output::Pushes;

/// Calls served at once that are no streams. Low: bursts are refused. High: a flood takes more memory.
const CALLS_MAX: usize = 8_192;
/// Streams held at once.
const STREAMS_MAX: usize = 8_192;

/// What the edge stands on.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The driver.
    pub handle: driver::Handle,
    /// The gateway here, and the way to the one elsewhere.
    pub gateways: Arc<dyn Gateways>,
    /// Lines that clients push.
    pub pushes: Pushes,
    /// For what must go on when its caller leaves.
    pub runtime: Runtime,
}

/// The edge of a node. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    handle: driver::Handle,
    gateways: Arc<dyn Gateways>,
    outlooks: watch::Receiver<Option<Outlook>>,
    turns: turns::Turns,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    pushes: Pushes,
    runtime: Runtime,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("outlook", &*self.outlooks.borrow()).finish_non_exhaustive()
    }
}

impl Edge {
    /// Begins to follow the tokens and the claim, until the driver ends.
    #[must_use]
    pub fn start(setup: Setup) -> Self {
        let (tx, outlooks) = watch::channel(None);
        setup.runtime.spawn(outlook::follow(setup.handle.clone(), Arc::clone(&setup.gateways), tx));
        Self::following(setup, outlooks)
    }

    fn following(setup: Setup, outlooks: watch::Receiver<Option<Outlook>>) -> Self {
        let Setup { handle, gateways, pushes, runtime } = setup;
        let (calls, streams) = (Arc::new(Semaphore::new(CALLS_MAX)), Arc::new(Semaphore::new(STREAMS_MAX)));
        Self { handle, gateways, outlooks, turns: turns::Turns::default(), calls, streams, pushes, runtime }
    }

    /// Room for a call.
    fn call(&self) -> Result<OwnedSemaphorePermit, Status> {
        room(&self.calls)
    }

    /// Room for a stream, for as long as it lasts.
    fn stream(&self) -> Result<OwnedSemaphorePermit, Status> {
        room(&self.streams)
    }

    /// The term under which this node is the gateway, if it is.
    #[must_use]
    pub fn acting(&self) -> Option<GatewayTerm> {
        self.outlooks.borrow().as_ref().and_then(|outlook| outlook.acting)
    }

    /// The gateway's workers, whichever node that is.
    ///
    /// Cancel safety: cancel safe.
    ///
    /// # Errors
    /// In words for people: if there is no gateway, or it does not answer.
    pub async fn workers(&self) -> Result<Vec<WorkerLine>, String> {
        if self.acting().is_some() {
            return Ok(self.gateways.workers_here().await);
        }
        let claim = match self.outlooks.borrow().as_ref().map(|outlook| &outlook.route) {
            Some(Route::To { node, term, .. }) => Ok((*node, *term)),
            Some(Route::Nowhere(reason)) => Err((*reason).to_owned()),
            None => Err("this node is starting; try again in a moment".to_owned()),
        };
        let (node, term) = claim?;
        self.gateways.workers_there(node, term).await
    }
}

fn room(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    let busy = |_full| Status::unavailable("this node serves as many calls as it can; try again, or at another node");
    Arc::clone(of).try_acquire_owned().map_err(busy)
}
