//! The past hour of readings, of this node and of others as they were heard.
//!
//! Invariants: at most `NODES_MAX` nodes with at most `RING_MAX` samples each: 2.6 MB when all are full, 40 KB for a lone node; a reading that presence repeats is
//! kept once; time is this node's, so that a wrong clock elsewhere moves nothing.
//! Does not: outlive the process, or fill in what was not heard.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_core::ids::NodeId;
use starling_core::time::Mono;

use super::Reading;

/// How far back the past goes. Low: less to see. High: memory, in proportion.
pub const HISTORY: Duration = Duration::from_secs(3_600);
/// Samples kept of one node: an hour of one every 5 s.
pub const RING_MAX: usize = 720;
/// Nodes whose past is kept.
pub const NODES_MAX: usize = 64;

/// One reading, cut down to what curves are drawn of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it arrived, by this node's monotonic clock.
    pub at: Mono,
    /// In use over all CPUs, thousandths of a CPU.
    pub cpu_milli: u32,
    /// The 1-minute load average times 1,000.
    pub load_milli: u32,
    /// Memory in use.
    pub mem_used_bytes: u64,
    /// Of the data directory's file system.
    pub disk_used_bytes: u64,
    /// Received per second.
    pub net_rx_bytes_per_s: u64,
    /// Sent per second.
    pub net_tx_bytes_per_s: u64,
    /// Mean busy time over the GPUs, thousandths.
    pub gpu_milli: u32,
}

const _: () = assert!(size_of::<Sample>() * RING_MAX * NODES_MAX < 3 << 20);

impl Sample {
    fn of(at: Mono, reading: &Reading) -> Self {
        let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let gpus = u64::try_from(reading.gpus.len().max(1)).unwrap_or(u64::MAX);
        let busy = reading.gpus.iter().fold(0_u64, |sum, gpu| sum.saturating_add(gpu.used_milli));
        Self {
            at,
            cpu_milli: short(reading.cpu_milli),
            load_milli: short(reading.load_milli),
            mem_used_bytes: reading.mem_used_bytes,
            disk_used_bytes: reading.disks.first().map_or(0, |disk| disk.used_bytes),
            net_rx_bytes_per_s: reading.net_rx_bytes_per_s,
            net_tx_bytes_per_s: reading.net_tx_bytes_per_s,
            gpu_milli: short(busy / gpus),
        }
    }
}

/// One node's past.
#[derive(Debug, Default)]
struct Track {
    /// `read_unix_ms` of the newest sample.
    last_read: u64,
    samples: VecDeque<Sample>,
}

impl Track {
    fn newest(&self) -> Mono {
        self.samples.back().map_or(Mono(0), |sample| sample.at)
    }
}

/// All of it; clones share it.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<BTreeMap<NodeId, Track>>>);

impl History {
    /// Takes in a reading of `node`, unless it is the one that came last. When there are `NODES_MAX` nodes, the one that was silent longest is forgotten.
    pub fn put(&self, node: NodeId, at: Mono, reading: &Reading) {
        let mut tracks = self.locked();
        if !tracks.contains_key(&node) && tracks.len() >= NODES_MAX {
            let silent = tracks.iter().min_by_key(|(_, track)| track.newest()).map(|(node, _)| *node);
            if let Some(silent) = silent {
                tracks.remove(&silent);
            }
        }
        let track = tracks.entry(node).or_default();
        if track.samples.is_empty() || track.last_read != reading.read_unix_ms {
            if track.samples.len() >= RING_MAX {
                track.samples.pop_front();
            }
            track.samples.push_back(Sample::of(at, reading));
            track.last_read = reading.read_unix_ms;
        }
    }

    /// The samples of `node` from `since` on, oldest first; none if nothing was heard.
    #[must_use]
    pub fn samples(&self, node: &NodeId, since: Mono) -> Vec<Sample> {
        let tracks = self.locked();
        let track = tracks.get(node).into_iter();
        track.flat_map(|track| track.samples.iter().filter(|sample| sample.at >= since)).copied().collect()
    }

    // Nothing is called under the lock that could panic half-way.
    fn locked(&self) -> MutexGuard<'_, BTreeMap<NodeId, Track>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
