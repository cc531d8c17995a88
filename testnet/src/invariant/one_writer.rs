//! 2: each log is written by one process, and no position of it is ever written twice (DESIGN L2, L3).

use std::collections::{BTreeMap, BTreeSet};

use starling_core::event::SignedBatch;
use starling_core::ids::{Hash, LogId, NodeId, Seq};

use super::Violation;

/// Who writes which log, and what is where.
#[derive(Debug, Default)]
pub(crate) struct OneWriter {
    writers: BTreeMap<LogId, u32>,
    heads: BTreeMap<(LogId, Seq), Hash>,
    /// Authors that sign two histories by intention, or because their disk forgot one.
    forkers: BTreeSet<NodeId>,
}

impl OneWriter {
    /// Nothing better is to be expected of this author.
    pub(crate) fn excuse(&mut self, node: NodeId) {
        self.forkers.insert(node);
    }

    /// Whether two histories by this author are no surprise.
    pub(crate) fn may_fork(&self, node: &NodeId) -> bool {
        self.forkers.contains(node)
    }

    /// A clean stop hands the logs of `node` to its next life.
    pub(crate) fn hand_over(&mut self, node: &NodeId, life: u32) {
        self.writers.iter_mut().filter(|(log, _)| log.node == *node).for_each(|(_, writer)| *writer = life);
    }

    /// Looks at a batch that became durable on `node`.
    pub(crate) fn look(&mut self, node: NodeId, life: u32, batch: &SignedBatch) -> Option<Violation> {
        let header = batch.header();
        let log = header.log;
        if self.may_fork(&log.node) {
            return None;
        }
        let known = *self.heads.entry((log, header.first_seq)).or_insert_with(|| batch.head());
        if known != batch.head() {
            return Some(Violation::new(2, format!("two batches at {:?} {}", log, header.first_seq)));
        }
        if log.node != node {
            return None;
        }
        let writer = *self.writers.entry(log).or_insert(life);
        (writer != life).then(|| Violation::new(2, format!("{log:?} was written by life {writer}, now by life {life}")))
    }
}
