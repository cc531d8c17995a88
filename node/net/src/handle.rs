//! The application's handle: synchronous, never waiting, usable from any thread.
//!
//! Invariants: `send` goes straight into the peer's queue; everything else is a command to the swarm task
//! through one bounded queue. No call blocks, except `shutdown` and `open_tunnel`, which are async and have deadlines.
//! Does not: deliver; a queued frame is lost when its link breaks.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use libp2p::swarm::{ConnectionId, Stream};
use tokio::sync::{mpsc, oneshot};

use crate::error::{PublishError, SendError, TunnelError};
use crate::event::DownReason;
use crate::frame::Kind;
use crate::gossip::{MessageTag, Topic, Verdict};
use crate::key::PeerKey;
use crate::lanes::{Lane, TunnelReply};
use crate::outbox::Senders;
use crate::tunnel::Tunnel;
use crate::{limits, opening};

/// What the swarm task is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Publish(Topic, Bytes),
    Verdict(MessageTag, Verdict),
    Hint(SocketAddr, Option<PeerKey>),
    Tunnel(Wish),
    Shutdown(oneshot::Sender<()>),
}

/// A stream for a tunnel, wanted on a link's connection.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) peer: PeerKey,
    pub(crate) connection: ConnectionId,
    /// Dropped when the connection is gone.
    pub(crate) reply: TunnelReply,
}

/// Counters since the start, and how many connections there are. Each may lag behind the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Established connections now: one for each link, and briefly a second one.
    pub connections: u64,
    /// Connections that never became a secure channel: port scanners, garbage, other programs.
    pub garbage: u64,
    /// Connections refused by the membership challenge.
    pub refused: u64,
    /// Gossip messages dropped because the application was behind.
    pub gossip_undelivered: u64,
    /// Gossip messages that some peer was too slow to take.
    pub gossip_slow: u64,
    /// Gossip messages that no peer's queue had room for.
    pub gossip_full: u64,
    /// Verdicts dropped because the swarm task was behind; those messages were not passed on.
    pub verdicts_dropped: u64,
}

/// The live form of `Stats`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) garbage: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) gossip_undelivered: AtomicU64,
    pub(crate) gossip_slow: AtomicU64,
    pub(crate) gossip_full: AtomicU64,
    pub(crate) verdicts_dropped: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What the handle and the swarm task share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) senders: Arc<Senders>,
    pub(crate) listening: RwLock<Vec<SocketAddr>>,
    pub(crate) counters: Counters,
}

/// A cloneable handle to the running network. When the last one is dropped the network stops.
#[derive(Clone, Debug)]
pub struct Handle {
    me: PeerKey,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(me: PeerKey, commands: mpsc::Sender<Command>, shared: Arc<Shared>) -> Self {
        Self { me, commands, shared }
    }

    /// This node's own key.
    pub fn me(&self) -> PeerKey {
        self.me
    }

