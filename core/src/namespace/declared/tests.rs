//! Declared namespaces: what a declaration may say, its bytes, what it takes from a submission and a report, and what its events fold to.

mod delta;
mod golden;

use expect_test::{Expect, expect};

use super::*;
use crate::limits;
use crate::namespace::{Durability, FieldType};

fn int(min: i64, max: i64) -> FieldType {
    FieldType::Int { min, max }
}

fn register(register: &str, field: &str, policy: Policy) -> RegisterRule {
    RegisterRule { register: register.into(), field: field.into(), policy }
}

/// A declaration that uses everything: checks of a web server, made by a relay.
pub(crate) fn health_check() -> Declaration {
    let text = FieldType::Text { bytes_max: 512 };
    let passed = Rule {
        phase: Some("passed".into()),
        outcome: Some(Ends::Success),
        registers: vec![register("latency_ms_max", "latency_ms", Policy::Max)],
        labels: vec![("health".into(), "good".into())],
        fields: vec![FieldReq::required("latency_ms", int(0, i64::MAX))],
        ..Rule::new("CheckPassed")
    };
    let failed = Rule {
        phase: Some("failed".into()),
        outcome: Some(Ends::ExitFrom("code".into())),
        registers: vec![register("codes", "code", Policy::Set), register("reason", "reason", Policy::Last)],
        labels: vec![("health".into(), "bad".into())],
        fields: vec![
            FieldReq::optional("code", int(1, 255)).with_default(Value::Int(1)),
            FieldReq::optional("reason", text),
        ],
        ..Rule::new("CheckFailed")
    };
    let noted = Rule {
        by: Speaker::Anyone,
        phase: Some("noted".into()),
        registers: vec![register("weight", "weight", Policy::Counter)],
        fields: vec![FieldReq::required("weight", int(-9, 9))],
        ..Rule::new("CheckNoted")
    };
    let started = Rule { phase: Some("checking".into()), ..Rule::new(report::STARTED) };
    Declaration {
        spec: NamespaceSpec {
            name: "health_check".into(),
            preemptible: false,
            handler_type: RELAY.into(),
            schema: vec![
                FieldReq::optional("expect_status", int(100, 599)).with_default(Value::Int(200)),
                FieldReq::required("url", text),
            ],
            durability: Durability::Logged,
        },
        version: 1,
        phases: ["noted", "checking", "passed", "failed"].map(Into::into).to_vec(),
        submit: SubmitKinds::One("SubmitHealthCheck".into()),
        rules: vec![failed, noted, passed, started],
    }
}

/// The least that a hub's program declares.
fn hub_style() -> Declaration {
    Declaration {
        spec: NamespaceSpec { name: "hub-style".into(), schema: vec![], ..health_check().spec },
        version: 1,
        phases: vec![],
        submit: SubmitKinds::Any,
        rules: vec![],
    }
}

fn refused(change: impl FnOnce(&mut Declaration), expected: &Expect) {
    let mut declaration = health_check();
    change(&mut declaration);
    let error = declaration.check().unwrap_err();
    expected.assert_eq(&error.to_string());
    assert!(Declaration::from_bytes(&declaration.to_bytes()).is_err(), "bytes are checked too");
}

/// The rule about failed, noted and passed checks and about starts.
const FAILED: usize = 0;
const NOTED: usize = 1;
const PASSED: usize = 2;
const STARTED: usize = 3;

#[test]
fn sound_declarations_are_taken() {
    assert_eq!(health_check().check(), Ok(()));
    assert_eq!(hub_style().check(), Ok(()));
}

