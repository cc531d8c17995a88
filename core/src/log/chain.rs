//! One author's log: an append-only chain of signed batches, as far as this node knows it.
//!
//! Two ends matter: the *tail* is what has been accepted and handed to the disk, the *durable* end is what the disk confirmed and Facts contain.
//! Where the author forked, one branch is the chain, the first that came; the batches of all others are remembered singly, by their heads. Which branch is which
//! differs between nodes, so the end that a node tells of a forked log is one of the whole set: how far any branch reaches, and the sum of all heads.
//! Invariants: positions have no gaps; each batch names its predecessor's head; the durable end never passes the tail and never shrinks.
//! Does not: follow a branch rather than the chain, whichever is longer; hold the batches (`node::storage` does), only where each begins and 8 bytes of its hash, to recognise duplicates and forks; of
//! what went into a snapshot it knows that of the last batches alone.

use std::collections::BTreeMap;

use super::Tip;
use super::end::{BranchEnd, LogEnd, Mark, ends_of};
use crate::event::SignedBatch;
use crate::ids::{Hash, LogId, Seq};
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

#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    tail: Seq,
    tail_head: Hash,
    durable: Option<Tip>,
    marks: Vec<Mark>,
    /// A snapshot holds what lies before this position: there are no marks of it.
    base: Seq,
    /// Batches beyond a gap, by first position, then by head: an author that forked wrote several.
    pub(super) waiting: BTreeMap<(Seq, Hash), SignedBatch>,
    /// Batches on other branches, folded beside ours, by the first 8 bytes of their heads.
    branches: BTreeMap<u64, Branch>,
    /// Sum of the heads of all durable batches, on whatever branch.
    sum: u64,
    /// How far before the branches that are known others are looked for; grows until one is found.
    search: u64,
    /// They were looked for in all of a peer's log, in vain.
    searched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Branch {
    first_seq: Seq,
    last_seq: Seq,
    /// The first 8 bytes of the predecessor's head.
    prev: u64,
    durable: bool,
}

impl Branch {
    fn new(end: &BranchEnd, durable: bool) -> Self {
        Self { first_seq: end.first_seq, last_seq: end.last_seq, prev: end.prev, durable }
    }

    fn end(&self, head: u64) -> BranchEnd {
        BranchEnd { head, first_seq: self.first_seq, last_seq: self.last_seq, prev: self.prev }
    }
}

/// Where a search for branches looks next, in events before those known.
const SEARCH_FIRST: u64 = 16;
const SEARCH_GROWTH: u64 = 8;

impl Chain {
    pub(super) fn tail(&self) -> Seq {
        self.tail
    }

    pub(super) fn tail_head(&self) -> Hash {
        self.tail_head
    }

    pub(super) fn durable_len(&self) -> Seq {
        self.durable.map_or(Seq(0), |tip| tip.len)
    }

    pub(super) fn is_forked(&self) -> bool {
        !self.branches.is_empty()
    }

    /// How far any branch reaches.
    pub(super) fn reach(&self) -> Seq {
        self.branches.values().map(|branch| branch.last_seq).fold(self.tail, Seq::max)
    }

    /// The durable end as others are told: that of the chain, or of all branches together.
    pub(super) fn tip(&self) -> Option<Tip> {
        let last = self.branches.values().filter(|branch| branch.durable).map(|branch| branch.last_seq).max();
        match last {
            None => self.durable,
            Some(last) => Some(Tip { len: last.max(self.durable_len()), head: self.sum }),
        }
    }

    /// Whether whoever shows `tip` holds nothing that is missing here.
    pub(super) fn knows(&self, tip: Tip) -> bool {
        // What the disk does not have yet is in no tip; it soon is.
        // A snapshot holds what lies before the base.
        if self.tip() == Some(tip) || tip.len < self.base || self.branches.values().any(|branch| !branch.durable) {
            return true;
        }
        let on_chain = self.ends_at(tip.len).is_some_and(|mark| mark.head == tip.head);
        let on_branch = self.branches.get(&tip.head).is_some_and(|branch| branch.last_seq == tip.len);
        on_chain || (on_branch && self.branches.values().all(|branch| self.has_parent(branch)))
    }

