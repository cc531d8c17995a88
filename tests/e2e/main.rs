//! End to end: the binary, its sockets, its processes and its terminal, as people use them.
//!
//! Invariants: every wait has a deadline and watches a condition; state lives in temporary directories; nodes stay on loopback or in network
//! namespaces of their own; a test that this machine does not allow says so on stderr.
//! Does not: test the protocol's corners (the simulator does).

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of it is test code, also outside of the test functions")]

mod airgap;
mod bad_input;
mod catch_up;
mod cli;
mod crashes;
mod disk;
mod guide;
mod history;
mod http;
mod hub;
mod hwp;
mod hwp_clients;
mod hwp_failover;
mod hwp_partition;
mod hwp_worker;
mod hwp_workers;
mod monitor;
mod namespaces;
mod namespaces_declared;
mod relays;
mod restarts;
mod simulations;
mod starts;
mod strangers;
mod succession;
mod supervisor;
mod support;
mod three_nodes;
mod twins;
