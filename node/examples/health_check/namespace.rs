//! The namespace of `health_check.toml`, written in Rust.
//!
//! Invariants: the same events fold to the same Facts by either; a test proves it.
//! Does not: run anything (the relay does).

use std::collections::{BTreeMap, BTreeSet};

use starling_core::event::{Event, Value, WorkSpec};
use starling_core::facts::state::{Key, Merged, Phase, Register, State, Written};
use starling_core::facts::{Delta, Extra, Handler, Job, Outcome, Run, Submit};
use starling_core::ids::{Dot, JobId};
use starling_core::lattice::{Lattice, Max, VecMap};
use starling_core::namespace::{Durability, FieldReq, FieldType, Namespace, NamespaceSpec, opaque, report};

/// The namespace.
#[derive(Debug)]
pub(crate) struct HealthCheck {
    spec: NamespaceSpec,
    passed: NamespaceSpec,
    failed: NamespaceSpec,
    noted: NamespaceSpec,
}

fn spec(name: &str, schema: Vec<FieldReq>) -> NamespaceSpec {
    NamespaceSpec {
        name: name.into(),
        preemptible: false,
        handler_type: "relay".into(),
        schema,
        durability: Durability::Logged,
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        let text = |bytes_max| FieldType::Text { bytes_max };
        let natural = FieldType::Int { min: 0, max: i64::MAX };
        let status = FieldType::Int { min: 100, max: 599 };
        let code = FieldType::Int { min: 1, max: 255 };
        Self {
            spec: spec(
                "health_check",
                vec![
                    FieldReq::optional("expect_status", status).with_default(Value::Int(200)),
                    FieldReq::required("url", text(2_048)),
                ],
            ),
            passed: spec(
                "CheckPassed",
                vec![FieldReq::optional("body_bytes", natural), FieldReq::required("latency_ms", natural)],
            ),
            failed: spec(
                "CheckFailed",
                vec![
                    FieldReq::optional("code", code),
                    FieldReq::optional("reason", text(1_024)),
                    FieldReq::optional("status", status),
                ],
            ),
            noted: spec("CheckNoted", vec![FieldReq::required("note", text(256))]),
        }
    }
}

impl Namespace for HealthCheck {
    fn spec(&self) -> &NamespaceSpec {
        &self.spec
    }

    fn delta(&self, dot: Dot, event: &Event) -> Delta {
        if report::is_standard(&event.kind) {
            return report::delta(dot, event);
        }
        if event.ver != 1 {
            return opaque(dot, event);
        }
        let Some(id) = event.ctx.job else {
            return Delta::Nothing;
        };
        let job = match event.kind.as_str() {
            "SubmitHealthCheck" => submitted(id, dot, event),
            "CheckStarted" if event.spec == WorkSpec::new() => started(dot, event),
            "CheckPassed" if fits(&self.passed, event) => passed(dot, event),
            "CheckFailed" if fits(&self.failed, event) => failed(dot, event),
            "CheckNoted" if fits(&self.noted, event) => noted(event),
            _ => None,
        };
        job.map_or(Delta::Nothing, |job| Delta::Job(id, Box::new(job)))
    }
}

fn fits(fields: &NamespaceSpec, event: &Event) -> bool {
    fields.validate(&event.spec).is_ok()
}

fn submitted(id: JobId, dot: Dot, event: &Event) -> Option<Job> {
    let is_owned = id.log == dot.log && !event.ctx.tasks.is_empty();
    is_owned.then(|| Job::submitted(Submit::new(event, Handler::Relay)))
}

fn started(dot: Dot, event: &Event) -> Option<Job> {
    reported(dot, event, None, phase(event, 1, "checking"))
}

fn passed(dot: Dot, event: &Event) -> Option<Job> {
    let mut state = phase(event, 2, "passed");
    label(&mut state, dot, event, "good");
    let body_bytes = event.spec.int("body_bytes").unwrap_or(0);
    register(&mut state, "body_bytes_sum", Register::Counter(BTreeMap::from([(dot, body_bytes)])));
    register(&mut state, "latency_ms_max", Register::Max(event.spec.int("latency_ms")?));
    reported(dot, event, Some(Outcome::Exit(0)), state)
}

fn failed(dot: Dot, event: &Event) -> Option<Job> {
    let mut state = phase(event, 3, "failed");
    label(&mut state, dot, event, "bad");
    if let Some(reason) = event.spec.text("reason") {
        let written = Written { hlc: event.hlc, dot, value: Value::Text(reason.clone()) };
        register(&mut state, "last_reason", Register::Last(written));
    }
    if let Some(status) = event.spec.field("status") {
        register(&mut state, "statuses", Register::Set(BTreeSet::from([status.clone()])));
    }
    let code = i32::try_from(event.spec.int("code").unwrap_or(1)).ok()?;
    reported(dot, event, Some(Outcome::Exit(code)), state)
}

/// Anybody may note something, but not in an executor's place.
fn noted(event: &Event) -> Option<Job> {
    let note = event.spec.field("note")?;
    let mut state = State::default();
    register(&mut state, "notes", Register::Set(BTreeSet::from([note.clone()])));
    event.ctx.grant.is_none().then(|| Job::remarked(state))
}

fn reported(dot: Dot, event: &Event, outcome: Option<Outcome>, state: State) -> Option<Job> {
    if outcome.is_some() && event.ctx.tasks.is_empty() {
        return None;
    }
    let run: Run = report::run(event, outcome).with(Extra { state, ..Extra::default() });
    Some(Job::reported(event.ctx.grant?, dot.log.node, run))
}

fn phase(event: &Event, rank: u16, name: &str) -> State {
    let phases = VecMap::one(Phase { rank, name: name.into() }, event.ctx.tasks.clone());
    State { phases, ..State::default() }
}

fn register(state: &mut State, name: &str, register: Register) {
    let _ = state.registers.join(VecMap::one(Key(name.into()), Merged(Some(register))));
}

fn label(state: &mut State, dot: Dot, event: &Event, health: &str) {
    let written = Written { hlc: event.hlc, dot, value: Value::text(health) };
    state.labels = VecMap::one(Key("health".into()), Max::new(written));
}
