//! The API of a node: gRPC and HTTP/JSON on one port, and both on a Unix socket.
//!
//! Read in this order: `serve` (connections), `context` (what the API stands on and its bounds), `grpc` and `http` (two doors to the same functions), then
//! one file for each thing that users ask.
//! Invariants: talks to the driver's handle and to task output only; no request panics the node; every answer is bounded in size and, unless it is a stream, in time.
//! Does not: decide anything about jobs, or keep any state but what `hub` remembers of its clients for a while.

mod attempts;
mod carry;
mod context;
mod convert;
mod doctor;
mod down;
mod events;
mod facts;
mod gateway;
mod grpc;
mod http;
mod hub;
mod jobs;
mod logs;
mod members;
mod namespaces;
mod nodes;
mod past;
mod reason;
mod relays;
mod retired;
mod serve;
mod socket;
mod spec;
mod status;
mod stream;
mod submit;
#[cfg(test)]
mod tests;
mod usage;
mod wait;
mod workers;

pub use context::{About, Base, Context, ReadHistory, ReadLog, ReadOrphans, ReadStorage, StorageStats};
pub(crate) use down::give_up;
pub use hub::{Generator, Generators};
pub use serve::serve;
pub use socket::BindError;
pub use workers::ReadWorkers;
