//! Finds what a dead daemon or supervisor left running, and ends it.
//!
//! Invariants: touches only processes whose environment holds exactly the given entry, and their process groups; never
//! this process, nor its group.
//! Does not: find a process that changed its environment on purpose and left its group.

use std::collections::BTreeSet;
use std::fs;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpgrp, getpid, kill_process_group, pidfd_open, pidfd_send_signal};

use super::group::processes;
use super::usage::fields_after_name;

/// A killed process that still forks is caught by the next pass.
const PASSES_MAX: usize = 5;
const DEATH_WAIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Kills (SIGKILL) every process group with a member whose environment contains the entry `marker_env`, spelled
/// `NAME=value`, and returns the marked processes that were found, those included that died before their turn came. Waits until they are dead, for a second each
/// at most.
///
/// Processes of other users are invisible to this, unless it runs as root.
pub fn kill_orphans(marker_env: &str) -> Vec<u32> {
    let mut found = BTreeSet::new();
    for _ in 0..PASSES_MAX {
        let marked = marked(marker_env);
        if marked.is_empty() {
            break;
        }
        for pid in marked {
            found.insert(pid.as_raw_pid().unsigned_abs());
            kill(pid);
        }
    }
    found.into_iter().collect()
}

/// The processes whose environment contains an entry that begins with `prefix`, each with the rest of that entry; this one excepted.
pub fn carriers(prefix: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for pid in processes().filter(|pid| *pid != getpid()) {
        let environ = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).unwrap_or_default();
        let rest = environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(prefix.as_bytes()));
        found.extend(rest.map(|rest| (pid.as_raw_pid().unsigned_abs(), String::from_utf8_lossy(rest).into_owned())));
    }
    found
}

fn marked(marker_env: &str) -> Vec<Pid> {
    let exact = carriers(marker_env).into_iter().filter(|(_, rest)| rest.is_empty());
    exact.filter_map(|(pid, _)| Pid::from_raw(i32::try_from(pid).ok()?)).collect()
}

fn kill(pid: Pid) {
    // The descriptor pins the process: if it is gone by now, so is the reason to kill its group.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    let group = fields_after_name(&stat).and_then(|mut fields| fields.nth(2)?.parse().ok()).and_then(Pid::from_raw);
    if pidfd_send_signal(&process, Signal::KILL).is_err() {
        return;
    }
    if let Some(group) = group.filter(|group| *group != getpgrp() && *group != Pid::INIT) {
        // The group may be empty by now.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let mut fds = [PollFd::new(&process, PollFlags::IN)];
    // Not dying within the time is for the next pass to see.
    let _ = poll(&mut fds, Some(&DEATH_WAIT));
}
