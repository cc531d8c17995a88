//! The Machine, input by input: exact effects for the paths that everything stands on.

mod disk;
mod exchange;
mod gateway;
mod hostile;
mod import;
mod pair;
mod relays;
mod restart;
mod resume;
mod retire;
mod snapshot;
mod spread;
mod succession;
mod twin;

use expect_test::{Expect, expect};

use super::*;
use crate::event::{Value, WorkSpec};
use crate::facts::{Outcome, Usage};
use crate::ids::{RunId, WriteId};
use crate::lattice::IntervalSet;
use crate::resources::Resources;
use crate::sync::Message;
use crate::time::Wall;

const SECRET: [u8; 32] = [7; 32];

fn now(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(1_000_000 + ms) }
}

fn recovery(seed: u8) -> Recovery {
    recovery_with(seed, 2_000)
}

/// A node that offers so much of a processor.
fn recovery_with(seed: u8, cpu_milli: u64) -> Recovery {
    let total = Resources { cpu_milli, mem_bytes: 1 << 30 };
    let identity = Identity { signer: Signer::from_seed(&[seed; 32]), secret: SECRET, boot: u64::from(seed) };
    // The election has tests of its own.
    let config = Config { gateway: false, ..Config::new("wren", total) };
    Recovery::new(config, Registry::built_in(), identity)
}

fn machine(seed: u8) -> Machine {
    recovery(seed).finish(now(0))
}

fn submission(tasks: u32, ack: AckLevel) -> Command {
    let spec = WorkSpec::new().with("command", Value::List(vec![Value::text("true")]));
    let tasks = IntervalSet::from_range(1, tasks);
    Command::Submit(Box::new(Submission { ns: "batch".into(), kind: "".into(), tasks, priority: 0, spec, ack }))
}

/// Effects as short lines.
fn show(effects: &[Effect]) -> String {
    let line = |effect: &Effect| match effect {
        Effect::Write { write, records } => {
            // Whom a node met goes along with any write.
            let told = records.iter().filter(|record| !matches!(record, Record::Note(Note::Met { .. })));
            let records: Vec<String> = told.map(show_record).collect();
            format!("write {}: {}", write.0, records.join("; "))
        }
        Effect::Gossip(batch) => format!("gossip {}", batch.header().first_seq),
        Effect::Publish(presence) => {
            format!("presence {} free {}", presence.seq, presence.free.cpu_milli)
        }
        Effect::Send { message, .. } => format!("send {}", show_message(message)),
        Effect::Serve { from, .. } => format!("serve from {from}"),
        Effect::Spawn(spawn) => format!("spawn {:?} task {} attempt {}", spawn.grant.no, spawn.task, spawn.attempt),
        Effect::Retire(past) => {
            let numbers: Vec<String> = past.iter().map(|past| past.id.no.to_string()).collect();
            format!("retire {}", numbers.join(","))
        }
        Effect::Snapshot(_) => "snapshot".into(),
        Effect::Fetch { bytes, .. } => format!("fetch {bytes} bytes"),
        Effect::Kill(run) => format!("kill {}", run.0),
        Effect::Reply { request, reply: Reply::Submitted { job, level, fresh } } => {
            format!("reply {}: job {} {level:?} fresh={fresh}", request.0, job.no)
        }
        Effect::Reply { request, reply } => format!("reply {}: {reply:?}", request.0),
        Effect::Notice(Notice::Folded(batch)) => {
            format!("folded {}+{}", batch.header().first_seq, batch.header().count)
        }
        Effect::Notice(notice) => format!("notice {notice:?}"),
    };
    effects.iter().map(|effect| line(effect) + "\n").collect()
}

fn show_message(message: &Message) -> String {
    match message {
        Message::Digest(_) => "digest".into(),
        Message::Tips(frontier) => format!("tips of {} events", frontier.events()),
        Message::TipsBack(frontier) => format!("tips back of {} events", frontier.events()),
        Message::Pull { from, or_snapshot: true, .. } => format!("pull from {from}"),
        Message::Pull { from, or_snapshot: false, .. } => format!("pull from {from} of the log alone"),
        Message::Have { len, .. } => format!("have {len}"),
        Message::Offer(offer) => format!("offer {:?} tasks {} attempt {}", offer.grant.no, offer.tasks, offer.attempt),
        Message::OfferReply { grant, accepted, .. } => format!("reply to {:?} accepted={accepted}", grant.no),
        Message::SnapshotAhead { bytes, .. } => format!("snapshot ahead of {bytes} bytes"),
        Message::Ask { free, .. } => format!("ask with {} free", free.cpu_milli),
    }
}

