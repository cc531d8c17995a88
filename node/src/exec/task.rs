//! One task from start to end, on one worker thread.
//!
//! Invariants: the leader is reaped last, after the table forgot it and its group was killed; the loop never blocks on one
//! pipe while another one fills.
//! Does not: know other tasks.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::capture::Capture;
use super::killer::GRACE;
use super::output::Stream;
use super::pool::Pool;
use super::{End, ExecEvent, Kill, Launch, Truncated, Usage, program, usage};

/// How long the pipes are left alone at first: most short tasks are over by then, and end with one wake-up instead of
/// four. A pipe holds 64 KiB meanwhile, and a task that fills it waits for this long once.
const QUIET_START: Duration = Duration::from_millis(4);
/// How long a grandchild may hold the pipes open after the task's own process ended.
const DRAIN_MAX: Duration = Duration::from_millis(200);
/// Reads that are made whatever the clock says: more than a full pipe, so the task's own output is never cut by a slow
/// disk, and bounded, so a grandchild that never stops writing is.
const DRAIN_ROUNDS: u32 = 32;
/// Tasks shorter than this are not asked what they used.
const SAMPLE_FIRST: Duration = Duration::from_millis(50);
const SAMPLE_MAX: Duration = Duration::from_secs(2);

/// Runs one task and reports its events. `scratch` is the thread's read buffer.
pub(super) fn run(pool: &Arc<Pool>, launch: Launch, scratch: &mut Vec<u8>) {
    let key = launch.key;
    let begin = Instant::now();
    let spawned = program::command(&launch).and_then(|(mut command, program)| {
        command.spawn().map_err(|error| program::explain(&launch, &program, &error))
    });
    let mut child = match spawned {
        Ok(child) => child,
        Err(refusal) => return pool.not_started(key, refusal.code, refusal.reason),
    };
    let pid = Pid::from_child(&child);
    Pool::on_spawned(pool, key, pid);
    pool.report(ExecEvent::Started { key, pid: child.id() });
    let mut task = Task::new(launch, &mut child, begin);
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => {
            task.until_exit(pid, &pidfd, scratch);
            task.drain(pool, scratch);
        }
        // Out of descriptors. Without one its exit cannot be polled for: the pipes' ends have to do.
        Err(error) => {
            tracing::warn!(%error, "no descriptor to watch a task with");
            task.until_end_of_file(pid, scratch);
        }
    }
    task.end(pool, pid, &mut child);
}

struct Task {
    launch: Launch,
    begin: Instant,
    out: Capture<ChildStdout>,
    err: Capture<ChildStderr>,
    input: Option<(ChildStdin, Bytes)>,
    max_rss_kib: Option<u64>,
    exited: Option<Instant>,
}

impl Task {
    fn new(mut launch: Launch, child: &mut Child, begin: Instant) -> Self {
        let out = Capture::new(child.stdout.take(), Stream::Out, launch.cap_bytes);
        let err = Capture::new(child.stderr.take(), Stream::Err, launch.cap_bytes);
        let input = child.stdin.take().zip(launch.stdin.take());
        let mut task = Self { launch, begin, out, err, input, max_rss_kib: None, exited: None };
        if let Some((pipe, _)) = &task.input {
            if let Err(error) = ioctl_fionbio(pipe, true) {
                tracing::warn!(%error, "standard input cannot be fed without blocking and stays empty");
                task.input = None;
            }
            task.feed();
        }
        task
    }

    fn until_exit(&mut self, pid: Pid, pidfd: &OwnedFd, scratch: &mut Vec<u8>) {
        if self.input.is_none() && is_over(pidfd, QUIET_START) {
            self.exited = Some(Instant::now());
            return;
        }
        let mut sample = SAMPLE_FIRST;
        let mut next_sample = self.begin + sample;
        while self.exited.is_none() {
            let left = next_sample.saturating_duration_since(Instant::now());
            self.turn(Some(pidfd), Some(left), scratch);
            if Instant::now() >= next_sample {
                self.max_rss_kib = self.max_rss_kib.max(usage::max_rss_kib(pid));
                sample = (sample * 2).min(SAMPLE_MAX);
                next_sample = Instant::now() + sample;
            }
        }
    }

