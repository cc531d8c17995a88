//! The swarm's behaviour: lanes, gossip, limits and, if wanted, mDNS.
//!
//! Invariants: no other protocol runs on a connection.
//! Does not: decide anything; `node` does.

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, gossipsub, mdns};

use crate::config::Config;
use crate::error::Error;
use crate::gossip::{self, Topics};
use crate::{lanes, limits};

/// Everything that runs over a connection.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) lanes: lanes::Behaviour,
    pub(crate) gossip: gossipsub::Behaviour,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    pub(crate) fn new(config: &Config, topics: &Topics, me: PeerId) -> Result<Self, Error> {
        let limits = ConnectionLimits::default()
            .with_max_established(Some(limits::CONNECTIONS_MAX))
            .with_max_established_per_peer(Some(limits::CONNECTIONS_PER_PEER_MAX))
            .with_max_pending_incoming(Some(limits::PENDING_INBOUND_MAX))
            .with_max_pending_outgoing(Some(limits::PENDING_OUTBOUND_MAX));
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            lanes: lanes::Behaviour::default(),
            gossip: gossip::behaviour(topics)?,
            mdns: multicast(config, me).into(),
        })
    }
}

/// mDNS is a hint: a host where it cannot start still has its other ways to find peers.
fn multicast(config: &Config, me: PeerId) -> Option<mdns::tokio::Behaviour> {
    if !config.mdns {
        return None;
    }
    match mdns::tokio::Behaviour::new(mdns::Config::default(), me) {
        Ok(behaviour) => Some(behaviour),
        Err(error) => {
            tracing::warn!(%error, "mDNS is unavailable; nodes on this network must be named with --join");
            None
        }
    }
}
