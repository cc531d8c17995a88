//! Connections and which of them carries a link: the part of the swarm task that settles doubles.
//!
//! Of two connected peers the one with the smaller key decides: it opens the lanes, on the connection that it
//! keeps, and closes the other. The larger key accepts lanes on whichever connection they come.
//!
//! Invariants: one link per peer; a connection without a link is closed after `LINK_WAIT`.
//! Does not: carry frames (`link`), or dial (`node`).

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::{ConnectionId, Stream};
use tokio::sync::{mpsc, oneshot};

use crate::event::DownReason;
use crate::gossip::is_greeted;
use crate::handle::count;
use crate::key::PeerKey;
use crate::lanes::{Lane, LaneEvent, Opened};
use crate::link::{self, Ended, Link};
use crate::node::{Node, jitter};
use crate::outbox::Kill;
use crate::pulse::Pulse;
use crate::{address, limits};

/// One connection to a member.
pub(crate) struct Connection {
    pub(crate) peer: PeerKey,
    pub(crate) addr: SocketAddr,
    pub(crate) since: Instant,
    control: Option<Stream>,
    bulk: Option<Stream>,
    /// Where the link takes what the peer opens.
    tunnels: Option<mpsc::Sender<Stream>>,
    pulse: Arc<Pulse>,
    kill: Arc<Kill>,
    pub(crate) stage: Stage,
    /// When the peer must have told what its gossip listens to, and whether that was looked at once already; `None` once it has.
    greeting_due: Option<(Instant, Look)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    First,
    Second,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Lanes are being opened, or the other side is about to open them.
    Opening,
    /// The link task has them.
    Linked,
    /// Asked to close.
    Closing,
}

impl Connection {
    /// When to look whether it has become what it should.
    fn expiry(&self) -> Option<Instant> {
        match self.stage {
            Stage::Opening => Some(self.since + limits::LINK_WAIT),
            Stage::Linked => self.greeting_due.map(|(due, _)| due),
            Stage::Closing => None,
        }
    }
}

impl Node {
    pub(crate) fn on_connected(&mut self, id: ConnectionId, peer_id: PeerId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        let target = self.dials.remove(&id);
        let remote = address::to_socket(endpoint.get_remote_address(), self.transport);
        let (Some(peer), Some(addr)) = (PeerKey::from_peer_id(&peer_id), remote) else {
            // The transport lets nothing else through.
            self.swarm.close_connection(id);
            return;
        };
        count(&self.shared.counters.connections, 1);
        self.book.on_connected(peer, target.map(|target| (target, addr)), now);
        self.connections.insert(
            id,
            Connection {
                peer,
                addr,
                since: now,
                control: None,
                bulk: None,
                tunnels: None,
                pulse: Arc::new(Pulse::new()),
                kill: Arc::new(Kill::default()),
                stage: Stage::Opening,
                greeting_due: Some((now + limits::GREETING_WAIT, Look::First)),
            },
        );
        if self.me > peer {
            return;
        }
        if let Some(older) = self.current.get(&peer).copied() {
            let is_kept = self.connections.get(&older).is_some_and(|older| {
                // Both have dialled. Later nobody dials who has a link: the peer has lost this one, or has restarted, or a copy of it runs and has to learn that.
                let is_fresh = older.since.elapsed() < limits::DOUBLES_WAIT;
                older.stage != Stage::Closing && is_fresh && older.pulse.silent_for() < self.common.heartbeat * 2
            });
            if is_kept {
                self.retire(id, DownReason::Replaced);
                return;
            }
            self.retire(older, DownReason::Replaced);
        }
        self.current.insert(peer, id);
        self.swarm.behaviour_mut().lanes.open(peer_id, id);
    }

