//! 9: every acknowledged job is sealed, at every node, once faults have healed (DESIGN J8).

use starling_core::ids::JobId;
use starling_core::machine::Machine;

use super::Violation;
use crate::sim::Seat;

/// Looks for an acknowledged job that some machine does not know to be sealed.
pub(crate) fn look<'a, 'b>(
    machines: impl Iterator<Item = (Seat, &'a Machine)>,
    acked: impl Iterator<Item = &'b JobId> + Clone,
) -> Option<Violation> {
    for (seat, machine) in machines {
        for id in acked.clone() {
            let Some(job) = machine.facts().job(id) else {
                return Some(Violation::new(9, format!("{seat:?} does not know job {id:?}, which was acknowledged")));
            };
            if !job.is_sealed() {
                let tasks = job.submit.as_ref().map_or_else(Default::default, |submit| submit.tasks.difference(&job.sealed_tasks()));
                return Some(Violation::new(9, format!("job {id:?} is not sealed as {seat:?} sees it: tasks {tasks} are open")));
            }
        }
    }
    None
}
