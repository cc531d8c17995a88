//! Where one log ends, as a snapshot has it.
//!
//! Invariants: the chain's batches follow each other up to the end; positions count from 1. Does not: prove anything; whoever reads a snapshot trusts who wrote it.

use crate::ids::{Hash, LogId, Seq};
use crate::limits;

/// Where one log ends.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct LogEnd {
    /// The log.
    #[n(0)]
    pub log: LogId,
    /// Events of its chain.
    #[n(1)]
    pub len: Seq,
    /// The head of its last batch.
    #[n(2)]
    pub head: Hash,
    /// Its last batches, oldest first, at most `limits::MARKS_KEPT_MAX`: another branch that leaves the chain there is recognised.
    #[n(3)]
    pub chain: Vec<Mark>,
    /// Batches on other branches: its author signed two different things for one position.
    #[n(4)]
    pub branches: Vec<BranchEnd>,
    /// Sum of the first 8 bytes of all its batches' heads, modulo 2^64: what tells forked logs of equal length apart.
    #[n(5)]
    pub sum: u64,
}

/// A batch of the chain. It ends where the next one starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Mark {
    /// Its first event.
    #[n(0)]
    pub first_seq: Seq,
    /// The first 8 bytes of its head.
    #[n(1)]
    pub head: u64,
}

/// A batch, wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct BranchEnd {
    /// The first 8 bytes of its head.
    #[n(0)]
    pub head: u64,
    /// Its first event.
    #[n(1)]
    pub first_seq: Seq,
    /// Its last event.
    #[n(2)]
    pub last_seq: Seq,
    /// The first 8 bytes of its predecessor's head; 0 if that is not known.
    #[n(3)]
    pub prev: u64,
}

/// The batches of a chain that ends at `tail`.
pub(super) fn ends_of(chain: &[Mark], tail: Seq) -> impl Iterator<Item = BranchEnd> {
    chain.iter().enumerate().map(move |(index, mark)| BranchEnd {
        head: mark.head,
        first_seq: mark.first_seq,
        last_seq: Seq(chain.get(index + 1).map_or(tail.0, |next| next.first_seq.0.saturating_sub(1))),
        prev: index.checked_sub(1).map_or(0, |before| chain[before].head),
    })
}

impl LogEnd {
    /// Where its last batch starts.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.chain.last().map_or(Seq(1), |mark| mark.first_seq)
    }

    /// How far any branch reaches.
    #[must_use]
    pub fn reach(&self) -> Seq {
        self.branches.iter().map(|end| end.last_seq).fold(self.len, Seq::max)
    }

    pub(super) fn starts_at_one(&self) -> bool {
        self.chain.first().is_none_or(|mark| mark.first_seq.0 <= 1)
    }

    /// All batches that it names.
    pub(super) fn ends(&self) -> impl Iterator<Item = BranchEnd> {
        ends_of(&self.chain, self.len).chain(self.branches.iter().copied())
    }

    /// Whether such an end can be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let rises = self.chain.windows(2).all(|pair| pair[0].first_seq < pair[1].first_seq);
        let fits = (1..=limits::MARKS_KEPT_MAX).contains(&self.chain.len()) && self.branches.len() <= limits::FORKS_MAX;
        let in_range = self.ends().all(|end| 1 <= end.first_seq.0 && end.first_seq <= end.last_seq);
        let within = self.ends().all(|end| end.last_seq.0 <= u64::MAX / 2) && self.last() <= self.len;
        rises && fits && in_range && within && self.chain.last().is_some_and(|mark| mark.head == self.head.prefix())
    }
}
