//! Refusals: from what went wrong inside to the status that a caller of the worker protocol sees.
//!
//! Invariants: this is the only place that chooses a code for what the Machine refuses; fields have the names of `hwp.proto`.
//! Does not: log; a refusal is returned.

use starling_core::facts::view::FindError;
use starling_core::machine::CommandError;
use tonic::Status;

use crate::driver::Stopped;

/// Longest excerpt of a wrong value.
const GOT_CHARS_MAX: usize = 80;

/// One wrong field of a request.
pub(super) fn field(name: &str, expected: &str, got: &str) -> Status {
    let mut shown: String = got.chars().take(GOT_CHARS_MAX).collect();
    if shown.len() < got.len() {
        shown.push('…');
    }
    Status::invalid_argument(format!("{name}: expected {expected}, got `{}`", shown.escape_debug()))
}

/// The driver cannot answer.
pub(super) fn stopped(stopped: Stopped) -> Status {
    Status::unavailable(stopped.to_string())
}

/// A name that names no job, or too many.
pub(super) fn unknown(error: &FindError) -> Status {
    match error {
        FindError::UnknownJob(_) | FindError::UnknownNode(_) => Status::not_found(format!(
            "{error}; one submitted elsewhere a moment ago may not have arrived here (`starling jobs --all` lists them)"
        )),
        FindError::Ambiguous(..) => Status::invalid_argument(format!("{error}; write more of it")),
    }
}

/// The job's owner does not know it.
pub(super) fn no_such_job() -> Status {
    Status::not_found("the node that owns this job does not know it; look for it with `starling jobs --all`")
}

/// The Machine refused.
pub(super) fn command(error: &CommandError) -> Status {
    match error {
        CommandError::Schema(wrong) => field(proto_field(&wrong.field), &wrong.expected, &wrong.found),
        CommandError::TooLarge(_) => Status::resource_exhausted(error.to_string()),
        // Another node, or this one in a moment, may take it.
        CommandError::Busy(_) | CommandError::DiskRefuses(_) | CommandError::ShuttingDown => {
            Status::unavailable(error.to_string())
        }
        CommandError::UnknownJob => Status::not_found(error.to_string()),
        CommandError::AlreadyFinished => Status::failed_precondition(error.to_string()),
        CommandError::UnknownNamespace(..)
        | CommandError::NoJobs(_)
        | CommandError::Tasks(_)
        | CommandError::Declaration(_)
        | CommandError::VersionTaken { .. }
        | CommandError::TooManyNamespaces(_)
        | CommandError::Event(_)
        | CommandError::NotASubmission { .. }
        | CommandError::UnknownNode
        | CommandError::NodeLives(_)
        | CommandError::UnknownToken
        | CommandError::TooManyTokens(_)
        | CommandError::NotHeld
        | CommandError::NotForAnyone(_) => Status::internal(error.to_string()),
    }
}

/// The name in `hwp.proto` of a field of namespace `batch`.
fn proto_field(field: &str) -> &str {
    match field {
        "alias" => "job_id",
        same => same,
    }
}
