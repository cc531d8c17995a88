//! 21: at most one effective gateway per executor, none in a minority (DESIGN section 8).
//!
//! What is looked at: a node obeys no gateway that its own Facts have superseded; nobody acts with a view of less than half of the roster, nor before its claim has
//! stood for a second; nobody acts while the world has long cut it off from half of the roster; two that hear each other do not both act; without
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
    /// Since when a node that acts has not reached another.
    cut_off: BTreeMap<(Seat, Seat), Mono>,
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
        self.forgive(seat);
    }

    /// Now and then: a node that acts, what other nodes there are, and whether it can reach them in truth. One that cannot be reached counts until its silence must
    /// have been noticed: where nodes come and go, never half of them need have been silent for long.
    pub(crate) fn look_at_reach(
        &mut self,
        now: Mono,
        seat: Seat,
        others: impl Iterator<Item = (Seat, bool)>,
        roster: usize,
    ) -> Option<Violation> {
        let mut reach = 1;
        for (other, linked) in others {
            if linked {
                self.cut_off.remove(&(seat, other));
                reach += 1;
            } else {
                let since = *self.cut_off.entry((seat, other)).or_insert(now);
                reach += usize::from(now.since_ms(since) <= CUT_OFF_MS_MAX);
            }
        }
        if reach * 2 >= roster {
            return None;
        }
        broken(format!("{seat:?} acts, cut off from all but {reach} of {roster} for more than {CUT_OFF_MS_MAX} ms"))
    }

    /// A node that does not act, or is not awake, offends nobody.
    pub(crate) fn forgive(&mut self, seat: Seat) {
        self.cut_off.retain(|(from, _), _| *from != seat);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every second at node 0 of five, which acts and reaches those that `linked` says.
    fn watch(seconds: u64, linked: impl Fn(u64, usize) -> bool) -> Option<Violation> {
        let mut rule = OneGateway::default();
        (0..seconds).find_map(|second| {
            let others = (1..5).map(|other| (Seat(other), linked(second, other)));
            rule.look_at_reach(Mono(second * 1_000), Seat(0), others, 5)
        })
    }

    #[test]
    fn who_is_cut_off_from_most_must_not_act_for_long() {
        assert!(watch(30, |_, other| other <= 2).is_none(), "three of five");
        assert!(watch(8, |_, other| other == 1).is_none(), "not noticed yet");
        assert!(watch(10, |_, other| other == 1).is_some());
        assert!(watch(30, |second, other| other == 1 || second == 5).is_some(), "a moment's reach is long past");
    }

    #[test]
    fn who_has_heard_most_a_moment_ago_may_act() {
        assert!(watch(60, |second, other| second / 5 % 4 + 1 == other as u64).is_none(), "one by one they come and go");
    }
}
