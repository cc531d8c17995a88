//! The monitor thread: readings for the `monitor` namespace, and what others said of themselves for the history.
//!
//! Invariants: costs a few milliseconds every five seconds; nothing of it enters the log.
//! Does not: read the machine itself (`monitor` does).

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use starling_core::event::WorkSpec;
use starling_core::ids::NodeId;
use starling_core::machine::{Input, Machine};
use starling_core::time::Now;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use tracing::warn;

use crate::driver::Handle;
use crate::monitor::{History, JobKey, NODES_MAX, Reading, Sampler, TaskGroup};
use crate::supervise::{Group, Keeper};

/// Time from the start to the first reading: rates need two looks.
const FIRST: Duration = Duration::from_secs(1);
/// Time between two looks at what others said: half of that between their readings, so that none is missed.
const LOOK: Duration = Duration::from_millis(2_500);
/// Every so many looks this machine is read: every five seconds.
const LOOKS_PER_READING: u32 = 2;

/// What the machine has, for the defaults of what a node offers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hardware {
    /// Thousandths of a core.
    pub(super) cpu_milli: u64,
    /// Bytes of memory.
    pub(super) mem_bytes: u64,
}

/// Looks at the machine once.
///
/// # Errors
/// What the system says.
pub(super) fn hardware() -> Result<Hardware, sysinfo::Error> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let memory = MemoryRefreshKind::nothing().with_ram();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(memory))?;
    Ok(Hardware { cpu_milli: cores * 1_000, mem_bytes: system.total_memory() })
}

/// What the monitor thread works with.
#[derive(Debug)]
pub(super) struct Monitor {
    pub(super) me: NodeId,
    pub(super) data_dir: PathBuf,
    pub(super) handle: Handle,
    pub(super) keeper: Keeper,
    pub(super) history: History,
    pub(super) runtime: tokio::runtime::Handle,
}

impl Monitor {
    /// Reads, tells the driver and keeps the past until the node stops. For a thread of its own.
    pub(super) fn run(self, stop: &Receiver<()>) {
        let mut sampler = Sampler::start(&self.data_dir)
            .inspect_err(|error| warn!(%error, "no hardware readings on this machine"))
            .ok();
        let (mut wait, mut looks) = (FIRST, 0_u32);
        // The channel carries nothing; it ends when the node does.
        while stop.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            if looks.is_multiple_of(LOOKS_PER_READING)
                && let Some(sampler) = &mut sampler
            {
                let reading = sampler.read(&self.running());
                self.history.put(self.me, self.handle.clock().now().mono, &reading);
                if !self.handle.input(Input::Stats(reading.to_spec())) {
                    break;
                }
            }
            self.hear();
            (wait, looks) = (LOOK, looks.wrapping_add(1));
        }
    }

    /// The process groups of the running tasks.
    fn running(&self) -> Vec<TaskGroup> {
        let groups = self.keeper.groups().into_iter();
        groups
            .map(|Group { run, place, group }| TaskGroup { job: JobKey::from(place.grant.job), run: run.0, group })
            .collect()
    }

    /// Keeps what others have said since the last look.
    fn hear(&self) {
        let me = self.me;
        let said = self.runtime.block_on(self.handle.ask(move |machine, now| said(machine, now, &me)));
        // A driver that is busy, or stops, has more important things to do.
        for (node, stats) in said.unwrap_or_default() {
            self.history.put(node, self.handle.clock().now().mono, &Reading::from_spec(&stats));
        }
    }
}

/// The latest readings of the other live nodes, as many as the history keeps.
fn said(machine: &Machine, now: Now, me: &NodeId) -> Vec<(NodeId, WorkSpec)> {
    let others = machine.fleet().live(now.mono).filter(|(node, _)| *node != me).take(NODES_MAX - 1);
    others.filter_map(|(node, peer)| Some((*node, peer.presence.stats.as_ref()?.spec.clone()))).collect()
}
