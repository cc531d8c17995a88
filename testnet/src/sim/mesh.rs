//! A model of gossipsub: each batch is pushed along a sparse mesh, and what is missed is offered again at heartbeats.
//!
//! What is modelled: a mesh of D = 6 links per node (5 to 12), eager push on first sight to all mesh links but the one it came from, no flood publishing; at each
//! heartbeat of a second a node offers what it saw in the last three to six linked peers outside its mesh, who ask for what they lack; packets are lost as
//! the run's faults say. What is not: scores, back-off after a prune, queues. Large worlds are simplified further: a node has links to some peers
//! (`LINKS`) instead of all, and presence reaches only those, so a thousand presences a second do not become a million steps, nor is any gateway elected.
//! Source: the gossipsub v1.1 specification and its defaults, which `node::net` uses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use starling_core::event::SignedBatch;
use starling_core::ids::Hash;
use starling_core::rng::Rng;
use starling_core::time::Mono;

use super::network::Packet;
use super::options::Options;
use super::world::{Event, Seat, World};
use crate::invariant::Violation;

const DEGREE: usize = 6;
const DEGREE_LOW: usize = 5;
const DEGREE_HIGH: usize = 12;
const LAZY: usize = 6;
const HEARTBEAT_MS: u64 = 1_000;
/// Heartbeats for which a batch is offered.
const WINDOWS: usize = 3;
/// Links that every node of a large world looks for; as many again find it.
const LINKS: usize = 8;
/// Up to here everybody is linked with everybody.
const ALL_LINKED_MAX: usize = 64;

/// Which pairs have links in a world of so many nodes: by first seat, then second; `None` if all do.
pub(crate) fn pairs(nodes: usize, rng: &mut Rng) -> Option<Vec<bool>> {
    if nodes <= ALL_LINKED_MAX {
        return None;
    }
    let mut wanted = vec![false; nodes * nodes];
    for a in 0..nodes {
        for _ in 0..LINKS {
            let b = usize::try_from(rng.below(nodes as u64)).unwrap_or(0);
            wanted[a * nodes + b] = a != b;
            wanted[b * nodes + a] = a != b;
        }
    }
    Some(wanted)
}

/// How one batch spread.
#[derive(Clone, Copy, Debug)]
struct Spread {
    published: Mono,
    /// Copies that gossip brought, first ones included.
    copies: u32,
    /// Nodes that have folded it, its author included.
    folded: usize,
    last: Mono,
}

/// The mesh of a world.
#[derive(Debug)]
pub(crate) struct Mesh {
    peers: Vec<BTreeSet<Seat>>,
    seen: Vec<BTreeSet<u64>>,
    recent: Vec<VecDeque<Vec<SignedBatch>>>,
    spread: BTreeMap<u64, Spread>,
    /// From publication to each fold, milliseconds.
    delays: Vec<u64>,
}

impl Mesh {
    pub(crate) fn new(nodes: usize) -> Self {
        let windows = VecDeque::from(vec![Vec::new()]);
        Self {
            peers: vec![BTreeSet::new(); nodes],
            seen: vec![BTreeSet::new(); nodes],
            recent: vec![windows; nodes],
            spread: BTreeMap::new(),
            delays: Vec::new(),
        }
    }

    fn see(&mut self, seat: Seat, batch: &SignedBatch) -> bool {
        let fresh = self.seen[seat.0].insert(batch.head().prefix());
        if let Some(window) = self.recent[seat.0].front_mut().filter(|_| fresh) {
            window.push(batch.clone());
        }
        fresh
    }
}

/// What a mesh did in a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Batches that came to every node.
    pub batches: usize,
    /// Batches that had not, when the run ended.
    pub missing: usize,
    /// From publication to the last node that folded it: ascending, milliseconds.
    pub convergence_ms: Vec<u64>,
    /// From publication to each node that folded it: ascending, milliseconds.
    pub fold_ms: Vec<u64>,
    /// Copies that a node got of one batch: ascending, in thousandths.
    pub copies_milli: Vec<u64>,
}

/// How a partition of a large world healed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Healing {
    /// From the moment the paths open until all frontiers are equal, with nothing new to say.
    pub equal_ms: Option<u64>,
    /// Whether all roots are equal then.
    pub equal_roots: bool,
}

