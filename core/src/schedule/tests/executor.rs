//! The executor: what it accepts, in which order it starts, and what it never does.

use proptest::prelude::*;

use crate::event::{Value, WorkSpec};
use crate::facts::{Outcome, Usage};
use crate::ids::{Attempt, GrantId, RunId};
use crate::lattice::IntervalSet;
use crate::namespace::Voice;
use crate::resources::Resources;
use crate::schedule::{Ended, Executor, Offer, Resumed, Verdict};
use crate::testing::{command, grant_id, job_id, node, submit, tasks};
use crate::time::Mono;

const TWO: Resources = Resources { cpu_milli: 2_000, mem_bytes: 1_000 };

fn executor() -> Executor {
    Executor::new(node(1), TWO)
}

fn offer(job: u64, grant: u32, first: u32, last: u32) -> Offer {
    Offer { grant: grant_id(job_id(2, job), grant), attempt: Attempt(1), tasks: tasks(first, last), pool: None }
}

fn cpu(milli: i64) -> WorkSpec {
    command().with("cpu", Value::Int(milli))
}

/// Offers tasks of a job of 100; accepts to disk at once.
fn take(executor: &mut Executor, offer: &Offer, spec: &WorkSpec) -> Verdict {
    let verdict = executor.consider(offer, &submit(tasks(1, 100), spec));
    if verdict == Verdict::Accept {
        assert_eq!(executor.on_durable(&offer.grant), None);
    }
    verdict
}

/// Starts what can start: job and task of each.
fn pump(executor: &mut Executor, now: u64) -> Vec<(u64, u32)> {
    let starts = executor.pump(Mono(now));
    starts.iter().map(|start| (start.grant.job.no.0, start.task)).collect()
}

fn ended(grant: GrantId, task: u32, outcome: Outcome) -> Option<Ended> {
    Some(Ended { grant, voice: Voice::default(), tasks: IntervalSet::one(task), outcome, usage: Usage::default() })
}

#[test]
fn nothing_starts_before_its_acceptance_is_on_disk() {
    let mut executor = executor();
    let first = offer(1, 1, 1, 3);
    let job = submit(tasks(1, 3), &command());
    assert_eq!(executor.consider(&first, &job), Verdict::Accept);
    assert_eq!(pump(&mut executor, 0), []);
    assert_eq!(executor.consider(&first, &job), Verdict::Held(false));
    assert_eq!(executor.on_durable(&first.grant), None);
    assert_eq!(pump(&mut executor, 0), [(1, 1), (1, 2)]);
    assert_eq!(executor.consider(&first, &job), Verdict::Held(true));
    assert_eq!(
        executor.on_ended(RunId(1), Outcome::Exit(0), Usage::default()),
        ended(first.grant, 1, Outcome::Exit(0))
    );
    assert_eq!(pump(&mut executor, 0), [(1, 3)]);
}

#[test]
fn an_offer_of_a_grant_that_is_over_starts_nothing_again() {
    let mut executor = executor();
    let first = offer(1, 1, 1, 1);
    take(&mut executor, &first, &command());
    pump(&mut executor, 0);
    executor.on_ended(RunId(1), Outcome::Exit(0), Usage::default());
    assert_eq!(executor.held(), 0);
    assert_eq!(take(&mut executor, &first, &command()), Verdict::Held(true));
    assert_eq!(pump(&mut executor, 0), []);
}

#[test]
fn an_end_told_twice_counts_once() {
    let mut executor = executor();
    take(&mut executor, &offer(1, 1, 1, 1), &command());
    pump(&mut executor, 0);
    assert!(executor.on_ended(RunId(1), Outcome::Exit(0), Usage::default()).is_some());
    assert_eq!(executor.on_ended(RunId(1), Outcome::Exit(1), Usage::default()), None);
    assert_eq!(executor.on_ended(RunId(99), Outcome::Exit(1), Usage::default()), None);
    assert_eq!(executor.used(), Resources::default());
}

