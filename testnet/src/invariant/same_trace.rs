//! 23: the same seed gives the same trace, byte for byte.

use super::Violation;
use crate::sim::Outcome;

/// Compares two runs of one seed.
#[must_use]
pub fn look(first: &Outcome, second: &Outcome) -> Option<Violation> {
    let equal = first.trace == second.trace && first.totals == second.totals;
    (!equal).then(|| Violation::new(23, format!("trace {:016x} at first, then {:016x}", first.trace, second.trace)))
}
