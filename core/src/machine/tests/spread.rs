//! How a log spreads: acknowledgements that wait for another disk, gaps, and frontiers compared.

use super::pair::{durable, pair, told};
use super::*;
use crate::testing::{log, node};

#[test]
fn an_acknowledgement_at_remote1_waits_for_another_nodes_disk() {
    let (mut owner, _) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Remote1)));
    check(
        &mut owner,
        2,
        durable(1),
        &expect![[r#"
        gossip 1
        folded 1+2
        write 2: Grant 1
    "#]],
    );
    let have =
        |of: u8, len: u64| Input::Message { from: node(2), message: Message::Have { log: log(of), len: Seq(len) } };
    // Too little, and another log.
    check(&mut owner, 3, have(1, 1), &expect![[""]]);
    check(&mut owner, 4, have(2, 9), &expect![[""]]);
    check(
        &mut owner,
        5,
        have(1, 2),
        &expect![[r#"
        reply 1: job 1 Remote1 fresh=true
    "#]],
    );
    check(&mut owner, 6, have(1, 2), &expect![[""]]);
}

#[test]
fn an_acknowledgement_nobody_confirms_falls_back_to_local_after_two_seconds() {
    let (mut owner, _) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Remote1)));
    owner.step(now(2), durable(1));
    let replies = |effects: Vec<Effect>| -> String {
        let lines = show(&effects);
        lines.lines().filter(|line| line.starts_with("reply")).collect()
    };
    assert_eq!(replies(owner.step(now(2_000), Input::Tick)), "");
    assert_eq!(replies(owner.step(now(2_001), Input::Tick)), "reply 1: job 1 Local fresh=true");
    assert_eq!(replies(owner.step(now(5_000), Input::Tick)), "");
}

#[test]
fn an_acknowledgement_falls_back_to_local_when_the_last_link_goes() {
    let (mut owner, _) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Remote1)));
    owner.step(now(2), durable(1));
    check(
        &mut owner,
        3,
        Input::LinkDown(node(2)),
        &expect![[r#"
        reply 1: job 1 Local fresh=true
    "#]],
    );
}

#[test]
fn a_submission_that_asks_for_local_is_not_held_up_by_others() {
    let (mut owner, _) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Local)));
    check(
        &mut owner,
        2,
        durable(1),
        &expect![[r#"
        reply 1: job 1 Local fresh=true
        gossip 1
        folded 1+2
        write 2: Grant 1
    "#]],
    );
}

#[test]
fn a_gap_is_pulled_at_once_from_the_peer_that_showed_it() {
    let (_, mut worker) = pair();
    let mut author = crate::testing::Author::new(1);
    let [first, second] = [author.open("wren"), author.say(1, 1)];
    let from = node(1);
    check(
        &mut worker,
        1,
        Input::Batch { from, batch: second.clone() },
        &expect![[r#"
            send pull from 1
        "#]],
    );
    check(
        &mut worker,
        2,
        Input::Pulled { from, log: log(1), batches: vec![first, second], more: false },
        &expect![[r#"
            send digest
            write 1: Admit ; Cancel 
        "#]],
    );
    check(
        &mut worker,
        3,
        durable(1),
        &expect![[r#"
            folded 1+1
            folded 2+1
        "#]],
    );
}

#[test]
fn frontiers_are_compared_and_what_each_lacks_is_pulled() {
    let (mut owner, mut worker) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Local)));
    owner.step(now(2), durable(1));
    let message = |from: u8, message: Message| Input::Message { from: node(from), message };
    let digest = owner.frontier().digest();
    let tips = check(
        &mut worker,
        3,
        message(1, Message::Digest(digest)),
        &expect![[r#"
            send tips of 0 events
        "#]],
    );
    let back = check(
        &mut owner,
        4,
        told(2, &tips),
        &expect![[r#"
        send tips back of 2 events
    "#]],
    );
    let pull = check(
        &mut worker,
        5,
        told(1, &back),
        &expect![[r#"
        send pull from 1
    "#]],
    );
    check(
        &mut owner,
        6,
        told(2, &pull),
        &expect![[r#"
        serve from 1
    "#]],
    );
    check(&mut owner, 7, message(2, Message::Digest(digest)), &expect![[""]]);
}