#[test]
fn what_does_not_fit_is_refused_and_stays_refused() {
    let mut executor = executor();
    take(&mut executor, &offer(1, 1, 1, 2), &command());
    pump(&mut executor, 0);
    let second = offer(2, 1, 1, 1);
    assert_eq!(take(&mut executor, &second, &command()), Verdict::Refuse);
    executor.on_ended(RunId(1), Outcome::Exit(0), Usage::default());
    executor.on_ended(RunId(2), Outcome::Exit(0), Usage::default());
    assert_eq!(take(&mut executor, &second, &command()), Verdict::Refuse, "its owner has placed it elsewhere");
    assert_eq!(take(&mut executor, &offer(2, 2, 1, 1), &command()), Verdict::Accept);
}

#[test]
fn what_could_never_fit_is_refused() {
    let mut executor = executor();
    let large = command().with("memory", Value::Int(1_001));
    assert_eq!(take(&mut executor, &offer(1, 1, 1, 1), &large), Verdict::Refuse);
    assert_eq!(take(&mut executor, &offer(2, 1, 1, 1), &cpu(2_001)), Verdict::Refuse);
}

#[test]
fn tasks_that_the_job_does_not_have_are_refused() {
    let mut executor = executor();
    for (grant, first, last) in [(1, 100, 101), (2, 0, 3), (3, 2, 1)] {
        assert_eq!(take(&mut executor, &offer(1, grant, first, last), &command()), Verdict::Refuse);
    }
}

#[test]
fn more_of_a_job_at_work_is_accepted_ahead() {
    let mut executor = executor();
    take(&mut executor, &offer(1, 1, 1, 2), &command());
    pump(&mut executor, 0);
    assert_eq!(take(&mut executor, &offer(1, 2, 3, 9), &command()), Verdict::Accept);
    assert_eq!(pump(&mut executor, 0), []);
    executor.on_ended(RunId(2), Outcome::Exit(0), Usage::default());
    assert_eq!(pump(&mut executor, 0), [(1, 3)]);
}

#[test]
fn a_large_task_that_came_first_is_not_starved_by_small_ones() {
    let mut executor = executor();
    let job = |spec: &WorkSpec| submit(tasks(1, 100), spec);
    let (large, small) = (offer(1, 1, 1, 1), offer(2, 1, 1, 5));
    assert_eq!(executor.consider(&large, &job(&cpu(2_000))), Verdict::Accept);
    assert_eq!(executor.consider(&small, &job(&cpu(1_000))), Verdict::Accept);
    assert_eq!(executor.on_durable(&small.grant), None);
    assert_eq!(pump(&mut executor, 0), [(2, 1), (2, 2)]);
    assert_eq!(executor.on_durable(&large.grant), None);
    executor.on_ended(RunId(1), Outcome::Exit(0), Usage::default());
    assert_eq!(pump(&mut executor, 0), [], "a small one would fit");
    executor.on_ended(RunId(2), Outcome::Exit(0), Usage::default());
    assert_eq!(pump(&mut executor, 0), [(1, 1)]);
    executor.on_ended(RunId(3), Outcome::Exit(0), Usage::default());
    assert_eq!(pump(&mut executor, 0), [(2, 3), (2, 4)]);
}

#[test]
fn an_urgent_grant_overtakes_those_that_wait() {
    let mut executor = executor();
    let plain = submit(tasks(1, 100), &command());
    let urgent = {
        let mut job = plain.clone();
        job.priority = 9;
        job
    };
    let (first, second) = (offer(1, 1, 1, 4), offer(2, 1, 1, 1));
    executor.consider(&first, &plain);
    executor.consider(&second, &urgent);
    assert_eq!(executor.on_durable(&first.grant), None);
    assert_eq!(executor.on_durable(&second.grant), None);
    assert_eq!(pump(&mut executor, 0), [(2, 1), (1, 1)]);
}

