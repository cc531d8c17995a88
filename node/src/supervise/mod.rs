//! Jobs outlive the daemon: small processes that host tasks, and the daemon's side of them (ADR 16).
//!
//! A supervisor is this very program with the hidden verb `supervise`. It runs the tasks of one grant at a time with `exec`, keeps a journal of what it started and
//! how that ended, and tells the daemon over a socket in `<dir>/spool`. When the daemon goes away it goes on; the next one reads the journals (`muster`) before it
//! offers anything.
//! Invariants: a start is in the journal before it happens, an end before it is told; an end stays there until the daemon says that its log has it; a task whose
//! supervisor is gone is killed before anybody hears that it is lost.
//! Does not: decide what runs, or what an end means to a job (`starling_core` does).

mod frame;
mod host;
mod journal;
mod keeper;
mod link;
mod muster;
mod spool;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
pub use frame::{Server, Task};
pub use host::{HostError, host};
pub use keeper::{Group, Happened, Keeper, Launcher, OnHappened, Start, Told};
pub use muster::{Found, muster};
pub use spool::{Spool, SpoolError};
use starling_core::facts::{Outcome, Usage};

use crate::exec::{self, End, EnvServer, Launch, TaskKey};

/// The variable that names a task's supervisor: the path of its files in the spool, without a suffix.
pub const MARK: &str = "STARLING_SUPERVISOR";

/// How a process ended, in the log's words.
fn outcome_of(end: End) -> Outcome {
    match end {
        End::Exit(code) => Outcome::Exit(code),
        End::Signal(signal) => Outcome::Signal(signal),
        End::NotStarted { code, reason } => Outcome::NotStarted(code, reason.into()),
        End::EnvLost { reason } => Outcome::Broke(reason.into()),
    }
}

/// What a task used, in the log's units.
fn usage_of(usage: exec::Usage) -> Usage {
    let cpu = usage.cpu.unwrap_or_default();
    Usage {
        cpu_user_ms: cpu.user_ms,
        cpu_sys_ms: cpu.sys_ms,
        wall_ms: usage.wall_ms,
        max_rss_bytes: usage.max_rss_kib.unwrap_or(0) << 10,
    }
}

/// The end of a task that `what` kept from being started. A full disk says nothing against the task: another node may run it.
fn not_started(what: &str, error: &io::Error) -> Outcome {
    if error.kind() == io::ErrorKind::StorageFull {
        return Outcome::Lost;
    }
    Outcome::NotStarted(126, format!("{what}: {error}").into())
}

/// A task as `exec` takes it, with the mark of its supervisor.
fn launch_of(task: Task, run: u64, mark: &str) -> Launch {
    let mut env = task.env;
    env.push((MARK.to_owned(), mark.to_owned()));
    Launch {
        key: TaskKey { run },
        argv: task.argv,
        env,
        cwd: task.cwd.map(PathBuf::from),
        stdin: task.stdin.map(|bytes| Bytes::from(Vec::from(bytes))),
        out: frame::to_path(task.out),
        cap_bytes: task.cap_bytes,
        env_server: task.env_server.map(|server| EnvServer {
            host: server.host(),
            argv: server.argv,
            port_wait: Duration::from_millis(server.port_wait_ms),
        }),
    }
}
