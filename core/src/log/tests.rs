//! One author's chain and the set of them: gaps, duplicates, forks, membership, frontiers.

mod forks;
mod survey;

use super::*;
use crate::event::Value;
use crate::testing::{Author, SECRET, log};

fn logs() -> LogSet {
    LogSet::new(SECRET)
}

fn ready(batches: &[&SignedBatch]) -> Ingest {
    Ingest::Ready(batches.iter().map(|batch| (*batch).clone()).collect())
}

/// Takes in a batch that fits, and has it on disk.
fn settle(logs: &mut LogSet, batch: &SignedBatch) {
    assert!(matches!(logs.ingest(batch.clone()), Ingest::Ready(_)));
    logs.confirm(batch);
}

/// The digest of a frontier built from nothing.
fn fresh_digest(frontier: &Frontier) -> u64 {
    let mut again = Frontier::default();
    for (log, tip) in frontier.tips() {
        again.set(*log, *tip);
    }
    again.digest()
}

#[test]
fn batches_in_order_are_ready_one_by_one() {
    let (mut logs, mut author) = (logs(), Author::new(1));
    for batch in [author.open("wren"), author.say(1, 3), author.say(2, 1)] {
        assert_eq!(logs.ingest(batch.clone()), ready(&[&batch]));
    }
    assert_eq!(logs.tail(&author.log()).0, Seq(5));
    assert_eq!(logs.frontier().tips().count(), 0, "nothing is durable yet");
}

#[test]
fn a_batch_taken_twice_is_a_duplicate() {
    let (mut logs, mut author) = (logs(), Author::new(1));
    let batches = [author.open("wren"), author.say(1, 3)];
    for batch in &batches {
        settle(&mut logs, batch);
    }
    let before = logs.frontier().clone();
    for batch in &batches {
        assert_eq!(logs.ingest(batch.clone()), Ingest::Duplicate);
    }
    assert_eq!(*logs.frontier(), before);
}

#[test]
fn a_gap_filled_releases_what_waited_in_order() {
    let (mut logs, mut author) = (logs(), Author::new(1));
    let [a, b, c, d] = [author.open("wren"), author.say(1, 2), author.say(2, 1), author.say(3, 1)];
    settle(&mut logs, &a);
    let gap = Ingest::Gap { missing_from: Seq(2) };
    assert_eq!(logs.ingest(d.clone()), gap);
    assert_eq!(logs.ingest(c.clone()), gap);
    assert_eq!(logs.ingest(d.clone()), gap, "again");
    assert_eq!(logs.waiting(), (2, c.bytes().len() + d.bytes().len()));
    assert_eq!(logs.ingest(b.clone()), ready(&[&b, &c, &d]));
    assert_eq!(logs.waiting(), (0, 0));
}

#[test]
fn a_log_seen_from_its_middle_waits_for_its_admission() {
    let (mut logs, mut author) = (logs(), Author::new(1));
    let [a, b] = [author.open("wren"), author.say(1, 1)];
    assert_eq!(logs.ingest(b.clone()), Ingest::Gap { missing_from: Seq(1) });
    assert_eq!(logs.last_epoch(&author.log().node), Some(Epoch(1)), "what is behind a hole was written");
    assert_eq!(logs.ingest(a.clone()), ready(&[&a, &b]));
    assert_eq!(logs.last_epoch(&author.log().node), Some(Epoch(1)));
}

#[test]
fn batches_beyond_the_bound_are_dropped_and_come_again() {
    let (mut logs, mut author) = (logs(), Author::new(1));
    let opening = author.open("wren");
    let missing = author.say(1, 1);
    let far: Vec<SignedBatch> = (0..=limits::OUT_OF_ORDER_BATCHES_MAX).map(|no| author.say(no as u64, 1)).collect();
    settle(&mut logs, &opening);
    let (last, kept) = far.split_last().unwrap();
    for batch in kept {
        assert!(matches!(logs.ingest(batch.clone()), Ingest::Gap { .. }));
    }
    assert_eq!(logs.ingest(last.clone()), Ingest::Overfull);
    assert_eq!(logs.waiting().0, limits::OUT_OF_ORDER_BATCHES_MAX);
    let Ingest::Ready(released) = logs.ingest(missing) else {
        panic!("the gap is filled");
    };
    assert_eq!(released.len(), limits::OUT_OF_ORDER_BATCHES_MAX + 1);
    assert_eq!(logs.ingest(last.clone()), ready(&[last]));
}

