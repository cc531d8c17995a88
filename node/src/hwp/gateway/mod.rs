//! The gateway: the workers that this node sponsors while it acts.

use std::time::Duration;

/// How a worker is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It holds a `JobStream` open.
    Stream,
    /// It listens, and the gateway calls it.
    DialBack,
}

/// One worker, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerLine {
    /// The name that it gave itself.
    pub id: String,
    /// What it is and has.
    pub labels: Vec<String>,
    /// How many tasks it takes at once.
    pub slots: u32,
    /// The tasks that it has, as it knows them.
    pub tasks: Vec<String>,
    /// How it is reached.
    pub reach: Reach,
    /// Whether it can be given tasks now; if not, it is waited for until its lease is over.
    pub attached: bool,
    /// Since the last sign of life.
    pub heard: Duration,
    /// Thousandths of a core in use, by its last heartbeat.
    pub cpu_milli: Option<u64>,
    /// Bytes of memory in use, by its last heartbeat.
    pub mem_bytes: Option<u64>,
}
