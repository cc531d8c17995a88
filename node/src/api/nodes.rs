//! Nodes: the roster with what is believed of each node, and this node's own state.
//!
//! Invariants: a node that is in the log or was ever heard is listed; state and free room are what it
//! said last, as old as `silent_ms` says.
//! Does not: judge (`doctor` does).

use std::collections::BTreeSet;

use starling_core::facts::NodeInfo;
use starling_core::facts::view::{self, FindError};
use starling_core::ids::NodeId;
use starling_core::machine::Machine;
use starling_core::schedule::{Health, Peer};
use starling_core::time::Now;
use starling_proto::v1::{
    FrontierEntry, GetNodeRequest, InfoReply, ListNodesRequest, NodeDetail, NodeLine, NodeState, NodesReply,
};

use super::context::{About, Api, StorageStats};
use super::convert::{clamp, seen};
use super::status::ApiError;
use super::usage;
use crate::monitor::Reading;

/// Lists the nodes.
///
/// Cancel safety: cancel safe.
pub(super) async fn list(api: &Api, request: ListNodesRequest) -> Result<NodesReply, ApiError> {
    let jobs = if request.with_jobs { Jobs::Shown } else { Jobs::Left };
    let ask = move |machine: &mut Machine, now: Now| {
        let all = known(machine);
        let mut nodes: Vec<NodeLine> = all.iter().map(|node| line(machine, now, node, jobs)).collect();
        nodes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        NodesReply { nodes, view: Some(seen(machine, now)) }
    };
    api.ask(ask).await
}

/// Everything about one node.
///
/// Cancel safety: cancel safe.
pub(super) async fn get(api: &Api, request: GetNodeRequest) -> Result<NodeDetail, ApiError> {
    let GetNodeRequest { node, since_ms } = request;
    let ask = move |machine: &mut Machine, now: Now| -> Result<_, FindError> {
        let node = find(machine, &node)?;
        Ok((node, now, line(machine, now, &node, Jobs::Shown), seen(machine, now)))
    };
    let (node, now, line, view) = api.ask(ask).await?.map_err(of_find)?;
    let history = usage::history(&api.ctx.past, &node, now, since_ms);
    Ok(NodeDetail { node: Some(line), history, view: Some(view) })
}

/// A name that names no node, or several.
pub(super) fn of_find(error: FindError) -> ApiError {
    match error {
        FindError::Ambiguous(got, could_be) => ApiError::field("node", &format!("one of {could_be}"), &got),
        unknown @ (FindError::UnknownNode(_) | FindError::UnknownJob(_)) => unknown.into(),
    }
}

/// All nodes that were heard or are in the log.
fn known(machine: &Machine) -> BTreeSet<NodeId> {
    let heard = machine.fleet().peers().map(|(node, _)| *node);
    let members = machine.facts().nodes().map(|(node, _)| *node);
    heard.chain(members).chain([machine.me()]).collect()
}

/// The node of this name or id, or the only one that begins so; a new node is known by what it says before it is by the log.
pub(super) fn find(machine: &Machine, text: &str) -> Result<NodeId, FindError> {
    if text.is_empty() {
        return Ok(machine.me());
    }
    let all: Vec<(NodeId, String)> = known(machine).into_iter().map(|node| (node, name(machine, &node))).collect();
    let exact = |(node, name): &&(NodeId, String)| name == text || node.to_hex() == text;
    let begins = |(node, name): &&(NodeId, String)| name.starts_with(text) || node.to_hex().starts_with(text);
    let mut found: Vec<&(NodeId, String)> = all.iter().filter(exact).collect();
    if found.is_empty() {
        found = all.iter().filter(begins).collect();
    }
    match found.as_slice() {
        [] => Err(FindError::UnknownNode(text.to_owned())),
        [(node, _)] => Ok(*node),
        many => {
            let names: Vec<String> = many.iter().map(|(node, name)| format!("{name} ({node})")).collect();
            Err(FindError::Ambiguous(text.to_owned(), names.join(", ")))
        }
    }
}

/// The name by which users know a node: as it said last, or as the log has it.
pub(super) fn name(machine: &Machine, node: &NodeId) -> String {
    if *node == machine.me() {
        return machine.config().name.to_string();
    }
    match machine.fleet().name(node) {
        Some(name) => name.to_string(),
        None => view::node_name(machine.facts(), node),
    }
}

/// Whether a line shows what running jobs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Jobs {
    Shown,
    Left,
}

