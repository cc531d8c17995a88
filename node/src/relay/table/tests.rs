//! The table under a made-up clock: leases, slots, kills, pokes.
//!
//! Does not: start threads or speak to a driver.

use starling_core::event::WorkSpec;
use starling_core::ids::{Attempt, Epoch, GrantId, GrantNo, JobNo, LogId, NodeId, Term};
use starling_core::machine::Assignment;
use tokio::sync::oneshot::{self, Receiver};

use super::*;
use crate::relay::{Batch, Wants};

fn job() -> JobId {
    JobId { log: LogId { node: NodeId([1; 32]), epoch: Epoch(1) }, no: JobNo(1) }
}

fn spawn(run: u64) -> Spawn {
    let assignment = Assignment { ns: "check".into(), priority: 0, spec: WorkSpec::new() };
    Spawn {
        run: RunId(run),
        grant: GrantId { job: job(), no: GrantNo { term: Term(1), no: 1 } },
        task: u32::try_from(run).unwrap(),
        attempt: Attempt(1).0,
        work: Work::Relay(Box::new(assignment)),
    }
}

fn registration(gid: &str, slots: u32) -> Registration {
    let (gid, ns) = (gid.to_owned(), "check".to_owned());
    Registration { gid, ns, slots, lease_ms: 3_000, callback: None }
}

fn callback(gid: &str) -> Registration {
    let callback = Some(Callback::parse("http://127.0.0.1:9/poke").unwrap());
    Registration { callback, ..registration(gid, 1) }
}

/// A table with one registered generator, its first poke told.
fn with(gid: &str, slots: u32) -> Table {
    let mut table = Table::new(7);
    table.register(0, registration(gid, slots), Link::Calls).unwrap();
    let served = table.settle(0).relays.unwrap();
    assert_eq!((served[0].ns.as_str(), served[0].slots), ("check", slots));
    table
}

fn ask(table: &mut Table, now: Millis, gid: &str, wants: Wants) -> Receiver<Batch> {
    let (answer, batch) = oneshot::channel();
    table.poll(now, gid, None, Poll { wants, max: 100, until: now + 10_000, answer }).unwrap();
    batch
}

fn tokens(batch: &mut Receiver<Batch>) -> Vec<String> {
    batch.try_recv().map(|batch| batch.tasks.into_iter().map(|task| task.token).collect()).unwrap_or_default()
}

fn ended(todo: &Todo) -> Vec<(u64, Outcome)> {
    todo.ended.iter().map(|(run, outcome)| (run.0, outcome.clone())).collect()
}

#[test]
fn no_more_tasks_than_slots_and_the_least_loaded_first() {
    let mut table = with("a", 2);
    table.register(0, registration("b", 2), Link::Calls).unwrap();
    (1..=5).for_each(|run| table.assign(spawn(run)));
    let (mut a, mut b) = (ask(&mut table, 1, "a", Wants::Work), ask(&mut table, 1, "b", Wants::Work));
    table.settle(1);
    assert_eq!((tokens(&mut a).len(), tokens(&mut b).len()), (2, 2));
    let mut a = ask(&mut table, 2, "a", Wants::Work);
    table.settle(2);
    assert!(tokens(&mut a).is_empty(), "both its slots are taken");
    table.over(RunId(1));
    table.settle(3);
    assert_eq!(tokens(&mut a), [token(7, RunId(5))]);
    assert_eq!(table.list(3).iter().map(|one| (one.held, one.waiting)).collect::<Vec<_>>(), [(2, 0), (2, 0)]);
}

