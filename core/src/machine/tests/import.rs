//! Imports: what becomes of batches that a person brings, and when they are answered.

use super::*;
use crate::event::SignedBatch;
use crate::testing::{Author, signer};

fn import(batches: &[&SignedBatch]) -> Input {
    command(Command::Import(batches.iter().map(|batch| (*batch).clone()).collect()))
}

#[test]
fn an_import_is_answered_once_what_is_new_is_on_disk() {
    let (mut node, mut author) = (machine(1), Author::new(2));
    node.step(now(0), Input::Tick);
    let batches = [author.open("lark"), author.say(1, 2)];
    check(
        &mut node,
        1,
        import(&[&batches[0], &batches[1], &batches[1]]),
        &expect![[r#"
            write 1: Admit ; Cancel , Cancel 
        "#]],
    );
    check(
        &mut node,
        2,
        Input::Durable(WriteId(1)),
        &expect![[r#"
            folded 1+1
            folded 2+2
            reply 1: Imported([New, New, Known])
        "#]],
    );
    assert_eq!(node.logs().tail(&author.log()).0, Seq(3));
    check(
        &mut node,
        3,
        import(&[&batches[0]]),
        &expect![[r#"
            reply 1: Imported([Known])
        "#]],
    );
}

#[test]
fn what_lies_beyond_a_gap_or_comes_from_a_stranger_is_refused_and_not_kept() {
    let (mut node, mut author, mut stranger) = (machine(1), Author::new(2), Author::new(3));
    node.step(now(0), Input::Tick);
    let [_first, second] = [author.open("lark"), author.say(1, 2)];
    let forged = stranger.append(vec![crate::namespace::sys::admit(
        crate::testing::hlc(1),
        crate::event::membership_mac(&[9; 32], &signer(3).node()),
        "stranger",
    )]);
    check(
        &mut node,
        1,
        import(&[&second, &forged]),
        &expect![[r#"
            reply 1: Imported([Gap { missing_from: Seq(1) }, NotAdmitted])
        "#]],
    );
    assert_eq!(node.logs().waiting(), (0, 0));
}

#[test]
fn an_import_that_the_disk_refuses_is_refused_and_may_come_again() {
    let (mut node, mut author) = (machine(1), Author::new(2));
    node.step(now(0), Input::Tick);
    let first = author.open("lark");
    node.step(now(1), import(&[&first]));
    check(
        &mut node,
        2,
        Input::WriteFailed { write: WriteId(1), reason: "no space".into() },
        &expect![[r#"
            reply 1: Error(DiskRefuses("no space"))
            notice DiskRefuses("no space")
            presence 2 free 2000
        "#]],
    );
    check(
        &mut node,
        3,
        import(&[&first]),
        &expect![[r#"
            reply 1: Error(DiskRefuses("no space"))
        "#]],
    );
    node.step(now(1_010), Input::Tick);
    node.step(now(1_011), Input::Durable(WriteId(2)));
    node.step(now(1_012), import(&[&first]));
    assert!(show(&node.step(now(1_013), Input::Durable(WriteId(3)))).contains("reply 1: Imported([New])"));
}

#[test]
fn ones_own_log_from_a_lost_disk_is_taken_in_and_never_written_again() {
    let (mut node, mut author) = (machine(1), Author::new(1));
    node.step(now(0), Input::Tick);
    let batches = [author.open("wren"), author.say(1, 1)];
    node.step(now(1), import(&[&batches[0], &batches[1]]));
    node.step(now(2), Input::Durable(WriteId(1)));
    node.step(now(3), command(submission(1, AckLevel::Local)));
    node.step(now(4), Input::Durable(WriteId(2)));
    let epochs: Vec<u64> = node.frontier().tips().map(|(log, _)| log.epoch.0).collect();
    assert_eq!(epochs, [1, 2]);
}

#[test]
fn the_jobs_of_a_node_that_was_never_met_are_left_to_it_until_it_is_forgotten() {
    let (mut node, mut author) = (machine(1), Author::new(2));
    node.step(now(0), Input::Tick);
    let id = JobId { log: author.log(), no: crate::ids::JobNo(1) };
    let submit = crate::namespace::batch::submit_job(
        crate::testing::hlc(1),
        id,
        IntervalSet::from_range(1, 1),
        0,
        crate::testing::command(),
    );
    let batches = [author.open("lark"), author.append(vec![submit])];
    node.step(now(100), import(&[&batches[0], &batches[1]]));
    node.step(now(101), Input::Durable(WriteId(1)));
    let silent = |node: &mut Machine, from: u64| -> String {
        (from..from + 15_000).step_by(250).map(|at| show(&node.step(now(at), Input::Tick))).collect()
    };
    assert!(!silent(&mut node, 250).contains("Adopt"));
    assert_eq!(node.outlook(now(15_000), &author.log().node), Outlook::NeverHeard);
    let forget = Input::Command { request: RequestId(2), command: Command::Forget(author.log().node) };
    check(
        &mut node,
        15_300,
        forget,
        &expect![[r#"
            presence 14 free 2000
            write 2: Admit , Forget 
        "#]],
    );
    node.step(now(15_301), Input::Durable(WriteId(2)));
    let text = silent(&mut node, 15_500);
    assert!(text.contains("Adopt"), "{text}");
}
