//! Namespaces: what a schema refuses and how it says so, and what becomes of events that nobody here understands.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};

use super::*;
use crate::event::{SysContext, Value, WorkSpec};
use crate::facts::{Facts, Touched};
use crate::ids::Seq;
use crate::limits;
use crate::testing::{command, hlc, job_id, log, tasks};

fn dot(seq: u64) -> Dot {
    Dot { log: log(1), seq: Seq(seq) }
}

fn check(namespace: &str, spec: &WorkSpec, expected: &Expect) {
    let registry = Registry::built_in();
    let result = registry.namespace(namespace).unwrap().spec().validate(spec);
    expected.assert_eq(&result.map_or_else(|error| error.to_string(), |()| "ok".to_owned()));
}

#[test]
fn a_spec_that_fits_is_taken() {
    check("batch", &command(), &expect!["ok"]);
}

#[test]
fn a_missing_field_is_named() {
    check("batch", &WorkSpec::new(), &expect!["field `command`: expected list of 1 to 1024 texts, got nothing"]);
    check("monitor", &WorkSpec::new(), &expect!["field `cpu_milli`: expected integer of at least 0, got nothing"]);
}

#[test]
fn an_unknown_field_is_named() {
    check(
        "batch",
        &command().with("gpus", Value::Int(1)),
        &expect!["field `gpus`: expected a field of namespace `batch`, got an unknown one"],
    );
}

