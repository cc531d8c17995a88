//! Namespaces: register, list, describe.
//!
//! Invariants: a declaration is read and checked here, whoever sent it; a registration is told only once it is durable (the Machine's reply).
//! Does not: choose among declarations (`facts::declared` does).

use std::collections::BTreeMap;

use starling_core::facts::view::node_name;
use starling_core::facts::{Declarations, Declared};
use starling_core::ids::Hash;
use starling_core::machine::{Command, Machine, Reply};
use starling_core::namespace::declared::{Declaration, Ends, Rule, Speaker, SubmitKinds};
use starling_core::namespace::{Durability, FieldReq, FieldType, NamespaceSpec};
use starling_core::time::Now;
use starling_proto::v1::{
    GetNamespaceRequest, ListNamespacesReply, NamespaceDetail, NamespaceField, NamespaceKind, NamespaceRegister,
    NamespaceSummary, NamespaceVersion, PutNamespaceReply, PutNamespaceRequest,
};

use super::context::Api;
use super::convert::{clamp, seen};
use super::status::ApiError;
use crate::declare;

/// Longest text of a declaration: several times what its canonical bytes may take.
pub(super) const TOML_BYTES_MAX: usize = 64 << 10;

/// Registers a namespace.
///
/// Cancel safety: once the driver has the command, the namespace is registered even if the caller leaves.
pub(super) async fn put(api: &Api, request: PutNamespaceRequest) -> Result<PutNamespaceReply, ApiError> {
    if request.toml.len() > TOML_BYTES_MAX {
        return Err(ApiError::TextTooLarge(request.toml.len()));
    }
    let declaration = declare::from_toml(&request.toml)?;
    let (name, version) = (declaration.spec.name.to_string(), declaration.version);
    match api.ctx.handle.command(Command::Declare(Box::new(declaration))).await? {
        Reply::Declared { id, fresh } => {
            let view = Some(api.ask(|machine, now| seen(machine, now)).await?);
            Ok(PutNamespaceReply { name, version, id: id.to_hex(), fresh, view })
        }
        Reply::Error(error) => Err(error.into()),
        Reply::Submitted { .. } | Reply::Cancelled | Reply::Noted | Reply::Imported(_) => {
            Err(crate::driver::Stopped::Gone.into())
        }
    }
}

/// All namespaces, by name.
///
/// Cancel safety: cancel safe.
pub(super) async fn list(api: &Api) -> Result<ListNamespacesReply, ApiError> {
    let ask = |machine: &mut Machine, now: Now| {
        let jobs = jobs_of(machine);
        let names = machine.namespaces();
        let namespaces = names.iter().filter_map(|name| summary(machine, &jobs, name)).collect();
        ListNamespacesReply { namespaces, view: Some(seen(machine, now)) }
    };
    api.ask(ask).await
}

/// One namespace.
///
/// Cancel safety: cancel safe.
pub(super) async fn get(api: &Api, request: GetNamespaceRequest) -> Result<NamespaceDetail, ApiError> {
    let ask = move |machine: &mut Machine, now: Now| -> Result<NamespaceDetail, ApiError> {
        let unknown = |what: String| ApiError::UnknownNamespace(what);
        let name = request.name.as_str();
        let jobs = jobs_of(machine);
        let summary = summary(machine, &jobs, name).ok_or_else(|| unknown(name.to_owned()))?;
        let rest = if let Some(namespace) = machine.registry().namespace(name) {
            if request.version != 0 {
                return Err(ApiError::field(
                    "version",
                    "none: the namespace is built in",
                    &request.version.to_string(),
                ));
            }
            let submit = namespace.submit_kind().unwrap_or_default().to_owned();
            NamespaceDetail { submit, ..of_spec(namespace.spec()) }
        } else {
            let (hash, declaration) = wanted(machine.facts().declarations(), &request)?;
            of_declaration(hash, declaration)
        };
        Ok(NamespaceDetail { summary: Some(summary), view: Some(seen(machine, now)), ..rest })
    };
    api.ask(ask).await?
}

/// The declaration asked for, of a name that has some.
fn wanted<'a>(
    declarations: &'a Declarations,
    request: &GetNamespaceRequest,
) -> Result<(Hash, &'a Declaration), ApiError> {
    let fits = |(hash, one): &(Hash, &Declared)| {
        (request.version == 0 || one.declaration.version == request.version) && hash.to_hex().starts_with(&request.id)
    };
    let found = declarations.called(&request.name).into_iter().find(fits);
    let (hash, one) = found.ok_or_else(|| {
        let version = if request.version == 0 { String::new() } else { format!(" version {}", request.version) };
        let id = if request.id.is_empty() { String::new() } else { format!(" with id {}", request.id) };
        ApiError::UnknownNamespace(format!("{}{version}{id}", request.name))
    })?;
    Ok((hash, &one.declaration))
}

