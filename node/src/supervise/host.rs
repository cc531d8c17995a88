//! The supervisor: a process that hosts tasks for a daemon that may go away and come back.
//!
//! Invariants: one daemon at a time: a new connection is taken up when the old one has been read to its end, so what the old daemon had sent is known before the
//! new one asks; it ends when no daemon is there and nothing runs; nothing that it starts outlives it, unless it is killed with SIGKILL; without a daemon, a task
//! that runs past its time limit is ended.
//! Does not: decide anything else.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use starling_core::facts::Usage;
use tokio::signal::unix::{SignalKind, signal};

use super::frame::{Ended, Order, Task, Word};
use super::journal::Journal;
use super::link::{Link, LinkError};
use super::spool::{Spool, uptime_ms};
use super::{launch_of, not_started, outcome_of, usage_of};
use crate::exec::output::Streams;
use crate::exec::{self, ExecEvent, Executor, Kill, TaskKey};
use crate::output::Place;

/// Starts and ports are written down and told at this pace, unless an end takes them along: they only save work.
const PACE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Why a supervisor cannot work. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its files.
    #[error("a supervisor's files: {0}")]
    Io(#[from] io::Error),
}

/// What the executor's threads and the main one share.
#[derive(Debug)]
struct Desk {
    journal: Journal,
    link: Option<Link>,
    places: BTreeMap<u64, Place>,
    runs: BTreeMap<Place, u64>,
    /// When the time limits of those that have one are over.
    limits: BTreeMap<u64, Instant>,
    next_run: u64,
    /// From now on ends are this supervisor's own doing, and no task's outcome.
    is_closed: bool,
}

/// The desk, and how to wake the main thread.
#[derive(Clone, Debug)]
struct Shared {
    desk: Arc<Mutex<Desk>>,
    wake: Arc<UnixStream>,
}

/// As a process of its own: hosts tasks for whoever connects to the socket that is standard input, until nobody does and nothing runs. `name` is its name in the
/// spool.
///
/// # Errors
/// If its files cannot be made.
pub fn host(spool: &Spool, name: &str) -> Result<(), HostError> {
    // Away from the terminal and the process group of whoever started the daemon. Refused only to a leader, which is away already.
    let _leader = rustix::process::setsid();
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let (stop, stopped) = UnixStream::pair()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || await_signal(&stop))?;
    serve(spool, name, &UnixListener::from(socket), &stopped)
}

/// Returns when somebody wants the tasks dead: SIGTERM.
fn await_signal(mut stop: &UnixStream) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let Ok(runtime) = runtime.inspect_err(|error| tracing::warn!(%error, "signals are not heard")) else {
        return;
    };
    runtime.block_on(async {
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            terminate.recv().await;
        }
    });
    // A full pipe was written to before.
    let _full = stop.write(&[1]);
}

/// Serves until nobody is connected and nothing runs, or `stop` becomes readable.
pub(super) fn serve(spool: &Spool, name: &str, listener: &UnixListener, stop: &UnixStream) -> Result<(), HostError> {
    listener.set_nonblocking(true)?;
    let (wake, woken) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let desk = Desk {
        journal: Journal::create(spool.journal(name))?,
        link: None,
        places: BTreeMap::new(),
        runs: BTreeMap::new(),
        limits: BTreeMap::new(),
        next_run: 0,
        is_closed: false,
    };
    let shared = Shared { desk: Arc::new(Mutex::new(desk)), wake: Arc::new(wake) };
    let told = shared.clone();
    let executor = Executor::start(Box::new(move |event| told.on_event(event)), exec::Options::default());
    let mark = spool.mark(name);
    loop {
        match wait(&shared, listener, stop, &woken)? {
            Turn::Stop => {
                shared.locked().is_closed = true;
                break;
            }
            Turn::Go => {}
        }
        shared.accept(listener)?;
        shared.serve_link(&executor, &mark);
        shared.end_overdue(&executor);
        let mut desk = shared.locked();
        desk.bring();
        if desk.link.is_none() && desk.places.is_empty() {
            break;
        }
    }
    executor.shutdown();
    let is_empty = shared.locked().journal.book().0.is_empty();
    if is_empty {
        spool.remove(name);
    }
    Ok(())
}

enum Turn {
    Go,
    Stop,
}