#[test]
fn names_are_checked() {
    let name = |name: &'static str| move |declaration: &mut Declaration| declaration.spec.name = name.into();
    refused(name(""), &expect!["name: expected 1 to 64 lower-case letters, digits, `_` and `-`, got ``"]);
    refused(name("Health"), &expect!["name: expected 1 to 64 lower-case letters, digits, `_` and `-`, got `Health`"]);
    refused(name("sys"), &expect!["name: expected a name that is not built in, got `sys`"]);
    refused(name("simulation"), &expect!["name: expected a name that is not built in, got `simulation`"]);
    refused(|it| it.version = 0, &expect!["version: expected integer of at least 1, got 0"]);
    refused(
        |it| it.spec.durability = Durability::Ephemeral,
        &expect!["durability: expected `logged`, got `ephemeral`, which is not supported for declared namespaces"],
    );
    refused(|it| it.spec.handler_type = "gpu".into(), &expect!["handler: expected `relay` or `process`, got `gpu`"]);
}

#[test]
fn rules_that_touch_another_namespace_are_refused() {
    for kind in ["batch/JobFinished", "batch.JobFinished", "batch:JobFinished"] {
        let mut declaration = health_check();
        declaration.rules = vec![Rule::new(kind)];
        let error = declaration.check().unwrap_err();
        assert!(error.found.contains("touches namespace `batch`"), "{error}");
        assert_eq!(error.place, ["rules", kind]);
    }
    refused(
        |it| it.submit = SubmitKinds::One("batch/SubmitJob".into()),
        &expect![
            "submit: expected a kind of namespace `health_check`, named without a namespace, got `batch/SubmitJob`, which touches namespace `batch`"
        ],
    );
}

#[test]
fn rules_are_checked() {
    refused(
        |it| it.rules[PASSED].phase = Some("done".into()),
        &expect![
            "rules.CheckPassed.phase: expected one of the phases [`noted`, `checking`, `passed`, `failed`], got `done`"
        ],
    );
    refused(
        |it| it.rules[FAILED].outcome = Some(Ends::ExitFrom("reason".into())),
        &expect!["rules.CheckFailed.outcome: expected a field of type int, got `reason`, text of at most 512 bytes"],
    );
    refused(
        |it| it.rules[FAILED].fields[0].default = None,
        &expect!["rules.CheckFailed.outcome: expected a field that is required or has a default, got `code`"],
    );
    refused(
        |it| it.rules[NOTED].outcome = Some(Ends::Success),
        &expect!["rules.CheckNoted.outcome: expected none in a rule by anyone: only executors end tasks, got one"],
    );
    refused(
        |it| it.rules.swap(0, 1),
        &expect!["rules: expected names in ascending order, got `CheckNoted` before `CheckFailed`"],
    );
    refused(
        |it| it.rules[NOTED].kind = "CheckFailed".into(),
        &expect!["rules: expected each name once, got `CheckFailed` twice"],
    );
    refused(
        |it| it.submit = SubmitKinds::One("CheckPassed".into()),
        &expect!["rules.CheckPassed: expected a kind that submits no jobs, got `CheckPassed`"],
    );
    refused(
        |it| it.rules[STARTED].outcome = Some(Ends::Success),
        &expect!["rules.JobStarted.outcome: expected none for a standard report, which says it itself, got one"],
    );
    refused(
        |it| it.rules[STARTED].fields = vec![FieldReq::required("pid", int(1, 9))],
        &expect!["rules.JobStarted.fields.pid: expected an optional field in a standard report, got a required one"],
    );
}

#[test]
fn registers_and_labels_are_checked() {
    refused(
        |it| it.rules[PASSED].registers[0].field = "speed".into(),
        &expect![
            "rules.CheckPassed.registers.latency_ms_max.from: expected a field of rule `CheckPassed`, got `speed`"
        ],
    );
    refused(
        |it| it.rules[FAILED].registers[1].policy = Policy::Max,
        &expect![
            "rules.CheckFailed.registers.reason.from: expected a field of type int, got `reason`, text of at most 512 bytes"
        ],
    );
    refused(
        |it| it.rules[PASSED].registers[0] = register("codes", "latency_ms", Policy::Counter),
        &expect!["rules.CheckPassed.registers.codes.merge: expected `set`, as in rule `CheckFailed`, got `counter`"],
    );
    refused(
        |it| it.rules[PASSED].labels[0].1 = "x".repeat(257).into(),
        &expect!["rules.CheckPassed.labels.health: expected text of at most 256 bytes, got text of 257 bytes"],
    );
    refused(
        |it| it.rules[PASSED].labels[0].0 = "batch/health".into(),
        &expect![
            "rules.CheckPassed.labels.batch/health: expected a name of 1 to 64 letters, digits, `_`, `-` and `.`, got `batch/health`"
        ],
    );
}

