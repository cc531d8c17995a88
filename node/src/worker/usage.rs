//! What the machine does, as heartbeats tell it.
//!
//! Invariants: real readings; what this worker does not measure (disk traffic) is 0.

use std::path::Path;

use starling_proto::hwp::ResourceUsage;

use crate::monitor::{Reading, Sampler};

const MIB: u64 = 1 << 20;

/// Reads the machine again and again.
#[derive(Debug)]
pub(super) struct Meter(Option<Sampler>);

impl Meter {
    /// A machine that cannot be read gives empty readings.
    pub(super) fn start() -> Self {
        let sampler = Sampler::start(Path::new("/"));
        Self(sampler.inspect_err(|error| tracing::warn!(%error, "this machine's usage cannot be read")).ok())
    }

    /// One reading; may block. `seconds` are those since the last one.
    pub(super) fn read(&mut self, jobs: usize, seconds: u64) -> ResourceUsage {
        let reading = self.0.as_mut().map(|sampler| sampler.read(&[])).unwrap_or_default();
        told(&reading, jobs, seconds)
    }
}

fn told(reading: &Reading, jobs: usize, seconds: u64) -> ResourceUsage {
    let gpus = u64::try_from(reading.gpus.len()).unwrap_or(u64::MAX).max(1);
    let gpu_milli = reading.gpus.iter().map(|gpu| gpu.used_milli).sum::<u64>() / gpus;
    ResourceUsage {
        cpu_usage_m: reading.cpu_milli,
        memory_usage_mb: reading.mem_used_bytes / MIB,
        active_jobs: u32::try_from(jobs).unwrap_or(u32::MAX),
        disk_read_mb: 0.0,
        disk_write_mb: 0.0,
        network_sent_mb: mib(reading.net_tx_bytes_per_s.saturating_mul(seconds)),
        network_received_mb: mib(reading.net_rx_bytes_per_s.saturating_mul(seconds)),
        gpu_utilization_percent: float(gpu_milli) / 10.0,
        timestamp: i64::try_from(reading.read_unix_ms).unwrap_or(i64::MAX),
    }
}

fn mib(bytes: u64) -> f64 {
    float(bytes / 1024) / 1024.0
}

fn float(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Gpu;

    #[test]
    fn a_reading_is_told_in_the_protocols_units() {
        let gpu = |used_milli| Gpu { name: "g".to_owned(), used_milli, mem_used_bytes: 0, mem_total_bytes: 0 };
        let reading = Reading {
            read_unix_ms: 7,
            cpu_milli: 1_500,
            mem_used_bytes: 3 * MIB,
            net_tx_bytes_per_s: MIB,
            gpus: vec![gpu(500), gpu(0)],
            ..Reading::default()
        };
        let usage = told(&reading, 2, 5);
        assert_eq!((usage.cpu_usage_m, usage.memory_usage_mb, usage.active_jobs, usage.timestamp), (1_500, 3, 2, 7));
        assert_eq!((usage.network_sent_mb, usage.gpu_utilization_percent), (5.0, 25.0));
        assert!(Meter::start().read(0, 5).memory_usage_mb > 0);
    }
}
