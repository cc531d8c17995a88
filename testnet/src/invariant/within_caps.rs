//! 18, and what one Machine can check of 12: every buffer stays under its cap, reservations under the total (DESIGN section 12).

use starling_core::machine::{Machine, buffers, check};

use super::Violation;
use crate::sim::{Sabotage, Seat};

/// Looks at a machine after a step.
pub(crate) fn look(seat: Seat, machine: &Machine, sabotage: Sabotage) -> Option<Violation> {
    if sabotage == Sabotage::TightCaps {
        let over = buffers(machine).into_iter().find(|buffer| buffer.len > buffer.cap / 1_000);
        return over.map(|buffer| Violation::new(18, format!("{seat:?}: {} {}", buffer.len, buffer.what)));
    }
    check(machine)
        .into_iter()
        .next()
        .map(|found| Violation::new(found.invariant, format!("{seat:?}: {}", found.detail)))
}