/// Waits until there is something to do.
fn wait(shared: &Shared, listener: &UnixListener, stop: &UnixStream, mut woken: &UnixStream) -> io::Result<Turn> {
    let (link, is_busy) = {
        let desk = shared.locked();
        (desk.link.as_ref().map(Link::watch), !desk.places.is_empty() || desk.journal.is_waiting())
    };
    let mut fds = vec![PollFd::new(stop, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
    match &link {
        Some((stream, flags)) => fds.push(PollFd::new(&**stream, *flags)),
        None => fds.push(PollFd::new(listener, PollFlags::IN)),
    }
    match poll(&mut fds, is_busy.then_some(&PACE)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let is_stopped = fds.first().is_some_and(|stop| !stop.revents().is_empty());
    // Empty: somebody else's turn.
    let _empty = woken.read(&mut [0; 64]);
    Ok(if is_stopped { Turn::Stop } else { Turn::Go })
}

impl Shared {
    /// Takes up the next daemon, if the last one is gone, and says everything again.
    fn accept(&self, listener: &UnixListener) -> io::Result<()> {
        let mut desk = self.locked();
        if desk.link.is_some() {
            return Ok(());
        }
        match listener.accept() {
            Ok((stream, _)) => {
                let mut link = Link::new(stream, Vec::new())?;
                link.put_frames(&desk.journal.book().frames());
                link.put(&Word::CaughtUp);
                desk.link = Some(link);
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads what the daemon wants, and does it.
    fn serve_link(&self, executor: &Executor, mark: &str) {
        let mut orders = Vec::new();
        let mut desk = self.locked();
        let Some(link) = &mut desk.link else { return };
        let ended = link.pull(&mut orders);
        let mut launches = Vec::new();
        let mut kills = Vec::new();
        for order in orders {
            match order {
                Order::Launch(task) => launches.extend(desk.on_launch(*task)),
                Order::Kill { place, how } => {
                    kills.extend(desk.runs.get(&place).map(|run| (TaskKey { run: *run }, how)));
                }
                Order::Told { grant, tasks } => {
                    if let Err(error) = desk.journal.forget(&grant, &tasks) {
                        tracing::warn!(%error, "the journal cannot be shortened");
                    }
                }
            }
        }
        if let Err(error) = ended {
            if !matches!(error, LinkError::Closed) {
                tracing::warn!(%error, "the daemon is not understood");
            }
            desk.link = None;
        }
        // Before anything starts.
        let is_written =
            desk.journal.write().inspect_err(|error| tracing::warn!(%error, "the journal cannot be written"));
        drop(desk);
        for (run, task) in launches {
            match &is_written {
                Ok(()) => executor.launch(launch_of(task, run, mark)),
                Err(error) => self.refuse(run, error),
            }
        }
        for (key, how) in kills {
            executor.kill(key, how);
        }
    }

    /// Ends what runs past its time limit, if there is no daemon that would.
    fn end_overdue(&self, executor: &Executor) {
        let overdue = self.locked().take_overdue(Instant::now());
        for run in overdue {
            executor.kill(TaskKey { run }, Kill::Gentle);
        }
    }

    /// A task whose start cannot be written down is not started: nobody could say later whether it was.
    fn refuse(&self, run: u64, error: &io::Error) {
        let mut desk = self.locked();
        if let Some(place) = desk.forget_run(run) {
            let outcome = not_started("its supervisor's journal cannot be written", error);
            desk.say(&Word::Ended(Box::new(Ended::new(place, outcome, Usage::default(), &Streams::default()))));
            desk.bring();
        }
    }

    fn on_event(&self, event: ExecEvent) {
        let mut desk = self.locked();
        if desk.is_closed {
            return;
        }
        match event {
            ExecEvent::Port { key, host, port, pid } => {
                let Some(place) = desk.places.get(&key.run).copied() else { return };
                desk.say(&Word::Group { place, pid });
                desk.say(&Word::Port { place, host: host.to_string(), port });
                desk.bring();
            }
            // Told with what follows, or by the main thread's next turn.
            ExecEvent::Started { key, pid } => {
                if let Some(place) = desk.places.get(&key.run).copied() {
                    desk.say(&Word::Group { place, pid });
                }
            }
            ExecEvent::Ended { key, end, usage, output } => {
                let Some(place) = desk.forget_run(key.run) else { return };
                desk.say(&Word::Ended(Box::new(Ended::new(place, outcome_of(end), usage_of(usage), &output))));
                desk.bring();
                // For what the socket did not take, and for the end of it all.
                let must_wake = desk.link.as_ref().map_or(desk.places.is_empty(), Link::has_waiting);
                drop(desk);
                if must_wake {
                    // Full: it is awake.
                    let _full = (&*self.wake).write(&[1]);
                }
            }
        }
    }

    // Every critical section leaves the desk whole.
    fn locked(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// A task that is to start, noted; `None` if it was started before.
    fn on_launch(&mut self, task: Task) -> Option<(u64, Task)> {
        if self.journal.book().0.contains_key(&task.place) {
            tracing::error!(place = ?task.place, "a task was launched twice, the second launch is ignored");
            return None;
        }
        self.next_run += 1;
        let run = self.next_run;
        self.places.insert(run, task.place);
        self.runs.insert(task.place, run);
        let limit = Some(Duration::from_millis(task.timeout_ms)).filter(|limit| !limit.is_zero());
        // One beyond what the clock can say is never over.
        self.limits.extend(limit.and_then(|limit| Some((run, Instant::now().checked_add(limit)?))));
        self.journal.note(&Word::Launched { place: task.place, uptime_ms: uptime_ms() });
        Some((run, task))
    }

    /// Runs past their limit, each once, while no daemon is there.
    fn take_overdue(&mut self, now: Instant) -> Vec<u64> {
        if self.link.is_some() {
            return Vec::new();
        }
        self.limits.extract_if(.., |_, until| *until <= now).map(|(run, _)| run).collect()
    }

    fn forget_run(&mut self, run: u64) -> Option<Place> {
        let place = self.places.remove(&run)?;
        self.limits.remove(&run);
        self.runs.remove(&place);
        Some(place)
    }

    fn say(&mut self, word: &Word) {
        self.journal.note(word);
        if let Some(link) = &mut self.link {
            link.put(word);
        }
    }

    /// Writes down and tells what waits, in this order.
    fn bring(&mut self) {
        if let Err(error) = self.journal.write() {
            // It is told all the same: the daemon's log may have room, and if not, this process says it again as long as it lives.
            tracing::warn!(%error, "the journal cannot be written");
        }
        if let Some(link) = &mut self.link
            && let Err(error) = link.flush()
        {
            tracing::debug!(%error, "the daemon is gone");
        }
    }
}
