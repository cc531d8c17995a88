//! One author's log: an append-only chain of signed batches, as far as this node knows it.
//!
//! Two ends matter: the *tail* is what has been accepted and handed to the disk, the *durable* end is what the disk confirmed and Facts contain.
//! Invariants: positions have no gaps; each batch names its predecessor's head; the durable end never passes the tail and never shrinks.
//! Does not: hold the batches (`node::storage` does), only where each begins and 8 bytes of its hash, to recognise duplicates and forks.

use std::collections::BTreeMap;

use super::{LogEnd, Tip};
use crate::event::SignedBatch;
use crate::ids::{Hash, Seq};
use crate::limits;

/// What a chain makes of one batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// It continues the tail.
    Next,
    /// Held already.
    Duplicate,
    /// Something before it is missing.
    Gap,
    /// The author signed two different things for one position.
    Fork,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    first_seq: Seq,
    head: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    tail: Seq,
    tail_head: Hash,
    durable: Option<Tip>,
    marks: Vec<Mark>,
    /// A snapshot holds what lies before this position: there are no marks of it.
    base: Seq,
    /// Batches beyond a gap, by first position.
    pub(super) waiting: BTreeMap<Seq, SignedBatch>,
    /// Batches on other branches, folded beside ours.
    branches: Vec<Branch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Branch {
    head: u64,
    durable: bool,
}

impl Chain {
    pub(super) fn tail(&self) -> Seq {
        self.tail
    }

    pub(super) fn tail_head(&self) -> Hash {
        self.tail_head
    }

    pub(super) fn durable(&self) -> Option<Tip> {
        self.durable
    }

    pub(super) fn durable_len(&self) -> Seq {
        self.durable.map_or(Seq(0), |tip| tip.len)
    }

    pub(super) fn is_forked(&self) -> bool {
        !self.branches.is_empty()
    }

    /// The first position of the last batch: where to look again when heads differ.
    pub(super) fn last_mark(&self) -> Seq {
        self.marks.last().map_or(Seq(1), |mark| mark.first_seq)
    }

    /// The first position of the last durable batch.
    pub(super) fn last_durable(&self) -> Option<Seq> {
        let durable = self.durable_len();
        self.marks.iter().rev().map(|mark| mark.first_seq).find(|first_seq| *first_seq <= durable)
    }

    /// Heads of durable batches on other branches.
    pub(super) fn branch_heads(&self) -> Vec<u64> {
        self.branches.iter().filter(|branch| branch.durable).map(|branch| branch.head).collect()
    }

    /// Other branches that a snapshot tells of.
    pub(super) fn add_branch_heads(&mut self, heads: &[u64]) {
        for head in heads {
            let known = self.branches.iter().any(|branch| branch.head == *head);
            if !known && self.branches.len() < limits::FORKS_MAX {
                self.branches.push(Branch { head: *head, durable: true });
            }
        }
    }

    /// Goes on from a snapshot's end, which lies beyond the tail. Returns the bytes of what waited and is not needed any more.
    pub(super) fn jump(&mut self, end: &LogEnd) -> usize {
        self.tail = end.len;
        self.tail_head = end.head;
        self.durable = Some(Tip { len: end.len, head: end.head.prefix() });
        self.marks = vec![Mark { first_seq: end.last, head: end.head.prefix() }];
        self.base = end.last;
        let beyond = self.waiting.split_off(&Seq(end.len.0 + 1));
        let below = core::mem::replace(&mut self.waiting, beyond);
        below.values().map(|batch| batch.bytes().len()).sum()
    }

    /// Starts, or goes on behind a hole, where a batch begins: what it names as its predecessor is believed.
    pub(super) fn begin(&mut self, first_seq: Seq, prev: Hash) {
        self.tail = Seq(first_seq.0.saturating_sub(1));
        self.tail_head = prev;
        self.base = first_seq;
    }

    /// Where each batch begins, and the first 8 bytes of its head.
    pub(super) fn marks(&self) -> impl Iterator<Item = (Seq, u64)> {
        self.marks.iter().map(|mark| (mark.first_seq, mark.head))
    }

    /// Heads of batches on other branches, durable or not.
    pub(super) fn all_branch_heads(&self) -> impl Iterator<Item = u64> {
        self.branches.iter().map(|branch| branch.head)
    }

    /// Forgets what lies before `last`.
    pub(super) fn compact(&mut self, last: Seq) {
        self.base = self.base.max(last);
        let base = self.base;
        self.marks.retain(|mark| mark.first_seq >= base);
        self.marks.shrink_to_fit();
    }

    pub(super) fn place(&self, batch: &SignedBatch) -> Placement {
        let header = batch.header();
        if header.first_seq < self.base {
            // Too late to tell whether it is another branch's.
            return Placement::Duplicate;
        }
        if header.first_seq.0 == self.tail.0 + 1 {
            return if header.prev == self.tail_head { Placement::Next } else { self.known_branch(batch) };
        }
        if header.first_seq > self.tail {
            return Placement::Gap;
        }
        match self.marks.binary_search_by_key(&header.first_seq, |mark| mark.first_seq) {
            Ok(found) if self.marks[found].head == batch.head().prefix() => Placement::Duplicate,
            Ok(_) | Err(_) => self.known_branch(batch),
        }
    }

    fn known_branch(&self, batch: &SignedBatch) -> Placement {
        let head = batch.head().prefix();
        if self.branches.iter().any(|branch| branch.head == head) { Placement::Duplicate } else { Placement::Fork }
    }

    /// Remembers a batch of another branch; false once the bound is reached.
    pub(super) fn add_branch(&mut self, batch: &SignedBatch) -> bool {
        let room = self.branches.len() < limits::FORKS_MAX;
        if room {
            self.branches.push(Branch { head: batch.head().prefix(), durable: false });
        }
        room
    }

    /// Moves the tail over a batch that `place` called `Next`.
    pub(super) fn extend(&mut self, batch: &SignedBatch) {
        assert_eq!(batch.header().first_seq.0, self.tail.0 + 1, "only the next batch extends a chain");
        self.marks.push(Mark { first_seq: batch.header().first_seq, head: batch.head().prefix() });
        self.tail = batch.header().last_seq();
        self.tail_head = batch.head();
    }

    /// Whether `batch` lies on the chain itself, not on another branch.
    pub(super) fn holds(&self, batch: &SignedBatch) -> bool {
        let first_seq = batch.header().first_seq;
        let found = self.marks.binary_search_by_key(&first_seq, |mark| mark.first_seq);
        found.is_ok_and(|found| self.marks[found].head == batch.head().prefix())
    }

    /// The disk holds `batch` of another branch.
    pub(super) fn confirm_branch(&mut self, batch: &SignedBatch) {
        let head = batch.head().prefix();
        for branch in &mut self.branches {
            branch.durable |= branch.head == head;
        }
    }

    /// The disk holds `batch`.
    pub(super) fn confirm(&mut self, batch: &SignedBatch) {
        let tip = Tip { len: batch.header().last_seq(), head: batch.head().prefix() };
        assert!(
            tip.len <= self.tail && self.durable.is_none_or(|old| old.len < tip.len),
            "durability follows the tail"
        );
        self.durable = Some(tip);
    }

    /// The disk refused everything after the durable end: forget it, so that it can come again.
    pub(super) fn retract(&mut self, durable_head: Hash) {
        let durable = self.durable_len();
        self.marks.retain(|mark| mark.first_seq <= durable);
        self.branches.retain(|branch| branch.durable);
        self.tail = durable;
        self.tail_head = durable_head;
        self.waiting.clear();
    }
}
