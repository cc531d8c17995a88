//! The JSON form of a namespace in the hub contract: `{"preemptible", "handler_type", "schema": [{"key", "required", "type"}], "durability"}`.
//!
//! Invariants: such a namespace has version 1, no phases and no rules; any kind that begins with `Submit` submits its jobs, and a relay runs them, for a hub
//! runs nothing itself.

use serde::Deserialize;
use starling_core::namespace::declared::{Declaration, DeclarationError, RELAY, SubmitKinds};
use starling_core::namespace::{Durability, FieldReq, FieldType, NamespaceSpec, job_fields};

use super::{FIELD_BYTES_DEFAULT, FIELD_ITEMS_DEFAULT};

/// A namespace's spec as a hub takes it. Other keys are left unread.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HubSpec {
    /// Whether running tasks may be stopped for more urgent ones.
    #[serde(default)]
    pub preemptible: bool,
    /// What the program calls its executor. Said, but without effect: generators run the jobs.
    #[serde(default)]
    pub handler_type: String,
    /// The fields of a submission.
    #[serde(default)]
    pub schema: Vec<HubField>,
    /// `ephemeral` is refused; any other word means logged.
    #[serde(default)]
    pub durability: Option<String>,
}

/// One field of a hub's schema.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HubField {
    /// Its name.
    pub key: String,
    /// Whether a spec without it is refused.
    #[serde(default)]
    pub required: bool,
    /// The word for its type; words that nobody knows mean text.
    #[serde(default, rename = "type")]
    pub field_type: String,
}

impl HubSpec {
    /// The declaration of a namespace called `name`.
    ///
    /// # Errors
    /// If `Declaration::check` refuses it: a name or key of other letters, a key twice, `ephemeral`.
    pub fn declare(&self, name: &str) -> Result<Declaration, DeclarationError> {
        let common = job_fields();
        let mut schema: Vec<FieldReq> = self.schema.iter().map(|field| declared(field, &common)).collect();
        schema.sort_by(|left, right| left.key.cmp(&right.key));
        let is_ephemeral = self.durability.as_ref().is_some_and(|word| word.eq_ignore_ascii_case("ephemeral"));
        let durability = if is_ephemeral { Durability::Ephemeral } else { Durability::Logged };
        let spec = NamespaceSpec {
            name: name.into(),
            preemptible: self.preemptible,
            handler_type: RELAY.into(),
            schema,
            durability,
        };
        let declaration =
            Declaration { spec, version: 1, phases: Vec::new(), submit: SubmitKinds::Any, rules: Vec::new() };
        declaration.check()?;
        Ok(declaration)
    }
}

impl HubField {
    /// What its word for a type means.
    #[must_use]
    pub fn field_type(&self) -> FieldType {
        field_type(&self.field_type)
    }
}

/// What every job may have keeps its type, whatever word the program uses for it.
fn declared(field: &HubField, common: &[FieldReq]) -> FieldReq {
    let known = common.iter().find(|common| common.key == field.key);
    let field_type = known.map_or_else(|| field.field_type(), |common| common.field_type);
    FieldReq { key: field.key.as_str().into(), required: field.required, field_type, default: None }
}

fn field_type(word: &str) -> FieldType {
    match word.to_ascii_lowercase().as_str() {
        "bool" | "boolean" => FieldType::Bool,
        "int" | "integer" | "number" | "float" | "double" | "i32" | "i64" | "u32" | "u64" | "f32" | "f64" => {
            FieldType::Int { min: i64::MIN, max: i64::MAX }
        }
        "bytes" | "binary" => FieldType::Bytes { bytes_max: FIELD_BYTES_DEFAULT },
        "texts" | "strings" | "list" | "array" => FieldType::Texts { min: 0, max: FIELD_ITEMS_DEFAULT },
        "map" | "dict" | "object" => FieldType::TextMap,
        _ => FieldType::Text { bytes_max: FIELD_BYTES_DEFAULT },
    }
}
