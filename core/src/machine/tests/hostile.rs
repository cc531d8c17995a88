//! Hostile members: whatever they say is used or dropped, never a panic, and never more than a bound.

use proptest::prelude::*;

use super::*;
use crate::ids::{Attempt, GrantNo, Hash, JobNo, Term};
use crate::limits;
use crate::log::Tip;
use crate::namespace::Voice;
use crate::testing::{Author, grant_id, hlc, job_id, log, node};

/// A node with one job of its own under way, linked to node 2.
fn victim() -> Machine {
    let mut machine = machine(1);
    machine.step(now(0), Input::Tick);
    machine.step(now(0), Input::LinkUp(node(2)));
    machine.step(now(1), command(submission(3, AckLevel::Remote1)));
    machine.step(now(2), Input::Durable(WriteId(1)));
    machine
}

fn from_2(message: Message) -> Input {
    Input::Message { from: node(2), message }
}

fn offer(job: JobId, tasks: IntervalSet) -> Message {
    Message::Offer(Offer { grant: grant_id(job, 1), attempt: Attempt(1), tasks, pool: None })
}

#[test]
fn an_offer_by_another_than_the_jobs_owner_is_dropped() {
    let mut machine = victim();
    let forged = offer(job_id(3, 1), IntervalSet::one(1));
    check(&mut machine, 3, from_2(forged), &expect![[""]]);
    let own = offer(job_id(1, 1), IntervalSet::one(1));
    check(&mut machine, 4, from_2(own), &expect![[""]]);
}

#[test]
fn offers_of_jobs_that_never_arrive_are_bounded() {
    let mut machine = victim();
    for no in 0..2 * limits::PARKED_OFFERS_MAX as u64 {
        let message = offer(job_id(2, no), IntervalSet::one(1));
        machine.step(now(3), from_2(message));
        assert_eq!(super::super::check(&machine), []);
    }
}

