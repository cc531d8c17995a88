//! What the events of a declared namespace fold to: exact deltas, and the same Facts in any order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::event::{Event, SysContext};
use crate::facts::state::{Key, Merged, Phase, Register, State, Written};
use crate::facts::{Delta, Extra, Facts, Job, Run, Submit};
use crate::ids::{Dot, Epoch, JobId, LogId, Seq};
use crate::lattice::{IntervalSet, Max, Min, VecMap};
use crate::namespace::{Namespace, opaque, sys};
use crate::testing::{grant_no, hlc, job_id, log, node, tasks};

pub(super) fn event(kind: &str, ctx: SysContext, spec: WorkSpec) -> Event {
    Event { hlc: hlc(500), ns: "health_check".into(), kind: kind.into(), ver: 1, ctx, spec }
}

/// An executor's event about tasks 1 to 3 of job 1 of node 1, under grant 2.
pub(super) fn granted(kind: &str, spec: WorkSpec) -> Event {
    let ctx =
        SysContext { job: Some(job_id(1, 1)), tasks: tasks(1, 3), grant: Some(grant_no(2)), ..SysContext::default() };
    event(kind, ctx, spec)
}

pub(super) fn submission() -> Event {
    let ctx = SysContext {
        job: Some(job_id(1, 1)),
        tasks: tasks(1, 3),
        schema: Some(health_check().id()),
        ..SysContext::default()
    };
    let spec = WorkSpec::new().with("url", Value::text("http://127.0.0.1/")).with("alias", Value::text("batch-001"));
    event("SubmitHealthCheck", ctx, spec)
}

pub(super) fn dot(author: u8) -> Dot {
    Dot { log: log(author), seq: Seq(7) }
}

fn ms(latency: i64) -> WorkSpec {
    WorkSpec::new().with("latency_ms", Value::Int(latency))
}

fn written(text: &str) -> Written {
    Written { hlc: hlc(500), dot: dot(2), value: Value::text(text) }
}

fn phase(rank: u16, name: &str) -> VecMap<Phase, IntervalSet> {
    VecMap::one(Phase { rank, name: name.into() }, tasks(1, 3))
}

fn reported(run: Run) -> Delta {
    Delta::Job(job_id(1, 1), Box::new(Job::reported(grant_no(2), node(2), run)))
}

fn started() -> Run {
    Run { started: tasks(1, 3), first_start: Min::new(hlc(500)), ..Run::default() }
}

fn ended(code: i32) -> Run {
    Run { ended: VecMap::one(Outcome::Exit(code), tasks(1, 3)), last_end: Max::new(hlc(500)), ..started() }
}

fn with(run: Run, state: State) -> Run {
    run.with(Extra { state, ..Extra::default() })
}

#[test]
fn a_submission_is_the_owners_alone() {
    let declaration = health_check();
    let submit = Submit::new(&submission(), Handler::Relay);
    assert_eq!(submit.schema(), Some(declaration.id()));
    let expected = Delta::Job(job_id(1, 1), Box::new(Job::submitted(submit)));
    assert_eq!(declaration.delta(dot(1), &submission()), expected);
    assert_eq!(declaration.delta(dot(2), &submission()), Delta::Nothing);
    let next_epoch = Dot { log: LogId { node: node(1), epoch: Epoch(2) }, seq: Seq(1) };
    assert_eq!(declaration.delta(next_epoch, &submission()), Delta::Nothing);
    let mut of_no_tasks = submission();
    of_no_tasks.ctx.tasks = IntervalSet::new();
    assert_eq!(declaration.delta(dot(1), &of_no_tasks), Delta::Nothing);
}

#[test]
fn a_rule_gives_phase_outcome_registers_and_labels() {
    let state = State {
        phases: phase(2, "passed"),
        registers: VecMap::one(Key("latency_ms_max".into()), Merged(Some(Register::Max(12)))),
        labels: VecMap::one(Key("health".into()), Max::new(written("good"))),
    };
    let delta = health_check().delta(dot(2), &granted("CheckPassed", ms(12)));
    assert_eq!(delta, reported(with(ended(0), state)));
}

