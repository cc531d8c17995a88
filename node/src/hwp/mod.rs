//! HWP, the worker protocol: workers from outside, served by one elected node and reached through any.
//!
//! Read in this order: `id` (what a worker calls a task), `gateway` (the workers, their sessions and what they run, at the node that acts), `edge` (the port that
//! every node listens on: who is let in, what is answered here, what goes on to the gateway).
//! Invariants: submissions, cancels and pushed log lines are answered by the node that was asked; everything a worker says goes to the gateway, over the
//! cluster's own links.
//! Does not: decide who the gateway is, which worker takes a task, or what an end means (the Machine does).

pub mod edge;
pub mod gateway;
pub mod id;
