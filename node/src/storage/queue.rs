//! The bounded queue between the callers of `write` and the writer thread.
//!
//! Invariants: bounded in writes and in bytes; first in, first out; everything accepted is taken, also after `close`.
//! Does not: block a caller. When full it refuses and gives the records back.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::frame::{self, FRAME_BYTES};
use super::{QueueFull, Record};

/// One `write` call.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) records: Vec<Record>,
    pub(super) bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) writes: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::default(), ready: Condvar::new() }
    }

    pub(super) fn push(&self, id: u64, records: Vec<Record>) -> Result<(), QueueFull> {
        let bytes = records.iter().map(|record| FRAME_BYTES + frame::payload_bytes(record)).sum();
        let mut state = self.locked();
        // An idle queue takes one write of any size up to the bound of a segment, so no write is refused for ever.
        let room = state.jobs.is_empty() || state.bytes.saturating_add(bytes) <= self.bounds.bytes;
        if !room || state.jobs.len() >= self.bounds.writes || bytes > super::WRITE_BYTES_MAX {
            return Err(QueueFull(records));
        }
        state.bytes += bytes;
        state.jobs.push_back(Job { id, records, bytes });
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for work and moves it into `out`: all that is queued, up to about `bytes_max`, at least one write. Leaves
    /// `out` empty when the queue is closed and drained.
    pub(super) fn take(&self, bytes_max: usize, out: &mut Vec<Job>) {
        let state = self.locked();
        let waited = self.ready.wait_while(state, |state| state.jobs.is_empty() && !state.closed);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let mut left = bytes_max;
        while let Some(job) = state.jobs.front() {
            if !out.is_empty() && job.bytes > left {
                break;
            }
            left = left.saturating_sub(job.bytes);
            state.bytes -= job.bytes;
            out.extend(state.jobs.pop_front());
        }
    }

    pub(super) fn close(&self) {
        self.locked().closed = true;
        self.ready.notify_one();
    }

    // Every critical section above leaves the state whole, so a panicking caller cannot have broken it.
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
