//! Succession: who goes on with a dead node's jobs, and what it does when it comes back.

use super::pair::{durable, gossiped, pair};
use super::*;
use crate::ids::Term;
use crate::machine::Outlook;
use crate::schedule::Presence;
use crate::testing::{Author, hlc, node};

/// Steps until nothing is left to write; what was said, presence aside.
fn run(machine: &mut Machine, at: u64, input: Input) -> Vec<Effect> {
    let mut all = machine.step(now(at), input);
    let mut latest = 0;
    while let Some(write) = last_write(&all[latest..]) {
        latest = all.len();
        all.extend(machine.step(now(at), Input::Durable(write)));
    }
    all
}

fn idle(machine: &mut Machine, from: u64, to: u64) -> Vec<Effect> {
    (from..=to).step_by(250).flat_map(|at| run(machine, at, Input::Tick)).collect()
}

/// An owner with a job that nobody runs yet, and the node that its log has reached.
fn owner_and_heir() -> (Machine, Machine, Vec<Effect>) {
    let (mut owner, mut heir) = pair();
    owner.step(now(1), command(submission(2, AckLevel::Remote1)));
    let said = run(&mut owner, 2, durable(1));
    // The submission alone: the owner dies with what it decided about it.
    let batch = gossiped(&said).remove(0);
    run(&mut heir, 3, Input::Batch { from: node(1), batch });
    (owner, heir, said)
}

fn job(machine: &Machine) -> (JobId, &crate::facts::Job) {
    machine.facts().jobs().next().unwrap()
}

#[test]
fn the_survivor_of_two_adopts_the_queue_and_runs_it() {
    let (_owner, mut heir, _) = owner_and_heir();
    let (id, _) = job(&heir);
    assert!(!heir.acts_for(&id.log));
    let early = idle(&mut heir, 250, 9_750);
    assert!(!show(&early).contains("Adopt"), "{}", show(&early));
    assert_eq!(heir.outlook(now(9_750), &node(1)), Outlook::Soon(250));
    let text = show(&idle(&mut heir, 10_000, 12_500));
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
    assert!(at("Adopt") < at("Grant 1-2") && at("Grant 1-2") < at("spawn 2.1"), "{text}");
    assert!(heir.acts_for(&id.log));
    assert_eq!(heir.facts().owner_of(&id), node(2));
    for run_id in [1, 2] {
        run(
            &mut heir,
            13_000,
            Input::TaskEnded { run: RunId(run_id), outcome: Outcome::Exit(0), usage: Usage::default() },
        );
    }
    let (_, job) = job(&heir);
    assert!(job.is_sealed());
    assert!(job.seals.iter().all(|(term, _)| term.number() == 2 && term.is_of(&node(1), &node(2))));
}

#[test]
fn an_heir_reads_a_job_anew_once_another_submission_of_its_id_counts() {
    let (mut owner, mut heir) = pair();
    owner.step(now(1), command(submission(9, AckLevel::Remote1)));
    let batch = gossiped(&run(&mut owner, 2, durable(1))).remove(0);
    let from = node(1);
    run(&mut heir, 3, Input::Batch { from, batch });
    idle(&mut heir, 250, 12_500);
    let (id, _) = job(&heir);
    assert!(heir.acts_for(&id.log) && heir.owner().backlog() > 0);
    // The other branch was written first, so its submission is the one that counts.
    let mut clone = Author::new(1);
    let earlier = crate::namespace::batch::submit_job(hlc(0), id, IntervalSet::one(1), 0, crate::testing::command());
    let batch = clone.append(vec![clone.admit("wren"), earlier]);
    let text = show(&run(&mut heir, 12_600, Input::Batch { from, batch }));
    assert!(text.contains("notice Forked") && !heir.acts_for(&id.log), "{text}");
    idle(&mut heir, 12_750, 15_000);
    assert!(heir.acts_for(&id.log));
    let ended = Input::TaskEnded { run: RunId(1), outcome: Outcome::Exit(0), usage: Usage::default() };
    run(&mut heir, 15_100, ended);
    idle(&mut heir, 15_250, 16_000);
    assert!(job(&heir).1.is_sealed() && heir.owner().unsealed() == 0);
}

