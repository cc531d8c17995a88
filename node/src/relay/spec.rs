//! Reports: converted to the types that their namespace asks for, and checked before the Machine is commanded to log them.
//!
//! Invariants: what is refused here changed nothing; what passes here is checked again by the Machine, whose word counts.
//! Does not: know anything of generators.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use starling_core::event::{Value, WorkSpec};
use starling_core::ids::RunId;
use starling_core::machine::{CommandError, Machine};
use starling_core::namespace::declared::Declaration;
use starling_core::namespace::{FieldType, report};

/// What a report does to its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It ends it.
    Ends,
    /// It goes on.
    GoesOn,
}

/// Converts and checks a report on a run of this node.
///
/// # Errors
/// If the run is over, or the kind or a field is not the namespace's.
pub(super) fn judge(
    machine: &Machine,
    run: RunId,
    kind: &str,
    spec: WorkSpec,
) -> Result<(WorkSpec, Effect), CommandError> {
    let (_, _, voice) = machine.executor().run(&run).ok_or(CommandError::NotHeld)?;
    let declarations = machine.facts().declarations();
    let (spec, outcome) = match voice.schema().and_then(|hash| declarations.by_hash(&hash)) {
        Some(declaration) => {
            let spec = converted(declaration, kind, spec);
            let outcome = declaration.check_event(kind, &spec)?;
            (spec, outcome)
        }
        None => {
            let outcome = machine.registry().check_event(voice.ns(), kind, &spec)?;
            (spec, outcome)
        }
    };
    Ok((spec, if outcome.is_some() { Effect::Ends } else { Effect::GoesOn }))
}

/// Gives every value the type of its field, where it can be read as one. What cannot is left for the schema to refuse.
fn converted(declaration: &Declaration, kind: &str, spec: WorkSpec) -> WorkSpec {
    let rule = declaration.rule(kind);
    let fields = spec.0.into_iter().map(|(key, value)| {
        let own = rule.and_then(|rule| rule.field(&key)).map(|field| field.field_type);
        let standard = || if report::is_standard(kind) { standard_type(&key) } else { None };
        match own.or_else(standard) {
            Some(field_type) => (key, fit(value, field_type)),
            None => (key, value),
        }
    });
    WorkSpec(fields.collect())
}

/// The types of the fields that `JobFinished` has in every namespace.
fn standard_type(key: &str) -> Option<FieldType> {
    let is_known = report::FIELDS.contains(&key);
    match key {
        "reason" => Some(FieldType::Text { bytes_max: usize::MAX }),
        "timed_out" | "cancelled" | "lost" => Some(FieldType::Bool),
        _ => is_known.then_some(FieldType::Int { min: i64::MIN, max: i64::MAX }),
    }
}

fn fit(value: Value, field_type: FieldType) -> Value {
    match (value, field_type) {
        (Value::Text(text), FieldType::Int { .. }) => match text.trim().parse() {
            Ok(number) => Value::Int(number),
            Err(_no_number) => Value::Text(text),
        },
        (Value::Text(text), FieldType::Bool) => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => Value::Text(text),
        },
        (Value::Text(text), FieldType::Bytes { .. }) => match STANDARD.decode(text.as_bytes()) {
            Ok(bytes) => Value::Bytes(bytes),
            Err(_no_base64) => Value::Text(text),
        },
        (Value::Int(number), FieldType::Text { .. }) => Value::text(number.to_string()),
        (Value::Bool(flag), FieldType::Text { .. }) => Value::text(flag.to_string()),
        (
            value,
            FieldType::Bool
            | FieldType::Int { .. }
            | FieldType::Text { .. }
            | FieldType::Bytes { .. }
            | FieldType::Texts { .. }
            | FieldType::TextMap,
        ) => value,
    }
}