#[test]
fn a_reported_end_frees_its_slot_and_is_reported_once() {
    let mut table = with("a", 1);
    (1..=2).for_each(|run| table.assign(spawn(run)));
    let mut first = ask(&mut table, 1, "a", Wants::Work);
    table.settle(1);
    assert_eq!(tokens(&mut first).len(), 1);
    table.holds(2, "a", RunId(1)).unwrap();
    table.ending("a", RunId(1));
    assert!(matches!(table.holds(2, "a", RunId(1)), Err(RelayError::Command(CommandError::NotHeld))));
    let mut second = ask(&mut table, 2, "a", Wants::Work);
    table.settle(2);
    assert_eq!(tokens(&mut second), [token(7, RunId(2))]);
    // The disk refused: it is the relay's again.
    table.goes_on(RunId(1));
    table.holds(3, "a", RunId(1)).unwrap();
    assert!(matches!(table.holds(3, "b", RunId(1)), Err(RelayError::Unknown(_))));
    table.register(3, registration("b", 1), Link::Calls).unwrap();
    assert!(matches!(table.holds(3, "b", RunId(1)), Err(RelayError::NotYours(_))));
}

#[test]
fn a_lease_that_runs_out_loses_what_was_held_and_what_waits_for_nobody() {
    let mut table = with("a", 1);
    (1..=2).for_each(|run| table.assign(spawn(run)));
    let mut batch = ask(&mut table, 100, "a", Wants::Work);
    table.settle(100);
    assert_eq!(tokens(&mut batch).len(), 1);
    assert!(ended(&table.settle(3_099)).is_empty());
    let todo = table.settle(3_100);
    assert_eq!(ended(&todo), [(1, Outcome::Lost), (2, Outcome::Lost)]);
    assert_eq!(todo.relays, Some(vec![]), "the driver hears of it before the tasks are granted again");
    assert!(!table.has_generators());
    table.assign(spawn(3));
    assert_eq!(ended(&table.settle(3_200)), [(3, Outcome::Lost)]);
}

#[test]
fn waiting_polls_and_open_streams_keep_the_lease() {
    let mut table = with("a", 1);
    let waiting = ask(&mut table, 0, "a", Wants::Work);
    for now in [2_900, 5_800, 8_700] {
        table.settle(now);
    }
    drop(waiting);
    assert!(table.settle(9_000).relays.is_none());
    assert_eq!(table.settle(8_700 + 3_000).relays, Some(vec![]));
    let (end, link) = link();
    table.register(20_000, registration("a", 1), link).unwrap();
    table.settle(90_000);
    assert_eq!(table.list(90_000)[0].reach, Reach::Stream);
    drop(end);
    table.settle(92_999);
    assert!(table.has_generators());
    table.settle(93_000);
    assert!(!table.has_generators());
}

#[test]
fn who_takes_over_a_name_is_told_of_its_tasks_again() {
    let mut table = with("a", 2);
    table.assign(spawn(1));
    let mut lost = ask(&mut table, 1, "a", Wants::Work);
    table.settle(1);
    assert_eq!(tokens(&mut lost).len(), 1);
    table.register(2, registration("a", 2), Link::Calls).unwrap();
    let mut again = ask(&mut table, 2, "a", Wants::Work);
    assert!(ended(&table.settle(2)).is_empty());
    assert_eq!(tokens(&mut again), [token(7, RunId(1))]);
}

#[test]
fn a_poll_whose_client_has_gone_takes_nothing() {
    let mut table = with("a", 1);
    drop(ask(&mut table, 1, "a", Wants::Both));
    let mut other = ask(&mut table, 1, "a", Wants::Both);
    table.assign(spawn(1));
    table.settle(1);
    let batch = other.try_recv().unwrap();
    assert!(batch.poked && batch.tasks.len() == 1);
}

#[test]
fn a_kill_is_told_to_the_holder_and_ends_in_time() {
    let mut table = with("a", 1);
    (1..=2).for_each(|run| table.assign(spawn(run)));
    let mut batch = ask(&mut table, 1, "a", Wants::Work);
    table.settle(1);
    assert_eq!(tokens(&mut batch).len(), 1);
    (1..=3).for_each(|run| table.kill(10, RunId(run)));
    let mut told = ask(&mut table, 11, "a", Wants::Work);
    assert_eq!(ended(&table.settle(11)), [(2, Outcome::Signal(15))], "nobody worked on it");
    assert_eq!(told.try_recv().unwrap().cancelled, [token(7, RunId(1))]);
    table.contact(5_000, "a").unwrap();
    assert_eq!(table.next_deadline().map(|at| at <= 5_010), Some(true));
    assert_eq!(ended(&table.settle(5_010)), [(1, Outcome::Signal(15))]);
}

