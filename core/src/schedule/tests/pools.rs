//! Workers from outside: pools in the owner's books and lanes at the executor.

use super::desk::Desk;
use crate::event::Value;
use crate::facts::{Outcome, Submit, Usage};
use crate::ids::{Attempt, PoolName, RunId, WorkerName};
use crate::lattice::IntervalSet;
use crate::resources::Resources;
use crate::schedule::{Candidate, Executor, Label, Offer, Start, Verdict, Worker};
use crate::testing::{command, grant_id, job_id, node, submit, tasks};
use crate::time::Mono;
use expect_test::expect;

const HERE: Resources = Resources { cpu_milli: 2_000, mem_bytes: 1_000 };
const ROOM: Resources = Resources { cpu_milli: 1_000, mem_bytes: 500 };

fn worker(id: &str, labels: &[&str], slots: u32) -> Worker {
    let labels = labels.iter().map(|label| Label((*label).into())).collect();
    Worker { id: WorkerName(id.into()), labels, slots, room: ROOM, attached: true }
}

fn with_workers(workers: Vec<Worker>) -> Executor {
    let mut executor = Executor::new(node(1), HERE);
    assert_eq!(executor.set_workers(workers), (Vec::new(), Vec::new()));
    executor
}

fn docker() -> PoolName {
    worker("x", &["docker"], 1).pool()
}

fn offer(no: u32, last: u32, pool: Option<PoolName>) -> Offer {
    Offer { grant: grant_id(job_id(2, u64::from(no)), 1), attempt: Attempt(1), tasks: tasks(1, last), pool }
}

fn accept(executor: &mut Executor, offer: &Offer, submit: &Submit) {
    assert_eq!(executor.consider(offer, submit), Verdict::Accept);
    assert_eq!(executor.on_durable(&offer.grant), None);
}

fn names(starts: &[Start]) -> Vec<(u32, Option<&str>)> {
    starts.iter().map(|start| (start.task, start.worker.as_ref().map(|worker| worker.0.as_str()))).collect()
}

#[test]
fn workers_that_are_alike_make_one_pool_and_the_idlest_takes_the_next_task() {
    let mut executor =
        with_workers(vec![worker("a", &["docker"], 2), worker("b", &["docker"], 2), worker("c", &["gpu=2"], 1)]);
    let pools: Vec<(u32, u32)> = executor.pools().iter().map(|pool| (pool.slots, pool.free)).collect();
    assert_eq!(pools, [(4, 4), (1, 1)]);
    accept(&mut executor, &offer(1, 5, Some(docker())), &submit(tasks(1, 5), &command()));
    let starts = executor.pump(Mono(0));
    assert_eq!(names(&starts), [(1, Some("a")), (2, Some("b")), (3, Some("a")), (4, Some("b"))]);
    assert_eq!(executor.used(), Resources::default(), "workers cost this machine nothing");
    let ended = executor.on_ended(starts[1].run, Outcome::Exit(0), Usage::default()).unwrap();
    assert_eq!(ended.tasks, IntervalSet::one(2));
    assert_eq!(names(&executor.pump(Mono(1))), [(5, Some("b"))]);
}

#[test]
fn a_machine_that_is_full_has_workers_still() {
    let mut executor = with_workers(vec![worker("a", &["docker"], 1)]);
    accept(&mut executor, &offer(1, 2, None), &submit(tasks(1, 2), &command()));
    accept(&mut executor, &offer(2, 1, Some(docker())), &submit(tasks(1, 1), &command()));
    assert_eq!(names(&executor.pump(Mono(0))), [(1, None), (2, None), (1, Some("a"))]);
}

#[test]
fn what_a_worker_had_that_is_gone_is_lost_and_one_that_is_away_keeps_it() {
    let mut executor = with_workers(vec![worker("a", &["docker"], 1)]);
    accept(&mut executor, &offer(1, 2, Some(docker())), &submit(tasks(1, 2), &command()));
    let starts = executor.pump(Mono(0));
    assert_eq!(names(&starts), [(1, Some("a"))]);
    let away = Worker { attached: false, ..worker("a", &["docker"], 1) };
    assert_eq!(executor.set_workers(vec![away]), (Vec::new(), Vec::new()));
    assert_eq!(executor.pools(), []);
    let (lost, ended) = executor.set_workers(Vec::new());
    assert_eq!(lost, [starts[0].run]);
    let said: Vec<_> = ended.iter().map(|ended| (ended.tasks.clone(), ended.outcome.clone())).collect();
    assert_eq!(said, [(IntervalSet::one(1), Outcome::Lost), (IntervalSet::one(2), Outcome::Lost)]);
    assert_eq!((executor.running(), executor.held()), (0, 0));
    assert!(executor.on_ended(RunId(1), Outcome::Exit(0), Usage::default()).is_none(), "it counts no more");
}

