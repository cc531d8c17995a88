//! One reading of a machine, and its form as the spec of a `HardwareStats` event.
//!
//! Invariants: what `to_spec` writes, `from_spec` reads back; lists keep within the namespace's bounds; texts from other nodes that do not fit are left out, never
//! an error.
//! Does not: read any machine (`sampler` does).

use starling_core::event::{Value, WorkSpec};
use starling_core::ids::{Epoch, JobId, JobNo, NodeId};
use starling_core::namespace::monitor::{DISKS_MAX, GPUS_MAX, JOBS_MAX};

/// Longest mount point or device name in a reading, bytes.
const NAME_BYTES_MAX: usize = 48;

/// What a machine did when it was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// When, by the machine's clock; ms since 1970.
    pub read_unix_ms: u64,
    /// In use over all CPUs, thousandths of a CPU.
    pub cpu_milli: u64,
    /// All CPUs, thousandths.
    pub cpu_total_milli: u64,
    /// Memory that is not available.
    pub mem_used_bytes: u64,
    /// All memory.
    pub mem_total_bytes: u64,
    /// The 1-minute load average times 1,000.
    pub load_milli: u64,
    /// Left on the data directory's file system.
    pub disk_free_bytes: u64,
    /// Received over all interfaces but loopback.
    pub net_rx_bytes_per_s: u64,
    /// Sent over them.
    pub net_tx_bytes_per_s: u64,
    /// File systems, that of the data directory first.
    pub disks: Vec<Disk>,
    /// GPUs, in the driver's order.
    pub gpus: Vec<Gpu>,
    /// Running jobs, the largest first.
    pub jobs: Vec<JobUse>,
}

/// One file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// In use.
    pub used_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The model.
    pub name: String,
    /// Thousandths of the time in which it was busy.
    pub used_milli: u64,
    /// Its memory in use.
    pub mem_used_bytes: u64,
    /// Its memory.
    pub mem_total_bytes: u64,
}

/// A job, as a reading names it: with the beginning of its owner's id, which tells members apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobKey {
    /// `NodeId::prefix` of the owner.
    pub owner: u64,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The number in that log.
    pub no: JobNo,
}

impl From<JobId> for JobKey {
    fn from(id: JobId) -> Self {
        Self { owner: id.log.node.prefix(), epoch: id.log.epoch, no: id.no }
    }
}

impl JobKey {
    /// The job, once its owner is found.
    #[must_use]
    pub fn of(self, owner: NodeId) -> JobId {
        JobId { log: starling_core::ids::LogId { node: owner, epoch: self.epoch }, no: self.no }
    }
}

/// What the running tasks of one job use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobUse {
    /// Which job.
    pub job: JobKey,
    /// Its tasks that run here.
    pub tasks: u64,
    /// In use between the last two looks, thousandths of a CPU.
    pub cpu_milli: u64,
    /// CPU time of these tasks so far.
    pub cpu_ms: u64,
    /// Resident memory of their process groups; shared pages count once for each process.
    pub rss_bytes: u64,
}

impl Reading {
    /// As a spec. Longer lists are cut to the namespace's bounds.
    #[must_use]
    pub fn to_spec(&self) -> WorkSpec {
        let list = |texts: Vec<String>| Value::List(texts.into_iter().map(Value::text).collect());
        let disks = self.disks.iter().take(DISKS_MAX).map(Disk::to_text).collect();
        let gpus = self.gpus.iter().take(GPUS_MAX).map(Gpu::to_text).collect();
        let jobs = self.jobs.iter().take(JOBS_MAX).map(|used| used.to_text()).collect();
        WorkSpec::new()
            .with("read_unix_ms", Value::int(self.read_unix_ms))
            .with("cpu_milli", Value::int(self.cpu_milli))
            .with("cpu_total_milli", Value::int(self.cpu_total_milli))
            .with("mem_used_bytes", Value::int(self.mem_used_bytes))
            .with("mem_total_bytes", Value::int(self.mem_total_bytes))
            .with("load_milli", Value::int(self.load_milli))
            .with("disk_free_bytes", Value::int(self.disk_free_bytes))
            .with("net_rx_bytes_per_s", Value::int(self.net_rx_bytes_per_s))
            .with("net_tx_bytes_per_s", Value::int(self.net_tx_bytes_per_s))
            .with("disks", list(disks))
            .with("gpus", list(gpus))
            .with("jobs", list(jobs))
    }

