//! Tasks that nodes left running: they outlive their daemon, and must not outlive the cluster.
//!
//! Invariants: touches only processes that bear the mark of a supervisor below the given directory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait::until;

/// What marks supervisors and their tasks, with the path of the supervisor's files.
const MARK: &str = "STARLING_SUPERVISOR=";
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Kills what nodes below `home` left running, and waits until it is gone.
pub(super) fn end(home: &Path) {
    let Ok(home) = home.canonicalize() else { return };
    let prefix = format!("{MARK}{}/", home.display());
    // A killed process that still forks is caught by the next look.
    let _late = until(GONE_WITHIN, || {
        let left = marked(&prefix);
        for pid in &left {
            // It may have ended by itself.
            let _gone = kill_process(*pid, Signal::KILL);
        }
        left.is_empty()
    });
}

fn marked(prefix: &str) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw);
    let is_marked = |pid: &Pid| {
        // A zombie has no environment any more.
        let environ = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry.starts_with(prefix.as_bytes()))
    };
    pids.filter(is_marked).collect()
}
