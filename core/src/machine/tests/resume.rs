//! Restarts after which the edges say what they found of the tasks: what runs on, what ended meanwhile, what never started.

use super::restart::Host;
use super::*;
use crate::machine::{Fate, Survivor};
use crate::testing::{Author, grant_id, hlc, job_id, node};

fn survivor(task: u32, fate: Fate) -> Survivor {
    Survivor { grant: grant_id(job_id(1, 1), 1), task, fate }
}

fn ended(outcome: Outcome, wall_ms: u64) -> Fate {
    Fate::Ended { outcome, usage: Usage { wall_ms, ..Usage::default() } }
}

fn limited(tasks: u32, timeout_ms: i64) -> Command {
    let Command::Submit(mut submission) = submission(tasks, AckLevel::Local) else {
        unreachable!("`submission` makes submissions")
    };
    submission.spec = submission.spec.with("timeout_ms", Value::Int(timeout_ms));
    Command::Submit(submission)
}

/// A node with two slots that runs two tasks of a job of five, and goes down.
fn down() -> Host {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(submission(5, AckLevel::Local)));
    assert_eq!(host.machine.executor().running(), 2);
    host
}

fn outcome(host: &Host, task: u32) -> Option<Outcome> {
    host.machine.facts().job(&job_id(1, 1)).unwrap().outcome(task)
}

#[test]
fn tasks_that_run_on_are_neither_lost_nor_started_again() {
    let mut host = down();
    let running = Fate::Running { ran_ms: 9 };
    host = host.restart_with(1, vec![survivor(1, running.clone()), survivor(2, running)]);
    assert_eq!(host.machine.executor().used().cpu_milli, 2_000, "reserved before anything is offered");
    let text = host.step(1, Input::Tick);
    assert!(!text.contains("spawn") && !text.contains("write"), "{text}");
    let runs: Vec<_> = host.machine.executor().run_ids().collect();
    let grant = grant_id(job_id(1, 1), 1);
    assert_eq!(runs, [(RunId(1), grant, 1), (RunId(2), grant, 2)]);
    let text = host.step(2, Input::TaskEnded { run: RunId(2), outcome: Outcome::Exit(3), usage: Usage::default() });
    assert!(text.contains("task 3 attempt 1"), "{text}");
    assert_eq!((outcome(&host, 2), outcome(&host, 1)), (Some(Outcome::Exit(3)), None));
}

/// Simulator seed 31022: a disk had lost an epoch whole. The next one was the same again, and a grant of it got the number of one whose tasks still ran.
#[test]
fn no_grant_gets_the_number_of_one_that_only_a_survivor_tells_of() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(submission(1, AckLevel::Local)));
    let lost = grant_id(job_id(1, 1), (1 << 16) + 3);
    let found = Survivor { grant: lost, task: 1, fate: ended(Outcome::Exit(0), 5) };
    host = host.restart_with(1, vec![survivor(1, ended(Outcome::Exit(0), 5)), found]);
    host.step(1, Input::Tick);
    let text = host.step(2, command(submission(1, AckLevel::Local)));
    let (_, job) = host.machine.facts().jobs().find(|(id, _)| id.log.epoch.0 == 2).expect(&text);
    let numbers: Vec<u32> = job.grants.iter().map(|(no, _)| no.no).collect();
    assert_eq!(numbers, [lost.no.no + 1]);
}

#[test]
fn an_end_that_nobody_heard_is_told_and_what_never_started_starts() {
    let mut host = down();
    host =
        host.restart_with(1, vec![survivor(1, ended(Outcome::Exit(7), 5)), survivor(2, Fate::Running { ran_ms: 1 })]);
    let text = host.step(1, Input::Tick);
    assert!(text.contains("task 3 attempt 1") && !text.contains("task 4"), "{text}");
    assert_eq!(outcome(&host, 1), Some(Outcome::Exit(7)));
    let told = host.machine.told(&grant_id(job_id(1, 1), 1), &IntervalSet::from_range(1, 5));
    assert_eq!(told, IntervalSet::one(1), "the books may forget it, and no other");
    // Told once, whatever the books say again.
    host = host.restart_with(1, vec![survivor(1, ended(Outcome::Exit(8), 5))]);
    host.step(1, Input::Tick);
    assert_eq!(outcome(&host, 1), Some(Outcome::Exit(7)));
}

