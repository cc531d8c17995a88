//! 21: at most one effective gateway per executor, none in a minority (DESIGN section 8).
//!
//! What is looked at: a node obeys no gateway that its own Facts have superseded; nobody acts with a view of less than half of the roster, nor before its claim has
//! stood for a second; nobody acts for long while the world has cut it off from half of the roster; two that hear each other do not both act; without
//! faults there is one claim, and after healing one gateway.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::election::Standing;
use starling_core::facts::Claim;
use starling_core::ids::{GatewayTerm, NodeId};
use starling_core::machine::Machine;
use starling_core::time::Mono;

use super::Violation;
use crate::sim::Seat;

/// What DESIGN section 8 asks for; not what the nodes are configured to.
const SETTLE_MS: u64 = 1_000;
/// Silence is noticed after 4 s at most, and its own steps are a second apart at most.
const CUT_OFF_MS_MAX: u64 = 8_000;
/// Two that hear each other this long know of each other's claims.
const HEARING_MS_MAX: u64 = 4_000;

/// Remembers since when things are as they are.
#[derive(Debug, Default)]
pub(crate) struct OneGateway {
    /// The claim of its own that each node holds for the one that counts, and since when.
    claims: BTreeMap<Seat, (GatewayTerm, Mono)>,
    cut_off: BTreeMap<Seat, Mono>,
    both: BTreeMap<(Seat, Seat), Mono>,
}

fn broken(detail: String) -> Option<Violation> {
    Some(Violation::new(21, detail))
}

/// Everybody whom a node knows of, by the log or by ear.
pub(crate) fn members(machine: &Machine) -> usize {
    let by_log = machine.facts().nodes().map(|(node, _)| *node);
    by_log.chain(machine.fleet().peers().map(|(node, _)| *node)).collect::<BTreeSet<NodeId>>().len()
}

/// An executor was given something by a gateway: it must be the one that counts there.
pub(crate) fn obeyed(entry: Seat, gateway: &NodeId, term: GatewayTerm, claim: Option<&Claim>) -> Option<Violation> {
    let counts = claim.is_none_or(|claim| (claim.term, claim.node) <= (term, *gateway));
    if counts {
        return None;
    }
    broken(format!("{entry:?} obeyed {gateway} of term {term}, though it knows of {claim:?}"))
}

impl OneGateway {
    /// After every step of a machine; `mono` is its own clock.
    pub(crate) fn look(&mut self, seat: Seat, machine: &Machine, mono: Mono) -> Option<Violation> {
        let mine = machine.facts().gateway().claim().filter(|claim| claim.node == machine.me());
        match mine {
            None => {
                self.claims.remove(&seat);
            }
            Some(claim) if self.claims.get(&seat).is_some_and(|(term, _)| *term == claim.term) => {}
            Some(claim) => {
                self.claims.insert(seat, (claim.term, mono));
            }
        }
        let Standing::Acting { term, .. } = machine.election().standing() else {
            return None;
        };
        let Some((_, since)) = self.claims.get(&seat).filter(|(claimed, _)| *claimed == term) else {
            return broken(format!("{seat:?} acts under term {term}, which is not its own to act under"));
        };
        if mono.since_ms(*since) < SETTLE_MS {
            return broken(format!("{seat:?} acts under term {term} after {} ms", mono.since_ms(*since)));
        }
        let (live, members) = (machine.fleet().live(mono).count(), members(machine));
        if live * 2 < members {
            return broken(format!("{seat:?} acts, and sees {live} of {members} members"));
        }
        None
    }

    /// Its process is gone; what it believed is too.
    pub(crate) fn on_crash(&mut self, seat: Seat) {
        self.claims.remove(&seat);
        self.cut_off.remove(&seat);
        self.both.retain(|(a, b), _| *a != seat && *b != seat);
    }

    /// Now and then: a node that acts, and how many members it can reach in truth.
    pub(crate) fn look_at_reach(&mut self, now: Mono, seat: Seat, reach: usize, roster: usize) -> Option<Violation> {
        if reach * 2 >= roster {
            self.cut_off.remove(&seat);
            return None;
        }
        let since = *self.cut_off.entry(seat).or_insert(now);
        if now.since_ms(since) <= CUT_OFF_MS_MAX {
            return None;
        }
        broken(format!("{seat:?} acts, cut off from all but {reach} of {roster} for {} ms", now.since_ms(since)))
    }

    /// A node that does not act, or is not awake, offends nobody.
    pub(crate) fn forgive(&mut self, seat: Seat) {
        self.cut_off.remove(&seat);
        self.both.retain(|(a, b), _| *a != seat && *b != seat);
    }

    /// Now and then: two that act, and whether they hear each other.
    pub(crate) fn look_at_two(&mut self, now: Mono, a: Seat, b: Seat, hear: bool) -> Option<Violation> {
        if !hear {
            self.both.remove(&(a, b));
            return None;
        }
        let since = *self.both.entry((a, b)).or_insert(now);
        if now.since_ms(since) <= HEARING_MS_MAX {
            return None;
        }
        broken(format!("{a:?} and {b:?} both act, and have heard each other for {} ms", now.since_ms(since)))
    }
}

/// Long after healing: one node acts, all hold the same claim for the one that counts, and without faults it is the first.
pub(crate) fn settled<'a>(machines: impl Iterator<Item = (Seat, &'a Machine)>, disturbed: bool) -> Option<Violation> {
    let all: Vec<(Seat, &Machine)> = machines.collect();
    let acting: Vec<Seat> = all
        .iter()
        .filter(|(_, machine)| machine.election().standing().acting().is_some())
        .map(|(seat, _)| *seat)
        .collect();
    if acting.len() != 1 {
        return broken(format!("everything has healed, and these act: {acting:?}"));
    }
    let mut claims = all.iter().map(|(_, machine)| machine.facts().gateway().claim());
    let first = claims.next().flatten();
    if claims.any(|claim| claim != first) {
        return broken("everything has healed, and nodes disagree on the claim that counts".into());
    }
    let term = first.map_or(0, |claim| claim.term.0);
    if !disturbed && term != 1 {
        return broken(format!("nothing went wrong, and the gateway is at term {term}"));
    }
    None
}
