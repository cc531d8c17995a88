//! Relays: programs outside that run the tasks of a namespace for this node.
//!
//! A relay registers as a *generator* for a namespace, is poked when something changes there, takes tasks, and reports on them in the namespace's words.
//! Read in this order: `table` (who serves what, who holds what), `actor` (who owns the table), `handle` (how others speak to it), `news` and `callback`
//! (pokes), `spec` (reports are checked and converted).
//! Invariants: one actor owns the table; a task is in the hands of one generator at most, and of none that has no slot for it; every task handed over ends
//! once: by its report, by its generator's lease, or by a kill; a poke is never lost, many are one.
//! Does not: decide what a report means or whether it counts (the Machine does); use net, storage, exec or the API.

mod actor;
mod callback;
mod handle;
mod news;
mod spec;
mod table;
#[cfg(test)]
mod tests;

use starling_core::event::WorkSpec;
use starling_core::ids::{GrantId, RunId};
use starling_core::machine::CommandError;

pub use self::actor::start;
pub use self::callback::Callback;
pub use self::handle::{Handle, Session};
use crate::driver::Stopped;

/// Generators at one node. More are refused.
pub const GENERATORS_MAX: usize = 64;
/// Tasks that a generator takes at once, if it does not say. Low: a fast relay waits for reports to be durable. High: much is started again when it dies.
pub const SLOTS_DEFAULT: u32 = 16;
/// Most slots of one generator.
pub const SLOTS_MAX: u32 = 256;
/// Lease of a generator that names none. Low: a busy relay loses its tasks. High: those of a dead one wait.
pub const LEASE_MS_DEFAULT: u64 = 10_000;
/// Shortest lease.
pub const LEASE_MS_MIN: u64 = 1_000;
/// Longest lease.
pub const LEASE_MS_MAX: u64 = 600_000;
/// Longest wait of one poll.
pub const WAIT_MS_MAX: u64 = 30_000;
/// Longest name of a generator.
pub const GID_BYTES_MAX: usize = 128;

/// What a relay says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its name, unique at this node: who registers under a name that is taken takes it over, with the tasks in its hands.
    pub gid: String,
    /// Whose tasks it runs.
    pub ns: String,
    /// How many at once; 0 for `SLOTS_DEFAULT`.
    pub slots: u32,
    /// After so long without any contact its tasks are lost; 0 for `LEASE_MS_DEFAULT`.
    pub lease_ms: u64,
    /// Where to poke it.
    pub callback: Option<Callback>,
}

impl Registration {
    /// Fills in what was left open.
    ///
    /// # Errors
    /// The first field that is out of its bounds.
    pub fn complete(mut self) -> Result<Self, RelayError> {
        let wrong = |field, expected: String, got: String| Err(RelayError::Field { field, expected, got });
        let is_plain = |symbol: char| symbol.is_ascii_graphic() && !matches!(symbol, '/' | '?' | '#' | '%');
        if self.gid.is_empty() || self.gid.len() > GID_BYTES_MAX || !self.gid.chars().all(is_plain) {
            let expected = format!("1 to {GID_BYTES_MAX} letters, digits or signs that a path may hold");
            return wrong("gid", expected, self.gid);
        }
        if self.ns.is_empty() {
            return wrong("namespace", "the name of a namespace".to_owned(), String::new());
        }
        if self.slots == 0 {
            self.slots = SLOTS_DEFAULT;
        }
        if self.slots > SLOTS_MAX {
            return wrong("slots", format!("1 to {SLOTS_MAX}"), self.slots.to_string());
        }
        if self.lease_ms == 0 {
            self.lease_ms = LEASE_MS_DEFAULT;
        }
        if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&self.lease_ms) {
            return wrong("lease_ms", format!("{LEASE_MS_MIN} to {LEASE_MS_MAX}"), self.lease_ms.to_string());
        }
        Ok(self)
    }
}

/// What a registration brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Tasks at once.
    pub slots: u32,
    /// The lease, milliseconds.
    pub lease_ms: u64,
}

/// A task in a generator's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// How the relay names it in its reports: good for this start of this node.
    pub token: String,
    /// The job, and the permission to run some of it.
    pub grant: GrantId,
    /// The index in the job's array.
    pub index: u32,
    /// The attempt, from 1.
    pub attempt: u16,
    /// The namespace.
    pub ns: String,
    /// The job's priority.
    pub priority: i32,
    /// The job's fields, defaults filled in.
    pub spec: WorkSpec,
    /// The generator's lease, milliseconds.
    pub lease_ms: u64,
}

/// A task and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The generator.
    pub gid: String,
    /// How it names the task.
    pub token: String,
}

/// What a generator is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Tasks that are in its hands from now on.
    pub tasks: Vec<Task>,
    /// Tokens of tasks that it should stop.
    pub cancelled: Vec<String>,
    /// Whether Facts of the namespace's jobs changed since it was last told.
    pub poked: bool,
}

impl Batch {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.cancelled.is_empty() && !self.poked
    }
}

/// What a poll waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Tasks and cancels.
    Work,
    /// Pokes.
    Pokes,
    /// All of it.
    Both,
}

/// A generator as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratorView {
    /// Its name.
    pub gid: String,
    /// Whose tasks it runs.
    pub ns: String,
    /// How many at once.
    pub slots: u32,
    /// Tasks in its hands.
    pub held: usize,
    /// Tasks of its namespace that wait here for a generator.
    pub waiting: usize,
    /// How long since it was last in touch, milliseconds; 0 while its stream is open.
    pub silent_ms: u64,
    /// Its lease, milliseconds.
    pub lease_ms: u64,
    /// How it is reached.
    pub reach: Reach,
}

/// How a generator is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By its open stream.
    Stream,
    /// By its callback URL.
    Callback,
    /// When it calls.
    Calls,
}

impl Reach {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Callback => "callback",
            Self::Calls => "calls",
        }
    }
}

/// Why a relay was refused. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The driver or the manager is busy or gone.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// No such generator, or its lease ran out.
    #[error("no relay `{0}` is registered at this node, or its lease ran out; register first: POST /v1/relays")]
    Unknown(String),
    /// A field out of its bounds.
    #[error("field `{field}`: expected {expected}, got `{got}`")]
    Field {
        /// Which.
        field: &'static str,
        /// What is right.
        expected: String,
        /// What was given.
        got: String,
    },
    /// Too many generators.
    #[error("{GENERATORS_MAX} relays are registered at this node, which is the most that it takes; try another one")]
    TooMany,
    /// Somebody registered under the same name.
    #[error("relay `{0}` was registered again by somebody else, who has its tasks now")]
    TakenOver(String),
    /// A token of another node, or of an earlier start of this one.
    #[error(
        "task `{0}` was not handed out by this start of this node: it is another node's, or was lost when this one restarted"
    )]
    Foreign(String),
    /// In the hands of another generator.
    #[error("this task is in the hands of relay `{0}`")]
    NotYours(String),
    /// The Machine refused.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// What a task is called outside: which start of which node, and which run.
fn token(boot: u64, run: RunId) -> String {
    format!("{boot:016x}-{}", run.0)
}

/// The run that a token of this start names.
fn run_of(boot: u64, token: &str) -> Result<RunId, RelayError> {
    let run = token.split_once('-').and_then(|(start, run)| {
        let is_own = u64::from_str_radix(start, 16).is_ok_and(|start| start == boot);
        if is_own { run.parse().ok().map(RunId) } else { None }
    });
    run.ok_or_else(|| RelayError::Foreign(token.chars().take(GID_BYTES_MAX).collect()))
}
