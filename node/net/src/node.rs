//! The swarm task: the one owner of libp2p's Swarm, the redial book and the table of connections.
//!
//! Invariants: the task never waits for a peer, a link or the application, except at the very end, with a deadline.
//! Does not: settle which connection carries a link (`connections`), or carry frames (`link`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use futures::StreamExt;
use libp2p::core::Multiaddr;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, Swarm, SwarmEvent};
use libp2p::{gossipsub, mdns};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::book::{Book, Dial, Jitter, Origin, Target, Urgency};
use crate::challenge::Role;
use crate::config::Transport;
use crate::connections::Connection;
use crate::event::{DownReason, Event, EventSender};
use crate::frame::Kind;
use crate::gossip::{MessageTag, Topic, Topics, Verdict};
use crate::handle::{Command, Shared, Wish, count};
use crate::hello::{Introduction, encode_introductions};
use crate::key::PeerKey;
use crate::lanes::Lane;
use crate::link::{Common, Ended, Note};
use crate::listen::Claim;
use crate::refusals::{self, Refusals};
use crate::transport::{Report, UpgradeError};
use crate::{address, limits};

/// The task's state.
pub(crate) struct Node {
    pub(crate) me: PeerKey,
    pub(crate) transport: Transport,
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) topics: Topics,
    pub(crate) book: Book,
    pub(crate) refusals: Refusals,
    pub(crate) connections: HashMap<ConnectionId, Connection>,
    /// The connection that carries, or will carry, the link to a peer.
    pub(crate) current: HashMap<PeerKey, ConnectionId>,
    /// What each dial under way was for.
    pub(crate) dials: HashMap<ConnectionId, Target>,
    /// Resolves when the last link to a peer has told its end.
    pub(crate) ends: HashMap<PeerKey, oneshot::Receiver<()>>,
    pub(crate) links: JoinSet<Ended>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) events: EventSender,
    pub(crate) common: Common,
    pub(crate) announce: Option<Vec<SocketAddr>>,
    /// Held for as long as we listen.
    pub(crate) _claims: Vec<Claim>,
}

