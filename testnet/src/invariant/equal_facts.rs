//! 4: nodes with equal frontiers have byte-equal Facts and equal roots (DESIGN section 6).

use std::collections::{BTreeMap, BTreeSet};

use starling_core::event::Event;
use starling_core::facts::Facts;
use starling_core::ids::{JobId, LogId};
use starling_core::log::Frontier;
use starling_core::machine::Machine;

use super::Violation;
use crate::sim::Seat;

/// Compares all machines whose frontiers are equal now.
pub(crate) fn look<'a>(machines: impl Iterator<Item = &'a mut Machine>) -> Option<Violation> {
    let mut known: BTreeMap<u64, (Vec<u8>, starling_core::ids::Hash)> = BTreeMap::new();
    for machine in machines {
        let (digest, me) = (machine.frontier().digest(), machine.me());
        let root = machine.root();
        let bytes = machine.facts().to_bytes();
        let (first_bytes, first_root) = known.entry(digest).or_insert_with(|| (bytes.clone(), root));
        if *first_bytes != bytes || *first_root != root {
            return Some(Violation::new(
                4,
                format!(
                    "{me} has an equal frontier, {} bytes of facts, others have {}",
                    bytes.len(),
                    first_bytes.len()
                ),
            ));
        }
    }
    None
}

/// Where two differ first, for people.
pub(crate) fn difference(one: &Facts, other: &Facts) -> String {
    let ids: BTreeSet<JobId> = one.jobs().chain(other.jobs()).map(|(id, _)| id).collect();
    for id in ids {
        let (ours, theirs) = (one.job(&id), other.job(&id));
        if ours != theirs {
            let retired = (one.is_retired(&id), other.is_retired(&id));
            return format!("job {id:?}, retired {retired:?}: {ours:?} and {theirs:?}");
        }
    }
    let nodes = |facts: &Facts| facts.nodes().map(|node| format!("{node:?}")).collect::<Vec<_>>();
    for (ours, theirs) in nodes(one).iter().zip(&nodes(other)) {
        if ours != theirs {
            return format!("node {ours} and {theirs}");
        }
    }
    let unread = |facts: &Facts| facts.opaque().map(|(dot, bytes)| (*dot, bytes.clone())).collect::<BTreeSet<_>>();
    if let Some((dot, bytes)) = unread(one).symmetric_difference(&unread(other)).next() {
        return format!("unread at one of them: {dot:?} {:?}", Event::from_bytes(bytes));
    }
    let others = |facts: &Facts| {
        format!(
            "{:?}, {:?}, {:?}, {:?}, opaque {}",
            facts.gateway(),
            facts.owners(),
            facts.retired(),
            facts.declarations(),
            facts.opaque_count()
        )
    };
    format!("not in jobs or nodes: {} and {}", others(one), others(other))
}

/// At rest: all machines are equal. `number` is 20 where some of them ran an older version before.
pub(crate) fn all_equal<'a>(machines: impl Iterator<Item = (Seat, &'a Machine)>, number: u8) -> Option<Violation> {
    let mut first: Option<(Seat, &Machine, Vec<u8>)> = None;
    for (seat, machine) in machines {
        let bytes = machine.facts().to_bytes();
        match &first {
            None => first = Some((seat, machine, bytes)),
            Some((other, theirs, known)) if *known != bytes => {
                let what = difference(machine.facts(), theirs.facts());
                let apart: Vec<LogId> = apart(machine.frontier(), theirs.frontier()).collect();
                let detail =
                    format!("{seat:?} and {other:?} rest with different facts, and apart in {apart:?}: {what}");
                return Some(Violation::new(number, detail));
            }
            Some(_) => {}
        }
    }
    None
}

/// The logs of which one has something that the other lacks.
fn apart(ours: &Frontier, theirs: &Frontier) -> impl Iterator<Item = LogId> {
    let logs: BTreeSet<LogId> = ours.tips().chain(theirs.tips()).map(|(log, _)| *log).collect();
    logs.into_iter().filter(|log| ours.tip(log) != theirs.tip(log))
}
