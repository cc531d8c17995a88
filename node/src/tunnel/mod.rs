//! Tunnels between nodes, by what they are for: opened to a node under a purpose and a term, and handed at the other
//! end to whoever serves that purpose (ADR 13).
//!
//! Invariants: a tunnel is handed over only to who registered for its purpose, and only if that agrees to peer and term;
//! everybody else is refused with a reason. What waits is bounded: 64 tunnels per peer each way, `WAITING` per purpose.
//! Does not: start the network or know its peers (`daemon` does), or know what is spoken in a tunnel.

mod grpc;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use starling_core::ids::NodeId;
use starling_net::{PeerKey, Tunnel, TunnelError};
use tokio::sync::mpsc;
use tracing::debug;

pub use grpc::{Connection, Peer, channel, connections, server, unopened};

/// Tunnels that wait for whoever serves a purpose. When full: refused.
const WAITING: usize = 64;
/// Answers under way at once. When full: tunnels wait in the network's queue.
const ANSWERS: usize = 256;

/// The first bytes of a tunnel: a CBOR array, to which later versions may append.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct Opening {
    #[n(0)]
    purpose: String,
    #[n(1)]
    term: u64,
}

/// A tunnel that a peer opened, and that was accepted.
#[derive(Debug)]
pub struct Incoming {
    /// Who opened it.
    pub from: NodeId,
    /// Under which term.
    pub term: u64,
    /// The bytes.
    pub tunnel: Tunnel,
}

/// No tunnel was opened, and nothing was sent through it.
#[derive(Debug, thiserror::Error)]
#[error("no tunnel to node {node}")]
pub struct OpenError {
    /// To whom.
    pub node: NodeId,
    /// Why.
    #[source]
    pub reason: TunnelError,
}

/// Whether a peer's tunnel under a term is wanted; if not, why. The reason is told to the peer, in 200 bytes at most.
pub type Admit = Box<dyn Fn(NodeId, u64) -> Result<(), String> + Send + Sync>;

struct Service {
    admit: Admit,
    queue: mpsc::Sender<Incoming>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

/// A cloneable handle: opens tunnels, and says who takes incoming ones.
#[derive(Clone, Debug)]
pub struct Tunnels {
    net: starling_net::Handle,
    // A leaf: never held across an await.
    services: Arc<Mutex<BTreeMap<&'static str, Arc<Service>>>>,
}

impl Tunnels {
    /// Over links that run already. `run` must be run, or every incoming tunnel times out.
    #[must_use]
    pub fn new(net: starling_net::Handle) -> Self {
        Self { net, services: Arc::default() }
    }

    /// Opens a tunnel to a linked node. The other end serves `purpose`, and wants tunnels of this term.
    ///
    /// # Errors
    /// At once when the node is not linked or 64 tunnels to it are open; within 5 s when it refuses or does not answer.
    ///
    /// Cancel safety: dropping the future gives the tunnel up.
    pub async fn open(&self, node: NodeId, purpose: &str, term: u64) -> Result<Tunnel, OpenError> {
        let opening = crate::wire::encode(&Opening { purpose: purpose.to_owned(), term });
        let opened = self.net.open_tunnel(PeerKey(node.0), opening).await;
        opened.map_err(|reason| OpenError { node, reason })
    }

    /// From now on incoming tunnels for `purpose` that `admit` agrees to go to the returned queue, in place of any
    /// earlier one. When it is full or dropped they are refused.
    #[must_use]
    pub fn register(&self, purpose: &'static str, admit: Admit) -> mpsc::Receiver<Incoming> {
        let (queue, incoming) = mpsc::channel(WAITING);
        self.services().insert(purpose, Arc::new(Service { admit, queue }));
        incoming
    }

    /// Hands incoming tunnels over until the network has ended.
    ///
    /// Cancel safety: dropping it resets the tunnels that were not handed over.
    pub async fn run(self, mut incoming: starling_net::Tunnels) {
        let mut answers = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = answers.next() => {}
                next = incoming.next(), if answers.len() < ANSWERS => match next {
                    Some(asked) => answers.push(self.answer(asked)),
                    None => break,
                },
            }
        }
    }

    async fn answer(&self, asked: starling_net::Incoming) {
        let from = NodeId(asked.from.0);
        let (room, term) = match self.judge(from, &asked.opening) {
            Ok(wanted) => wanted,
            Err(reason) => {
                debug!(node = %from, reason, "tunnel refused");
                return asked.refuse(&reason).await;
            }
        };
        match asked.accept().await {
            Ok(tunnel) => drop(room.send(Incoming { from, term, tunnel })),
            Err(error) => debug!(node = %from, %error, "tunnel was given up"),
        }
    }

    /// A place in the queue of whoever serves it, and the term; or why not.
    fn judge(&self, from: NodeId, opening: &[u8]) -> Result<(mpsc::OwnedPermit<Incoming>, u64), String> {
        let Opening { purpose, term } = minicbor::decode(opening).map_err(|_malformed| "the opening is malformed")?;
        let service = self.services().get(purpose.as_str()).cloned();
        let service = service.ok_or_else(|| format!("nobody serves {purpose:.32} at this node"))?;
        (service.admit)(from, term)?;
        let room = service.queue.clone().try_reserve_owned().map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "this node is busy; try again in a moment",
            mpsc::error::TrySendError::Closed(_) => "this node does not serve that any more",
        })?;
        Ok((room, term))
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<&'static str, Arc<Service>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
