//! Starling's protocol as a pure state machine.
//!
//! Read in this order:
//!
//! 1. [`event`]: what a log entry is, and the signed batches that carry entries between nodes.
//! 2. [`log`]: one chain of batches per author; which batch fits, which leaves a gap, which proves a fork.
//! 3. [`facts`]: the join-semilattice that entries fold into; [`namespace`] says what each kind adds, [`lattice`] how values merge.
//! 4. [`schedule`]: the owner of a job grants tasks, executors admit and run them, the owner seals outcomes.
//! 5. [`election`]: which node serves workers from outside.
//! 6. [`sync`]: what nodes say to each other so that every log reaches everyone.
//! 7. [`machine`]: all of it behind one function, `Machine::step(now, Input) -> Vec<Effect>`.
//!
//! Invariants: this crate reads no clock, no entropy, no file, no socket; it spawns nothing and waits for nothing; it holds no `HashMap`. `now` and seeds
//! come in, effects go out, their completion comes back as input. The simulator runs this very code.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![warn(clippy::wildcard_enum_match_arm)]

pub mod config;
pub mod election;
pub mod event;
pub mod facts;
pub mod ids;
pub mod lattice;
pub mod limits;
pub mod log;
pub mod machine;
pub mod namespace;
pub mod resources;
pub mod rng;
pub mod schedule;
pub mod sync;
#[cfg(test)]
mod testing;
pub mod time;
