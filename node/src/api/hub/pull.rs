//! `GET /pull?gid=…&cursor=…`: what changed, in the shape that a hub gives it.
//!
//! Invariants: a job stands under the name that its client chose, if it chose one that is its own, else under its id; every pull renews the generator's lease.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::Value as Json;
use starling_core::facts::view;
use starling_core::ids::JobId;
use starling_core::machine::Machine;
use starling_core::time::Now;
use starling_proto::Word as _;
use starling_proto::v1::{JobFacts, JobState, ListNodesRequest, NodeLine};
use tonic::Status;

use crate::api::context::Api;
use crate::api::facts::{self, Asked, Cursor, Frame};
use crate::api::nodes;
use crate::api::status::ApiError;

/// The header that holds the next cursor as a number.
const CURSOR: &str = "x-cursor";
/// The header that holds it as the text that every node takes.
const CURSOR_TEXT: &str = "x-cursor-token";

/// The query.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct PullQuery {
    /// Who asks; may be absent.
    gid: String,
    /// A number from an earlier answer to the same `gid`, or the text of any node; absent or 0 = everything.
    cursor: String,
    /// Only jobs of this namespace; absent = all.
    namespace: String,
}

/// A job in a hub's words.
#[derive(Debug, Serialize)]
struct HubJob<'a> {
    /// One word, or how many tasks are in which phase.
    phase: Phase<'a>,
    namespace_id: &'a str,
    priority: i32,
    resources: Resources,
    id: &'a str,
    alias: &'a str,
    name: &'a str,
    state: &'static str,
    spec: Json,
    registers: Json,
    labels: &'a BTreeMap<String, String>,
    exit: Option<i32>,
    owner: &'a str,
    nodes: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Phase<'a> {
    All(&'a str),
    Some(&'a BTreeMap<String, u64>),
}

/// In the units that `/ingest` takes.
#[derive(Debug, Serialize)]
struct Resources {
    cpu: f64,
    memory: u64,
}

/// Answers a pull.
pub(super) async fn pull(api: &Api, asked: PullQuery) -> Result<Response, Status> {
    let work = async {
        if let Some(generators) = &api.ctx.generators {
            generators.contact(&asked.gid).await;
        }
        let cursor = cursor(api, &asked).await?;
        let changed =
            facts::since(api, &Asked { namespace: asked.namespace.as_str().into(), cursor, limit: 0 }).await?;
        let names = names(api, changed.jobs.clone()).await?;
        let nodes = nodes::list(api, ListNodesRequest::default()).await?.nodes;
        let token = facts::write_cursor(api, changed.cursor.clone()).await?;
        Ok((changed, names, nodes, token))
    };
    let (changed, names, nodes, token) = api.call(work).await?;
    let number = api.hub.numbers().number(&asked.gid, changed.cursor.clone());
    let head = format!(r#"{{"nodes":{},"jobs":{{"#, facts::text(&by_name(nodes))?);
    let write = move |job: JobFacts| write(&job, &names);
    let stream = facts::listed(api, changed, asked.namespace, Frame { head, tail: "}}" }, write)?;
    let json = "application/json".to_owned();
    let headers = [(header::CONTENT_TYPE.as_str(), json), (CURSOR, number.to_string()), (CURSOR_TEXT, token)];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// The cursor that a client means: a number means one of this node's, and what this node does not know means everything.
async fn cursor(api: &Api, asked: &PullQuery) -> Result<Cursor, ApiError> {
    let text = asked.cursor.trim();
    if text.is_empty() || !text.bytes().all(|letter| letter.is_ascii_digit()) {
        return facts::read_cursor(api, text).await;
    }
    let number = text.parse().unwrap_or(0);
    Ok(api.hub.numbers().cursor(&asked.gid, number))
}

/// Which of these jobs own the alias that they carry: two that were submitted under one on two sides of a partition are told apart by their ids.
async fn names(api: &Api, jobs: Vec<JobId>) -> Result<BTreeMap<String, String>, ApiError> {
    let mut names = BTreeMap::new();
    for slice in jobs.chunks(facts::SLICE) {
        let slice = slice.to_vec();
        let look = move |machine: &mut Machine, _now: Now| -> Vec<(String, String)> {
            let facts = machine.facts();
            let owned = slice.iter().filter_map(|id| {
                let alias = facts.job(id)?.submit.as_ref()?.alias()?;
                let is_own = facts.job_called(alias) == Some(*id);
                is_own.then(|| (view::job_name(facts, id), alias.to_string()))
            });
            owned.collect()
        };
        names.extend(api.ask(look).await?);
    }
    Ok(names)
}

/// `"name":{…}`.
fn write(job: &JobFacts, names: &BTreeMap<String, String>) -> Result<String, ApiError> {
    let key = names.get(&job.id).unwrap_or(&job.id);
    let parse = |text: &str| serde_json::from_str(text).map_err(|error| ApiError::Json(error.to_string()));
    let told = HubJob {
        phase: if job.phases.len() == 1 { Phase::All(&job.phase) } else { Phase::Some(&job.phases) },
        namespace_id: &job.namespace,
        priority: job.priority,
        resources: Resources { cpu: f64::from(job.cpus_milli) / 1_000.0, memory: job.mem_bytes },
        id: &job.id,
        alias: &job.alias,
        name: &job.name,
        state: JobState::try_from(job.state).unwrap_or_default().word(),
        spec: parse(&job.spec)?,
        registers: parse(&job.registers)?,
        labels: &job.labels,
        exit: job.exit,
        owner: &job.owner,
        nodes: &job.nodes,
    };
    Ok(format!("{}:{}", facts::text(key)?, facts::text(&told)?))
}

/// Nodes by name; of several with one name all but the first by their ids.
fn by_name(nodes: Vec<NodeLine>) -> BTreeMap<String, NodeLine> {
    let mut named = BTreeMap::new();
    for node in nodes {
        let key = if named.contains_key(&node.name) { node.id.clone() } else { node.name.clone() };
        named.insert(key, node);
    }
    named
}
