//! What can go wrong in the client, and the exit code of each case and each job.
//!
//! Invariants: this is the only place that turns a failed call or a job's ending into an exit code:
//! 2 usage, 69 no daemon, 124 timed out, 125 cancelled, 75 lost, else the job's own code.
//! Does not: print.

use std::io;
use std::path::PathBuf;

use prost::Message as _;
use starling_proto::v1::{Ending, ErrorDetail, JobState, JobSummary};
use tonic::{Code, Status};

/// Nothing went wrong.
pub(crate) const EXIT_OK: u8 = 0;
/// A refusal with no code of its own, or a failed job whose code is not known.
pub(crate) const EXIT_FAILURE: u8 = 1;
/// The command line or a value in it is wrong.
pub(crate) const EXIT_USAGE: u8 = 2;
/// No node answers (`EX_UNAVAILABLE`).
pub(crate) const EXIT_NO_DAEMON: u8 = 69;
/// The outcome is lost (`EX_TEMPFAIL`: submitting again may help).
pub(crate) const EXIT_LOST: u8 = 75;
/// A time limit ran out, as for timeout(1).
pub(crate) const EXIT_TIMEOUT: u8 = 124;
/// The job was cancelled.
pub(crate) const EXIT_CANCELLED: u8 = 125;
/// The user left with Ctrl-C (128 + SIGINT).
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// Why a verb ended without doing what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A value that only the verb could check.
    #[error("{message}")]
    Usage { message: String, hint: String },
    /// No node could be reached; nothing was asked of any.
    #[error("{message}")]
    NoDaemon { message: String, hint: String },
    /// The node answered with an error, or the link broke in a call.
    #[error("{}", refusal(.0))]
    Refused(#[from] Box<Status>),
    /// The node did not answer in time; whether it acted is not known.
    #[error("the node did not answer within {seconds} s")]
    Silent { seconds: u64 },
    /// A stream ended before its last message.
    #[error("the node closed the stream too early")]
    CutShort,
    /// A file named on the command line.
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// Something that was looked at or asked for is not as it should be.
    #[error("{message}")]
    Failed { message: String, hint: String },
    /// A file that cannot be written; what was there is as it was.
    #[error("cannot write {}: {source}", path.display())]
    WriteFile { path: PathBuf, source: io::Error },
    /// Writing to stdout or stderr failed.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// The asynchronous runtime could not start.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl CliError {
    /// True when the reader of the output went away: not worth a word.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// True when another node may still answer.
    pub(crate) fn is_link_loss(&self) -> bool {
        match self {
            Self::Refused(status) => link_lost(status),
            Self::NoDaemon { .. } | Self::CutShort => true,
            Self::Usage { .. }
            | Self::Silent { .. }
            | Self::File { .. }
            | Self::Failed { .. }
            | Self::WriteFile { .. }
            | Self::Output(_)
            | Self::Runtime(_) => false,
        }
    }

    /// True when the node does not know what was asked for.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == Code::NotFound)
    }

    /// This error, with the name of what the refusal is about before it.
    pub(crate) fn about(self, name: &str) -> Self {
        match self {
            Self::Refused(status) if status.code() == Code::InvalidArgument => {
                let details = status.details().to_vec();
                let message = format!("{name}: {}", status.message());
                Status::with_details(status.code(), message, details.into()).into()
            }
            other @ (Self::Usage { .. }
            | Self::NoDaemon { .. }
            | Self::Refused(_)
            | Self::Silent { .. }
            | Self::CutShort
            | Self::File { .. }
            | Self::Failed { .. }
            | Self::WriteFile { .. }
            | Self::Output(_)
            | Self::Runtime(_)) => other,
        }
    }

    /// What to do next; may be empty.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Usage { hint, .. } | Self::NoDaemon { hint, .. } | Self::Failed { hint, .. } => hint.clone(),
            Self::Refused(status) => {
                let hint = detail(status).hint;
                if !hint.is_empty() {
                    return hint;
                }
                match status.code() {
                    Code::NotFound => "list the jobs with `starling jobs --all`".to_owned(),
                    Code::Unavailable => "look for nodes with `starling nodes`, or ask another \
                                          one with --via"
                        .to_owned(),
                    _ => String::new(),
                }
            }
            Self::Silent { .. } | Self::CutShort => "look at its log, or ask another node with --via".to_owned(),
            Self::File { .. } | Self::WriteFile { .. } | Self::Output(_) | Self::Runtime(_) => String::new(),
        }
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } | Self::File { .. } => EXIT_USAGE,
            Self::NoDaemon { .. } | Self::Silent { .. } | Self::CutShort => EXIT_NO_DAEMON,
            Self::Refused(status) => match status.code() {
                Code::InvalidArgument | Code::OutOfRange => EXIT_USAGE,
                Code::Unavailable | Code::DeadlineExceeded => EXIT_NO_DAEMON,
                _ => EXIT_FAILURE,
            },
            Self::Output(_) if self.is_closed_pipe() => EXIT_OK,
            Self::Failed { .. } | Self::WriteFile { .. } | Self::Output(_) | Self::Runtime(_) => EXIT_FAILURE,
        }
    }
}

/// True when the status speaks of the link rather than of the request.
pub(crate) fn link_lost(status: &Status) -> bool {
    // A link that breaks inside a stream surfaces as Unknown or Cancelled with a transport source.
    let broken = std::error::Error::source(status).is_some();
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Cancelled | Code::Internal => broken,
        _ => false,
    }
}

fn detail(status: &Status) -> ErrorDetail {
    ErrorDetail::decode(status.details()).unwrap_or_default()
}

fn refusal(status: &Status) -> String {
    let mut text = if link_lost(status) && std::error::Error::source(status).is_some() {
        "the link to the node broke".to_owned()
    } else if status.message().is_empty() {
        status.code().description().to_owned()
    } else {
        status.message().to_owned()
    };
    // Where a text is wrong, the message shows the place.
    for wrong in detail(status).violations.into_iter().filter(|wrong| wrong.line == 0) {
        text.push_str(&format!("\n  {}: expected {}, got {}", wrong.field, wrong.expected, wrong.got));
    }
    text
}

/// The exit code that stands for a job that has ended.
pub(crate) fn job_exit_code(job: &JobSummary) -> u8 {
    match job.state() {
        JobState::Done => return EXIT_OK,
        JobState::Cancelled => return EXIT_CANCELLED,
        JobState::Lost => return EXIT_LOST,
        JobState::Failed | JobState::Pending | JobState::Running | JobState::Unknown => {}
    }
    match job.ending() {
        Ending::TimedOut => EXIT_TIMEOUT,
        Ending::Cancelled => EXIT_CANCELLED,
        Ending::Lost => EXIT_LOST,
        Ending::None | Ending::Exited | Ending::Signalled | Ending::NotStarted | Ending::Broke => {
            match job.exit.map(u8::try_from) {
                Some(Ok(EXIT_OK)) | None => EXIT_FAILURE,
                Some(Ok(code)) => code,
                Some(Err(_outside)) => u8::MAX,
            }
        }
    }
}
