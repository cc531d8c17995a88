//! Explain: why the gateway is where it is, or why there is none.
//!
//! Invariants: says only what this node sees, so the same question at another node may get an older answer; never says that somebody acts who did not say so.
//! Does not: decide anything (`Election` does), or find words for people (`node` does).

use super::{Standing, View};
use crate::ids::GatewayTerm;

/// How the node that holds the seat looks from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It is this node.
    Me(Standing),
    /// It was heard since this node started.
    Heard {
        /// How long ago, milliseconds.
        silent_ms: u64,
        /// Whether it said that it would serve.
        willing: bool,
        /// The term under which it said that it acts, if it did.
        acting: Option<GatewayTerm>,
    },
    /// It was not heard since this node started.
    Unheard,
}

/// Why nobody has taken an empty seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vacancy {
    /// This node has not listened for so long that it could tell who lives.
    Listening,
    /// This node sees too few of the members to claim, or to know whether others do.
    TooFew {
        /// Members that seem alive.
        live: usize,
        /// Members there ever were.
        roster: usize,
    },
    /// No live node would serve.
    NobodyWilling,
    /// One of those that would serve claims in a moment.
    Soon {
        /// How many would.
        candidates: usize,
    },
}

/// Why there is a gateway, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody ever claimed.
    NoClaim(Vacancy),
    /// The holder acts.
    Acts,
    /// The holder's claim stands, but not yet for long enough.
    Settling,
    /// The holder would serve and says that it does not act: it settles, or sees too few of the members.
    NotYet,
    /// The holder is this node, and sees too few of the members to act.
    HeldBack {
        /// Members that seem alive.
        live: usize,
        /// Members there ever were.
        roster: usize,
    },
    /// The holder says that it does not serve any more.
    Unwilling(Vacancy),
    /// The holder is silent.
    Silent {
        /// For how long, milliseconds; `None` if it was not heard since this node started.
        for_ms: Option<u64>,
        /// Why its seat is not taken.
        vacancy: Vacancy,
    },
}

/// Explains what `view` shows. `holder` is how the node of `view.claim` looks; without a claim it does not matter.
#[must_use]
pub fn explain(view: &View<'_>, holder: Holder) -> Why {
    let Some(claim) = view.claim else {
        return Why::NoClaim(vacancy(view));
    };
    match holder {
        Holder::Me(_) if !view.willing => Why::Unwilling(vacancy(view)),
        Holder::Me(_) if !view.is_half() => Why::HeldBack { live: view.live, roster: view.roster },
        Holder::Me(standing) if standing.acting() == Some(claim.term) => Why::Acts,
        Holder::Me(_) => Why::Settling,
        Holder::Heard { willing: false, .. } if view.holder_gone => Why::Unwilling(vacancy(view)),
        Holder::Heard { silent_ms, .. } if view.holder_gone => {
            Why::Silent { for_ms: Some(silent_ms), vacancy: vacancy(view) }
        }
        Holder::Heard { acting, .. } if acting == Some(claim.term) => Why::Acts,
        Holder::Heard { .. } => Why::NotYet,
        Holder::Unheard => Why::Silent { for_ms: None, vacancy: vacancy(view) },
    }
}

fn vacancy(view: &View<'_>) -> Vacancy {
    if !view.holder_gone {
        Vacancy::Listening
    } else if !view.is_half() {
        Vacancy::TooFew { live: view.live, roster: view.roster }
    } else if view.candidates.is_empty() {
        Vacancy::NobodyWilling
    } else {
        Vacancy::Soon { candidates: view.candidates.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Claim;
    use crate::ids::NodeId;
    use crate::testing::{hlc, node};
    use crate::time::Mono;

    const TERM: GatewayTerm = GatewayTerm(3);

    /// Node 2 holds term 3, and this is node 1 of 3.
    fn why(change: impl FnOnce(&mut View<'_>), holder: Holder) -> Why {
        let claim = Claim { term: TERM, node: node(2), hlc: hlc(5) };
        let all: [NodeId; 3] = [node(1), node(2), node(3)];
        let mut view = View {
            me: node(1),
            willing: true,
            claim: Some(&claim),
            holder_gone: false,
            candidates: &all,
            live: 3,
            roster: 3,
            percent: 50,
        };
        change(&mut view);
        explain(&view, holder)
    }

    fn heard(acting: Option<u64>) -> Holder {
        Holder::Heard { silent_ms: 700, willing: true, acting: acting.map(GatewayTerm) }
    }

    #[test]
    fn a_holder_acts_only_under_the_term_that_counts() {
        assert_eq!(why(|_| {}, heard(Some(3))), Why::Acts);
        assert_eq!(why(|_| {}, heard(Some(2))), Why::NotYet);
        assert_eq!(why(|_| {}, heard(None)), Why::NotYet);
    }

    #[test]
    fn an_empty_seat_says_why_nobody_takes_it() {
        let empty = |view: &mut View<'_>| {
            view.claim = None;
            view.holder_gone = true;
        };
        let after = |more: fn(&mut View<'_>)| {
            let change = |view: &mut View<'_>| {
                empty(view);
                more(view);
            };
            why(change, Holder::Unheard)
        };
        assert_eq!(after(|_| {}), Why::NoClaim(Vacancy::Soon { candidates: 3 }));
        assert_eq!(after(|view| view.holder_gone = false), Why::NoClaim(Vacancy::Listening));
        assert_eq!(after(|view| view.live = 1), Why::NoClaim(Vacancy::TooFew { live: 1, roster: 3 }));
        assert_eq!(after(|view| view.candidates = &[]), Why::NoClaim(Vacancy::NobodyWilling));
    }

    #[test]
    fn a_holder_that_is_gone_is_told_apart_from_one_that_does_not_serve() {
        let gone = |view: &mut View<'_>| {
            view.holder_gone = true;
            view.live = 1;
        };
        let vacancy = Vacancy::TooFew { live: 1, roster: 3 };
        assert_eq!(why(gone, heard(Some(3))), Why::Silent { for_ms: Some(700), vacancy });
        assert_eq!(why(gone, Holder::Unheard), Why::Silent { for_ms: None, vacancy });
        let unwilling = Holder::Heard { silent_ms: 700, willing: false, acting: None };
        assert_eq!(why(gone, unwilling), Why::Unwilling(vacancy));
        let listening = Vacancy::Listening;
        assert_eq!(why(|_| {}, Holder::Unheard), Why::Silent { for_ms: None, vacancy: listening });
    }

    #[test]
    fn this_node_knows_why_it_does_not_act() {
        let standing = |standing: Standing| why(|_| {}, Holder::Me(standing));
        let since = Mono(1);
        assert_eq!(standing(Standing::Settling { term: TERM, since }), Why::Settling);
        assert_eq!(standing(Standing::Acting { term: TERM, since }), Why::Acts);
        assert_eq!(standing(Standing::Acting { term: GatewayTerm(2), since }), Why::Settling);
        let acting = Holder::Me(Standing::Acting { term: TERM, since });
        assert_eq!(why(|view| view.live = 1, acting), Why::HeldBack { live: 1, roster: 3 });
        let unwilling = |view: &mut View<'_>| {
            view.willing = false;
            view.holder_gone = true;
            view.candidates = &[];
        };
        assert_eq!(why(unwilling, acting), Why::Unwilling(Vacancy::NobodyWilling));
    }
}