#[test]
fn a_log_without_a_valid_admission_changes_nothing() {
    let mut logs = logs();
    let mut stranger = Author::new(1);
    let no_admission = stranger.say(1, 1);
    assert_eq!(logs.ingest(no_admission), Ingest::NotAdmitted);
    let mut thief = Author::new(2);
    // The proof of another node.
    let stolen = Author::new(3).admit("wren");
    let opening = thief.append(vec![stolen]);
    assert_eq!(logs.ingest(opening), Ingest::NotAdmitted);
    let mut late = Author::new(4);
    let admit = late.admit("wren");
    let other = sys::cancel(crate::testing::hlc(1), crate::testing::job_id(4, 1));
    let opening = late.append(vec![other, admit]);
    assert_eq!(logs.ingest(opening), Ingest::NotAdmitted);
    assert_eq!(logs.waiting(), (0, 0));
    assert_eq!(logs.tail(&log(1)), (Seq(0), Hash::ZERO));
}

#[test]
fn two_batches_at_one_position_are_a_fork_and_each_is_kept_once() {
    let (mut logs, mut author) = (logs(), Author::new(1));
    settle(&mut logs, &author.open("wren"));
    let mut twin = author.clone();
    let [ours, theirs] = [author.say(1, 1), twin.say(2, 1)];
    settle(&mut logs, &ours);
    let before = logs.tail(&author.log());
    let tip = logs.frontier().tip(&author.log()).unwrap();
    assert_eq!(logs.forked().count(), 0);
    assert_eq!(logs.ingest(theirs.clone()), Ingest::Fork(vec![theirs.clone()]));
    assert_eq!(logs.forked().collect::<Vec<_>>(), [&author.log()]);
    assert_eq!(logs.ingest(theirs.clone()), Ingest::Duplicate);
    logs.confirm(&theirs);
    assert_eq!(logs.tail(&author.log()), before, "a branch does not move the end");
    let now = logs.frontier().tip(&author.log()).unwrap();
    assert!(now.len == tip.len && now.head != tip.head, "others see that there is another branch");
    let next = author.say(3, 1);
    assert_eq!(logs.ingest(next.clone()), ready(&[&next]));
}

#[test]
fn a_batch_that_names_another_predecessor_is_a_fork() {
    let (mut logs, mut author) = (logs(), Author::new(1));
    settle(&mut logs, &author.open("wren"));
    let mut twin = author.clone();
    settle(&mut logs, &author.say(1, 1));
    let _ = twin.say(2, 1);
    let beyond = twin.say(3, 1);
    assert_eq!(logs.ingest(beyond.clone()), Ingest::Fork(vec![beyond]));
}

#[test]
fn a_durable_branch_is_never_taken_for_the_end_of_the_log() {
    let (mut logs, mut author) = (logs(), Author::new(1));
    settle(&mut logs, &author.open("wren"));
    let mut twin = author.clone();
    let [ours, next] = [author.say(1, 1), author.say(2, 1)];
    let branch = twin.say(9, 2);
    assert_eq!(logs.ingest(ours.clone()), ready(&[&ours]));
    assert_eq!(logs.ingest(branch.clone()), Ingest::Fork(vec![branch.clone()]));
    assert_eq!(logs.ingest(next.clone()), ready(&[&next]));
    // The disk wrote them in the order of their arrival.
    for batch in [&ours, &branch, &next] {
        logs.confirm(batch);
    }
    let tip = logs.frontier().tip(&author.log()).unwrap();
    assert_eq!(tip.len, Seq(3));
    logs.retract_undurable();
    assert_eq!(logs.tail(&author.log()), (Seq(3), next.head()));
}

#[test]
fn a_refused_write_takes_the_log_back_to_its_durable_end() {
    let (mut logs, mut author) = (logs(), Author::new(1));
    let opening = author.open("wren");
    settle(&mut logs, &opening);
    let [lost, gone, far] = [author.say(1, 1), author.say(2, 1), author.say(4, 1)];
    let _ = logs.ingest(lost.clone());
    let _ = logs.ingest(gone);
    let mut other = Author::new(2);
    let unwritten = other.open("finch");
    let _ = logs.ingest(unwritten.clone());
    logs.retract_undurable();
    assert_eq!(logs.tail(&author.log()), (Seq(1), opening.head()));
    assert_eq!(logs.tail(&other.log()), (Seq(0), Hash::ZERO));
    assert_eq!(logs.last_epoch(&other.log().node), None);
    assert_eq!(logs.ingest(far), Ingest::Gap { missing_from: Seq(2) });
    assert_eq!(logs.ingest(lost.clone()), ready(&[&lost]));
    assert_eq!(logs.ingest(unwritten.clone()), ready(&[&unwritten]));
}

