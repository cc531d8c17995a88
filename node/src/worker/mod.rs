//! A worker of the protocol HWP: takes jobs from any HWP server and runs them as processes of this machine.
//!
//! An extension of ours, for which no message has a field: exit code -1 says "killed by a signal" at most. A job that did not end by itself has as its last
//! line of log, right before its result, `[starling: signal 9]`, `[starling: timed out]` or `[starling: cancelled]`. Servers that do not know this show it as
//! one line more. Workers that do it have the capability `starling`.
//!
//! Invariants: one process per directory (its lock); nothing a job started outlives the worker, or its next start in the same directory; a result is on disk
//! before it is sent, and is sent after every reconnect until the server acknowledges it by a `cancel_job`, or assigns the job anew; memory is bounded whatever
//! jobs print and servers send or do not read.
//! Does not: know a cluster, a log or a node; retry jobs (the server's matter); keep log lines that were under way when a link broke (the result has the
//! whole output, compressed).

mod backoff;
mod capabilities;
mod desk;
mod dial_back;
mod follow;
mod home;
mod job;
mod lines;
mod link;
mod outcome;
mod result;
mod results;
mod session;
#[cfg(test)]
mod tests;
mod usage;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::desk::Desk;
use self::dial_back::Gateway;
pub use self::home::Home;
use self::job::{Road, Site};
pub use self::link::{Servers, Tls};
use self::results::Results;

/// Says a sentence to the person at the terminal.
pub type Tell = Box<dyn Fn(&str) + Send + Sync>;

/// From the wish to stop until the worker is gone, results sent or not.
const STOP_MAX: Duration = Duration::from_secs(5);

/// What a worker is.
pub struct Options {
    /// Where jobs come from; one after the other when one cannot be reached.
    pub servers: Servers,
    /// Its name at the server; unique among the server's workers.
    pub id: String,
    /// Labels beside those that the worker finds out by itself.
    pub capabilities: Vec<String>,
    /// Most jobs that run at once, at least 1; four times as many wait. Low: idle cores. High: jobs slow each other down.
    pub slots: usize,
    /// The program that runs images, with the command line of docker; without one such jobs are refused.
    pub image_program: Option<String>,
    /// Serve the protocol here and have the server call, instead of holding a stream to it.
    pub listen: Option<SocketAddr>,
    /// What a server must present to call here, when the worker listens.
    pub token: Option<String>,
    /// What happens that people should know.
    pub tell: Tell,
    /// Bounds and times.
    pub limits: Limits,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("id", &self.id).field("slots", &self.slots).finish_non_exhaustive()
    }
}

/// Bounds and times of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Kept of each output stream of a job, in a file while the job runs. As for nodes (DESIGN section 12).
    pub output_bytes: u64,
    /// A stream of which more than this is written but not sent loses its older lines. Low: a short hiccup costs lines. High: the server is shown old lines.
    pub backlog_bytes: u64,
    /// How long after a job's end its lines are still sent before its result is. Low: a slow server misses lines. High: it hears late of ends.
    pub flush: Duration,
    /// Between two heartbeats. The protocol's workers do it every 5 s; servers may count a silent worker as gone.
    pub heartbeat: Duration,
    /// Before the next try after the server refused this worker. Low: a bad token becomes a burden. High: a token that was put right is noticed late.
    pub refused: Duration,
    /// Between two registrations of a worker that listens.
    pub register: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            output_bytes: 64 << 20,
            backlog_bytes: 8 << 20,
            flush: Duration::from_secs(10),
            heartbeat: Duration::from_secs(5),
            refused: Duration::from_secs(5),
            register: Duration::from_secs(10),
        }
    }
}

/// Why a worker could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was changed.
    #[error("the directory {} is in use{}; stop the worker that uses it, or choose another --dir", dir.display(), by(*pid))]
    InUse {
        /// Which directory.
        dir: PathBuf,
        /// By which process, if it says so.
        pid: Option<u32>,
    },
    /// A file or directory of the worker's own.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A server's address, or what is needed to reach it safely; for people.
    #[error("{0}")]
    Link(String),
    /// The address to listen at cannot be had.
    #[error("cannot listen at {addr}: {source}")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A bug: a part of the worker ended before the others.
    #[error("a part of the worker broke: {0}")]
    Broke(String),
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" by process {pid}"))
}

/// Works until `stop` is true (or its sender gone): then takes no more jobs, ends those that run gently, sends what results it can, and returns within about five
/// seconds.
///
/// # Errors
/// If the directory, or the address to listen at, cannot be used, or a part of the worker broke. An unreachable server is no error: the worker tries for ever.
pub async fn run(options: Options, home: Home, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
    let results = Arc::new(Results::open(home.dir())?);
    let listener = match options.listen {
        Some(addr) => Some(dial_back::bind(addr).await?),
        None => None,
    };
    let servers = Arc::new(options.servers);
    let (session_lines, lines) = watch::channel(None);
    let road = match listener {
        Some(_) => Road::DialBack(Arc::new(Gateway::new(Arc::clone(&servers)))),
        None => Road::Stream(lines),
    };
    let site = Site::new(&home, options.slots, options.image_program, options.limits, road, Arc::clone(&results));
    let site = Arc::new(site);
    let (desk, handle) = Desk::new(Arc::clone(&site));
    let (closing_tx, closing) = watch::channel(false);
    let worker = session::Worker {
        id: options.id,
        capabilities: capabilities::all(options.capabilities, options.slots),
        servers,
        handle: handle.clone(),
        results,
        tell: options.tell,
        limits: options.limits,
        closing,
    };
    let mut parts = JoinSet::new();
    parts.spawn(desk.run());
    match listener {
        Some(listener) => parts.spawn(dial_back::run(worker, listener, options.token)),
        None => parts.spawn(session::run(worker, session_lines)),
    };
    let result = tokio::select! {
        biased;
        // A sender that is gone wants nothing more either.
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        ended = parts.join_next() => Err(Error::Broke(format!("{ended:?}"))),
    };
    let all_sent = async {
        handle.stop().await;
        closing_tx.send_replace(true);
        while parts.join_next().await.is_some() {}
    };
    // What could not be sent is kept, and sent by the next start.
    let _late = timeout(STOP_MAX, all_sent).await;
    parts.shutdown().await;
    // Blocks for as long as it takes to reap what is left.
    let _cannot_panic = tokio::task::spawn_blocking(move || site.shut_down()).await;
    drop(home);
    result
}
