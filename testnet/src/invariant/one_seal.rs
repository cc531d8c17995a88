//! 13: an owner seals each task once per term (DESIGN J8).

use std::collections::BTreeMap;

use starling_core::event::{Entry, SignedBatch};
use starling_core::ids::{JobId, Term};
use starling_core::lattice::IntervalSet;
use starling_core::namespace::sys;

use super::Violation;

/// What was sealed, by job and term.
#[derive(Debug, Default)]
pub(crate) struct OneSeal {
    sealed: BTreeMap<(JobId, Term), IntervalSet>,
}

impl OneSeal {
    /// Looks at a batch seen for the first time.
    pub(crate) fn look(&mut self, batch: &SignedBatch) -> Option<Violation> {
        let author = batch.header().log.node;
        for (_, entry) in batch.entries() {
            let Entry::Event(event) = entry else { continue };
            // A seal by anybody but the owner is inert.
            let term = Term(event.spec.uint("term").unwrap_or(0));
            let Some(job) = event.ctx.job.filter(|job| term.is_of(&job.log.node, &author)) else {
                continue;
            };
            if event.ns != sys::NAME || event.kind != sys::SEAL {
                continue;
            }
            let sealed = self.sealed.entry((job, term)).or_default();
            let again = sealed.intersection(&event.ctx.tasks);
            if !again.is_empty() {
                return Some(Violation::new(13, format!("tasks {again} of {job:?} were sealed twice in term {term}")));
            }
            let _ = sealed.union_with(&event.ctx.tasks);
        }
        None
    }
}