#[test]
fn fields_are_checked() {
    refused(
        |it| it.spec.schema[0].default = Some(Value::Int(99)),
        &expect!["fields.expect_status.default: expected integer from 100 to 599, got integer 99"],
    );
    refused(
        |it| it.spec.schema[0].field_type = int(2, 1),
        &expect!["fields.expect_status: expected bounds that some value fits, got integer from 2 to 1"],
    );
    refused(
        |it| it.spec.schema.insert(0, FieldReq::optional("cpu", FieldType::Bool)),
        &expect!["fields.cpu: expected integer from 0 to 1000000000, as for every job, got bool"],
    );
    refused(
        |it| it.spec.handler_type = PROCESS.into(),
        &expect!["handler: expected `relay`, or `process` and a field `command`, got `process` without it"],
    );
    let command = FieldReq::optional("command", FieldType::Texts { min: 1, max: 9 });
    refused(
        |it| {
            it.spec.handler_type = PROCESS.into();
            it.spec.schema.insert(0, command.clone());
        },
        &expect![
            "fields.command: expected a required list of at least 1 text, as handler `process` needs, got an optional one"
        ],
    );
    let mut process = health_check();
    process.spec.handler_type = PROCESS.into();
    process.spec.schema.insert(0, FieldReq { required: true, ..command });
    assert_eq!(process.check(), Ok(()));
    assert_eq!(process.handler(), Handler::Process);
}

#[test]
fn bounds_are_kept() {
    refused(
        |it| it.phases = (0..65).map(|n| SmolStr::from(n.to_string())).collect(),
        &expect!["phases: expected at most 64 entries, got 65"],
    );
    refused(|it| it.phases.push("failed".into()), &expect!["phases: expected each phase once, got `failed` twice"]);
    let mut large = health_check();
    large.rules = (100..200)
        .map(|n| Rule { labels: vec![("k".into(), "v".repeat(99).into())], ..Rule::new(&format!("Kind{n}")) })
        .collect();
    let error = large.check().unwrap_err().to_string();
    assert!(error.starts_with("declaration: expected at most 8192 bytes when encoded, got "), "{error}");
    assert!(Declaration::from_bytes(&large.to_bytes()).is_err());
    assert!(large.to_bytes().len() > limits::DECLARATION_BYTES_MAX);
}

#[test]
fn bytes_read_back_to_what_was_written() {
    for declaration in [health_check(), hub_style()] {
        let bytes = declaration.to_bytes();
        assert_eq!(Declaration::from_bytes(&bytes).unwrap(), declaration);
    }
    assert_ne!(health_check().id(), hub_style().id());
    let newer = Declaration { version: 2, ..health_check() };
    assert_ne!(newer.id(), health_check().id());
}

