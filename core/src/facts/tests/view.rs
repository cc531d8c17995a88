//! Views: states, counts, attempts, and what names find.

use expect_test::{Expect, expect};

use super::super::view::*;
use super::*;

/// One line per job, and one per attempt.
fn show(job: &Job) -> String {
    let Some(view) = super::super::view::job(job_id(1, 1), job) else {
        return "unknown".into();
    };
    let Counts { pending, running, done, failed, cancelled } = view.counts;
    let mut text = format!(
        "{:?} pending={pending} running={running} done={done} failed={failed} cancelled={cancelled} worst={:?} nodes={} ended={}\n",
        view.state,
        view.worst,
        view.nodes.len(),
        view.ended.is_some(),
    );
    for attempt in attempts(job) {
        text += &format!(
            "{:?} attempt {} tasks {} started={} void={} {:?}\n",
            attempt.grant, attempt.attempt, attempt.tasks, attempt.started, attempt.void, attempt.outcome
        );
    }
    text
}

fn check(parts: impl IntoIterator<Item = Job>, expected: &Expect) {
    expected.assert_eq(&show(&joined(parts)));
}

fn submitted() -> Job {
    Job::submitted(submit(tasks(1, 3), &command()))
}

fn grant(no: u32, by: u8, attempt: u16, first: u32, last: u32) -> Job {
    Job::granted(grant_no(no), placed(node(by), attempt, tasks(first, last)))
}

fn report(no: u32, by: u8, run: Run) -> Job {
    Job::reported(grant_no(no), node(by), run)
}

#[test]
fn a_job_without_its_submission_is_unknown() {
    check([grant(1, 2, 1, 1, 3)], &expect!["unknown"]);
}

