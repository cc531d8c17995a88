//! A disk that refuses: submissions are refused with its reason, everything else waits for the next try.

use super::*;

fn failed(write: u64) -> Input {
    Input::WriteFailed { write: WriteId(write), reason: "no space left on device".into() }
}

fn durable(write: u64) -> Input {
    Input::Durable(WriteId(write))
}

/// A node that runs task 1 of its own job 1; the start is on disk.
fn running() -> Machine {
    let mut node = machine(1);
    node.step(now(0), Input::Tick);
    node.step(now(1), command(submission(1, AckLevel::Local)));
    node.step(now(2), durable(1));
    node.step(now(3), durable(2));
    node.step(now(4), durable(3));
    node
}

fn end() -> Input {
    Input::TaskEnded { run: RunId(1), outcome: Outcome::Exit(0), usage: Usage::default() }
}

#[test]
fn a_refused_write_refuses_its_submission_and_changes_nothing() {
    let mut node = machine(1);
    node.step(now(0), Input::Tick);
    node.step(now(1), command(submission(1, AckLevel::Local)));
    check(
        &mut node,
        2,
        failed(1),
        &expect![[r#"
        reply 1: Error(DiskRefuses("no space left on device"))
        notice DiskRefuses("no space left on device")
        presence 2 free 2000
    "#]],
    );
    assert_eq!(node.facts().job_count(), 0);
    assert_eq!(node.frontier().events(), 0);
    check(
        &mut node,
        3,
        command(submission(1, AckLevel::Local)),
        &expect![[r#"
            reply 1: Error(DiskRefuses("no space left on device"))
        "#]],
    );
    // The log opens with its admission all the same, once the disk takes it.
    check(
        &mut node,
        1_002,
        Input::Tick,
        &expect![[r#"
        write 2: 
    "#]],
    );
    check(
        &mut node,
        1_003,
        durable(2),
        &expect![[r#"
        notice DiskAccepts
    "#]],
    );
    check(
        &mut node,
        1_004,
        command(submission(1, AckLevel::Local)),
        &expect![[r#"
            write 3: Admit , SubmitJob 1
        "#]],
    );
}

#[test]
fn a_report_that_the_disk_refused_is_written_at_the_next_try() {
    let mut node = running();
    check(
        &mut node,
        5,
        end(),
        &expect![[r#"
        write 4: JobFinished 1
    "#]],
    );
    check(
        &mut node,
        6,
        failed(4),
        &expect![[r#"
        notice DiskRefuses("no space left on device")
        presence 2 free 2000
    "#]],
    );
    check(&mut node, 7, Input::Tick, &expect![[""]]);
    check(
        &mut node,
        1_006,
        Input::Tick,
        &expect![[r#"
        write 5: JobFinished 1
    "#]],
    );
    check(
        &mut node,
        1_007,
        failed(5),
        &expect![[r#"
        notice DiskRefuses("no space left on device")
        presence 3 free 2000
    "#]],
    );
    check(
        &mut node,
        2_007,
        Input::Tick,
        &expect![[r#"
        write 6: JobFinished 1
    "#]],
    );
    check(
        &mut node,
        2_008,
        durable(6),
        &expect![[r#"
        notice DiskAccepts
        gossip 5
        folded 5+1
        write 7: Seal 1
    "#]],
    );
    check(
        &mut node,
        2_009,
        durable(7),
        &expect![[r#"
        gossip 6
        folded 6+1
    "#]],
    );
    assert_eq!(node.disk_refusal(), None);
    assert!(node.facts().jobs().all(|(_, job)| job.is_sealed()));
}

#[test]
fn a_submission_behind_a_refused_write_is_refused_too() {
    let mut node = running();
    node.step(now(5), end());
    check(&mut node, 6, command(submission(5, AckLevel::Local)), &expect![[""]]);
    check(
        &mut node,
        7,
        failed(4),
        &expect![[r#"
        reply 1: Error(DiskRefuses("no space left on device"))
        notice DiskRefuses("no space left on device")
        presence 2 free 2000
    "#]],
    );
    check(
        &mut node,
        1_007,
        Input::Tick,
        &expect![[r#"
        write 5: JobFinished 1
    "#]],
    );
}

#[test]
fn nothing_is_gossiped_or_acknowledged_before_its_write() {
    let mut node = machine(1);
    node.step(now(0), Input::Tick);
    node.step(now(1), command(submission(1, AckLevel::Local)));
    for at in 2..50 {
        let text = show(&node.step(now(at), Input::Tick));
        assert_eq!(text, "", "at {at}");
    }
    check(&mut node, 50, durable(7), &expect![[""]]);
    check(
        &mut node,
        51,
        durable(1),
        &expect![[r#"
        reply 1: job 1 Local fresh=true
        gossip 1
        folded 1+2
        write 2: Grant 1
    "#]],
    );
    check(&mut node, 52, durable(1), &expect![[""]]);
}

#[test]
fn others_batches_that_the_disk_refused_come_again() {
    let mut node = machine(1);
    node.step(now(0), Input::Tick);
    let mut author = crate::testing::Author::new(2);
    let from = author.log().node;
    let opening = author.open("finch");
    let arrival = || Input::Batch { from, batch: opening.clone() };
    check(
        &mut node,
        1,
        arrival(),
        &expect![[r#"
        write 1: Admit 
    "#]],
    );
    check(
        &mut node,
        2,
        failed(1),
        &expect![[r#"
        notice DiskRefuses("no space left on device")
        presence 2 free 2000
    "#]],
    );
    node.step(now(1_002), Input::Tick);
    node.step(now(1_003), durable(2));
    check(
        &mut node,
        1_004,
        arrival(),
        &expect![[r#"
        write 3: Admit 
    "#]],
    );
    check(&mut node, 1_005, arrival(), &expect![[""]]);
    check(
        &mut node,
        1_006,
        durable(3),
        &expect![[r#"
        folded 1+1
    "#]],
    );
}
