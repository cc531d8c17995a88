//! Submissions in a namespace's own words: fields as JSON or as people write them, read by the namespace's schema.
//!
//! Invariants: a field is said once; what cannot be read is named with what was expected and what was found.
//! Does not: fill in defaults or check bounds (the Machine does).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use starling_core::event::{Value, WorkSpec};
use starling_core::facts::Handler;
use starling_core::machine::{CommandError, Machine};
use starling_core::namespace::{FieldReq, FieldType, job_fields};
use starling_core::time::Now;
use starling_proto::v1::{FieldViolation, SubmitRequest};

use super::context::Api;
use super::status::{ApiError, violation};
use crate::declare;

/// What a task reserves that says nothing, unless a relay runs it.
pub(super) const CPU_MILLI: u64 = 1_000;
const BATCH: &str = "batch";

/// Whether a request says what to do in its namespace's own words rather than by a command.
pub(super) fn has_own_words(request: &SubmitRequest) -> bool {
    let is_batch = matches!(request.ns.as_str(), "" | BATCH);
    let has_fields = !matches!(request.spec.as_str(), "" | "{}") || !request.fields.is_empty();
    request.simulation.is_none() && (has_fields || (!is_batch && request.command.is_empty()))
}

/// What a request says that a job of any namespace may say.
pub(super) fn common(request: &SubmitRequest) -> Vec<(&'static str, Value)> {
    let text = |text: &str| (!text.is_empty()).then(|| Value::text(text));
    let number = |number: u64| (number > 0).then(|| Value::int(number));
    let request_id = (!request.request_id.is_empty()).then(|| Value::Bytes(request.request_id.clone()));
    let said = [
        ("alias", text(&request.alias)),
        ("cpu", request.cpus_milli.map(Value::int)),
        ("memory", number(request.mem_bytes)),
        ("retries", number(request.retries.into())),
        ("timeout_ms", number(request.timeout_ms)),
        ("node", text(&request.node)),
        ("request", request_id),
    ];
    said.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// How submissions to a namespace are read.
#[derive(Debug)]
pub(super) struct Schema {
    ns: String,
    fields: Vec<FieldReq>,
    handler: Handler,
}

impl Schema {
    /// The schema that a new submission to `ns` gets.
    ///
    /// Cancel safety: cancel safe.
    pub(super) async fn ask(api: &Api, ns: &str) -> Result<Self, ApiError> {
        let ns = ns.to_owned();
        let ask = move |machine: &mut Machine, _now: Now| Self::of(machine, ns);
        Ok(api.ask(ask).await??)
    }

    fn of(machine: &Machine, ns: String) -> Result<Self, CommandError> {
        if let Some(namespace) = machine.registry().namespace(&ns) {
            if namespace.submit_kind().is_none() {
                return Err(CommandError::NoJobs(ns.as_str().into()));
            }
            return Ok(Self { fields: namespace.spec().schema.clone(), handler: Handler::Process, ns });
        }
        let Some((_, declaration)) = machine.facts().declarations().current(&ns) else {
            return Err(CommandError::UnknownNamespace(ns.as_str().into(), machine.namespaces().join(", ")));
        };
        let fields = declaration.spec.schema.iter().cloned().chain(job_fields()).collect();
        Ok(Self { ns, fields, handler: declaration.handler() })
    }

    /// What a task reserves that says nothing.
    pub(super) fn cpu_milli(&self) -> u64 {
        match self.handler {
            Handler::Process | Handler::Pair => CPU_MILLI,
            Handler::Relay => 0,
        }
    }

    /// The spec that a request stands for.
    pub(super) fn read(&self, request: SubmitRequest) -> Result<WorkSpec, ApiError> {
        let mut reader = Reader { schema: self, spec: WorkSpec::new(), wrong: self.foreign(&request) };
        reader.read_json(&request.spec);
        reader.read_fields(&request.fields);
        for (key, value) in common(&request) {
            reader.add(key, value);
        }
        if !request.name.is_empty() {
            reader.add("name", Value::text(request.name));
        }
        let Reader { mut spec, wrong, .. } = reader;
        if !wrong.is_empty() {
            return Err(ApiError::Fields(wrong));
        }
        if spec.field("name").is_none() {
            spec = spec.with("name", Value::text(self.ns.as_str()));
        }
        Ok(spec)
    }

    /// The words of batch jobs in a request that has its namespace's own.
    fn foreign(&self, request: &SubmitRequest) -> Vec<FieldViolation> {
        let given = [
            ("command", !request.command.is_empty()),
            ("each_line", !request.each_line.is_empty()),
            ("env", !request.env.is_empty()),
            ("cwd", !request.cwd.is_empty()),
            ("stdin", !request.stdin.is_empty()),
            ("constraint", !request.constraint.is_empty()),
            ("image", !request.image.is_empty()),
        ];
        let foreign = given.into_iter().filter(|(_, is_given)| *is_given);
        foreign.map(|(key, _)| violation(key, "nothing beside `spec` or `fields`", "both")).collect()
    }

    fn field_type(&self, key: &str) -> Option<FieldType> {
        self.fields.iter().find(|field| field.key == key).map(|field| field.field_type)
    }

    fn unknown(&self, key: &str) -> FieldViolation {
        let common = job_fields();
        let own = self.fields.iter().filter(|field| !common.iter().any(|common| common.key == field.key));
        let names: Vec<&str> = own.map(|field| field.key.as_str()).collect();
        let expected = match names.as_slice() {
            [] => format!("no field: namespace `{}` has none of its own", self.ns),
            names => format!("a field of namespace `{}` ({})", self.ns, names.join(", ")),
        };
        violation(key, &expected, "an unknown one")
    }
}

/// A spec on the way.
struct Reader<'a> {
    schema: &'a Schema,
    spec: WorkSpec,
    wrong: Vec<FieldViolation>,
}

