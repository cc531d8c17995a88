//! Words that come late, twice or from the wrong node. Each test is a bug that the simulator found or would have.

use super::desk::Desk;
use crate::config::Config;
use crate::event::WorkSpec;
use crate::facts::{Job, Outcome, Placed, Run, Submit, Usage};
use crate::ids::{Attempt, Epoch, GrantId, GrantNo, JobId, JobNo, LogId, NodeId, Term};
use crate::lattice::{IntervalSet, Lattice, VecMap};
use crate::resources::Resources;
use crate::schedule::{Decision, Executor, Fleet, Health, Offer, Owner, Verdict};
use crate::time::{Hlc, Mono};

const OWNER: NodeId = NodeId([1; 32]);
const BIRD: NodeId = NodeId([2; 32]);
const OTHER: NodeId = NodeId([3; 32]);
const NOW: Mono = Mono(1_000);

fn job() -> JobId {
    JobId { log: LogId { node: OWNER, epoch: Epoch(1) }, no: JobNo(1) }
}

fn no(no: u32) -> GrantNo {
    GrantNo { term: Term(1), no }
}

fn submit(tasks: u32, retries: i32) -> Submit {
    let spec = WorkSpec::new().with("retries", crate::event::Value::int(retries));
    crate::testing::submit(IntervalSet::from_range(1, tasks), &spec)
}

fn granted(grant: u32, node: NodeId, attempt: u16, tasks: IntervalSet) -> Job {
    Job::granted(no(grant), Placed { node, attempt: Attempt(attempt), tasks, hlc: Hlc::default(), pool: None })
}

fn ended(grant: u32, by: NodeId, outcome: Outcome, tasks: IntervalSet) -> Job {
    let run = Run { started: tasks.clone(), ended: VecMap::one(outcome, tasks), ..Run::default() };
    Job::reported(no(grant), by, run)
}

fn facts(parts: impl IntoIterator<Item = Job>) -> Job {
    let mut job = Job::default();
    for part in parts {
        let _ = job.join(part);
    }
    job
}

fn decide(owner: &mut Owner, job_facts: &Job, grant: Option<u32>) -> Vec<Decision> {
    let mut decisions = Vec::new();
    owner.on_job(NOW, (job(), Term::FIRST), job_facts, grant.map(no), &mut decisions);
    decisions
}

/// Simulator seed 2: the owner forgot the job when it decided to seal, and began it anew when a late fold touched it.
#[test]
fn a_fold_between_deciding_to_seal_and_the_seal_decides_nothing() {
    let mut owner = Owner::default();
    let one = IntervalSet::one(1);
    let mut seen = facts([Job::submitted(submit(1, 0)), granted(1, BIRD, 1, one.clone())]);
    assert_eq!(decide(&mut owner, &seen, None), []);
    let _ = seen.join(ended(1, BIRD, Outcome::Exit(0), one.clone()));
    let seal = Decision::Seal { job: job(), tasks: one.clone(), outcome: Outcome::Exit(0) };
    assert_eq!(decide(&mut owner, &seen, Some(1)), [seal]);
    assert_eq!(decide(&mut owner, &seen, Some(1)), []);
    assert_eq!(owner.unsealed(), 1);
    let _ = seen.join(Job::sealed(Term(1), Outcome::Exit(0), one, Hlc::default()));
    assert_eq!(decide(&mut owner, &seen, None), []);
    assert_eq!(owner.unsealed(), 0);
}

/// Simulator seed 13: after a restart the failed first attempt was taken up beside the open second one.
#[test]
fn a_restarted_owner_leaves_a_task_in_its_latest_grant_only() {
    let mut owner = Owner::default();
    let one = IntervalSet::one(1);
    let parts = [
        Job::submitted(submit(1, 3)),
        granted(1, BIRD, 1, one.clone()),
        ended(1, BIRD, Outcome::Exit(1), one.clone()),
        granted(2, OTHER, 2, one),
    ];
    assert_eq!(decide(&mut owner, &facts(parts), None), []);
    assert_eq!(owner.backlog(), 0);
    owner.on_time(Mono(1_000_000));
    assert_eq!(owner.backlog(), 0, "the task is running: it must not be ready as well");
    assert_eq!(owner.executors().collect::<Vec<_>>(), [&OTHER]);
}

