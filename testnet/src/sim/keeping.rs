//! What a node keeps beside its log: snapshots on its disk, those of others that it joined, and what it was told of retired jobs.
//!
//! Invariants: a snapshot counts once the disk has it; records go only below the older of two; sometimes the newer one turns out damaged at a start.
//! Does not: keep history on a disk of its own: the real store has tests of its own, and what a crash takes comes again from the log.

use std::sync::Arc;

use starling_core::facts::{Facts, Past};
use starling_core::ids::{Hash, JobId, LogId, NodeId, Seq};
use starling_core::lattice::Lattice as _;
use starling_core::machine::snapshot::{self, Bytes, Local, Shared};
use starling_core::machine::{Input, Instead, Recovery};
use starling_core::namespace::Registry;
use starling_core::sync::Message;

use super::disk::Branches;
use super::marks::Mark;
use super::network::Packet;
use super::options::Sabotage;
use super::world::{Event, Seat, World};
use crate::invariant::Violation;

/// A snapshot on a disk.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Arc<Bytes>,
    /// Records ever written, up to which it holds all.
    pub(crate) upto: usize,
    /// Which snapshot of this disk it is, one's own and others' counted together.
    pub(crate) number: usize,
}

/// From what a node starts.
pub(crate) struct Origin {
    pub(crate) own: Option<Held>,
    pub(crate) joined: Vec<Held>,
}

impl Origin {
    /// Feeds a recovery; what cannot be read back is a broken rule.
    pub(crate) fn feed(&self, recovery: &mut Recovery, cluster: &starling_core::ids::ClusterId) -> Option<Violation> {
        let own = self.own.iter().map(|held| (held, true));
        for (held, is_own) in own.chain(self.joined.iter().map(|held| (held, false))) {
            let shared = Shared::from_bytes(&held.bytes.shared, cluster);
            let local = is_own.then(|| Local::from_bytes(&held.bytes.local)).transpose();
            match (shared, local) {
                (Ok(shared), Ok(local)) => recovery.snapshot(shared, local),
                (Err(error), _) | (_, Err(error)) => {
                    return Some(Violation::new(19, format!("a snapshot does not read back: {error}")));
                }
            }
        }
        None
    }
}

/// The Facts of everything but records on a disk, joined in the order given.
pub(crate) fn facts_of<'a>(
    held: impl Iterator<Item = &'a Held>,
    cluster: &starling_core::ids::ClusterId,
    registry: &Registry,
) -> Facts {
    let mut facts = Facts::bot();
    for shared in held.filter_map(|held| Shared::from_bytes(&held.bytes.shared, cluster).ok()) {
        let _ = facts.join(shared.facts);
    }
    facts.refold(registry);
    facts
}

/// A snapshot is offered in place of more batches than this.
const SPARED_BATCHES: usize = 4;

/// What a peer lacks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) log: LogId,
    pub(crate) from: Seq,
    pub(crate) known: Seq,
    pub(crate) instead: Instead,
    pub(crate) joined: Option<Hash>,
}

impl World {
    /// Sends what is on the disk, or offers a snapshot where it is gone, or much.
    pub(crate) fn serve(&mut self, seat: Seat, to: NodeId, wanted: Wanted) {
        let Wanted { log, from, known, instead, joined } = wanted;
        let Some(to) = self.by_id.get(&to).copied() else {
            return;
        };
        let disk = &self.node(seat).disk;
        let is_gone = disk.is_gone(&log, from, known);
        let rather = match instead {
            Instead::OfGone => false,
            Instead::OfMuch => disk.spares(&log, from, SPARED_BATCHES),
            Instead::OfAny => true,
        };
        let newest = disk.newest_own().filter(|_| is_gone || rather);
        let newest = newest.map(|held| (snapshot::name(&held.bytes.shared), held.bytes.shared.len() as u64));
        // Whoever has all of it wants what is in the log, whatever is not.
        if let Some((id, bytes)) = newest.filter(|(id, _)| joined != Some(*id)) {
            self.mark(if is_gone { Mark::SnapshotOffered } else { Mark::SnapshotSooner });
            return self.send(seat, to, Packet::Message(Box::new(Message::SnapshotAhead { log, id, bytes })));
        }
        let first_only = self.options.sabotage == Sabotage::NoBranches;
        let branches = if first_only { Branches::First } else { Branches::All };
        let (batches, more) = disk.serve(&log, from.max(Seq(1)), branches);
        self.send(seat, to, Packet::Pulled { log, batches, more });
    }

