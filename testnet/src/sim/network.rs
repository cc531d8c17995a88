//! The network between nodes: links that come and go, packets that are lost, doubled, late or damaged.
//!
//! Invariants: a packet arrives only over the link it was sent on, while the path is open; a link that was down is told to both ends before it is up again.

use std::sync::Arc;

use starling_core::event::SignedBatch;
use starling_core::ids::{LogId, NodeId};
use starling_core::machine::Input;
use starling_core::schedule::Presence;
use starling_core::sync::Message;

use super::options::{Faults, Sabotage};
use super::world::{Event, Seat, World};

/// Silence after which a link is given up, as the real links do.
const SILENCE_MS: u64 = 4_000;
/// A packet that is held back waits at most this long.
const REORDER_MS_MAX: u64 = 1_000;

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Batch(SignedBatch),
    /// A batch as bytes; `intact` is what the checker knows, not the receiver.
    BatchBytes {
        bytes: Vec<u8>,
        intact: bool,
    },
    Message(Box<Message>),
    MessageBytes(Vec<u8>),
    /// Shared by all its copies: a presence goes to everybody.
    Presence(Arc<Presence>),
    Pulled {
        log: LogId,
        batches: Vec<SignedBatch>,
        more: bool,
    },
}

/// Who sent it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A node, over a link of this version.
    Link { from: Seat, version: u32 },
    /// Somebody outside the world's nodes.
    Outside(NodeId),
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    up: bool,
    lives: (u32, u32),
    version: u32,
}

/// All pairs of nodes.
#[derive(Debug)]
pub(crate) struct Network {
    nodes: usize,
    /// Directed: nothing gets from the first to the second.
    cut: Vec<bool>,
    /// By smaller seat, then larger.
    pairs: Vec<Pair>,
    /// Pairs that look for a link; everybody if absent.
    wanted: Option<Vec<bool>>,
}

impl Network {
    pub(crate) fn new(nodes: usize, wanted: Option<Vec<bool>>) -> Self {
        Self { nodes, cut: vec![false; nodes * nodes], pairs: vec![Pair::default(); nodes * nodes], wanted }
    }

    fn is_wanted(&self, a: Seat, b: Seat) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted[a.0 * self.nodes + b.0])
    }

    pub(crate) fn set_cut(&mut self, from: Seat, to: Seat, cut: bool) {
        self.cut[from.0 * self.nodes + to.0] = cut;
    }

    /// Whether anybody is cut off from anybody.
    pub(crate) fn is_parted(&self) -> bool {
        self.cut.contains(&true)
    }

    fn is_cut(&self, from: Seat, to: Seat) -> bool {
        self.cut[from.0 * self.nodes + to.0]
    }

    fn pair(&self, a: Seat, b: Seat) -> &Pair {
        &self.pairs[a.min(b).0 * self.nodes + a.max(b).0]
    }

    fn pair_mut(&mut self, a: Seat, b: Seat) -> &mut Pair {
        &mut self.pairs[a.min(b).0 * self.nodes + a.max(b).0]
    }
}

impl World {
    /// Whether both ends live and hear each other.
    fn reachable(&self, a: Seat, b: Seat) -> bool {
        let up = self.node(a).machine.is_some() && self.node(b).machine.is_some();
        up && !self.network.is_cut(a, b) && !self.network.is_cut(b, a)
    }

    /// Whether the link is that of the two present lives.
    fn link_is_fresh(&self, a: Seat, b: Seat) -> bool {
        self.network.pair(a, b).lives == (self.node(a.min(b)).life, self.node(a.max(b)).life)
    }

    /// Whether the two have a link, and it works.
    pub(crate) fn is_linked(&self, a: Seat, b: Seat) -> bool {
        self.network.pair(a, b).up && self.link_is_fresh(a, b) && self.reachable(a, b)
    }

    /// Whether all nodes are up to stay, and every pair of them has a working link.
    pub(crate) fn all_linked(&self) -> bool {
        let works = |a: Seat, b: Seat| a >= b || !self.network.is_wanted(a, b) || self.is_linked(a, b);
        let there = |seat: &Seat| !self.node(*seat).gone;
        let is_up = |seat: Seat| self.node(seat).machine.is_some() && !self.stopping.contains(&seat);
        self.seats().filter(there).all(|a| is_up(a) && self.seats().filter(there).all(|b| works(a, b)))
    }

    /// Something happened to one of the two, or between them: see to their link in a while.
    pub(crate) fn refresh_pair(&mut self, a: Seat, b: Seat) {
        let pair = *self.network.pair(a, b);
        let works = self.reachable(a, b) && (!pair.up || self.link_is_fresh(a, b));
        if pair.up == works || !self.network.is_wanted(a, b) {
            return;
        }
        let delay = if works {
            100 + self.rng.below(1_400)
        } else if self.reachable(a, b) || self.rng.below(2) == 0 {
            // The other process is gone: its kernel says so at once, unless the machine is gone too.
            20 + self.rng.below(200)
        } else {
            SILENCE_MS + self.rng.below(400)
        };
        self.after(delay, Event::Pair { a, b, version: pair.version });
    }