/// Simulator seed 12563: the other branch of a forked log granted tasks of another job of the same id, and every node refused them, for ever.
#[test]
fn a_restarted_owner_takes_up_no_tasks_that_the_job_does_not_have() {
    let mut owner = Owner::default();
    let parts = [
        Job::submitted(submit(2, 0)),
        granted(1, BIRD, 1, IntervalSet::from_range(1, 2)),
        granted(2, OTHER, 1, IntervalSet::from_range(3, 9)),
    ];
    assert_eq!(decide(&mut owner, &facts(parts), None), []);
    assert_eq!(owner.executors().collect::<Vec<_>>(), [&BIRD]);
    owner.on_dead(NOW, &OTHER, &mut Vec::new());
    assert_eq!(owner.backlog(), 0);
}

#[test]
fn a_restarted_owner_still_counts_earlier_failures() {
    let mut owner = Owner::default();
    let one = IntervalSet::one(1);
    let parts = [
        Job::submitted(submit(1, 1)),
        granted(1, BIRD, 1, one.clone()),
        ended(1, BIRD, Outcome::Exit(1), one.clone()),
        granted(2, OTHER, 2, one.clone()),
    ];
    let mut seen = facts(parts);
    decide(&mut owner, &seen, None);
    let _ = seen.join(ended(2, OTHER, Outcome::Exit(2), one.clone()));
    let seal = Decision::Seal { job: job(), tasks: one, outcome: Outcome::Exit(2) };
    assert_eq!(decide(&mut owner, &seen, Some(2)), [seal]);
}

#[test]
fn an_executor_speaks_only_for_tasks_it_was_granted() {
    let mut owner = Owner::default();
    let parts = [
        Job::submitted(submit(9, 0)),
        granted(1, BIRD, 1, IntervalSet::one(1)),
        Job::voided(no(1)),
        ended(1, BIRD, Outcome::Exit(0), IntervalSet::from_range(1, 400)),
    ];
    let seal = Decision::Seal { job: job(), tasks: IntervalSet::one(1), outcome: Outcome::Exit(0) };
    assert_eq!(decide(&mut owner, &facts(parts), None), [seal]);
}

#[test]
fn an_acceptance_by_another_node_leaves_the_offer_open() {
    let mut owner = Owner::default();
    let one = IntervalSet::one(1);
    decide(&mut owner, &facts([Job::submitted(submit(1, 0)), granted(1, BIRD, 1, one)]), None);
    let grant = GrantId { job: job(), no: no(1) };
    owner.on_accepted(&OTHER, &grant);
    assert_eq!(owner.offers_due(NOW, 1_000).len(), 1);
    owner.on_accepted(&BIRD, &grant);
    assert_eq!(owner.offers_due(NOW.after_ms(1_000), 1_000), []);
}

/// Simulator seed 1068: the executor had been started anew and knew nothing of the grant; a report of its earlier life came late, and was taken for its word.
#[test]
fn a_report_of_an_earlier_life_is_no_answer_to_whether_the_grant_is_known_still() {
    let mut owner = Owner::default();
    let two = IntervalSet::from_range(1, 2);
    let mut seen = facts([Job::submitted(submit(2, 0)), granted(1, BIRD, 1, two)]);
    decide(&mut owner, &seen, None);
    let grant = GrantId { job: job(), no: no(1) };
    owner.on_accepted(&BIRD, &grant);
    owner.doubt(NOW, &BIRD);
    let _ = seen.join(ended(1, BIRD, Outcome::Exit(0), IntervalSet::one(1)));
    decide(&mut owner, &seen, Some(1));
    let asked: Vec<_> = owner.offers_due(NOW, 1_000).into_iter().map(|offer| (offer.grant, offer.tasks)).collect();
    assert_eq!(asked, [(grant, IntervalSet::one(2))]);
    owner.on_accepted(&BIRD, &grant);
    assert_eq!(owner.offers_due(NOW.after_ms(1_000), 1_000), []);
}

