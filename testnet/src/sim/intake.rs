//! What comes to a node: what its bytes alone make of it, and what is kept from it where a rule is broken on purpose.
//!
//! Does not: deliver (`world`) or send (`network`).

use starling_core::event::{Entry, Event, SignedBatch};
use starling_core::namespace::sys;

use super::network::Packet;
use super::options::Sabotage;
use super::world::{Seat, World};
use crate::invariant::clock_blind;

/// How far an event may lie from the clock of a node that refuses what seems to be of another time.
const CLOCKED_MS: u64 = 600_000;
/// One batch of so many is looked at closely.
const SAMPLED: u64 = 8;

fn events(batch: &SignedBatch) -> impl Iterator<Item = &Event> {
    batch.entries().filter_map(|(_, entry)| match entry {
        Entry::Event(event) => Some(event),
        Entry::Unread(_) => None,
    })
}

impl World {
    /// Now and then, where a clock is wrong: what a batch comes to by its bytes.
    pub(super) fn foresee(&self, to: Seat, packet: &Packet) -> Option<clock_blind::Foreseen> {
        let Packet::Batch(batch) = packet else {
            return None;
        };
        let node = self.node(to);
        let is_looked_at = node.wall_ms != 0 && batch.head().prefix().is_multiple_of(SAMPLED);
        node.machine.as_ref().filter(|_| is_looked_at).and_then(|machine| clock_blind::foresee(machine, batch))
    }

    /// Whether a node that is broken so refuses a batch for what its clock shows.
    pub(super) fn seems_of_another_time(&self, to: Seat, batch: &SignedBatch) -> bool {
        let wall = self.node(to).clock(self.now).wall.0;
        let is_far = |event: &Event| event.hlc.wall_ms.abs_diff(wall) > CLOCKED_MS;
        self.options.sabotage == Sabotage::ClockedIntake && events(batch).any(is_far)
    }

    /// What a node hears of a packet. One that is deaf does not hear that its own jobs were taken over.
    pub(super) fn as_heard(&self, to: Seat, packet: Packet) -> Option<Packet> {
        if self.options.sabotage != Sabotage::DeafOwner {
            return Some(packet);
        }
        let id = self.node(to).id;
        let is_taken = |author, event: &Event| sys::adopted_log(author, event).is_some_and(|log| log.node == id);
        let is_unheard = |batch: &SignedBatch| events(batch).any(|event| is_taken(batch.header().log.node, event));
        match packet {
            Packet::Batch(batch) if is_unheard(&batch) => None,
            // Too deaf to look inside.
            Packet::BatchBytes { .. } => None,
            Packet::Pulled { log, mut batches, .. } => {
                batches.truncate(batches.iter().position(is_unheard).unwrap_or(batches.len()));
                Some(Packet::Pulled { log, batches, more: false })
            }
            Packet::Batch(_) | Packet::Message(_) | Packet::MessageBytes(_) | Packet::Presence(_) => Some(packet),
        }
    }
}