    /// After the exit: what is in the pipes, and for a while what grandchildren still put there. After a gentle kill they
    /// get the whole grace to finish, as long as they hold a pipe.
    fn drain(&mut self, pool: &Pool, scratch: &mut Vec<u8>) {
        self.input = None;
        let exited = self.exited.unwrap_or(self.begin);
        let mut wait = Duration::ZERO;
        let mut free_rounds = DRAIN_ROUNDS;
        while self.out.pipe.is_some() || self.err.pipe.is_some() {
            if self.turn(None, Some(wait), scratch) > 0 && free_rounds > 0 {
                free_rounds -= 1;
                continue;
            }
            let patience = match pool.kill_asked(self.launch.key) {
                Some(Kill::Gentle) => GRACE,
                Some(Kill::Hard) => Duration::ZERO,
                None => DRAIN_MAX,
            };
            let left = (exited + patience).saturating_duration_since(Instant::now());
            if left.is_zero() && !wait.is_zero() {
                return;
            }
            // In slices, because a hard kill may follow a gentle one. Never zero: after a kill the pipes close soon.
            wait = left.clamp(Duration::from_millis(10), DRAIN_MAX);
        }
    }

    fn until_end_of_file(&mut self, pid: Pid, scratch: &mut Vec<u8>) {
        while self.out.pipe.is_some() || self.err.pipe.is_some() {
            self.turn(None, None, scratch);
        }
        self.input = None;
        let unreaped = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(pid), unreaped), Err(Errno::INTR)) {}
        self.exited = Some(Instant::now());
    }

    /// One round of poll and what it showed; returns how many descriptors were ready.
    fn turn(&mut self, pidfd: Option<&OwnedFd>, timeout: Option<Duration>, scratch: &mut Vec<u8>) -> usize {
        let Shown { ready, out, err, input, exited } = self.look(pidfd, timeout);
        if out {
            self.out.pull(&self.launch.out, scratch);
        }
        if err {
            self.err.pull(&self.launch.out, scratch);
        }
        if input {
            self.feed();
        }
        if exited {
            self.exited = Some(Instant::now());
        }
        ready
    }

    fn look(&self, pidfd: Option<&OwnedFd>, timeout: Option<Duration>) -> Shown {
        let out = self.out.pipe.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN));
        let err = self.err.pipe.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN));
        let input = self.input.as_ref().map(|(pipe, _)| PollFd::new(pipe, PollFlags::OUT));
        let exit = pidfd.map(|pidfd| PollFd::new(pidfd, PollFlags::IN));
        let present = [out.is_some(), err.is_some(), input.is_some(), exit.is_some()];
        let mut fds: Vec<_> = [out, err, input, exit].into_iter().flatten().collect();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let ready = match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => ready,
            Err(Errno::INTR) => 0,
            Err(error) => {
                tracing::warn!(%error, "polling a task's pipes failed");
                0
            }
        };
        let mut shown = fds.iter().map(|fd| !fd.revents().is_empty());
        let [out, err, input, exited] = present.map(|present| present && shown.next().unwrap_or_default());
        Shown { ready, out, err, input, exited }
    }

    /// Writes what the pipe takes; closes it at the end, or when nobody reads any more.
    fn feed(&mut self) {
        let Some((pipe, bytes)) = &mut self.input else {
            return;
        };
        while bytes.has_remaining() {
            match pipe.write(bytes) {
                Ok(written) => bytes.advance(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A task is free not to read its input.
                Err(_) => break,
            }
        }
        self.input = None;
    }

    fn end(mut self, pool: &Pool, pid: Pid, child: &mut Child) {
        let key = self.launch.key;
        let cpu = if self.begin.elapsed() >= SAMPLE_FIRST { usage::cpu(pid) } else { None };
        pool.finish(key, pid);
        let status = child.wait();
        let ended = self.exited.unwrap_or_else(Instant::now);
        let wall_ms = u64::try_from((ended - self.begin).as_millis()).unwrap_or(u64::MAX);
        let usage = Usage { wall_ms, cpu, max_rss_kib: self.max_rss_kib };
        let (out, err) = (self.out.finish(&self.launch.out), self.err.finish(&self.launch.out));
        let truncated = Truncated { out_bytes: out.dropped, err_bytes: err.dropped };
        pool.report(ExecEvent::Ended {
            key,
            end: end_of(status),
            usage,
            out_len: out.len,
            err_len: err.len,
            truncated,
        });
    }
}

struct Shown {
    ready: usize,
    out: bool,
    err: bool,
    input: bool,
    exited: bool,
}

fn is_over(pidfd: &OwnedFd, wait: Duration) -> bool {
    let timeout = Timespec::try_from(wait).ok();
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

fn end_of(status: io::Result<ExitStatus>) -> End {
    match status.map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => End::Exit(code),
        Ok((None, Some(signal))) => End::Signal(signal),
        // Somebody else in this process reaped it: how it ended is not known, and must not pass for success.
        Ok((None, None)) | Err(_) => End::Exit(255),
    }
}