#[test]
fn damaged_bytes_are_refused_or_another_declaration() {
    let bytes = health_check().to_bytes();
    for at in 0..bytes.len() {
        assert!(Declaration::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            if let Ok(other) = Declaration::from_bytes(&damaged) {
                assert_ne!(other, health_check());
                assert_eq!(other.to_bytes(), damaged, "one declaration, one encoding");
            }
        }
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(Declaration::from_bytes(&longer).is_err());
}

#[test]
fn numbers_that_take_more_bytes_than_they_need_are_refused() {
    let bytes = health_check().to_bytes();
    // The version, 1, right after the name, as a number of two bytes.
    let at = bytes.windows(12).position(|window| window == b"health_check").unwrap() + 12;
    assert_eq!(bytes[at], 1);
    let mut wide = bytes[..at].to_vec();
    wide.extend([0x18, 1]);
    wide.extend(&bytes[at + 1..]);
    expect!["declaration: expected canonical bytes, got another encoding"]
        .assert_eq(&Declaration::from_bytes(&wide).unwrap_err().to_string());
}

#[test]
fn a_submission_gets_defaults_and_is_checked() {
    let declaration = health_check();
    let url = WorkSpec::new().with("url", Value::text("http://127.0.0.1/"));
    let complete = declaration.complete(url.clone().with("alias", Value::text("batch-001"))).unwrap();
    assert_eq!(complete.int("expect_status"), Some(200));
    assert_eq!(complete.text("alias").map(SmolStr::as_str), Some("batch-001"));
    let own = declaration.complete(url.clone().with("expect_status", Value::Int(404))).unwrap();
    assert_eq!(own.int("expect_status"), Some(404));
    let refusal = |spec: WorkSpec| declaration.complete(spec).unwrap_err().to_string();
    expect!["field `url`: expected text of at most 512 bytes, got nothing"].assert_eq(&refusal(WorkSpec::new()));
    expect!["field `expect_status`: expected integer from 100 to 599, got integer 99"]
        .assert_eq(&refusal(url.clone().with("expect_status", Value::Int(99))));
    expect!["field `retries`: expected integer from 0 to 15, got integer 16"]
        .assert_eq(&refusal(url.clone().with("retries", Value::Int(16))));
    expect!["field `speed`: expected a field of namespace `health_check`, got an unknown one"]
        .assert_eq(&refusal(url.with("speed", Value::Int(16))));
}

#[test]
fn reports_are_checked_before_they_are_logged() {
    let declaration = health_check();
    let check = |kind: &str, spec: WorkSpec| declaration.check_event(kind, &spec);
    let with = |key: &str, value| WorkSpec::new().with(key, value);
    assert_eq!(check("CheckPassed", with("latency_ms", Value::Int(3))), Ok(Some(Outcome::Exit(0))));
    assert_eq!(check("CheckFailed", WorkSpec::new()), Ok(Some(Outcome::Exit(1))));
    assert_eq!(check("CheckFailed", with("code", Value::Int(7))), Ok(Some(Outcome::Exit(7))));
    assert_eq!(check("CheckNoted", with("weight", Value::Int(7))), Ok(None));
    assert_eq!(check("JobStarted", WorkSpec::new()), Ok(None));
    assert_eq!(check("JobFinished", with("signal", Value::Int(9))), Ok(Some(Outcome::Signal(9))));
    assert_eq!(check("JobFinished", WorkSpec::new()), Err(EventError::NoOutcome));
    let refusal = |kind: &str, spec: WorkSpec| check(kind, spec).unwrap_err().to_string();
    expect!["field `latency_ms`: expected integer of at least 0, got text \"fast\""]
        .assert_eq(&refusal("CheckPassed", with("latency_ms", Value::text("fast"))));
    expect!["field `speed`: expected a field of kind `CheckFailed`, got an unknown one"]
        .assert_eq(&refusal("CheckFailed", with("speed", Value::Int(1))));
    expect!["field `exit`: expected a field of kind `JobStarted`, got an unknown one"]
        .assert_eq(&refusal("JobStarted", with("exit", Value::Int(1))));
    expect!["kind `SubmitHealthCheck` submits jobs: it is not reported"]
        .assert_eq(&refusal("SubmitHealthCheck", WorkSpec::new()));
    expect!["kind `Check`: expected one of `CheckFailed`, `CheckNoted`, `CheckPassed`, `JobStarted`, `JobFinished`, got one that namespace `health_check` has no rule for"]
        .assert_eq(&refusal("Check", WorkSpec::new()));
}

#[test]
fn hub_namespaces_submit_by_any_kind_that_says_so() {
    let hub = hub_style();
    assert!(hub.is_submit("SubmitJob") && hub.is_submit("SubmitCheck") && !hub.is_submit("CheckSubmit"));
    assert_eq!(hub.check_event("SubmitX", &WorkSpec::new()), Err(EventError::Submission("SubmitX".into())));
    assert!(!health_check().is_submit("SubmitJob"));
}
