//! Chaos: real processes, a load, and faults drawn from a seed; at the end every promise made to a client is checked.
//!
//! Invariants: a plan of faults is a function of its seed; what is checked is what the ledger has on disk; everything made on the way (processes, network
//! namespaces, mounts) is gone when the run ends, however it ends.
//! Does not: know the protocol. It uses the binary and its API as people do, and breaks only what breaks in the field.

pub mod cli;
mod faults;
mod field;
mod judge;
mod ledger;
mod load;
mod plan;
mod report;
mod run;
mod settle;
mod view;
