//! Two machines, driven by hand: offers, reports, acknowledgements, deaths.

use super::*;
use crate::event::SignedBatch;
use crate::testing::{grant_id, log, node};

/// An owner without a processor, and a worker; they are linked and have heard each other.
fn pair() -> (Machine, Machine) {
    let mut owner = recovery_with(1, 0).finish(now(0));
    let mut worker = machine(2);
    let introductions = [
        owner.step(now(0), Input::Tick),
        worker.step(now(0), Input::Tick),
    ];
    for (effects, hearer) in introductions.iter().zip([&mut worker, &mut owner]) {
        for effect in effects {
            if let Effect::Publish(presence) = effect {
                hearer.step(now(0), Input::Presence(presence.clone()));
            }
        }
    }
    owner.step(now(0), Input::LinkUp(node(2)));
    worker.step(now(0), Input::LinkUp(node(1)));
    (owner, worker)
}

/// The batches that were gossiped.
fn gossiped(effects: &[Effect]) -> Vec<SignedBatch> {
    let batch = |effect: &Effect| match effect {
        Effect::Gossip(batch) => Some(batch.clone()),
        _ => None,
    };
    effects.iter().filter_map(batch).collect()
}

fn sent(effects: &[Effect]) -> Vec<Message> {
    let message = |effect: &Effect| match effect {
        Effect::Send { message, .. } => Some(message.clone()),
        _ => None,
    };
    effects.iter().filter_map(message).collect()
}

/// The only batch that was gossiped, as the other node receives it.
fn heard(from: u8, effects: &[Effect]) -> Input {
    Input::Batch {
        from: node(from),
        batch: gossiped(effects).pop().unwrap(),
    }
}

/// The last message, as the other node receives it.
fn told(from: u8, effects: &[Effect]) -> Input {
    Input::Message {
        from: node(from),
        message: sent(effects).pop().unwrap(),
    }
}

fn durable(write: u64) -> Input {
    Input::Durable(WriteId(write))
}

