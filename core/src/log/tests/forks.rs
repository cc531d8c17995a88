//! Authors that signed two histories: nodes that held different parts of them come to hold the same, whoever saw what first (DESIGN L6).

use std::collections::BTreeMap;

use super::super::*;
use crate::testing::{Author, SECRET};

/// A node's logs, and its disk as the edges serve it.
struct Holder {
    logs: LogSet,
    disk: BTreeMap<(LogId, Seq, Hash), SignedBatch>,
}

impl Holder {
    fn new(batches: &[&SignedBatch]) -> Self {
        let mut holder = Self { logs: LogSet::new(SECRET), disk: BTreeMap::new() };
        batches.iter().for_each(|batch| holder.take((*batch).clone()));
        holder
    }

    fn take(&mut self, batch: SignedBatch) {
        let ready = match self.logs.ingest(batch) {
            Ingest::Ready(batches) | Ingest::Fork(batches) => batches,
            Ingest::Duplicate | Ingest::Gap { .. } | Ingest::NotAdmitted | Ingest::Overfull => Vec::new(),
        };
        for batch in ready {
            self.logs.confirm(&batch);
            let header = *batch.header();
            self.disk.insert((header.log, header.first_seq, batch.head()), batch);
        }
    }

    fn serve(&self, log: LogId, from: Seq) -> Vec<SignedBatch> {
        let held = self.disk.iter().filter(|((of, _, _), _)| *of == log).map(|(_, batch)| batch);
        held.filter(|batch| batch.header().last_seq() >= from).cloned().collect()
    }

    /// One exchange of frontiers; how many batches were sent.
    fn pull_from(&mut self, other: &Self) -> usize {
        let wanted = self.logs.missing(other.logs.frontier());
        let served: Vec<SignedBatch> = wanted.iter().flat_map(|(log, from)| other.serve(*log, *from)).collect();
        let count = served.len();
        served.into_iter().for_each(|batch| self.take(batch));
        count
    }
}

/// Exchanges until nothing moves, and expects equal frontiers over equal disks.
fn check(holders: &mut [Holder]) {
    for _ in 0..12 {
        for index in 0..holders.len() {
            let (left, right) = holders.split_at_mut(index);
            let (here, after) = right.split_first_mut().unwrap();
            for other in left.iter_mut().chain(after) {
                here.pull_from(other);
                other.pull_from(here);
            }
        }
    }
    let (first, rest) = holders.split_first_mut().unwrap();
    for other in rest {
        assert_eq!(first.logs.frontier(), other.logs.frontier());
        assert!(first.disk.keys().eq(other.disk.keys()), "equal frontiers over different disks");
        assert_eq!(first.pull_from(other), 0, "equal nodes ask for nothing");
    }
}

/// A common part of `common` batches, then two histories.
fn histories(common: u64, left: u64, right: u64) -> (Vec<SignedBatch>, Vec<SignedBatch>, Vec<SignedBatch>) {
    let mut author = Author::new(1);
    let mut stem = vec![author.open("wren")];
    stem.extend((0..common).map(|no| author.say(no + 1, 2)));
    let mut twin = author.clone();
    let ours = (0..left).map(|no| author.say(1_000 + no, 1)).collect();
    let theirs = (0..right).map(|no| twin.say(2_000 + no, 3)).collect();
    (stem, ours, theirs)
}

fn holding(parts: &[&[SignedBatch]]) -> Holder {
    Holder::new(&parts.iter().flat_map(|part| part.iter()).collect::<Vec<_>>())
}

#[test]
fn nodes_on_either_branch_come_to_hold_both() {
    for (left, right) in [(1, 1), (1, 6), (6, 1), (9, 7), (3, 1)] {
        let (stem, ours, theirs) = histories(3, left, right);
        check(&mut [holding(&[&stem, &ours]), holding(&[&stem, &theirs])]);
    }
}

#[test]
fn a_node_that_saw_no_fork_learns_of_one_far_behind_its_end() {
    let (stem, ours, theirs) = histories(2, 400, 2);
    check(&mut [holding(&[&stem, &ours]), holding(&[&stem, &ours, &theirs]), holding(&[&stem])]);
}

#[test]
fn a_node_with_a_branch_from_its_middle_gets_what_lies_before() {
    let (stem, ours, theirs) = histories(4, 5, 5);
    let (_, middle) = theirs.split_at(1);
    let (head, _) = middle.split_at(1);
    check(&mut [holding(&[&stem, &ours, head]), holding(&[&stem, &theirs])]);
}

#[test]
fn branches_of_a_log_known_from_its_first_event_come_together() {
    let (mut left, mut right) = (Author::new(1), Author::new(1));
    let ours = [left.open("wren"), left.say(1, 1)];
    let theirs = [right.open("robin"), right.say(2, 1), right.say(3, 1)];
    check(&mut [holding(&[&ours]), holding(&[&theirs]), holding(&[])]);
}

