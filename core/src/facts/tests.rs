//! Facts: the lattice laws of every part, folds in any order, forged statements, and the incremental root.

mod declared;
mod phase;
mod view;

use proptest::prelude::*;

use super::*;
use crate::event::{Event, SysContext, WorkSpec};
use crate::ids::{Attempt, Epoch, Seq, Term};
use crate::lattice::laws::check_laws;
use crate::namespace::{Voice, batch, sys};
use crate::testing::{
    command, ended, grant_id, grant_no, hlc, job_id, joined, log, node, placed, started, submit, tasks,
};

fn cancelled(by: u8, at: u64) -> Job {
    Job::cancelled(Cancel { hlc: hlc(at), by: node(by) })
}

/// A job of three tasks, granted to node 2, of which one ended.
fn granted_job() -> Job {
    joined([
        Job::submitted(submit(tasks(1, 3), &command())),
        Job::granted(grant_no(1), placed(node(2), 1, tasks(1, 3))),
        Job::reported(grant_no(1), node(2), started(tasks(1, 2))),
        Job::reported(grant_no(1), node(2), ended(tasks(1, 1), Outcome::Exit(0))),
    ])
}

fn sealed(term: u64, outcome: Outcome, first: u32, last: u32) -> Job {
    Job::sealed(Term(term), outcome, tasks(first, last), hlc(9))
}

#[test]
fn runs_are_lawful() {
    check_laws(&[
        Run::default(),
        started(tasks(1, 2)),
        started(tasks(2, 5)),
        ended(tasks(1, 1), Outcome::Exit(0)),
        ended(tasks(1, 2), Outcome::Exit(1)),
        ended(tasks(3, 3), Outcome::Lost),
    ]);
}

#[test]
fn grants_are_lawful() {
    let of = |job: Job| job.grants.lookup(&grant_no(1)).cloned().unwrap_or_default();
    check_laws(&[
        Grant::default(),
        of(Job::voided(grant_no(1))),
        of(Job::granted(grant_no(1), placed(node(2), 1, tasks(1, 3)))),
        of(Job::granted(grant_no(1), placed(node(3), 2, tasks(1, 3)))),
        of(Job::reported(grant_no(1), node(2), started(tasks(1, 1)))),
        of(Job::reported(grant_no(1), node(3), started(tasks(2, 2)))),
    ]);
}

#[test]
fn jobs_are_lawful() {
    let other = WorkSpec::new().with("name", crate::event::Value::text("other"));
    check_laws(&[
        Job::default(),
        granted_job(),
        Job::submitted(submit(tasks(1, 3), &other)),
        Job::voided(grant_no(1)),
        sealed(1, Outcome::Exit(0), 1, 1),
        sealed(1, Outcome::Lost, 1, 2),
        sealed(2, Outcome::Exit(0), 2, 3),
        cancelled(1, 5),
        cancelled(2, 4),
    ]);
}

#[test]
fn nodes_are_lawful() {
    check_laws(&[
        NodeInfo::default(),
        NodeInfo::named(hlc(1), "wren".into()),
        NodeInfo::named(hlc(1), "finch".into()),
        NodeInfo::named(hlc(2), "crow".into()),
    ]);
}

#[test]
fn facts_are_lawful() {
    let of = |deltas: Vec<Delta>| {
        let mut facts = Facts::bot();
        for delta in deltas {
            facts.absorb(delta);
        }
        facts
    };
    let job = |job: Job| Delta::Job(job_id(1, 1), Box::new(job));
    let dot = Dot { log: log(1), seq: Seq(3) };
    let mut hashed = of(vec![job(granted_job())]);
    hashed.root();
    check_laws(&[
        Facts::bot(),
        of(vec![job(granted_job())]),
        hashed,
        of(vec![job(sealed(1, Outcome::Exit(0), 1, 3))]),
        of(vec![Delta::Node(node(1), NodeInfo::named(hlc(1), "wren".into()))]),
        of(vec![Delta::Opaque(dot, vec![1])]),
        of(vec![Delta::Opaque(dot, vec![2]), job(cancelled(1, 5))]),
    ]);
}

/// An entry of somebody's log, and where it stands.
type Statement = (Dot, Entry);

