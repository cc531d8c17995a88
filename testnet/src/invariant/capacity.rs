//! 12: the processes that really run on a node reserve no more than it really has (DESIGN J3).

use starling_core::resources::Resources;

use super::Violation;
use crate::sim::Seat;

/// Looks at a node just after a process started.
pub(crate) fn look(seat: Seat, total: &Resources, used: &Resources) -> Option<Violation> {
    (!total.covers(used)).then(|| Violation::new(12, format!("{seat:?} has {total:?}, its processes reserve {used:?}")))
}
