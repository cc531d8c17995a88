//! The edge over real sockets, with a real driver and Machine.
//!
//! Invariants: every wait has a deadline. Does not: run a worker or write a log (`world` stands in).

mod door;
mod forward;
mod logs;
mod submit;
mod tls;
mod world;
