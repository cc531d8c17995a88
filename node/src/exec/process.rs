//! One process with its pipes: fed, read and watched by the thread that started it.
//!
//! Invariants: nothing here blocks on one pipe while another one fills; how a process ended is known before it is reaped;
//! it is reaped by `reap` only, so until then its id, and its group's, is its own.
//! Does not: know the table of tasks, or signal.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::capture::Capture;
use super::output::{Stream, Written};
use super::{Cpu, End, Launch, usage};

/// How long a grandchild may hold the pipes open after the task's own process ended.
pub(super) const DRAIN_MAX: Duration = Duration::from_millis(200);
/// Reads that are made whatever the clock says: more than a full pipe, so the task's own output is never cut by a slow
/// disk, and bounded, so a grandchild that never stops writing is.
const DRAIN_ROUNDS: u32 = 32;
/// Tasks shorter than this are not asked what they used.
const SAMPLE_FIRST: Duration = Duration::from_millis(50);
const SAMPLE_MAX: Duration = Duration::from_secs(2);

/// Which streams a process writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// The task itself; of a pair, the policy.
    Main,
    /// The environment server of a pair.
    Env,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    /// When its end was seen.
    pub(super) exited: Option<Instant>,
    pub(super) out: Capture<ChildStdout>,
    child: Child,
    prefix: PathBuf,
    err: Capture<ChildStderr>,
    input: Option<(ChildStdin, Bytes)>,
    watch: Option<OwnedFd>,
    begin: Instant,
    max_rss_kib: Option<u64>,
}

/// What a process came to.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) end: End,
    pub(super) at: Instant,
    pub(super) cpu: Option<Cpu>,
    pub(super) max_rss_kib: Option<u64>,
    pub(super) out: Written,
    pub(super) err: Written,
}

impl Process {
    /// Takes charge of `child`, which runs since `begin`, and begins to feed it.
    pub(super) fn new(launch: Launch, role: Role, mut child: Child, begin: Instant) -> Self {
        let (out, err) = match role {
            Role::Main => (Stream::Out, Stream::Err),
            Role::Env => (Stream::EnvOut, Stream::EnvErr),
        };
        let mut process = Self {
            pid: Pid::from_child(&child),
            exited: None,
            out: Capture::new(child.stdout.take(), out, launch.cap_bytes),
            err: Capture::new(child.stderr.take(), err, launch.cap_bytes),
            input: child.stdin.take().zip(launch.stdin),
            child,
            prefix: launch.out,
            watch: None,
            begin,
            max_rss_kib: None,
        };
        if let Some((pipe, _)) = &process.input {
            if let Err(error) = ioctl_fionbio(pipe, true) {
                tracing::warn!(%error, "standard input cannot be fed without blocking and stays empty");
                process.input = None;
            }
            process.feed();
        }
        process
    }

    /// From now on `turn` notices the exit.
    ///
    /// Errors: the system is out of descriptors.
    pub(super) fn watch(&mut self) -> Result<(), Errno> {
        self.watch = Some(pidfd_open(self.pid, PidfdFlags::empty())?);
        Ok(())
    }

    /// Whether a watched process that is not fed ends within `wait`, its pipes being left alone.
    pub(super) fn ends_within(&mut self, wait: Duration) -> bool {
        let (Some(watch), None) = (&self.watch, &self.input) else {
            return false;
        };
        let timeout = Timespec::try_from(wait).ok();
        let mut fds = [PollFd::new(watch, PollFlags::IN)];
        let is_over = poll(&mut fds, timeout.as_ref()).is_ok_and(|ready| ready > 0);
        if is_over {
            self.exited = Some(Instant::now());
        }
        is_over
    }

    /// Serves the pipes of a watched process until it exits.
    pub(super) fn until_exit(&mut self, scratch: &mut Vec<u8>) {
        let mut samples = Samples::from(self.begin);
        while self.exited.is_none() {
            turn([&mut *self], Some(samples.left()), scratch);
            if samples.is_due() {
                self.sample();
            }
        }
    }

