//! One task from start to end, on one worker thread.
//!
//! Invariants: the leader is reaped after the table forgot it and its group was killed; its end is told when nothing of the group lives.
//! Does not: know other tasks, or how an environment server is coordinated (`pair`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::killer::GRACE;
use super::output::Streams;
use super::pool::Pool;
use super::process::{DRAIN_MAX, Process, Role, drain};
use super::{ExecEvent, Kill, Launch, TaskKey, Usage, group, pair, program};

/// How long the pipes are left alone at first: most short tasks are over by then, and end with one wake-up instead of
/// four. A pipe holds 64 KiB meanwhile, and a task that fills it waits for this long once.
const QUIET_START: Duration = Duration::from_millis(4);

/// Runs one task and reports its events. `scratch` is the thread's read buffer.
pub(super) fn run(pool: &Arc<Pool>, mut launch: Launch, scratch: &mut Vec<u8>) {
    if let Some(server) = launch.env_server.take() {
        return pair::run(pool, launch, server, scratch);
    }
    let key = launch.key;
    let begin = Instant::now();
    let child = match program::spawn(&launch) {
        Ok(child) => child,
        Err(refusal) => return pool.not_started(key, refusal.code, refusal.reason),
    };
    let pid = child.id();
    let mut process = Process::new(launch, Role::Main, child, begin);
    Pool::on_spawned(pool, key, Role::Main, process.pid);
    pool.report(ExecEvent::Started { key, pid });
    match process.watch() {
        Ok(()) => {
            if !process.ends_within(QUIET_START) {
                process.until_exit(scratch);
            }
            drain([&mut process], || patience(pool, key), scratch);
        }
        // Out of descriptors. Without one its exit cannot be polled for.
        Err(error) => {
            tracing::warn!(%error, "no descriptor to watch a task with");
            process.until_end_of_file(scratch);
        }
    }
    let group = process.pid;
    pool.finish(key, group);
    let over = process.reap();
    group::await_gone(group);
    let usage = Usage { wall_ms: ms_between(begin, over.at), cpu: over.cpu, max_rss_kib: over.max_rss_kib };
    let output = Streams { out: over.out, err: over.err, ..Streams::default() };
    pool.report(ExecEvent::Ended { key, end: over.end, usage, output });
}

/// How long grandchildren may hold a pipe after the exit. After a gentle kill they get the whole grace to finish.
pub(super) fn patience(pool: &Pool, key: TaskKey) -> Duration {
    match pool.kill_asked(key) {
        Some(Kill::Gentle) => GRACE,
        Some(Kill::Hard) => Duration::ZERO,
        None => DRAIN_MAX,
    }
}

pub(super) fn ms_between(begin: Instant, end: Instant) -> u64 {
    u64::try_from(end.saturating_duration_since(begin).as_millis()).unwrap_or(u64::MAX)
}