/// All kinds, by owners, executors and strangers, about few jobs, so that much of it collides. Positions repeat: authors fork.
fn any_statement() -> impl Strategy<Value = Statement> {
    let fields = (0_u8..14, 1_u8..4, 1_u64..5, (1_u8..3, 1_u64..3), 1_u32..3, (1_u32..6, 0_u32..4), 1_u64..50);
    fields.prop_map(|(kind, author, seq, (owner, no), grant, (first, more), at)| {
        let job = job_id(owner, no);
        let grant = grant_id(job, grant);
        let set = tasks(first, first + more);
        let outcome = if at % 3 == 0 { Outcome::Lost } else { Outcome::Exit(i32::from(author) - 1) };
        let hlc = hlc(at);
        let attempt = Attempt(u16::from(author));
        let event = match kind {
            0 | 1 => batch::submit_job(hlc, job, set, 0, command()),
            2 | 3 => sys::grant(hlc, grant, &crate::ids::Seat::machine(node(author % 3 + 1)), attempt, set),
            4 => sys::void(hlc, grant, Term::FIRST),
            5 => sys::seal(hlc, job, Term(1), set, &outcome),
            6 => sys::cancel(hlc, job),
            12 => sys::adopt(hlc, job.log, Term::FIRST.adopted_by(&node(author))),
            13 => sys::forget(hlc, node(author)),
            7 => Voice::default().started(hlc, grant, set),
            8 => Voice::default().finished(hlc, grant, set, &outcome, &Usage::default()),
            9 => sys::admit(hlc, Hash::ZERO, if at % 2 == 0 { "wren" } else { "finch" }),
            _ => Event {
                hlc,
                ns: "weather".into(),
                kind: "Rain".into(),
                ver: 1,
                ctx: SysContext::default(),
                spec: WorkSpec::new(),
            },
        };
        let dot = Dot { log: log(author), seq: Seq(seq) };
        let entry = if kind == 11 { Entry::Unread(vec![author, 0xff]) } else { Entry::Event(event) };
        (dot, entry)
    })
}

fn folded<'a>(history: impl IntoIterator<Item = &'a Statement>) -> Facts {
    let registry = Registry::built_in();
    let mut facts = Facts::bot();
    for (dot, entry) in history {
        facts.fold(*dot, entry, &registry);
    }
    facts
}

