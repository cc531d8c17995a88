//! Scheduling: the owner places and seals, the executor admits and runs, and `explain` says why a job waits.
//!
//! Invariants: no head node: every node is owner of what was submitted to it and executor for everybody; nothing here touches a socket, a clock or the log.

mod decision;
mod executor;
mod explain;
mod fleet;
mod held;
mod inherit;
mod owned;
mod owner;
mod place;
mod pool;
mod requests;
#[cfg(test)]
mod tests;

pub use decision::{Decision, Pending};
pub use executor::{Executor, Resumed, is_on_machine};
pub use explain::{Explanation, NodeReason, explain};
pub use fleet::{Fleet, Gatewayship, Health, Peer, Presence, RelaySlots};
pub use held::{Ended, Offer, Start, Verdict};
pub use owner::Owner;
pub use place::Candidate;
pub use pool::{Label, Pool, Worker};