    pub(crate) fn on_retire(&mut self, seat: Seat, past: &[Past]) {
        // A start from a snapshot may retire again what it knows less of; history keeps the first word.
        let fresh = |id: &JobId| !self.rules.stays_retired.has(seat, id);
        let unsealed: Option<JobId> = past.iter().find(|past| past.ended.is_empty()).map(|past| past.id).filter(fresh);
        // Only its owner needs to know: another may have taken over, or a bad disk lost the seals and their retirement come back.
        let owns = |id: &JobId| self.node(seat).machine.as_ref().is_some_and(|machine| machine.acts_for(&id.log));
        let rules = &self.rules;
        let excused = |log: &LogId| rules.one_writer.may_fork(&log.node) || rules.extra_starts.was_adopted(log);
        let found = unsealed.filter(|id| owns(id) && !excused(&id.log));
        let found = found.map(|id| Violation::new(8, format!("{seat:?} retired {id:?}, which was not sealed")));
        self.rules.stays_retired.on_retired(seat, past.iter().map(|past| past.id));
        self.broken(found);
    }

    pub(crate) fn write_snapshot(&mut self, seat: Seat, bytes: Bytes) {
        let node = self.node(seat);
        let (life, upto) = (node.life, node.disk.heard());
        let delay = 1 + self.rng.below(10 * self.faults.disk_ms_max.max(1));
        self.after(delay, Event::Snapshot { seat, life, bytes: Arc::new(bytes), upto });
    }

    pub(crate) fn on_snapshot(&mut self, seat: Seat, life: u32, bytes: Arc<Bytes>, upto: usize) {
        let node = self.node(seat);
        if node.life != life || node.machine.is_none() {
            return;
        }
        if node.paused_until > self.now {
            return self.defer(seat, Event::Snapshot { seat, life, bytes, upto });
        }
        let full = node.disk.full_until > self.now;
        if !full {
            self.node_mut(seat).disk.keep_own(bytes, upto);
        }
        self.step(seat, Input::Snapshotted(if full { Err("no space left on device".into()) } else { Ok(()) }));
    }

    pub(crate) fn fetch(&mut self, seat: Seat, from: NodeId, id: Hash) {
        let life = self.node(seat).life;
        let delay = 5 + self.rng.below(200);
        self.after(delay, Event::Fetch { seat, life, from, id });
    }

    /// All pieces came, or the peer is gone, has another by now, or sends garbage.
    pub(crate) fn on_fetch(&mut self, seat: Seat, life: u32, from: NodeId, id: Hash) {
        let node = self.node(seat);
        if node.life != life || node.machine.is_none() {
            return;
        }
        if node.paused_until > self.now {
            return self.defer(seat, Event::Fetch { seat, life, from, id });
        }
        let garbage = self.faults.corrupt.hits(&mut self.rng);
        let peer = self.by_id.get(&from).copied().filter(|peer| self.is_linked(seat, *peer));
        let held = peer.and_then(|peer| self.node(peer).disk.snapshot_named(&id));
        let result = match held {
            None => Err("it stopped answering".to_owned()),
            Some(_) if garbage => Err("its bytes do not have the hash that it is named by".to_owned()),
            Some(held) => Shared::from_bytes(&held.bytes.shared, &self.cluster)
                .map(|shared| (shared, held))
                .map_err(|error| error.to_string()),
        };
        let result = result.map(|(shared, held)| {
            self.node_mut(seat).disk.keep_joined(held, &shared);
            Box::new(shared)
        });
        self.step(seat, Input::Fetched { from, result });
    }

    /// From what a node that starts now starts: sometimes its newest snapshot turns out damaged.
    pub(crate) fn origin(&mut self, seat: Seat) -> Origin {
        let damaged = self.rng.below(8) == 0;
        self.node(seat).disk.origin(damaged)
    }

    /// Whether the replay leaves out snapshots, as no honest one does.
    pub(crate) fn replay_held(&self, seat: Seat) -> Vec<Held> {
        if self.options.sabotage == Sabotage::ReplaysLogAlone { Vec::new() } else { self.node(seat).disk.held() }
    }
}
