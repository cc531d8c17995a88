//! 25: jobs change hands only by a node that sees half of the members, only from an owner that has been silent for long, and never stay in two hands (DESIGN J7).
//!
//! What is looked at: the moment in which a node decides to adopt, and what it has heard by then; that it acts only once its adoption has stood for a while;
//! that an owner gives way to an adopter that it hears.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::ids::{LogId, Term};
use starling_core::machine::Machine;
use starling_core::time::Mono;

use super::{Violation, one_gateway};
use crate::sim::Seat;

/// What DESIGN J7 asks for; not what the nodes are configured to.
const SILENT_MS: u64 = 10_000;
const SETTLE_MS: u64 = 1_000;
/// Two that hear each other this long, with disks that take writes, know of each other's adoptions.
const HEARING_MS_MAX: u64 = 10_000;

/// Two nodes that act for one log.
type Both = (LogId, Seat, Seat);

/// Remembers since when things are as they are.
#[derive(Debug, Default)]
pub(crate) struct OneOwner {
    /// The adoptions of its own that each node sees count, and since when; `None` is from its start on.
    held: BTreeMap<Seat, BTreeMap<(LogId, Term), Option<Mono>>>,
    /// The last decision of each node about each log that was looked at.
    judged: BTreeMap<(Seat, LogId), (Term, Mono)>,
    both: BTreeMap<Both, Mono>,
}

fn broken(detail: String) -> Option<Violation> {
    Some(Violation::new(25, detail))
}

impl OneOwner {
    /// After every step of a machine; `mono` is its own clock.
    pub(crate) fn look(&mut self, seat: Seat, machine: &Machine, mono: Mono) -> Option<Violation> {
        self.look_at_decisions(seat, machine, mono).or_else(|| self.look_at_settling(seat, machine, mono))
    }

    fn look_at_decisions(&mut self, seat: Seat, machine: &Machine, mono: Mono) -> Option<Violation> {
        for (log, term, at) in machine.adoptions().filter(|(_, _, at)| *at == mono) {
            if self.judged.insert((seat, *log), (term, at)) == Some((term, at)) {
                continue;
            }
            let silent_ms = machine.fleet().silent_ms(mono, &machine.facts().owners().owner_of(log));
            if silent_ms < SILENT_MS {
                return broken(format!("{seat:?} adopts {log:?}, whose owner it heard {silent_ms} ms ago"));
            }
            let (live, members) = (machine.fleet().live(mono).count(), one_gateway::members(machine));
            if live * 2 < members {
                return broken(format!("{seat:?} adopts {log:?}, and sees {live} of {members} members"));
            }
        }
        None
    }

    fn look_at_settling(&mut self, seat: Seat, machine: &Machine, mono: Mono) -> Option<Violation> {
        let since = if self.held.contains_key(&seat) { Some(mono) } else { None };
        let held = self.held.entry(seat).or_default();
        for (log, adoption) in machine.facts().owners().iter().filter(|(_, one)| one.node == machine.me()) {
            let since = *held.entry((*log, adoption.term)).or_insert(since);
            let stood_ms = since.map_or(u64::MAX, |since| mono.since_ms(since));
            if stood_ms < SETTLE_MS && machine.acts_for(log) {
                return broken(format!("{seat:?} acts for {log:?}, adopted {stood_ms} ms ago"));
            }
        }
        None
    }

    /// Its process is gone; what it had adopted by then is no news to its next life.
    pub(crate) fn on_crash(&mut self, seat: Seat) {
        self.held.remove(&seat);
        self.judged.retain(|(of, _), _| *of != seat);
        self.both.retain(|(_, a, b), _| *a != seat && *b != seat);
    }

    /// Now and then: all pairs that act for one log and hear each other.
    pub(crate) fn look_at_pairs(&mut self, now: Mono, pairs: &BTreeSet<Both>) -> Option<Violation> {
        self.both.retain(|pair, _| pairs.contains(pair));
        for pair in pairs {
            let since = *self.both.entry(*pair).or_insert(now);
            let (log, a, b) = pair;
            let ms = now.since_ms(since);
            if ms > HEARING_MS_MAX {
                return broken(format!("{a:?} and {b:?} both act for {log:?}, and have heard each other for {ms} ms"));
            }
        }
        None
    }
}