#[test]
fn an_absent_field_counts_as_its_default_and_else_writes_no_register() {
    let codes = Register::Set(BTreeSet::from([Value::Int(1)]));
    let state = State {
        phases: phase(3, "failed"),
        registers: VecMap::one(Key("codes".into()), Merged(Some(codes))),
        labels: VecMap::one(Key("health".into()), Max::new(written("bad"))),
    };
    let delta = health_check().delta(dot(2), &granted("CheckFailed", WorkSpec::new()));
    assert_eq!(delta, reported(with(ended(1), state)));
}

#[test]
fn anybody_may_remark_where_a_rule_lets_them() {
    let declaration = health_check();
    let mut remark = granted("CheckNoted", WorkSpec::new().with("weight", Value::Int(-4)));
    assert_eq!(declaration.delta(dot(2), &remark), Delta::Nothing, "under a grant executors speak");
    remark.ctx.grant = None;
    let weight = Register::Counter(BTreeMap::from([(dot(3), -4)]));
    let state = State {
        phases: phase(0, "noted"),
        registers: VecMap::one(Key("weight".into()), Merged(Some(weight))),
        ..State::default()
    };
    let expected = Delta::Job(job_id(1, 1), Box::new(Job::remarked(state)));
    assert_eq!(declaration.delta(dot(3), &remark), expected);
}

#[test]
fn standard_reports_count_as_everywhere_and_rules_add_to_them() {
    let declaration = health_check();
    let state = State { phases: phase(1, "checking"), ..State::default() };
    let delta = declaration.delta(dot(2), &granted("JobStarted", WorkSpec::new()));
    assert_eq!(delta, reported(with(started(), state)));
    let finished = granted("JobFinished", report::outcome_spec(&Outcome::Exit(3)));
    assert_eq!(declaration.delta(dot(2), &finished), reported(ended(3)));
    assert_eq!(hub_style().delta(dot(2), &Event { ns: "hub-style".into(), ..finished }), reported(ended(3)));
    let lost = granted("JobFinished", report::outcome_spec(&Outcome::Lost));
    let run = Run { ended: VecMap::one(Outcome::Lost, tasks(1, 3)), last_end: Max::new(hlc(500)), ..Run::default() };
    assert_eq!(declaration.delta(dot(2), &lost), reported(run));
}

#[test]
fn a_standard_report_that_does_not_fit_its_rule_still_counts() {
    let mut declaration = health_check();
    declaration.rules[STARTED].fields = vec![FieldReq::optional("pid", int(1, 9))];
    assert_eq!(declaration.check(), Ok(()));
    let odd = granted("JobStarted", WorkSpec::new().with("pid", Value::text("x")));
    assert_eq!(declaration.delta(dot(2), &odd), reported(started()));
}

#[test]
fn what_does_not_fit_says_nothing() {
    let declaration = health_check();
    let without = |change: fn(&mut Event)| {
        let mut event = granted("CheckPassed", ms(1));
        change(&mut event);
        event
    };
    let silent = [
        granted("CheckPassed", WorkSpec::new()),
        granted("CheckPassed", ms(-1)),
        granted("CheckPassed", ms(1).with("speed", Value::Int(1))),
        granted("CheckFailed", WorkSpec::new().with("code", Value::Int(0))),
        granted("CheckSkipped", WorkSpec::new()),
        granted("JobFinished", WorkSpec::new()),
        without(|event| event.ctx.grant = None),
        without(|event| event.ctx.job = None),
        without(|event| event.ctx.tasks = IntervalSet::new()),
        without(|event| event.ns = "batch".into()),
        without(|event| event.ns = sys::NAME.into()),
    ];
    for event in silent {
        assert_eq!(declaration.delta(dot(2), &event), Delta::Nothing, "{event:?}");
    }
}

#[test]
fn versions_that_nobody_here_knows_are_kept() {
    for kind in ["SubmitHealthCheck", "CheckPassed", "JobStarted", "Else"] {
        let event = Event { ver: 9, ..granted(kind, WorkSpec::new()) };
        assert_eq!(health_check().delta(dot(2), &event), opaque(dot(2), &event));
    }
}

#[test]
fn a_rule_that_gives_nothing_adds_nothing() {
    let mut declaration = health_check();
    declaration.rules = vec![Rule::new("A"), Rule { by: Speaker::Anyone, ..Rule::new("B") }];
    assert_eq!(declaration.delta(dot(2), &granted("A", WorkSpec::new())), Delta::Nothing);
    let mut remark = granted("B", WorkSpec::new());
    remark.ctx.grant = None;
    assert_eq!(declaration.delta(dot(2), &remark), Delta::Nothing);
}

