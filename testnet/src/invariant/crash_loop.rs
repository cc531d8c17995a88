//! 24: a node that crashes and starts again with nothing to do appends nothing and opens no epoch (DESIGN L2).

use std::collections::BTreeMap;

use starling_core::log::Frontier;

use super::Violation;
use crate::sim::Seat;

/// Compares the events on the node's disk, and everybody's frontiers, before and after.
pub(crate) fn look(seat: Seat, before: &(u64, Vec<Frontier>), after: &(u64, Vec<Frontier>)) -> Option<Violation> {
    if before.0 != after.0 {
        let detail = format!("{seat:?} had {} events of its own, {} after three crashes at rest", before.0, after.0);
        return Some(Violation::new(24, detail));
    }
    let held: BTreeMap<_, _> = before.1.iter().flat_map(Frontier::tips).collect();
    let minted = after.1.iter().flat_map(Frontier::tips).find(|(log, tip)| held.get(log) != Some(tip));
    let (log, tip) = minted?;
    let had = held.get(log).map_or(0, |tip| tip.len.0);
    Some(Violation::new(24, format!("{log:?} had {had} events, {} after three crashes of {seat:?} at rest", tip.len)))
}
