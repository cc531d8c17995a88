//! Schemas: which fields a spec must and may have, and of which type.

use core::fmt;

use smol_str::SmolStr;

use crate::event::{Value, WorkSpec};

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
    fn admits(&self, value: &Value) -> bool {
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
}

impl FieldReq {
    /// A field that must be there.
    #[must_use]
    pub fn required(key: &str, field_type: FieldType) -> Self {
        Self { key: SmolStr::new(key), required: true, field_type }
    }

    /// A field that may be there.
    #[must_use]
    pub fn optional(key: &str, field_type: FieldType) -> Self {
        Self { key: SmolStr::new(key), required: false, field_type }
    }
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
        for field in &self.schema {
            match spec.field(&field.key) {
                None if field.required => return Err(violation(field, "nothing".into())),
                Some(value) if !field.field_type.admits(value) => {
                    return Err(violation(field, describe(value)));
                }
                None | Some(_) => {}
            }
        }
        match spec.0.keys().find(|key| self.schema.iter().all(|field| field.key != **key)) {
            Some(unknown) => Err(SchemaError {
                field: unknown.clone(),
                expected: format!("a field of namespace `{}`", self.name),
                found: "an unknown one".into(),
            }),
            None => Ok(()),
        }
    }
}

fn violation(field: &FieldReq, found: String) -> SchemaError {
    SchemaError { field: field.key.clone(), expected: field.field_type.to_string(), found }
}

fn describe(value: &Value) -> String {
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
