//! Runs tasks as processes: one worker thread per running task, output to capped files, every end reported once. A task may
//! be a pair: an environment server, and a policy that is told its port.
//!
//! Invariants: each launched key gets exactly one `Ended`, after at most one `Port` and one `Started`; a process group is signalled only
//! while its leader is unreaped, so a reused pid is never hit; when `Ended` is reported nothing of the task's process
//! group runs any more.
//! Does not: decide what runs when (admission is the driver's), retry, or keep tasks alive beyond its own process (`supervise` is that process).

mod capped;
mod capture;
mod group;
mod killer;
mod listener;
pub mod orphans;
pub mod output;
mod pair;
mod pool;
mod port;
mod process;
mod program;
mod task;
#[cfg(test)]
mod tests;
mod usage;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::output::{Streams, Written};
use self::pool::Pool;

/// The caller's handle for one attempt of one task; unique while the executor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    /// Any number, never reused.
    pub run: u64,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The handle that all events carry.
    pub key: TaskKey,
    /// Program and arguments. Without a slash the program is looked up in the task's own PATH.
    pub argv: Vec<String>,
    /// Set on top of PATH, HOME, USER, LANG, TMPDIR, TZ and SHELL of the daemon; nothing else is inherited.
    pub env: Vec<(String, String)>,
    /// The daemon's own directory when `None`.
    pub cwd: Option<PathBuf>,
    /// Fed to standard input, which is `/dev/null` when `None`.
    pub stdin: Option<Bytes>,
    /// Output goes to `<out>.out` and `<out>.err` (an environment server's to `<out>.env.out` and `<out>.env.err`), whose
    /// directory must exist; a stream that stays empty makes no file.
    pub out: PathBuf,
    /// At most this much of each stream is kept (its beginning), then one line says how much was dropped.
    pub cap_bytes: u64,
    /// Makes the task a pair: this runs beside it and is ended after it. The task is then the policy, which finds the port
    /// in its arguments (`{port}` and `{host}` are replaced wherever they occur) and in STARLING_PORT and STARLING_HOST.
    pub env_server: Option<EnvServer>,
}

/// An environment server: a program that listens on a port, in a process group of its own, with the environment and the
/// working directory of its policy.
#[derive(Clone, Debug)]
pub struct EnvServer {
    /// Program and arguments. `{port_file}` is replaced by the path of the file to write the port to, which is also in
    /// STARLING_PORT_FILE. Instead of writing the file it may print `PORT=n` as its first line.
    pub argv: Vec<String>,
    /// From its start until it must listen. Too low: slow programs fail. Too high: hung ones hold their reservation.
    pub port_wait: Duration,
    /// The address of this machine where it must listen, and that the policy is told.
    pub host: IpAddr,
}

/// What happened to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecEvent {
    /// The environment server of a pair listens; the policy is started next.
    Port {
        /// Whose.
        key: TaskKey,
        /// Where it listens.
        host: IpAddr,
        /// Where it listens.
        port: u16,
        /// Its process id, which is also the id of its process group.
        pid: u32,
    },
    /// The process runs; of a pair, the policy.
    Started {
        /// Whose.
        key: TaskKey,
        /// Its process id, which is also the id of its process group.
        pid: u32,
    },
    /// It is over; the last event of its key.
    Ended {
        /// Whose.
        key: TaskKey,
        /// How.
        end: End,
        /// What it used.
        usage: Usage,
        /// What its streams came to.
        output: Streams<Written>,
    },
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Exit(i32),
    /// This signal ended it.
    Signal(i32),
    /// No process ever ran; of a pair, no policy.
    NotStarted {
        /// As a shell would say it: 127 not found; 126 not executable, a bad directory, a lack of resources (125 means cancelled),
        /// or an environment server that did not come to listen; 128 + signal when it was killed while it waited.
        code: i32,
        /// For people: what is wrong and with which name.
        reason: String,
    },
    /// The environment server ended while its policy ran, which was killed if it did not end by itself.
    EnvLost {
        /// For people: how the server ended, and what became of the policy.
        reason: String,
    },
}

/// What a task used; a pair's two processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From just before the start to the end.
    pub wall_ms: u64,
    /// CPU time of the process and of the children it waited for. `None` for tasks shorter than 50 ms: asking costs more
    /// than the answer is worth there.
    pub cpu: Option<Cpu>,
    /// Highest resident size seen of the process itself (of a pair, of the larger one), sampled every 50 ms at first and
    /// every 2 s at most; `None` when it ended before the first sample.
    pub max_rss_kib: Option<u64>,
}

/// CPU time, to the kernel's clock tick (10 ms).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// In user mode.
    pub user_ms: u64,
    /// In the kernel.
    pub sys_ms: u64,
}

/// How to kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Kill {
    /// SIGTERM to the process group, SIGKILL five seconds later to what is left of it. A pair's environment server gets its
    /// SIGTERM when its policy has ended, and its SIGKILL together with it at the latest.
    #[n(0)]
    Gentle,
    /// SIGKILL to the process group; to both of a pair.
    #[n(1)]
    Hard,
}

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most tasks that run at once; further launches wait in order. Low: idle slots. High: threads (about 30 KiB each).
    pub threads_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads_max: 1024 }
    }
}

/// Receives events, from the worker threads; a slow one holds up its task's thread only.
pub type OnEvent = Box<dyn Fn(ExecEvent) + Send + Sync>;

/// The executor. Dropping it is `shutdown`.
#[derive(Debug)]
pub struct Executor {
    pool: Arc<Pool>,
}

impl Executor {
    /// Starts without any thread: they come with the first launches.
    pub fn start(events: OnEvent, options: Options) -> Self {
        Self { pool: Pool::new(events, options.threads_max) }
    }

    /// Queues a task. Never blocks. What prevents a start is reported by `Ended` with `NotStarted`. A key that is already
    /// waiting or running is a caller's error: it is logged and ignored.
    pub fn launch(&self, launch: Launch) {
        Pool::launch(&self.pool, launch);
    }

    /// Kills a task that waits or runs; its `Ended` follows. An unknown key (it may just have ended) is no error.
    pub fn kill(&self, key: TaskKey, how: Kill) {
        Pool::kill(&self.pool, key, how);
    }

    /// How many launched tasks have not ended, those that wait for a thread included.
    pub fn running(&self) -> usize {
        self.pool.running()
    }

    /// The running tasks and the ids of their process groups, two of a pair, in no order. A group may be gone by the time it is looked at.
    pub fn groups(&self) -> Vec<(TaskKey, u32)> {
        self.pool.groups()
    }

    /// Refuses further launches, kills everything hard, and returns when every task's `Ended` was reported.
    ///
    /// Must not be called from the event callback.
    pub fn shutdown(&self) {
        self.pool.shutdown();
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.pool.shutdown();
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::NotStarted { code, reason } => write!(f, "not started ({code}): {reason}"),
            Self::EnvLost { reason } => write!(f, "environment lost: {reason}"),
        }
    }
}
