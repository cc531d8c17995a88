//! Golden vectors: every `(ns, kind, ver)` that was ever written, its bytes, and the Facts it folds to.
//!
//! Invariants: a vector never changes, for old logs hold these bytes for ever; new meaning is a new version with a new vector (DESIGN section 3).
//! Each file in `tests/golden` has the event's bytes on its first line and the Facts' on its second, in hex.

use super::*;
use crate::event::Entry;
use crate::facts::{Facts, Handler, Outcome, Submit, Usage};
use crate::ids::{Attempt, Dot, GatewayTerm, PoolName, Seat, Term, WorkerName};
use crate::namespace::{Registry, Voice, batch, monitor, simulation, sys};
use crate::testing::grant_id;

struct Vector {
    name: &'static str,
    event: Event,
    golden: &'static str,
}

macro_rules! vector {
    ($name:literal, $event:expr) => {
        Vector { name: $name, event: $event, golden: include_str!(concat!("../../../../tests/golden/", $name, ".hex")) }
    };
}

fn full_spec() -> WorkSpec {
    let env = BTreeMap::from([("LANG".into(), Value::text("C"))]);
    let words = ["sh", "-c", "echo é"].map(Value::text).to_vec();
    WorkSpec::new()
        .with("command", Value::List(words))
        .with("name", Value::text("demo"))
        .with("cpu", Value::Int(2_500))
        .with("memory", Value::Int(1 << 33))
        .with("env", Value::Map(env))
        .with("cwd", Value::text("/tmp"))
        .with("stdin", Value::Bytes(vec![0, 255]))
        .with("lines", Value::List(vec![Value::text("one"), Value::text("")]))
        .with("retries", Value::Int(3))
        .with("timeout_ms", Value::Int(60_000))
        .with("node", Value::text("wren"))
        .with("request", Value::Bytes(vec![1, 2, 3]))
}

fn finished(outcome: &Outcome) -> Event {
    Voice::default().finished(hlc(1_700), grant_id(job_id(1, 1), 2), tasks(1, 3), outcome, &Usage::default())
}

fn stats() -> WorkSpec {
    WorkSpec::new()
        .with("cpu_milli", Value::Int(900))
        .with("cpu_total_milli", Value::Int(2_000))
        .with("mem_used_bytes", Value::Int(1 << 20))
        .with("mem_total_bytes", Value::Int(1 << 34))
        .with("load_milli", Value::Int(1_250))
}

