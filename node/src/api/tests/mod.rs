//! The API over a real socket and port, with a real driver and Machine.
//!
//! Invariants: every wait has a deadline. Does not: write a log or start a process (`world` stands in).

mod calls;
mod carry;
mod gateway;
mod http;
mod hub;
mod logs;
mod monitor;
mod namespaces;
mod past;
mod retired;
mod simulations;
mod world;
