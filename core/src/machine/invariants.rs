//! Invariants that one Machine can check of itself after every step; the simulator does (DESIGN section 11).

use super::Machine;
use crate::ids::NodeId;
use crate::limits;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where.
    pub node: NodeId,
    /// The number in DESIGN section 11.
    pub invariant: u8,
    /// What was seen.
    pub detail: String,
}

/// Checks 12 (no overcommit) and 18 (every buffer under its cap).
#[must_use]
pub fn check(machine: &Machine) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut broken = |invariant: u8, detail: String| found.push(Violation { node: machine.me, invariant, detail });
    let executor = &machine.executor;
    if !executor.total().covers(&executor.used()) {
        broken(12, format!("reserved {:?} of {:?}", executor.used(), executor.total()));
    }
    let (most_waiting, waiting_bytes) = machine.logs.waiting();
    let buffers = [
        ("batches waiting behind one gap", most_waiting, limits::OUT_OF_ORDER_BATCHES_MAX),
        ("bytes waiting behind gaps", waiting_bytes, limits::OUT_OF_ORDER_BYTES_MAX),
        ("bytes waiting for the disk", machine.outbox.remote_bytes, limits::OUT_OF_ORDER_BYTES_MAX),
        ("own events waiting", machine.outbox.own_len(), limits::OUTBOX_EVENTS_MAX * 2),
        ("acknowledgements owed", machine.owed_local.len() + machine.owed_remote.len(), limits::PENDING_REPLIES_MAX),
        ("offers parked", machine.parked.len(), limits::PARKED_OFFERS_MAX),
        ("grants held", executor.held(), limits::HELD_GRANTS_MAX),
        ("pulls in flight", machine.sync.pulls(), limits::PULLS_MAX),
        ("nodes remembered", machine.fleet.peers().count(), limits::FLEET_MAX),
    ];
    for (what, len, cap) in buffers {
        if len > cap {
            broken(18, format!("{len} {what}, cap {cap}"));
        }
    }
    found
}