#[test]
fn what_started_and_left_nothing_is_lost_and_runs_again() {
    let mut host = down();
    host = host.restart_with(1, vec![survivor(1, Fate::Gone), survivor(2, Fate::Running { ran_ms: 1 })]);
    let text = host.step(1, Input::Tick);
    assert!(text.contains("task 3 attempt 1"), "{text}");
    let job = host.machine.facts().job(&job_id(1, 1)).unwrap();
    let run = job.grants.values().next().and_then(|grant| grant.run()).unwrap();
    assert_eq!(run.ended.lookup(&Outcome::Lost), Some(&IntervalSet::one(1)));
}

#[test]
fn a_time_limit_counts_from_the_first_start() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(limited(2, 100)));
    let fates = vec![survivor(1, Fate::Running { ran_ms: 40 }), survivor(2, ended(Outcome::Signal(15), 130))];
    host = host.restart_with(1, fates);
    let text = host.step(59, Input::Tick);
    assert!(!text.contains("kill"), "{text}");
    assert_eq!(outcome(&host, 2), Some(Outcome::TimedOut), "it was being stopped when the node went down");
    assert!(host.step(60, Input::Tick).contains("kill 1"));
}

#[test]
fn what_ran_beyond_its_limit_meanwhile_is_stopped_at_once() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(limited(1, 100)));
    host = host.restart_with(1, vec![survivor(1, Fate::Running { ran_ms: 5_000 })]);
    assert!(host.step(0, Input::Tick).contains("kill 1"));
    host.step(1, Input::TaskEnded { run: RunId(1), outcome: Outcome::Signal(15), usage: Usage::default() });
    assert_eq!(outcome(&host, 1), Some(Outcome::TimedOut));
}

#[test]
fn a_job_cancelled_before_the_restart_is_killed_and_its_queue_dropped() {
    let mut host = down();
    host.step(2, command(Command::Cancel(job_id(1, 1))));
    let fates = vec![survivor(1, Fate::Running { ran_ms: 1 }), survivor(2, ended(Outcome::Signal(15), 1))];
    host = host.restart_with(1, fates);
    let text = host.step(1, Input::Tick);
    assert!(text.contains("kill 1") && !text.contains("spawn"), "{text}");
    host.step(2, Input::TaskEnded { run: RunId(1), outcome: Outcome::Signal(15), usage: Usage::default() });
    let all = (1..=5).map(|task| outcome(&host, task));
    assert!(all.into_iter().all(|outcome| outcome == Some(Outcome::Cancelled)));
}

#[test]
fn a_cancel_that_arrives_after_the_restart_kills_what_was_resumed() {
    let mut host = down();
    host =
        host.restart_with(1, vec![survivor(1, Fate::Running { ran_ms: 1 }), survivor(2, Fate::Running { ran_ms: 1 })]);
    host.step(1, Input::Tick);
    let text = host.step(2, command(Command::Cancel(job_id(1, 1))));
    assert!(text.contains("kill 1") && text.contains("kill 2"), "{text}");
}

/// A node that has heard another's job of three tasks, and the offer of all of them.
fn heard() -> (Host, Offer) {
    let mut owner = Author::new(2);
    let job = job_id(2, 1);
    let spec = crate::testing::command();
    let submit = crate::namespace::batch::submit_job(hlc(1), job, IntervalSet::from_range(1, 3), 0, spec);
    let opening = owner.append(vec![owner.admit("finch"), submit]);
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, Input::LinkUp(node(2)));
    host.step(1, Input::Batch { from: node(2), batch: opening });
    let (grant, tasks) = (grant_id(job, 1), IntervalSet::from_range(1, 3));
    (host, Offer { grant, attempt: crate::ids::Attempt(4), tasks, pool: None })
}

fn offered(offer: &Offer) -> Input {
    Input::Message { from: node(2), message: Message::Offer(offer.clone()) }
}

