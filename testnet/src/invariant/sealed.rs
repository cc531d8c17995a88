//! 9: every acknowledged job is sealed, at every node, once faults have healed (DESIGN J8).

use std::collections::BTreeSet;

use starling_core::facts::Job;
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
                let all = job.submit.as_ref().map(|submit| submit.tasks.to_string()).unwrap_or_default();
                let detail = format!(
                    "job {id:?} of owner {} is not sealed as {seat:?} sees it: of its tasks {all} these are open: {tasks}; {}",
                    machine.facts().owner_of(id),
                    granted(job)
                );
                return Some(Violation::new(9, detail));
            }
        }
    }
    None
}

/// Grants that a violation names: the last ones.
const GRANTS_SHOWN: usize = 20;

/// To whom a job was granted of late, and what is known to have ended, for people.
fn granted(job: &Job) -> String {
    let mut text = if job.cancel.0.is_some() { "cancelled".to_owned() } else { String::new() };
    let grants: Vec<_> = job.grants.iter().collect();
    for (no, grant) in &grants[grants.len().saturating_sub(GRANTS_SHOWN)..] {
        let Some(placed) = grant.placed.as_ref() else { continue };
        let ended = grant.run().map(|run| run.all_ended()).unwrap_or_default();
        let void = if grant.void { ", void" } else { "" };
        text += &format!(" {no:?}: {} at {}, {ended} ended{void};", placed.tasks, placed.node);
    }
    text
}
