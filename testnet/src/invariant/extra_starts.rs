//! 11: a task starts again only because somebody crashed or was suspected: at most once for each time that touched its job (DESIGN J6).

use std::collections::{BTreeMap, BTreeSet};

use starling_core::event::{Entry, SignedBatch};
use starling_core::ids::{JobId, LogId, NodeId, Term};

use super::Violation;
use crate::sim::Starts;

/// Who works on which job, and how often that was disturbed.
#[derive(Debug, Default)]
pub(crate) struct ExtraStarts {
    /// Owner and executors.
    workers: BTreeMap<JobId, BTreeSet<NodeId>>,
    touches: BTreeMap<JobId, u32>,
    /// Adoptions concern all jobs of a log, also those submitted before its author hears of it.
    adoptions: BTreeMap<LogId, u32>,
}

impl ExtraStarts {
    /// Notes the grants in a batch.
    pub(crate) fn on_batch(&mut self, batch: &SignedBatch) {
        let author = batch.header().log.node;
        for (_, entry) in batch.entries() {
            let Entry::Event(event) = entry else { continue };
            let term = event.ctx.grant.map_or(Term::FIRST, |no| no.term);
            let Some(job) = event.ctx.job.filter(|job| term.is_of(&job.log.node, &author)) else {
                continue;
            };
            let workers = self.workers.entry(job).or_default();
            workers.insert(author);
            workers.extend(event.ctx.node);
        }
    }

    /// Something that a job stood on went away, for instance a relay.
    pub(crate) fn touch(&mut self, job: JobId) {
        *self.touches.entry(job).or_default() += 1;
    }

    /// Whether any of those who work on the job, or own it, is such a node.
    pub(crate) fn involves(&self, job: &JobId, such: impl Fn(&NodeId) -> bool) -> bool {
        such(&job.log.node) || self.workers.get(job).is_some_and(|workers| workers.iter().any(such))
    }

    /// A machine went down.
    pub(crate) fn on_crash(&mut self, node: &NodeId) {
        for (job, _) in self.workers.iter().filter(|(_, workers)| workers.contains(node)) {
            *self.touches.entry(*job).or_default() += 1;
        }
    }

    /// An owner holds an executor for dead, rightly or not.
    pub(crate) fn on_suspicion(&mut self, owner: &NodeId, node: &NodeId) {
        let touched = |workers: &BTreeSet<NodeId>| workers.contains(owner) && workers.contains(node);
        for (job, _) in self.workers.iter().filter(|(_, workers)| touched(workers)) {
            *self.touches.entry(*job).or_default() += 1;
        }
    }

    /// A node took over the jobs of another that it held for gone, rightly or not.
    pub(crate) fn on_adoption(&mut self, log: &LogId) {
        *self.adoptions.entry(*log).or_default() += 1;
    }

    /// Whether anybody ever took over the jobs of the log.
    pub(crate) fn was_adopted(&self, log: &LogId) -> bool {
        self.adoptions.contains_key(log)
    }

    /// Looks at the starts of one task that no failure of its own explains.
    pub(crate) fn look(&self, job: JobId, task: u32, starts: &Starts) -> Option<Violation> {
        let adoptions = self.adoptions.get(&job.log).copied().unwrap_or(0);
        let extra = starts.extra(1 + adoptions);
        let touches = self.touches.get(&job).copied().unwrap_or(0) + adoptions;
        (extra > touches).then(|| {
            Violation::new(
                11,
                format!(
                    "task {task} of {job:?} has {extra} extra starts, {touches} crashes and suspicions touched its job"
                ),
            )
        })
    }
}
