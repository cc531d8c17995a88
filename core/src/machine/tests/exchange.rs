//! Two machines, driven by hand: offers, reports, cancels, deaths.

use super::pair::{durable, gossiped, heard, pair, told};
use super::*;
use crate::testing::{grant_id, node};

#[test]
#[expect(clippy::too_many_lines, reason = "one story, step by step")]
fn a_job_offered_to_another_node_runs_there_and_is_sealed_by_its_owner() {
    let (mut owner, mut worker) = pair();
    check(
        &mut owner,
        1,
        command(submission(1, AckLevel::Remote1)),
        &expect![[r#"
            write 1: Admit , SubmitJob 1
        "#]],
    );
    let submitted = check(
        &mut owner,
        2,
        durable(1),
        &expect![[r#"
        gossip 1
        folded 1+2
        write 2: Grant 1
    "#]],
    );
    // The submission reaches the worker's disk, which the owner hears of.
    check(
        &mut worker,
        3,
        heard(1, &submitted),
        &expect![[r#"
        write 1: Admit , SubmitJob 1
    "#]],
    );
    let have = check(
        &mut worker,
        4,
        durable(1),
        &expect![[r#"
        folded 1+2
        send have 2
    "#]],
    );
    check(
        &mut owner,
        5,
        told(2, &have),
        &expect![[r#"
        reply 1: job 1 Remote1 fresh=true
    "#]],
    );
    // The grant is durable, so it may be offered; the acceptance is durable, so it may start.
    let offer = check(
        &mut owner,
        6,
        durable(2),
        &expect![[r#"
        gossip 3
        folded 3+1
        send offer 1.1 tasks 1 attempt 1
    "#]],
    );
    check(
        &mut worker,
        7,
        told(1, &offer),
        &expect![[r#"
        write 2: note
    "#]],
    );
    let accepted = check(
        &mut worker,
        8,
        durable(2),
        &expect![[r#"
        send reply to 1.1 accepted=true
        spawn 1.1 task 1 attempt 1
        write 3: Admit , JobStarted 1
    "#]],
    );
    check(&mut owner, 9, told(2, &accepted), &expect![[""]]);
    let started = check(
        &mut worker,
        10,
        durable(3),
        &expect![[r#"
        gossip 1
        folded 1+2
    "#]],
    );
    check(
        &mut owner,
        11,
        heard(2, &started),
        &expect![[r#"
        write 3: Admit , JobStarted 1
    "#]],
    );
    check(
        &mut owner,
        12,
        durable(3),
        &expect![[r#"
            folded 1+2
        "#]],
    );
    check(
        &mut worker,
        13,
        Input::TaskEnded { run: RunId(1), outcome: Outcome::Exit(3), usage: Usage::default() },
        &expect![[r#"
            write 4: JobFinished 1
        "#]],
    );
    let ended = check(
        &mut worker,
        14,
        durable(4),
        &expect![[r#"
        gossip 3
        folded 3+1
    "#]],
    );
    check(
        &mut owner,
        15,
        heard(2, &ended),
        &expect![[r#"
        write 4: JobFinished 1
    "#]],
    );
    check(
        &mut owner,
        16,
        durable(4),
        &expect![[r#"
            folded 3+1
            write 5: Seal 1
        "#]],
    );
    check(
        &mut owner,
        17,
        durable(5),
        &expect![[r#"
        gossip 4
        folded 4+1
    "#]],
    );
    let (_, job) = owner.facts().jobs().next().unwrap();
    assert_eq!(job.outcome(1), Some(Outcome::Exit(3)));
    assert_eq!(job.grants.len(), 1, "one start");
}

#[test]
fn an_offer_ahead_of_its_submission_waits_for_it() {
    let (mut owner, mut worker) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Local)));
    let submitted = owner.step(now(2), durable(1));
    let offer = owner.step(now(3), durable(2));
    check(
        &mut worker,
        4,
        told(1, &offer),
        &expect![[r#"
        send pull from 1
    "#]],
    );
    check(
        &mut worker,
        5,
        heard(1, &submitted),
        &expect![[r#"
        write 1: Admit , SubmitJob 1
    "#]],
    );
    check(
        &mut worker,
        6,
        durable(1),
        &expect![[r#"
        folded 1+2
        send have 2
        write 2: note
    "#]],
    );
    check(
        &mut worker,
        7,
        durable(2),
        &expect![[r#"
        send reply to 1.1 accepted=true
        spawn 1.1 task 1 attempt 1
        write 3: Admit , JobStarted 1
    "#]],
    );
}

#[test]
fn an_offer_said_twice_is_accepted_once() {
    let (mut owner, mut worker) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Local)));
    let submitted = owner.step(now(2), durable(1));
    let offer = owner.step(now(3), durable(2));
    worker.step(now(4), heard(1, &submitted));
    worker.step(now(5), durable(1));
    check(
        &mut worker,
        6,
        told(1, &offer),
        &expect![[r#"
        write 2: note
    "#]],
    );
    check(&mut worker, 7, told(1, &offer), &expect![[""]]);
    check(
        &mut worker,
        8,
        durable(2),
        &expect![[r#"
        send reply to 1.1 accepted=true
        spawn 1.1 task 1 attempt 1
        write 3: Admit , JobStarted 1
    "#]],
    );
    check(
        &mut worker,
        9,
        told(1, &offer),
        &expect![[r#"
        send reply to 1.1 accepted=true
    "#]],
    );
}

#[test]
fn a_refused_offer_is_withdrawn_and_granted_again_with_the_same_attempt() {
    let (mut owner, mut worker) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Local)));
    let submitted = owner.step(now(2), durable(1));
    let offer = owner.step(now(3), durable(2));
    worker.step(now(4), heard(1, &submitted));
    worker.step(now(5), durable(1));
    check(
        &mut worker,
        6,
        Input::Shutdown,
        &expect![[r#"
        write 2: clean
    "#]],
    );
    let refused = check(
        &mut worker,
        7,
        told(1, &offer),
        &expect![[r#"
        send reply to 1.1 accepted=false
    "#]],
    );
    check(
        &mut owner,
        8,
        told(2, &refused),
        &expect![[r#"
        write 3: Void , Grant 1
    "#]],
    );
    // Whoever answers for a grant that was given to another changes nothing.
    let forged = Message::OfferReply {
        grant: grant_id(crate::testing::job_id(1, 1), 2),
        accepted: false,
        free: Resources::default(),
    };
    check(&mut owner, 9, Input::Message { from: node(3), message: forged }, &expect![[""]]);
}

#[test]
fn tasks_of_a_silent_node_are_granted_again_once_another_is_there() {
    let (mut owner, _) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Local)));
    owner.step(now(2), durable(1));
    owner.step(now(3), durable(2));
    owner.step(now(4), Input::LinkDown(node(2)));
    let mut lines = String::new();
    for at in (500..=6_500).step_by(500) {
        let effects = owner.step(now(at), Input::Tick);
        let news = show(&effects);
        let news = news.lines().filter(|line| !line.starts_with("presence"));
        news.for_each(|line| lines += &format!("{at}: {line}\n"));
    }
    expect![[r#"
        6000: notice NodeDead(NodeId(8139770e))
        6000: write 3: Void 
    "#]]
    .assert_eq(&lines);
    owner.step(now(6_501), durable(3));
    let mut third = machine(3);
    for effect in third.step(now(6_502), Input::Tick) {
        if let Effect::Publish(presence) = effect {
            owner.step(now(6_502), Input::Presence(presence));
        }
    }
    check(
        &mut owner,
        6_503,
        Input::LinkUp(node(3)),
        &expect![[r#"
        send tips of 4 events
        write 4: Grant 1
    "#]],
    );
    check(
        &mut owner,
        6_504,
        durable(4),
        &expect![[r#"
        gossip 5
        folded 5+1
        send offer 1.2 tasks 1 attempt 2
    "#]],
    );
}

#[test]
fn a_cancel_at_another_node_reaches_the_executor() {
    let (mut owner, mut worker) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Local)));
    let submitted = owner.step(now(2), durable(1));
    let offer = owner.step(now(3), durable(2));
    worker.step(now(4), heard(1, &submitted));
    worker.step(now(5), durable(1));
    worker.step(now(6), told(1, &offer));
    check(
        &mut worker,
        7,
        durable(2),
        &expect![[r#"
        send reply to 1.1 accepted=true
        spawn 1.1 task 1 attempt 1
        write 3: Admit , JobStarted 1
    "#]],
    );
    worker.step(now(8), durable(3));
    let cancel = command(Command::Cancel(crate::testing::job_id(1, 1)));
    check(
        &mut worker,
        9,
        cancel,
        &expect![[r#"
        reply 1: Cancelled
        write 4: Cancel 
    "#]],
    );
    check(
        &mut worker,
        10,
        durable(4),
        &expect![[r#"
        kill 1
        gossip 3
        folded 3+1
    "#]],
    );
    check(
        &mut worker,
        11,
        Input::TaskEnded { run: RunId(1), outcome: Outcome::Signal(15), usage: Usage::default() },
        &expect![[r#"
            write 5: JobFinished 1
        "#]],
    );
    let ended = check(
        &mut worker,
        12,
        durable(5),
        &expect![[r#"
        gossip 4
        folded 4+1
    "#]],
    );
    let text = format!("{:?}", gossiped(&ended)[0].entries().collect::<Vec<_>>());
    assert!(text.contains("cancelled"), "{text}");
}
