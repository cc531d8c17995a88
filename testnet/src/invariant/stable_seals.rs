//! 14: an outcome that a user could see as final never changes (DESIGN section 1), unless another node took the job over meanwhile: then the greater term decides.
//!
//! Checked with partitions too: within one term there is one writer of seals.

use std::collections::BTreeMap;

use starling_core::facts::{Facts, Outcome};
use starling_core::ids::{JobId, Term};
use starling_core::lattice::IntervalSet;

use super::Violation;

/// Final outcomes seen at any node.
#[derive(Debug, Default)]
pub(crate) struct StableSeals {
    seen: BTreeMap<(JobId, Term), BTreeMap<Outcome, IntervalSet>>,
}

impl StableSeals {
    /// Looks at one node's view of all jobs but those that are excused.
    pub(crate) fn look(&mut self, facts: &Facts, excused: impl Fn(&JobId) -> bool) -> Option<Violation> {
        for (id, job) in facts.jobs().filter(|(id, _)| !excused(id)) {
            for (term, outcome, tasks) in job.final_outcomes() {
                // Only an adopter's term may decide anew.
                let owned = if term.is_adopted() { term } else { Term::FIRST };
                let seen = self.seen.entry((id, owned)).or_default();
                for (other, before) in seen.iter().filter(|(other, _)| **other != outcome) {
                    let changed = before.intersection(&tasks);
                    if !changed.is_empty() {
                        return Some(Violation::new(
                            14,
                            format!("tasks {changed} of {id:?} were {other:?}, now {outcome:?}"),
                        ));
                    }
                }
                let _ = seen.entry(outcome).or_default().union_with(&tasks);
            }
        }
        None
    }
}
