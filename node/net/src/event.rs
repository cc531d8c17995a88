//! What the network tells the application, and the bounded queue it goes through.
//!
//! Invariants: events of one link arrive in order: `LinkUp`, its frames, `LinkDown`; one `LinkDown` per
//! `LinkUp`. Waiting payloads are bounded in number and in bytes; when the queue is full links stop reading.
//! Does not: keep anything that the application has taken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::gossip::{MessageTag, Topic};
use crate::key::PeerKey;
use crate::lanes::Lane;
use crate::limits;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Both lanes to `peer` work in both directions.
    LinkUp {
        /// Who.
        peer: PeerKey,
        /// The other end of the TCP connection.
        addr: SocketAddr,
    },
    /// The link is gone; nothing more arrives on it.
    LinkDown {
        /// Who.
        peer: PeerKey,
        /// Why, as seen from here.
        reason: DownReason,
    },
    /// A message from gossip. It is passed on after [`crate::Handle::verdict`] accepts it.
    Gossip {
        /// Its topic.
        topic: Topic,
        /// The neighbour that passed it on, which need not be its author.
        from: PeerKey,
        /// Names it for the verdict.
        tag: MessageTag,
        /// Its content.
        bytes: Bytes,
    },
    /// A frame from a linked peer.
    Frame {
        /// Who sent it.
        peer: PeerKey,
        /// On which lane.
        lane: Lane,
        /// Its content.
        bytes: Bytes,
    },
    /// Somebody was refused, or refused us, before anything was spoken. At most one per address in 10 s.
    Refused {
        /// The other end.
        addr: SocketAddr,
        /// Why.
        reason: RefusedReason,
    },
    /// An address that we now listen on, with its real port.
    Listening(SocketAddr),
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The connection was closed or broke.
    Closed,
    /// Nothing arrived for `Config::silence`.
    Silence,
    /// Our own Control queue to this peer was full.
    Overflow,
    /// The peer broke the framing, or sent an oversize frame.
    Violation,
    /// A newer connection to the same peer took its place.
    Replaced,
    /// `Handle::disconnect` was called.
    Local,
    /// This node is shutting down.
    Shutdown,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedReason {
    /// Its proof of membership was wrong.
    #[error("the peer does not know this cluster's secret")]
    WrongSecret,
    /// It gave no proof in time.
    #[error("the peer did not answer the membership challenge")]
    NoProof,
    /// It speaks another version of the challenge.
    #[error("the peer speaks another version of the membership challenge")]
    OtherVersion,
    /// It has our own identity: a copied data directory is running twice.
    #[error("the peer runs with this node's own identity")]
    SameIdentity,
}

/// The application's end of the event queue.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<Queued>,
}

impl Events {
    /// The next event; `None` after shutdown.
    ///
    /// Cancel safety: cancel safe.
    pub async fn recv(&mut self) -> Option<Event> {
        self.queue.recv().await.map(|queued| queued.event)
    }

    /// The same from a plain thread. Panics on a runtime's own thread.
    pub fn blocking_recv(&mut self) -> Option<Event> {
        self.queue.blocking_recv().map(|queued| queued.event)
    }

    /// An event that is already there; `None` when there is none now, or never again.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.queue.try_recv().ok().map(|queued| queued.event)
    }

    /// For hand-written futures.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.queue.poll_recv(cx).map(|queued| queued.map(|queued| queued.event))
    }
}

#[derive(Debug)]
struct Queued {
    event: Event,
    // Released when the application takes the event.
    _room: Option<OwnedSemaphorePermit>,
}

/// Nobody listens any more.
#[derive(Debug)]
pub(crate) struct Undelivered;

/// The network's end.
#[derive(Clone, Debug)]
pub(crate) struct EventSender {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

pub(crate) fn queue() -> (EventSender, Events) {
    let (tx, rx) = mpsc::channel(limits::EVENT_QUEUE);
    let room = Arc::new(Semaphore::new(limits::EVENT_QUEUE_KIB));
    (EventSender { queue: tx, room }, Events { queue: rx })
}

impl EventSender {
    /// Waits for room. Fails only when the application is gone.
    pub(crate) async fn send(&self, event: Event) -> Result<(), Undelivered> {
        let room = match cost(&event) {
            0 => None,
            kib => Some(self.room.clone().acquire_many_owned(kib).await.or(Err(Undelivered))?),
        };
        self.queue.send(Queued { event, _room: room }).await.or(Err(Undelivered))
    }

    /// Never waits; gives the event back when it does not fit or nobody listens.
    #[expect(clippy::result_large_err, reason = "the event goes back to its owner, it is no error to carry far")]
    pub(crate) fn try_send(&self, event: Event) -> Result<(), Event> {
        let room = match cost(&event) {
            0 => None,
            kib => match self.room.clone().try_acquire_many_owned(kib) {
                Ok(room) => Some(room),
                Err(_full) => return Err(event),
            },
        };
        match self.queue.try_send(Queued { event, _room: room }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(queued) | TrySendError::Closed(queued)) => Err(queued.event),
        }
    }
}

/// KiB of payload; small ones are covered by the bound on their number.
fn cost(event: &Event) -> u32 {
    match event {
        Event::Gossip { bytes, .. } | Event::Frame { bytes, .. } => {
            u32::try_from(bytes.len() / 1024).unwrap_or(u32::MAX)
        }
        Event::LinkUp { .. } | Event::LinkDown { .. } | Event::Refused { .. } | Event::Listening(_) => 0,
    }
}
