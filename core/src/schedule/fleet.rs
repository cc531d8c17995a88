//! The fleet: which nodes this one believes to be alive, and what they last said of themselves.
//!
//! A node that is often late is given longer, as in accrual detectors (Hayashibara et al., 2004), and one that stood still itself doubts itself first (Dadgar et
//! al., 2018).
//! Invariants: belief, not fact: nothing here is replicated, and nothing in the log depends on it; at most `limits::FLEET_MAX` nodes are remembered.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use smol_str::SmolStr;

use super::pool::{Label, Pool};
use crate::config::Config;
use crate::event::Event;
use crate::ids::{GatewayTerm, NodeId};
use crate::limits;
use crate::resources::Resources;
use crate::time::{Mono, Wall};

/// A node that was not at work for longer than this stood still: it has something to do at least every second.
const STILL_MS: u64 = 2_000;

/// What a node says of itself every second. Ephemeral: never logged, the latest counts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Presence {
    /// Who.
    #[n(0)]
    pub node: NodeId,
    /// Chosen anew at every start of its process.
    #[n(1)]
    pub boot: u64,
    /// Rises with every presence of one boot.
    #[n(2)]
    pub seq: u64,
    /// Its name.
    #[cbor(n(3), with = "crate::facts::text")]
    pub name: SmolStr,
    /// Its wall clock.
    #[n(4)]
    pub wall: Wall,
    /// What its tasks may reserve in all.
    #[n(5)]
    pub total: Resources,
    /// What is not reserved.
    #[n(6)]
    pub free: Resources,
    /// Tasks it owns that wait for a node.
    #[n(7)]
    pub backlog: u64,
    /// Tasks that run on it.
    #[n(8)]
    pub running: u32,
    /// Digest of its frontier when `root` was taken.
    #[n(9)]
    pub digest: u64,
    /// First 8 bytes of the root of its Facts, taken every few seconds.
    #[n(10)]
    pub root: u64,
    /// Where its API listens, for people.
    #[n(11)]
    pub api: String,
    /// Where its links listen, for peers that lost it.
    #[n(12)]
    pub links: Vec<String>,
    /// Whether it takes work: its disk takes writes, it is not stopping, and no operator drained it.
    #[n(13)]
    pub accepts: bool,
    /// The version of its program, for people.
    #[cbor(n(15), with = "crate::facts::text")]
    pub version: SmolStr,
    /// The last `HardwareStats` of namespace `monitor`.
    #[n(14)]
    pub stats: Option<Event>,
    /// What relays at this node serve.
    #[n(16)]
    pub relays: Vec<RelaySlots>,
    /// What it is and has, for jobs that ask for it.
    #[n(17)]
    pub labels: Vec<Label>,
    /// Its part in serving workers from outside.
    #[n(18)]
    pub gateway: Gatewayship,
}

/// A node's part in serving workers from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Gatewayship {
    /// Whether it would be the gateway.
    #[n(0)]
    pub willing: bool,
    /// The term under which it acts as the gateway, if it does.
    #[n(1)]
    pub acting: Option<GatewayTerm>,
    /// Its workers' pools.
    #[n(2)]
    pub pools: Vec<Pool>,
    /// How many workers it sponsors.
    #[n(3)]
    pub workers: u32,
    /// Where workers may attach: every node listens.
    #[n(4)]
    pub listens: String,
}

/// A namespace that a relay at a node serves.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RelaySlots {
    /// The namespace.
    #[cbor(n(0), with = "crate::facts::text")]
    pub ns: SmolStr,
    /// How many tasks it takes at once.
    #[n(1)]
    pub slots: u32,
}

impl Presence {
    /// Whether a relay there takes tasks of namespace `ns`.
    #[must_use]
    pub fn serves(&self, ns: &str) -> bool {
        self.relays.iter().any(|relay| relay.ns == ns && relay.slots > 0)
    }
}

/// How a node seems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Heard of lately.
    Live,
    /// Silent for a while: gets no new work.
    Suspect,
    /// Silent for so long that its tasks are granted again.
    Dead,
}

/// One node as seen from here.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What it said last.
    pub presence: Presence,
    /// When it was heard.
    pub heard: Mono,
    /// By how much it was late at worst, fading with each presence: a node that is often late is given longer.
    late_ms: u64,
}

