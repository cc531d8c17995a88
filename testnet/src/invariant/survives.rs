//! 7: a job acknowledged at level k survives the loss of k - 1 of its copies, wherever they lay (DESIGN section 1).

use std::collections::BTreeMap;

use starling_core::ids::JobId;
use starling_core::machine::{AckLevel, Machine};

use super::Violation;
use crate::sim::Seat;

/// How often a disk lost the submission of each job, or what it needs to be understood.
#[derive(Debug, Default)]
pub(crate) struct Survives {
    lost: BTreeMap<JobId, u32>,
    /// How often a disk lost a declaration: without it the jobs of its namespace are kept, and not understood.
    declarations: u32,
}

impl Survives {
    /// A disk lost these for ever.
    pub(crate) fn on_loss(&mut self, jobs: &[JobId], declaration: bool) {
        self.declarations += u32::from(declaration);
        for job in jobs {
            *self.lost.entry(*job).or_default() += 1;
        }
    }

    /// Whether a job acknowledged at this level must still be there.
    pub(crate) fn must(&self, job: &JobId, level: AckLevel) -> bool {
        let copies = match level {
            AckLevel::Local => 1,
            AckLevel::Remote1 => 2,
        };
        self.lost.get(job).copied().unwrap_or(0) < copies && self.declarations < 2
    }
}

/// Once faults have healed: every machine knows what must be there.
pub(crate) fn look<'a>(
    machines: impl Iterator<Item = (Seat, &'a Machine)>,
    promised: &[(JobId, AckLevel)],
) -> Option<Violation> {
    for (seat, machine) in machines {
        let facts = machine.facts();
        let known = |id: &JobId| facts.is_retired(id) || facts.job(id).is_some_and(|job| job.submit.as_ref().is_some());
        if let Some((job, level)) = promised.iter().find(|(job, _)| !known(job)) {
            return Some(Violation::new(7, format!("{seat:?} does not know {job:?}, acknowledged as {level:?}")));
        }
    }
    None
}
