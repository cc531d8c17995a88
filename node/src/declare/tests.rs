//! Declarations as text: what is read, what is refused and how that is shown, and the example, which means the same in TOML and in Rust.

#[path = "../../examples/health_check/namespace.rs"]
mod namespace;

use expect_test::{Expect, expect};
use namespace::HealthCheck;
use starling_core::event::{Entry, Event, SysContext, Value, WorkSpec};
use starling_core::facts::{Delta, Facts, Outcome};
use starling_core::ids::{Dot, Epoch, GrantNo, JobId, JobNo, LogId, NodeId, Seq, Term};
use starling_core::lattice::IntervalSet;
use starling_core::namespace::declared::{Declaration, PROCESS, SubmitKinds};
use starling_core::namespace::{FieldReq, FieldType, Namespace, Registry, report};
use starling_core::time::Hlc;

use super::hub::HubSpec;
use super::{from_json, from_texts, from_toml, to_json, to_toml};

const EXAMPLE: &str = include_str!("../../examples/health_check.toml");

fn example() -> Declaration {
    from_toml(EXAMPLE).unwrap()
}

/// What becomes of the example when the first `old` in it is replaced.
fn refused(old: &str, new: &str, expected: &Expect) {
    assert!(EXAMPLE.contains(old), "{old}");
    expected.assert_eq(&from_toml(&EXAMPLE.replacen(old, new, 1)).unwrap_err().to_string());
}

#[test]
fn the_example_is_read_and_written_back() {
    let declaration = example();
    assert_eq!(declaration.phases, ["pending", "checking", "passed", "failed"]);
    assert_eq!(declaration.submit, SubmitKinds::One("SubmitHealthCheck".into()));
    assert_eq!(from_toml(&to_toml(&declaration)).unwrap(), declaration);
    assert_eq!(Declaration::from_bytes(&declaration.to_bytes()).unwrap(), declaration);
}

#[test]
fn the_order_of_tables_makes_no_other_declaration() {
    let (head, rules) = EXAMPLE.split_once("# What a relay reports.").unwrap();
    let (head, fields) = head.split_once("# What a submission says.").unwrap();
    let turned = format!("{head}# {rules}# {fields}");
    assert_eq!(from_toml(&turned).unwrap().id(), example().id());
}

#[test]
fn every_type_and_default_is_written_back() {
    let text = r#"
        name = "all"
        version = 7
        handler = "process"
        preemptible = true
        submit = "Submit*"
        fields.command = { type = "texts", min_items = 1, default = ["true", ""] }
        fields.flag = { type = "bool", default = false }
        fields.key = { type = "bytes", max_bytes = 3, default = "AP8=" }
        fields.level = { type = "int", max = 3 }
        fields.map = { type = "map", default = { b = "2", a = "1" } }
        fields.word = { type = "text", default = "a\n\"b\"" }
    "#;
    let declaration = from_toml(text).unwrap();
    assert_eq!((declaration.version, declaration.spec.preemptible), (7, true));
    assert_eq!((declaration.spec.handler_type.as_str(), &declaration.submit), (PROCESS, &SubmitKinds::Any));
    let default = |key: &str| declaration.spec.schema.iter().find(|field| field.key == key).unwrap().default.clone();
    assert_eq!(default("key"), Some(Value::Bytes(vec![0, 255])));
    assert_eq!(default("command"), Some(Value::List(vec![Value::text("true"), Value::text("")])));
    assert_eq!(from_toml(&to_toml(&declaration)).unwrap(), declaration);
}