/// How many jobs each namespace has.
fn jobs_of(machine: &Machine) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (_, job) in machine.facts().jobs() {
        if let Some(submit) = job.submit.as_ref() {
            *counts.entry(submit.ns.as_str()).or_default() += 1;
        }
    }
    counts
}

fn summary(machine: &Machine, jobs: &BTreeMap<&str, usize>, name: &str) -> Option<NamespaceSummary> {
    let jobs = clamp(jobs.get(name).copied().unwrap_or_default());
    if let Some(namespace) = machine.registry().namespace(name) {
        let has_jobs = namespace.submit_kind().is_some();
        let spec = namespace.spec();
        return Some(NamespaceSummary {
            name: name.to_owned(),
            built_in: true,
            handler: if has_jobs { spec.handler_type.to_string() } else { String::new() },
            durability: durability(spec.durability).to_owned(),
            jobs,
            ..NamespaceSummary::default()
        });
    }
    let facts = machine.facts();
    let called = facts.declarations().called(name);
    let (_, current) = called.first()?;
    let spec = &current.declaration.spec;
    let version = |(at, (hash, one)): (usize, &(Hash, &Declared))| NamespaceVersion {
        version: one.declaration.version,
        id: hash.to_hex(),
        current: at == 0,
        by: one.first.0.map(|first| node_name(facts, &first.by)).unwrap_or_default(),
        at_unix_ms: one.first.0.map_or(0, |first| first.hlc.wall_ms),
    };
    Some(NamespaceSummary {
        name: name.to_owned(),
        built_in: false,
        version: current.declaration.version,
        handler: spec.handler_type.to_string(),
        durability: durability(spec.durability).to_owned(),
        versions: called.iter().enumerate().map(version).collect(),
        conflict: called.windows(2).any(|pair| pair[0].1.declaration.version == pair[1].1.declaration.version),
        jobs,
    })
}

fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Logged => "logged",
        Durability::Ephemeral => "ephemeral",
    }
}

fn of_spec(spec: &NamespaceSpec) -> NamespaceDetail {
    NamespaceDetail {
        preemptible: spec.preemptible,
        fields: spec.schema.iter().map(field).collect(),
        ..NamespaceDetail::default()
    }
}

fn of_declaration(hash: Hash, declaration: &Declaration) -> NamespaceDetail {
    NamespaceDetail {
        version: declaration.version,
        id: hash.to_hex(),
        phases: declaration.phases.iter().map(ToString::to_string).collect(),
        submit: match &declaration.submit {
            SubmitKinds::One(kind) => kind.to_string(),
            SubmitKinds::Any => declare::ANY_SUBMIT.to_owned(),
        },
        kinds: declaration.rules.iter().map(kind).collect(),
        toml: declare::to_toml(declaration),
        ..of_spec(&declaration.spec)
    }
}

fn kind(rule: &Rule) -> NamespaceKind {
    NamespaceKind {
        kind: rule.kind.to_string(),
        by: match rule.by {
            Speaker::Executor => "executor",
            Speaker::Anyone => "anyone",
        }
        .to_owned(),
        phase: rule.phase.as_ref().map(ToString::to_string).unwrap_or_default(),
        outcome: match &rule.outcome {
            Some(Ends::Success) => "success".to_owned(),
            Some(Ends::Failure) => "failure".to_owned(),
            Some(Ends::ExitFrom(field)) => format!("exit {field}"),
            None => String::new(),
        },
        registers: rule
            .registers
            .iter()
            .map(|rule| NamespaceRegister {
                register: rule.register.to_string(),
                field: rule.field.to_string(),
                merge: rule.policy.word().to_owned(),
            })
            .collect(),
        labels: rule.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        fields: rule.fields.iter().map(field).collect(),
    }
}

fn field(field: &FieldReq) -> NamespaceField {
    NamespaceField {
        name: field.key.to_string(),
        r#type: declare::type_word(field.field_type).to_owned(),
        required: field.required,
        default_value: field.default.as_ref().map(|value| declare::to_json(value).to_string()).unwrap_or_default(),
        bounds: bounds(field.field_type),
    }
}

/// The type's bounds, as people say them.
fn bounds(field_type: FieldType) -> String {
    match field_type {
        FieldType::Bool | FieldType::TextMap | FieldType::Int { min: i64::MIN, max: i64::MAX } => String::new(),
        FieldType::Int { min: i64::MIN, max } => format!("at most {max}"),
        FieldType::Int { min, max: i64::MAX } => format!("at least {min}"),
        FieldType::Int { min, max } => format!("{min} to {max}"),
        FieldType::Text { bytes_max } | FieldType::Bytes { bytes_max } => format!("at most {bytes_max} bytes"),
        FieldType::Texts { min, max } => format!("{min} to {max} texts"),
    }
}
