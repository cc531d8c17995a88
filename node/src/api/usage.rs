//! Readings of machines as the API shows them.
//!
//! Invariants: a number that does not fit its field is clamped; a job that this node does not know yet is still shown, by its owner's id.
//! Does not: read any machine (`monitor` does).

use starling_core::facts::view;
use starling_core::ids::NodeId;
use starling_core::machine::Machine;
use starling_core::time::{Mono, Now};
use starling_proto::v1::{DiskUsage, GpuUsage, JobUsage, NodeSample, NodeUsage};

use super::convert::clamp;
use crate::monitor::{Disk, Gpu, HISTORY, History, JobKey, JobUse, Reading, Sample};

/// A reading without its jobs.
pub(super) fn of(reading: &Reading) -> NodeUsage {
    let disk = |disk: &Disk| DiskUsage {
        mount: disk.mount.clone(),
        used_bytes: disk.used_bytes,
        total_bytes: disk.total_bytes,
    };
    let gpu = |gpu: &Gpu| GpuUsage {
        name: gpu.name.clone(),
        used_milli: clamp(gpu.used_milli),
        mem_used_bytes: gpu.mem_used_bytes,
        mem_total_bytes: gpu.mem_total_bytes,
    };
    NodeUsage {
        read_unix_ms: reading.read_unix_ms,
        cpu_milli: clamp(reading.cpu_milli),
        cpu_total_milli: clamp(reading.cpu_total_milli),
        mem_used_bytes: reading.mem_used_bytes,
        mem_total_bytes: reading.mem_total_bytes,
        load_milli: clamp(reading.load_milli),
        net_rx_bytes_per_s: reading.net_rx_bytes_per_s,
        net_tx_bytes_per_s: reading.net_tx_bytes_per_s,
        disks: reading.disks.iter().map(disk).collect(),
        gpus: reading.gpus.iter().map(gpu).collect(),
    }
}

/// What running jobs use, with the names that users know them by.
pub(super) fn jobs(machine: &Machine, reading: &Reading) -> Vec<JobUsage> {
    reading.jobs.iter().map(|used| job(machine, used)).collect()
}

fn job(machine: &Machine, used: &JobUse) -> JobUsage {
    let facts = machine.facts();
    let JobKey { owner, no, .. } = used.job;
    let node = facts.nodes().map(|(node, _)| node).find(|node| node.prefix() == owner);
    let id = node.map(|node| used.job.of(*node));
    let submit = id.and_then(|id| facts.job(&id)).and_then(|job| job.submit.as_ref());
    JobUsage {
        job: id.map_or_else(|| format!("{:08x}-{no}", owner >> 32), |id| view::job_name(facts, &id)),
        name: submit.map(|submit| submit.name.to_string()).unwrap_or_default(),
        tasks: clamp(used.tasks),
        cpu_milli: clamp(used.cpu_milli),
        cpu_ms: used.cpu_ms,
        rss_bytes: used.rss_bytes,
    }
}

/// The samples of the last `since_ms`, an hour at most, oldest first.
pub(super) fn history(past: &History, node: &NodeId, now: Now, since_ms: u64) -> Vec<NodeSample> {
    if since_ms == 0 {
        return Vec::new();
    }
    let longest = u64::try_from(HISTORY.as_millis()).unwrap_or(u64::MAX);
    let since = Mono(now.mono.0.saturating_sub(since_ms.min(longest)));
    past.samples(node, since).iter().map(|sample| at(now, sample)).collect()
}

fn at(now: Now, sample: &Sample) -> NodeSample {
    NodeSample {
        at_unix_ms: now.wall.0.saturating_sub(now.mono.since_ms(sample.at)),
        cpu_milli: sample.cpu_milli,
        load_milli: sample.load_milli,
        mem_used_bytes: sample.mem_used_bytes,
        disk_used_bytes: sample.disk_used_bytes,
        net_rx_bytes_per_s: sample.net_rx_bytes_per_s,
        net_tx_bytes_per_s: sample.net_tx_bytes_per_s,
        gpu_milli: sample.gpu_milli,
    }
}
