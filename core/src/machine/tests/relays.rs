//! Jobs that relays run: declared, placed where a relay is, reported in the namespace's words, and lost with the relay.

use super::*;
use crate::namespace::Speaker;
use crate::namespace::declared::tests::health_check;
use crate::schedule::RelaySlots;
use crate::testing::{Author, hlc, node};

/// One node, every write on disk at once.
struct Host {
    machine: Machine,
}

impl Host {
    fn step(&mut self, at: u64, input: Input) -> String {
        let mut text = String::new();
        let mut effects = self.machine.step(now(at), input);
        loop {
            text += &show(&effects);
            let mut asked = None;
            for effect in &effects {
                if let Effect::Write { write, .. } = effect {
                    asked = Some(*write);
                }
            }
            let Some(write) = asked else {
                return text;
            };
            effects = self.machine.step(now(at), Input::Durable(write));
        }
    }

    /// A node that knows the namespace, with a relay for two tasks at once.
    fn with_relay() -> Self {
        let mut host = Self { machine: machine(1) };
        host.step(1, Input::Tick);
        host.step(1, command(Command::Declare(Box::new(health_check()))));
        host.step(2, relays(2));
        host
    }
}

fn relays(slots: u32) -> Input {
    let served = RelaySlots { ns: "health_check".into(), slots };
    Input::Relays(if slots == 0 { Vec::new() } else { vec![served] })
}

fn checks(tasks: u32) -> Input {
    let spec = WorkSpec::new().with("url", Value::text("http://127.0.0.1/"));
    command(Command::Submit(Box::new(Submission {
        ns: "health_check".into(),
        kind: "".into(),
        tasks: IntervalSet::from_range(1, tasks),
        priority: 0,
        spec,
        ack: AckLevel::Local,
    })))
}

fn report(run: u64, kind: &str) -> Input {
    let spec = WorkSpec::new().with("latency_ms", Value::Int(5));
    command(Command::Report { run: RunId(run), kind: kind.into(), spec })
}

fn spawned(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("spawn")).count()
}

#[test]
fn a_relay_is_given_as_many_tasks_as_it_takes_and_its_words_seal_them() {
    let mut host = Host::with_relay();
    let begun = host.step(3, checks(5));
    assert_eq!(spawned(&begun), 2, "{begun}");
    let mut text = host.step(4, report(1, "CheckPassed"));
    assert!(text.contains("CheckPassed 1") && text.contains("reply 1: Noted"), "{text}");
    assert_eq!(spawned(&text), 1, "{text}");
    for run in 2..=5 {
        text += &host.step(4 + run, report(run, "CheckPassed"));
    }
    text += &host.step(40, Input::Tick);
    assert_eq!(spawned(&(begun + &text)), 5);
    let (id, job) = host.machine.facts().jobs().next().unwrap();
    assert!(job.is_sealed(), "{text}");
    assert_eq!(job.outcome(3), Some(Outcome::Exit(0)));
    assert_eq!(id.no.0, 1);
}

#[test]
fn a_relays_hands_stay_full_while_there_is_work() {
    let mut host = Host::with_relay();
    host.step(2, relays(8));
    host.step(3, checks(100));
    assert_eq!(host.machine.executor().running(), 8);
    for run in 1..=92 {
        host.step(3 + run, report(run, "CheckPassed"));
        assert_eq!(host.machine.executor().running(), 8, "after {run} ends");
    }
}

#[test]
fn a_second_report_of_an_end_changes_nothing() {
    let mut host = Host::with_relay();
    host.step(3, checks(1));
    host.step(4, report(1, "CheckPassed"));
    let facts = host.machine.facts().to_bytes();
    assert!(host.step(5, report(1, "CheckFailed")).contains("NotHeld"));
    assert!(host.step(5, report(77, "CheckPassed")).contains("NotHeld"));
    assert_eq!(host.machine.facts().to_bytes(), facts);
}

