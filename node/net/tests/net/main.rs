//! The network as its users see it: real sockets on loopback, ports chosen by the system.
//!
//! Invariants: no test sleeps; each waits for a condition with a deadline.
//! Does not: use mDNS, which would leave the host.

#[cfg(test)]
mod faults;
#[cfg(test)]
mod links;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tunnels;
