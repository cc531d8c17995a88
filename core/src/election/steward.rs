//! Steward: which node takes over the jobs of one that is gone for good, and when (DESIGN J7).
//!
//! Invariants: nobody takes over with a view of less than half of the members, nor from a node that was heard lately; of the live nodes one goes first, by
//! rendezvous rank (Thaler and Ravishankar, 1998), and each later one waits longer, so that mostly one adopts.
//! Does not: know the log, presence or time: all of it comes in.

use crate::ids::{LogId, NodeId, Term};

/// Each rank waits so much longer than the one before it. Longer than an adoption takes to be heard of.
const RANK_STEP_MS: u64 = 2_000;

/// What a node sees of an owner that is silent.
#[derive(Clone, Copy, Debug)]
pub struct Silence<'a> {
    /// The log whose jobs it owns.
    pub log: LogId,
    /// In which term it does.
    pub term: Term,
    /// For how long nothing was heard of it.
    pub silent_ms: u64,
    /// After how long others may take over.
    pub adopt_ms: u64,
    /// Live nodes that take writes.
    pub candidates: &'a [NodeId],
    /// Whether at least half of the members are seen.
    pub is_half: bool,
}

/// What is to be done about it by one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing now.
    Wait {
        /// Until this node's turn comes; `None` while it sees too little or takes no writes.
        for_ms: Option<u64>,
    },
    /// Adopt the jobs in this term.
    Adopt(Term),
}

/// What `me` does about a silent owner.
#[must_use]
pub fn duty(me: &NodeId, silence: &Silence<'_>) -> Duty {
    if !silence.is_half || !silence.candidates.contains(me) {
        return Duty::Wait { for_ms: None };
    }
    let mine = (rank(&silence.log, silence.term, me), *me);
    let before = silence.candidates.iter().filter(|node| (rank(&silence.log, silence.term, node), **node) > mine);
    let turn_ms = silence.adopt_ms + RANK_STEP_MS * before.count() as u64;
    match turn_ms.checked_sub(silence.silent_ms) {
        None | Some(0) => Duty::Adopt(silence.term.adopted_by(me)),
        Some(left) => Duty::Wait { for_ms: Some(left) },
    }
}

/// Rendezvous weight of a node for a log, another for each term, so that one that fails is not always first.
fn rank(log: &LogId, term: Term, node: &NodeId) -> u64 {
    let salt = log.node.prefix().rotate_left(23) ^ log.epoch.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ term.0;
    let mut mixed = node.prefix() ^ salt;
    mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}