#[test]
fn reports_are_checked_against_the_rules() {
    let mut host = Host::with_relay();
    host.step(3, checks(1));
    let text = host.step(4, report(1, "CheckMaybe"));
    assert!(text.contains("Unknown"), "{text}");
    let empty = Command::Report { run: RunId(1), kind: "CheckPassed".into(), spec: WorkSpec::new() };
    let text = host.step(4, command(empty));
    assert!(text.contains("latency_ms"), "{text}");
}

#[test]
fn without_a_relay_nothing_is_placed_and_what_waits_for_one_that_leaves_is_granted_again() {
    let mut host = Host { machine: machine(1) };
    host.step(1, Input::Tick);
    host.step(1, command(Command::Declare(Box::new(health_check()))));
    let text = host.step(2, checks(4));
    assert!(!text.contains("Grant"), "{text}");
    let text = host.step(3, relays(1));
    assert_eq!(spawned(&text), 1, "{text}");
    // The relay goes: one task in its hands is told lost by whoever kept its lease, one waited.
    let mut text = host.step(4, relays(0));
    let lost = Input::TaskEnded { run: RunId(1), outcome: Outcome::Lost, usage: Usage::default() };
    text += &host.step(4, lost);
    assert_eq!(spawned(&text), 0, "{text}");
    for at in 5..10 {
        text += &host.step(at * 100, relays(4));
    }
    assert_eq!(spawned(&text), 4, "{text}");
    assert!(text.contains("attempt 2"), "{text}");
}

#[test]
fn anybody_may_remark_on_a_job_only_where_a_rule_says_so() {
    let mut host = Host::with_relay();
    host.step(3, checks(1));
    let (job, _) = host.machine.facts().jobs().next().unwrap();
    let mut remark = |kind: &str, field: &str| {
        let spec = WorkSpec::new().with(field, Value::Int(4));
        host.step(5, command(Command::Remark { job, kind: kind.into(), spec }))
    };
    assert_eq!(health_check().rule("CheckNoted").unwrap().by, Speaker::Anyone);
    assert!(remark("CheckNoted", "weight").contains("reply 1: Noted"));
    assert!(remark("CheckPassed", "latency_ms").contains("NotForAnyone"));
    assert!(remark("CheckNoted", "wait").contains("Event(Schema"));
    let seen = host.machine.facts().job(&job).unwrap().remarks.as_ref().unwrap();
    assert_eq!(seen.register("weight"), Some(Value::Int(4)));
}

#[test]
fn a_changed_declaration_needs_a_new_version() {
    let mut host = Host::with_relay();
    let declare = |declaration| command(Command::Declare(Box::new(declaration)));
    assert!(host.step(3, declare(health_check())).contains("fresh: false"));
    let changed = crate::namespace::Declaration {
        phases: ["noted", "checking", "failed", "passed"].map(Into::into).to_vec(),
        ..health_check()
    };
    assert!(host.step(3, declare(changed.clone())).contains("VersionTaken"));
    assert!(host.step(3, declare(crate::namespace::Declaration { version: 2, ..changed })).contains("fresh: true"));
}

/// Simulator seed 20485: the author had forked, and another submission of the job's id came to count, of another namespace: what the relay said of its task was
/// refused, and the task held its place for ever.
#[test]
fn a_relay_speaks_in_the_words_of_the_job_that_it_was_given() {
    let mut host = Host::with_relay();
    host.step(3, checks(1));
    let (id, _) = host.machine.facts().jobs().next().unwrap();
    let mut clone = Author::new(1);
    let earlier = crate::namespace::batch::submit_job(hlc(0), id, IntervalSet::one(1), 0, crate::testing::command());
    let batch = clone.append(vec![clone.admit("wren"), earlier]);
    host.step(4, Input::Batch { from: node(2), batch });
    let submit = host.machine.facts().job(&id).unwrap().submit.as_ref().unwrap();
    assert_eq!(submit.ns, "batch", "the other branch was written first, so its submission counts");
    let text = host.step(5, report(1, "CheckPassed"));
    assert!(text.contains("CheckPassed 1") && text.contains("reply 1: Noted"), "{text}");
    assert_eq!(host.machine.executor().running(), 0);
}
