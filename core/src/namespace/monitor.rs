//! `monitor`: hardware readings, sent with presence, the latest per node.
//!
//! Kinds: `HardwareStats`. Never in the log: should one appear there, it folds to nothing.

use smol_str::SmolStr;

use super::{Durability, FieldReq, FieldType, Namespace, NamespaceSpec};
use crate::event::{Event, SysContext, WorkSpec};
use crate::facts::Delta;
use crate::ids::Dot;
use crate::time::Hlc;

/// The namespace's name.
pub const NAME: &str = "monitor";
const STATS: &str = "HardwareStats";
/// File systems in one reading.
pub const DISKS_MAX: usize = 8;
/// GPUs in one reading.
pub const GPUS_MAX: usize = 16;
/// Running jobs in one reading, the largest ones. A reading travels with every presence, so it stays small.
pub const JOBS_MAX: usize = 32;

/// The namespace.
#[derive(Debug)]
pub struct Monitor {
    spec: NamespaceSpec,
}

impl Default for Monitor {
    fn default() -> Self {
        let natural = FieldType::Int { min: 0, max: i64::MAX };
        let texts = |max: usize| FieldType::Texts { min: 0, max };
        let schema = vec![
            // Thousandths of one core in use, over all cores.
            FieldReq::required("cpu_milli", natural),
            FieldReq::required("cpu_total_milli", natural),
            FieldReq::required("mem_used_bytes", natural),
            FieldReq::required("mem_total_bytes", natural),
            // The 1-minute load average times 1,000.
            FieldReq::optional("load_milli", natural),
            // Left on the data directory's file system.
            FieldReq::optional("disk_free_bytes", natural),
            // When the machine was read, by its own clock: presence repeats a reading until the next.
            FieldReq::optional("read_unix_ms", natural),
            // Over all interfaces but loopback.
            FieldReq::optional("net_rx_bytes_per_s", natural),
            FieldReq::optional("net_tx_bytes_per_s", natural),
            // `<used bytes> <total bytes> <mount point>`, that of the data directory first.
            FieldReq::optional("disks", texts(DISKS_MAX)),
            // `<busy milli> <used bytes> <total bytes> <name>`, bytes of its memory.
            FieldReq::optional("gpus", texts(GPUS_MAX)),
            // `<job> <tasks> <cpu milli> <cpu ms> <rss bytes>`, the largest first; a job is
            // `<first 16 hex digits of its owner's id>.<epoch>.<number>`.
            FieldReq::optional("jobs", texts(JOBS_MAX)),
        ];
        let spec = NamespaceSpec {
            name: SmolStr::new_static(NAME),
            preemptible: false,
            handler_type: SmolStr::default(),
            schema,
            durability: Durability::Ephemeral,
        };
        Self { spec }
    }
}

impl Namespace for Monitor {
    fn spec(&self) -> &NamespaceSpec {
        &self.spec
    }

    fn delta(&self, _dot: Dot, _event: &Event) -> Delta {
        Delta::Nothing
    }
}

/// A reading.
#[must_use]
pub fn hardware_stats(hlc: Hlc, stats: WorkSpec) -> Event {
    Event {
        hlc,
        ns: SmolStr::new_static(NAME),
        kind: SmolStr::new_static(STATS),
        ver: 1,
        ctx: SysContext::default(),
        spec: stats,
    }
}
