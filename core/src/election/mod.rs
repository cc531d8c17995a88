//! Election: which node is the gateway, and when it may act; `steward`: which node takes over the jobs of one that is gone.
//!
//! One live, willing node claims the next term in the log when the holder is gone; it acts once its claim has stood unchallenged for a while. Who claims is
//! decided by rendezvous rank (Thaler and Ravishankar, 1998), so that mostly one does; two claims of one term are decided by the greater node.
//!
//! Invariants: a holder that lives and is willing keeps the seat; nobody claims or acts with a view of less than half of the roster; nobody acts before its claim
//! has settled, nor once it has seen a greater claim.
//! Does not: know the log, presence or time: all of it comes in as a `View`.

mod explain;
mod steward;
#[cfg(test)]
mod tests;

pub use explain::{Holder, Vacancy, Why, explain};
pub use steward::{Duty, Silence, duty};

use crate::facts::Claim;
use crate::ids::{GatewayTerm, NodeId};
use crate::time::Mono;

/// A claim stands this long before its author acts: much longer than gossip takes (DESIGN section 8).
pub const SETTLE_MS: u64 = 1_000;
/// Each rank waits so much longer than the one before it. Longer than a claim takes to be heard of.
const RANK_STEP_MS: u64 = 1_000;
/// A claim that does not appear in the log is made again after this long.
const CLAIM_RETRY_MS: u64 = 3_000;

/// How this node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Another node holds the seat, or nobody does.
    #[default]
    Following,
    /// This node's claim counts; it does not act yet.
    Settling {
        /// Its term.
        term: GatewayTerm,
        /// Since when the claim stands and half of the roster is seen.
        since: Mono,
    },
    /// This node is the gateway.
    Acting {
        /// Its term.
        term: GatewayTerm,
        /// Since when.
        since: Mono,
    },
}

impl Standing {
    /// The term under which this node acts, if it does.
    #[must_use]
    pub fn acting(&self) -> Option<GatewayTerm> {
        match self {
            Self::Acting { term, .. } => Some(*term),
            Self::Following | Self::Settling { .. } => None,
        }
    }
}

/// What the node sees at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// This node.
    pub me: NodeId,
    /// Whether it would serve.
    pub willing: bool,
    /// The claim that counts.
    pub claim: Option<&'a Claim>,
    /// Whether the holder is silent, or says that it does not serve.
    pub holder_gone: bool,
    /// Live, willing nodes, this one included if it is willing.
    pub candidates: &'a [NodeId],
    /// Members that seem alive, this one included.
    pub live: usize,
    /// Members: those in the roster, and those heard that have written nothing yet.
    pub roster: usize,
    /// Share of them that must be seen, in percent.
    pub percent: usize,
}

impl View<'_> {
    /// Whether at least half of the roster is seen. Of two nodes, either is half.
    #[must_use]
    pub fn is_half(&self) -> bool {
        self.live * 100 >= self.roster * self.percent
    }

    fn holds(&self) -> Option<GatewayTerm> {
        self.claim.filter(|claim| claim.node == self.me).map(|claim| claim.term)
    }

    fn next_term(&self) -> GatewayTerm {
        GatewayTerm(self.claim.map_or(1, |claim| claim.term.0.saturating_add(1)))
    }

    /// How many candidates go before this node in `term`; `None` if it is no candidate.
    fn place(&self, term: GatewayTerm) -> Option<u64> {
        let mine = rank(term, &self.me);
        let before = self.candidates.iter().filter(|node| (rank(term, node), **node) > (mine, self.me)).count();
        self.candidates.contains(&self.me).then_some(before as u64)
    }
}

/// Rendezvous weight of a node for a term, so that terms move around and a node that claims in vain is not always first.
fn rank(term: GatewayTerm, node: &NodeId) -> u64 {
    let mut mixed = node.prefix() ^ term.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Log a claim to this term.
    Claim(GatewayTerm),
    /// Begin to act under this term.
    Act(GatewayTerm),
    /// Stop acting.
    StandDown,
}

/// One node's part in the election.
#[derive(Clone, Debug)]
pub struct Election {
    settle_ms: u64,
    grace_ms: u64,
    standing: Standing,
    /// The claim that counts, and since when this node knows.
    known: Option<(Claim, Mono)>,
    /// Since when the seat has been empty without a break.
    empty_since: Option<Mono>,
    /// The last claim of this node.
    claimed: Option<(GatewayTerm, Mono)>,
}

impl Election {
    /// A node that follows; a claim of its own acts after `settle_ms`, the author of another's new claim need not be heard for `grace_ms`: its claim may
    /// well be faster than its presence.
    #[must_use]
    pub fn new(settle_ms: u64, grace_ms: u64) -> Self {
        Self { settle_ms, grace_ms, standing: Standing::Following, known: None, empty_since: None, claimed: None }
    }

    /// How this node stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Looks at the view, and moves at most one step.
    pub fn step(&mut self, now: Mono, view: &View<'_>) -> Option<Step> {
        if self.known.map(|(claim, _)| claim) != view.claim.copied() {
            self.known = view.claim.map(|claim| (*claim, now));
        }
        let Some(held) = view.holds().filter(|_| view.willing && view.is_half()) else {
            let acted = self.standing.acting().is_some();
            self.standing = Standing::Following;
            return if acted { Some(Step::StandDown) } else { self.follow(now, view) };
        };
        self.empty_since = None;
        match self.standing {
            Standing::Settling { term, since } if term == held => {
                if now.since_ms(since) < self.settle_ms {
                    return None;
                }
                self.standing = Standing::Acting { term, since: now };
                Some(Step::Act(term))
            }
            Standing::Acting { term, .. } if term == held => None,
            Standing::Acting { .. } => {
                // A greater claim of its own, made in another life of this node.
                self.standing = Standing::Settling { term: held, since: now };
                Some(Step::StandDown)
            }
            Standing::Following | Standing::Settling { .. } => {
                self.standing = Standing::Settling { term: held, since: now };
                None
            }
        }
    }

    /// Another node holds the seat, or nobody does.
    fn follow(&mut self, now: Mono, view: &View<'_>) -> Option<Step> {
        // A holder that sees too little holds its seat still: it is for others to take it.
        let is_new = self.known.is_some_and(|(_, since)| now.since_ms(since) < self.grace_ms);
        let empty = view.holder_gone && !is_new && view.holds().is_none_or(|_| !view.willing);
        if !empty || !view.willing || !view.is_half() {
            self.empty_since = None;
            return None;
        }
        let since = *self.empty_since.get_or_insert(now);
        let term = view.next_term();
        let wait = view.place(term)?.saturating_mul(RANK_STEP_MS);
        let again = self.claimed.is_some_and(|(last, at)| last == term && now.since_ms(at) < CLAIM_RETRY_MS);
        if now.since_ms(since) < wait || again {
            return None;
        }
        self.claimed = Some((term, now));
        Some(Step::Claim(term))
    }

    /// When `step` must be called at the latest. A view changes with time alone, but not faster than presence comes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        match self.standing {
            Standing::Settling { since, .. } => Some(since.after_ms(self.settle_ms)),
            Standing::Acting { .. } | Standing::Following => None,
        }
    }
}