#[test]
fn a_task_past_its_limit_is_killed_once_and_told_as_timed_out() {
    let mut executor = executor();
    let limited = command().with("timeout_ms", Value::Int(500));
    let first = offer(1, 1, 1, 2);
    take(&mut executor, &first, &limited);
    pump(&mut executor, 1_000);
    assert_eq!(executor.next_deadline(), Some(Mono(1_500)));
    assert_eq!(executor.overdue(Mono(1_499)), []);
    assert_eq!(executor.overdue(Mono(1_500)), [RunId(1), RunId(2)]);
    assert_eq!(executor.overdue(Mono(9_999)), []);
    assert_eq!(executor.next_deadline(), None);
    assert_eq!(
        executor.on_ended(RunId(1), Outcome::Signal(15), Usage::default()),
        ended(first.grant, 1, Outcome::TimedOut)
    );
    // It finished before the signal reached it.
    assert_eq!(
        executor.on_ended(RunId(2), Outcome::Exit(0), Usage::default()),
        ended(first.grant, 2, Outcome::Exit(0))
    );
}

#[test]
fn a_cancel_kills_what_runs_and_drops_what_waits() {
    let mut executor = executor();
    let first = offer(1, 1, 1, 5);
    take(&mut executor, &first, &command());
    pump(&mut executor, 0);
    let (voice, usage) = (Voice::default(), Usage::default());
    let dropped = Ended { grant: first.grant, voice, tasks: tasks(3, 5), outcome: Outcome::Cancelled, usage };
    assert_eq!(executor.on_cancel(&first.grant.job), (vec![RunId(1), RunId(2)], vec![dropped]));
    assert_eq!(executor.on_cancel(&first.grant.job), (vec![], vec![]));
    assert_eq!(
        executor.on_ended(RunId(1), Outcome::Signal(15), Usage::default()),
        ended(first.grant, 1, Outcome::Cancelled)
    );
    assert_eq!(pump(&mut executor, 0), []);
    executor.on_ended(RunId(2), Outcome::Exit(0), Usage::default());
    assert_eq!(executor.held(), 0);
    assert_eq!(executor.free(), TWO);
}

#[test]
fn a_withdrawn_grant_finishes_what_runs_and_starts_nothing_more() {
    let mut executor = executor();
    let first = offer(1, 1, 1, 5);
    take(&mut executor, &first, &command());
    pump(&mut executor, 0);
    executor.on_void(first.grant);
    executor.on_ended(RunId(1), Outcome::Exit(0), Usage::default());
    assert_eq!(pump(&mut executor, 0), []);
    executor.on_ended(RunId(2), Outcome::Exit(0), Usage::default());
    assert_eq!(executor.held(), 0);
    let unknown = offer(3, 1, 1, 1);
    executor.on_void(unknown.grant);
    assert_eq!(take(&mut executor, &unknown, &command()), Verdict::Refuse);
}

