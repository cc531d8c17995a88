//! `nodes`, `cluster info` and `doctor`.
//!
//! Invariants: `doctor` exits with 1 when a check fails.
//! Does not: judge health; the node does.

use starling_proto::v1::{
    CheckState, DoctorRequest, InfoReply, InfoRequest, ListNodesRequest, ListWorkersReply, ListWorkersRequest,
    NodeLine, NodeState, NodeUsage,
};

use super::args::NodesArgs;
use super::connect::call;
use super::error::{CliError, EXIT_FAILURE, EXIT_OK};
use super::output::Format;
use super::table::{Block, Cell, Flush, Table, Tone, clean};
use super::{Session, gateway, units};

/// Logs listed by `cluster info`.
const LOGS_SHOWN: usize = 20;

/// Lists nodes, and the workers of their gateway below.
pub(crate) async fn list(session: &Session<'_>, args: &NodesArgs) -> Result<u8, CliError> {
    let out = session.out;
    let mut client = session.open().await?;
    let reply = call(client.list_nodes(ListNodesRequest { with_jobs: false })).await?;
    match out.format() {
        Format::Json => out.json(&reply.nodes)?,
        Format::Human => {
            let labels = if args.wide { Labels::Shown } else { Labels::Left };
            out.table(&nodes_table(&reply.nodes, labels))?;
        }
    }
    // What is known of nodes is worth showing although their gateway does not answer.
    match call(client.list_workers(ListWorkersRequest {})).await {
        Ok(workers) => show_workers(session, &workers)?,
        Err(error) => out.note(&error.to_string()),
    }
    out.footer(reply.view.as_ref());
    Ok(EXIT_OK)
}

fn show_workers(session: &Session<'_>, reply: &ListWorkersReply) -> Result<(), CliError> {
    let out = session.out;
    match out.format() {
        Format::Json => out.json(&gateway::worker_lines(reply)),
        Format::Human if reply.workers.is_empty() => Ok(()),
        Format::Human => {
            out.line(&format!("\n{}", out.paint(&clean(&gateway::workers_title(reply)), Tone::Strong)))?;
            out.table(&gateway::workers_table(&reply.workers))
        }
    }
}

/// Whether the table has a column for labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Labels {
    Shown,
    Left,
}

pub(crate) fn nodes_table(nodes: &[NodeLine], labels: Labels) -> Table {
    let mut columns = vec![
        ("NODE", Flush::Left),
        ("STATE", Flush::Left),
        ("CPUS(FREE)", Flush::Right),
        ("MEM(FREE)", Flush::Right),
        ("TASKS", Flush::Right),
        ("CPU%", Flush::Right),
        ("MEM%", Flush::Right),
        ("LOAD", Flush::Right),
        ("HEARD", Flush::Right),
        ("ADDRESS(NOTE)", Flush::Left),
    ];
    columns.extend((labels == Labels::Shown).then_some(("LABELS", Flush::Left)));
    let mut table = Table::new(&columns);
    for node in nodes {
        let (state, tone) = state_word(node.state());
        let usage = live_usage(node);
        let share = |of: fn(&NodeUsage) -> Option<u64>| usage.and_then(of).map(|share| share.to_string());
        let mut place = address(&node.addresses);
        let notes = [node.note.as_str(), if node.gateway { "gateway" } else { "" }];
        let notes: Vec<&str> = notes.into_iter().filter(|note| !note.is_empty()).collect();
        if !notes.is_empty() {
            place = format!("{place} ({})", notes.join("; ")).trim_start().to_owned();
        }
        let mut row = vec![
            Cell::new(&node.name, Tone::Strong),
            Cell::new(state, tone),
            Cell::plain(format!("{}({})", units::cpus(node.cpus_milli), units::cpus(node.cpus_free_milli))),
            Cell::plain(format!("{}({})", units::size(node.mem_bytes), units::size(node.mem_free_bytes))),
            Cell::plain(node.running.to_string()),
            Cell::plain(share(cpu_percent).unwrap_or_default()),
            Cell::plain(share(mem_percent).unwrap_or_default()),
            Cell::plain(usage.map(|usage| units::hundredths(usage.load_milli)).unwrap_or_default()),
            Cell::plain(heard(node)),
            Cell::plain(place),
        ];
        row.extend((labels == Labels::Shown).then(|| Cell::plain(node.labels.join(","))));
        table.push(row);
    }
    table
}

/// A node's state as a word.
pub(crate) fn state_word(state: NodeState) -> (&'static str, Tone) {
    match state {
        NodeState::Unknown => ("UNKNOWN", Tone::Plain),
        NodeState::Ready => ("READY", Tone::Good),
        NodeState::Suspect => ("SUSPECT", Tone::Busy),
        NodeState::Down => ("DOWN", Tone::Bad),
        NodeState::Closed => ("CLOSED", Tone::Faint),
    }
}

