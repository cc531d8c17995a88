//! 19: the events of a log in any order, with duplicates, and folds of its parts joined, give one root (DESIGN section 6).

use starling_core::event::{Entry, SignedBatch};
use starling_core::facts::Facts;
use starling_core::ids::{Dot, Hash};
use starling_core::lattice::Lattice as _;
use starling_core::log::Frontier;
use starling_core::machine::Record;
use starling_core::namespace::Registry;
use starling_core::rng::Rng;

use super::Violation;
use crate::sim::Seat;

/// Folds the records on a node's disk in an order drawn by `rng`, in two parts that begin with snapshots, and joins them.
pub(crate) fn look(
    seat: Seat,
    (root, frontier): (Hash, &Frontier),
    records: &[Record],
    (early, late): (Facts, Facts),
    registry: &Registry,
    rng: &mut Rng,
) -> Option<Violation> {
    let mut entries: Vec<(Dot, &Entry)> = Vec::new();
    let batches = records.iter().filter_map(|record| match record {
        Record::Batch(batch) => Some(batch),
        Record::Note(_) | Record::CleanShutdown => None,
    });
    // What lies behind a hole that a bad disk left is not in the log.
    let claimed = |batch: &&SignedBatch| {
        frontier.tip(&batch.header().log).is_some_and(|tip| batch.header().last_seq() <= tip.len)
    };
    for batch in batches.filter(claimed) {
        let log = batch.header().log;
        entries.extend(batch.entries().map(|(seq, entry)| (Dot { log, seq }, entry)));
    }
    // Fisher and Yates, by the run's own source of chance.
    for last in (1..entries.len()).rev() {
        let other = usize::try_from(rng.below(last as u64 + 1)).unwrap_or(0);
        entries.swap(last, other);
    }
    let (mut left, mut right) = (early, late);
    for (dot, entry) in entries {
        // Some on both sides.
        let side = rng.below(3);
        if side != 0 {
            left.fold(dot, entry, registry);
        }
        if side != 1 {
            right.fold(dot, entry, registry);
        }
    }
    let _ = left.join(right);
    (left.root() != root)
        .then(|| Violation::new(19, format!("{seat:?} has another root than its log in another order")))
}
