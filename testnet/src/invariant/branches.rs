//! 15: every branch of a fork comes to every node and is folded there, and its author goes on in a new epoch (DESIGN L6).

use std::collections::BTreeSet;

use starling_core::ids::{Hash, LogId, Seq};
use starling_core::machine::Machine;

use super::{Library, Violation};
use crate::sim::{Disk, Seat};

type Held = BTreeSet<(LogId, Seq, Hash)>;

/// At rest: all disks hold the same batches of forked logs, but for those behind a hole that bad disks left and nobody can fill: they are in no log (DESIGN L5).
/// That the others are folded, `any_order` and `equal_facts` see.
pub(crate) fn look<'a>(
    nodes: impl Iterator<Item = (Seat, &'a Machine, &'a Disk)>,
    library: &Library,
) -> Option<Violation> {
    let forked: BTreeSet<&LogId> = library.forked().collect();
    if forked.is_empty() {
        return None;
    }
    let mut first: Option<(Seat, Held, &Disk)> = None;
    for (seat, machine, disk) in nodes {
        // What no disk holds any more, nobody can know of.
        let own = machine.own_log();
        if machine.logs().is_forked(&own) {
            return Some(Violation::new(15, format!("{seat:?} goes on in {own:?}, which has two histories")));
        }
        let behind_hole = |log: &LogId, seq: &Seq| *seq > Seq(machine.logs().reach(log).0 + 1);
        let of_forked = disk.heads().filter(|(log, seq, _)| forked.contains(log) && !behind_hole(log, seq));
        let held: Held = of_forked.collect();
        let Some((other, known, their)) = &first else {
            first = Some((seat, held, disk));
            continue;
        };
        // What a snapshot took the place of is in its sum of heads, which frontiers show.
        let differ = |(log, seq, _): &&(LogId, Seq, Hash)| !disk.is_kept(log, *seq) && !their.is_kept(log, *seq);
        if let Some((log, seq, _)) = known.symmetric_difference(&held).find(differ) {
            let detail = format!("one of {seat:?} and {other:?} lacks the batch at {seq} of a branch of {log:?}");
            return Some(Violation::new(15, detail));
        }
    }
    None
}
