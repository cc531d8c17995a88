//! 6: once faults have healed, what any node held then, every node holds within 10 s (DESIGN section 5).

use starling_core::log::Frontier;
use starling_core::machine::Machine;

use super::Violation;
use crate::sim::Seat;

/// The time allowed.
pub(crate) const MS_MAX: u64 = 10_000;

/// Looks whether every machine covers all of `held`, and none is missing.
pub(crate) fn look<'a>(machines: impl Iterator<Item = (Seat, &'a Machine)>, held: &[Frontier]) -> Option<Violation> {
    for (seat, machine) in machines {
        for (log, tip) in held.iter().flat_map(Frontier::tips) {
            let own = machine.frontier().tip(log).map_or(0, |tip| tip.len.0);
            if own < tip.len.0 {
                return Some(Violation::new(6, format!("{seat:?} holds {own} of the {} events of {log:?}", tip.len)));
            }
        }
    }
    None
}
