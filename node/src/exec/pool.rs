//! Worker threads and the table of tasks.
//!
//! Invariants: at most `threads_max` workers; a task is in the table from `launch` until just before it is reaped (or
//! refused); signals are sent under the table's lock, so never to a pid that was given back.
//! Does not: spawn or wait for processes (`task`).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::killer::Killer;
use super::output::Streams;
use super::process::Role;
use super::program::Refusal;
use super::task;
use super::{End, ExecEvent, Kill, Launch, OnEvent, TaskKey, Usage};

/// An idle worker goes away after this long.
const IDLE: Duration = Duration::from_secs(30);
const STACK_BYTES: usize = 256 << 10;

pub(super) struct Pool {
    events: OnEvent,
    threads_max: usize,
    state: Mutex<State>,
    /// Wakes workers (a launch, the shutdown).
    work: Condvar,
    /// Wakes `shutdown` (a worker left).
    left: Condvar,
    killer: Killer,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Launch>,
    tasks: HashMap<TaskKey, Slot>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Debug, Default)]
struct Slot {
    pid: Option<Pid>,
    /// Of a pair, its environment server.
    env: Option<Pid>,
    kill: Option<Kill>,
}

impl Slot {
    /// Signals what runs. Gently that is the policy alone, as long as there is one: it may need its environment to finish,
    /// and the environment is ended after it anyway.
    fn signal(&self, how: Kill) -> Signalled {
        let groups = match how {
            Kill::Gentle => [self.pid.or(self.env), None],
            Kill::Hard => [self.pid, self.env],
        };
        for group in groups.into_iter().flatten() {
            signal(group, how);
        }
        if groups == [None, None] { Signalled::Nothing } else { Signalled::Groups }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signalled {
    Nothing,
    Groups,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads_max", &self.threads_max)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(events: OnEvent, threads_max: usize) -> Arc<Self> {
        Arc::new(Self {
            events,
            threads_max: threads_max.max(1),
            state: Mutex::default(),
            work: Condvar::new(),
            left: Condvar::new(),
            killer: Killer::default(),
        })
    }

    pub(super) fn launch(pool: &Arc<Self>, launch: Launch) {
        let key = launch.key;
        let mut state = pool.locked();
        if state.closed {
            drop(state);
            return pool.refuse(key, 126, "the executor is shutting down".to_owned());
        }
        if state.tasks.contains_key(&key) {
            drop(state);
            tracing::error!(run = key.run, "a run was launched twice, the second launch is ignored");
            return;
        }
        state.tasks.insert(key, Slot::default());
        state.waiting.push_back(launch);
        if state.idle >= state.waiting.len() {
            drop(state);
            pool.work.notify_one();
        } else if state.threads < pool.threads_max {
            state.threads += 1;
            drop(state);
            pool.clone().add_worker();
        }
    }

    pub(super) fn kill(pool: &Arc<Self>, key: TaskKey, how: Kill) {
        let mut state = pool.locked();
        if let Some(place) = state.waiting.iter().position(|launch| launch.key == key) {
            state.waiting.remove(place);
            state.tasks.remove(&key);
            drop(state);
            return pool.killed_before_start(key, how);
        }
        let Some(slot) = state.tasks.get_mut(&key) else {
            return;
        };
        // Hard after gentle shortens the grace; gentle after hard changes nothing.
        if slot.kill != Some(Kill::Hard) {
            slot.kill = Some(how);
        }
        let signalled = slot.signal(how);
        drop(state);
        if signalled == Signalled::Groups && how == Kill::Gentle {
            Killer::after_grace(pool, key);
        }
    }

    /// The grace is over: kills the group if the task is still there.
    pub(super) fn kill_now(&self, key: TaskKey) {
        let mut state = self.locked();
        if let Some(slot) = state.tasks.get_mut(&key) {
            slot.kill = Some(Kill::Hard);
            slot.signal(Kill::Hard);
        }
    }

    pub(super) fn running(&self) -> usize {
        self.locked().tasks.len()
    }

    /// The running tasks, each with its leaders, whose ids are also the groups'.
    pub(super) fn groups(&self) -> Vec<(TaskKey, u32)> {
        let groups = |(key, slot): (&TaskKey, &Slot)| {
            let key = *key;
            [slot.pid, slot.env].into_iter().flatten().map(move |pid| (key, pid.as_raw_pid().unsigned_abs()))
        };
        self.locked().tasks.iter().flat_map(groups).collect()
    }

    pub(super) fn shutdown(&self) {
        let mut state = self.locked();
        state.closed = true;
        let waiting: Vec<_> = state.waiting.drain(..).map(|launch| launch.key).collect();
        for key in &waiting {
            state.tasks.remove(key);
        }
        for slot in state.tasks.values_mut() {
            slot.kill = Some(Kill::Hard);
            slot.signal(Kill::Hard);
        }
        drop(state);
        self.work.notify_all();
        for key in waiting {
            self.killed_before_start(key, Kill::Hard);
        }
        let state = self.left.wait_while(self.locked(), |state| state.threads > 0);
        drop(state.unwrap_or_else(PoisonError::into_inner));
        self.killer.stop();
    }

    /// Called by a worker when a process runs. A kill that came first is made good here.
    pub(super) fn on_spawned(pool: &Arc<Self>, key: TaskKey, role: Role, pid: Pid) {
        let mut state = pool.locked();
        let Some(slot) = state.tasks.get_mut(&key) else {
            return;
        };
        match role {
            Role::Main => slot.pid = Some(pid),
            Role::Env => slot.env = Some(pid),
        }
        let kill = slot.kill;
        if let Some(how) = kill {
            signal(pid, how);
        }
        drop(state);
        if kill == Some(Kill::Gentle) {
            Killer::after_grace(pool, key);
        }
    }

    /// What has been asked for so far.
    pub(super) fn kill_asked(&self, key: TaskKey) -> Option<Kill> {
        self.locked().tasks.get(&key).and_then(|slot| slot.kill)
    }

    /// Takes the task out of the table and ends what is left of its group, in this order and before the leader is
    /// reaped: after that the group's id may belong to somebody else.
    pub(super) fn finish(&self, key: TaskKey, pid: Pid) {
        self.locked().tasks.remove(&key);
        signal(pid, Kill::Hard);
    }

    /// As `finish`, for a policy whose environment server still runs: the task stays in the table.
    pub(super) fn finish_policy(&self, key: TaskKey, pid: Pid) {
        if let Some(slot) = self.locked().tasks.get_mut(&key) {
            slot.pid = None;
        }
        signal(pid, Kill::Hard);
    }

    /// The process could not be started.
    pub(super) fn not_started(&self, key: TaskKey, code: i32, reason: String) {
        self.locked().tasks.remove(&key);
        self.refuse(key, code, reason);
    }

    pub(super) fn report(&self, event: ExecEvent) {
        (self.events)(event);
    }

    pub(super) fn killer(&self) -> &Killer {
        &self.killer
    }

    fn killed_before_start(&self, key: TaskKey, how: Kill) {
        let Refusal { code, reason } = Refusal::killed(how);
        self.refuse(key, code, reason);
    }

    fn refuse(&self, key: TaskKey, code: i32, reason: String) {
        let end = End::NotStarted { code, reason };
        self.report(ExecEvent::Ended { key, end, usage: Usage::default(), output: Streams::default() });
    }

    fn add_worker(self: Arc<Self>) {
        let pool = Arc::clone(&self);
        let builder = thread::Builder::new().name("exec".to_owned()).stack_size(STACK_BYTES);
        let Err(error) = builder.spawn(move || pool.work()) else {
            return;
        };
        let mut state = self.locked();
        state.threads -= 1;
        // With other workers the launch waits for one of them; without any it would wait for ever.
        let stranded = if state.threads == 0 { state.waiting.drain(..).collect() } else { Vec::new() };
        for launch in &stranded {
            state.tasks.remove(&launch.key);
        }
        drop(state);
        tracing::warn!(%error, "no further worker thread");
        for launch in stranded {
            self.refuse(launch.key, 126, format!("the machine gave no thread to run it: {error}"));
        }
    }

    fn work(self: Arc<Self>) {
        let mut leaving = Leaving { pool: &self, counted: Counted::Working };
        let mut scratch = Vec::new();
        loop {
            let mut state = self.locked();
            if state.waiting.is_empty() {
                state.idle += 1;
                let idle = |state: &mut State| state.waiting.is_empty() && !state.closed;
                let waited = self.work.wait_timeout_while(state, IDLE, idle);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                state.idle -= 1;
            }
            let Some(launch) = state.waiting.pop_front() else {
                // Under the same lock as the decision, or a launch might count on this worker.
                state.threads -= 1;
                leaving.counted = Counted::Out;
                return;
            };
            drop(state);
            task::run(&self, launch, &mut scratch);
        }
    }

    // Every critical section leaves the table whole, so a panicking worker cannot have broken it.
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a worker out, also when it unwinds.
struct Leaving<'a> {
    pool: &'a Pool,
    counted: Counted,
}

#[derive(PartialEq, Eq)]
enum Counted {
    Working,
    Out,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if self.counted == Counted::Working {
            self.pool.locked().threads -= 1;
        }
        self.pool.left.notify_all();
    }
}

pub(super) fn as_signal(how: Kill) -> Signal {
    match how {
        Kill::Gentle => Signal::TERM,
        Kill::Hard => Signal::KILL,
    }
}

/// Signals a process group whose leader is not reaped.
pub(super) fn signal(pid: Pid, how: Kill) {
    // The only failure left is a group of which nothing but the unreaped leader exists.
    let _ = kill_process_group(pid, as_signal(how));
}
