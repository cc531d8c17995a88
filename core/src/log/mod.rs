//! All logs that a node knows: acceptance, gaps, forks, and the frontier.
//!
//! Invariants: acceptance depends on bytes and membership only (DESIGN L4), never on clock, load or configuration; what waits for a gap is bounded (L5);
//! a fork is kept and folded, never subtracted (L6).
//! Does not: fold, write or send anything.

mod chain;
mod end;
mod frontier;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use chain::{Chain, Placement};
pub use end::{BranchEnd, LogEnd, Mark};
pub use frontier::{Frontier, Tip};
pub use survey::{Span, Survey, Surveyed};

use crate::event::{Entry, SignedBatch, membership_mac};
use crate::ids::{Epoch, Hash, LogId, NodeId, Seq};
use crate::limits;
use crate::namespace::sys;

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Ingest {
    /// Accepted, with any batches that had waited behind it, on whatever branch: write them in this order.
    Ready(Vec<SignedBatch>),
    /// Held already. Nothing changed.
    Duplicate,
    /// Kept until what lies before it arrives.
    Gap {
        /// The first missing position.
        missing_from: Seq,
    },
    /// The author signed two different things for one position. Write and fold this one too, and what had waited behind it.
    Fork(Vec<SignedBatch>),
    /// The log does not open with a valid `Admit`: not a member of this cluster. Nothing changed.
    NotAdmitted,
    /// Dropped because a bound is reached; anti-entropy brings it again.
    Overfull,
}

/// Every author's chain.
#[derive(Clone, Debug)]
pub struct LogSet {
    secret: [u8; 32],
    chains: BTreeMap<LogId, Chain>,
    frontier: Frontier,
    /// Full heads at the durable end, needed to retract.
    durable_heads: BTreeMap<LogId, Hash>,
    waiting_bytes: usize,
}