#[test]
fn broken_toml_is_shown_where_it_breaks() {
    refused(
        "version = 1 ",
        "version = = ",
        &expect![[r#"
        line 6, column 11: extra `=`, expected nothing
          version = =                 # a changed file is a new version"#]],
    );
    refused(
        "[fields.url]",
        "[fields.url",
        &expect![[r#"
        line 14, column 12: unclosed table, expected `]`
          [fields.url"#]],
    );
    refused(
        "name = \"health_check\"",
        "",
        &expect![[r#"
        line 1, column 1: missing field `name`
          # A namespace without recompiling: `starling ns put health_check.toml`."#]],
    );
}

#[test]
fn keys_and_types_that_do_not_exist_are_shown() {
    refused(
        "preemptible = false",
        "preemptable = false",
        &expect![[r#"
        line 9, column 1: unknown field `preemptable`, expected one of `name`, `version`, `handler`, `durability`, `preemptible`, `phases`, `submit`, `fields`, `rules`
          preemptable = false"#]],
    );
    refused(
        "version = 1 ",
        "version = \"1\" ",
        &expect![[r#"
        line 6, column 11: invalid type: string "1", expected u32
          version = "1"                 # a changed file is a new version"#]],
    );
    refused(
        "version = 1 ",
        "version = -1 ",
        &expect![[r#"
        line 6, column 11: invalid value: integer `-1`, expected u32
          version = -1                 # a changed file is a new version"#]],
    );
    refused(
        "merge = \"max\"",
        "merge = \"max\", by = 1",
        &expect![[r#"
        line 35, column 66: unknown field `by`, expected `from` or `merge`
          registers.latency_ms_max = { from = "latency_ms", merge = "max", by = 1 } # max | last-writer | set | counter"#]],
    );
    refused(
        "type = \"int\"\nmin = 100",
        "type = \"float\"\nmin = 100",
        &expect![[r#"
        line 20, column 8: fields.expect_status.type: expected bool, int, text, bytes, texts or map, got `float`
          type = "float""#]],
    );
    refused(
        "max_bytes = 2048",
        "max = 2048",
        &expect![[r#"
        line 16, column 7: fields.url.max: expected no `max` in a field of type text, got one
          max = 2048"#]],
    );
    refused(
        "default = 200",
        "default = 200.5",
        &expect![[r#"
        line 23, column 11: fields.expect_status.default: expected integer from 100 to 599, got 200.5
          default = 200.5"#]],
    );
}

#[test]
fn words_that_mean_nothing_are_shown() {
    refused(
        "merge = \"max\"",
        "merge = \"most\"",
        &expect![[r#"
        line 35, column 59: rules.CheckPassed.registers.latency_ms_max.merge: expected max, last-writer, set or counter, got `most`
          registers.latency_ms_max = { from = "latency_ms", merge = "most" } # max | last-writer | set | counter"#]],
    );
    refused(
        "by = \"anyone\"",
        "by = \"everyone\"",
        &expect![[r#"
        line 50, column 6: rules.CheckNoted.by: expected executor or anyone, got `everyone`
          by = "everyone""#]],
    );
    refused(
        "outcome = \"success\"",
        "outcome = \"fine\"",
        &expect![[r#"
        line 31, column 11: rules.CheckPassed.outcome: expected "success", "failure" or { exit = "FIELD" }, got "fine"
          outcome = "fine"         # success | failure | { exit = "field" }; without one the task goes on"#]],
    );
    refused(
        "{ exit = \"code\" }",
        "{ exit = \"code\", signal = 9 }",
        &expect![[r#"
        line 40, column 1: rules.CheckFailed.outcome: expected "success", "failure" or { exit = "FIELD" }, got { exit = "code", signal = 9 }
          outcome = { exit = "code", signal = 9 }"#]],
    );
    refused(
        "\"logged\"",
        "\"durable\"",
        &expect![[r#"
        line 8, column 14: durability: expected logged or ephemeral, got `durable`
          durability = "durable""#]],
    );
}

#[test]
fn what_the_check_refuses_is_shown_where_it_stands() {
    refused(
        "\"logged\"",
        "\"ephemeral\"",
        &expect![[r#"
        line 8, column 14: durability: expected `logged`, got `ephemeral`, which is not supported for declared namespaces
          durability = "ephemeral""#]],
    );
    refused(
        "\"health_check\"",
        "\"batch\"",
        &expect![[r#"
        line 5, column 8: name: expected a name that is not built in, got `batch`
          name = "batch""#]],
    );
    refused(
        "phase = \"passed\"",
        "phase = \"pased\"",
        &expect![[r#"
        line 30, column 9: rules.CheckPassed.phase: expected one of the phases [`pending`, `checking`, `passed`, `failed`], got `pased`
          phase = "pased""#]],
    );
    refused(
        "[rules.CheckPassed]",
        "[rules.\"batch/JobFinished\"]",
        &expect![[r#"
        line 29, column 8: rules.batch/JobFinished: expected a kind of namespace `health_check`, named without a namespace, got `batch/JobFinished`, which touches namespace `batch`
          [rules."batch/JobFinished"]"#]],
    );
    refused(
        "{ from = \"latency_ms\"",
        "{ from = \"latency\"",
        &expect![[r#"
        line 35, column 37: rules.CheckPassed.registers.latency_ms_max.from: expected a field of rule `CheckPassed`, got `latency`
          registers.latency_ms_max = { from = "latency", merge = "max" } # max | last-writer | set | counter"#]],
    );
    refused(
        "{ from = \"reason\", merge = \"last-writer\" }",
        "{ from = \"reason\", merge = \"max\" }",
        &expect![[r#"
        line 45, column 34: rules.CheckFailed.registers.last_reason.from: expected a field of type int, got `reason`, text of at most 1024 bytes
          registers.last_reason = { from = "reason", merge = "max" }"#]],
    );
    refused(
        "default = 200",
        "default = 20",
        &expect![[r#"
        line 23, column 11: fields.expect_status.default: expected integer from 100 to 599, got integer 20
          default = 20"#]],
    );
    refused(
        "handler = \"relay\"",
        "handler = \"process\"",
        &expect![[r#"
        line 7, column 11: handler: expected `relay`, or `process` and a field `command`, got `process` without it
          handler = "process"           # relay: a program outside | process: `command`, run by the node"#]],
    );
}

fn hub(json: &str) -> HubSpec {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_hubs_spec_becomes_a_declaration() {
    let spec = hub(r#"{"preemptible": true, "handler_type": "subprocess", "version": 3, "schema": [
            {"key": "url", "required": true, "type": "string"},
            {"key": "retries", "required": false, "type": "string"},
            {"key": "load", "required": false, "type": "float"},
            {"key": "colour", "required": false, "type": "Colour"}]}"#);
    let declaration = spec.declare("health-check").unwrap();
    let text = FieldType::Text { bytes_max: 4_096 };
    let schema = vec![
        FieldReq::optional("colour", text),
        FieldReq::optional("load", FieldType::Int { min: i64::MIN, max: i64::MAX }),
        FieldReq::optional("retries", FieldType::Int { min: 0, max: 15 }),
        FieldReq::required("url", text),
    ];
    assert_eq!(declaration.spec.schema, schema);
    assert_eq!((declaration.version, declaration.spec.preemptible), (1, true));
    assert!(declaration.rules.is_empty() && declaration.is_submit("SubmitJob"));
    assert_eq!(from_toml(&to_toml(&declaration)).unwrap(), declaration);
}

#[test]
fn a_hubs_spec_that_cannot_be_kept_is_refused() {
    let refused = |name: &str, json: &str| hub(json).declare(name).unwrap_err().to_string();
    expect!["name: expected 1 to 64 lower-case letters, digits, `_` and `-`, got `Batch`"]
        .assert_eq(&refused("Batch", "{}"));
    expect!["durability: expected `logged`, got `ephemeral`, which is not supported for declared namespaces"]
        .assert_eq(&refused("x", r#"{"durability": "ephemeral"}"#));
    expect!["fields: expected each name once, got `a` twice"]
        .assert_eq(&refused("x", r#"{"schema": [{"key": "a"}, {"key": "a"}]}"#));
    expect!["fields.a b: expected a name of 1 to 64 letters, digits, `_`, `-` and `.`, got `a b`"]
        .assert_eq(&refused("x", r#"{"schema": [{"key": "a b"}]}"#));
}

/// Choices that follow from a seed.
struct Chooser(u64);

impl Chooser {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        let at = self.below(of.len() as u64);
        of[usize::try_from(at).unwrap()].clone()
    }
}

fn log(author: u64) -> LogId {
    LogId { node: NodeId([u8::try_from(author).unwrap(); 32]), epoch: Epoch(1) }
}

/// Fields of all kinds, of which each spec gets some: most fit, some do not.
fn any_spec(chooser: &mut Chooser, kind: &str) -> WorkSpec {
    let number = Value::Int(i64::try_from(chooser.below(300)).unwrap() - 2);
    let text = Value::text(chooser.one(&["up", "down", "slow"]));
    let fields: &[(&str, Value)] = match kind {
        "SubmitHealthCheck" => &[("url", text.clone()), ("expect_status", Value::Int(204))],
        "CheckPassed" => &[("latency_ms", number.clone()), ("body_bytes", number.clone())],
        "CheckFailed" => &[("code", number.clone()), ("reason", text), ("status", number)],
        "CheckNoted" => &[("note", text)],
        "JobFinished" => return report::outcome_spec(&chooser.one(&[Outcome::Exit(2), Outcome::Lost])),
        _ => &[],
    };
    let mut spec = WorkSpec::new();
    for (key, value) in fields {
        if chooser.below(4) > 0 {
            spec = spec.with(key, value.clone());
        }
    }
    if chooser.below(12) == 0 { spec.with("speed", Value::Int(1)) } else { spec }
}

fn any_event(chooser: &mut Chooser, schema: &Declaration) -> (Dot, Event) {
    const KINDS: [&str; 8] = [
        "SubmitHealthCheck",
        "CheckStarted",
        "CheckPassed",
        "CheckFailed",
        "CheckNoted",
        "JobStarted",
        "JobFinished",
        "CheckSkipped",
    ];
    let kind = chooser.one(&KINDS);
    let first = u32::try_from(chooser.below(5)).unwrap();
    let more = u32::try_from(chooser.below(4)).unwrap();
    let grant = u32::try_from(chooser.below(3)).unwrap();
    let ctx = SysContext {
        job: (chooser.below(20) > 0).then(|| JobId { log: log(1 + chooser.below(2)), no: JobNo(1 + chooser.below(2)) }),
        tasks: if chooser.below(8) == 0 { IntervalSet::new() } else { IntervalSet::from_range(first, first + more) },
        grant: (grant > 0).then_some(GrantNo { term: Term(1), no: grant }),
        schema: Some(schema.id()),
        ..SysContext::default()
    };
    let event = Event {
        hlc: Hlc { wall_ms: chooser.below(60), count: 0 },
        ns: "health_check".into(),
        kind: kind.into(),
        ver: if chooser.below(25) == 0 { 9 } else { 1 },
        ctx,
        spec: any_spec(chooser, kind),
    };
    (Dot { log: log(1 + chooser.below(3)), seq: Seq(1 + chooser.below(200)) }, event)
}

#[test]
fn the_example_means_the_same_in_toml_and_in_rust() {
    let (declaration, written) = (example(), HealthCheck::default());
    assert_eq!(written.spec(), &declaration.spec);
    let mut registry = Registry::built_in();
    registry.add(Box::new(HealthCheck::default()));
    let (mut declared, mut coded) = (Facts::bot(), Facts::bot());
    let mut chooser = Chooser(1);
    let (mut jobs, mut silent, mut kept) = (0, 0, 0);
    for _ in 0..4_000 {
        let (dot, event) = any_event(&mut chooser, &declaration);
        let delta = declaration.delta(dot, &event);
        assert_eq!(written.delta(dot, &event), delta, "{event:?}");
        jobs += u32::from(matches!(delta, Delta::Job(..)));
        silent += u32::from(delta == Delta::Nothing);
        kept += u32::from(matches!(delta, Delta::Opaque(..)));
        declared.absorb(delta);
        coded.fold(dot, &Entry::Event(event), &registry);
    }
    assert!(jobs > 1_000 && silent > 500 && kept > 50, "{jobs} {silent} {kept}");
    assert_eq!(declared.to_bytes(), coded.to_bytes());
    assert_eq!(declared.root(), coded.root());
}

#[test]
fn values_come_back_from_json() {
    let map = Value::Map([("a".into(), Value::text("b"))].into_iter().collect());
    let values = [
        (FieldType::Bool, Value::Bool(true)),
        (FieldType::Int { min: 0, max: 9 }, Value::Int(-7)),
        (FieldType::Text { bytes_max: 9 }, Value::text("AAAA")),
        (FieldType::Bytes { bytes_max: 9 }, Value::Bytes(vec![0, 255])),
        (FieldType::Texts { min: 0, max: 9 }, Value::List(vec![Value::text("x"), Value::text("y")])),
        (FieldType::TextMap, map),
    ];
    for (field_type, value) in values {
        assert_eq!(from_json(Some(field_type), &to_json(&value)), Ok(value));
    }
    let read = |text: &str| from_json(None, &serde_json::from_str(text).unwrap());
    assert_eq!(read("[1, null]"), Err("null".to_owned()));
    assert_eq!(read("1.5"), Err("number 1.5".to_owned()));
    assert_eq!(read("18446744073709551615"), Err("number 18446744073709551615".to_owned()));
}

#[test]
fn texts_are_read_as_their_type_asks() {
    let (int, texts) = (FieldType::Int { min: 0, max: 9 }, FieldType::Texts { min: 0, max: 9 });
    let list = |items: &[&str]| Value::List(items.iter().map(|item| Value::text(*item)).collect());
    assert_eq!(from_texts(int, &["42"]), Ok(Value::Int(42)));
    // The schema's refusal then shows what was written.
    assert_eq!(from_texts(int, &["many"]), Ok(Value::text("many")));
    assert_eq!(from_texts(int, &["1", "2"]), Err("2 values".to_owned()));
    assert_eq!(from_texts(FieldType::Bool, &["true"]), Ok(Value::Bool(true)));
    assert_eq!(from_texts(FieldType::Text { bytes_max: 9 }, &["42"]), Ok(Value::text("42")));
    assert_eq!(from_texts(FieldType::Bytes { bytes_max: 9 }, &["AP8="]), Ok(Value::Bytes(vec![0, 255])));
    assert_eq!(from_texts(texts, &["one"]), Ok(list(&["one"])));
    assert_eq!(from_texts(texts, &["one", "[two]"]), Ok(list(&["one", "[two]"])));
    assert_eq!(from_texts(texts, &[r#"["one", "two"]"#]), Ok(list(&["one", "two"])));
    let map = Value::Map([("a".into(), Value::text("b"))].into_iter().collect());
    assert_eq!(from_texts(FieldType::TextMap, &[r#"{"a": "b"}"#]), Ok(map));
    assert_eq!(from_texts(FieldType::TextMap, &["a"]), Ok(Value::text("a")));
}
