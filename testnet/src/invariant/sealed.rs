//! 9: every acknowledged job is sealed, at every node, once faults have healed (DESIGN J8).

use std::collections::BTreeSet;

use starling_core::ids::JobId;
use starling_core::machine::Machine;

use super::Violation;
use crate::sim::Seat;

/// Looks for a promised job that some machine does not know to be sealed.
pub(crate) fn look<'a>(
    machines: impl Iterator<Item = (Seat, &'a Machine)>,
    promised: &BTreeSet<JobId>,
) -> Option<Violation> {
    for (seat, machine) in machines {
        for id in promised {
            // Only what was sealed is retired.
            if machine.facts().is_retired(id) {
                continue;
            }
            let Some(job) = machine.facts().job(id) else {
                return Some(Violation::new(9, format!("{seat:?} does not know job {id:?}, which was acknowledged")));
            };
            if !job.is_sealed() {
                let tasks = job
                    .submit
                    .as_ref()
                    .map_or_else(Default::default, |submit| submit.tasks.difference(&job.sealed_tasks()));
                return Some(Violation::new(
                    9,
                    format!("job {id:?} is not sealed as {seat:?} sees it: tasks {tasks} are open"),
                ));
            }
        }
    }
    None
}