/// Simulator seed 16193: the same, of a grant whose acceptance had not been heard when its executor was started anew.
#[test]
fn a_report_of_an_earlier_life_answers_no_offer_that_is_still_open_either() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, IntervalSet::from_range(1, 2), &crate::testing::command());
    desk.place();
    assert_eq!(desk.owner.offers_due(NOW, 1_000).len(), 1);
    desk.owner.doubt(NOW, &crate::testing::node(2));
    desk.end(1, 2, 1, 1, Outcome::Exit(0));
    let again: Vec<_> =
        desk.owner.offers_due(NOW.after_ms(1_000), 1_000).into_iter().map(|offer| offer.tasks).collect();
    assert_eq!(again, [IntervalSet::one(2)]);
}

/// Simulator seed 1022: what an earlier owner had granted, and the executor had begun, was taken to run there still. It had forgotten.
#[test]
fn the_executor_of_an_earlier_owners_grant_is_asked_whether_it_runs_still() {
    let mut owner = Owner::default();
    let adopted = Term::FIRST.adopted_by(&OTHER);
    let mut decide = |job_facts: &Job, grant: Option<u32>| {
        let mut decisions = Vec::new();
        owner.on_job(NOW, (job(), adopted), job_facts, grant.map(no), &mut decisions);
        decisions
    };
    let one = IntervalSet::one(1);
    let mut seen = facts([Job::submitted(submit(1, 0))]);
    assert_eq!(decide(&seen, None), []);
    let run = Run { started: one.clone(), ..Run::default() };
    let _ = seen.join(facts([granted(1, BIRD, 1, one), Job::reported(no(1), BIRD, run)]));
    assert_eq!(decide(&seen, Some(1)), []);
    let asked: Vec<_> =
        owner.offers_due(NOW, 1_000).into_iter().map(|offer| (offer.seat.node, offer.grant.no)).collect();
    assert_eq!(asked, [(BIRD, no(1))]);
}

/// Simulator seed 88817: an owner counted on what an earlier one had granted and nobody had begun only once it was started anew, and then withdrew it, though nothing had
/// happened meanwhile.
#[test]
fn an_earlier_owners_grant_is_counted_on_before_it_is_begun() {
    let mut owner = Owner::default();
    let adopted = Term::FIRST.adopted_by(&OTHER);
    let decide = |owner: &mut Owner, seen: &Job, grant: Option<u32>| {
        owner.on_job(NOW, (job(), adopted), seen, grant.map(no), &mut Vec::new());
    };
    let mut seen = facts([Job::submitted(submit(2, 0))]);
    decide(&mut owner, &seen, None);
    let _ = seen.join(granted(1, BIRD, 1, IntervalSet::one(1)));
    decide(&mut owner, &seen, Some(1));
    let mut anew = Owner::default();
    decide(&mut anew, &seen, None);
    for mut owner in [owner, anew] {
        assert_eq!(owner.backlog(), 1);
        let asked: Vec<_> =
            owner.offers_due(NOW, 1_000).into_iter().map(|offer| (offer.grant.no, offer.tasks)).collect();
        assert_eq!(asked, [(no(1), IntervalSet::one(1))]);
    }
}

/// Simulator seed 462: an owner withdrew a grant and was parted; the one that took over counted on the grant for ever.
#[test]
fn what_an_earlier_owner_withdrew_is_granted_again_once_that_is_heard() {
    let mut owner = Owner::default();
    let adopted = Term::FIRST.adopted_by(&OTHER);
    let decide = |owner: &mut Owner, seen: &Job, grant: Option<u32>| {
        owner.on_job(NOW, (job(), adopted), seen, grant.map(no), &mut Vec::new());
    };
    let one = IntervalSet::one(1);
    let mut seen = facts([Job::submitted(submit(1, 0)), granted(1, BIRD, 1, one)]);
    decide(&mut owner, &seen, None);
    owner.on_accepted(&BIRD, &GrantId { job: job(), no: no(1) });
    assert_eq!(owner.backlog(), 0);
    let _ = seen.join(Job::voided(no(1)));
    decide(&mut owner, &seen, Some(1));
    owner.on_time(NOW.after_ms(60_000));
    assert_eq!(owner.backlog(), 1);
}