#[test]
fn lists_of_texts_are_checked() {
    let with = |value| WorkSpec::new().with("command", value);
    check(
        "batch",
        &with(Value::List(vec![])),
        &expect!["field `command`: expected list of 1 to 1024 texts, got list of 0"],
    );
    check(
        "batch",
        &with(Value::List(vec![Value::Int(1)])),
        &expect!["field `command`: expected list of 1 to 1024 texts, got list of 1"],
    );
    check(
        "batch",
        &with(Value::List(vec![Value::text("x"); 1_025])),
        &expect!["field `command`: expected list of 1 to 1024 texts, got list of 1025"],
    );
    check(
        "batch",
        &with(Value::text("true")),
        &expect![[r#"field `command`: expected list of 1 to 1024 texts, got text "true""#]],
    );
}

#[test]
fn integers_are_checked() {
    let with = |key: &str, value| command().with(key, value);
    check(
        "batch",
        &with("cpu", Value::Int(-1)),
        &expect!["field `cpu`: expected integer from 0 to 1000000000, got integer -1"],
    );
    check(
        "batch",
        &with("memory", Value::Int(-1)),
        &expect!["field `memory`: expected integer of at least 0, got integer -1"],
    );
    check(
        "batch",
        &with("retries", Value::Int(16)),
        &expect!["field `retries`: expected integer from 0 to 15, got integer 16"],
    );
    check(
        "batch",
        &with("cpu", Value::Bool(true)),
        &expect!["field `cpu`: expected integer from 0 to 1000000000, got bool true"],
    );
}

#[test]
fn texts_are_checked() {
    let with = |value| command().with("name", value);
    check(
        "batch",
        &with(Value::text("x".repeat(129))),
        &expect!["field `name`: expected text of at most 128 bytes, got text of 129 bytes"],
    );
    check("batch", &with(Value::text("x".repeat(128))), &expect!["ok"]);
    check(
        "batch",
        &with(Value::Bytes(vec![1])),
        &expect!["field `name`: expected text of at most 128 bytes, got 1 bytes"],
    );
}

#[test]
fn bytes_are_checked() {
    let with = |value| command().with("request", value);
    check(
        "batch",
        &with(Value::Bytes(vec![0; 65])),
        &expect!["field `request`: expected at most 64 bytes, got 65 bytes"],
    );
    check(
        "batch",
        &with(Value::text("key")),
        &expect![[r#"field `request`: expected at most 64 bytes, got text "key""#]],
    );
}

#[test]
fn maps_of_texts_are_checked() {
    let number = BTreeMap::from([("A".into(), Value::Int(1))]);
    check(
        "batch",
        &command().with("env", Value::Map(number)),
        &expect!["field `env`: expected map of texts, got map of 1"],
    );
    check(
        "batch",
        &command().with("env", Value::List(vec![])),
        &expect!["field `env`: expected map of texts, got list of 0"],
    );
}

#[test]
fn flags_are_checked() {
    let spec = NamespaceSpec {
        name: "own".into(),
        preemptible: false,
        handler_type: "".into(),
        schema: vec![FieldReq::required("flag", FieldType::Bool)],
        durability: Durability::Logged,
    };
    assert_eq!(spec.validate(&WorkSpec::new().with("flag", Value::Bool(false))), Ok(()));
    expect!["field `flag`: expected bool, got integer 1"]
        .assert_eq(&spec.validate(&WorkSpec::new().with("flag", Value::Int(1))).unwrap_err().to_string());
}

#[test]
fn events_that_nobody_understands_are_kept_and_counted() {
    let registry = Registry::built_in();
    let event = |ns: &str, kind: &str, ver: u16| Event {
        hlc: hlc(1),
        ns: ns.into(),
        kind: kind.into(),
        ver,
        ctx: SysContext { job: Some(job_id(1, 1)), ..SysContext::default() },
        spec: WorkSpec::new(),
    };
    let unknown = [
        event("weather", "Rain", 1),
        event("batch", "JobPaused", 1),
        event("batch", "SubmitJob", 2),
        event("sys", "Murmur", 1),
        event("sys", "Grant", 3),
    ];
    let mut facts = Facts::bot();
    for (seq, event) in (1..).zip(&unknown) {
        let delta = registry.delta(dot(seq), event);
        assert_eq!(delta, Delta::Opaque(dot(seq), event.to_bytes()));
        assert_eq!(facts.absorb(delta.clone()), Touched::Nothing);
        assert_eq!(facts.absorb(delta), Touched::Nothing);
    }
    assert_eq!(facts.opaque_count(), unknown.len());
    assert_eq!(facts.job_count(), 0);
}

#[test]
fn events_that_lack_what_their_kind_needs_say_nothing() {
    let registry = Registry::built_in();
    let bare = |ns: &str, kind: &str| Event {
        hlc: hlc(1),
        ns: ns.into(),
        kind: kind.into(),
        ver: 1,
        ctx: SysContext::default(),
        spec: WorkSpec::new(),
    };
    for (ns, kind) in [
        ("batch", "SubmitJob"),
        ("batch", "JobStarted"),
        ("batch", "JobFinished"),
        ("sys", "Grant"),
        ("sys", "Void"),
        ("sys", "Seal"),
        ("sys", "Cancel"),
        ("monitor", "HardwareStats"),
    ] {
        assert_eq!(registry.delta(dot(1), &bare(ns, kind)), Delta::Nothing, "{kind}");
    }
}

#[test]
fn outcomes_survive_their_specs() {
    use crate::facts::Outcome;
    for outcome in [
        Outcome::Exit(-3),
        Outcome::Signal(9),
        Outcome::NotStarted(126, "permission denied".into()),
        Outcome::TimedOut,
        Outcome::Cancelled,
        Outcome::Lost,
    ] {
        let spec = report::outcome_spec(&outcome);
        assert_eq!(report::outcome_of(&spec), Some(outcome));
    }
    assert_eq!(report::outcome_of(&WorkSpec::new()), None);
    let huge = WorkSpec::new().with("exit", Value::Int(i64::MAX));
    assert_eq!(report::outcome_of(&huge), None);
}

#[test]
fn a_launch_tells_the_task_its_number_and_line() {
    let lines = Value::List(vec![Value::text("a"), Value::text("b")]);
    let env = BTreeMap::from([("K".into(), Value::text("V"))]);
    let spec = command()
        .with("lines", lines)
        .with("env", Value::Map(env))
        .with("cwd", Value::text("/tmp"))
        .with("stdin", Value::Bytes(vec![1]));
    let launch = batch::launch(&spec, 1, &log(1).node);
    let value = |key: &str| {
        let found = launch.env.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(launch.command, ["true"]);
    assert_eq!(value("K"), Some("V"));
    assert_eq!(value("STARLING_TASK"), Some("1"));
    assert_eq!(value("STARLING_LINE"), Some("b"));
    assert_eq!(launch.cwd.as_deref(), Some("/tmp"));
    assert_eq!(launch.stdin, Some(vec![1]));
    let beyond = batch::launch(&spec, 2, &log(1).node);
    assert!(beyond.env.iter().all(|(name, _)| name != "STARLING_LINE"));
}

#[test]
fn the_largest_array_still_makes_a_small_event() {
    let all = tasks(0, limits::TASKS_MAX - 1);
    let event = batch::submit_job(hlc(1), job_id(1, 1), all, 0, command());
    assert!(event.to_bytes().len() < 200);
}
