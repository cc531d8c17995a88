//! `POST /control`: a program says what it brings: a namespace, or itself as a generator.
//!
//! Invariants: saying the same again is fine; what is there by another content is refused and stays as it is.

use serde::{Deserialize, Serialize};
use starling_core::machine::{Command, CommandError, Machine, Reply};
use starling_core::namespace::declared::RELAY;
use starling_core::namespace::{FieldType, NamespaceSpec};
use starling_core::time::Now;

use super::Generator;
use crate::api::context::Api;
use crate::api::status::ApiError;
use crate::declare::hub::{HubField, HubSpec};
use crate::driver::Stopped;

/// What may be said.
#[derive(Debug, Deserialize)]
pub(super) enum Control {
    /// Name and spec of a namespace.
    RegisterNamespace(String, HubSpec),
    /// Name and spec of a generator.
    RegisterGenerator(String, GeneratorSpec),
}

/// A generator as a hub takes it. Other keys are left unread.
#[derive(Debug, Deserialize)]
pub(super) struct GeneratorSpec {
    /// The namespace whose jobs it runs, or the `handler_type` of one that was registered at this node.
    kind: String,
    /// Where it is poked.
    #[serde(default)]
    callback_url: Option<String>,
    /// Beyond the contract: tasks at once.
    #[serde(default)]
    slots: Option<u32>,
    /// Beyond the contract: how long it may be silent.
    #[serde(default)]
    lease_ms: Option<u64>,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Controlled {
    Namespace {
        namespace: String,
        /// False if it was there.
        fresh: bool,
    },
    Generator {
        gid: String,
        namespace: String,
    },
}

/// Carries it out.
///
/// Cancel safety: a namespace may be registered even if the caller leaves.
pub(super) async fn control(api: &Api, control: Control) -> Result<Controlled, ApiError> {
    match control {
        Control::RegisterNamespace(name, spec) => register_namespace(api, name, spec).await,
        Control::RegisterGenerator(gid, spec) => register_generator(api, gid, spec).await,
    }
}

async fn register_namespace(api: &Api, name: String, spec: HubSpec) -> Result<Controlled, ApiError> {
    let asked = name.clone();
    let built_in = move |machine: &mut Machine, _now: Now| -> Option<NamespaceSpec> {
        machine.registry().namespace(&asked).map(|known| known.spec().clone())
    };
    if let Some(known) = api.ask(built_in).await? {
        return match differs(&known, &spec) {
            None => Ok(Controlled::Namespace { namespace: name, fresh: false }),
            Some(reason) => Err(ApiError::Taken { what: "namespace", name, reason }),
        };
    }
    let declaration = spec.declare(&name).map_err(CommandError::Declaration)?;
    let fresh = match api.ctx.handle.command(Command::Declare(Box::new(declaration))).await? {
        Reply::Declared { fresh, .. } => fresh,
        Reply::Error(error) => return Err(error.into()),
        Reply::Cancelled | Reply::Submitted { .. } | Reply::Noted | Reply::Imported(_) => {
            return Err(Stopped::Gone.into());
        }
    };
    api.hub.remember_handler(spec.handler_type, &name);
    Ok(Controlled::Namespace { namespace: name, fresh })
}

/// Why a hub's spec is not that of a built-in namespace; values come as texts, so a field that is text to the program fits any.
fn differs(known: &NamespaceSpec, spec: &HubSpec) -> Option<String> {
    if spec.handler_type.eq_ignore_ascii_case(RELAY) {
        return Some("nodes run its jobs themselves, no relay does".to_owned());
    }
    let fits = |field: &HubField| {
        let own = known.schema.iter().find(|own| own.key == field.key)?;
        Some(is_like(field.field_type(), own.field_type))
    };
    for field in &spec.schema {
        match fits(field) {
            Some(true) => {}
            Some(false) => return Some(format!("field `{}` is `{}` there", field.key, field.field_type)),
            None => {
                let all: Vec<&str> = known.schema.iter().map(|own| own.key.as_str()).collect();
                return Some(format!("it has no field `{}`; it has {}", field.key, all.join(", ")));
            }
        }
    }
    None
}

fn is_like(theirs: FieldType, own: FieldType) -> bool {
    matches!(theirs, FieldType::Text { .. }) || std::mem::discriminant(&theirs) == std::mem::discriminant(&own)
}

async fn register_generator(api: &Api, gid: String, spec: GeneratorSpec) -> Result<Controlled, ApiError> {
    let generators = api.ctx.generators.as_ref().ok_or(ApiError::NoGenerators)?;
    let known = api.ask(|machine: &mut Machine, _now: Now| machine.namespaces()).await?;
    let by_handler = || api.hub.namespace_of(&spec.kind);
    let Some(namespace) = known.iter().find(|name| **name == spec.kind).cloned().or_else(by_handler) else {
        return Err(CommandError::UnknownNamespace(spec.kind.as_str().into(), known.join(", ")).into());
    };
    let generator = Generator {
        gid: gid.clone(),
        namespace: namespace.clone(),
        slots: spec.slots,
        lease_ms: spec.lease_ms,
        callback_url: spec.callback_url,
    };
    let taken = generators.register(generator).await;
    taken.map_err(|reason| ApiError::Generator { gid: gid.clone(), reason })?;
    Ok(Controlled::Generator { gid, namespace: namespace.to_string() })
}