    pub(crate) fn on_lane(&mut self, LaneEvent { connection: id, opened }: LaneEvent) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match opened {
            Opened::Failed(lane) => {
                tracing::debug!(peer = %connection.peer, ?lane, "the peer did not open a lane");
                self.retire(id, DownReason::Violation);
            }
            Opened::Tunnel(stream) => {
                // Dropped, which resets it, before there is a link, after it, and when the peer opens them faster
                // than it says what for.
                if let Some(tunnels) = &connection.tunnels {
                    let _full_or_over = tunnels.try_send(stream);
                }
            }
            Opened::Lane(..) if connection.stage != Stage::Opening => {}
            Opened::Lane(lane, stream) => {
                let place = match lane {
                    Lane::Control => &mut connection.control,
                    Lane::Bulk => &mut connection.bulk,
                };
                place.get_or_insert(stream);
                if let (Some(_), Some(_)) = (&connection.control, &connection.bulk) {
                    self.link(id);
                }
            }
        }
    }

    /// Both lanes of a connection are there: start its link.
    pub(crate) fn link(&mut self, id: ConnectionId) {
        let listens = match &self.announce {
            Some(announced) => announced.clone(),
            None => self.shared.listening.read().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let (Some(control), Some(bulk)) = (connection.control.take(), connection.bulk.take()) else {
            return;
        };
        connection.stage = Stage::Linked;
        let (tunnels_tx, tunnels) = mpsc::channel(limits::TUNNELS_PER_PEER_MAX);
        connection.tunnels = Some(tunnels_tx);
        let peer = connection.peer;
        let (ended, end) = oneshot::channel();
        let link = Link {
            peer,
            addr: connection.addr,
            connection: id,
            control,
            bulk,
            tunnels,
            listens,
            kill: connection.kill.clone(),
            pulse: connection.pulse.clone(),
            predecessor: self.ends.insert(peer, end),
            ended,
        };
        if let Some(older) = self.current.insert(peer, id)
            && older != id
        {
            self.retire(older, DownReason::Replaced);
        }
        self.links.spawn(link::run(link, self.common.clone()));
    }

    /// Ends a connection; first its link, if it has one, so that queued frames and the reason get out.
    pub(crate) fn retire(&mut self, id: ConnectionId, reason: DownReason) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match connection.stage {
            Stage::Linked => connection.kill.now(reason),
            Stage::Opening => self.part(id),
            Stage::Closing => {}
        }
    }

    /// Closes a connection, and counts it as gone from now on: one whose peer has vanished closes only
    /// when the system gives it up, and its peer must be dialled before that.
    fn part(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.stage == Stage::Closing {
            return;
        }
        connection.stage = Stage::Closing;
        let peer = connection.peer;
        self.swarm.close_connection(id);
        if self.current.get(&peer) == Some(&id) {
            self.current.remove(&peer);
        }
        let mut others = self.connections.values();
        if others.all(|other| other.peer != peer || other.stage == Stage::Closing) {
            self.book.on_disconnected(peer, Instant::now(), jitter());
        }
    }

    pub(crate) fn on_link_end(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let Ended { peer, connection: id, reason } = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "a link task panicked; the peer will close its connection");
                return;
            }
        };
        tracing::debug!(%peer, ?reason, "link ended");
        self.part(id);
    }

    pub(crate) fn on_closed(&mut self, id: ConnectionId) {
        // A link reads what had arrived and ends by itself when its streams do.
        self.part(id);
        if self.connections.remove(&id).is_none() {
            return;
        }
        self.shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Closes connections that have not become links in time, and those on which gossip does not work.
    pub(crate) fn expire(&mut self, now: Instant) {
        let late = |connection: &Connection| connection.expiry().is_some_and(|at| at <= now);
        let late: Vec<_> =
            self.connections.iter().filter(|(_, connection)| late(connection)).map(|(id, _)| *id).collect();
        for id in late {
            match self.connections.get(&id) {
                Some(linked) if linked.stage == Stage::Linked => self.check_greeting(id, linked.peer, now),
                _ => self.retire(id, DownReason::Silence),
            }
        }
    }

    /// Gossip greets a peer on its first connection only. A process that comes back before the last connection of its earlier life is closed never hears what its
    /// peer listens to, so that nobody would hear it: it starts over.
    fn check_greeting(&mut self, id: ConnectionId, peer: PeerKey, now: Instant) {
        let is_greeted = is_greeted(&self.swarm.behaviour().gossip, &peer);
        let is_only = self.connections.values().filter(|other| other.peer == peer).count() == 1;
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let again = matches!(connection.greeting_due, Some((_, Look::Second)));
        if !is_greeted && is_only && again {
            tracing::debug!(%peer, "gossip was not greeted; the link is opened anew");
            return self.retire(id, DownReason::Replaced);
        }
        // A process that was starved finds the greeting behind this.
        connection.greeting_due = (!is_greeted).then_some((now + limits::GREETING_WAIT, Look::Second));
    }

    /// When there is something to do without an event.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let expiry = self.connections.values().filter_map(Connection::expiry).min();
        [expiry, self.book.next_due()].into_iter().flatten().min()
    }
}