#[test]
fn another_owners_grant_goes_on_under_its_attempt() {
    let (mut host, offer) = heard();
    assert!(host.step(2, offered(&offer)).contains("task 1 attempt 4"));
    let fates = vec![Survivor { grant: offer.grant, task: 1, fate: ended(Outcome::Exit(0), 3) }];
    host = host.restart_with(1, fates);
    host.step(1, Input::LinkUp(node(2)));
    let text = host.step(2, offered(&offer));
    assert!(text.contains("accepted=true"), "it is held: {text}");
    assert_eq!(host.machine.executor().running(), 2, "the note says which attempt the others are on");
}

/// Simulator seed 18202: the disk had lost the grant, and a task that had ended was all that was left of it. The node took that for the whole grant, and called it
/// accepted and over when the owner asked for the rest.
#[test]
fn of_a_grant_that_only_its_ends_tell_of_the_rest_is_lost() {
    let (mut host, offer) = heard();
    host = host.restart_with(1, vec![Survivor { grant: offer.grant, task: 1, fate: ended(Outcome::Exit(0), 3) }]);
    // The end is not in the log yet: as long as it is not, this node cannot say what is lost.
    let effects = host.machine.step(now(1), offered(&offer));
    assert!(!show(&effects).contains("accepted"), "{}", show(&effects));
    host.step(2, Input::Durable(last_write(&effects).unwrap()));
    host.step(2, Input::LinkUp(node(2)));
    let text = host.step(3, offered(&offer));
    assert!(text.contains("accepted=true") && !text.contains("spawn"), "{text}");
    let job = host.machine.facts().job(&offer.grant.job).unwrap();
    let run = job.grants.lookup(&offer.grant.no).and_then(|grant| grant.run_by(&node(1))).unwrap();
    assert_eq!(run.ended.lookup(&Outcome::Exit(0)), Some(&IntervalSet::one(1)));
    assert_eq!(run.ended.lookup(&Outcome::Lost), Some(&IntervalSet::from_range(2, 3)));
}

/// Simulator seed 30453: a node's disk had lost its grant to itself, the owner that had adopted the job offered it the same, and it was accepted without a note, as if
/// the node's own log had the grant.
#[test]
fn a_grant_to_oneself_that_the_log_has_lost_is_accepted_by_a_note() {
    let (mut before, mut heir) = (Author::new(1), Author::new(2));
    let job = job_id(1, 1);
    let submit = crate::namespace::batch::submit_job(hlc(1), job, IntervalSet::one(1), 0, crate::testing::command());
    let adopt = crate::namespace::sys::adopt(hlc(2), job.log, crate::ids::Term::FIRST.adopted_by(&node(2)));
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, Input::LinkUp(node(2)));
    host.step(1, Input::Batch { from: node(2), batch: before.append(vec![before.admit("wren"), submit]) });
    host.step(1, Input::Batch { from: node(2), batch: heir.append(vec![heir.admit("finch"), adopt]) });
    let (attempt, tasks) = (crate::ids::Attempt(3), IntervalSet::one(1));
    let offer = Offer { grant: grant_id(job, 1), attempt, tasks, pool: None };
    let effects = host.machine.step(now(2), offered(&offer));
    let text = show(&effects);
    assert!(text.contains("write") && !text.contains("accepted=") && !text.contains("spawn"), "{text}");
    let text = host.step(2, Input::Durable(last_write(&effects).unwrap()));
    assert!(text.contains("accepted=true") && text.contains("task 1 attempt 3"), "{text}");
}

#[test]
fn giving_up_hands_everything_back() {
    let mut host = down();
    let text = host.step(2, Input::GiveUp);
    assert!(text.contains("kill 1") && text.contains("kill 2"), "{text}");
    for run in [1, 2] {
        let text =
            host.step(3, Input::TaskEnded { run: RunId(run), outcome: Outcome::Signal(15), usage: Usage::default() });
        assert!(!text.contains("spawn"), "{text}");
    }
    assert!(host.machine.has_told_all());
    let job = host.machine.facts().job(&job_id(1, 1)).unwrap();
    let run = job.grants.values().next().and_then(|grant| grant.run()).unwrap();
    assert_eq!(run.ended.lookup(&Outcome::Lost), Some(&IntervalSet::from_range(1, 2)));
    assert!(host.step(4, Input::Shutdown).contains("notice Stopped"));
}