impl LogSet {
    /// No logs yet, of the cluster that shares `secret`.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            chains: BTreeMap::new(),
            frontier: Frontier::default(),
            durable_heads: BTreeMap::new(),
            waiting_bytes: 0,
        }
    }

    /// Takes in one batch.
    pub fn ingest(&mut self, batch: SignedBatch) -> Ingest {
        let log = batch.header().log;
        if batch.header().first_seq == Seq(1) && !self.is_admitted(&batch) {
            return Ingest::NotAdmitted;
        }
        if batch.header().first_seq > Seq(1) && !self.chains.contains_key(&log) {
            return self.keep_waiting(batch);
        }
        let chain = self.chains.entry(log).or_default();
        match chain.place(&batch) {
            Placement::Next => {
                chain.extend(&batch);
                let mut ready = vec![batch];
                self.release_waiting(log, &mut ready);
                Ingest::Ready(ready)
            }
            Placement::Duplicate => Ingest::Duplicate,
            Placement::Fork => {
                if !chain.add_branch(&batch) {
                    return Ingest::Overfull;
                }
                let mut ready = vec![batch];
                self.release_waiting(log, &mut ready);
                Ingest::Fork(ready)
            }
            Placement::Gap => self.keep_waiting(batch),
        }
    }

    fn is_admitted(&self, batch: &SignedBatch) -> bool {
        let node = batch.header().log.node;
        let mac = membership_mac(&self.secret, &node);
        batch.entries().next().is_some_and(|(_, entry)| match entry {
            Entry::Event(event) => sys::admission_mac(event) == Some(mac.0.as_slice()),
            Entry::Unread(_) => false,
        })
    }

    fn keep_waiting(&mut self, batch: SignedBatch) -> Ingest {
        let size = batch.bytes().len();
        let log = batch.header().log;
        let place = (batch.header().first_seq, batch.head());
        let known = self.chains.get(&log);
        let missing_from = Seq(known.map_or(Seq(0), Chain::reach).0 + 1);
        if known.is_some_and(|chain| chain.waiting.contains_key(&place)) {
            return Ingest::Gap { missing_from };
        }
        if known.is_some_and(|chain| chain.waiting.len() >= limits::OUT_OF_ORDER_BATCHES_MAX)
            || self.waiting_bytes + size > limits::OUT_OF_ORDER_BYTES_MAX
        {
            return Ingest::Overfull;
        }
        // Only here may a log without an admission enter the books, so that what waits bounds their number.
        let chain = self.chains.entry(log).or_default();
        chain.waiting.insert(place, batch);
        self.waiting_bytes += size;
        Ingest::Gap { missing_from }
    }

    fn release_waiting(&mut self, log: LogId, ready: &mut Vec<SignedBatch>) {
        let Some(chain) = self.chains.get_mut(&log) else {
            return;
        };
        while chain.waiting.first_key_value().is_some_and(|((first_seq, _), _)| first_seq.0 <= chain.reach().0 + 1) {
            let Some((_, batch)) = chain.waiting.pop_first() else {
                break;
            };
            self.waiting_bytes -= batch.bytes().len();
            match chain.place(&batch) {
                Placement::Next => {
                    chain.extend(&batch);
                    ready.push(batch);
                }
                // Of another branch than what came before it. This disk may be the only one that has it: nobody would send it again.
                Placement::Fork => {
                    if chain.add_branch(&batch) {
                        ready.push(batch);
                    }
                }
                Placement::Duplicate | Placement::Gap => {}
            }
        }
    }

    /// The disk holds `batch`: the frontier moves.
    pub fn confirm(&mut self, batch: &SignedBatch) {
        let log = batch.header().log;
        let Some(chain) = self.chains.get_mut(&log) else {
            return;
        };
        if !chain.holds(batch) {
            chain.confirm_branch(batch);
        } else if batch.header().last_seq() > chain.durable_len() {
            chain.confirm(batch);
            self.durable_heads.insert(log, batch.head());
        }
        if let Some(tip) = chain.tip() {
            self.frontier.set(log, tip);
        }
    }

    /// The disk refused what was accepted after the durable ends: forget it everywhere.
    pub fn retract_undurable(&mut self) {
        for (log, chain) in &mut self.chains {
            let head = self.durable_heads.get(log).copied().unwrap_or(Hash::ZERO);
            chain.retract(head);
        }
        self.waiting_bytes = 0;
    }

    /// Where the logs end durably, for a snapshot.
    #[must_use]
    pub fn ends(&self) -> Vec<LogEnd> {
        let end = |(log, chain): (&LogId, &Chain)| chain.end(*log, *self.durable_heads.get(log)?);
        self.chains.iter().filter_map(end).collect()
    }

    /// Takes over where a log ends from a snapshot, if that is further than what is held. Returns what had waited and is not in it; `None` if the end stays and
    /// nothing had.
    pub fn jump(&mut self, end: &LogEnd) -> Option<Vec<SignedBatch>> {
        let chain = self.chains.entry(end.log).or_default();
        let is_ahead = end.len > chain.tail();
        if is_ahead {
            chain.jump(end);
            self.durable_heads.insert(end.log, end.head);
        } else if chain.join(end) {
            self.durable_heads.insert(end.log, end.head);
        }
        if let Some(tip) = chain.tip() {
            self.frontier.set(end.log, tip);
        }
        let mut ready = Vec::new();
        self.release_waiting(end.log, &mut ready);
        (is_ahead || !ready.is_empty()).then_some(ready)
    }

    /// A snapshot holds the logs up to these ends: what lies below need not be recognised any more.
    pub fn compact(&mut self, ends: &[LogEnd]) {
        for end in ends {
            if let Some(chain) = self.chains.get_mut(&end.log) {
                chain.compact(end.last());
            }
        }
    }

    /// What this node holds durably.
    #[must_use]
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The accepted end of one log and the head there: where its author appends.
    #[must_use]
    pub fn tail(&self, log: &LogId) -> (Seq, Hash) {
        self.chains.get(log).map_or((Seq(0), Hash::ZERO), |chain| (chain.tail(), chain.tail_head()))
    }

    /// How far any branch of the log reaches: what is asked for comes after it.
    #[must_use]
    pub fn reach(&self, log: &LogId) -> Seq {
        self.chains.get(log).map_or(Seq(0), Chain::reach)
    }

    /// Batches of the log taken in here, on whatever branch.
    #[must_use]
    pub fn batches(&self, log: &LogId) -> usize {
        self.chains.get(log).map_or(0, Chain::batches)
    }

    /// Whether the author of the log signed two different things for one position.
    #[must_use]
    pub fn is_forked(&self, log: &LogId) -> bool {
        self.chains.get(log).is_some_and(Chain::is_forked)
    }

    /// Whether batches of the log wait behind a hole.
    #[must_use]
    pub fn has_hole(&self, log: &LogId) -> bool {
        self.chains.get(log).is_some_and(|chain| !chain.waiting.is_empty())
    }

    /// Whether the author of the log forked, or is suspected to have.
    #[must_use]
    pub fn is_disputed(&self, log: &LogId) -> bool {
        self.chains.get(log).is_some_and(Chain::is_disputed)
    }

    /// Whether branches of the log are missing that no peer's log had, from the first event on that could be recognised: they lie in snapshots, if anywhere.
    #[must_use]
    pub fn is_searched(&self, log: &LogId) -> bool {
        self.chains.get(log).is_some_and(Chain::is_searched)
    }

    /// All that a peer has of the log from here on was held already.
    pub fn found_nothing(&mut self, log: &LogId, from: Seq) {
        if let Some(chain) = self.chains.get_mut(log) {
            chain.found_nothing(from);
        }
    }

    /// Whether `theirs` shows other branches of some log than those held here: lengths do not tell who lacks what.
    #[must_use]
    pub fn forks_differ(&self, theirs: &Frontier) -> bool {
        self.forked().any(|log| theirs.tip(log) != self.frontier.tip(log))
    }

    /// The latest epoch of `node` that any batch here belongs to, be it one that waits behind a hole.
    #[must_use]
    pub fn last_epoch(&self, node: &NodeId) -> Option<Epoch> {
        let range = LogId { node: *node, epoch: Epoch(0) }..=LogId { node: *node, epoch: Epoch(u64::MAX) };
        let written = |chain: &Chain| chain.reach() > Seq(0) || !chain.waiting.is_empty();
        self.chains.range(range).rev().find(|(_, chain)| written(chain)).map(|(log, _)| log.epoch)
    }

    /// Logs whose author signed two different things for one position.
    pub fn forked(&self) -> impl Iterator<Item = &LogId> {
        self.chains.iter().filter(|(_, chain)| chain.is_forked()).map(|(log, _)| log)
    }

    /// What `theirs` shows that is missing here: each log and the first position to ask for.
    #[must_use]
    pub fn missing(&mut self, theirs: &Frontier) -> Vec<(LogId, Seq)> {
        let mut wanted = Vec::new();
        for (log, tip) in theirs.tips() {
            let Some(chain) = self.chains.get_mut(log) else {
                wanted.push((*log, Seq(1)));
                continue;
            };
            if tip.len > chain.reach() {
                wanted.push((*log, Seq(chain.reach().0 + 1)));
            } else if !chain.knows(*tip) {
                wanted.push((*log, chain.look_back()));
            }
        }
        wanted
    }

    /// Batches and bytes that wait behind gaps, for `invariants::check`.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let most = self.chains.values().map(|chain| chain.waiting.len()).max().unwrap_or(0);
        (most, self.waiting_bytes)
    }
}
