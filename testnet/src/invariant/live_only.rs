//! 22: once everything is sealed and its time is over, Facts hold no job any more, and what says so is a few ranges (DESIGN section 11).

use starling_core::facts::Facts;
use starling_core::ids::{JobId, NodeId};

use super::Violation;
use crate::sim::Seat;

/// Ranges of retired numbers that one log may be left with: numbers that no submission ever got.
const RANGES_MAX: usize = 64;

/// Looks at one node at rest. `honest` tells whose jobs are retired by their owners.
pub(crate) fn look(seat: Seat, facts: &Facts, honest: impl Fn(&NodeId) -> bool) -> Option<Violation> {
    let kept: Vec<JobId> =
        facts.jobs().filter(|(id, job)| honest(&id.log.node) && job.is_sealed()).map(|(id, _)| id).collect();
    if let Some(first) = kept.first() {
        let detail =
            format!("{seat:?} still holds {} jobs that were sealed long ago, the first is {first:?}", kept.len());
        return Some(Violation::new(22, detail));
    }
    let (log, _, jobs) = facts.retired().iter().find(|(_, _, jobs)| jobs.range_count() > RANGES_MAX)?;
    Some(Violation::new(22, format!("{seat:?} needs {} ranges for the retired jobs of {log:?}", jobs.range_count())))
}
