//! The edge: the port that every node listens on for workers and their clients.
//!
//! Read in this order: `seat` (which tokens let in and where the gateway is), `door` (who is let in), `serve` (connections), `service` (who answers what), then
//! `submit`, `logs` and `forward`.
//! Invariants: nobody is answered before the door has let them in; what a worker says reaches the gateway under the claim that counts here, or nobody; nothing that
//! a caller sends makes the node wait or grow without bound.
//! Does not: know workers (`hwp::gateway` does), or decide anything about jobs (the Machine does).

mod door;
mod forward;
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
pub use serve::{bind, serve};
pub use tls::{Tls, TlsError, TlsFiles};
use tokio::sync::watch;

use crate::driver;
use crate::output::Pushes;

/// Largest message that is read. Low: results with long output are refused. High: each connection may take more memory.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What the edge stands on.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The driver.
    pub handle: driver::Handle,
    /// The gateway here, and the way to the one elsewhere.
    pub gateways: Arc<dyn Gateways>,
    /// Lines that clients push.
    pub pushes: Pushes,
}

/// The edge of a node. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    handle: driver::Handle,
    seats: watch::Receiver<Option<seat::Seat>>,
    turns: turns::Turns,
    pushes: Pushes,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("seat", &*self.seats.borrow()).finish_non_exhaustive()
    }
}

impl Edge {
    /// Begins to follow the tokens and the claim. Within a tokio runtime; it ends with the driver.
    #[must_use]
    pub fn start(setup: Setup) -> Self {
        let (tx, seats) = watch::channel(None);
        tokio::spawn(seat::follow(setup.handle.clone(), setup.gateways, tx));
        Self::following(setup.handle, setup.pushes, seats)
    }

    fn following(handle: driver::Handle, pushes: Pushes, seats: watch::Receiver<Option<seat::Seat>>) -> Self {
        Self { handle, seats, turns: turns::Turns::default(), pushes }
    }
}
