//! GPUs, as `nvidia-smi` tells of them.
//!
//! Invariants: without the program nothing is ever started; at most one instance runs; one that is silent is killed, and one that cannot be killed (its driver
//! hangs) is left alone and not followed by another.
//! Does not: know GPUs of other makers.

use std::env;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use starling_core::namespace::monitor::GPUS_MAX;

use super::Gpu;
use super::pace::Pace;

/// Longest that the program may take; it holds up the other readings.
const DEADLINE: Duration = Duration::from_secs(2);
/// Most output that is read.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
const QUERY: [&str; 2] = ["--query-gpu=name,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits"];

/// The GPUs of this machine.
#[derive(Debug)]
pub(super) struct Gpus {
    program: Option<PathBuf>,
    deadline: Duration,
    pace: Pace,
    /// Killed and not yet reaped.
    stuck: Option<Child>,
    seen: Vec<Gpu>,
}

impl Gpus {
    /// Looks once whether the program is there.
    pub(super) fn find() -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        let program = env::split_paths(&path).map(|dir| dir.join("nvidia-smi")).find(|program| program.is_file());
        Self::asking(program.as_deref(), DEADLINE)
    }

    /// Asks this program.
    pub(super) fn asking(program: Option<&Path>, deadline: Duration) -> Self {
        let program = program.map(Path::to_owned);
        Self { program, deadline, pace: Pace::default(), stuck: None, seen: Vec::new() }
    }

    /// The GPUs as of the last look, which is now if one is due. None while the program does not answer.
    pub(super) fn look(&mut self) -> Vec<Gpu> {
        let Some(program) = self.program.clone() else { return Vec::new() };
        let begin = Instant::now();
        if self.pace.is_due(begin) {
            self.seen = self.ask(&program).map(|output| parse(&output)).unwrap_or_default();
            self.pace.took(begin, Instant::now());
        }
        self.seen.clone()
    }

    fn ask(&mut self, program: &Path) -> Option<String> {
        if let Some(child) = &mut self.stuck {
            child.try_wait().ok()??;
            self.stuck = None;
        }
        let mut command = Command::new(program);
        command.args(QUERY).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let deadline = Instant::now() + self.deadline;
        let output = read_all(&mut child, deadline);
        if output.is_some() && ends_well(&mut child, deadline) {
            return output;
        }
        // Already over when it ended by itself.
        let _over = child.kill();
        if !matches!(child.try_wait(), Ok(Some(_))) {
            self.stuck = Some(child);
        }
        None
    }
}

/// Whether the process ends by `deadline`, and with success.
fn ends_well(child: &mut Child, deadline: Instant) -> bool {
    let Ok(pidfd) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else { return false };
    is_readable(&pidfd, deadline) && matches!(child.try_wait(), Ok(Some(status)) if status.success())
}

/// Waits for something to read, or for a process to end.
fn is_readable(fd: &impl AsFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(wait) = Timespec::try_from(left) else { return false };
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&wait)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Standard output to its end; `None` at the deadline, or when there is too much.
fn read_all(child: &mut Child, deadline: Instant) -> Option<String> {
    let mut pipe = child.stdout.take()?;
    let mut output = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        if output.len() > OUTPUT_BYTES_MAX || !is_readable(&pipe, deadline) {
            return None;
        }
        match pipe.read(&mut chunk).ok()? {
            0 => return String::from_utf8(output).ok(),
            read => output.extend_from_slice(&chunk[..read]),
        }
    }
}

/// Reads the query's answer: one line a GPU; figures that the card does not know (`[N/A]`) count as 0.
pub(super) fn parse(output: &str) -> Vec<Gpu> {
    const MIB: u64 = 1 << 20;
    let gpu = |line: &str| {
        // From the right: a name may hold a comma.
        let mut fields = line.rsplitn(4, ',').map(str::trim);
        let number = |field: &str| field.parse::<u64>().unwrap_or(0);
        let (total, used) = (number(fields.next()?), number(fields.next()?));
        let percent = number(fields.next()?);
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let bytes = |mib: u64| mib.saturating_mul(MIB);
        let used_milli = percent.saturating_mul(10);
        Some(Gpu { name, used_milli, mem_used_bytes: bytes(used), mem_total_bytes: bytes(total) })
    };
    output.lines().filter_map(gpu).take(GPUS_MAX).collect()
}
