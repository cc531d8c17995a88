//! The edge: the port that every node listens on for workers and their clients.
//!
//! Read in this order: `seat` (which tokens let in and where the gateway is), `door` (who is let in), `serve` (connections), `service` (who answers what), then
//! `submit`, `logs` and `forward`.
//! Invariants: nobody is answered before the door has let them in; what a worker says reaches the gateway under the claim that counts here, or nobody; nothing that
//! a caller sends makes the node wait or grow without bound.
//! Does not: know workers (`hwp::gateway` does), or decide anything about jobs (the Machine does).

mod door;
mod forward;
pub mod listing;
mod logs;
mod refusal;
mod seat;
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
pub use seat::{Cut, Gateways, Line};
use seat::{Route, Seat};
pub use serve::{bind, serve};
use starling_core::ids::GatewayTerm;
pub use tls::{Tls, TlsError, TlsFiles};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;

use crate::driver;
use crate::hwp::gateway::WorkerLine;
use crate::output::Pushes;

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
    seats: watch::Receiver<Option<Seat>>,
    turns: turns::Turns,
    pushes: Pushes,
    runtime: Runtime,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("seat", &*self.seats.borrow()).finish_non_exhaustive()
    }
}

impl Edge {
    /// Begins to follow the tokens and the claim, until the driver ends.
    #[must_use]
    pub fn start(setup: Setup) -> Self {
        let (tx, seats) = watch::channel(None);
        setup.runtime.spawn(seat::follow(setup.handle.clone(), Arc::clone(&setup.gateways), tx));
        Self::following(setup, seats)
    }

    fn following(setup: Setup, seats: watch::Receiver<Option<Seat>>) -> Self {
        let Setup { handle, gateways, pushes, runtime } = setup;
        Self { handle, gateways, seats, turns: turns::Turns::default(), pushes, runtime }
    }

    /// The term under which this node is the gateway, if it is.
    #[must_use]
    pub fn acting(&self) -> Option<GatewayTerm> {
        self.seats.borrow().as_ref().and_then(|seat| seat.acting)
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
        let claim = match self.seats.borrow().as_ref().map(|seat| &seat.route) {
            Some(Route::To { node, term, .. }) => Ok((*node, *term)),
            Some(Route::Nowhere(reason)) => Err((*reason).to_owned()),
            None => Err("this node is starting; try again in a moment".to_owned()),
        };
        let (node, term) = claim?;
        self.gateways.workers_there(node, term).await
    }
}
