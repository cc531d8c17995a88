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

/// One bounded buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// What it holds.
    pub what: &'static str,
    /// How much of it, now.
    pub len: usize,
    /// How much at most.
    pub cap: usize,
}

/// Every buffer of the Machine that could grow by what others do.
#[must_use]
pub fn buffers(machine: &Machine) -> [Buffer; 9] {
    let (most_waiting, waiting_bytes) = machine.logs.waiting();
    let buffer = |what, len, cap| Buffer { what, len, cap };
    [
        buffer("batches waiting behind one gap", most_waiting, limits::OUT_OF_ORDER_BATCHES_MAX),
        buffer("bytes waiting behind gaps", waiting_bytes, limits::OUT_OF_ORDER_BYTES_MAX),
        buffer("bytes waiting for the disk", machine.outbox.remote_bytes, limits::OUT_OF_ORDER_BYTES_MAX),
        buffer("own events waiting", machine.outbox.own_len(), limits::OUTBOX_EVENTS_MAX * 2),
        buffer(
            "acknowledgements owed",
            machine.owed_local.len() + machine.owed_remote.len(),
            limits::PENDING_REPLIES_MAX,
        ),
        buffer("offers parked", machine.parked.len(), limits::PARKED_OFFERS_MAX),
        buffer("grants held", machine.executor.held(), limits::HELD_GRANTS_MAX),
        buffer("pulls in flight", machine.sync.pulls(), limits::PULLS_MAX),
        buffer("nodes remembered", machine.fleet.len(), limits::FLEET_MAX),
    ]
}

/// Checks 12 (no overcommit) and 18 (every buffer under its cap).
#[must_use]
pub fn check(machine: &Machine) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut broken = |invariant: u8, detail: String| {
        found.push(Violation { node: machine.me, invariant, detail });
    };
    let executor = &machine.executor;
    if !executor.total().covers(&executor.used()) {
        broken(12, format!("reserved {:?} of {:?}", executor.used(), executor.total()));
    }
    for Buffer { what, len, cap } in buffers(machine) {
        if len > cap {
            broken(18, format!("{len} {what}, cap {cap}"));
        }
    }
    found
}