impl Node {
    /// Runs until shutdown, or until every handle is dropped.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut notes: mpsc::Receiver<Note>,
        mut reports: mpsc::Receiver<Report>,
    ) {
        let mut done = None;
        // Gossip changes no connection and no address, so it need not go through the book each time.
        let (mut wake, mut changed) = (None, true);
        loop {
            let now = Instant::now();
            if changed || wake.is_some_and(|wake| wake <= now) {
                self.expire(now);
                self.dial(now);
                wake = self.next_wake();
            }
            changed = true;
            // Channels give way to the swarm by tokio's cooperative budget, so local work cannot starve it.
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Shutdown(reply)) => {
                        done = Some(reply);
                        break;
                    }
                    Some(command) => {
                        changed = matches!(command, Command::Hint(..));
                        self.on_command(command);
                    }
                    // Every handle is gone: nobody can use the network any more.
                    None => break,
                },
                Some(ended) = self.links.join_next() => self.on_link_end(ended),
                Some(note) = notes.recv() => self.on_note(note),
                Some(report) = reports.recv() => self.on_report(&report),
                () = sleep_until(wake) => {}
                event = self.swarm.select_next_some() => {
                    changed = !matches!(event, SwarmEvent::Behaviour(BehaviourEvent::Gossip(_)));
                    self.on_swarm(event);
                }
            }
        }
        drop(commands);
        // The deadline covers an application that takes no events and peers that do not close.
        let _closed_or_not = tokio::time::timeout(limits::SHUTDOWN_WAIT, self.close()).await;
        drop(self);
        if let Some(done) = done {
            // The caller may have stopped waiting.
            let _gone = done.send(());
        }
    }

    /// Ends every link and connection.
    async fn close(&mut self) {
        // The swarm must run on, or nothing drains; and it may still bring new connections.
        loop {
            let open: Vec<_> = self.connections.keys().copied().collect();
            for connection in open {
                self.retire(connection, DownReason::Shutdown);
            }
            if self.links.is_empty() && self.connections.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                Some(ended) = self.links.join_next() => self.on_link_end(ended),
                event = self.swarm.select_next_some() => self.on_swarm(event),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish(topic, bytes) => self.publish(topic, &bytes),
            Command::Verdict(tag, verdict) => self.judge(&tag, verdict),
            Command::Hint(addr, peer) => {
                self.book.learn(peer, addr, (Origin::Learnt, Urgency::Polite), Instant::now());
            }
            Command::Tunnel(Wish { peer, connection, reply }) => {
                // Without a peer id there is no link either. The wish is dropped, and its owner told by that.
                if let Some(peer_id) = peer.peer_id() {
                    self.swarm.behaviour_mut().lanes.open_tunnel(peer_id, connection, reply);
                }
            }
            // Taken by `run`.
            Command::Shutdown(_) => {}
        }
    }

    fn publish(&mut self, topic: Topic, bytes: &[u8]) {
        let topic = self.topics.hash(topic);
        match self.swarm.behaviour_mut().gossip.publish(topic, bytes) {
            Ok(_) => {}
            // Nobody there, or everybody has it: neither is an error.
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic | gossipsub::PublishError::Duplicate) => {}
            Err(error) => {
                count(&self.shared.counters.gossip_full, 1);
                tracing::debug!(%error, "gossip was not sent");
            }
        }
    }

    fn judge(&mut self, tag: &MessageTag, verdict: Verdict) {
        let Some(from) = tag.from.peer_id() else {
            return;
        };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        // False when the message is no longer remembered; then its neighbours have it from others.
        let _known = gossip.report_message_validation_result(&tag.message_id(), &from, verdict.acceptance());
    }

    fn on_note(&mut self, note: Note) {
        match note {
            Note::Up { peer, listens } => self.on_up(peer, &listens),
            Note::Introduced { introductions } => {
                let now = Instant::now();
                for Introduction { peer, addresses } in introductions {
                    // Eager, if it is new: a newcomer is not known to those it hears of.
                    let urgency = if self.book.addresses(peer).is_empty() { Urgency::Eager } else { Urgency::Polite };
                    for addr in addresses {
                        self.book.learn(Some(peer), addr, (Origin::Learnt, urgency), now);
                    }
                }
            }
        }
    }

    /// A new link: remember where the peer listens, and introduce it to the others we know.
    fn on_up(&mut self, peer: PeerKey, listens: &[SocketAddr]) {
        let Some(connection) = self.current.get(&peer).and_then(|id| self.connections.get(id)) else {
            return;
        };
        let via = connection.addr.ip();
        let now = Instant::now();
        for addr in listens.iter().filter(|addr| address::is_usable(addr, via)) {
            self.book.learn(Some(peer), *addr, (Origin::Learnt, Urgency::Polite), now);
        }
        let introductions: Vec<_> = self
            .shared
            .senders
            .peers()
            .into_iter()
            .filter(|other| *other != peer)
            .take(limits::INTRODUCED_MAX)
            .map(|other| {
                let known = self.book.addresses(other).iter();
                let addresses = known.copied().filter(|addr| address::is_usable(addr, via)).collect();
                Introduction { peer: other, addresses }
            })
            .collect();
        if !introductions.is_empty()
            && let Some(sender) = self.shared.senders.find(peer)
        {
            let bytes = encode_introductions(&introductions).into();
            // Lost with its link, if that is already going down.
            let _lost = sender.send(Lane::Control, Kind::Introductions, bytes);
        }
    }

    fn on_report(&mut self, report: &Report) {
        let now = Instant::now();
        let Report { addr, role, error } = report;
        match (&**error, role) {
            (UpgradeError::Myself, Role::Dialer) => self.book.on_self(*addr),
            (UpgradeError::OtherPeer { expected, found }, Role::Dialer) => {
                self.book.on_other(*expected, *found, *addr, now);
            }
            (UpgradeError::Noise(_), Role::Listener) => count(&self.shared.counters.garbage, 1),
            _ => {}
        }
        let Some(reason) = refusals::reason(error) else {
            tracing::debug!(%addr, ?role, %error, "connection failed before it was secured");
            return;
        };
        count(&self.shared.counters.refused, 1);
        if self.refusals.is_news(*addr, *role, now) {
            tracing::warn!(%addr, %reason, "connection refused");
            // Undelivered: the application is far behind; the log has it.
            let _undelivered = self.events.try_send(Event::Refused { addr: *addr, reason });
        }
    }

    pub(crate) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Lanes(event)) => self.on_lane(event),
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.on_gossip(event),
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(event)) => self.on_mdns(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(connection_id, peer_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, .. } => self.on_closed(connection_id),
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(target) = self.dials.remove(&connection_id) {
                    tracing::debug!(?target, %error, "dial failed");
                    self.book.on_failed(target, Instant::now(), jitter());
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => self.on_listening(&address),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                if let Some(addr) = address::to_socket(&address, self.transport) {
                    let mut listening = self.shared.listening.write().unwrap_or_else(PoisonError::into_inner);
                    listening.retain(|known| *known != addr);
                }
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener failed to accept; it goes on");
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "a listener closed; restart the node to listen there again");
            }
            // The rest announces what the events above conclude. The enum is not exhaustive.
            _ => {}
        }
    }

    fn on_listening(&mut self, address: &Multiaddr) {
        let Some(addr) = address::to_socket(address, self.transport) else {
            return;
        };
        self.book.on_self(addr);
        self.shared.listening.write().unwrap_or_else(PoisonError::into_inner).push(addr);
        tracing::info!(%addr, "listening for peers");
        // Undelivered: `Handle::listening` has it.
        let _undelivered = self.events.try_send(Event::Listening(addr));
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let from = PeerKey::from_peer_id(&propagation_source);
                let id = <[u8; 32]>::try_from(message_id.0.as_slice()).ok();
                let (Some(from), Some(id), Some(topic)) = (from, id, self.topics.topic(&message.topic)) else {
                    return;
                };
                let tag = MessageTag { id, from };
                let event = Event::Gossip { topic, from, tag, bytes: message.data.into() };
                if self.events.try_send(event).is_err() {
                    count(&self.shared.counters.gossip_undelivered, 1);
                    self.judge(&tag, Verdict::Ignore);
                }
            }
            gossipsub::Event::SlowPeer { failed_messages, .. } => {
                let lost = failed_messages.priority + failed_messages.non_priority;
                count(&self.shared.counters.gossip_slow, u64::try_from(lost).unwrap_or(u64::MAX));
            }
            gossipsub::Event::Subscribed { .. }
            | gossipsub::Event::Unsubscribed { .. }
            | gossipsub::Event::GossipsubNotSupported { .. } => {}
        }
    }

    fn on_mdns(&mut self, event: mdns::Event) {
        let now = Instant::now();
        match event {
            mdns::Event::Discovered(found) => {
                for (peer_id, address) in found {
                    if let (Some(peer), Some(addr)) =
                        (PeerKey::from_peer_id(&peer_id), address::to_socket(&address, self.transport))
                    {
                        self.book.learn(Some(peer), addr, (Origin::Learnt, Urgency::Polite), now);
                    }
                }
            }
            // The book forgets by failure, not by a lost multicast.
            mdns::Event::Expired(_) => {}
        }
    }

    fn dial(&mut self, now: Instant) {
        for dial in self.book.due(now) {
            let target = dial.target;
            let Some(options) = dial_options(dial, self.transport) else {
                self.book.on_failed(target, now, jitter());
                continue;
            };
            let connection = options.connection_id();
            match self.swarm.dial(options) {
                Ok(()) => {
                    self.dials.insert(connection, target);
                }
                Err(error) => {
                    tracing::debug!(?target, %error, "cannot dial");
                    self.book.on_failed(target, now, jitter());
                }
            }
        }
    }
}

/// `None` when the peer's key is none.
fn dial_options(Dial { target, addresses }: Dial, over: Transport) -> Option<DialOpts> {
    let mut addresses = addresses.into_iter().map(|addr| address::to_multiaddr(addr, over));
    match target {
        Target::Peer(peer) => {
            let options = DialOpts::peer_id(peer.peer_id()?)
                // The book keeps count of dials and connections; the swarm need not.
                .condition(PeerCondition::Always)
                .addresses(addresses.collect());
            // From a port of its own: with the listener's, simultaneous dials would meet in one socket.
            Some(options.allocate_new_port().build())
        }
        Target::Address(_) => {
            let options = DialOpts::unknown_peer_id().address(addresses.next()?);
            Some(options.allocate_new_port().build())
        }
    }
}

/// A fresh one.
pub(crate) fn jitter() -> Jitter {
    Jitter(rand::random())
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}
