//! Retired jobs: they stay out of the map in any order, only their owner retires them, and what is kept of them says what they were.

use super::super::view::{self, State};
use super::*;
use crate::lattice::Numbers;

fn retire(author: u8, owner: u8, jobs: &[u64]) -> Statement {
    let event = sys::retire(hlc(50), log(owner), Term(1), &jobs.iter().copied().collect::<Numbers>());
    (Dot { log: log(author), seq: Seq(90) }, Entry::Event(event))
}

fn said(author: u8, seq: u64, event: Event) -> Statement {
    (Dot { log: log(author), seq: Seq(seq) }, Entry::Event(event))
}

/// Job `no` of node 1, from submission to seal, run by node 2.
fn story(no: u64) -> Vec<Statement> {
    let (job, set) = (job_id(1, no), tasks(1, 3));
    let grant = grant_id(job, 1);
    let spec = command().with("name", crate::event::Value::text("demo")).with("alias", crate::event::Value::text("a"));
    let usage = Usage { cpu_user_ms: 5, wall_ms: 9, ..Usage::default() };
    let seat = crate::ids::Seat::machine(node(2));
    vec![
        said(1, 1, batch::submit_job(hlc(10), job, set.clone(), 0, spec)),
        said(1, 2, sys::grant(hlc(11), grant, &seat, Attempt(1), set.clone())),
        said(2, 1, Voice::default().started(hlc(12), grant, set.clone())),
        said(2, 2, Voice::default().finished(hlc(20), grant, tasks(1, 2), &Outcome::Exit(0), &usage)),
        said(2, 3, Voice::default().finished(hlc(21), grant, tasks(3, 3), &Outcome::Exit(4), &usage)),
        said(1, 3, sys::seal(hlc(22), job, Term(1), tasks(1, 2), &Outcome::Exit(0))),
        said(1, 4, sys::seal(hlc(23), job, Term(1), tasks(3, 3), &Outcome::Exit(4))),
    ]
}

#[test]
fn retired_facts_are_lawful() {
    let of = |statements: &[Statement]| folded(statements);
    let mut hashed = of(&story(1));
    hashed.root();
    check_laws(&[
        Facts::bot(),
        of(&story(1)),
        hashed,
        of(&story(2)),
        of(&[retire(1, 1, &[1])]),
        of(&[retire(1, 1, &[1, 2, 9])]),
        of(&[retire(3, 1, &[1])]),
        of(&[story(1), vec![retire(1, 1, &[1])]].concat()),
    ]);
}

#[test]
fn a_retired_job_never_returns_whatever_is_said_of_it() {
    let registry = Registry::built_in();
    let mut facts = folded(&story(1));
    let (dot, entry) = retire(1, 1, &[1]);
    let Touched::Retired(dropped) = facts.fold(dot, &entry, &registry) else {
        panic!("the owner's word counts");
    };
    assert_eq!(dropped.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [job_id(1, 1)]);
    let after = facts.to_bytes();
    for (dot, entry) in &story(1) {
        assert_eq!(facts.fold(*dot, entry, &registry), Touched::Nothing);
    }
    let _ = facts.join(folded(&story(1)));
    assert_eq!((facts.job_count(), facts.is_retired(&job_id(1, 1))), (0, true));
    assert_eq!(facts.to_bytes(), after);
    assert_eq!(view::find_job(&facts, "a"), Ok(job_id(1, 1)), "its name still names it");
}

#[test]
fn another_than_the_owner_retires_nothing() {
    let mut facts = folded(&story(1));
    let registry = Registry::built_in();
    let (dot, entry) = retire(3, 1, &[1]);
    assert_eq!(facts.fold(dot, &entry, &registry), Touched::Nothing);
    assert_eq!((facts.job_count(), facts.is_retired(&job_id(1, 1)), facts.retired().len()), (1, false, 0));
}

#[test]
fn events_that_nobody_understands_go_with_the_job_they_are_about() {
    let about = |no: u64| Event {
        hlc: hlc(3),
        ns: "weather".into(),
        kind: "Rain".into(),
        ver: 1,
        ctx: SysContext { job: Some(job_id(1, no)), ..SysContext::default() },
        spec: WorkSpec::new(),
    };
    let statements = [said(1, 1, about(1)), said(1, 2, about(2)), retire(1, 1, &[1])];
    let (mut facts, mut other) = (folded(&statements), folded(statements.iter().rev()));
    assert_eq!(facts.opaque_count(), 1);
    assert_eq!(facts.to_bytes(), other.to_bytes());
    assert_eq!(facts.root(), other.root());
}

#[test]
fn what_is_kept_of_a_job_says_who_what_when_where_and_how_it_ended() {
    let facts = folded(&story(7));
    let id = job_id(1, 7);
    let past = Past::of(id, facts.job(&id).unwrap()).unwrap();
    assert_eq!((&*past.ns, &*past.name, &*past.alias, past.tasks), ("batch", "demo", "a", 3));
    assert_eq!((past.submitted_ms, past.started_ms, past.ended_ms), (10, Some(12), 23));
    let ended: Vec<_> = past.ended.iter().map(|ended| (ended.outcome.clone(), ended.tasks.to_string())).collect();
    assert!(ended.contains(&(Outcome::Exit(0), "1-2".into())) && ended.contains(&(Outcome::Exit(4), "3".into())));
    assert_eq!((past.state(), past.worst(), past.nodes()), (State::Failed, Some(&Outcome::Exit(4)), vec![node(2)]));
    assert_eq!(past.ran.len(), 2);
    assert_eq!(past.usage.cpu_user_ms, 5, "the greatest total of a grant");
}

#[test]
fn what_is_kept_of_many_scattered_outcomes_is_bounded() {
    let odd: crate::lattice::IntervalSet = (0..10_000).map(|task| 2 * task + 1).collect();
    let even: crate::lattice::IntervalSet = (0..10_000).map(|task| 2 * task).collect();
    let job = joined([
        Job::submitted(submit(tasks(0, 19_999), &command())),
        Job::sealed(Term(1), Outcome::Exit(0), odd, hlc(9)),
        Job::sealed(Term(1), Outcome::Exit(1), even, hlc(9)),
    ]);
    let past = Past::of(job_id(1, 1), &job).unwrap();
    assert_eq!(past.ended.iter().map(|ended| ended.count).sum::<u64>(), 20_000);
    assert!(past.ended.iter().all(|ended| ended.tasks.is_empty()));
}