#[test]
fn four_parts_on_four_nodes_come_together() {
    let (stem, ours, theirs) = histories(3, 8, 12);
    let mut third = Author::new(1);
    let also = [third.open("wren"), third.say(77, 2)];
    check(&mut [
        holding(&[&stem, &ours[..4]]),
        holding(&[&stem, &theirs]),
        holding(&[&also]),
        holding(&[&stem, &theirs[..2], &ours]),
    ]);
}

#[test]
fn a_branch_goes_on_behind_its_own_end() {
    let (stem, ours, theirs) = histories(1, 1, 3);
    let mut holder = holding(&[&stem, &ours, &theirs[..1]]);
    assert_eq!(holder.logs.ingest(theirs[1].clone()), Ingest::Fork(vec![theirs[1].clone()]));
    let far = Ingest::Gap { missing_from: Seq(theirs[1].header().last_seq().0 + 1) };
    let (_, _, long) = histories(1, 1, 9);
    assert_eq!(holder.logs.ingest(long[5].clone()), far);
}

#[test]
fn a_refused_write_takes_the_branch_back_and_it_comes_again() {
    let (stem, ours, theirs) = histories(1, 2, 1);
    let mut holder = holding(&[&stem, &ours]);
    let before = holder.logs.frontier().clone();
    assert!(matches!(holder.logs.ingest(theirs[0].clone()), Ingest::Fork(_)));
    holder.logs.retract_undurable();
    assert_eq!(*holder.logs.frontier(), before);
    assert!(matches!(holder.logs.ingest(theirs[0].clone()), Ingest::Fork(_)));
}

#[test]
fn a_batch_that_came_before_its_parent_counts_once() {
    let mut author = Author::new(1);
    let open = author.open("wren");
    let mut twin = author.clone();
    let long = author.say(1, 4);
    let [first, second, third] = [twin.say(2, 2), twin.say(3, 2), twin.say(4, 3)];
    let early = Holder::new(&[&open, &first, &long, &third, &second, &third]);
    let late = Holder::new(&[&open, &long, &first, &second, &third]);
    assert_eq!(early.logs.frontier(), late.logs.frontier());
    assert!(early.disk.keys().eq(late.disk.keys()));
}

#[test]
fn what_waits_behind_a_hole_is_taken_in_once_another_branch_passes_it() {
    let (stem, ours, theirs) = histories(1, 5, 4);
    let hole = [&stem, &ours[..1], &ours[2..]];
    let fork_last = holding(&[hole[0], hole[1], hole[2], &theirs]);
    let fork_first = holding(&[&stem, &theirs, hole[1], hole[2]]);
    assert!(fork_last.disk.keys().eq(fork_first.disk.keys()), "what a disk alone has depends on what came first");
    check(&mut [fork_last, fork_first, holding(&[&stem])]);
}

#[test]
fn what_waits_for_the_other_branch_is_taken_in_with_it() {
    let (stem, ours, theirs) = histories(1, 3, 2);
    // The second batch of the other branch waits: it lies beyond the chain's end.
    let mut holder = holding(&[&stem]);
    holder.take(theirs[1].clone());
    ours.iter().for_each(|batch| holder.take(batch.clone()));
    assert!(holder.disk.values().any(|batch| *batch == theirs[1]), "nobody sends it again if no other disk has it");
}

#[test]
fn batches_of_all_branches_wait_behind_one_hole() {
    let (stem, ours, theirs) = histories(1, 2, 1);
    // A bad disk lost what lies before them, and no other disk has the branches.
    let mut holder = holding(&[&stem[..1], &ours, &theirs]);
    assert_eq!(holder.logs.waiting().0, 3);
    holder.take(stem[1].clone());
    let whole = holding(&[&stem, &ours, &theirs]);
    assert!(holder.disk.keys().eq(whole.disk.keys()), "nobody sends again what no other disk has");
    assert_eq!(holder.logs.frontier(), whole.logs.frontier());
    assert_eq!(holder.logs.waiting(), (0, 0));
}

#[test]
fn what_waited_and_is_not_in_a_snapshot_is_taken_in_beside_it() {
    let (stem, ours, theirs) = histories(1, 5, 1);
    let mut holder = holding(&[&stem[..1], &ours[..1], &theirs]);
    let ahead = holding(&[&stem, &ours]).logs.ends();
    assert_eq!(holder.logs.jump(&ahead[0]), Some(vec![theirs[0].clone()]));
    assert_eq!(holder.logs.waiting(), (0, 0));
}

#[test]
fn what_waited_for_a_branch_is_taken_in_once_a_snapshot_has_it() {
    let (stem, ours, theirs) = histories(1, 3, 3);
    let mut holder = holding(&[&stem, &ours, &theirs[2..]]);
    let beside = holding(&[&stem, &ours, &theirs[..2]]).logs.ends();
    assert_eq!(holder.logs.jump(&beside[0]), Some(vec![theirs[2].clone()]));
    assert_eq!(holder.logs.waiting(), (0, 0));
}