/// Simulator seed 64130: the owner before, which had heard of a grant and not yet of the adoption, withdrew the grant with its executor, that seemed dead. Who had made it
/// counted on it for ever.
#[test]
fn what_the_owner_before_withdrew_of_ones_own_grants_is_granted_again() {
    let mut owner = Owner::default();
    let one = IntervalSet::one(1);
    let mut seen = facts([Job::submitted(submit(1, 0)), granted(1, BIRD, 1, one)]);
    assert_eq!(decide(&mut owner, &seen, None), []);
    owner.on_accepted(&BIRD, &GrantId { job: job(), no: no(1) });
    let _ = seen.join(Job::voided(no(1)));
    assert_eq!(decide(&mut owner, &seen, Some(1)), []);
    owner.on_time(NOW.after_ms(60_000));
    assert_eq!(owner.backlog(), 1);
}

/// Simulator seed 69647: a withdrawn grant had succeeded after all, and its task had been granted again. Who had it now knew that it was sealed, and said nothing; the room
/// that it took was counted as taken for ever.
#[test]
fn nothing_is_expected_of_a_second_grant_once_the_first_has_succeeded_after_all() {
    let mut owner = Owner::default();
    let one = IntervalSet::one(1);
    let again = granted(2, OTHER, 2, one.clone());
    let mut seen = facts([Job::submitted(submit(2, 0)), granted(1, BIRD, 1, one.clone()), Job::voided(no(1)), again]);
    assert_eq!(decide(&mut owner, &seen, None), []);
    owner.on_accepted(&OTHER, &GrantId { job: job(), no: no(2) });
    assert_eq!(owner.executors().collect::<Vec<_>>(), [&OTHER]);
    let _ = seen.join(ended(1, BIRD, Outcome::Exit(0), one.clone()));
    let sealed = Decision::Seal { job: job(), tasks: one, outcome: Outcome::Exit(0) };
    assert_eq!(decide(&mut owner, &seen, Some(1)), [sealed]);
    assert_eq!(owner.executors().collect::<Vec<_>>(), Vec::<&NodeId>::new());
}

/// A copy of an offer, late enough to find the task ended and its report still on the way to the disk.
#[test]
fn a_late_copy_of_an_offer_starts_nothing_again() {
    let total = Resources { cpu_milli: 1_000, mem_bytes: 0 };
    let mut executor = Executor::new(BIRD, total);
    let grant = GrantId { job: job(), no: no(1) };
    let offer = Offer { grant, attempt: Attempt(1), tasks: IntervalSet::one(1), pool: None };
    assert_eq!(executor.consider(&offer, &submit(1, 0)), Verdict::Accept);
    assert_eq!(executor.on_durable(&grant), None);
    let starts = executor.pump(NOW);
    assert_eq!(executor.consider(&offer, &submit(1, 0)), Verdict::Held(true));
    executor.on_ended(starts[0].run, Outcome::Exit(0), Usage::default()).unwrap();
    assert_eq!(executor.held(), 0);
    assert_eq!(executor.consider(&offer, &submit(1, 0)), Verdict::Held(true));
}

/// A node that just started has heard of nobody; that is no reason to grant their tasks again.
#[test]
fn a_node_never_heard_of_is_dead_only_after_a_while() {
    let fleet = Fleet::new(&Config::new("wren", Resources::default()), NOW);
    assert_eq!(fleet.health(NOW, &BIRD), Health::Suspect);
    assert_eq!(fleet.health(NOW.after_ms(5_999), &BIRD), Health::Suspect);
    assert_eq!(fleet.health(NOW.after_ms(6_000), &BIRD), Health::Dead);
}