    /// From a spec. What is missing or unfit counts as 0 or is left out.
    #[must_use]
    pub fn from_spec(spec: &WorkSpec) -> Self {
        let number = |key: &str| spec.uint(key).unwrap_or(0);
        Self {
            read_unix_ms: number("read_unix_ms"),
            cpu_milli: number("cpu_milli"),
            cpu_total_milli: number("cpu_total_milli"),
            mem_used_bytes: number("mem_used_bytes"),
            mem_total_bytes: number("mem_total_bytes"),
            load_milli: number("load_milli"),
            disk_free_bytes: number("disk_free_bytes"),
            net_rx_bytes_per_s: number("net_rx_bytes_per_s"),
            net_tx_bytes_per_s: number("net_tx_bytes_per_s"),
            disks: spec.texts("disks").take(DISKS_MAX).filter_map(|text| Disk::from_text(text)).collect(),
            gpus: spec.texts("gpus").take(GPUS_MAX).filter_map(|text| Gpu::from_text(text)).collect(),
            jobs: spec.texts("jobs").take(JOBS_MAX).filter_map(|text| JobUse::from_text(text)).collect(),
        }
    }
}

impl Disk {
    fn to_text(&self) -> String {
        format!("{} {} {}", self.used_bytes, self.total_bytes, shortened(&self.mount))
    }

    fn from_text(text: &str) -> Option<Self> {
        let ([used_bytes, total_bytes], mount) = numbers(text)?;
        Some(Self { mount: mount.to_owned(), used_bytes, total_bytes })
    }
}

impl Gpu {
    fn to_text(&self) -> String {
        let Self { name, used_milli, mem_used_bytes, mem_total_bytes } = self;
        format!("{used_milli} {mem_used_bytes} {mem_total_bytes} {}", shortened(name))
    }

    fn from_text(text: &str) -> Option<Self> {
        let ([used_milli, mem_used_bytes, mem_total_bytes], name) = numbers(text)?;
        Some(Self { name: name.to_owned(), used_milli, mem_used_bytes, mem_total_bytes })
    }
}

impl JobUse {
    fn to_text(self) -> String {
        let Self { job, tasks, cpu_milli, cpu_ms, rss_bytes } = self;
        format!("{:016x}.{}.{} {tasks} {cpu_milli} {cpu_ms} {rss_bytes}", job.owner, job.epoch, job.no)
    }

    fn from_text(text: &str) -> Option<Self> {
        let (job, rest) = text.split_once(' ')?;
        let mut parts = job.split('.');
        let owner = u64::from_str_radix(parts.next()?, 16).ok()?;
        let (epoch, no) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let mut numbers = rest.split(' ').map_while(|number| number.parse().ok());
        Some(Self {
            job: JobKey { owner, epoch: Epoch(epoch), no: JobNo(no) },
            tasks: numbers.next()?,
            cpu_milli: numbers.next()?,
            cpu_ms: numbers.next()?,
            rss_bytes: numbers.next()?,
        })
    }
}

/// The numbers at the beginning of a text, and what follows them.
fn numbers<const N: usize>(text: &str) -> Option<([u64; N], &str)> {
    let (mut numbers, mut rest) = ([0; N], text);
    for number in &mut numbers {
        let (first, more) = rest.split_once(' ')?;
        *number = first.parse().ok()?;
        rest = more;
    }
    Some((numbers, rest))
}

fn shortened(name: &str) -> &str {
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}