    /// The batch of the chain that ends at `last_seq`.
    fn ends_at(&self, last_seq: Seq) -> Option<&Mark> {
        let index = self.marks.partition_point(|mark| mark.first_seq <= last_seq).checked_sub(1)?;
        let end = self.marks.get(index + 1).map_or(self.tail.0, |next| next.first_seq.0 - 1);
        self.marks.get(index).filter(|_| end == last_seq.0)
    }

    fn has_parent(&self, branch: &Branch) -> bool {
        let before = Seq(branch.first_seq.0.saturating_sub(1));
        // A snapshot holds what lies before the base.
        before == Seq(0)
            || branch.prev == 0
            || before < self.base
            || self.branches.contains_key(&branch.prev)
            || self.ends_at(before).is_some_and(|mark| mark.head == branch.prev)
    }

    /// Where to look for batches of other branches; each time further back, until one is found.
    pub(super) fn look_back(&mut self) -> Seq {
        let last = self.marks.last().map_or(Seq(1), |mark| mark.first_seq);
        let known = self.branches.values().map(|branch| branch.first_seq).fold(last, Seq::min);
        let from = Seq(known.0.saturating_sub(self.search)).max(self.first());
        self.search = self.search.saturating_mul(SEARCH_GROWTH).max(SEARCH_FIRST);
        from
    }

    /// The first event that could be recognised.
    fn first(&self) -> Seq {
        self.base.max(Seq(1))
    }

    /// Whether branches are missing that a peer's log did not have, and there is room for them.
    pub(super) fn is_searched(&self) -> bool {
        self.searched && self.branches.len() < limits::FORKS_MAX
    }

    /// All that a peer has from here on was held already.
    pub(super) fn found_nothing(&mut self, from: Seq) {
        self.searched |= self.search > 0 && from <= self.first();
    }

    /// Another branch was found: there may be more beside it.
    fn search_anew(&mut self) {
        self.search = 0;
        self.searched = false;
    }

    /// Batches taken in, on whatever branch.
    pub(super) fn batches(&self) -> usize {
        self.marks.len() + self.branches.len() + self.waiting.len()
    }

    /// Whether branches are known or looked for.
    pub(super) fn is_disputed(&self) -> bool {
        self.is_forked() || self.search > 0
    }

    /// The durable end, for a snapshot; `head` is the whole head there.
    pub(super) fn end(&self, log: LogId, head: Hash) -> Option<LogEnd> {
        let len = self.durable.map(|tip| tip.len)?;
        let durable = self.marks.partition_point(|mark| mark.first_seq <= len);
        let chain = self.marks[durable.saturating_sub(limits::MARKS_KEPT_MAX)..durable].to_vec();
        let branches = self.branches.iter().filter(|(_, branch)| branch.durable);
        let branches = branches.map(|(head, branch)| branch.end(*head)).collect();
        Some(LogEnd { log, len, head, chain, branches, sum: self.sum })
    }

    /// Takes over what a snapshot has of branches, and that it holds what this disk does not yet; true if that moves the durable end. Where its chain ends lies at or
    /// before the tail.
    pub(super) fn join(&mut self, end: &LogEnd) -> bool {
        self.add_ends(end.ends().map(|end| (end, true)));
        let (durable, head) = (self.durable_len(), end.head.prefix());
        let is_held = end.len > durable && self.ends_at(end.len).is_some_and(|mark| mark.head == head);
        if is_held {
            let waited = self.marks.iter().filter(|mark| mark.first_seq > durable && mark.first_seq <= end.len);
            self.sum = waited.fold(self.sum, |sum, mark| sum.wrapping_add(mark.head));
            self.durable = Some(Tip { len: end.len, head });
        }
        is_held
    }