    /// As `until_exit`, for a process that cannot be watched: its pipes' ends have to do.
    pub(super) fn until_end_of_file(&mut self, scratch: &mut Vec<u8>) {
        while self.has_pipes() {
            turn([&mut *self], None, scratch);
        }
        self.input = None;
        let unreaped = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(self.pid), unreaped), Err(Errno::INTR)) {}
        self.exited = Some(Instant::now());
    }

    /// Notes how much memory it holds by now.
    pub(super) fn sample(&mut self) {
        self.max_rss_kib = self.max_rss_kib.max(usage::max_rss_kib(self.pid));
    }

    /// How it ended, while it is not reaped yet; `None` if it runs.
    pub(super) fn end(&self) -> Option<End> {
        let unreaped = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::Pid(self.pid), unreaped).ok().flatten()?;
        status.exit_status().map(End::Exit).or_else(|| status.terminating_signal().map(End::Signal))
    }

    /// Gives its id back and closes its files. Whatever signals it must have been told before that it is no more.
    pub(super) fn reap(mut self) -> Over {
        let cpu = if self.begin.elapsed() >= SAMPLE_FIRST { usage::cpu(self.pid) } else { None };
        let status = self.child.wait();
        Over {
            end: end_of(status),
            at: self.exited.unwrap_or_else(Instant::now),
            cpu,
            max_rss_kib: self.max_rss_kib,
            out: self.out.finish(&self.prefix),
            err: self.err.finish(&self.prefix),
        }
    }

    fn has_pipes(&self) -> bool {
        self.out.pipe.is_some() || self.err.pipe.is_some()
    }

    fn interest(&self) -> [Option<PollFd<'_>>; 4] {
        let exit = self.watch.as_ref().filter(|_| self.exited.is_none());
        [
            self.out.pipe.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)),
            self.err.pipe.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)),
            self.input.as_ref().map(|(pipe, _)| PollFd::new(pipe, PollFlags::OUT)),
            exit.map(|watch| PollFd::new(watch, PollFlags::IN)),
        ]
    }

    fn react(&mut self, [out, err, input, exited]: [bool; 4], scratch: &mut Vec<u8>) {
        if out {
            self.out.pull(&self.prefix, scratch);
        }
        if err {
            self.err.pull(&self.prefix, scratch);
        }
        if input {
            self.feed();
        }
        if exited {
            self.exited = Some(Instant::now());
        }
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
}

/// One round of poll over some processes, and what it showed; true if the first one had anything to show.
pub(super) fn turn<const N: usize>(
    mut processes: [&mut Process; N],
    timeout: Option<Duration>,
    scratch: &mut Vec<u8>,
) -> bool {
    let shown = look(&processes, timeout);
    for (process, shown) in processes.iter_mut().zip(shown) {
        process.react(shown, scratch);
    }
    shown.first().is_some_and(|first| first.contains(&true))
}

fn look<const N: usize>(processes: &[&mut Process; N], timeout: Option<Duration>) -> [[bool; 4]; N] {
    let interests = processes.each_ref().map(|process| process.interest());
    let present = interests.each_ref().map(|of_one| of_one.each_ref().map(Option::is_some));
    let mut fds: Vec<_> = interests.into_iter().flatten().flatten().collect();
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => tracing::warn!(%error, "polling a task's pipes failed"),
    }
    let mut shown = fds.iter().map(|fd| !fd.revents().is_empty());
    present.map(|of_one| of_one.map(|present| present && shown.next().unwrap_or_default()))
}

/// After the first one's exit: what is in its pipes, and for a while (`patience`, asked again and again, from the exit on)
/// what grandchildren still put there. The others are served meanwhile.
pub(super) fn drain<const N: usize>(
    mut processes: [&mut Process; N],
    patience: impl Fn() -> Duration,
    scratch: &mut Vec<u8>,
) {
    let Some(first) = processes.first_mut() else { return };
    first.input = None;
    let exited = first.exited.unwrap_or(first.begin);
    let mut wait = Duration::ZERO;
    let mut free_rounds = DRAIN_ROUNDS;
    while processes.first().is_some_and(|first| first.has_pipes()) {
        let shown = turn(processes.each_mut().map(|process| &mut **process), Some(wait), scratch);
        if shown && free_rounds > 0 {
            free_rounds -= 1;
            continue;
        }
        let left = (exited + patience()).saturating_duration_since(Instant::now());
        if left.is_zero() && !wait.is_zero() {
            return;
        }
        // In slices, because a hard kill may follow a gentle one. Never zero: after a kill the pipes close soon.
        wait = left.clamp(Duration::from_millis(10), DRAIN_MAX);
    }
}

/// When to look at the memory next: often at first, rarely later.
#[derive(Debug)]
pub(super) struct Samples {
    next: Instant,
    gap: Duration,
}

impl Samples {
    pub(super) fn from(begin: Instant) -> Self {
        Self { next: begin + SAMPLE_FIRST, gap: SAMPLE_FIRST }
    }

    pub(super) fn left(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Whether it is time; if so, the next time is set.
    pub(super) fn is_due(&mut self) -> bool {
        let is_due = Instant::now() >= self.next;
        if is_due {
            self.gap = (self.gap * 2).min(SAMPLE_MAX);
            self.next = Instant::now() + self.gap;
        }
        is_due
    }
}

fn end_of(status: io::Result<ExitStatus>) -> End {
    match status.map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => End::Exit(code),
        Ok((None, Some(signal))) => End::Signal(signal),
        // Somebody else in this process reaped it: how it ended is not known, and must not pass for success.
        Ok((None, None)) | Err(_) => End::Exit(255),
    }
}
