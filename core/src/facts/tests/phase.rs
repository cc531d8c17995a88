//! Phases and the state that rules make, as users see them.

use expect_test::{Expect, expect};

use super::super::view::{phases, state};
use super::*;
use crate::event::Value;
use crate::lattice::IntervalSet;
use crate::namespace::declared::tests::health_check;
use crate::namespace::report;

/// What happens to a job of four health checks, in order.
enum Happens {
    Granted(u32, u8, u16, IntervalSet),
    Said(u32, u8, &'static str, IntervalSet, WorkSpec),
    Remarked(i64),
}
use Happens::{Granted, Remarked, Said};

fn passed(ms: i64) -> WorkSpec {
    WorkSpec::new().with("latency_ms", Value::Int(ms))
}

/// The facts after a submission of tasks 1 to 4 and all that.
fn after(history: Vec<Happens>) -> Facts {
    let declaration = health_check();
    let (job, schema) = (job_id(1, 1), Some(declaration.id()));
    let said = |kind: &str, ctx: SysContext, spec: WorkSpec| {
        let ctx = SysContext { job: Some(job), schema, ..ctx };
        Event { hlc: hlc(500), ns: "health_check".into(), kind: kind.into(), ver: 1, ctx, spec }
    };
    let all = SysContext { tasks: tasks(1, 4), ..SysContext::default() };
    let url = WorkSpec::new().with("url", Value::text("http://x"));
    let begun = [(3, sys::register_namespace(hlc(1), &declaration)), (1, said("SubmitHealthCheck", all, url))];
    let later = history.into_iter().map(|happens| match happens {
        Granted(no, by, attempt, tasks) => {
            (1, sys::grant(hlc(2), grant_id(job, no), &crate::ids::Seat::machine(node(by)), Attempt(attempt), tasks))
        }
        Said(no, by, kind, tasks, spec) => {
            (by, said(kind, SysContext { tasks, grant: Some(grant_no(no)), ..SysContext::default() }, spec))
        }
        Remarked(weight) => {
            let weight = WorkSpec::new().with("weight", Value::Int(weight));
            (4, said("CheckNoted", SysContext::default(), weight))
        }
    });
    let mut facts = Facts::bot();
    for (seq, (author, event)) in begun.into_iter().chain(later).enumerate() {
        let dot = Dot { log: log(author), seq: Seq(1 + seq as u64) };
        facts.fold(dot, &Entry::Event(event), &Registry::built_in());
    }
    facts
}

fn check(history: Vec<Happens>, expected: &Expect) {
    let facts = after(history);
    let job = facts.job(&job_id(1, 1)).unwrap();
    let shown: Vec<String> = phases(&facts, job).iter().map(|(name, count)| format!("{name}={count}")).collect();
    let state = state(job);
    let registers = state.registers.iter().map(|(key, _)| format!("{}: {:?}", key.0, state.register(&key.0).unwrap()));
    expected.assert_eq(&format!("{} | {}", shown.join(" "), registers.collect::<Vec<_>>().join(", ")));
}

#[test]
fn before_anybody_says_one_tasks_are_in_the_first_phase() {
    check(vec![], &expect!["noted=4 | "]);
    check(vec![Granted(1, 2, 1, tasks(1, 4))], &expect!["noted=4 | "]);
}

#[test]
fn each_task_is_in_the_highest_phase_that_it_reached() {
    let history = vec![
        Granted(1, 2, 1, tasks(1, 4)),
        Said(1, 2, "CheckPassed", tasks(2, 2), passed(7)),
        Said(1, 2, report::STARTED, tasks(1, 3), WorkSpec::new()),
        Said(1, 2, "CheckFailed", tasks(3, 3), WorkSpec::new()),
    ];
    check(history, &expect!["noted=1 checking=1 passed=1 failed=1 | codes: List([Int(1)]), latency_ms_max: Int(7)"]);
}

#[test]
fn a_later_attempt_decides_once_it_says_something() {
    let first = || {
        vec![
            Granted(1, 2, 1, tasks(1, 4)),
            Said(1, 2, "CheckFailed", tasks(1, 2), WorkSpec::new()),
            Granted(2, 3, 2, tasks(1, 2)),
        ]
    };
    check(first(), &expect!["noted=2 failed=2 | codes: List([Int(1)])"]);
    let mut history = first();
    history.push(Said(2, 3, report::STARTED, tasks(1, 1), WorkSpec::new()));
    check(history, &expect!["noted=2 checking=1 failed=1 | codes: List([Int(1)])"]);
}

#[test]
fn words_without_a_grant_do_not_count() {
    let history = vec![
        Granted(1, 2, 1, tasks(1, 2)),
        Said(1, 3, "CheckPassed", tasks(1, 2), passed(7)),
        Said(2, 2, "CheckPassed", tasks(1, 2), passed(8)),
        Said(1, 2, report::STARTED, tasks(2, 4), WorkSpec::new()),
    ];
    check(history, &expect!["noted=3 checking=1 | "]);
}

#[test]
fn remarks_raise_a_phase_and_never_lower_it() {
    // `noted` is the lowest of the namespace's phases.
    let history = vec![Remarked(2), Granted(1, 2, 1, tasks(1, 4)), Remarked(3)];
    check(history, &expect!["noted=4 | weight: Int(5)"]);
    let history =
        vec![Granted(1, 2, 1, tasks(1, 4)), Said(1, 2, report::STARTED, tasks(1, 4), WorkSpec::new()), Remarked(2)];
    check(history, &expect!["checking=4 | weight: Int(2)"]);
}

#[test]
fn tasks_of_built_in_namespaces_are_in_their_states() {
    let facts = Facts::bot();
    let words = |job: &Job| -> Vec<String> {
        phases(&facts, job).iter().map(|(name, count)| format!("{name}={count}")).collect()
    };
    assert_eq!(words(&granted_job()), ["pending=2", "running=1"]);
    let mut job = granted_job();
    let _ = job.join(joined([sealed(1, Outcome::Exit(0), 1, 1), sealed(1, Outcome::Cancelled, 2, 3)]));
    assert_eq!(words(&job), ["done=1", "cancelled=2"]);
    assert!(words(&Job::default()).is_empty());
}
