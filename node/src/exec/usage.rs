//! What a process used, read from `/proc`: the standard library reaps without asking for it.
//!
//! Invariants: read only while the process is unreaped, so the numbers are its own.
//! Does not: count children that nobody waited for.

use std::fs;

use rustix::process::Pid;

use super::Cpu;

/// `USER_HZ`, part of the kernel's ABI and 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of `pid` and its waited-for children; works while it is a zombie.
pub(super) fn cpu(pid: Pid) -> Option<Cpu> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    // utime stime cutime cstime are fields 14 to 17; field 2 may contain anything, and ends at the last parenthesis.
    let mut ticks = fields_after_name(&stat)?.skip(11).map_while(|field| field.parse::<u64>().ok());
    let (user, sys) = (ticks.next()?, ticks.next()?);
    let (children_user, children_sys) = (ticks.next()?, ticks.next()?);
    let ms = |ticks: u64| ticks.saturating_mul(1000) / TICKS_PER_SECOND;
    Some(Cpu { user_ms: ms(user + children_user), sys_ms: ms(sys + children_sys) })
}

/// Highest resident size of `pid` so far; a zombie has none any more.
pub(super) fn max_rss_kib(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The fields of a `stat` line from field 3 (state) on.
pub(super) fn fields_after_name(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace())
}