fn history_and_shuffle() -> impl Strategy<Value = (Vec<Statement>, Vec<Statement>)> {
    prop::collection::vec(any_statement(), 0..40).prop_flat_map(|history| {
        // Everything once, the first half twice, in any order.
        let mut again = history.clone();
        again.extend_from_slice(&history[..history.len() / 2]);
        (Just(history), Just(again).prop_shuffle())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_with_duplicates_gives_equal_bytes_and_roots((history, shuffled) in history_and_shuffle()) {
        let (mut left, mut right) = (folded(&history), folded(&shuffled));
        prop_assert_eq!(&left, &right);
        prop_assert_eq!(left.to_bytes(), right.to_bytes());
        prop_assert_eq!(left.root(), right.root());
    }

    #[test]
    fn partial_folds_join_to_the_fold_of_all((history, shuffled) in history_and_shuffle(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(history.len() + 1);
        let (early, late) = history.split_at(cut);
        let (mut left, right) = (folded(early), folded(late));
        left.root();
        let before = left.clone();
        let change = left.join(right);
        prop_assert_eq!(change.grew(), left != before);
        let mut whole = folded(&shuffled);
        prop_assert_eq!(left.to_bytes(), whole.to_bytes());
        prop_assert_eq!(left.root(), whole.root());
    }

    #[test]
    fn the_root_taken_at_every_step_equals_the_root_taken_once(history in prop::collection::vec(any_statement(), 0..40)) {
        let registry = Registry::built_in();
        let mut facts = Facts::bot();
        for (at, (dot, entry)) in history.iter().enumerate() {
            let before = (facts.root(), facts.to_bytes());
            let touched = facts.fold(*dot, entry, &registry);
            prop_assert_eq!(facts.root(), folded(&history[..=at]).root());
            prop_assert_eq!(facts.root() == before.0, facts.to_bytes() == before.1);
            if touched != Touched::Nothing {
                prop_assert_ne!(facts.to_bytes(), before.1);
            }
        }
    }
}

#[test]
fn two_unknown_events_at_one_position_are_both_kept() {
    let dot = Dot { log: log(1), seq: Seq(3) };
    let [one, two] = [vec![1], vec![2]].map(|bytes| (dot, Entry::Unread(bytes)));
    let (mut left, mut right) = (folded([&one, &two]), folded([&two, &one]));
    assert_eq!(left.opaque_count(), 2);
    assert_eq!(left.to_bytes(), right.to_bytes());
    assert_eq!(left.root(), right.root());
}

#[test]
fn what_others_say_in_the_owners_place_is_inert() {
    let registry = Registry::built_in();
    let id = job_id(1, 1);
    let mut facts = Facts::bot();
    facts.absorb(Delta::Job(id, Box::new(granted_job())));
    let before = facts.clone();
    let forger = Dot { log: log(3), seq: Seq(2) };
    let other_epoch = Dot { log: LogId { node: node(1), epoch: Epoch(2) }, seq: Seq(2) };
    let grant = grant_id(id, 1);
    let submission = batch::submit_job(hlc(0), id, tasks(1, 99), 9, command());
    let forged = [
        submission.clone(),
        sys::grant(hlc(0), grant, &crate::ids::Seat::machine(node(3)), Attempt(1), tasks(1, 3)),
        sys::grant(hlc(0), grant_id(id, 7), &crate::ids::Seat::machine(node(3)), Attempt(1), tasks(1, 3)),
        sys::void(hlc(0), grant, Term::FIRST),
        sys::seal(hlc(0), id, Term(9), tasks(1, 3), &Outcome::Exit(0)),
    ];
    for event in forged {
        assert_eq!(facts.fold(forger, &Entry::Event(event.clone()), &registry), Touched::Nothing, "{}", event.kind);
    }
    facts.fold(other_epoch, &Entry::Event(submission), &registry);
    assert_eq!(facts, before);
}

#[test]
fn reports_by_others_than_the_granted_executor_answer_no_query() {
    let id = job_id(1, 1);
    let honest = granted_job();
    let mut forged = honest.clone();
    for run in [started(tasks(3, 3)), ended(tasks(2, 3), Outcome::Exit(0)), ended(tasks(1, 1), Outcome::Exit(9))] {
        let _ = forged.join(Job::reported(grant_no(1), node(3), run));
    }
    let _ = forged.join(Job::reported(grant_no(8), node(3), ended(tasks(1, 3), Outcome::Exit(0))));
    assert_ne!(forged, honest, "the log is kept whole");
    assert_eq!(format!("{:?}", super::view::job(id, &forged)), format!("{:?}", super::view::job(id, &honest)));
    assert_eq!(super::view::attempts(&forged), super::view::attempts(&honest));
    assert_eq!(forged.running_tasks(), honest.running_tasks());
}

#[test]
fn an_executors_word_counts_for_granted_tasks_only() {
    let id = job_id(1, 1);
    let honest = joined([
        Job::submitted(submit(tasks(1, 9), &command())),
        Job::granted(grant_no(1), placed(node(2), 1, tasks(1, 2))),
        Job::reported(grant_no(1), node(2), started(tasks(1, 2))),
    ]);
    let mut boastful = honest.clone();
    let _ = boastful.join(Job::reported(grant_no(1), node(2), started(tasks(3, 9))));
    let _ = boastful.join(Job::reported(grant_no(1), node(2), ended(tasks(5, 6), Outcome::Exit(0))));
    let attempts = |job: &Job| -> Vec<_> {
        let views = super::view::attempts(job).into_iter();
        views.map(|view| (view.tasks, view.started, view.outcome)).collect()
    };
    assert_eq!(boastful.running_tasks(), tasks(1, 2));
    assert_eq!(attempts(&boastful), attempts(&honest));
    assert_eq!(super::view::job(id, &boastful).unwrap().counts.pending, 7);
}

#[test]
fn the_highest_term_decides_an_outcome() {
    let job = joined([
        Job::submitted(submit(tasks(1, 3), &command())),
        sealed(1, Outcome::Lost, 1, 2),
        sealed(2, Outcome::Exit(0), 2, 3),
    ]);
    assert_eq!(job.outcomes(), [(Outcome::Exit(0), tasks(2, 3)), (Outcome::Lost, tasks(1, 1))]);
    assert_eq!(job.outcome(2), Some(Outcome::Exit(0)));
    assert_eq!(job.outcome(4), None);
    assert!(job.is_sealed());
}
