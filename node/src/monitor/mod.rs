//! Monitoring: readings of this machine, and the past hour of this node's and other nodes' readings.
//!
//! Invariants: nothing here is logged or survives the process; every list is bounded; what costs much is looked at less often, so that all of it stays under one
//! percent of a core.
//! Does not: know the driver or the network: `daemon::stats` hands readings to the driver, they travel with presence, and what others say is put in from there.

mod gpu;
mod groups;
mod history;
mod pace;
mod procfs;
mod reading;
mod sampler;
#[cfg(test)]
mod tests;

pub use groups::TaskGroup;
pub use history::{HISTORY, History, NODES_MAX, RING_MAX, Sample};
pub use reading::{Disk, Gpu, JobKey, JobUse, Reading};
pub use sampler::Sampler;