#[test]
fn a_job_nobody_started_is_pending() {
    check(
        [submitted()],
        &expect![[r#"
        Pending pending=3 running=0 done=0 failed=0 cancelled=0 worst=None nodes=0 ended=false
    "#]],
    );
    check(
        [submitted(), grant(1, 2, 1, 1, 3)],
        &expect![[r#"
        Pending pending=3 running=0 done=0 failed=0 cancelled=0 worst=None nodes=0 ended=false
        1.1 attempt 1 tasks 1-3 started=false void=false None
    "#]],
    );
}

#[test]
fn a_job_under_way_shows_each_group_of_tasks() {
    check(
        [
            submitted(),
            grant(1, 2, 1, 1, 3),
            report(1, 2, started(tasks(1, 2))),
            report(1, 2, ended(tasks(1, 1), Outcome::Exit(0))),
            Job::sealed(Term(1), Outcome::Exit(0), tasks(1, 1), hlc(5)),
        ],
        &expect![[r#"
            Running pending=1 running=1 done=1 failed=0 cancelled=0 worst=Some(Exit(0)) nodes=1 ended=false
            1.1 attempt 1 tasks 1 started=true void=false Some(Exit(0))
            1.1 attempt 1 tasks 2 started=true void=false None
            1.1 attempt 1 tasks 3 started=false void=false None
        "#]],
    );
}

#[test]
fn a_withdrawn_grant_is_shown_and_does_not_run() {
    check(
        [
            submitted(),
            grant(1, 2, 1, 1, 3),
            report(1, 2, started(tasks(1, 1))),
            Job::voided(grant_no(1)),
            grant(2, 3, 2, 1, 3),
        ],
        &expect![[r#"
            Running pending=3 running=0 done=0 failed=0 cancelled=0 worst=None nodes=1 ended=false
            1.1 attempt 1 tasks 1 started=true void=true None
            1.1 attempt 1 tasks 2-3 started=false void=true None
            1.2 attempt 2 tasks 1-3 started=false void=false None
        "#]],
    );
}

#[test]
fn a_sealed_job_is_named_after_its_outcomes() {
    let with = |outcomes: &[(Outcome, u32, u32)]| {
        let seals = outcomes
            .iter()
            .map(|(outcome, first, last)| Job::sealed(Term(1), outcome.clone(), tasks(*first, *last), hlc(5)));
        joined(std::iter::once(submitted()).chain(seals))
    };
    let state = |outcomes: &[(Outcome, u32, u32)]| job(job_id(1, 1), &with(outcomes)).unwrap().state;
    assert_eq!(state(&[(Outcome::Exit(0), 1, 3)]), State::Done);
    assert_eq!(state(&[(Outcome::Exit(0), 1, 2), (Outcome::Exit(1), 3, 3)]), State::Failed);
    assert_eq!(state(&[(Outcome::Exit(0), 1, 2), (Outcome::Lost, 3, 3)]), State::Lost);
    assert_eq!(state(&[(Outcome::Exit(0), 1, 1), (Outcome::TimedOut, 2, 2), (Outcome::Lost, 3, 3)]), State::Failed);
    assert_eq!(state(&[(Outcome::Exit(1), 1, 2), (Outcome::Cancelled, 3, 3)]), State::Cancelled);
    assert_eq!(state(&[(Outcome::Exit(0), 1, 2)]), State::Running);
    check(
        [with(&[(Outcome::Exit(3), 1, 1), (Outcome::Signal(9), 2, 3)])],
        &expect![[r#"
            Failed pending=0 running=0 done=0 failed=3 cancelled=0 worst=Some(Signal(9)) nodes=0 ended=true
        "#]],
    );
}

#[test]
fn each_task_is_listed_once_under_its_latest_attempt() {
    let job = joined([
        submitted(),
        grant(1, 2, 1, 1, 3),
        report(1, 2, ended(tasks(1, 3), Outcome::Exit(1))),
        grant(2, 3, 2, 2, 3),
        report(2, 3, started(tasks(2, 2))),
    ]);
    let runs: Vec<(String, u16)> =
        latest_runs(&job).into_iter().map(|view| (view.tasks.to_string(), view.attempt.0)).collect();
    assert_eq!(runs, [("2".into(), 2), ("1,3".into(), 1)]);
    assert_eq!(latest_run(&job, 2).unwrap().node, node(3));
    assert_eq!(latest_run(&job, 3).unwrap().node, node(2));
    assert_eq!(latest_run(&job, 4), None);
}

/// Facts with these members, of whom each owns jobs `1..=jobs`.
fn members(names: &[(u8, &str)], jobs: u64) -> Facts {
    let mut facts = Facts::bot();
    for (seed, name) in names {
        facts.absorb(Delta::Node(node(*seed), NodeInfo::named(hlc(1), (*name).into())));
        for no in 1..=jobs {
            facts.absorb(Delta::Job(job_id(*seed, no), Box::new(submitted())));
        }
    }
    facts
}

#[test]
fn a_node_is_found_by_name_id_or_a_unique_beginning() {
    let facts = members(&[(1, "wren"), (2, "wren-2"), (3, "finch")], 0);
    assert_eq!(find_node(&facts, "wren"), Ok(node(1)), "exact goes first");
    assert_eq!(find_node(&facts, "wren-"), Ok(node(2)));
    assert_eq!(find_node(&facts, "f"), Ok(node(3)));
    assert_eq!(find_node(&facts, &node(2).to_hex()), Ok(node(2)));
    assert_eq!(find_node(&facts, &node(2).to_hex()[..12]), Ok(node(2)));
    assert!(matches!(find_node(&facts, "wr"), Err(FindError::Ambiguous(..))));
    for text in ["crow", ""] {
        assert_eq!(find_node(&facts, text), Err(FindError::UnknownNode(text.into())));
    }
}

#[test]
fn two_nodes_of_one_name_are_refused_and_both_are_told() {
    let facts = members(&[(1, "wren"), (2, "wren")], 1);
    let error = find_node(&facts, "wren").unwrap_err().to_string();
    assert!(error.contains(&node(1).to_string()) && error.contains(&node(2).to_string()));
    let error = find_job(&facts, "wren-1").unwrap_err().to_string();
    assert!(error.contains(&node(1).to_hex()) && error.contains(&node(2).to_hex()));
    let by_id = format!("{}-1", node(2).to_hex());
    assert_eq!(find_job(&facts, &by_id), Ok(job_id(2, 1)));
}

#[test]
fn a_job_is_found_by_its_nodes_name_and_its_number() {
    let facts = members(&[(1, "wren"), (2, "wren-2"), (3, "finch")], 2);
    assert_eq!(find_job(&facts, "wren-1"), Ok(job_id(1, 1)));
    assert_eq!(find_job(&facts, "wren-2-1"), Ok(job_id(2, 1)));
    assert_eq!(find_job(&facts, "fin-2"), Ok(job_id(3, 2)));
    assert_eq!(job_name(&facts, &job_id(2, 1)), "wren-2-1");
    for text in ["wren", "wren-3", "crow-1", "-1", "wren-", "wren-x"] {
        assert_eq!(find_job(&facts, text), Err(FindError::UnknownJob(text.into())));
    }
}

#[test]
fn a_beginning_that_only_one_owner_makes_a_job_of_is_unique() {
    let mut facts = members(&[(1, "wren"), (2, "wrasse")], 0);
    facts.absorb(Delta::Job(job_id(2, 4), Box::new(submitted())));
    assert_eq!(find_job(&facts, "wr-4"), Ok(job_id(2, 4)));
}

#[test]
fn words_about_a_job_never_submitted_make_no_name_ambiguous() {
    let mut facts = members(&[(1, "wren")], 1);
    let ghost = JobId { log: LogId { node: node(1), epoch: Epoch(77) }, no: JobNo(1) };
    facts.absorb(Delta::Job(ghost, Box::new(cancelled(3, 1))));
    assert_eq!(find_job(&facts, "wren-1"), Ok(job_id(1, 1)));
}

#[test]
fn a_node_without_a_name_is_called_by_its_id() {
    let facts = members(&[], 0);
    assert_eq!(node_name(&facts, &node(1)), node(1).to_string());
}
