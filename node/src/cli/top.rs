//! `top`: all nodes with bars, and what runs on each, refreshed every second.
//!
//! Invariants: at most 100 columns, as long as names are short; without a terminal the frames follow each other as plain text.
//! Does not: sort by anything that moves: a line that jumps cannot be read.

use starling_proto::v1::{ListNodesRequest, NodeLine, NodeState, NodeUsage, NodesReply};

use super::args::TopArgs;
use super::connect::call;
use super::error::CliError;
use super::live::{self, Page, Shown};
use super::node::job_cells;
use super::nodes::{cpu_percent, live_usage, mem_percent, state_word};
use super::output::{footer_text, now_unix_ms};
use super::table::{Cell, Colour, Flush, Table, Tone, clean};
use super::{Session, units};

/// Characters inside a bar.
const BAR_WIDTH: u64 = 8;
/// From here on a bar is a warning.
const HIGH_PERCENT: u64 = 90;

/// Runs the verb.
pub(crate) async fn top(session: &Session<'_>, args: &TopArgs) -> Result<u8, CliError> {
    let shown = if args.once { Shown::Once } else { Shown::Live };
    live::show(session, shown, async |client| {
        Ok(TopPage(call(client.list_nodes(ListNodesRequest { with_jobs: true })).await?))
    })
    .await
}

struct TopPage(NodesReply);

impl Page for TopPage {
    fn json(&self, session: &Session<'_>) -> Result<(), CliError> {
        session.out.json(&self.0.nodes)
    }

    fn text(&self, session: &Session<'_>, shown: Shown) -> String {
        let mut text = text(&self.0.nodes, session.out.colour());
        if let (Shown::Live, Some(view)) = (shown, &self.0.view) {
            text.push_str(&format!("\n{}\n", clean(&footer_text(view, now_unix_ms()))));
        }
        text
    }

    fn footer(&self, session: &Session<'_>) {
        session.out.footer(self.0.view.as_ref());
    }
}

/// The whole page.
pub(crate) fn text(nodes: &[NodeLine], colour: Colour) -> String {
    let mut text = format!("{}\n\n", colour.paint(&summary(nodes), Tone::Strong));
    text.push_str(&nodes_table(nodes).render(colour));
    let jobs = jobs_table(nodes);
    text.push('\n');
    text.push_str(&jobs.map_or_else(|| "nothing is running\n".to_owned(), |jobs| jobs.render(colour)));
    text
}

/// Everything added up in one line.
fn summary(nodes: &[NodeLine]) -> String {
    let usages = || nodes.iter().filter_map(live_usage);
    let sum = |of: fn(&NodeUsage) -> u64| usages().map(of).fold(0, u64::saturating_add);
    let (cpu, cpus) = (sum(|usage| usage.cpu_milli.into()), sum(|usage| usage.cpu_total_milli.into()));
    let (mem, mem_total) = (sum(|usage| usage.mem_used_bytes), sum(|usage| usage.mem_total_bytes));
    let share = |used, total| units::percent(used, total).map_or_else(|| "-".to_owned(), |share| format!("{share}%"));
    let speaking = nodes.iter().filter(|node| node.state() != NodeState::Down);
    let tasks: u64 = speaking.map(|node| u64::from(node.running)).sum();
    let (told, all, cores) = (usages().count(), nodes.len(), units::cpus(u32::try_from(cpus).unwrap_or(u32::MAX)));
    format!(
        "{told} of {all} nodes  cpu {} of {cores}  mem {} of {}  tasks {tasks}",
        share(cpu, cpus),
        share(mem, mem_total),
        units::size(mem_total)
    )
}

fn nodes_table(nodes: &[NodeLine]) -> Table {
    let has_gpus = nodes.iter().filter_map(live_usage).any(|usage| !usage.gpus.is_empty());
    let mut columns = vec![
        ("NODE", Flush::Left),
        ("STATE", Flush::Left),
        ("CPU", Flush::Left),
        ("MEM", Flush::Left),
        ("LOAD", Flush::Right),
        ("IN/S", Flush::Right),
        ("OUT/S", Flush::Right),
        ("TASKS", Flush::Right),
    ];
    if has_gpus {
        columns.push(("GPU", Flush::Left));
    }
    let mut table = Table::new(&columns);
    for node in nodes {
        let (state, tone) = state_word(node.state());
        let usage = live_usage(node);
        let size =
            |of: fn(&NodeUsage) -> u64| Cell::plain(usage.map(|usage| units::size(of(usage))).unwrap_or_default());
        table.push(vec![
            Cell::new(&node.name, Tone::Strong),
            Cell::new(state, tone),
            bar(usage.and_then(cpu_percent)),
            bar(usage.and_then(mem_percent)),
            Cell::plain(usage.map(|usage| units::hundredths(usage.load_milli)).unwrap_or_default()),
            size(|usage| usage.net_rx_bytes_per_s),
            size(|usage| usage.net_tx_bytes_per_s),
            Cell::plain(node.running.to_string()),
            bar(usage.and_then(gpu_percent)),
        ]);
    }
    table
}

/// Mean over the GPUs; `None` without any.
fn gpu_percent(usage: &NodeUsage) -> Option<u64> {
    let busy: u64 = usage.gpus.iter().map(|gpu| u64::from(gpu.used_milli)).sum();
    units::percent(busy, usage.gpus.len() as u64 * 1_000)
}

/// `[###-----]  37%`.
fn bar(percent: Option<u64>) -> Cell {
    let Some(percent) = percent else { return Cell::plain("") };
    let full = (percent.min(100) * BAR_WIDTH + 50) / 100;
    let symbol = |column| if column < full { '#' } else { '-' };
    let bar: String = (0..BAR_WIDTH).map(symbol).collect();
    let tone = if percent >= HIGH_PERCENT { Tone::Bad } else { Tone::Good };
    Cell::new(format!("[{bar}] {percent:>3}%"), tone)
}

/// The running jobs of each node; `None` when there are none.
fn jobs_table(nodes: &[NodeLine]) -> Option<Table> {
    let mut table = Table::new(&[
        ("NODE", Flush::Left),
        ("JOBID", Flush::Left),
        ("NAME", Flush::Left),
        ("TASKS", Flush::Right),
        ("CPUS", Flush::Right),
        ("CPUTIME", Flush::Right),
        ("RSS", Flush::Right),
    ]);
    let live = nodes.iter().filter(|node| live_usage(node).is_some());
    let mut rows = live.flat_map(|node| node.jobs.iter().map(move |job| (node, job))).peekable();
    rows.peek()?;
    for (node, job) in rows {
        let mut cells = vec![Cell::plain(&node.name)];
        cells.extend(job_cells(job));
        table.push(cells);
    }
    Some(table)
}