#[test]
fn pokes_are_many_in_one_and_kept_for_who_is_away() {
    let mut table = with("a", 1);
    let names = |ns: &str| Touched::Some([ns.to_owned()].into());
    (0..3).for_each(|_| table.touched(&names("check")));
    let mut first = ask(&mut table, 1, "a", Wants::Pokes);
    table.settle(1);
    assert!(first.try_recv().unwrap().poked);
    let mut second = ask(&mut table, 2, "a", Wants::Pokes);
    table.touched(&names("other"));
    table.settle(2);
    assert!(second.try_recv().is_err());
    table.touched(&Touched::All);
    table.settle(3);
    assert!(second.try_recv().unwrap().poked);
}

#[test]
fn a_failed_callback_is_made_again_while_the_lease_lasts() {
    let mut table = Table::new(7);
    table.register(0, callback("a"), Link::Calls).unwrap();
    let calls = table.settle(0).calls;
    assert_eq!(calls.len(), 1);
    table.touched(&Touched::All);
    assert!(table.settle(1).calls.is_empty(), "one at a time");
    table.called(2, &calls[0], false);
    assert!(table.settle(201).calls.is_empty());
    assert_eq!(table.settle(202).calls.len(), 1);
    table.called(203, &calls[0], true);
    assert!(table.settle(900).calls.is_empty(), "what came meanwhile was told");
    // Told well, it is called again to renew its lease.
    assert_eq!(table.settle(203 + 1_000).calls.len(), 1);
    table.called(1_300, &calls[0], false);
    assert_eq!(table.settle(203 + 3_000).relays, Some(vec![]));
}

#[test]
fn hanging_callbacks_do_not_hold_up_others() {
    let mut table = Table::new(7);
    for number in 0..20 {
        table.register(0, callback(&format!("hang-{number:02}")), Link::Calls).unwrap();
    }
    let hanging = table.settle(0).calls;
    assert_eq!(hanging.len(), CALLS_MAX);
    table.register(1, callback("zebra"), Link::Calls).unwrap();
    assert!(table.settle(1).calls.is_empty());
    hanging.iter().for_each(|call| table.called(2_000, call, false));
    let mut next = Vec::new();
    for now in [2_000, 2_001] {
        let calls = table.settle(now).calls;
        calls.iter().for_each(|call| table.called(now, call, call.gid == "zebra"));
        next.extend(calls.into_iter().map(|call| call.gid));
    }
    assert!(next.contains(&"zebra".to_owned()), "{next:?}");
}

#[test]
fn a_task_found_in_facts_is_taken_by_asking_for_it() {
    let mut table = with("a", 1);
    table.register(0, registration("b", 2), Link::Calls).unwrap();
    table.assign(spawn(3));
    let held = table.claim(1, &job(), 3).unwrap();
    assert_eq!((held.gid.as_str(), held.token), ("b", token(7, RunId(3))), "it has the most room");
    table.holds(2, "b", RunId(3)).unwrap();
    assert_eq!(table.claim(2, &job(), 3).unwrap().gid, "b");
    assert!(matches!(table.claim(2, &job(), 4), Err(RelayError::Command(CommandError::NotHeld))));
    table.leave("b");
    assert_eq!(ended(&table.settle(2)), [(3, Outcome::Lost)]);
}

#[test]
fn the_node_takes_only_so_many_generators() {
    let mut table = Table::new(7);
    for number in 0..GENERATORS_MAX {
        table.register(0, registration(&number.to_string(), 1), Link::Calls).unwrap();
    }
    assert!(matches!(table.register(0, registration("more", 1), Link::Calls), Err(RelayError::TooMany)));
    table.register(0, registration("1", 1), Link::Calls).unwrap();
}
