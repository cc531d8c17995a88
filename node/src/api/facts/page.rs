//! Pages: jobs as Facts have them, a slice at a time.
//!
//! Invariants: the driver is held for one slice at a time. What may be private is left out of what nodes run themselves; a relay needs all of its jobs' fields.
//! Does not: know which jobs are wanted (`changed` does).

use std::collections::BTreeMap;

use serde_json::Value as Json;
use starling_core::event::{Value, WorkSpec};
use starling_core::facts::state::State;
use starling_core::facts::view;
use starling_core::facts::{Facts, Handler, Outcome};
use starling_core::ids::JobId;
use starling_core::machine::Machine;
use starling_proto::v1::{Ending, JobFacts};

use crate::api::context::Api;
use crate::api::convert::{clamp, ending, state};
use crate::api::status::ApiError;
use crate::declare::to_json;

/// Jobs looked at in one question, so that the driver serves others in between.
pub(in crate::api) const SLICE: usize = 256;

/// What one question brings: the parts that need work are made to text outside of it.
struct Raw {
    facts: JobFacts,
    handler: Handler,
    spec: WorkSpec,
    state: State,
}

/// The jobs of a slice that are of the namespace (empty: any) and whose submission is known.
///
/// Cancel safety: cancel safe.
pub(in crate::api) async fn slice(api: &Api, ids: Vec<JobId>, namespace: &str) -> Result<Vec<JobFacts>, ApiError> {
    let namespace = namespace.to_owned();
    let look = move |machine: &mut Machine, _now| -> Vec<Raw> {
        ids.iter().filter_map(|id| raw(machine.facts(), *id, &namespace)).collect()
    };
    Ok(api.ask(look).await?.into_iter().map(Raw::finish).collect())
}

/// One job of the namespace (empty: any) as these Facts have it, if its submission is known.
pub(in crate::api) fn of_facts(facts: &Facts, id: JobId, namespace: &str) -> Option<JobFacts> {
    raw(facts, id, namespace).map(Raw::finish)
}

fn raw(facts: &Facts, id: JobId, namespace: &str) -> Option<Raw> {
    let job = facts.job(&id)?;
    let view = view::job(id, job)?;
    let submit = view.submit;
    if !namespace.is_empty() && submit.ns != namespace {
        return None;
    }
    let mut phases = view::phases(facts, job);
    let phase = if phases.len() == 1 { phases[0].0.to_string() } else { String::new() };
    let made = JobFacts {
        id: view::job_name(facts, &id),
        name: submit.name.to_string(),
        alias: submit.alias().map(ToString::to_string).unwrap_or_default(),
        namespace: submit.ns.to_string(),
        phase,
        phases: phases.drain(..).map(|(name, tasks)| (name.to_string(), tasks)).collect(),
        state: state(view.state).into(),
        priority: submit.priority,
        cpus_milli: clamp(submit.need.cpu_milli),
        mem_bytes: submit.need.mem_bytes,
        tasks: submit.tasks.len(),
        ending: view.worst.as_ref().map_or(Ending::None, ending).into(),
        exit: view.worst.as_ref().map(Outcome::code),
        owner: view::node_name(facts, &facts.owner_of(&id)),
        nodes: view.nodes.iter().map(|node| view::node_name(facts, node)).collect(),
        submitted_unix_ms: submit.hlc.wall_ms,
        ..JobFacts::default()
    };
    Some(Raw { facts: made, handler: submit.handler(), spec: submit.spec(), state: view::state(job) })
}

impl Raw {
    fn finish(self) -> JobFacts {
        let is_told = |key: &str| match (key, self.handler) {
            ("request", _) | ("env" | "stdin", Handler::Process | Handler::Pair) => false,
            (_, Handler::Process | Handler::Pair | Handler::Relay) => true,
        };
        let WorkSpec(fields) = &self.spec;
        let fields = fields.iter().filter(|(key, _)| is_told(key));
        let spec: serde_json::Map<String, Json> =
            fields.map(|(key, value)| (key.to_string(), to_json(value))).collect();
        JobFacts {
            spec: Json::Object(spec).to_string(),
            registers: registers(&self.state),
            labels: labels(&self.state),
            ..self.facts
        }
    }
}

/// A state's registers, a JSON object.
pub(in crate::api) fn registers(state: &State) -> String {
    let registers = state.registers.iter().filter_map(|(key, merged)| {
        let value = merged.0.as_ref()?.value();
        Some((key.0.to_string(), to_json(&value)))
    });
    Json::Object(registers.collect()).to_string()
}

/// A state's labels.
pub(in crate::api) fn labels(state: &State) -> BTreeMap<String, String> {
    let labels = state.labels.iter().filter_map(|(key, written)| {
        let text = match &written.0.as_ref()?.value {
            Value::Text(text) => text.to_string(),
            other @ (Value::Bool(_) | Value::Int(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_)) => {
                to_json(other).to_string()
            }
        };
        Some((key.0.to_string(), text))
    });
    labels.collect()
}
