//! Sync: what peers say to each other directly, and who is asked for what is missing.
//!
//! Invariants: pulls in flight are bounded over all peers, one per log; an unanswered pull is dropped after a while and asked again, of whoever shows the log next;
//! gossip may lose anything, this brings it.
//! Does not: read the log (the edges serve pulls from disk) or accept anything (`log` does).

mod message;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use message::{Message, MessageError};

use crate::config::Config;
use crate::ids::{LogId, NodeId, Seq};
use crate::limits;
use crate::rng::Rng;
use crate::time::Mono;

/// Exchanges that find nothing before they become rare.
const QUIET_ROUNDS: u32 = 10;

#[derive(Clone, Copy, Debug)]
struct Pull {
    peer: NodeId,
    from: Seq,
    asked: Mono,
}

/// The books of one node's pulls and anti-entropy.
#[derive(Debug)]
pub struct Sync {
    pulls: BTreeMap<LogId, Pull>,
    links: BTreeMap<NodeId, ()>,
    next_round: Mono,
    quiet: u32,
    sync_ms: u64,
    sync_idle_ms: u64,
}

impl Sync {
    /// No links yet.
    #[must_use]
    pub fn new(config: &Config, now: Mono) -> Self {
        Self {
            pulls: BTreeMap::new(),
            links: BTreeMap::new(),
            next_round: now,
            quiet: 0,
            sync_ms: config.sync_ms,
            sync_idle_ms: config.sync_idle_ms,
        }
    }

    /// A link came up.
    pub fn link_up(&mut self, peer: NodeId) {
        self.links.insert(peer, ());
        self.quiet = 0;
    }

    /// A link went down; what was asked over it will not come.
    pub fn link_down(&mut self, peer: &NodeId) {
        self.links.remove(peer);
        self.pulls.retain(|_, pull| pull.peer != *peer);
    }

    /// Linked peers.
    pub fn links(&self) -> impl Iterator<Item = &NodeId> {
        self.links.keys()
    }

    /// Whether `peer` is linked.
    #[must_use]
    pub fn is_linked(&self, peer: &NodeId) -> bool {
        self.links.contains_key(peer)
    }

    /// Whether to ask `peer` for `log` from `from` on now. If so, the pull counts as in flight.
    pub fn begin_pull(&mut self, now: Mono, log: LogId, from: Seq, peer: NodeId) -> bool {
        self.quiet = 0;
        self.give_up_unanswered(now);
        if self.pulls.contains_key(&log) || self.pulls.len() >= limits::PULLS_MAX || !self.is_linked(&peer) {
            return false;
        }
        self.pulls.insert(log, Pull { peer, from, asked: now });
        true
    }

    fn give_up_unanswered(&mut self, now: Mono) {
        self.pulls.retain(|_, pull| now.since_ms(pull.asked) < limits::PULL_TIMEOUT_MS);
    }

    /// The answer to a pull is here; from where on it was asked for.
    pub fn end_pull(&mut self, log: &LogId) -> Option<Seq> {
        self.pulls.remove(log).map(|pull| pull.from)
    }

    /// Whether this very log was asked of this very peer, and has not come.
    #[must_use]
    pub fn is_asked(&self, log: &LogId, peer: &NodeId) -> bool {
        self.pulls.get(log).is_some_and(|pull| pull.peer == *peer)
    }

    /// Whether any pull is in flight.
    #[must_use]
    pub fn is_pulling(&self) -> bool {
        !self.pulls.is_empty()
    }

    /// Pulls in flight, for `invariants::check`.
    #[must_use]
    pub fn pulls(&self) -> usize {
        self.pulls.len()
    }

    /// If a round of anti-entropy is due: the peer to compare with.
    pub fn round(&mut self, now: Mono, rng: &mut Rng) -> Option<NodeId> {
        // Where nothing is missing any more nobody begins another pull, and whoever waits until none is in flight would wait for ever.
        self.give_up_unanswered(now);
        if now < self.next_round {
            return None;
        }
        let base = if self.quiet >= QUIET_ROUNDS { self.sync_idle_ms } else { self.sync_ms };
        self.next_round = now.after_ms(rng.jitter(base));
        self.quiet = self.quiet.saturating_add(1);
        let pick = usize::try_from(rng.below(self.links.len() as u64)).unwrap_or(0);
        self.links.keys().nth(pick).copied()
    }

    /// When the next round is due.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        self.next_round
    }
}
