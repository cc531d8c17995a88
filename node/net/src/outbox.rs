//! The queues that lead from any thread into a link's writers.
//!
//! Invariants: sending never waits; what waits is bounded in frames and, on Control, in bytes; the lock is a leaf.
//! Does not: write (`link` does).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use libp2p::swarm::ConnectionId;
use tokio::sync::{Notify, mpsc};

use crate::error::SendError;
use crate::event::DownReason;
use crate::frame::Kind;
use crate::key::PeerKey;
use crate::lanes::Lane;
use crate::limits;
use crate::tunnel::Gate;

/// Ends a link from outside. The first reason wins.
#[derive(Debug, Default)]
pub(crate) struct Kill {
    reason: OnceLock<DownReason>,
    notify: Notify,
}

impl Kill {
    pub(crate) fn now(&self, reason: DownReason) {
        // A link that is already ending keeps its first reason.
        let _already = self.reason.set(reason);
        self.notify.notify_one();
    }

    /// The reason, once there is one.
    ///
    /// Cancel safety: cancel safe.
    pub(crate) async fn wait(&self) -> DownReason {
        loop {
            if let Some(reason) = self.reason.get() {
                return *reason;
            }
            self.notify.notified().await;
        }
    }
}

/// The application's way into one link.
#[derive(Debug)]
pub(crate) struct LinkSender {
    control: mpsc::Sender<(Kind, Bytes)>,
    bulk: mpsc::Sender<(Kind, Bytes)>,
    queued_bytes: Arc<AtomicUsize>,
    kill: Arc<Kill>,
    connection: ConnectionId,
    gate: Gate,
}

/// The link's end of the queues.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) control: mpsc::Receiver<(Kind, Bytes)>,
    pub(crate) bulk: mpsc::Receiver<(Kind, Bytes)>,
    /// Payload bytes in the Control queue; the writer subtracts what it takes.
    pub(crate) queued_bytes: Arc<AtomicUsize>,
}

/// Both ends of one link's queues.
pub(crate) fn queues(kill: Arc<Kill>, connection: ConnectionId, gate: Gate) -> (LinkSender, Queues) {
    let (control_tx, control) = mpsc::channel(limits::CONTROL_QUEUE);
    let (bulk_tx, bulk) = mpsc::channel(limits::BULK_QUEUE);
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let sender =
        LinkSender { control: control_tx, bulk: bulk_tx, queued_bytes: queued_bytes.clone(), kill, connection, gate };
    (sender, Queues { control, bulk, queued_bytes })
}

impl LinkSender {
    /// Queues a frame; never waits. A full Control queue ends the link, sync repairs what was lost.
    pub(crate) fn send(&self, lane: Lane, kind: Kind, bytes: Bytes) -> Result<(), SendError> {
        let size = bytes.len();
        if size > lane.bytes_max() {
            return Err(SendError::TooLarge { bytes: size, bytes_max: lane.bytes_max() });
        }
        let result = match lane {
            Lane::Control => {
                let queued = self.queued_bytes.fetch_add(size, Ordering::Relaxed);
                if queued + size > limits::CONTROL_QUEUE_BYTES {
                    self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
                    self.kill.now(DownReason::Overflow);
                    return Err(SendError::Full);
                }
                self.control.try_send((kind, bytes))
            }
            Lane::Bulk => self.bulk.try_send((kind, bytes)),
        };
        match (result, lane) {
            (Ok(()), _) => Ok(()),
            (Err(mpsc::error::TrySendError::Closed(_)), _) => Err(SendError::NotLinked),
            (Err(mpsc::error::TrySendError::Full(_)), Lane::Bulk) => Err(SendError::Full),
            (Err(mpsc::error::TrySendError::Full(_)), Lane::Control) => {
                self.kill.now(DownReason::Overflow);
                Err(SendError::Full)
            }
        }
    }

    /// The connection that carries the link.
    pub(crate) fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// What its tunnels share.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(crate) fn kill(&self, reason: DownReason) {
        self.kill.now(reason);
    }
}

/// Every link that is up, by peer. The lock is a leaf: held for a look-up, never across anything else.
#[derive(Debug, Default)]
pub(crate) struct Senders(RwLock<HashMap<PeerKey, Arc<LinkSender>>>);

impl Senders {
    pub(crate) fn find(&self, peer: PeerKey) -> Option<Arc<LinkSender>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned()
    }

    pub(crate) fn peers(&self) -> Vec<PeerKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    pub(crate) fn insert(&self, peer: PeerKey, sender: LinkSender) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(peer, Arc::new(sender));
    }

    pub(crate) fn remove(&self, peer: PeerKey) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&peer);
    }
}
