//! 3: a node's Facts contain the fold of every event that its frontier claims (DESIGN section 6).

use starling_core::facts::Facts;
use starling_core::ids::Dot;
use starling_core::lattice::Lattice;
use starling_core::log::Frontier;
use starling_core::namespace::Registry;

use super::{Library, Violation, equal_facts};
use crate::sim::Seat;

/// Folds the log afresh and joins it into a copy: nothing may be added by that.
pub(crate) fn look(seat: Seat, facts: &Facts, frontier: &Frontier, library: &Library) -> Option<Violation> {
    let registry = Registry::built_in();
    // Of a log with several histories a frontier does not say which batches are meant, and what it declares gives meaning to others: `any_order` looks at those.
    if frontier.tips().any(|(log, _)| library.is_forked(log)) {
        return None;
    }
    let mut expected = Facts::bot();
    for (log, tip) in frontier.tips() {
        let mut end = 0;
        for batch in library.upto(log, tip.len) {
            end = batch.header().last_seq().0;
            for (seq, entry) in batch.entries() {
                expected.fold(Dot { log: *log, seq }, entry, &registry);
            }
        }
        if end != tip.len.0 {
            return Some(Violation::new(3, format!("{seat:?} claims {} events of {log:?}, {end} are known", tip.len)));
        }
    }
    let mut joined = facts.clone();
    // What the fold kept unread for want of a declaration may be read already.
    let _grew = joined.join(expected);
    (joined != *facts).then(|| {
        let differ = equal_facts::difference(facts, &joined);
        Violation::new(3, format!("{seat:?} claims events that its facts do not contain: {differ}"))
    })
}