#[test]
fn a_node_that_hears_the_owner_again_leaves_its_jobs_alone() {
    let (mut owner, mut heir, _) = owner_and_heir();
    idle(&mut heir, 250, 9_500);
    for effect in owner.step(now(9_600), Input::Tick) {
        if let Effect::Publish(presence) = effect {
            heir.step(now(9_700), Input::Presence(presence));
        }
    }
    let text = show(&idle(&mut heir, 9_750, 12_500));
    assert!(!text.contains("Adopt"), "{text}");
}

#[test]
fn an_owner_that_was_adopted_from_gives_way_and_goes_on_in_a_new_epoch() {
    let (mut owner, mut heir, _) = owner_and_heir();
    let (id, _) = job(&heir);
    let said = idle(&mut heir, 250, 12_500);
    for batch in gossiped(&said) {
        run(&mut owner, 13_000, Input::Batch { from: node(2), batch });
    }
    assert!(!owner.acts_for(&id.log));
    assert_eq!(owner.owner().unsealed(), 0);
    let told = show(&run(&mut owner, 13_010, command(submission(1, AckLevel::Local))));
    assert!(told.contains("write") && told.contains("Admit"), "{told}");
    let fresh = owner.facts().jobs().map(|(id, _)| id).find(|other| other.log != id.log).unwrap();
    assert_eq!(fresh.log.node, node(1));
    assert!(owner.acts_for(&fresh.log));
}

/// Simulator seed 78854: the heir went on in a second log of its own, which came before the one with the adoption. The owner granted again what the heir had withdrawn and
/// granted elsewhere.
#[test]
fn an_owner_that_hears_its_heir_before_the_adoption_gives_way_at_once() {
    let mut owner = machine(1);
    let mut said = run(&mut owner, 1, command(submission(1, AckLevel::Local)));
    said.extend(idle(&mut owner, 2, 4));
    assert!(show(&said).contains("spawn 1.1 task 1 attempt 1"), "{}", show(&said));
    let (id, _) = job(&owner);
    let mut heir = Author::new(2);
    heir.epoch = Epoch(2);
    let grant = GrantId { job: id, no: crate::testing::grant_no(1) };
    let withdrawn = crate::namespace::sys::void(hlc(9), grant, Term::FIRST.adopted_by(&node(2)));
    let batch = heir.append(vec![heir.admit("heir"), withdrawn]);
    let mut text = show(&run(&mut owner, 10, Input::Batch { from: node(2), batch }));
    text += &show(&idle(&mut owner, 250, 750));
    assert!(!text.contains("Grant") && !text.contains("spawn"), "{text}");
    assert!(!owner.acts_for(&id.log) && owner.own_log() != id.log);
    // Nobody has adopted it that could be heard of.
    let text = show(&idle(&mut owner, 1_000, 4_000));
    assert!(text.contains("spawn 1.65537 task 1 attempt 2"), "{text}");
}

#[test]
fn whoever_comes_back_first_asks_what_happened() {
    let (_owner, mut heir, said) = owner_and_heir();
    let theirs = idle(&mut heir, 250, 12_500);
    let mut recovery = recovery_with(1, 2_000);
    gossiped(&said).into_iter().for_each(|batch| recovery.record(Record::Batch(batch)));
    let mut back = recovery.finish(now(20_000));
    // It knows of another member only by what it hears now; before that it is alone.
    assert!(!back.is_rejoining());
    let mut recovery = recovery_with(1, 2_000);
    gossiped(&said).into_iter().for_each(|batch| recovery.record(Record::Batch(batch)));
    let adopting = gossiped(&theirs);
    recovery.record(Record::Batch(adopting[0].clone()));
    back = recovery.finish(now(20_000));
    let (id, _) = job(&back);
    assert!(!back.acts_for(&id.log));
}

#[test]
fn a_node_that_stood_still_does_not_take_the_others_for_dead() {
    let (_owner, mut heir, _) = owner_and_heir();
    idle(&mut heir, 250, 1_000);
    let text = show(&run(&mut heir, 60_000, Input::Tick));
    assert!(!text.contains("Adopt") && !text.contains("Dead"), "{text}");
    assert!(heir.fleet().silent_ms(Mono(60_000), &node(1)) < 2_000);
}

fn presence_of(seed: u8, at: u64) -> Presence {
    let mut other = machine(seed);
    let effects = other.step(now(at), Input::Tick);
    effects
        .iter()
        .find_map(|effect| if let Effect::Publish(presence) = effect { Some(presence.clone()) } else { None })
        .unwrap()
}