#[test]
fn a_branch_lost_with_a_refused_write_is_taken_in_again() {
    let (mut logs, mut author) = (logs(), Author::new(1));
    settle(&mut logs, &author.open("wren"));
    let mut twin = author.clone();
    settle(&mut logs, &author.say(1, 1));
    let branch = twin.say(2, 1);
    assert_eq!(logs.ingest(branch.clone()), Ingest::Fork(vec![branch.clone()]));
    logs.retract_undurable();
    assert_eq!(logs.ingest(branch.clone()), Ingest::Fork(vec![branch.clone()]));
    logs.confirm(&branch);
    logs.retract_undurable();
    assert_eq!(logs.ingest(branch), Ingest::Duplicate, "it is on disk now");
}

#[test]
fn far_batches_of_strangers_leave_no_trace_once_the_bound_is_reached() {
    let mut logs = logs();
    let noise = crate::event::WorkSpec::new().with("x", Value::Bytes(vec![0; 16_000]));
    let large = |author: &Author| {
        let mut event = author.admit("x");
        event.spec = noise.clone();
        event
    };
    let mut full = false;
    for seed in 1..=16 {
        let mut stranger = Author::new(seed);
        let _ = stranger.open("x");
        for _ in 0..limits::OUT_OF_ORDER_BATCHES_MAX {
            let events = vec![large(&stranger); 4];
            let far = stranger.append(events);
            let _ = stranger.say(1, 1);
            full |= logs.ingest(far) == Ingest::Overfull;
        }
    }
    assert!(full);
    assert!(logs.waiting().1 <= limits::OUT_OF_ORDER_BYTES_MAX);
    let logs_known = logs.chains.len();
    for seed in 20..40 {
        let mut stranger = Author::new(seed);
        let _ = stranger.open("x");
        let events = vec![large(&stranger); 4];
        assert_eq!(logs.ingest(stranger.append(events)), Ingest::Overfull);
    }
    assert_eq!(logs.chains.len(), logs_known);
}

#[test]
fn the_digest_equals_one_computed_from_nothing() {
    let mut logs = logs();
    let mut digests = vec![logs.frontier().digest()];
    for seed in 1..4 {
        let mut author = Author::new(seed);
        for batch in [author.open("x"), author.say(1, 2), author.say(2, 1)] {
            settle(&mut logs, &batch);
            digests.push(logs.frontier().digest());
            assert_eq!(logs.frontier().digest(), fresh_digest(logs.frontier()));
        }
    }
    let len = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), len, "every step has its own digest");
}

#[test]
fn a_frontier_survives_the_wire() {
    let mut logs = logs();
    for seed in 1..4 {
        settle(&mut logs, &Author::new(seed).open("x"));
    }
    let bytes = minicbor::to_vec(logs.frontier()).unwrap();
    let read: Frontier = minicbor::decode(&bytes).unwrap();
    assert_eq!(read, *logs.frontier());
    assert_eq!(read.digest(), logs.frontier().digest());
    for len in 0..bytes.len() {
        assert!(minicbor::decode::<Frontier>(&bytes[..len]).is_err());
    }
}

#[test]
fn missing_names_each_log_and_the_first_position_to_ask_for() {
    let (mut here, mut there) = (logs(), logs());
    let mut author = Author::new(1);
    let [a, b, c] = [author.open("wren"), author.say(1, 2), author.say(2, 1)];
    settle(&mut here, &a);
    for batch in [&a, &b, &c] {
        settle(&mut there, batch);
    }
    let mut unknown = Author::new(2);
    settle(&mut there, &unknown.open("finch"));
    let mut wanted = vec![(author.log(), Seq(2)), (unknown.log(), Seq(1))];
    wanted.sort_unstable();
    assert_eq!(here.missing(there.frontier()), wanted);
    assert_eq!(there.missing(here.frontier()), []);
    assert!(there.frontier().covers(here.frontier()));
    assert!(!here.frontier().covers(there.frontier()));
    // What is accepted and not yet durable need not be asked for again.
    let _ = here.ingest(b);
    let _ = here.ingest(c);
    assert_eq!(here.missing(there.frontier()), [(unknown.log(), Seq(1))]);
}

#[test]
fn missing_asks_for_the_other_branch_when_heads_differ() {
    let (mut here, mut there) = (logs(), logs());
    let mut author = Author::new(1);
    let opening = author.open("wren");
    settle(&mut here, &opening);
    settle(&mut there, &opening);
    let mut twin = author.clone();
    settle(&mut here, &author.say(1, 1));
    let branch = twin.say(2, 1);
    settle(&mut there, &branch);
    assert_eq!(here.missing(there.frontier()), [(author.log(), Seq(2))]);
    assert!(matches!(here.ingest(branch), Ingest::Fork(_)));
    assert_eq!(here.missing(there.frontier()), [], "it is held now");
}
