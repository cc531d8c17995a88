//! One Starling node: the edges around the pure core, and the command line.
//!
//! Invariants: one driver owns the Machine; net, storage and exec never use each other, they hand Inputs to the driver; the API and the CLI talk to
//! `driver::Handle` and to the API only.
//! Does not: decide anything about jobs or logs (`starling_core` does).

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod declare;
pub mod driver;
pub mod exec;
pub mod export;
pub mod history;
pub mod hwp;
pub mod moment;
pub mod monitor;
pub mod output;
pub mod relay;
pub mod storage;
pub mod supervise;
pub mod telemetry;
pub mod tunnel;
pub mod wire;
pub mod words;
pub mod worker;
