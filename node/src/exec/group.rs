//! The members of a process group, read from `/proc`.
//!
//! Invariants: zombies are no members: they hold nothing and run nothing.
//! Does not: signal.

use std::fs;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use rustix::process::{Pid, test_kill_process_group};

use super::usage::fields_after_name;

/// A killed process is gone within a few milliseconds, unless the system is in trouble.
const GONE_WAIT: Duration = Duration::from_secs(1);
const GONE_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Every process that lives in `group`, as far as `/proc` shows.
pub(super) fn members(group: Pid) -> Vec<Pid> {
    processes().filter(|pid| is_member(*pid, group)).collect()
}

/// Every process there is.
pub(super) fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw)
}

/// Returns when a group that was killed, and whose leader was reaped, has no member left; after a second at most.
pub(super) fn await_gone(group: Pid) {
    let deadline = Instant::now() + GONE_WAIT;
    // The first question is cheap and mostly enough; but a zombie that nobody reaps yet makes a group exist, too.
    while test_kill_process_group(group).is_ok() && !members(group).is_empty() {
        if Instant::now() >= deadline {
            tracing::warn!(group = group.as_raw_pid(), "a killed process group is still there");
            return;
        }
        let _ = poll(&mut [], Some(&GONE_POLL));
    }
}

fn is_member(pid: Pid, group: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    let Some(mut fields) = fields_after_name(&stat) else {
        return false;
    };
    let is_dead = matches!(fields.next(), Some("Z" | "X") | None);
    !is_dead && fields.nth(1).and_then(|field| field.parse().ok()) == Some(group.as_raw_pid())
}
