//! Starling's test networks: `sim`, thousands of Machines under virtual time and injected faults; and `invariant`, the rules that they must keep.

pub mod bench;
pub mod invariant;
pub mod local;
pub mod sim;