/// Whatever passes `from_bytes` or not, folding never panics.
#[test]
fn a_declaration_that_check_refuses_still_folds() {
    let mut unsound = health_check();
    unsound.phases.clear();
    unsound.rules[FAILED].outcome = Some(Ends::ExitFrom("reason".into()));
    unsound.rules[PASSED].registers = vec![
        register("r", "latency_ms", Policy::Counter),
        register("a", "nowhere", Policy::Max),
        register("r", "latency_ms", Policy::Last),
    ];
    assert!(unsound.check().is_err());
    let failed = granted("CheckFailed", WorkSpec::new().with("reason", Value::text("down")));
    assert_eq!(unsound.delta(dot(2), &failed), Delta::Nothing);
    assert!(matches!(unsound.delta(dot(2), &granted("CheckPassed", ms(1))), Delta::Job(..)));
}

type Statement = (Dot, Event);

/// Events by owners, executors and strangers about few jobs, so that much of it collides. Positions repeat: authors fork.
fn any_statement() -> impl Strategy<Value = Statement> {
    let fields = (0_u8..9, 1_u8..4, 1_u64..5, (1_u8..3, 1_u64..3), 0_u32..3, (1_u32..6, 0_u32..4), -2_i64..12);
    fields.prop_map(|(kind, author, seq, (owner, no), grant, (first, more), number)| {
        let ctx = SysContext {
            job: Some(job_id(owner, no)),
            tasks: tasks(first, first + more),
            grant: (grant > 0).then(|| grant_no(grant)),
            ..SysContext::default()
        };
        let with = |key: &str, value| WorkSpec::new().with(key, value);
        let (kind, spec) = match kind {
            0 => ("SubmitHealthCheck", with("url", Value::text(number.to_string()))),
            1 => ("JobStarted", WorkSpec::new()),
            2 => ("JobFinished", with("exit", Value::Int(number))),
            3 => ("CheckPassed", with("latency_ms", Value::Int(number))),
            4 => ("CheckFailed", with("code", Value::Int(number))),
            5 => ("CheckFailed", with("reason", Value::text(number.to_string()))),
            6 | 7 => ("CheckNoted", with("weight", Value::Int(number))),
            _ => ("CheckSkipped", WorkSpec::new()),
        };
        let hlc = hlc(number.unsigned_abs());
        (Dot { log: log(author), seq: Seq(seq) }, Event { hlc, ..event(kind, ctx, spec) })
    })
}

fn folded<'a>(history: impl IntoIterator<Item = &'a Statement>) -> Facts {
    let declaration = health_check();
    let mut facts = Facts::bot();
    for (dot, event) in history {
        facts.absorb(Namespace::delta(&declaration, *dot, event));
    }
    facts
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_with_duplicates_gives_equal_bytes_and_roots(
        (history, shuffled) in prop::collection::vec(any_statement(), 0..40).prop_flat_map(|history| {
            let mut again = history.clone();
            again.extend_from_slice(&history[..history.len() / 2]);
            (Just(history), Just(again).prop_shuffle())
        })
    ) {
        let (mut left, mut right) = (folded(&history), folded(&shuffled));
        prop_assert_eq!(left.to_bytes(), right.to_bytes());
        prop_assert_eq!(left.root(), right.root());
    }

    #[test]
    fn an_event_touches_no_job_but_its_own((dot, event) in any_statement()) {
        match health_check().delta(dot, &event) {
            Delta::Job(id, _) => prop_assert_eq!(Some(id), event.ctx.job),
            Delta::Nothing => {}
            Delta::Node(..) | Delta::Declaration(_) | Delta::Gateway(_) | Delta::Adoption(..) | Delta::Opaque(..) => prop_assert!(false, "{:?}", event),
        }
    }
}

/// The id is free to be anybody's.
#[test]
fn reports_about_a_job_not_submitted_yet_are_kept() {
    let mut facts = Facts::bot();
    facts.absorb(health_check().delta(dot(2), &granted("CheckPassed", ms(1))));
    let id: JobId = job_id(1, 1);
    let job = facts.job(&id).unwrap();
    assert!(job.submit.as_ref().is_none());
    let run = job.grants.lookup(&grant_no(2)).and_then(|grant| grant.run_by(&node(2))).unwrap();
    assert_eq!(run.state().and_then(|state| state.register("latency_ms_max")), Some(Value::Int(1)));
}