    /// Gossips a message. `Ok` promises nothing: there may be no peers, or slow ones. Publishing the same bytes
    /// again within a minute does nothing.
    ///
    /// # Errors
    /// When the message is too large, the command queue is full, or the network has stopped.
    pub fn publish(&self, topic: Topic, bytes: Bytes) -> Result<(), PublishError> {
        if bytes.len() > limits::GOSSIP_BYTES_MAX {
            return Err(PublishError::TooLarge { bytes: bytes.len(), bytes_max: limits::GOSSIP_BYTES_MAX });
        }
        self.commands.try_send(Command::Publish(topic, bytes)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PublishError::Full,
            mpsc::error::TrySendError::Closed(_) => PublishError::Stopped,
        })
    }

    /// Queues a frame to a linked peer. Frames of one lane arrive in order; `Ok` does not promise that they arrive.
    ///
    /// # Errors
    /// When there is no link, the frame is too large, or the queue is full (which on Control ends the link).
    pub fn send(&self, peer: PeerKey, lane: Lane, bytes: Bytes) -> Result<(), SendError> {
        let sender = self.shared.senders.find(peer).ok_or(SendError::NotLinked)?;
        sender.send(lane, Kind::Data, bytes)
    }

    /// Judges a received message; only accepted ones are passed on to other peers. Expected within about 5 s.
    pub fn verdict(&self, tag: MessageTag, verdict: Verdict) {
        if self.commands.try_send(Command::Verdict(tag, verdict)).is_err() {
            count(&self.shared.counters.verdicts_dropped, 1);
        }
    }

    /// Tells of an address that may be worth dialling, and whose it is if that is known. Repeating a hint is cheap.
    pub fn hint(&self, addr: SocketAddr, peer: Option<PeerKey>) {
        // Full: a hint is no promise, and it will be repeated.
        let _full = self.commands.try_send(Command::Hint(addr, peer));
    }

    /// Opens a tunnel to a linked peer. The opening, at most [`crate::TUNNEL_OPENING_BYTES_MAX`] bytes, tells the peer
    /// what it is for; the peer may refuse. Takes two round trips, and 5 s at most.
    ///
    /// # Errors
    /// [`TunnelError::NotLinked`], `TooMany` and `TooLarge` at once; see there for the rest.
    ///
    /// Cancel safety: dropping the future gives the tunnel up.
    pub async fn open_tunnel(&self, peer: PeerKey, opening: Bytes) -> Result<Tunnel, TunnelError> {
        let (bytes, bytes_max) = (opening.len(), limits::TUNNEL_OPENING_BYTES_MAX);
        if bytes > bytes_max {
            return Err(TunnelError::TooLarge { bytes, bytes_max });
        }
        let link = self.shared.senders.find(peer).ok_or(TunnelError::NotLinked)?;
        let count_max = limits::TUNNELS_PER_PEER_MAX;
        let room = link.gate().ours.clone().try_acquire_owned().or(Err(TunnelError::TooMany { count_max }))?;
        let (mut down, connection) = (link.gate().down.clone(), link.connection());
        // A link that ends waits for its senders to go.
        drop(link);
        let asked = async {
            let mut stream = self.stream(peer, connection).await?;
            opening::ask(&mut stream, &opening).await?;
            Ok(stream)
        };
        let stream = opening::within(&mut down, asked).await?;
        Ok(Tunnel::new(stream, down, room))
    }

    /// The connection that carries the link to a peer.
    #[cfg(test)]
    pub(crate) fn link(&self, peer: PeerKey) -> Option<ConnectionId> {
        self.shared.senders.find(peer).map(|link| link.connection())
    }

    /// A stream for a tunnel, on which nothing has been said yet.
    pub(crate) async fn stream(&self, peer: PeerKey, connection: ConnectionId) -> Result<Stream, TunnelError> {
        let (reply, stream) = oneshot::channel();
        let wish = Wish { peer, connection, reply };
        self.commands.try_send(Command::Tunnel(wish)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => TunnelError::Full,
            mpsc::error::TrySendError::Closed(_) => TunnelError::Stopped,
        })?;
        // Dropped with its connection, before the link knows that it is down.
        stream.await.unwrap_or_else(|_dropped| Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()))
    }

    /// Ends the link to a peer, if there is one, after what is queued was written (at most 0.5 s). It may link again.
    pub fn disconnect(&self, peer: PeerKey) {
        if let Some(sender) = self.shared.senders.find(peer) {
            sender.kill(DownReason::Local);
        }
    }

    /// The addresses that we listen on. Complete when `start` returns, except that the interfaces behind an
    /// unspecified address are found a moment later; each is told by `Event::Listening` as well.
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.shared.listening.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The peers that are linked now.
    pub fn linked(&self) -> Vec<PeerKey> {
        self.shared.senders.peers()
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            connections: read(&counters.connections),
            garbage: read(&counters.garbage),
            refused: read(&counters.refused),
            gossip_undelivered: read(&counters.gossip_undelivered),
            gossip_slow: read(&counters.gossip_slow),
            gossip_full: read(&counters.gossip_full),
            verdicts_dropped: read(&counters.verdicts_dropped),
        }
    }

    /// Writes what is queued, closes every link and stops listening; 3 s at most. The events end after it.
    ///
    /// Cancel safety: the network stops even if the returned future is dropped after its first poll.
    pub async fn shutdown(&self) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Shutdown(done)).await.is_ok() {
            // An error is the same news: the task is gone.
            let _gone = wait.await;
        }
    }
}