impl Reader<'_> {
    fn add(&mut self, key: &str, value: Value) {
        if self.spec.0.insert(key.into(), value).is_some() {
            self.wrong.push(violation(key, "one value", "two"));
        }
    }

    /// Takes what was read for a field of this type, or says what was found instead.
    fn take(&mut self, key: &str, field_type: FieldType, read: Result<Value, String>) {
        match read {
            Ok(value) => self.add(key, value),
            Err(found) => self.wrong.push(violation(key, &field_type.to_string(), &found)),
        }
    }

    fn read_json(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let object: serde_json::Map<String, Json> = match serde_json::from_str(text) {
            Ok(object) => object,
            Err(error) => {
                self.wrong.push(violation("spec", "a JSON object", &error.to_string()));
                return;
            }
        };
        for (key, json) in &object {
            match self.schema.field_type(key) {
                Some(field_type) => self.take(key, field_type, declare::from_json(Some(field_type), json)),
                None => self.wrong.push(self.schema.unknown(key)),
            }
        }
    }

    fn read_fields(&mut self, fields: &[String]) {
        let mut plain: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut entries: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for field in fields {
            let Some((key, value)) = field.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                self.wrong.push(violation("fields", "KEY=VALUE", field));
                continue;
            };
            let entry = key.split_once('.').filter(|(map, _)| self.schema.field_type(map) == Some(FieldType::TextMap));
            match entry {
                _ if self.schema.field_type(key).is_some() => plain.entry(key).or_default().push(value),
                Some((map, sub)) => entries.entry(map).or_default().push((sub, value)),
                None => self.wrong.push(self.schema.unknown(key)),
            }
        }
        for (key, texts) in plain {
            if let Some(field_type) = self.schema.field_type(key) {
                self.take(key, field_type, declare::from_texts(field_type, &texts));
            }
        }
        for (key, entries) in entries {
            let subs: BTreeSet<&str> = entries.iter().map(|(sub, _)| *sub).collect();
            if subs.len() < entries.len() {
                self.wrong.push(violation(key, "each entry once", "one twice"));
            }
            self.add(key, declare::from_entries(entries));
        }
    }
}
