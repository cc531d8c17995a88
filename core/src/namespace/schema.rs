//! Schemas: which fields a spec must and may have, of which type, and what an absent one means.

use core::fmt;

use smol_str::SmolStr;

use crate::event::{Value, WorkSpec};
use crate::limits;

/// What a field may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// True or false.
    Bool,
    /// An integer between the two, inclusive.
    Int {
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
    },
    /// Text of at most this many bytes.
    Text {
        /// Most bytes.
        bytes_max: usize,
    },
    /// Bytes, at most this many.
    Bytes {
        /// Most bytes.
        bytes_max: usize,
    },
    /// A list of texts with a count between the two.
    Texts {
        /// Fewest items.
        min: usize,
        /// Most items.
        max: usize,
    },
    /// A map of texts.
    TextMap,
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int { min: i64::MIN, max: i64::MAX } => f.write_str("integer"),
            Self::Int { min: i64::MIN, max } => write!(f, "integer of at most {max}"),
            Self::Int { min, max: i64::MAX } => write!(f, "integer of at least {min}"),
            Self::Int { min, max } => write!(f, "integer from {min} to {max}"),
            Self::Text { bytes_max } => write!(f, "text of at most {bytes_max} bytes"),
            Self::Bytes { bytes_max } => write!(f, "at most {bytes_max} bytes"),
            Self::Texts { min, max } => write!(f, "list of {min} to {max} texts"),
            Self::TextMap => f.write_str("map of texts"),
        }
    }
}

impl FieldType {
    /// Whether `value` is of this type and within its bounds.
    #[must_use]
    pub fn admits(&self, value: &Value) -> bool {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        match (self, value) {
            (Self::Bool, Value::Bool(_)) => true,
            (Self::Int { min, max }, Value::Int(number)) => (min..=max).contains(&number),
            (Self::Text { bytes_max }, Value::Text(text)) => text.len() <= *bytes_max,
            (Self::Bytes { bytes_max }, Value::Bytes(bytes)) => bytes.len() <= *bytes_max,
            (Self::Texts { min, max }, Value::List(items)) => {
                (*min..=*max).contains(&items.len()) && items.iter().all(is_text)
            }
            (Self::TextMap, Value::Map(map)) => map.values().all(is_text),
            (
                Self::Bool
                | Self::Int { .. }
                | Self::Text { .. }
                | Self::Bytes { .. }
                | Self::Texts { .. }
                | Self::TextMap,
                Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_),
            ) => false,
        }
    }
}

/// One field of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldReq {
    /// Its name.
    pub key: SmolStr,
    /// Whether a spec without it is refused.
    pub required: bool,
    /// What it may hold.
    pub field_type: FieldType,
    /// What a spec without it counts as saying.
    pub default: Option<Value>,
}

impl FieldReq {
    /// A field that must be there.
    #[must_use]
    pub fn required(key: &str, field_type: FieldType) -> Self {
        Self { key: SmolStr::new(key), required: true, field_type, default: None }
    }

    /// A field that may be there.
    #[must_use]
    pub fn optional(key: &str, field_type: FieldType) -> Self {
        Self { key: SmolStr::new(key), required: false, field_type, default: None }
    }

    /// This field with a value for specs that lack it, which are then not refused.
    #[must_use]
    pub fn with_default(mut self, value: Value) -> Self {
        self.default = Some(value);
        self
    }

    /// What `spec` says here, be it by saying nothing.
    #[must_use]
    pub fn value<'a>(&'a self, spec: &'a WorkSpec) -> Option<&'a Value> {
        spec.field(&self.key).or(self.default.as_ref())
    }

    /// Whether a spec that fits always has a value here.
    #[must_use]
    pub fn is_always_there(&self) -> bool {
        self.required || self.default.is_some()
    }
}

/// The fields that every job may have, whatever its namespace: `facts::Submit` reads them.
#[must_use]
pub fn job_fields() -> Vec<FieldReq> {
    let text = FieldType::Text { bytes_max: 128 };
    let at_least_0 = FieldType::Int { min: 0, max: i64::MAX };
    vec![
        FieldReq::optional("name", text),
        FieldReq::optional("alias", text),
        FieldReq::optional("cpu", FieldType::Int { min: 0, max: 1_000_000_000 }),
        FieldReq::optional("memory", at_least_0),
        FieldReq::optional("retries", FieldType::Int { min: 0, max: i64::from(limits::ATTEMPTS_MAX) - 1 }),
        FieldReq::optional("timeout_ms", at_least_0),
        FieldReq::optional("node", text),
        FieldReq::optional("request", FieldType::Bytes { bytes_max: 64 }),
    ]
}

/// Whether a namespace's events enter the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Logged, replicated, kept.
    Logged,
    /// Sent with presence; the latest per node counts.
    Ephemeral,
}

/// What a namespace declares about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceSpec {
    /// Its name.
    pub name: SmolStr,
    /// Whether its running tasks may be stopped for more urgent ones.
    pub preemptible: bool,
    /// Who runs its jobs: `process` for the built-in executor, empty for namespaces without jobs.
    pub handler_type: SmolStr,
    /// The fields of a submission.
    pub schema: Vec<FieldReq>,
    /// Whether its events enter the log.
    pub durability: Durability,
}

/// A spec that does not fit its schema: which field, what was expected, what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: expected {expected}, got {found}")]
pub struct SchemaError {
    /// The field's name.
    pub field: SmolStr,
    /// What the schema asks for.
    pub expected: String,
    /// What the spec holds.
    pub found: String,
}

impl NamespaceSpec {
    /// Checks a spec, field by field.
    ///
    /// # Errors
    /// The first field, in the schema's order, that is missing or unfit; then the first that the schema does not know.
    pub fn validate(&self, spec: &WorkSpec) -> Result<(), SchemaError> {
        fits(&self.schema, spec)?;
        all_known(&[&self.schema], spec, || format!("a field of namespace `{}`", self.name))
    }
}

/// Checks the fields that a spec has and lacks; others may be there.
///
/// # Errors
/// The first field, in the order given, that is missing or unfit.
pub(super) fn fits(fields: &[FieldReq], spec: &WorkSpec) -> Result<(), SchemaError> {
    for field in fields {
        match field.value(spec) {
            None if field.required => return Err(violation(field, "nothing".into())),
            Some(value) if !field.field_type.admits(value) => {
                return Err(violation(field, describe(value)));
            }
            None | Some(_) => {}
        }
    }
    Ok(())
}

/// Checks that a spec has no other fields than these.
///
/// # Errors
/// The first other field, by its name.
pub(super) fn all_known(
    schemas: &[&[FieldReq]],
    spec: &WorkSpec,
    expected: impl FnOnce() -> String,
) -> Result<(), SchemaError> {
    let is_known = |key: &SmolStr| schemas.iter().flat_map(|fields| fields.iter()).any(|field| field.key == *key);
    match spec.0.keys().find(|key| !is_known(key)) {
        Some(unknown) => {
            Err(SchemaError { field: unknown.clone(), expected: expected(), found: "an unknown one".into() })
        }
        None => Ok(()),
    }
}

fn violation(field: &FieldReq, found: String) -> SchemaError {
    SchemaError { field: field.key.clone(), expected: field.field_type.to_string(), found }
}

pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Bool(flag) => format!("bool {flag}"),
        Value::Int(number) => format!("integer {number}"),
        Value::Text(text) if text.len() <= 40 => format!("text {text:?}"),
        Value::Text(text) => format!("text of {} bytes", text.len()),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::List(items) => format!("list of {}", items.len()),
        Value::Map(map) => format!("map of {}", map.len()),
    }
}