#[test]
fn tasks_that_need_nothing_are_bounded_by_the_cores() {
    let mut executor = executor();
    take(&mut executor, &offer(1, 1, 1, 50), &cpu(0));
    assert_eq!(pump(&mut executor, 0).len(), 2);
    executor.on_ended(RunId(1), Outcome::Exit(0), Usage::default());
    assert_eq!(pump(&mut executor, 0).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reservations_never_exceed_the_node(
        ops in prop::collection::vec((0_u8..6, 1_u64..5, 1_u32..4, 0_i64..2_500, 0_i64..1_200), 0..80)
    ) {
        let mut executor = executor();
        let mut started: Vec<RunId> = Vec::new();
        let mut running = std::collections::BTreeMap::new();
        for (op, job, grant, cpu_milli, mem_bytes) in ops {
            let spec = cpu(cpu_milli).with("memory", Value::Int(mem_bytes));
            match op {
                0..=2 => {
                    let verdict = take(&mut executor, &offer(job, grant, 1, 3), &spec);
                    prop_assert_ne!(verdict, Verdict::Held(false));
                }
                3 if !started.is_empty() => {
                    let at = usize::try_from(cpu_milli).unwrap() % started.len();
                    let run = started.swap_remove(at);
                    prop_assert!(executor.on_ended(run, Outcome::Exit(0), Usage::default()).is_some());
                    running.remove(&run);
                }
                4 => drop(executor.on_cancel(&job_id(2, job))),
                5 => executor.on_void(grant_id(job_id(2, job), grant)),
                _ => {}
            }
            for start in executor.pump(Mono(0)) {
                started.push(start.run);
                running.insert(start.run, start.submit.need);
            }
            let used = running.values().fold(Resources::default(), |sum, need| sum.plus(need, 1));
            prop_assert_eq!(executor.used(), used);
            prop_assert!(TWO.covers(&used));
            prop_assert_eq!(executor.running(), running.len());
        }
        for run in started {
            executor.on_ended(run, Outcome::Exit(0), Usage::default());
        }
        while let Some(start) = executor.pump(Mono(0)).pop() {
            let runs: Vec<RunId> = (0..=start.run.0).map(RunId).collect();
            runs.into_iter().for_each(|run| drop(executor.on_ended(run, Outcome::Exit(0), Usage::default())));
        }
        prop_assert_eq!(executor.held(), 0, "everything accepted was run or dropped");
    }
}

#[test]
fn what_is_resumed_is_reserved_runs_and_goes_on_with_its_queue() {
    let mut executor = executor();
    let spec = command().with("timeout_ms", Value::Int(100));
    let first = offer(1, 1, 3, 4);
    let usage = Usage { wall_ms: 5, ..Usage::default() };
    let resumed = Resumed { offer: first.clone(), running: vec![(1, 30), (2, 500)], usage };
    executor.resume(Mono(10), resumed, &submit(tasks(1, 4), &spec));
    assert_eq!(executor.used(), Resources { cpu_milli: 2_000, mem_bytes: 0 });
    assert_eq!(executor.knows(&first.grant), Some(true));
    assert_eq!(pump(&mut executor, 10), [], "all room is taken");
    assert_eq!(executor.overdue(Mono(10)), [RunId(2)]);
    assert_eq!(executor.next_deadline(), Some(Mono(80)));
    let ended = executor.on_ended(RunId(2), Outcome::Signal(15), Usage { wall_ms: 500, ..Usage::default() }).unwrap();
    assert_eq!((ended.outcome, ended.usage.wall_ms), (Outcome::TimedOut, 505), "totals go on from what was told");
    assert_eq!(pump(&mut executor, 11), [(1, 3)]);
}

#[test]
fn what_is_resumed_may_exceed_what_is_offered_now_and_nothing_starts_beside_it() {
    let mut executor = executor();
    let running = (1..=5).map(|task| (task, 0)).collect();
    let resumed = Resumed { offer: offer(1, 1, 6, 9), running, usage: Usage::default() };
    executor.resume(Mono(0), resumed, &submit(tasks(1, 9), &command()));
    for run in 1..=3 {
        assert_eq!(pump(&mut executor, 0), []);
        executor.on_ended(RunId(run), Outcome::Exit(0), Usage::default());
    }
    assert_eq!(pump(&mut executor, 0), []);
    executor.on_ended(RunId(4), Outcome::Exit(0), Usage::default());
    assert_eq!(pump(&mut executor, 0), [(1, 6)]);
}

#[test]
fn giving_up_drops_queues_and_makes_losses_of_what_is_killed() {
    let mut executor = executor();
    take(&mut executor, &offer(1, 1, 1, 4), &command());
    pump(&mut executor, 0);
    let (kills, dropped) = executor.give_up();
    assert_eq!(kills, [RunId(1), RunId(2)]);
    assert_eq!(
        dropped.iter().map(|ended| (ended.tasks.clone(), ended.outcome.clone())).collect::<Vec<_>>(),
        [(tasks(3, 4), Outcome::Lost)]
    );
    let ended = executor.on_ended(RunId(1), Outcome::Signal(15), Usage::default()).unwrap();
    assert_eq!(ended.outcome, Outcome::Lost);
    let ended = executor.on_ended(RunId(2), Outcome::Exit(0), Usage::default()).unwrap();
    assert_eq!(ended.outcome, Outcome::Exit(0), "it finished after all");
    assert_eq!((executor.held(), executor.used()), (0, Resources::default()));
}