    /// Batches that lie somewhere beside the chain, unless they are on it; whether each is durable.
    fn add_ends(&mut self, ends: impl Iterator<Item = (BranchEnd, bool)>) {
        for (end, durable) in ends {
            let place = self.marks.binary_search_by_key(&end.first_seq, |mark| mark.first_seq);
            let is_on_chain = place.is_ok_and(|place| self.marks[place].head == end.head);
            // What lies before the base is held, or too old to tell.
            if is_on_chain || end.first_seq < self.base {
                continue;
            }
            let known = self.branches.get(&end.head).map(|known| known.durable);
            if known == Some(true) || (known.is_none() && self.branches.len() >= limits::FORKS_MAX) {
                continue;
            }
            self.branches.insert(end.head, Branch::new(&end, durable));
            self.search_anew();
            if durable {
                self.sum = self.sum.wrapping_add(end.head);
            }
        }
    }

    /// Goes on from a snapshot's end, which lies beyond the tail.
    pub(super) fn jump(&mut self, end: &LogEnd) {
        let durable = self.durable_len();
        // What only this node holds lies beside the snapshot's chain from now on.
        let branches = core::mem::take(&mut self.branches);
        let own: Vec<(BranchEnd, bool)> = ends_of(&self.marks, self.tail)
            .map(|end| (end, end.first_seq <= durable))
            .chain(branches.iter().map(|(head, branch)| (branch.end(*head), branch.durable)))
            .collect();
        self.sum = end.sum;
        self.tail = end.len;
        self.tail_head = end.head;
        self.durable = Some(Tip { len: end.len, head: end.head.prefix() });
        self.marks.clone_from(&end.chain);
        self.base = if end.starts_at_one() { Seq(0) } else { end.chain[0].first_seq };
        self.branches = end.branches.iter().map(|end| (end.head, Branch::new(end, true))).collect();
        self.add_ends(own.into_iter());
        self.search_anew();
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
        self.branches.keys().copied()
    }

    /// A snapshot holds the log up to the batch that starts at `last`: little of what lies before need be recognised.
    pub(super) fn compact(&mut self, last: Seq) {
        let held = self.marks.partition_point(|mark| mark.first_seq < last);
        let cut = held.saturating_sub(limits::MARKS_KEPT_MAX);
        if cut > 0 {
            self.base = self.marks[cut].first_seq;
            self.marks.drain(..cut);
            self.marks.shrink_to_fit();
        }
    }

    pub(super) fn place(&self, batch: &SignedBatch) -> Placement {
        let header = batch.header();
        if header.first_seq < self.base {
            // Too late to tell whether it is on another branch.
            return Placement::Duplicate;
        }
        // A batch of a branch that came before its parent stays one of a branch, though it would fit the chain now.
        if self.holds(batch) || self.branches.contains_key(&batch.head().prefix()) {
            Placement::Duplicate
        } else if header.first_seq.0 == self.tail.0 + 1 && header.prev == self.tail_head {
            Placement::Next
        } else if header.first_seq.0 <= self.reach().0 + 1 {
            Placement::Fork
        } else {
            Placement::Gap
        }
    }

    /// Remembers a batch of another branch; false once the bound is reached.
    pub(super) fn add_branch(&mut self, batch: &SignedBatch) -> bool {
        let room = self.branches.len() < limits::FORKS_MAX;
        if room {
            let header = batch.header();
            let branch = Branch {
                first_seq: header.first_seq,
                last_seq: header.last_seq(),
                prev: header.prev.prefix(),
                durable: false,
            };
            self.branches.insert(batch.head().prefix(), branch);
            self.search_anew();
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
        if let Some(branch) = self.branches.get_mut(&head).filter(|branch| !branch.durable) {
            branch.durable = true;
            self.sum = self.sum.wrapping_add(head);
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
        self.sum = self.sum.wrapping_add(tip.head);
    }

    /// The disk refused everything after the durable end: forget it, so that it can come again.
    pub(super) fn retract(&mut self, durable_head: Hash) {
        let durable = self.durable_len();
        self.marks.retain(|mark| mark.first_seq <= durable);
        self.branches.retain(|_, branch| branch.durable);
        self.tail = durable;
        self.tail_head = durable_head;
        self.waiting.clear();
    }
}
