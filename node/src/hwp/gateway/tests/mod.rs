//! The gateway beside a real driver and Machine, served by a real server on loopback.
//!
//! Invariants: every wait has a deadline; workers are played by clients that speak the protocol and nothing else.

mod calls;
mod ends;
mod limits;
mod own;
mod sessions;
mod world;