#[test]
fn a_confirmation_beyond_the_log_confirms_only_what_there_is() {
    let mut machine = victim();
    let have = Message::Have { log: log(1), len: Seq(u64::MAX) };
    check(
        &mut machine,
        3,
        from_2(have),
        &expect![[r#"
        reply 1: job 1 Remote1 fresh=true
    "#]],
    );
}

#[test]
fn a_frontier_of_wonders_asks_for_a_bounded_number_of_pulls() {
    let mut machine = victim();
    let mut wonders = Frontier::default();
    for epoch in 0..1_000 {
        let log = LogId { node: node(9), epoch: Epoch(epoch) };
        let tip = Tip { len: Seq(u64::MAX), head: 0 };
        wonders.set(log, tip);
    }
    let effects = machine.step(now(3), from_2(Message::Tips(wonders)));
    let pulls = show(&effects);
    assert_eq!(pulls.lines().filter(|line| line.starts_with("send pull")).count(), limits::PULLS_MAX);
}

#[test]
fn a_stranger_without_the_secret_gets_nothing_into_the_log() {
    let mut machine = victim();
    let mut stranger = Author::new(3);
    let batch = stranger.append(vec![crate::namespace::sys::admit(hlc(1), Hash([1; 32]), "x")]);
    let before = machine.frontier().clone();
    let from = node(2);
    check(&mut machine, 3, Input::Batch { from, batch }, &expect![[""]]);
    assert_eq!(*machine.frontier(), before);
    assert_eq!(machine.facts().node(&node(3)), None);
}

#[test]
fn batches_of_another_log_in_an_answer_are_left_out() {
    let mut machine = victim();
    let opening = Author::new(3).open("finch");
    check(
        &mut machine,
        3,
        Input::Pulled { from: node(2), log: log(4), batches: vec![opening], more: true },
        &expect![[""]],
    );
    assert_eq!(machine.logs().tail(&log(3)).0, Seq(0));
}

#[test]
fn ends_of_runs_that_never_were_say_nothing() {
    let mut machine = victim();
    check(
        &mut machine,
        3,
        Input::TaskEnded { run: RunId(u64::MAX), outcome: Outcome::Exit(0), usage: Usage::default() },
        &expect![[""]],
    );
}

#[test]
fn commands_that_make_no_sense_are_refused_with_a_reason() {
    let mut machine = victim();
    let mut refused = |command_: Command| show(&machine.step(now(3), command(command_)));
    let with = |change: fn(&mut Submission)| match submission(1, AckLevel::Local) {
        Command::Submit(mut submission) => {
            change(&mut submission);
            Command::Submit(submission)
        }
        Command::Cancel(_)
        | Command::Declare(_)
        | Command::AddToken { .. }
        | Command::RevokeToken(_)
        | Command::Forget(_)
        | Command::Drain { .. }
        | Command::Report { .. }
        | Command::Import(_)
        | Command::Remark { .. } => panic!("a submission was made"),
    };
    let texts = [
        refused(with(|it| it.ns = "weather".into())),
        refused(with(|it| it.ns = "monitor".into())),
        refused(with(|it| it.spec = WorkSpec::new())),
        refused(with(|it| it.tasks = IntervalSet::new())),
        refused(with(|it| it.tasks = IntervalSet::from_range(0, u32::MAX))),
        refused(with(|it| {
            let words = vec![Value::text("x".repeat(20)); 1_000];
            it.spec = WorkSpec::new().with("command", Value::List(words));
        })),
        refused(Command::Cancel(job_id(9, 1))),
    ];
    expect![[r#"
        reply 1: Error(UnknownNamespace("weather", "batch, monitor, simulation, sys"))
        reply 1: Error(NoJobs("monitor"))
        reply 1: Error(Schema(SchemaError { field: "command", expected: "list of 1 to 1024 texts", found: "nothing" }))
        reply 1: Error(Tasks(0))
        reply 1: Error(Tasks(4294967296))
        reply 1: Error(TooLarge(21080))
        reply 1: Error(UnknownJob)
    "#]]
    .assert_eq(&texts.concat());
}

fn any_job() -> impl Strategy<Value = JobId> {
    (1_u8..4, prop_oneof![0_u64..3, Just(u64::MAX)]).prop_map(|(seed, no)| JobId { log: log(seed), no: JobNo(no) })
}

fn any_message() -> impl Strategy<Value = Message> {
    let extreme = || prop_oneof![0_u64..4, Just(u64::MAX)];
    let room = (extreme(), extreme()).prop_map(|(cpu_milli, mem_bytes)| Resources { cpu_milli, mem_bytes });
    let grant = (
        any_job(),
        prop_oneof![0_u32..3, Just(u32::MAX)],
        prop_oneof![0_u64..3, Just(Term::FIRST.adopted_by(&node(2)).0)],
    )
        .prop_map(|(job, no, term)| GrantId { job, no: GrantNo { term: Term(term), no } });
    let set = prop_oneof![
        Just(IntervalSet::new()),
        Just(IntervalSet::from_range(0, u32::MAX)),
        (0_u32..4).prop_map(IntervalSet::one),
    ];
    let which = (0_u8..7, 1_u8..4, grant, set, room, (extreme(), any::<bool>()));
    which.prop_map(|(kind, seed, grant, tasks, room, (number, flag))| {
        let mut frontier = Frontier::default();
        let tip = Tip { len: Seq(number), head: number };
        frontier.set(log(seed), tip);
        match kind {
            0 => Message::Digest(number),
            1 => Message::Tips(frontier),
            2 => Message::TipsBack(frontier),
            3 => Message::Pull {
                log: log(seed),
                from: Seq(number),
                or_snapshot: flag,
                joined: flag.then_some(Hash([seed; 32])),
            },
            4 => Message::Have { log: log(seed), len: Seq(number) },
            5 => Message::Offer(Offer { grant, attempt: Attempt(u16::MAX), tasks, pool: None }),
            _ if flag => Message::Ask { total: room, free: room },
            _ => Message::OfferReply { grant, accepted: number > 0, free: room },
        }
    })
}

/// An event of a member that means harm.
fn any_harm() -> impl Strategy<Value = crate::event::Event> {
    use crate::namespace::{batch, sys};
    (any_job(), 0_u8..9, prop_oneof![0_u32..3, Just(u32::MAX)]).prop_map(|(job, kind, no)| {
        let grant = grant_id(job, no);
        let all = IntervalSet::from_range(0, u32::MAX);
        let late = crate::time::Hlc { wall_ms: u64::MAX, count: u32::MAX };
        match kind {
            0 => batch::submit_job(late, job, all, i32::MAX, WorkSpec::new()),
            1 => sys::grant(late, grant, &crate::ids::Seat::machine(node(1)), Attempt(u16::MAX), all),
            2 => sys::seal(late, job, Term(u64::MAX), all, &Outcome::Exit(0)),
            3 => sys::cancel(late, job),
            6 => sys::adopt(late, job.log, Term::FIRST.adopted_by(&node(2))),
            7 => sys::forget(late, job.log.node),
            8 => sys::void(late, grant, Term(u64::MAX)),
            4 => Voice::default().finished(late, grant, all, &Outcome::Exit(0), &Usage::default()),
            _ => Voice::default().started(late, grant, all),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_words_of_a_member_break_the_machine(
        words in prop::collection::vec((any_message(), prop::option::of(any_harm())), 1..30)
    ) {
        let mut machine = victim();
        let mut member = Author::new(2);
        let mut batches = vec![member.open("finch")];
        let mut at = 3;
        for (message, harm) in words {
            batches.extend(harm.map(|event| member.append(vec![event])));
            let mut effects = machine.step(now(at), from_2(message));
            for batch in batches.drain(..) {
                effects.extend(machine.step(now(at), Input::Batch { from: node(2), batch }));
            }
            for effect in effects {
                if let Effect::Write { write, .. } = effect {
                    machine.step(now(at + 1), Input::Durable(write));
                }
            }
            prop_assert_eq!(super::super::check(&machine), []);
            at += 400;
        }
        // The job of the machine itself is still its own.
        let job = machine.facts().job(&job_id(1, 1)).unwrap();
        prop_assert!(job.submit.as_ref().is_some_and(|submit| submit.tasks.len() == 3));
        prop_assert!(job.seals.is_empty());
    }
}