/// Until then the mesh is being set up, and nothing counts.
const WARM_MS: u64 = 5_000;
/// How long a partition lasts.
const PARTED_MS: u64 = 15_000;
/// How long nodes get to agree after it.
const HEAL_MS_MAX: u64 = 60_000;
/// What is on its way when the load ends arrives within this long.
const SETTLE_MS: u64 = 10_000;

/// Runs many nodes for a while, then parts them in two halves, and heals them.
///
/// # Errors
/// The first broken rule.
pub fn measure(options: Options) -> Result<(Figures, Healing), Box<Violation>> {
    let mut world = World::new(options);
    world.run_until(Mono(world.options.safety_ms));
    world.quieten();
    world.run_until(world.now.after_ms(SETTLE_MS));
    let figures = world.figures();
    world.split(true);
    for _ in 0..20 {
        let seat = world.pick();
        world.submit_at(seat);
        world.run_until(world.now.after_ms(PARTED_MS / 20));
    }
    world.split(false);
    let healed = world.now;
    let mut healing = Healing::default();
    while healing.equal_ms.is_none() && world.now.since_ms(healed) < HEAL_MS_MAX && world.violation.is_none() {
        world.run_until(world.now.after_ms(50));
        let mut digests = world.machines().map(|(_, machine)| machine.frontier().digest());
        let first = digests.next();
        if digests.all(|digest| Some(digest) == first) {
            healing.equal_ms = Some(world.now.since_ms(healed));
        }
    }
    let roots: BTreeSet<Hash> =
        world.nodes.iter_mut().filter_map(|node| node.machine.as_mut()).map(|machine| machine.root()).collect();
    healing.equal_roots = roots.len() == 1;
    match world.violation.take() {
        Some(violation) => Err(Box::new(violation)),
        None => Ok((figures, healing)),
    }
}

/// The value below which `percent` of an ascending list lie.
#[must_use]
pub fn percentile(ascending: &[u64], percent: usize) -> u64 {
    let place = (ascending.len() * percent).div_ceil(100).saturating_sub(1);
    ascending.get(place).copied().unwrap_or(0)
}

impl World {
    /// Sets up the mesh, if this world has one.
    pub(crate) fn knit(&mut self) {
        if self.mesh.is_none() {
            return;
        }
        for seat in self.seats().collect::<Vec<_>>() {
            // Not all at one moment.
            let wait = 2_000 + self.rng.below(HEARTBEAT_MS);
            self.after(wait, Event::Heartbeat(seat));
        }
    }

    /// Publishes a batch of one's own.
    pub(crate) fn gossip(&mut self, seat: Seat, batch: SignedBatch) {
        let now = self.now;
        let counts = now >= Mono(WARM_MS);
        let Some(mesh) = self.mesh.as_mut() else {
            return self.send_all(seat, &Packet::Batch(batch));
        };
        mesh.see(seat, &batch);
        let spread = Spread { published: now, copies: 0, folded: 0, last: now };
        if counts {
            mesh.spread.entry(batch.head().prefix()).or_insert(spread);
        }
        self.push(seat, None, &batch);
    }

    fn push(&mut self, seat: Seat, from: Option<Seat>, batch: &SignedBatch) {
        let peers: Vec<Seat> = self.mesh.iter().flat_map(|mesh| mesh.peers[seat.0].iter().copied()).collect();
        for peer in peers.into_iter().filter(|peer| Some(*peer) != from) {
            self.send(seat, peer, Packet::Batch(batch.clone()));
        }
    }

    /// Whether the machine should see a batch that gossip brought; in a mesh, only its first copy, which is passed on.
    pub(crate) fn is_first_copy(&mut self, seat: Seat, from: Option<Seat>, batch: &SignedBatch) -> bool {
        let Some(mesh) = self.mesh.as_mut() else {
            return true;
        };
        if let Some(spread) = mesh.spread.get_mut(&batch.head().prefix()) {
            spread.copies += 1;
        }
        let fresh = mesh.see(seat, batch);
        if fresh {
            self.push(seat, from, batch);
        }
        fresh
    }

    /// A node has folded a batch, whichever way it came.
    pub(crate) fn on_spread(&mut self, batch: &SignedBatch) {
        let now = self.now;
        if let Some(mesh) = self.mesh.as_mut()
            && let Some(spread) = mesh.spread.get_mut(&batch.head().prefix())
        {
            spread.folded += 1;
            spread.last = now;
            mesh.delays.push(now.since_ms(spread.published));
        }
    }