#[test]
fn one_of_three_adopts_nothing_until_the_operator_forgets_a_member() {
    let (_owner, mut heir, _) = owner_and_heir();
    heir.step(now(100), Input::Presence(presence_of(3, 0)));
    let text = show(&idle(&mut heir, 250, 20_000));
    assert!(!text.contains("Adopt"), "{text}");
    assert_eq!(heir.outlook(now(20_000), &node(1)), Outlook::TooFew { live: 1, roster: 3 });
    let refused = show(&heir.step(now(20_001), command(Command::Forget(node(2)))));
    assert!(refused.contains("UnknownNode") || refused.contains("NodeLives"), "{refused}");
    let text = show(&run(&mut heir, 20_002, command(Command::Forget(node(1)))));
    assert!(text.contains("reply 1: Noted"), "{text}");
    let text = show(&idle(&mut heir, 20_250, 24_000));
    assert!(text.contains("Adopt"), "{text}");
}

#[test]
fn the_losing_one_of_two_adopters_is_heard_by_nobody() {
    let (_owner, mut heir, _) = owner_and_heir();
    let (id, _) = job(&heir);
    let mut terms = [2, 3].map(|seed| Term::FIRST.adopted_by(&node(seed)));
    terms.sort_unstable();
    idle(&mut heir, 250, 12_500);
    let winner = if terms[1] == Term::FIRST.adopted_by(&node(2)) { 2 } else { 3 };
    let mut rival = Author::new(3);
    let batches = [
        rival.open("rival"),
        rival.append(vec![crate::namespace::sys::adopt(hlc(9), id.log, Term::FIRST.adopted_by(&node(3)))]),
    ];
    for batch in batches {
        run(&mut heir, 13_000, Input::Batch { from: node(3), batch });
    }
    assert_eq!(heir.facts().owner_of(&id), node(winner));
    assert_eq!(heir.acts_for(&id.log), winner == 2);
}

#[test]
fn a_node_whose_log_was_wiped_goes_on_with_its_jobs_once_it_has_them_again() {
    let mut owner = machine(1);
    owner.step(now(0), Input::LinkUp(node(2)));
    let mut said = run(&mut owner, 1, command(submission(1, AckLevel::Local)));
    said.extend(idle(&mut owner, 2, 4));
    assert!(show(&said).contains("spawn 1.1 task 1 attempt 1"), "{}", show(&said));
    let batches = gossiped(&said);
    let log = owner.own_log();

    let mut back = machine(1);
    back.step(now(0), Input::LinkUp(node(2)));
    let mut text = show(&run(&mut back, 1, Input::Pulled { from: node(2), log, batches, more: false }));
    assert!(!text.contains("spawn"), "{text}");
    text += &show(&idle(&mut back, 250, 4_000));
    assert!(text.contains("JobFinished 1"), "the lost run is told: {text}");
    assert!(text.contains("spawn 1.65537 task 1 attempt 2"), "it runs again under another grant: {text}");
    let told = show(&run(&mut back, 4_001, command(submission(1, AckLevel::Local))));
    assert!(told.contains("job 2"), "names go on: {told}");
}

#[test]
fn an_owner_whose_disk_lost_its_seals_takes_them_up_when_it_hears_them() {
    let mut owner = machine(1);
    let mut said = run(&mut owner, 1, command(submission(2, AckLevel::Local)));
    said.extend(idle(&mut owner, 2, 4));
    for task in [1, 2] {
        let ended = Input::TaskEnded { run: RunId(task), outcome: Outcome::Exit(0), usage: Usage::default() };
        said.extend(run(&mut owner, 10 + task, ended));
    }
    said.extend(idle(&mut owner, 100, 200));
    let mut batches = gossiped(&said);
    let log = owner.own_log();
    let (id, _) = job(&owner);

    // The submission is left, and there is no room for it here.
    let mut back = recovery_with(1, 0);
    back.record(Record::Batch(batches.remove(0)));
    let mut back = back.finish(now(0));
    back.step(now(0), Input::LinkUp(node(2)));
    assert_eq!(back.owner().unsealed(), 1);
    run(&mut back, 1, Input::Pulled { from: node(2), log, batches, more: false });
    assert!(job(&back).1.is_sealed() && !back.acts_for(&id.log), "it listens first");
    idle(&mut back, 250, 4_000);
    assert!(back.acts_for(&id.log));
    assert_eq!(back.owner().unsealed(), 0, "what it sealed before stays sealed");
}
