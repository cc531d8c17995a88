//! Every batch that ever became durable on any disk, for checkers to compare with.
//!
//! Invariants: grows only; holds what the disks held, crashes or not.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::event::SignedBatch;
use starling_core::ids::{Hash, LogId, Seq};

/// The library.
#[derive(Debug, Default)]
pub(crate) struct Library {
    logs: BTreeMap<LogId, BTreeMap<Seq, SignedBatch>>,
    /// Batches at positions where another one came first.
    branches: BTreeMap<LogId, BTreeSet<(Seq, Hash)>>,
}

impl Library {
    /// Whether it is new.
    pub(crate) fn add(&mut self, batch: &SignedBatch) -> bool {
        let header = batch.header();
        let log = self.logs.entry(header.log).or_default();
        if let Some(known) = log.get(&header.first_seq) {
            let other = known.head() != batch.head();
            return other && self.branches.entry(header.log).or_default().insert((header.first_seq, batch.head()));
        }
        // Cut at other places, or behind another predecessor: of another history too.
        let before = log.range(..header.first_seq).next_back().map(|(_, known)| known);
        let overlaps = before.is_some_and(|known| known.header().last_seq() >= header.first_seq)
            || log.range(header.first_seq..).next().is_some_and(|(first, _)| *first <= header.last_seq());
        let strays = before
            .is_some_and(|known| known.header().last_seq().0 + 1 == header.first_seq.0 && known.head() != header.prev);
        if overlaps || strays {
            return self.branches.entry(header.log).or_default().insert((header.first_seq, batch.head()));
        }
        log.insert(header.first_seq, batch.clone());
        true
    }

    /// Whether the author signed two histories.
    pub(crate) fn is_forked(&self, log: &LogId) -> bool {
        self.branches.contains_key(log)
    }

    /// Logs with several histories.
    pub(crate) fn forked(&self) -> impl Iterator<Item = &LogId> {
        self.branches.keys()
    }

    /// The batches of `log` that end at `len` or before.
    pub(crate) fn upto(&self, log: &LogId, len: Seq) -> impl Iterator<Item = &SignedBatch> {
        self.logs
            .get(log)
            .into_iter()
            .flat_map(BTreeMap::values)
            .take_while(move |batch| batch.header().last_seq() <= len)
    }
}
