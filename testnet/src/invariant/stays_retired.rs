//! 8: a job that is retired never returns, at no node, over no crash, snapshot or join (DESIGN J9).

use std::collections::{BTreeMap, BTreeSet};

use starling_core::facts::Facts;
use starling_core::ids::JobId;

use super::Violation;
use crate::sim::Seat;

/// Which jobs each node was told are retired.
#[derive(Debug, Default)]
pub(crate) struct StaysRetired {
    seen: BTreeMap<Seat, BTreeSet<JobId>>,
}

impl StaysRetired {
    /// A node lets go of jobs.
    pub(crate) fn on_retired(&mut self, seat: Seat, jobs: impl Iterator<Item = JobId>) {
        self.seen.entry(seat).or_default().extend(jobs);
    }

    /// Whether the node was told so.
    pub(crate) fn has(&self, seat: Seat, id: &JobId) -> bool {
        self.seen.get(&seat).is_some_and(|seen| seen.contains(id))
    }

    /// Its disk lost records: it may hear of jobs before it hears again that they are retired.
    pub(crate) fn forget(&mut self, seat: Seat) {
        self.seen.remove(&seat);
    }

    /// Looks for one that is back.
    pub(crate) fn look(&self, seat: Seat, facts: &Facts) -> Option<Violation> {
        let seen = self.seen.get(&seat)?;
        let back = seen.iter().find(|id| facts.job(id).is_some() || !facts.is_retired(id))?;
        Some(Violation::new(8, format!("{seat:?} had retired {back:?}, which is back")))
    }
}
