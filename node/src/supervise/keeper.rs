//! The keeper: the daemon's thread that hands tasks to supervisors and hears of their ends.
//!
//! Invariants: every launched run gets exactly one `Ended`, also where its supervisor dies, and then nothing of it runs any more; a supervisor has one grant at a
//! time, as long as there are fewer than `HOSTS_MAX`; those of a previous daemon get nothing new. Neither the driver nor a supervisor is ever waited for.
//! Does not: end tasks when it ends.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use smol_str::SmolStr;
use starling_core::facts::{Outcome, Usage};
use starling_core::ids::{GrantId, RunId};
use starling_core::lattice::IntervalSet;
use tracing::warn;

use super::frame::Task;
use super::muster::Found;
use super::spool::Spool;
use crate::exec::output::{Streams, Written};
use crate::output::Place;

mod hosted;
mod turns;

/// Launches and kills that wait for the keeper. Full: a launch is told lost, and granted again.
const QUEUE: usize = 16_384;

/// What the keeper tells.
#[derive(Clone, Debug)]
pub enum Happened {
    /// The environment of a pair listens.
    Port {
        /// Whose.
        run: RunId,
        /// Where.
        host: SmolStr,
        /// Where.
        port: u16,
    },
    /// A run is over.
    Ended {
        /// Which.
        run: RunId,
        /// Of which task.
        place: Place,
        /// How.
        outcome: Outcome,
        /// What it used.
        usage: Usage,
        /// What its streams came to.
        output: Streams<Written>,
    },
}

/// Receives what happened, on the keeper's thread; may wait for the driver.
pub type OnHappened = Box<dyn Fn(Happened) + Send>;

/// Says which of these tasks' ends the daemon's log has; none if that cannot be said now.
pub type Told = Box<dyn Fn(Vec<(GrantId, IntervalSet)>) -> Vec<(GrantId, IntervalSet)> + Send>;

/// Starts a supervisor for a socket, by its name in the spool; `None` if it is no process of its own.
pub type Launcher = Box<dyn FnMut(&Spool, &str, UnixListener) -> io::Result<Option<Child>> + Send>;

/// What a keeper starts from.
pub struct Start {
    /// Where the supervisors' files lie.
    pub spool: Arc<Spool>,
    /// What the muster found there.
    pub found: Found,
    /// The runs that the Machine gave to tasks that run on.
    pub runs: Vec<(RunId, Place)>,
    /// Makes supervisors.
    pub launcher: Launcher,
    /// Hears of ends.
    pub tell: OnHappened,
    /// Knows what the log has.
    pub told: Told,
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("spool", &self.spool).field("found", &self.found).finish_non_exhaustive()
    }
}

/// A process group of a running task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The run.
    pub run: RunId,
    /// The task.
    pub place: Place,
    /// The group's id.
    pub group: u32,
}

#[derive(Debug)]
enum Command {
    Launch(RunId, Box<Task>),
    Kill(RunId),
    Leave,
}

/// A run and the process groups that are known of it.
#[derive(Debug)]
struct Running {
    place: Place,
    groups: Vec<u32>,
}

type Table = BTreeMap<RunId, Running>;

/// The keeper's handle.
#[derive(Clone, Debug)]
pub struct Keeper {
    tx: SyncSender<Command>,
    wake: Arc<UnixStream>,
    running: Arc<Mutex<Table>>,
}

impl Keeper {
    /// Takes charge of what the muster found, on a thread of its own, which ends after `leave`.
    ///
    /// # Errors
    /// If the system gives no thread or no descriptors.
    pub fn start(start: Start) -> io::Result<(Self, JoinHandle<()>)> {
        let (tx, rx) = sync_channel(QUEUE);
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let keeper = Self { tx, wake: Arc::new(wake), running: Arc::default() };
        let turns = turns::Turns::new(start, rx, woken, Arc::clone(&keeper.running))?;
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(move || turns.run())?;
        Ok((keeper, thread))
    }

    /// The real supervisors: processes of this very program, which may have been replaced on disk since it started.
    #[must_use]
    pub fn processes() -> Launcher {
        Box::new(|spool, name, listener| hosted::spawn(spool, name, listener).map(Some))
    }

    /// Hands over a task. False if that is impossible now; then nothing will be heard of it.
    #[must_use]
    pub fn launch(&self, run: RunId, task: Task) -> bool {
        self.post(Command::Launch(run, Box::new(task)))
    }

    /// Kills a run's task, gently at first. An unknown run, or one that has just ended, is no error.
    pub fn kill(&self, run: RunId) {
        if self.running().contains_key(&run) && !self.post(Command::Kill(run)) {
            warn!("the keeper is behind; a task is not stopped");
        }
    }

    /// The process groups of the running tasks. One may be gone by the time it is looked at.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let groups = |(run, running): (&RunId, &Running)| {
            let (run, place) = (*run, running.place);
            running.groups.iter().map(move |group| Group { run, place, group: *group }).collect::<Vec<_>>()
        };
        self.running().iter().flat_map(groups).collect()
    }

    /// Lets go of all supervisors: what runs goes on.
    pub fn leave(&self) {
        if !self.post(Command::Leave) {
            warn!("the keeper is behind and is left behind");
        }
    }

    fn post(&self, command: Command) -> bool {
        if let Command::Launch(run, task) = &command {
            // A kill may follow before the keeper has seen the launch.
            self.running().insert(*run, Running { place: task.place, groups: Vec::new() });
        }
        match self.tx.try_send(command) {
            Ok(()) => {
                // Full: it is awake.
                let _full = (&*self.wake).write(&[1]);
                true
            }
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => {
                if let Command::Launch(run, _) = command {
                    self.running().remove(&run);
                }
                false
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, Table> {
        locked(&self.running)
    }
}

fn locked(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
