//! From how a process ended, and why, to what the protocol can say of it.
//!
//! Invariants: exit code -1 has text in `stderr` exactly when no process ran; what else it means is in `note` (see the module's header).

use crate::exec::End;

/// Why a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// By itself, or by somebody who is not this worker.
    Itself,
    /// Its time was up.
    TimedOut,
    /// The server wanted it.
    Cancelled,
    /// The worker stops.
    Stopped,
}

/// What the result says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) exit_code: i32,
    pub(super) stderr: Stderr,
    /// The last line of log.
    pub(super) note: Option<String>,
}

/// What stands in the result's `stderr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stderr {
    /// What the process wrote.
    Own,
    /// Nothing: that is how the protocol says "killed".
    Empty,
    /// Why there was no process.
    Reason(String),
}

/// The signal of a gentle kill.
const SIGTERM: i32 = 15;

impl Outcome {
    /// No process ran, for this reason.
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self { exit_code: -1, stderr: Stderr::Reason(reason.into()), note: None }
    }

    /// A process was killed, or never came to start, for `cause`.
    fn killed(what: &str) -> Self {
        Self { exit_code: -1, stderr: Stderr::Empty, note: Some(format!("[starling: {what}]")) }
    }

    pub(super) fn of(end: End, cause: Cause) -> Self {
        match (cause, end) {
            (Cause::TimedOut, _) => Self::killed("timed out"),
            (Cause::Cancelled, _) => Self::killed("cancelled"),
            // Whatever it made of the signal, it was not left to finish.
            (Cause::Stopped, End::Exit(_) | End::NotStarted { .. } | End::EnvLost { .. }) => {
                Self::killed(&format!("signal {SIGTERM}"))
            }
            (Cause::Itself | Cause::Stopped, End::Signal(signal)) => Self::killed(&format!("signal {signal}")),
            (Cause::Itself, End::Exit(exit_code)) => Self { exit_code, stderr: Stderr::Own, note: None },
            (Cause::Itself, End::NotStarted { reason, .. } | End::EnvLost { reason }) => Self::refused(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_words() {
        let not_started = || End::NotStarted { code: 127, reason: "command not found: x".to_owned() };
        let cases = [
            (End::Exit(3), Cause::Itself, 3, Stderr::Own, None),
            (End::Signal(9), Cause::Itself, -1, Stderr::Empty, Some("[starling: signal 9]")),
            (not_started(), Cause::Itself, -1, Stderr::Reason("command not found: x".to_owned()), None),
            (End::Signal(15), Cause::TimedOut, -1, Stderr::Empty, Some("[starling: timed out]")),
            (End::Exit(0), Cause::TimedOut, -1, Stderr::Empty, Some("[starling: timed out]")),
            (End::Exit(0), Cause::Cancelled, -1, Stderr::Empty, Some("[starling: cancelled]")),
            (not_started(), Cause::Cancelled, -1, Stderr::Empty, Some("[starling: cancelled]")),
            (End::Signal(9), Cause::Stopped, -1, Stderr::Empty, Some("[starling: signal 9]")),
            (End::Exit(0), Cause::Stopped, -1, Stderr::Empty, Some("[starling: signal 15]")),
        ];
        for (end, cause, exit_code, stderr, note) in cases {
            let outcome = Outcome { exit_code, stderr, note: note.map(str::to_owned) };
            assert_eq!(Outcome::of(end.clone(), cause), outcome, "{end} {cause:?}");
        }
    }
}
