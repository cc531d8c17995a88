//! Every batch that ever became durable on any disk, for checkers to compare with.
//!
//! Invariants: grows only; holds what the disks held, crashes or not.

use std::collections::BTreeMap;

use starling_core::event::SignedBatch;
use starling_core::ids::{LogId, Seq};

/// The library.
#[derive(Debug, Default)]
pub(crate) struct Library {
    logs: BTreeMap<LogId, BTreeMap<Seq, SignedBatch>>,
}

impl Library {
    /// Whether it is new.
    pub(crate) fn add(&mut self, batch: &SignedBatch) -> bool {
        let header = batch.header();
        let log = self.logs.entry(header.log).or_default();
        let fresh = !log.contains_key(&header.first_seq);
        if fresh {
            log.insert(header.first_seq, batch.clone());
        }
        fresh
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