    pub(crate) fn refresh_pairs_of(&mut self, seat: Seat) {
        for other in self.seats().filter(|other| *other != seat).collect::<Vec<_>>() {
            self.refresh_pair(seat, other);
        }
    }

    /// A link breaks or comes up.
    pub(crate) fn on_pair(&mut self, a: Seat, b: Seat, version: u32) {
        let pair = *self.network.pair(a, b);
        let fresh = self.link_is_fresh(a, b);
        let works = self.reachable(a, b) && (!pair.up || fresh);
        if pair.version != version || pair.up == works {
            return;
        }
        let lives = (self.node(a.min(b)).life, self.node(a.max(b)).life);
        let pair_now = self.network.pair_mut(a, b);
        pair_now.up = works;
        pair_now.version += 1;
        if works {
            pair_now.lives = lives;
        }
        let (low, high) = (a.min(b), a.max(b));
        for (seat, other, life) in [(low, high, pair.lives.0), (high, low, pair.lives.1)] {
            let peer = self.node(other).id;
            if works {
                self.step(seat, Input::LinkUp(peer));
            } else if self.node(seat).life == life {
                self.step(seat, Input::LinkDown(peer));
            }
        }
        if works {
            // Who hears others again, if only for a moment, has not been cut off all the time.
            self.look_at_gateways();
        }
        self.refresh_pair(a, b);
    }

    pub(crate) fn send_all(&mut self, from: Seat, packet: &Packet) {
        for index in 0..self.nodes.len() {
            if index != from.0 {
                self.send(from, Seat(index), packet.clone());
            }
        }
    }

    /// Sends over the link, if it is up; then the network does what it does.
    pub(crate) fn send(&mut self, from: Seat, to: Seat, packet: Packet) {
        let pair = *self.network.pair(from, to);
        if !pair.up || self.network.is_cut(from, to) || !self.link_is_fresh(from, to) {
            return;
        }
        let Faults { loss, duplicate, .. } = self.faults;
        let origin = Origin::Link { from, version: pair.version };
        if loss.hits(&mut self.rng) {
            return;
        }
        self.say_hollow(from, to, &packet);
        let packet = self.encode(packet);
        if duplicate.hits(&mut self.rng) {
            let delay = self.delay();
            self.after(delay, Event::Deliver { to, origin, packet: packet.clone() });
        }
        let delay = self.delay();
        self.after(delay, Event::Deliver { to, origin, packet });
    }

    /// Only where it is broken on purpose: whoever hears a batch says at once that it has it, and forgets it.
    fn say_hollow(&mut self, from: Seat, to: Seat, packet: &Packet) {
        let Packet::Batch(batch) = packet else { return };
        if self.options.sabotage == Sabotage::HollowHave {
            let header = batch.header();
            let have = Message::Have { log: header.log, len: header.last_seq() };
            let origin = Origin::Outside(self.node(to).id);
            self.after(1, Event::Deliver { to: from, origin, packet: Packet::Message(Box::new(have)) });
        }
    }

    pub(crate) fn delay(&mut self) -> u64 {
        let ordinary = 1 + self.rng.below(self.faults.delay_ms_max);
        if self.faults.reorder.hits(&mut self.rng) { ordinary + self.rng.below(REORDER_MS_MAX) } else { ordinary }
    }

    /// Some packets travel as bytes, some of those do not arrive as they left.
    fn encode(&mut self, packet: Packet) -> Packet {
        let corrupt = self.faults.corrupt.hits(&mut self.rng);
        if !corrupt && !self.options.as_bytes.hits(&mut self.rng) {
            return packet;
        }
        match packet {
            Packet::Batch(batch) => {
                let mut bytes = batch.bytes().to_vec();
                if corrupt {
                    self.flip_bit(&mut bytes);
                }
                Packet::BatchBytes { bytes, intact: !corrupt }
            }
            Packet::Message(message) => Packet::MessageBytes(message.to_bytes()),
            Packet::BatchBytes { .. } | Packet::MessageBytes(_) | Packet::Presence(_) | Packet::Pulled { .. } => packet,
        }
    }

    fn flip_bit(&mut self, bytes: &mut [u8]) {
        let place = usize::try_from(self.rng.below(bytes.len() as u64)).unwrap_or(0);
        bytes[place] ^= 1 << self.rng.below(8);
    }

    /// Whether a packet of this origin still gets through to `to`.
    pub(crate) fn arrives(&self, to: Seat, origin: Origin) -> Option<NodeId> {
        match origin {
            Origin::Link { from, version } => {
                let pair = self.network.pair(from, to);
                let open = pair.up
                    && pair.version == version
                    && !self.network.is_cut(from, to)
                    && self.link_is_fresh(from, to);
                open.then(|| self.node(from).id)
            }
            Origin::Outside(id) => Some(id),
        }
    }
}