#[test]
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
    let submitted = check(&mut owner, 2, durable(1), &expect![[r#"
        gossip 1
        folded 1+2
        write 2: Grant 1
    "#]]);
    // The submission reaches the worker's disk, which the owner hears of.
    check(&mut worker, 3, heard(1, &submitted), &expect![[r#"
        write 1: Admit , SubmitJob 1
    "#]]);
    let have = check(&mut worker, 4, durable(1), &expect![[r#"
        folded 1+2
        send have 2
    "#]]);
    check(&mut owner, 5, told(2, &have), &expect![[r#"
        reply 1: job 1 Remote1 fresh=true
    "#]]);
    // The grant is durable, so it may be offered; the acceptance is durable, so it may start.
    let offer = check(&mut owner, 6, durable(2), &expect![[r#"
        gossip 3
        folded 3+1
        send offer 1.1 tasks 1 attempt 1
    "#]]);
    check(&mut worker, 7, told(1, &offer), &expect![[r#"
        write 2: note
    "#]]);
    let accepted = check(&mut worker, 8, durable(2), &expect![[r#"
        send reply to 1.1 accepted=true
        spawn 1.1 task 1 attempt 1
        write 3: Admit , JobStarted 1
    "#]]);
    check(&mut owner, 9, told(2, &accepted), &expect![[""]]);
    let started = check(&mut worker, 10, durable(3), &expect![[r#"
        gossip 1
        folded 1+2
    "#]]);
    check(&mut owner, 11, heard(2, &started), &expect![[r#"
        write 3: Admit , JobStarted 1
    "#]]);
    check(&mut owner, 12, durable(3), &expect![[r#"
        folded 1+2
        send have 2
    "#]]);
    check(
        &mut worker,
        13,
        Input::TaskEnded {
            run: RunId(1),
            outcome: Outcome::Exit(3),
        },
        &expect![[r#"
            write 4: JobFinished 1
        "#]],
    );
    let ended = check(&mut worker, 14, durable(4), &expect![[r#"
        gossip 3
        folded 3+1
    "#]]);
    check(&mut owner, 15, heard(2, &ended), &expect![[r#"
        write 4: JobFinished 1
    "#]]);
    check(&mut owner, 16, durable(4), &expect![[r#"
        folded 3+1
        send have 3
        write 5: Seal 1
    "#]]);
    check(&mut owner, 17, durable(5), &expect![[r#"
        gossip 4
        folded 4+1
    "#]]);
    let (_, job) = owner.facts().jobs().next().unwrap();
    assert_eq!(job.outcome(1), Some(Outcome::Exit(3)));
    assert_eq!(job.grants.len(), 1, "one start");
}

#[test]
fn an_acknowledgement_at_remote1_waits_for_another_nodes_disk() {
    let (mut owner, _) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Remote1)));
    check(&mut owner, 2, durable(1), &expect![[r#"
        gossip 1
        folded 1+2
        write 2: Grant 1
    "#]]);
    let have = |of: u8, len: u64| Input::Message {
        from: node(2),
        message: Message::Have {
            log: log(of),
            len: Seq(len),
        },
    };
    // Too little, and another log.
    check(&mut owner, 3, have(1, 1), &expect![[""]]);
    check(&mut owner, 4, have(2, 9), &expect![[""]]);
    check(&mut owner, 5, have(1, 2), &expect![[r#"
        reply 1: job 1 Remote1 fresh=true
    "#]]);
    check(&mut owner, 6, have(1, 2), &expect![[""]]);
}

#[test]
fn an_acknowledgement_nobody_confirms_falls_back_to_local_after_two_seconds() {
    let (mut owner, _) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Remote1)));
    owner.step(now(2), durable(1));
    let replies = |effects: Vec<Effect>| -> String {
        let lines = show(&effects);
        lines
            .lines()
            .filter(|line| line.starts_with("reply"))
            .collect()
    };
    assert_eq!(replies(owner.step(now(2_000), Input::Tick)), "");
    assert_eq!(
        replies(owner.step(now(2_001), Input::Tick)),
        "reply 1: job 1 Local fresh=true"
    );
    assert_eq!(replies(owner.step(now(5_000), Input::Tick)), "");
}

#[test]
fn an_acknowledgement_falls_back_to_local_when_the_last_link_goes() {
    let (mut owner, _) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Remote1)));
    owner.step(now(2), durable(1));
    check(&mut owner, 3, Input::LinkDown(node(2)), &expect![[r#"
        reply 1: job 1 Local fresh=true
    "#]]);
}

#[test]
fn a_submission_that_asks_for_local_is_not_held_up_by_others() {
    let (mut owner, _) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Local)));
    check(&mut owner, 2, durable(1), &expect![[r#"
        reply 1: job 1 Local fresh=true
        gossip 1
        folded 1+2
        write 2: Grant 1
    "#]]);
}

#[test]
fn an_offer_ahead_of_its_submission_waits_for_it() {
    let (mut owner, mut worker) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Local)));
    let submitted = owner.step(now(2), durable(1));
    let offer = owner.step(now(3), durable(2));
    check(&mut worker, 4, told(1, &offer), &expect![[r#"
        send pull from 1
    "#]]);
    check(&mut worker, 5, heard(1, &submitted), &expect![[r#"
        write 1: Admit , SubmitJob 1
    "#]]);
    check(&mut worker, 6, durable(1), &expect![[r#"
        folded 1+2
        send have 2
        write 2: note
    "#]]);
    check(&mut worker, 7, durable(2), &expect![[r#"
        send reply to 1.1 accepted=true
        spawn 1.1 task 1 attempt 1
        write 3: Admit , JobStarted 1
    "#]]);
}

#[test]
fn an_offer_said_twice_is_accepted_once() {
    let (mut owner, mut worker) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Local)));
    let submitted = owner.step(now(2), durable(1));
    let offer = owner.step(now(3), durable(2));
    worker.step(now(4), heard(1, &submitted));
    worker.step(now(5), durable(1));
    check(&mut worker, 6, told(1, &offer), &expect![[r#"
        write 2: note
    "#]]);
    check(&mut worker, 7, told(1, &offer), &expect![[""]]);
    check(&mut worker, 8, durable(2), &expect![[r#"
        send reply to 1.1 accepted=true
        spawn 1.1 task 1 attempt 1
        write 3: Admit , JobStarted 1
    "#]]);
    check(&mut worker, 9, told(1, &offer), &expect![[r#"
        send reply to 1.1 accepted=true
    "#]]);
}

#[test]
fn a_refused_offer_is_withdrawn_and_granted_again_with_the_same_attempt() {
    let (mut owner, mut worker) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Local)));
    let submitted = owner.step(now(2), durable(1));
    let offer = owner.step(now(3), durable(2));
    worker.step(now(4), heard(1, &submitted));
    worker.step(now(5), durable(1));
    check(&mut worker, 6, Input::Shutdown, &expect![[r#"
        write 2: clean
    "#]]);
    let refused = check(&mut worker, 7, told(1, &offer), &expect![[r#"
        send reply to 1.1 accepted=false
    "#]]);
    check(&mut owner, 8, told(2, &refused), &expect![[r#"
        write 3: Void , Grant 1
    "#]]);
    // Whoever answers for a grant that was given to another changes nothing.
    let forged = Message::OfferReply {
        grant: grant_id(crate::testing::job_id(1, 1), 2),
        accepted: false,
        free: Resources::default(),
    };
    check(
        &mut owner,
        9,
        Input::Message {
            from: node(3),
            message: forged,
        },
        &expect![[""]],
    );
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
    "#]].assert_eq(&lines);
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
    check(&mut worker, 7, durable(2), &expect![[r#"
        send reply to 1.1 accepted=true
        spawn 1.1 task 1 attempt 1
        write 3: Admit , JobStarted 1
    "#]]);
    worker.step(now(8), durable(3));
    let cancel = command(Command::Cancel(crate::testing::job_id(1, 1)));
    check(&mut worker, 9, cancel, &expect![[r#"
        reply 1: Cancelled
        write 4: Cancel 
    "#]]);
    check(&mut worker, 10, durable(4), &expect![[r#"
        kill 1
        gossip 3
        folded 3+1
    "#]]);
    check(
        &mut worker,
        11,
        Input::TaskEnded {
            run: RunId(1),
            outcome: Outcome::Signal(15),
        },
        &expect![[r#"
            write 5: JobFinished 1
        "#]],
    );
    let ended = check(&mut worker, 12, durable(5), &expect![[r#"
        gossip 4
        folded 4+1
    "#]]);
    let text = format!("{:?}", gossiped(&ended)[0].entries().collect::<Vec<_>>());
    assert!(text.contains("cancelled"), "{text}");
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
        Input::Batch {
            from,
            batch: second.clone(),
        },
        &expect![[r#"
            send pull from 1
        "#]],
    );
    check(
        &mut worker,
        2,
        Input::Pulled {
            from,
            log: log(1),
            batches: vec![first, second],
            more: false,
        },
        &expect![[r#"
            send digest
            write 1: Admit ; Cancel 
        "#]],
    );
    check(&mut worker, 3, durable(1), &expect![[r#"
        folded 1+1
        folded 2+1
        send have 2
    "#]]);
}

#[test]
fn frontiers_are_compared_and_what_each_lacks_is_pulled() {
    let (mut owner, mut worker) = pair();
    owner.step(now(1), command(submission(1, AckLevel::Local)));
    owner.step(now(2), durable(1));
    let message = |from: u8, message: Message| Input::Message {
        from: node(from),
        message,
    };
    let digest = owner.frontier().digest();
    let tips = check(
        &mut worker,
        3,
        message(1, Message::Digest(digest)),
        &expect![[r#"
            send tips of 0 events
        "#]],
    );
    let back = check(&mut owner, 4, told(2, &tips), &expect![[r#"
        send tips back of 2 events
    "#]]);
    let pull = check(&mut worker, 5, told(1, &back), &expect![[r#"
        send pull from 1
    "#]]);
    check(&mut owner, 6, told(2, &pull), &expect![[r#"
        serve from 1
    "#]]);
    check(
        &mut owner,
        7,
        message(2, Message::Digest(digest)),
        &expect![[""]],
    );
}