#[test]
fn a_pool_that_goes_while_an_acceptance_is_written_loses_its_tasks() {
    let mut executor = with_workers(vec![worker("a", &["docker"], 1)]);
    let offer = offer(1, 2, Some(docker()));
    assert_eq!(executor.consider(&offer, &submit(tasks(1, 2), &command())), Verdict::Accept);
    executor.set_workers(Vec::new());
    let lost = executor.on_durable(&offer.grant).unwrap();
    assert_eq!((lost.tasks, lost.outcome), (tasks(1, 2), Outcome::Lost));
    assert_eq!(executor.held(), 0);
}

#[test]
fn an_offer_for_a_pool_is_refused_where_there_is_none_or_none_that_is_big_enough() {
    let mut executor = with_workers(vec![worker("a", &["docker"], 1)]);
    let one = |spec| submit(tasks(1, 1), &spec);
    let elsewhere = Some(PoolName("gpu;1000m".into()));
    assert_eq!(executor.consider(&offer(1, 1, elsewhere), &one(command())), Verdict::Refuse);
    let large = command().with("memory", Value::Int(501));
    assert_eq!(executor.consider(&offer(2, 1, Some(docker())), &one(large)), Verdict::Refuse);
    accept(&mut executor, &offer(3, 1, Some(docker())), &one(command()));
    executor.pump(Mono(0));
    assert_eq!(executor.consider(&offer(4, 1, Some(docker())), &one(command())), Verdict::Refuse, "it is busy");
    assert_eq!(executor.set_workers(Vec::new()).0.len(), 1);
    assert_eq!(executor.consider(&offer(5, 1, Some(docker())), &one(command())), Verdict::Refuse);
}

#[test]
fn a_worker_that_comes_back_with_fewer_slots_is_given_no_more_until_it_has_room() {
    let mut executor = with_workers(vec![worker("a", &["docker"], 2)]);
    accept(&mut executor, &offer(1, 3, Some(docker())), &submit(tasks(1, 3), &command()));
    let starts = executor.pump(Mono(0));
    assert_eq!(starts.len(), 2);
    executor.set_workers(vec![worker("a", &["docker"], 1)]);
    executor.on_ended(starts[0].run, Outcome::Exit(0), Usage::default());
    assert_eq!(names(&executor.pump(Mono(1))), []);
    executor.on_ended(starts[1].run, Outcome::Exit(0), Usage::default());
    assert_eq!(names(&executor.pump(Mono(2))), [(3, Some("a"))]);
}

/// A desk with one node that has two slots, and a gateway with a pool of three.
fn desk() -> Desk {
    let mut desk = Desk::new(&[2]);
    let workers = vec![worker("a", &["docker", "gpu=2"], 3)];
    let pool = with_workers(workers).pools().pop().unwrap();
    desk.owner.on_pools(node(3), std::slice::from_ref(&pool));
    desk.candidates.push(Candidate::pool(node(3), &pool));
    desk
}

#[test]
fn tasks_go_to_machines_and_pools_alike() {
    let mut desk = desk();
    desk.submit(1, tasks(1, 9), &command());
    desk.place();
    let granted = std::mem::take(&mut desk.said);
    assert!(granted.contains("to node 2\n") && granted.contains("to node 3 pool docker,gpu=2;1000m;500B"), "{granted}");
}

#[test]
fn a_constraint_or_an_image_keeps_to_where_the_label_is() {
    for spec in [
        command().with("constraint", Value::List(vec![Value::text("gpu")])),
        command().with("constraint", Value::List(vec![Value::text("gpu=2"), Value::text("docker")])),
        command().with("image", Value::text("alpine")),
    ] {
        let mut desk = desk();
        desk.submit(1, tasks(1, 9), &spec);
        desk.place();
        desk.check(&expect![[r#"
            grant 1.1 tasks 1-3 attempt 1 to node 3 pool docker,gpu=2;1000m;500B
        "#]]);
    }
}

#[test]
fn what_workers_cannot_run_stays_on_machines() {
    for spec in [
        command().with("stdin", Value::Bytes(vec![1])),
        command().with("memory", Value::Int(501)),
        command().with("node", Value::text("worker-2")),
    ] {
        let mut desk = desk();
        desk.submit(1, tasks(1, 1), &spec);
        desk.place();
        let granted = std::mem::take(&mut desk.said);
        assert!(!granted.contains("pool"), "{granted}");
    }
    let mut desk = desk();
    desk.submit(1, tasks(1, 1), &command().with("constraint", Value::List(vec![Value::text("tpu")])));
    desk.place();
    desk.check(&expect![[""]]);
    assert!(desk.owner.has_waiting());
}

#[test]
fn a_dead_gateways_tasks_are_granted_again() {
    let mut desk = desk();
    desk.submit(1, tasks(1, 3), &command().with("image", Value::text("alpine")));
    desk.place();
    desk.leave(3);
    desk.place();
    desk.check(&expect![[r#"
        grant 1.1 tasks 1-3 attempt 1 to node 3 pool docker,gpu=2;1000m;500B
        void 1.1
    "#]]);
    assert!(desk.owner.has_waiting());
}
