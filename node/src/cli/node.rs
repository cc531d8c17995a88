//! `node info`: one node, what its jobs use, and its past as small curves.
//!
//! Invariants: curves are as wide as there could be readings, up to `CURVE_WIDTH`; a gap in the readings is a gap in the curve.
//! Does not: judge; the figures are the node's own.

use starling_proto::v1::{GetNodeRequest, JobUsage, NodeDetail, NodeLine, NodeSample, NodeUsage};

use super::args::NodeInfoArgs;
use super::connect::call;
use super::error::CliError;
use super::live::{self, Page, Shown};
use super::nodes::{cpu_percent, heard, live_usage, state_word};
use super::output::footer_text;
use super::output::now_unix_ms;
use super::table::{Block, Cell, Colour, Flush, Table, Tone, clean};
use super::{Session, units};

/// Characters of the longest curve.
const CURVE_WIDTH: usize = 60;
/// Time between two readings.
const READ_EVERY_MS: u64 = 5_000;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Shows one node.
pub(crate) async fn info(session: &Session<'_>, args: NodeInfoArgs) -> Result<u8, CliError> {
    let shown = if args.watch { Shown::Live } else { Shown::Once };
    let since_ms = args.since.0;
    let node = args.node.unwrap_or_default();
    live::show(session, shown, async |client| {
        let request = GetNodeRequest { node: node.clone(), since_ms };
        Ok(NodePage { detail: call(client.get_node(request)).await?, since_ms })
    })
    .await
}

struct NodePage {
    detail: NodeDetail,
    since_ms: u64,
}

impl Page for NodePage {
    fn json(&self, session: &Session<'_>) -> Result<(), CliError> {
        session.out.json(std::slice::from_ref(&self.detail))
    }

    fn text(&self, session: &Session<'_>, shown: Shown) -> String {
        let mut text = text(&self.detail, self.since_ms, session.out.colour());
        if let (Shown::Live, Some(view)) = (shown, &self.detail.view) {
            text.push_str(&format!("\n{}\n", clean(&footer_text(view, now_unix_ms()))));
        }
        text
    }

    fn footer(&self, session: &Session<'_>) {
        session.out.footer(self.detail.view.as_ref());
    }
}

/// The whole page.
pub(crate) fn text(detail: &NodeDetail, since_ms: u64, colour: Colour) -> String {
    let node = detail.node.clone().unwrap_or_default();
    let mut text = block(&node).render(colour);
    if !node.jobs.is_empty() {
        text.push('\n');
        text.push_str(&jobs_table(&node.jobs).render(colour));
    }
    if since_ms > 0 {
        let title = format!("last {}, {} readings", units::duration(since_ms), detail.history.len());
        text.push_str(&format!("\n{}\n", colour.paint(&title, Tone::Strong)));
        let until = detail.view.as_ref().map_or(0, |view| view.as_of_unix_ms);
        text.push_str(&curves(detail, &node, until, since_ms).render(colour));
    }
    text
}

fn block(node: &NodeLine) -> Block {
    let mut block = Block::default();
    let (state, tone) = state_word(node.state());
    block.add_toned("node", &node.name, Tone::Strong).add("id", &node.id).add_toned("state", state, tone);
    block
        .add("note", &node.note)
        .add("heard", heard(node))
        .add("version", &node.version)
        .add("addresses", node.addresses.join(" "))
        .add("labels", node.labels.join(" "))
        .add("gateway", gateway(node))
        .add("cpus", format!("{} offered, {} free", units::cpus(node.cpus_milli), units::cpus(node.cpus_free_milli)))
        .add("mem", format!("{} offered, {} free", units::size(node.mem_bytes), units::size(node.mem_free_bytes)))
        .add("tasks", node.running.to_string());
    match live_usage(node) {
        Some(usage) => usage_lines(&mut block, usage),
        None => {
            block.add("usage", "not known: no reading of it has arrived lately");
        }
    }
    block
}

/// The node's part in serving workers from outside.
fn gateway(node: &NodeLine) -> String {
    let part = match (node.gateway, node.gateway_willing) {
        (true, _) => "yes",
        (false, true) => "would be",
        (false, false) => "never",
    };
    if node.worker_address.is_empty() {
        return part.to_owned();
    }
    format!("{part}; workers attach at {}", node.worker_address)
}

fn usage_lines(block: &mut Block, usage: &NodeUsage) {
    let share = |percent: Option<u64>| percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%"));
    let of = |used: u64, total: u64| {
        let percent = share(units::percent(used, total));
        format!("{percent}, {} of {}", units::size(used), units::size(total))
    };
    let rate = |bytes: u64| format!("{}/s", units::size(bytes));
    block
        .add("read", units::time(usage.read_unix_ms))
        .add("cpu", format!("{} of {} cpus", share(cpu_percent(usage)), units::cpus(usage.cpu_total_milli)))
        .add("load", units::hundredths(usage.load_milli))
        .add("memory", of(usage.mem_used_bytes, usage.mem_total_bytes))
        .add("network", format!("{} in, {} out", rate(usage.net_rx_bytes_per_s), rate(usage.net_tx_bytes_per_s)));
    for disk in &usage.disks {
        block.add("disk", format!("{} {}", disk.mount, of(disk.used_bytes, disk.total_bytes)));
    }
    for gpu in &usage.gpus {
        let memory = of(gpu.mem_used_bytes, gpu.mem_total_bytes);
        block.add("gpu", format!("{} {}% busy; memory {memory}", gpu.name, gpu.used_milli / 10));
    }
}