/// All nodes as seen from here, this one included.
#[derive(Clone, Debug)]
pub struct Fleet {
    presence_ms: u64,
    suspect_ms: u64,
    dead_ms: u64,
    /// When this node began to listen.
    since: Mono,
    /// When it last looked.
    awake: Mono,
    peers: BTreeMap<NodeId, Peer>,
}

impl Fleet {
    /// Nobody yet.
    #[must_use]
    pub fn new(config: &Config, now: Mono) -> Self {
        Self {
            presence_ms: config.presence_ms,
            suspect_ms: config.suspect_ms,
            dead_ms: config.dead_ms,
            since: now,
            awake: now,
            peers: BTreeMap::new(),
        }
    }

    /// Takes in a presence; false if it is older than what is known, or there is no room.
    pub fn hear(&mut self, now: Mono, presence: Presence) -> bool {
        match self.peers.get_mut(&presence.node) {
            Some(peer) => {
                let newer = presence.boot != peer.presence.boot || presence.seq > peer.presence.seq;
                if newer {
                    // One that was started again was not late, it was away.
                    let waited_ms = if presence.boot == peer.presence.boot { now.since_ms(peer.heard) } else { 0 };
                    let late_ms = waited_ms.saturating_sub(self.presence_ms * 3 / 2);
                    peer.late_ms = late_ms.max(peer.late_ms * 7 / 8);
                    peer.presence = presence;
                    peer.heard = now;
                }
                newer
            }
            None => {
                let room = self.peers.len() < limits::FLEET_MAX;
                if room {
                    self.peers.insert(presence.node, Peer { presence, heard: now, late_ms: 0 });
                }
                room
            }
        }
    }

    /// How `node` seems. One never heard of is suspect at first: a node that just started has not listened long enough to call anybody dead.
    #[must_use]
    pub fn health(&self, now: Mono, node: &NodeId) -> Health {
        self.health_of(now, self.peers.get(node))
    }

    fn health_of(&self, now: Mono, peer: Option<&Peer>) -> Health {
        let silence = self.silence_of(now, peer);
        if silence >= self.dead_ms + self.patience_ms(peer) {
            Health::Dead
        } else if silence >= self.suspect_ms || peer.is_none() {
            Health::Suspect
        } else {
            Health::Live
        }
    }

    /// How much longer than others a node may be silent before it is taken for dead, by how late it has been: at most as long again.
    fn patience_ms(&self, peer: Option<&Peer>) -> u64 {
        peer.map_or(0, |peer| (peer.late_ms * 2).min(self.dead_ms))
    }

    /// For how long nothing was heard of `node`; for one never heard of, since this node began to listen.
    #[must_use]
    pub fn silent_ms(&self, now: Mono, node: &NodeId) -> u64 {
        self.silence_of(now, self.peers.get(node))
    }

    fn silence_of(&self, now: Mono, peer: Option<&Peer>) -> u64 {
        now.since_ms(peer.map_or(self.since, |peer| peer.heard))
    }

    /// This node is at work at `now`. One that stood still heard nothing meanwhile, and must not hold that against the others: all that time is taken off their silence.
    pub fn wake(&mut self, now: Mono) {
        let still_ms = now.since_ms(self.awake);
        self.awake = now;
        if still_ms <= STILL_MS {
            return;
        }
        self.since = self.since.after_ms(still_ms).min(now);
        for peer in self.peers.values_mut() {
            peer.heard = peer.heard.after_ms(still_ms).min(now);
        }
    }

    /// Whether this node has listened for so long that a live one would have been heard.
    #[must_use]
    pub fn has_listened(&self, now: Mono) -> bool {
        now.since_ms(self.since) >= self.suspect_ms
    }

    /// One node.
    #[must_use]
    pub fn peer(&self, node: &NodeId) -> Option<&Peer> {
        self.peers.get(node)
    }

    /// All nodes ever heard of, by id.
    pub fn peers(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers.iter()
    }

    /// How many nodes are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The live ones.
    pub fn live(&self, now: Mono) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers.iter().filter(move |(_, peer)| self.health_of(now, Some(peer)) == Health::Live)
    }

    /// The name `node` gave itself, if it was heard.
    #[must_use]
    pub fn name(&self, node: &NodeId) -> Option<&SmolStr> {
        self.peers.get(node).map(|peer| &peer.presence.name)
    }
}
