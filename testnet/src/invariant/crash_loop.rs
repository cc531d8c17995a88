//! 24: a node that crashes and starts again with nothing to do appends nothing and opens no epoch (DESIGN L2).

use starling_core::log::Frontier;

use super::Violation;
use crate::sim::Seat;

/// Compares the events on the node's disk, and everybody's frontiers, before and after.
pub(crate) fn look(seat: Seat, before: &(u64, Vec<Frontier>), after: &(u64, Vec<Frontier>)) -> Option<Violation> {
    if before == after {
        return None;
    }
    Some(Violation::new(24, format!("{seat:?} had {} events of its own, {} after three crashes at rest", before.0, after.0)))
}