pub(super) fn line(machine: &Machine, now: Now, node: &NodeId, jobs: Jobs) -> NodeLine {
    let answering = *node == machine.me();
    let named = NodeLine { name: name(machine, node), id: node.to_hex(), answering, ..NodeLine::default() };
    let Some(Peer { presence, heard, .. }) = machine.fleet().peer(node) else {
        return if answering {
            NodeLine { state: NodeState::Closed.into(), note: "starting".to_owned(), ..named }
        } else {
            let forgotten = machine.facts().node(node).is_some_and(NodeInfo::is_forgotten);
            let note = if forgotten { "gone for good" } else { "not heard since this node started" }.to_owned();
            NodeLine { state: NodeState::Down.into(), note, ..named }
        };
    };
    let drained = machine.facts().node(node).and_then(NodeInfo::drain);
    let drained = drained.map(|drain| {
        if drain.reason.is_empty() { "draining".to_owned() } else { format!("draining: {}", drain.reason) }
    });
    let (state, note) = match machine.fleet().health(now.mono, node) {
        Health::Live if drained.is_some() => (NodeState::Closed, drained.as_deref().unwrap_or_default()),
        _ if answering => own_state(machine),
        Health::Live if presence.accepts => (NodeState::Ready, ""),
        Health::Live => (NodeState::Closed, "its disk refuses writes, or it is stopping"),
        Health::Suspect => (NodeState::Suspect, "silent"),
        Health::Dead if machine.facts().node(node).is_some_and(NodeInfo::is_forgotten) => {
            (NodeState::Down, "gone for good")
        }
        Health::Dead => (NodeState::Down, "silent"),
    };
    let reading = presence.stats.as_ref().map(|stats| Reading::from_spec(&stats.spec));
    let uses = match jobs {
        Jobs::Shown => reading.as_ref().map(|reading| usage::jobs(machine, reading)),
        Jobs::Left => None,
    };
    let claim = machine.facts().gateway().claim().filter(|claim| claim.node == *node);
    let acts = claim.is_some_and(|claim| presence.gateway.acting == Some(claim.term));
    let api = (!presence.api.is_empty()).then(|| presence.api.clone());
    NodeLine {
        state: state.into(),
        addresses: api.into_iter().chain(presence.links.iter().cloned()).collect(),
        cpus_milli: clamp(presence.total.cpu_milli),
        cpus_free_milli: clamp(presence.free.cpu_milli),
        mem_bytes: presence.total.mem_bytes,
        mem_free_bytes: presence.free.mem_bytes,
        running: presence.running,
        version: presence.version.to_string(),
        silent_ms: if answering { 0 } else { now.mono.since_ms(*heard) },
        note: note.to_owned(),
        usage: reading.as_ref().map(usage::of),
        jobs: uses.unwrap_or_default(),
        labels: presence.labels.iter().map(|label| label.0.to_string()).collect(),
        gateway: acts && machine.fleet().health(now.mono, node) == Health::Live,
        gateway_willing: presence.gateway.willing,
        worker_address: presence.gateway.listens.clone(),
        ..named
    }
}

fn own_state(machine: &Machine) -> (NodeState, &str) {
    let accepts = machine.fleet().peer(&machine.me()).is_none_or(|own| own.presence.accepts);
    match machine.disk_refusal() {
        Some(reason) => (NodeState::Closed, reason),
        None if accepts => (NodeState::Ready, ""),
        None => (NodeState::Closed, "stopping"),
    }
}

/// This node and its cluster.
///
/// Cancel safety: cancel safe.
pub(super) async fn info(api: &Api) -> Result<InfoReply, ApiError> {
    let about = api.ctx.about.clone();
    let storage = read_storage(api).await;
    api.ask(move |machine, now| info_of(machine, now, &about, storage)).await
}

/// The disk's state, read on a thread that may block.
pub(super) async fn read_storage(api: &Api) -> StorageStats {
    let read = std::sync::Arc::clone(&api.ctx.storage);
    let unknown = |_stopped| StorageStats { free_disk_bytes: None, state: "not known".to_owned() };
    tokio::task::spawn_blocking(move || read()).await.unwrap_or_else(unknown)
}

fn info_of(machine: &mut Machine, now: Now, about: &About, storage: StorageStats) -> InfoReply {
    let facts_root = machine.root().to_hex();
    let machine = &*machine;
    let me = machine.me();
    let (state, reason) = own_state(machine);
    let own = machine.fleet().peer(&me).map(|own| &own.presence);
    let entry = |(log, tip): (&starling_core::ids::LogId, &starling_core::log::Tip)| FrontierEntry {
        author: name(machine, &log.node),
        epoch: log.epoch.0,
        len: tip.len.0,
        head: format!("{:016x}", tip.head),
    };
    InfoReply {
        node_name: about.name.clone(),
        node_id: me.to_hex(),
        cluster_id: machine.cluster().to_hex(),
        version: about.version.clone(),
        ready: state == NodeState::Ready,
        not_ready_reason: reason.to_owned(),
        p2p_addresses: own.map(|own| own.links.clone()).unwrap_or_default(),
        api_addresses: own.map(|own| own.api.clone()).into_iter().filter(|api| !api.is_empty()).collect(),
        data_dir: about.data_dir.display().to_string(),
        uptime_ms: u64::try_from(about.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        frontier: machine.frontier().tips().map(entry).collect(),
        facts_root,
        disk_state: machine.disk_refusal().map_or(storage.state, ToOwned::to_owned),
        disk_free_bytes: storage.free_disk_bytes.unwrap_or(0),
        events: machine.frontier().events(),
        loopback_only: about.loopback_only,
        view: Some(seen(machine, now)),
    }
}
