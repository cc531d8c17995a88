//! Hardware readings for the `monitor` namespace.
//!
//! Invariants: costs a few milliseconds every five seconds.

use std::time::Duration;

use starling_core::event::{Value, WorkSpec};
use starling_core::machine::Input;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use tracing::warn;

use crate::driver::Handle;

/// Time between two readings.
const EVERY: Duration = Duration::from_secs(5);

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

/// Sends readings to the driver until it ends. For a thread of its own.
pub(super) fn run(handle: &Handle, stop: &std::sync::mpsc::Receiver<()>) {
    let kind = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing().with_usage())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let mut system = match System::new_with_specifics(kind) {
        Ok(system) => system,
        Err(error) => {
            warn!(%error, "no hardware readings on this machine");
            return;
        }
    };
    // The channel carries nothing; it ends when the node does.
    while stop.recv_timeout(EVERY) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        system.refresh_specifics(kind);
        if !handle.input(Input::Stats(reading(&system))) {
            break;
        }
    }
}

fn reading(system: &System) -> WorkSpec {
    let cores = system.cpus().len();
    let share = f64::from(system.global_cpu_usage()) / 100.0;
    let used = share * 1_000.0 * f64::from(u32::try_from(cores).unwrap_or(u32::MAX));
    let spec = WorkSpec::new()
        .with("cpu_milli", Value::Int(whole(used)))
        .with("cpu_total_milli", Value::int(cores * 1_000))
        .with("mem_used_bytes", Value::int(system.used_memory()))
        .with("mem_total_bytes", Value::int(system.total_memory()));
    match System::load_average() {
        Ok(load) => spec.with("load_milli", Value::Int(whole(load.one * 1_000.0))),
        Err(_) => spec,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "readings are far below 2^53, and `as` saturates")]
fn whole(number: f64) -> i64 {
    number.round() as i64
}
