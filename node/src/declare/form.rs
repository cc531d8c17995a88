//! The TOML form of a declaration, key by key.
//!
//! Invariants: unknown keys are refused; whatever `write` writes, `read` reads back.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use starling_core::event::Value;
use starling_core::namespace::declared::{
    Declaration, DeclarationError, Ends, Policy, RegisterRule, Rule, Speaker, SubmitKinds,
};
use starling_core::namespace::{Durability, FieldReq, FieldType, NamespaceSpec};

use super::{FIELD_BYTES_DEFAULT, FIELD_ITEMS_DEFAULT};

/// How a text says that any kind beginning with `Submit` submits.
pub(crate) const ANY_SUBMIT: &str = "Submit*";
const POLICIES: [Policy; 4] = [Policy::Max, Policy::Last, Policy::Set, Policy::Counter];

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    name: String,
    version: u32,
    handler: String,
    #[serde(default = "logged")]
    durability: String,
    #[serde(default)]
    preemptible: bool,
    #[serde(default)]
    phases: Vec<String>,
    submit: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, FieldForm>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    rules: BTreeMap<String, RuleForm>,
}

fn logged() -> String {
    "logged".into()
}

fn executor() -> String {
    "executor".into()
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldForm {
    #[serde(rename = "type")]
    field_type: String,
    #[serde(default)]
    required: bool,
    min: Option<i64>,
    max: Option<i64>,
    max_bytes: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    default: Option<toml::Value>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleForm {
    #[serde(default = "executor")]
    by: String,
    phase: Option<String>,
    outcome: Option<toml::Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, FieldForm>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    registers: BTreeMap<String, RegisterForm>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisterForm {
    from: String,
    merge: String,
}

fn unfit(place: &[&str], expected: &str, found: impl Into<String>) -> DeclarationError {
    let place = place.iter().map(|part| (*part).into()).collect();
    DeclarationError { place, expected: expected.into(), found: found.into() }
}

impl Document {
    /// The declaration that the text stands for, not checked yet.
    ///
    /// # Errors
    /// The first word that is none of those that may stand in its place.
    pub(super) fn read(self) -> Result<Declaration, DeclarationError> {
        let durability = match self.durability.as_str() {
            "logged" => Durability::Logged,
            "ephemeral" => Durability::Ephemeral,
            other => return Err(unfit(&["durability"], "logged or ephemeral", format!("`{other}`"))),
        };
        let schema = read_fields(&["fields"], self.fields)?;
        let rules = self.rules.into_iter().map(|(kind, rule)| rule.read(&kind)).collect::<Result<_, _>>()?;
        let submit = if self.submit == ANY_SUBMIT { SubmitKinds::Any } else { SubmitKinds::One(self.submit.into()) };
        let spec = NamespaceSpec {
            name: self.name.into(),
            preemptible: self.preemptible,
            handler_type: self.handler.into(),
            schema,
            durability,
        };
        let phases = self.phases.into_iter().map(Into::into).collect();
        Ok(Declaration { spec, version: self.version, phases, submit, rules })
    }

    /// The form of a declaration.
    pub(super) fn write(declaration: &Declaration) -> Self {
        let spec = &declaration.spec;
        let durability = match spec.durability {
            Durability::Logged => "logged",
            Durability::Ephemeral => "ephemeral",
        };
        let submit = match &declaration.submit {
            SubmitKinds::One(kind) => kind.to_string(),
            SubmitKinds::Any => ANY_SUBMIT.into(),
        };
        Self {
            name: spec.name.to_string(),
            version: declaration.version,
            handler: spec.handler_type.to_string(),
            durability: durability.into(),
            preemptible: spec.preemptible,
            phases: declaration.phases.iter().map(ToString::to_string).collect(),
            submit,
            fields: write_fields(&spec.schema),
            rules: declaration.rules.iter().map(|rule| (rule.kind.to_string(), RuleForm::write(rule))).collect(),
        }
    }
}

impl RuleForm {
    fn read(self, kind: &str) -> Result<Rule, DeclarationError> {
        let by = match self.by.as_str() {
            "executor" => Speaker::Executor,
            "anyone" => Speaker::Anyone,
            other => return Err(unfit(&["rules", kind, "by"], "executor or anyone", format!("`{other}`"))),
        };
        let outcome = self.outcome.map(|outcome| read_ends(kind, &outcome)).transpose()?;
        let mut registers = Vec::new();
        for (register, form) in self.registers {
            let Some(policy) = POLICIES.into_iter().find(|policy| policy.word() == form.merge) else {
                let place = ["rules", kind, "registers", &register, "merge"];
                return Err(unfit(&place, "max, last-writer, set or counter", format!("`{}`", form.merge)));
            };
            registers.push(RegisterRule { register: register.into(), field: form.from.into(), policy });
        }
        Ok(Rule {
            by,
            phase: self.phase.map(Into::into),
            outcome,
            registers,
            labels: self.labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            fields: read_fields(&["rules", kind, "fields"], self.fields)?,
            ..Rule::new(kind)
        })
    }

    fn write(rule: &Rule) -> Self {
        let by = match rule.by {
            Speaker::Executor => "executor",
            Speaker::Anyone => "anyone",
        };
        let register = |rule: &RegisterRule| {
            let form = RegisterForm { from: rule.field.to_string(), merge: rule.policy.word().into() };
            (rule.register.to_string(), form)
        };
        Self {
            by: by.into(),
            phase: rule.phase.as_ref().map(ToString::to_string),
            outcome: rule.outcome.as_ref().map(write_ends),
            labels: rule.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            fields: write_fields(&rule.fields),
            registers: rule.registers.iter().map(register).collect(),
        }
    }
}

fn read_ends(kind: &str, outcome: &toml::Value) -> Result<Ends, DeclarationError> {
    let exit = |outcome: &toml::Value| {
        let table = outcome.as_table().filter(|table| table.len() == 1)?;
        table.get("exit")?.as_str().map(|field| Ends::ExitFrom(field.into()))
    };
    match outcome.as_str() {
        Some("success") => Ok(Ends::Success),
        Some("failure") => Ok(Ends::Failure),
        Some(_) | None => exit(outcome).ok_or_else(|| {
            let expected = "\"success\", \"failure\" or { exit = \"FIELD\" }";
            unfit(&["rules", kind, "outcome"], expected, outcome.to_string())
        }),
    }
}

fn write_ends(ends: &Ends) -> toml::Value {
    match ends {
        Ends::Success => "success".into(),
        Ends::Failure => "failure".into(),
        Ends::ExitFrom(field) => toml::Value::Table([("exit".to_owned(), field.as_str().into())].into_iter().collect()),
    }
}

fn read_fields(place: &[&str], forms: BTreeMap<String, FieldForm>) -> Result<Vec<FieldReq>, DeclarationError> {
    let read = |(key, form): (String, FieldForm)| form.read(&[place, &[key.as_str()]].concat(), &key);
    forms.into_iter().map(read).collect()
}

fn write_fields(fields: &[FieldReq]) -> BTreeMap<String, FieldForm> {
    fields.iter().map(|field| (field.key.to_string(), FieldForm::write(field))).collect()
}

impl FieldForm {
    fn read(self, place: &[&str], key: &str) -> Result<FieldReq, DeclarationError> {
        let bytes_max = self.max_bytes.unwrap_or(FIELD_BYTES_DEFAULT);
        let field_type = match self.field_type.as_str() {
            "bool" => FieldType::Bool,
            "int" => FieldType::Int { min: self.min.unwrap_or(i64::MIN), max: self.max.unwrap_or(i64::MAX) },
            "text" => FieldType::Text { bytes_max },
            "bytes" => FieldType::Bytes { bytes_max },
            "texts" => FieldType::Texts {
                min: self.min_items.unwrap_or(0),
                max: self.max_items.unwrap_or(FIELD_ITEMS_DEFAULT),
            },
            "map" => FieldType::TextMap,
            other => {
                let expected = "bool, int, text, bytes, texts or map";
                return Err(unfit(&[place, &["type"]].concat(), expected, format!("`{other}`")));
            }
        };
        let bounds: &[&str] = match field_type {
            FieldType::Bool | FieldType::TextMap => &[],
            FieldType::Int { .. } => &["min", "max"],
            FieldType::Text { .. } | FieldType::Bytes { .. } => &["max_bytes"],
            FieldType::Texts { .. } => &["min_items", "max_items"],
        };
        let given = [
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("max_bytes", self.max_bytes.is_some()),
            ("min_items", self.min_items.is_some()),
            ("max_items", self.max_items.is_some()),
        ];
        for (bound, is_given) in given {
            if is_given && !bounds.contains(&bound) {
                let expected = format!("no `{bound}` in a field of type {}", self.field_type);
                return Err(unfit(&[place, &[bound]].concat(), &expected, "one"));
            }
        }
        let default = match &self.default {
            Some(value) => Some(read_default(&[place, &["default"]].concat(), field_type, value)?),
            None => None,
        };
        Ok(FieldReq { key: key.into(), required: self.required, field_type, default })
    }

    fn write(field: &FieldReq) -> Self {
        let mut form = Self {
            field_type: type_word(field.field_type).into(),
            required: field.required,
            min: None,
            max: None,
            max_bytes: None,
            min_items: None,
            max_items: None,
            default: field.default.as_ref().map(write_default),
        };
        match field.field_type {
            FieldType::Bool | FieldType::TextMap => {}
            FieldType::Int { min, max } => {
                form.min = (min != i64::MIN).then_some(min);
                form.max = (max != i64::MAX).then_some(max);
            }
            FieldType::Text { bytes_max } | FieldType::Bytes { bytes_max } => form.max_bytes = Some(bytes_max),
            FieldType::Texts { min, max } => (form.min_items, form.max_items) = (Some(min), Some(max)),
        }
        form
    }
}

/// The word for a type.
pub(crate) fn type_word(field_type: FieldType) -> &'static str {
    match field_type {
        FieldType::Bool => "bool",
        FieldType::Int { .. } => "int",
        FieldType::Text { .. } => "text",
        FieldType::Bytes { .. } => "bytes",
        FieldType::Texts { .. } => "texts",
        FieldType::TextMap => "map",
    }
}

/// A default as the field's type reads it: bytes are base64. What does not fit the type's bounds is left to `check`.
fn read_default(place: &[&str], field_type: FieldType, value: &toml::Value) -> Result<Value, DeclarationError> {
    let text = |value: &toml::Value| value.as_str().map(Value::text);
    let read = match field_type {
        FieldType::Bool => value.as_bool().map(Value::Bool),
        FieldType::Int { .. } => value.as_integer().map(Value::Int),
        FieldType::Text { .. } => text(value),
        FieldType::Bytes { .. } => value.as_str().and_then(|text| BASE64.decode(text).ok()).map(Value::Bytes),
        FieldType::Texts { .. } => {
            value.as_array().and_then(|items| items.iter().map(text).collect::<Option<_>>()).map(Value::List)
        }
        FieldType::TextMap => value.as_table().and_then(|table| {
            let entries = table.iter().map(|(key, value)| Some((key.as_str().into(), text(value)?)));
            entries.collect::<Option<_>>().map(Value::Map)
        }),
    };
    read.ok_or_else(|| {
        let coded = if matches!(field_type, FieldType::Bytes { .. }) { " in base64" } else { "" };
        unfit(place, &format!("{field_type}{coded}"), value.to_string())
    })
}

fn write_default(value: &Value) -> toml::Value {
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::Int(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::Bytes(bytes) => BASE64.encode(bytes).into(),
        Value::List(items) => toml::Value::Array(items.iter().map(write_default).collect()),
        Value::Map(map) => {
            toml::Value::Table(map.iter().map(|(key, value)| (key.to_string(), write_default(value))).collect())
        }
    }
}
