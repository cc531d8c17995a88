//! Where one log ends, as a snapshot has it.
//!
//! Invariants: `last <= len`, both from 1. Does not: prove anything; whoever reads a snapshot trusts who wrote it.

use crate::ids::{Hash, LogId, Seq};

/// Where one log ends.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct LogEnd {
    /// The log.
    #[n(0)]
    pub log: LogId,
    /// Events it holds.
    #[n(1)]
    pub len: Seq,
    /// The head of its last batch.
    #[n(2)]
    pub head: Hash,
    /// The first event of its last batch.
    #[n(3)]
    pub last: Seq,
    /// The first 8 bytes of the heads of batches on other branches: its author signed two different things for one position.
    #[n(4)]
    pub branches: Vec<u64>,
}

impl LogEnd {
    /// Whether such an end can be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        (1..=self.len.0).contains(&self.last.0) && self.len.0 <= u64::MAX / 2
    }
}
