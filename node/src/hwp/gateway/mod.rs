//! The gateway: the workers that this node sponsors while it acts.
//!
//! The Machine decides which worker takes which task; this carries it out. Read in this order: `capabilities` (what a worker says of itself), `work` (a task as a
//! worker is told of it), `table` (who is here, who runs what), `actor` (who owns the table), `session` (one worker's stream), `dial` (workers that are called),
//! `logs` (their output), `outcome` (what a result means), `service` (the protocol's face).
//! Invariants: one actor owns the table; while this node does not act there is nothing in it; a worker keeps its tasks for a lease after it was last reached, and
//! no longer; nothing a worker does or leaves undone makes the node wait or grow without bound.
//! Does not: let anybody in, or answer submissions (`edge` does); decide what an end means for the job (the Machine does).

mod actor;
mod capabilities;
mod dial;
mod handle;
mod logs;
mod outbox;
mod outcome;
mod service;
mod session;
mod table;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::time::Duration;

use starling_core::ids::WorkerName;
use starling_core::limits;
use tonic::Status;

pub use self::actor::{start, start_with};
pub use self::capabilities::WORKER_BYTES_MAX;
pub use self::handle::Handle;
pub use self::outbox::Told;
pub use self::service::Service;
use crate::driver::Stopped;
use crate::exec::output::{Streams, Written};
use crate::output::Place;

/// Largest message that a worker may send: a result with its compressed output. Whoever builds the server must set this as its decode limit. Low: the output of
/// workers that send it only at the end is lost with the result. High: memory, for each stream.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Told of each task's complete output, on a thread that may read it.
pub type Tails = Arc<dyn Fn(&Place, &Streams<Written>) + Send + Sync>;

/// How long workers are waited for, and how much is kept of what they write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a worker keeps its tasks after its stream broke. Low: a hiccup runs them twice. High: those of a dead worker wait. Default 10,000.
    pub lease_ms: u64,
    /// How long a worker may take to accept a task. Low: a busy one is given up. High: a deaf one holds tasks. Default 10,000.
    pub accept_ms: u64,
    /// How long a worker may take to stop a task. Low: cancels of tasks that tidy up seem to fail. High: cancels of deaf workers take long. Default 10,000.
    pub stop_ms: u64,
    /// Silence after which a worker is gone though its stream is open; workers send a heartbeat every 5 s. Default 30,000.
    pub silence_ms: u64,
    /// How long a stream may wait for its worker to register. Low: refusals come in a loop. High: workers that must register again notice late. Default 1,000.
    pub park_ms: u64,
    /// How often a worker that listens is called to see whether it is there; three calls in vain, and it is waited for no longer than the lease. Default 10,000.
    pub probe_ms: u64,
    /// Kept of each output stream (DESIGN section 12). Default 64 MiB.
    pub output_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease_ms: 10_000,
            accept_ms: 10_000,
            stop_ms: 10_000,
            silence_ms: 30_000,
            park_ms: 1_000,
            probe_ms: 10_000,
            output_bytes_max: 64 << 20,
        }
    }
}

/// Why a worker was refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The node is not the gateway.
    #[error("this node is not the gateway any more; connect again")]
    NotActing,
    /// A field out of its bounds.
    #[error("{0}")]
    Invalid(String),
    /// Too many workers.
    #[error("{max} workers are registered, which is the most that a gateway takes", max = limits::WORKERS_MAX)]
    TooMany,
    /// No such worker.
    #[error("worker `{0}` is not registered here (any more); call RegisterWorker")]
    UnknownWorker(WorkerName),
    /// No such task.
    #[error("job `{0}` is none that a worker was given by this cluster")]
    UnknownTask(String),
    /// The gateway or the driver is busy or gone.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::NotActing | Refusal::Stopped(_) => Self::unavailable(text),
            Refusal::Invalid(_) => Self::invalid_argument(text),
            Refusal::TooMany => Self::resource_exhausted(text),
            Refusal::UnknownWorker(_) | Refusal::UnknownTask(_) => Self::not_found(text),
        }
    }
}

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