/// What running jobs use on one node.
pub(crate) fn jobs_table(jobs: &[JobUsage]) -> Table {
    let mut table = Table::new(&[
        ("JOBID", Flush::Left),
        ("NAME", Flush::Left),
        ("TASKS", Flush::Right),
        ("CPUS", Flush::Right),
        ("CPUTIME", Flush::Right),
        ("RSS", Flush::Right),
    ]);
    for job in jobs {
        table.push(job_cells(job));
    }
    table
}

/// A job's cells: id, name, tasks, CPUs in use, CPU time, memory.
pub(crate) fn job_cells(job: &JobUsage) -> Vec<Cell> {
    vec![
        Cell::new(&job.job, Tone::Strong),
        Cell::plain(&job.name),
        Cell::plain(job.tasks.to_string()),
        Cell::plain(units::hundredths(job.cpu_milli)),
        Cell::plain(units::duration(job.cpu_ms)),
        Cell::plain(units::size(job.rss_bytes)),
    ]
}

fn curves(detail: &NodeDetail, node: &NodeLine, until_unix_ms: u64, since_ms: u64) -> Block {
    let usage = node.usage.clone().unwrap_or_default();
    let window = Window { until_unix_ms, since_ms };
    let curve = |of: fn(&NodeSample) -> u64, full: u64, show: fn(u64, u64) -> String| {
        let values: Vec<(u64, u64)> = detail.history.iter().map(|sample| (sample.at_unix_ms, of(sample))).collect();
        let (Some(low), Some(high)) = (values.iter().map(|at| at.1).min(), values.iter().map(|at| at.1).max()) else {
            return String::new();
        };
        let full = if full == 0 { high } else { full };
        format!("{}  {} to {}", window.curve(&values, full), show(low, full), show(high, full))
    };
    let percent = |value, full| format!("{}%", units::percent(value, full).unwrap_or(0));
    let size = |value, _full| units::size(value);
    let rate = |value, _full| format!("{}/s", units::size(value));
    let load = |value: u64, _full| units::hundredths(u32::try_from(value).unwrap_or(u32::MAX));
    let mut block = Block::default();
    block
        .add("cpu", curve(|sample| sample.cpu_milli.into(), usage.cpu_total_milli.into(), percent))
        .add("load", curve(|sample| sample.load_milli.into(), 0, load))
        .add("memory", curve(|sample| sample.mem_used_bytes, usage.mem_total_bytes, size))
        .add("net in", curve(|sample| sample.net_rx_bytes_per_s, 0, rate))
        .add("net out", curve(|sample| sample.net_tx_bytes_per_s, 0, rate));
    if let Some(disk) = usage.disks.first() {
        block.add("disk", curve(|sample| sample.disk_used_bytes, disk.total_bytes, size));
    }
    if !usage.gpus.is_empty() {
        block.add("gpu", curve(|sample| sample.gpu_milli.into(), 1_000, percent));
    }
    block
}

/// A stretch of time that curves cover.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) until_unix_ms: u64,
    pub(crate) since_ms: u64,
}

impl Window {
    /// Values by time as block characters, `full` being the highest; the mean of what falls on one character, a space where nothing does.
    pub(crate) fn curve(self, values: &[(u64, u64)], full: u64) -> String {
        let readings = usize::try_from(self.since_ms / READ_EVERY_MS).unwrap_or(usize::MAX);
        let width = readings.clamp(1, CURVE_WIDTH);
        let start = self.until_unix_ms.saturating_sub(self.since_ms);
        let mut columns = vec![(0_u128, 0_u128); width];
        for (at, value) in values {
            let past = u128::from(at.saturating_sub(start)) * width as u128;
            let column = usize::try_from(past / u128::from(self.since_ms.max(1))).unwrap_or(usize::MAX);
            let (sum, count) = &mut columns[column.min(width - 1)];
            (*sum, *count) = (*sum + u128::from(*value), *count + 1);
        }
        let symbol = |(sum, count): (u128, u128)| {
            let Some(mean) = sum.checked_div(count) else { return ' ' };
            let level = mean * LEVELS.len() as u128 / u128::from(full.max(1));
            LEVELS[usize::try_from(level).unwrap_or(usize::MAX).min(LEVELS.len() - 1)]
        };
        columns.into_iter().map(symbol).collect()
    }
}
