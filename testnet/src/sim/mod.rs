//! The simulator: many Machines under virtual time, with faults injected, everything drawn from one seed.
//!
//! Read `run` for the phases, `world` for how effects are carried out, `options` for what can go wrong, `crate::invariant` for what must hold.
//! Invariants: no clock, no threads, no IO within a run; the same options give the same trace hash.

pub mod campaign;
pub mod cli;
mod clients;
mod disk;
mod faults;
mod hostile;
mod intake;
mod keeping;
pub mod marks;
pub mod mesh;
mod network;
mod node;
mod options;
mod outside;
mod process;
mod queue;
mod relays;
mod run;
pub mod scenario;
pub mod shrink;
mod trace;
mod twins;
mod workers;
mod world;

pub(crate) use disk::Disk;
pub use options::{EveryMs, Faults, Keep, Options, PerMille, Sabotage, Spreading, Watch};
pub(crate) use process::Starts;
pub use run::{Failure, Outcome, run};
pub(crate) use world::Seat;
pub use world::Totals;