    /// Mends a node's part of the mesh, and offers what it saw lately to peers outside it.
    pub(crate) fn on_heartbeat(&mut self, seat: Seat) {
        self.after(HEARTBEAT_MS, Event::Heartbeat(seat));
        self.mend(seat);
        let mut outside: Vec<Seat> = self.seats().filter(|peer| *peer != seat && self.is_linked(seat, *peer)).collect();
        let Some(mesh) = self.mesh.as_mut() else { return };
        outside.retain(|peer| !mesh.peers[seat.0].contains(peer));
        let offered: Vec<SignedBatch> = mesh.recent[seat.0].iter().flatten().cloned().collect();
        mesh.recent[seat.0].push_front(Vec::new());
        mesh.recent[seat.0].truncate(WINDOWS);
        for peer in self.some_of(outside, LAZY) {
            let mesh = self.mesh.as_ref();
            let lacks =
                |batch: &&SignedBatch| mesh.is_some_and(|mesh| !mesh.seen[peer.0].contains(&batch.head().prefix()));
            let asked: Vec<SignedBatch> = offered.iter().filter(lacks).cloned().collect();
            for batch in asked {
                // The offer and the answer to it travel first.
                let wait = self.delay() + self.delay();
                self.after(wait, Event::Lazy { from: seat, to: peer, batch });
            }
        }
    }

    /// A peer asked for a batch that it was offered.
    pub(crate) fn on_lazy(&mut self, from: Seat, to: Seat, batch: SignedBatch) {
        self.send(from, to, Packet::Batch(batch));
    }

    fn mend(&mut self, seat: Seat) {
        let linked: BTreeSet<Seat> = self.seats().filter(|peer| *peer != seat && self.is_linked(seat, *peer)).collect();
        let Some(mesh) = self.mesh.as_mut() else { return };
        let gone: Vec<Seat> = mesh.peers[seat.0].difference(&linked).copied().collect();
        for peer in gone {
            mesh.peers[seat.0].remove(&peer);
            mesh.peers[peer.0].remove(&seat);
        }
        let has = mesh.peers[seat.0].len();
        if has < DEGREE_LOW {
            let free = |peer: &Seat| !mesh.peers[seat.0].contains(peer) && mesh.peers[peer.0].len() < DEGREE_HIGH;
            let free: Vec<Seat> = linked.iter().copied().filter(free).collect();
            for peer in self.some_of(free, DEGREE - has) {
                self.join(seat, peer);
            }
        }
    }

    /// Cuts the first half of the nodes off from the rest, or opens all paths.
    fn split(&mut self, cut: bool) {
        let half = self.nodes.len() / 2;
        for a in 0..half {
            for b in half..self.nodes.len() {
                self.network.set_cut(Seat(a), Seat(b), cut);
                self.network.set_cut(Seat(b), Seat(a), cut);
                self.refresh_pair(Seat(a), Seat(b));
            }
        }
    }

    fn join(&mut self, a: Seat, b: Seat) {
        if let Some(mesh) = self.mesh.as_mut() {
            mesh.peers[a.0].insert(b);
            mesh.peers[b.0].insert(a);
        }
    }

    fn some_of(&mut self, mut seats: Vec<Seat>, count: usize) -> Vec<Seat> {
        let mut some = Vec::new();
        while some.len() < count && !seats.is_empty() {
            let pick = usize::try_from(self.rng.below(seats.len() as u64)).unwrap_or(0);
            some.push(seats.swap_remove(pick));
        }
        some
    }

    /// What the mesh did.
    pub(crate) fn figures(&self) -> Figures {
        let Some(mesh) = self.mesh.as_ref() else {
            return Figures::default();
        };
        let nodes = self.nodes.len();
        let (all, some): (Vec<&Spread>, Vec<&Spread>) = mesh.spread.values().partition(|spread| spread.folded >= nodes);
        let sorted = |mut list: Vec<u64>| {
            list.sort_unstable();
            list
        };
        let others = u64::try_from(nodes.saturating_sub(1).max(1)).unwrap_or(1);
        Figures {
            batches: all.len(),
            missing: some.len(),
            convergence_ms: sorted(all.iter().map(|spread| spread.last.since_ms(spread.published)).collect()),
            fold_ms: sorted(mesh.delays.clone()),
            copies_milli: sorted(all.iter().map(|spread| u64::from(spread.copies) * 1_000 / others).collect()),
        }
    }
}
