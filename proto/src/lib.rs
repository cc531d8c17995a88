//! Starling's protobuf messages and services, generated from `proto/`.
//!
//! Invariants: every message of `v1` also has a JSON form (serde) with the same field names, in which enum
//! values are lower-case words; request fields that nobody knows are an error in JSON.
//! Does not: depend on any other Starling crate, or hold logic beyond words for enum values.

pub mod json;

/// The API of a node: `starling.v1`.
pub mod v1 {
    tonic::include_proto!("starling.v1");
}

/// The worker protocol: `hwp`.
pub mod hwp {
    tonic::include_proto!("hwp");
}

/// A value of a protobuf enum that people read and write as a word.
pub trait Word: Sized + Copy + 'static {
    /// All values with their words, in ascending order.
    const WORDS: &'static [(Self, &'static str)];

    /// The lower-case word for this value.
    fn word(self) -> &'static str;

    /// The value for a word, whatever its case; `None` for an unknown word.
    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, known)| known.eq_ignore_ascii_case(word)).map(|(value, _)| *value)
    }
}

macro_rules! words {
    ($kind:ident { $($value:ident = $word:literal),+ $(,)? }) => {
        impl Word for v1::$kind {
            const WORDS: &'static [(Self, &'static str)] = &[$((Self::$value, $word)),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$value => $word),+
                }
            }
        }
    };
}

words!(AckLevel { Default = "default", Local = "local", Remote1 = "remote1" });
words!(JobState {
    Unknown = "unknown",
    Pending = "pending",
    Running = "running",
    Done = "done",
    Failed = "failed",
    Cancelled = "cancelled",
    Lost = "lost",
});
words!(Ending {
    None = "none",
    Exited = "exited",
    Signalled = "signalled",
    TimedOut = "timed_out",
    Cancelled = "cancelled",
    NotStarted = "not_started",
    Lost = "lost",
    Broke = "broke",
});
words!(LogStream {
    Unknown = "unknown",
    Out = "out",
    Err = "err",
    EnvOut = "env_out",
    EnvErr = "env_err",
    Pushed = "pushed",
});
words!(NodeState {
    Unknown = "unknown",
    Ready = "ready",
    Suspect = "suspect",
    Down = "down",
    Closed = "closed",
});
words!(WorkerState { Unknown = "unknown", Ready = "ready", Full = "full", Away = "away" });
words!(CheckState { Unknown = "unknown", Ok = "ok", Warn = "warn", Fail = "fail" });

#[cfg(test)]
mod tests;
