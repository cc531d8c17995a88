//! Outcomes: what a worker's result means.
//!
//! The protocol knows exit codes, and -1 for all else. Our own worker says more in a line of its own, the last one it sends before such a result:
//! `[starling: signal N]`, `[starling: timed out]` or `[starling: cancelled]`.
//! Invariants: total: whatever a worker sends is some outcome.

use smol_str::SmolStr;
use starling_core::facts::Outcome;

/// Of a worker's reason why a task could not start: it goes into the log.
const REASON_BYTES_MAX: usize = 200;
/// What timeout(1) exits with when it stopped its command.
const TIMEOUT_STOPPED: i32 = 124;
/// What timeout(1) exits with when its command had to be killed.
const TIMEOUT_KILLED: i32 = 137;
/// Workers' clocks may run a little faster than this node's.
const SLACK_MS: u64 = 50;
const SIGKILL: i32 = 9;
/// How our own worker says that it takes no task now, which is not the task's fault.
const NOT_TAKEN: [&str; 2] = ["worker is full", "worker is stopping"];
/// As a shell says that a command was found and not run.
const NOT_RUN: i32 = 126;

/// What our own worker adds to a result of -1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// This signal ended it.
    Signal(i32),
    /// The worker stopped it at its limit.
    TimedOut,
    /// The worker stopped it because it was told to, or because it was stopped itself.
    Cancelled,
}

impl Marker {
    /// Reads a line, without its newline.
    pub(super) fn read(line: &str) -> Option<Self> {
        let text = line.strip_prefix("[starling: ")?.strip_suffix(']')?;
        match text {
            "timed out" => Some(Self::TimedOut),
            "cancelled" => Some(Self::Cancelled),
            _ => {
                let signal = text.strip_prefix("signal ")?.parse().ok()?;
                (1..=64).contains(&signal).then_some(Self::Signal(signal))
            }
        }
    }
}

/// What is known of a task whose result came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Its limit, if timeout(1) watches over it at the worker; 0 if not.
    pub(super) wrapped_ms: u64,
    /// From the assignment to the result.
    pub(super) wall_ms: u64,
    /// Whether the worker was told to stop it.
    pub(super) was_stopped: bool,
    /// Whether it is our own worker.
    pub(super) is_own: bool,
}

/// How the task ended. `reason` is what `reason` made of the result's stderr.
pub(super) fn read(exit_code: i32, reason: SmolStr, marker: Option<Marker>, known: Known) -> Outcome {
    let is_late = known.wrapped_ms > 0 && known.wall_ms + SLACK_MS >= known.wrapped_ms;
    if exit_code >= 0 {
        let by_timeout = matches!(exit_code, TIMEOUT_STOPPED | TIMEOUT_KILLED);
        return if is_late && by_timeout { Outcome::TimedOut } else { Outcome::Exit(exit_code) };
    }
    match marker {
        Some(Marker::Signal(signal)) => Outcome::Signal(signal),
        Some(Marker::TimedOut) => Outcome::TimedOut,
        Some(Marker::Cancelled) if known.was_stopped => Outcome::Cancelled,
        // Nobody here wanted that: the worker was stopped. The task is granted again.
        Some(Marker::Cancelled) => Outcome::Lost,
        None if known.is_own && NOT_TAKEN.contains(&reason.as_str()) => Outcome::Lost,
        None if reason.is_empty() => Outcome::Signal(SIGKILL),
        None => Outcome::NotStarted(NOT_RUN, reason),
    }
}

/// The beginning of what a worker says on why it could not start a task; empty if it says nothing.
pub(super) fn reason(stderr: &str) -> SmolStr {
    let text = stderr.trim();
    let end = (0..=REASON_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    SmolStr::new(text[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Known = Known { wrapped_ms: 0, wall_ms: 10_000, was_stopped: false, is_own: false };

    fn read(exit_code: i32, stderr: &str, marker: Option<Marker>, known: Known) -> Outcome {
        super::read(exit_code, reason(stderr), marker, known)
    }

    #[test]
    fn results_are_told_apart() {
        assert_eq!(read(0, "", None, PLAIN), Outcome::Exit(0));
        assert_eq!(read(3, "words", None, PLAIN), Outcome::Exit(3));
        assert_eq!(read(-1, "", None, PLAIN), Outcome::Signal(9));
        assert_eq!(read(-1, " \n", None, PLAIN), Outcome::Signal(9));
        assert_eq!(read(-7, "no such file\n", None, PLAIN), Outcome::NotStarted(126, "no such file".into()));
        let long = "ä".repeat(300);
        assert_eq!(read(-1, &long, None, PLAIN), Outcome::NotStarted(126, "ä".repeat(100).into()));
        assert_eq!(read(-1, "", Some(Marker::Signal(15)), PLAIN), Outcome::Signal(15));
        assert_eq!(read(-1, "", Some(Marker::TimedOut), PLAIN), Outcome::TimedOut);
        assert_eq!(read(-1, "", Some(Marker::Cancelled), PLAIN), Outcome::Lost);
        assert_eq!(read(-1, "worker is full", None, Known { is_own: true, ..PLAIN }), Outcome::Lost);
        assert!(matches!(read(-1, "worker is full", None, PLAIN), Outcome::NotStarted(..)));
        let stopped = Known { was_stopped: true, ..PLAIN };
        assert_eq!(read(-1, "", Some(Marker::Cancelled), stopped), Outcome::Cancelled);
    }

    #[test]
    fn the_code_of_timeout_counts_only_once_the_time_is_over() {
        let known = |wall_ms| Known { wrapped_ms: 1_000, wall_ms, was_stopped: false, is_own: false };
        assert_eq!(read(124, "", None, known(1_000)), Outcome::TimedOut);
        assert_eq!(read(137, "", None, known(6_000)), Outcome::TimedOut);
        assert_eq!(read(124, "", None, known(500)), Outcome::Exit(124));
        assert_eq!(read(137, "", None, known(500)), Outcome::Exit(137));
        assert_eq!(read(124, "", None, PLAIN), Outcome::Exit(124));
    }

    #[test]
    fn only_whole_lines_are_markers() {
        assert_eq!(Marker::read("[starling: signal 9]"), Some(Marker::Signal(9)));
        assert_eq!(Marker::read("[starling: timed out]"), Some(Marker::TimedOut));
        assert_eq!(Marker::read("[starling: cancelled]"), Some(Marker::Cancelled));
        for line in [
            "[starling: signal]",
            "[starling: signal 0]",
            "[starling: signal 999]",
            "x[starling: cancelled]",
            "",
            "[starling: cancelled] ",
        ] {
            assert_eq!(Marker::read(line), None, "{line}");
        }
    }
}