/// How long ago the node was heard.
pub(crate) fn heard(node: &NodeLine) -> String {
    if node.answering { "here".to_owned() } else { units::duration(node.silent_ms) }
}

/// The reading of a node that still speaks: of a silent one it says nothing about now.
pub(crate) fn live_usage(node: &NodeLine) -> Option<&NodeUsage> {
    match node.state() {
        NodeState::Ready | NodeState::Suspect | NodeState::Closed => node.usage.as_ref(),
        NodeState::Down | NodeState::Unknown => None,
    }
}

/// CPU in use, of the whole machine.
pub(crate) fn cpu_percent(usage: &NodeUsage) -> Option<u64> {
    units::percent(usage.cpu_milli.into(), usage.cpu_total_milli.into())
}

/// Memory in use.
pub(crate) fn mem_percent(usage: &NodeUsage) -> Option<u64> {
    units::percent(usage.mem_used_bytes, usage.mem_total_bytes)
}

/// The address that means most: on this host all are alike, elsewhere a loopback address leads nowhere.
fn address(addresses: &[String]) -> String {
    let is_loopback = |address: &String| address.starts_with("127.") || address.starts_with("[::1]");
    let far = addresses.iter().find(|address| !is_loopback(address));
    far.or_else(|| addresses.first()).cloned().unwrap_or_default()
}

/// Shows the answering node and its cluster.
pub(crate) async fn info(session: &Session<'_>) -> Result<u8, CliError> {
    let out = session.out;
    let mut client = session.open().await?;
    let reply = call(client.info(InfoRequest {})).await?;
    match out.format() {
        Format::Json => out.json(std::slice::from_ref(&reply))?,
        Format::Human => out.block(&info_block(&reply))?,
    }
    out.footer(reply.view.as_ref());
    Ok(EXIT_OK)
}

fn info_block(reply: &InfoReply) -> Block {
    let mut block = Block::default();
    block.add("node", &reply.node_name).add("id", &reply.node_id).add("cluster", &reply.cluster_id);
    if reply.ready {
        block.add_toned("state", "ready", Tone::Good);
    } else {
        block.add_toned("state", format!("not ready: {}", reply.not_ready_reason), Tone::Bad);
    }
    if reply.loopback_only {
        block.add("reach", "this host only, for want of a secret: see `starling cluster init`");
    }
    block
        .add("version", &reply.version)
        .add("up for", units::duration(reply.uptime_ms))
        .add("p2p", reply.p2p_addresses.join(" "))
        .add("api", reply.api_addresses.join(" "))
        .add("data", &reply.data_dir)
        .add("disk", format!("{}, {} free", reply.disk_state, units::size(reply.disk_free_bytes)))
        .add("events", units::count(reply.events))
        .add("facts root", &reply.facts_root);
    for entry in reply.frontier.iter().take(LOGS_SHOWN) {
        block.add(
            "log",
            format!("{}, epoch {}: {} events, head {}", entry.author, entry.epoch, units::count(entry.len), entry.head),
        );
    }
    let more = reply.frontier.len().saturating_sub(LOGS_SHOWN);
    if more > 0 {
        block.add("log", format!("and {more} more; --json shows all"));
    }
    block
}

/// Runs the node's checks.
pub(crate) async fn doctor(session: &Session<'_>) -> Result<u8, CliError> {
    let out = session.out;
    let mut client = session.open().await?;
    let reply = call(client.doctor(DoctorRequest {})).await?;
    match out.format() {
        Format::Json => out.json(&reply.checks)?,
        Format::Human => {
            let mut table = Table::new(&[("CHECK", Flush::Left), ("STATE", Flush::Left), ("DETAIL", Flush::Left)]);
            for check in &reply.checks {
                let (state, tone) = match check.state() {
                    CheckState::Unknown => ("UNKNOWN", Tone::Plain),
                    CheckState::Ok => ("OK", Tone::Good),
                    CheckState::Warn => ("WARN", Tone::Busy),
                    CheckState::Fail => ("FAIL", Tone::Bad),
                };
                table.push(vec![Cell::plain(&check.name), Cell::new(state, tone), Cell::plain(&check.detail)]);
            }
            out.table(&table)?;
            for check in reply.checks.iter().filter(|check| !check.hint.is_empty()) {
                out.line(&format!("hint: {}: {}", check.name, check.hint))?;
            }
        }
    }
    out.footer(reply.view.as_ref());
    let failed = reply.checks.iter().any(|check| check.state() == CheckState::Fail);
    Ok(if failed { EXIT_FAILURE } else { EXIT_OK })
}