fn show_record(record: &Record) -> String {
    match record {
        Record::Batch(batch) => {
            let kinds: Vec<String> = batch
                .entries()
                .map(|(_, entry)| match entry {
                    crate::event::Entry::Event(event) => {
                        format!("{} {}", event.kind, event.ctx.tasks)
                    }
                    crate::event::Entry::Unread(_) => "?".into(),
                })
                .collect();
            kinds.join(", ")
        }
        Record::Note(_) => "note".into(),
        Record::CleanShutdown => "clean".into(),
    }
}

/// The write that the disk has to answer next.
fn last_write(effects: &[Effect]) -> Option<WriteId> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Write { write, .. } => Some(*write),
        Effect::Gossip(_)
        | Effect::Publish(_)
        | Effect::Send { .. }
        | Effect::Serve { .. }
        | Effect::Spawn(_)
        | Effect::Kill(_)
        | Effect::Reply { .. }
        | Effect::Retire(_)
        | Effect::Snapshot(_)
        | Effect::Fetch { .. }
        | Effect::Notice(_) => None,
    })
}

fn check(machine: &mut Machine, at: u64, input: Input, expected: &Expect) -> Vec<Effect> {
    let effects = machine.step(now(at), input);
    expected.assert_eq(&show(&effects));
    assert_eq!(super::check(machine), []);
    effects
}

fn command(command: Command) -> Input {
    Input::Command { request: RequestId(1), command }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, step by step")]
fn a_job_runs_from_submission_to_seal_on_one_node() {
    let mut node = machine(1);
    check(
        &mut node,
        0,
        Input::Tick,
        &expect![[r#"
        presence 1 free 2000
    "#]],
    );
    check(
        &mut node,
        1,
        command(submission(1, AckLevel::Remote1)),
        &expect![[r#"
        write 1: Admit , SubmitJob 1
    "#]],
    );
    check(
        &mut node,
        2,
        Input::Durable(WriteId(1)),
        &expect![[r#"
        reply 1: job 1 Local fresh=true
        gossip 1
        folded 1+2
        write 2: Grant 1
    "#]],
    );
    check(
        &mut node,
        3,
        Input::Durable(WriteId(2)),
        &expect![[r#"
        gossip 3
        folded 3+1
        spawn 1.1 task 1 attempt 1
        write 3: JobStarted 1
    "#]],
    );
    check(
        &mut node,
        4,
        Input::Durable(WriteId(3)),
        &expect![[r#"
        gossip 4
        folded 4+1
    "#]],
    );
    check(
        &mut node,
        5,
        Input::TaskEnded { run: RunId(1), outcome: Outcome::Exit(0), usage: Usage::default() },
        &expect![[r#"
        write 4: JobFinished 1
    "#]],
    );
    check(
        &mut node,
        6,
        Input::Durable(WriteId(4)),
        &expect![[r#"
        gossip 5
        folded 5+1
        write 5: Seal 1
    "#]],
    );
    check(
        &mut node,
        7,
        Input::Durable(WriteId(5)),
        &expect![[r#"
        gossip 6
        folded 6+1
    "#]],
    );
    let (_, job) = node.facts().jobs().next().unwrap();
    assert!(job.is_sealed());
    assert_eq!(node.owner().unsealed(), 0);
}

#[test]
fn a_disk_that_refused_is_tried_again_with_nothing_to_write() {
    let mut node = machine(1);
    node.step(now(0), Input::Tick);
    node.step(now(1), command(submission(1, AckLevel::Local)));
    let full = Input::WriteFailed { write: WriteId(1), reason: "no space".into() };
    node.step(now(2), full);
    assert!(node.disk_refusal().is_some());
    let due = node.next_deadline();
    assert!(due > Mono(2), "a deadline in the past would never let time pass");
    node.step(now(3), Input::Tick);
    check(
        &mut node,
        1_010,
        Input::Tick,
        &expect![[r#"
            write 2: 
        "#]],
    );
    node.step(now(1_011), Input::Durable(WriteId(2)));
    assert_eq!(node.disk_refusal(), None);
}