/// Every kind and version, by node 1, which owns job 1 and runs grant 2 of it.
fn vectors() -> Vec<Vector> {
    let job = job_id(1, 1);
    let grant = grant_id(job, 2);
    let reason = || Outcome::NotStarted(127, "command not found: frob".into());
    let seal = |outcome: &Outcome| sys::seal(hlc(1_800), job, Term(1), tasks(1, 3), outcome);
    let submit = batch::submit_job(hlc(1_100), job, tasks(1, 1_000), -5, full_spec());
    let usage = Usage { cpu_user_ms: 1_500, cpu_sys_ms: 0, wall_ms: 2_000, max_rss_bytes: 1 << 24 };
    let pair = WorkSpec::new()
        .with("env_cmd", Value::List(vec![Value::text("env")]))
        .with("policy_cmd", Value::List(["policy", "{port}"].map(Value::text).to_vec()))
        .with("alias", Value::text("cartpole-1"));
    let simulated = simulation::submit_simulation(hlc(1_100), job, tasks(1, 3), 0, pair);
    let voice = Voice::default();
    let broke = Outcome::Broke("its environment exited with code 3".into());
    let declaration = crate::namespace::declared::tests::health_check();
    let pooled = Seat { node: node(2), pool: Some(PoolName("docker;1000m".into())) };
    let adopted = Term::FIRST.adopted_by(&crate::testing::log(1).node);
    let token = Hash([5; 32]);
    let submit_of = |event: &Event| Submit::new(event, Handler::Pair);
    let simulation = Voice::of(&submit_of(&simulated));
    vec![
        vector!("sys-admit-1", sys::admit(hlc(1_000), membership_mac(&crate::testing::SECRET, &node(1)), "wren")),
        vector!("sys-grant-1", sys::grant(hlc(1_200), grant, &Seat::machine(node(2)), Attempt(1), tasks(1, 3))),
        vector!("sys-grant-2", sys::grant(hlc(1_200), grant, &pooled, Attempt(1), tasks(1, 3))),
        vector!("sys-claim-gateway-1", sys::claim_gateway(hlc(1_500), GatewayTerm(3))),
        vector!("sys-add-token-1", sys::add_token(hlc(1_510), token, "render farm")),
        vector!("sys-revoke-token-1", sys::revoke_token(hlc(1_520), token)),
        vector!("sys-void-1", sys::void(hlc(1_300), grant, Term::FIRST)),
        vector!("sys-void-2", sys::void(hlc(1_300), grant, adopted)),
        vector!("sys-adopt-1", sys::adopt(hlc(1_550), job.log, adopted)),
        vector!("sys-forget-1", sys::forget(hlc(1_560), node(2))),
        vector!("sys-drain-1", sys::drain(hlc(1_570), node(2), true, "new disk")),
        vector!("sys-seal-1-adopted", sys::seal(hlc(1_800), job, adopted, tasks(1, 3), &Outcome::Exit(0))),
        vector!("sys-seal-1-exit", seal(&Outcome::Exit(0))),
        vector!("sys-seal-1-not-started", seal(&reason())),
        vector!("sys-seal-1-lost", seal(&Outcome::Lost)),
        vector!("sys-seal-2-broke", seal(&broke)),
        vector!(
            "simulation-simulation-finished-1-broke",
            simulation.finished(hlc(1_700), grant, tasks(1, 3), &broke, &Usage::default())
        ),
        vector!("sys-register-namespace-1", sys::register_namespace(hlc(1_450), &declaration)),
        vector!("sys-cancel-1", sys::cancel(hlc(1_400), job)),
        vector!(
            "sys-retire-1",
            sys::retire(hlc(1_850), crate::testing::log(1), Term(1), &[1, 2, 3, 9].into_iter().collect())
        ),
        vector!("batch-submit-job-1", submit),
        vector!("batch-submit-job-1-least", batch::submit_job(hlc(1_100), job, tasks(1, 1), 0, command())),
        vector!("batch-job-started-1", Voice::default().started(hlc(1_600), grant, tasks(1, 3))),
        vector!("batch-job-started-2", voice.started_by(hlc(1_600), grant, tasks(1, 3), &WorkerName("w1".into()))),
        vector!("batch-job-finished-1-exit", finished(&Outcome::Exit(-1))),
        vector!("batch-job-finished-1-signal", finished(&Outcome::Signal(9))),
        vector!("batch-job-finished-1-not-started", finished(&reason())),
        vector!("batch-job-finished-1-timed-out", finished(&Outcome::TimedOut)),
        vector!("batch-job-finished-1-cancelled", finished(&Outcome::Cancelled)),
        vector!("batch-job-finished-1-lost", finished(&Outcome::Lost)),
        vector!("batch-job-finished-2", voice.finished(hlc(1_700), grant, tasks(1, 3), &Outcome::Exit(0), &usage)),
        vector!("simulation-submit-simulation-1", simulated),
        vector!("simulation-simulation-started-1", simulation.started(hlc(1_600), grant, tasks(1, 3))),
        vector!("simulation-port-allocated-1", simulation.port_allocated(hlc(1_650), grant, 2, 40_001, "127.0.0.1")),
        vector!(
            "simulation-simulation-finished-1",
            simulation.finished(hlc(1_700), grant, tasks(1, 3), &Outcome::Exit(1), &Usage::default())
        ),
        vector!(
            "simulation-simulation-finished-2",
            simulation.finished(hlc(1_700), grant, tasks(1, 3), &Outcome::Exit(1), &usage)
        ),
        vector!("monitor-hardware-stats-1", monitor::hardware_stats(hlc(1_900), stats())),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes with an independent implementation and encodes again: equal bytes mean that they were canonical in its eyes too.
pub(super) fn reencoded_by_ciborium(bytes: &[u8]) -> Vec<u8> {
    let value: ciborium::Value = ciborium::from_reader(bytes).unwrap();
    let mut again = Vec::new();
    ciborium::into_writer(&value, &mut again).unwrap();
    again
}

/// Whether the keys of every map ascend: numbers by value, texts by their bytes.
#[expect(clippy::wildcard_enum_match_arm, reason = "the type is another crate's and not exhaustive")]
fn keys_ascend(value: &ciborium::Value) -> bool {
    match value {
        ciborium::Value::Map(entries) => {
            let ascending = entries.windows(2).all(|pair| match (&pair[0].0, &pair[1].0) {
                (ciborium::Value::Integer(left), ciborium::Value::Integer(right)) => left < right,
                (ciborium::Value::Text(left), ciborium::Value::Text(right)) => left < right,
                _ => false,
            });
            ascending && entries.iter().all(|(_, value)| keys_ascend(value))
        }
        ciborium::Value::Array(items) => items.iter().all(keys_ascend),
        _ => true,
    }
}

#[test]
fn every_event_has_its_golden_bytes() {
    let mut wrong = String::new();
    for vector in vectors() {
        let bytes = vector.event.to_bytes();
        let dot = Dot { log: crate::testing::log(1), seq: Seq(1) };
        let mut facts = Facts::bot();
        facts.fold(dot, &Entry::Event(vector.event.clone()), &Registry::built_in());
        let actual = format!("{}\n{}\n", hex(&bytes), hex(&facts.to_bytes()));
        if actual != vector.golden {
            wrong.push_str(&format!("== tests/golden/{}.hex\n{actual}", vector.name));
        }
        assert_eq!(Event::from_bytes(&bytes).unwrap(), vector.event);
    }
    assert!(wrong.is_empty(), "bytes or meaning of an old version changed; add a new version instead:\n{wrong}");
}

#[test]
fn golden_events_are_canonical_to_another_implementation() {
    for vector in vectors() {
        let bytes = vector.event.to_bytes();
        assert_eq!(reencoded_by_ciborium(&bytes), bytes, "{}", vector.name);
        let value = ciborium::from_reader(bytes.as_slice()).unwrap();
        assert!(keys_ascend(&value), "{}", vector.name);
    }
}

#[test]
fn a_signed_batch_has_its_golden_bytes() {
    let mut author = Author::new(1);
    let first = author.open("wren");
    let second = author.say(5, 2);
    let actual = format!("{}\n{}\n", hex(first.bytes()), hex(second.bytes()));
    let golden = include_str!("../../../../tests/golden/batch.hex");
    assert_eq!(actual, golden, "== tests/golden/batch.hex\n{actual}");
    for batch in [first, second] {
        let (body, _) = batch.bytes().split_last_chunk::<SIGNATURE_BYTES>().unwrap();
        assert_eq!(reencoded_by_ciborium(body), body);
    }
}
