//! Declared namespaces in Facts: whatever arrives first, the declaration or the events that it gives meaning, the Facts are the same.

use proptest::prelude::*;

use super::*;
use crate::event::Value;
use crate::namespace::declared::tests::health_check;
use crate::namespace::{Declaration, report};

fn newer() -> Declaration {
    Declaration {
        version: 2,
        phases: ["passed", "noted", "checking", "failed"].map(Into::into).to_vec(),
        ..health_check()
    }
}

fn of(declaration: &Declaration, kind: &str, ctx: SysContext, spec: WorkSpec) -> Event {
    let ctx = SysContext { schema: Some(declaration.id()), ..ctx };
    Event { hlc: hlc(500), ns: "health_check".into(), kind: kind.into(), ver: 1, ctx, spec }
}

fn submission(declaration: &Declaration, no: u64) -> Event {
    let ctx = SysContext { job: Some(job_id(1, no)), tasks: tasks(1, 1), ..SysContext::default() };
    let spec = WorkSpec::new().with("url", Value::text("http://x")).with("alias", Value::text(format!("check-{no}")));
    of(declaration, "SubmitHealthCheck", ctx, spec)
}

fn reported(declaration: &Declaration, no: u64, kind: &str, spec: WorkSpec) -> Event {
    let ctx =
        SysContext { job: Some(job_id(1, no)), tasks: tasks(1, 1), grant: Some(grant_no(1)), ..SysContext::default() };
    of(declaration, kind, ctx, spec)
}

/// Two jobs under two versions, run to their ends by node 2, and the registrations of both by node 3.
fn history() -> Vec<(Dot, Event)> {
    let (old, new) = (health_check(), newer());
    let grant = |no| {
        sys::grant(hlc(2), grant_id(job_id(1, no), 1), &crate::ids::Seat::machine(node(2)), Attempt(1), tasks(1, 1))
    };
    let passed = WorkSpec::new().with("latency_ms", Value::Int(12));
    let weight = WorkSpec::new().with("weight", Value::Int(3));
    let remark = SysContext { job: Some(job_id(1, 1)), ..SysContext::default() };
    let events = [
        (1, submission(&old, 1)),
        (1, grant(1)),
        (1, submission(&new, 2)),
        (1, grant(2)),
        (2, reported(&old, 1, report::STARTED, WorkSpec::new())),
        (2, reported(&old, 1, "CheckPassed", passed.clone())),
        (2, reported(&new, 2, "CheckPassed", passed)),
        (3, sys::register_namespace(hlc(9), &old)),
        (3, of(&old, "CheckNoted", remark, weight)),
        (3, sys::register_namespace(hlc(8), &new)),
        (3, sys::register_namespace(hlc(7), &old)),
    ];
    let at = |(seq, (author, event)): (usize, (u8, Event))| (Dot { log: log(author), seq: Seq(1 + seq as u64) }, event);
    events.into_iter().enumerate().map(at).collect()
}

fn folded(history: &[(Dot, Event)]) -> Facts {
    let mut facts = Facts::bot();
    for (dot, event) in history {
        facts.fold(*dot, &Entry::Event(event.clone()), &Registry::built_in());
    }
    facts
}

#[test]
fn a_declaration_that_comes_last_gives_its_events_their_meaning() {
    let (known, rest): (Vec<_>, Vec<_>) = history().into_iter().partition(|(_, event)| event.ns == sys::NAME);
    let mut late = folded(&rest);
    assert_eq!(late.opaque_count(), 6);
    assert_eq!(late.job_called("check-1"), None);
    for (dot, event) in &known {
        late.fold(*dot, &Entry::Event(event.clone()), &Registry::built_in());
    }
    assert_eq!(late.opaque_count(), 0);
    assert_eq!(late.job_called("check-1"), Some(job_id(1, 1)));
    let run = late.job(&job_id(1, 1)).and_then(|job| job.grants.lookup(&grant_no(1))).and_then(Grant::run).unwrap();
    assert_eq!(run.state().and_then(|state| state.register("latency_ms_max")), Some(Value::Int(12)));
    assert_eq!(run.all_ended(), tasks(1, 1));
    assert_eq!(late.to_bytes(), folded(&history()).to_bytes());
}

#[test]
fn new_submissions_get_the_highest_version_and_of_equals_the_earliest() {
    let facts = folded(&history());
    assert_eq!(facts.declarations().current("health_check").unwrap().0, newer().id());
    let rival = Declaration { phases: ["passed", "failed", "noted", "checking"].map(Into::into).to_vec(), ..newer() };
    let mut both = facts.clone();
    let dot = Dot { log: log(4), seq: Seq(1) };
    both.fold(dot, &Entry::Event(sys::register_namespace(hlc(3), &rival)), &Registry::built_in());
    assert_eq!(both.declarations().current("health_check").unwrap().0, rival.id());
    assert_eq!(both.declarations().called("health_check").len(), 3);
}

#[test]
fn an_event_that_names_a_declaration_of_another_name_says_nothing() {
    let other = Declaration {
        spec: crate::namespace::NamespaceSpec { name: "other".into(), ..health_check().spec },
        ..health_check()
    };
    let mut facts = Facts::bot();
    let forged = submission(&other, 1);
    let fold = |facts: &mut Facts, seq, event| {
        facts.fold(Dot { log: log(1), seq: Seq(seq) }, &Entry::Event(event), &Registry::built_in())
    };
    fold(&mut facts, 1, forged.clone());
    fold(&mut facts, 2, sys::register_namespace(hlc(1), &other));
    assert_eq!((facts.opaque_count(), facts.job_count()), (0, 0));
    assert_eq!(fold(&mut facts, 3, forged), Touched::Nothing);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_with_duplicates_gives_the_same_facts(order in prop::collection::vec(0..11_usize, 0..30)) {
        let all = history();
        let mut shuffled: Vec<(Dot, Event)> = order.iter().map(|at| all[*at].clone()).collect();
        shuffled.extend((0..all.len()).rev().filter(|at| !order.contains(at)).map(|at| all[at].clone()));
        let (mut left, mut right) = (folded(&all), folded(&shuffled));
        prop_assert_eq!(left.to_bytes(), right.to_bytes());
        prop_assert_eq!(left.root(), right.root());
        prop_assert!(left == right);
    }

    #[test]
    fn joins_of_parts_equal_the_whole(split in 0..11_usize) {
        let all = history();
        let mut joined = folded(&all[split..]);
        let _ = joined.join(folded(&all[..split]));
        prop_assert_eq!(joined.to_bytes(), folded(&all).to_bytes());
    }
}
