//! The grace of a gentle kill: one thread, started on demand, that turns it into a hard one.
//!
//! Invariants: deadlines are kept in the order they were set (one constant grace, so that is their order in time).
//! Does not: signal by itself; the pool does, and only if the task is still there.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::TaskKey;
use super::pool::Pool;

/// From SIGTERM to SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Killer {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    due: VecDeque<(Instant, TaskKey)>,
    thread: Thread,
    stop: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Thread {
    #[default]
    None,
    Running,
}

impl Killer {
    pub(super) fn after_grace(pool: &Arc<Pool>, key: TaskKey) {
        let mut state = pool.killer().locked();
        state.due.push_back((Instant::now() + GRACE, key));
        if state.thread == Thread::Running || state.stop {
            return;
        }
        state.thread = Thread::Running;
        drop(state);
        let worker = Arc::clone(pool);
        let builder = thread::Builder::new().name("exec-grace".to_owned()).stack_size(64 << 10);
        if let Err(error) = builder.spawn(move || worker.killer().run(&worker)) {
            tracing::warn!(%error, "no thread to wait out a grace period, killing now");
            pool.killer().locked().thread = Thread::None;
            pool.kill_now(key);
        }
    }

    pub(super) fn stop(&self) {
        self.locked().stop = true;
        self.stopped.notify_all();
    }

    /// Ends when nothing is due any more.
    fn run(&self, pool: &Pool) {
        let mut state = self.locked();
        loop {
            let next = state.due.front().copied();
            let Some((at, key)) = next.filter(|_| !state.stop) else {
                state.thread = Thread::None;
                return;
            };
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.due.pop_front();
                drop(state);
                pool.kill_now(key);
                state = self.locked();
            } else {
                let waited = self.stopped.wait_timeout_while(state, left, |state| !state.stop);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
