//! Reads this machine.
//!
//! Invariants: reads only what a reading shows; rates are over the time since the last reading.
//! Does not: run by itself; a thread that may block calls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use starling_core::namespace::monitor::DISKS_MAX;
use sysinfo::{CpuRefreshKind, DiskRefreshKind, Disks, MemoryRefreshKind, RefreshKind, System};

use super::gpu::Gpus;
use super::groups::Groups;
use super::procfs::{self, Traffic};
use super::{Disk, Reading, TaskGroup};

/// Reads the machine again and again.
#[derive(Debug)]
pub struct Sampler {
    system: System,
    kind: RefreshKind,
    data_dir: PathBuf,
    mounts: Option<Disks>,
    traffic: Option<(Instant, Traffic)>,
    groups: Groups,
    gpus: Gpus,
}

impl Sampler {
    /// Takes the first look, from which rates are counted. The file system of `data_dir` comes first among the disks.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(data_dir: &Path) -> Result<Self, sysinfo::Error> {
        let kind = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let mut system = System::new_with_specifics(kind)?;
        system.refresh_specifics(kind);
        Ok(Self {
            system,
            kind,
            data_dir: data_dir.to_owned(),
            // Without a list of mounts there is still the data directory's.
            mounts: Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing()).ok(),
            traffic: traffic_now(),
            groups: Groups::default(),
            gpus: Gpus::find(),
        })
    }

    /// One reading. `running` lists the process groups of the running tasks. May block for two seconds, when a GPU's driver hangs.
    pub fn read(&mut self, running: &[TaskGroup]) -> Reading {
        self.system.refresh_specifics(self.kind);
        let cores = u64::try_from(self.system.cpus().len()).unwrap_or(u64::MAX);
        let (rx, tx) = self.rates();
        let (disks, disk_free_bytes) = self.disks();
        let read = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Reading {
            read_unix_ms: u64::try_from(read.as_millis()).unwrap_or(u64::MAX),
            cpu_milli: milli(f64::from(self.system.global_cpu_usage()) / 100.0).saturating_mul(cores),
            cpu_total_milli: cores.saturating_mul(1_000),
            mem_used_bytes: self.system.used_memory(),
            mem_total_bytes: self.system.total_memory(),
            load_milli: System::load_average().map_or(0, |load| milli(load.one)),
            disk_free_bytes,
            net_rx_bytes_per_s: rx,
            net_tx_bytes_per_s: tx,
            disks,
            gpus: self.gpus.look(),
            jobs: self.groups.look(running),
        }
    }

    /// Bytes per second received and sent since the last reading.
    fn rates(&mut self) -> (u64, u64) {
        let Some((now, traffic)) = traffic_now() else { return (0, 0) };
        let before = self.traffic.replace((now, traffic));
        before.map_or((0, 0), |(then, before)| {
            let elapsed_ms = u64::try_from(now.duration_since(then).as_millis()).unwrap_or(u64::MAX).max(1);
            // An interface that went away takes its counters along.
            let rate = |now: u64, then: u64| now.saturating_sub(then).saturating_mul(1_000) / elapsed_ms;
            (rate(traffic.rx_bytes, before.rx_bytes), rate(traffic.tx_bytes, before.tx_bytes))
        })
    }

    /// The file systems, that of the data directory first, each once; and what is left on the first.
    fn disks(&mut self) -> (Vec<Disk>, u64) {
        if let Some(mounts) = &mut self.mounts {
            mounts.refresh_specifics(true, DiskRefreshKind::nothing());
        }
        let listed = self.mounts.iter().flat_map(|mounts| mounts.iter());
        let mounts: Vec<&Path> = listed.map(sysinfo::Disk::mount_point).collect();
        let own =
            mounts.iter().filter(|mount| self.data_dir.starts_with(mount)).max_by_key(|mount| mount.as_os_str().len());
        let mut free = 0;
        let mut seen = Vec::new();
        let mut disks = Vec::new();
        if let Some((disk, id, left)) = file_system(&self.data_dir, own.copied().unwrap_or(&self.data_dir)) {
            free = left;
            seen.push(id);
            disks.push(disk);
        }
        for mount in mounts {
            // A bind mount shows a file system a second time.
            if disks.len() < DISKS_MAX
                && let Some((disk, id, _)) = file_system(mount, mount)
                && !seen.contains(&id)
            {
                seen.push(id);
                disks.push(disk);
            }
        }
        (disks, free)
    }
}

/// The file system at `path`, the device it is on, and what is left on it; `None` for one without blocks.
fn file_system(path: &Path, mount: &Path) -> Option<(Disk, u64, u64)> {
    let stats = rustix::fs::statvfs(path).ok().filter(|stats| stats.f_blocks > 0)?;
    let device = rustix::fs::stat(path).ok()?.st_dev;
    let bytes = |blocks: u64| blocks.saturating_mul(stats.f_frsize);
    let used_bytes = bytes(stats.f_blocks.saturating_sub(stats.f_bfree));
    let disk = Disk { mount: mount.display().to_string(), used_bytes, total_bytes: bytes(stats.f_blocks) };
    Some((disk, device, bytes(stats.f_bavail)))
}

fn traffic_now() -> Option<(Instant, Traffic)> {
    let dev = fs::read_to_string("/proc/net/dev").ok()?;
    Some((Instant::now(), procfs::traffic(&dev)))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "readings are small and not negative, and `as` saturates"
)]
fn milli(number: f64) -> u64 {
    (number * 1_000.0).round() as u64
}
