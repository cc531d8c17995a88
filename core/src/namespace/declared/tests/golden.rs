//! Golden vectors: a declaration's bytes and hash, and what its events add to a job.
//!
//! Invariants: a vector never changes: logs hold these declarations and events for ever.
//! `declared-health-check.hex` has the bytes on its first line and the hash on its second; the others the event's bytes, then the id and the delta of its job.

use super::delta::{dot, granted, submission};
use super::*;
use crate::event::Event;
use crate::facts::Delta;

struct Vector {
    name: &'static str,
    author: u8,
    event: Event,
    golden: &'static str,
}

macro_rules! vector {
    ($name:literal, $author:expr, $event:expr) => {
        Vector {
            name: $name,
            author: $author,
            event: $event,
            golden: include_str!(concat!("../../../../../tests/golden/", $name, ".hex")),
        }
    };
}

fn vectors() -> Vec<Vector> {
    let with = |key: &str, value| WorkSpec::new().with(key, value);
    let finished = granted(report::FINISHED, report::outcome_spec(&Outcome::Exit(3)));
    let down = with("reason", Value::text("refused")).with("code", Value::Int(7));
    let mut noted = granted("CheckNoted", with("weight", Value::Int(-4)));
    noted.ctx.grant = None;
    vec![
        vector!("declared-submit-1", 1, submission()),
        vector!("declared-job-started-1", 2, granted(report::STARTED, WorkSpec::new())),
        vector!("declared-job-finished-1", 2, finished),
        vector!("declared-check-passed-1", 2, granted("CheckPassed", with("latency_ms", Value::Int(12)))),
        vector!("declared-check-failed-1", 2, granted("CheckFailed", down)),
        vector!("declared-check-noted-1", 3, noted),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn reencoded_by_ciborium(bytes: &[u8]) -> Vec<u8> {
    let value: ciborium::Value = ciborium::from_reader(bytes).unwrap();
    let mut again = Vec::new();
    ciborium::into_writer(&value, &mut again).unwrap();
    again
}

#[test]
fn a_declaration_has_its_golden_bytes_and_hash() {
    let bytes = health_check().to_bytes();
    let actual = format!("{}\n{}\n", hex(&bytes), health_check().id().to_hex());
    let golden = include_str!("../../../../../tests/golden/declared-health-check.hex");
    assert_eq!(actual, golden, "== tests/golden/declared-health-check.hex\n{actual}");
    assert_eq!(reencoded_by_ciborium(&bytes), bytes);
    assert_eq!(blake3::hash(&bytes).as_bytes(), &health_check().id().0);
}

#[test]
fn the_events_of_a_declaration_have_their_golden_deltas() {
    let mut wrong = String::new();
    for vector in vectors() {
        let Delta::Job(id, job) = health_check().delta(dot(vector.author), &vector.event) else {
            unreachable!("{} says something of a job", vector.name);
        };
        let delta = minicbor::to_vec((id, &job)).unwrap();
        let actual = format!("{}\n{}\n", hex(&vector.event.to_bytes()), hex(&delta));
        if actual != vector.golden {
            wrong.push_str(&format!("== tests/golden/{}.hex\n{actual}", vector.name));
        }
    }
    assert!(wrong.is_empty(), "what old events mean changed; that needs a new version:\n{wrong}");
}
