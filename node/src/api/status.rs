//! Refusals: from what went wrong inside to a gRPC status, and from that to an HTTP answer.
//!
//! Invariants: this is the only place that chooses a status code; field names are those of the
//! protobuf file, whatever the namespace calls them.
//! Does not: log; a refusal is returned.

use std::time::Duration;

use axum::http::StatusCode;
use prost::Message as _;
use serde::Serialize;
use starling_core::facts::view::FindError;
use starling_core::limits;
use starling_core::machine::CommandError;
use starling_proto::v1::{ErrorDetail, FieldViolation};
use tonic::{Code, Status};

use crate::declare::TextError;
use crate::driver::Stopped;
use crate::relay::RelayError;

/// Longest excerpt of a wrong value.
const GOT_CHARS_MAX: usize = 80;

/// Why a call was refused. Nothing changed, unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// The driver is busy or gone.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A name that names nothing, or too much.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The Machine refused.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Wrong fields.
    #[error("{}", not_valid(.0))]
    Fields(Vec<FieldViolation>),
    /// A declaration that is none.
    #[error("{0}")]
    Text(#[from] TextError),
    /// A namespace, or a version of one, that is not known here.
    #[error("there is no namespace {0}")]
    UnknownNamespace(String),
    /// A declaration in too many bytes.
    #[error("the declaration takes {0} bytes; the limit is {max}", max = super::namespaces::TOML_BYTES_MAX)]
    TextTooLarge(usize),
    /// What does not fit into one event.
    #[error("{what} takes {bytes} bytes; a submission with all its fields may take {max}", max = limits::EVENT_BYTES_MAX)]
    TooLarge {
        /// Which field.
        what: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// Too many calls at once.
    #[error("this node serves as many calls as it can; try again in a moment")]
    Overloaded,
    /// The call took too long; what it asked for may still happen.
    #[error("not answered within {} s; it may still happen", .0.as_secs())]
    Deadline(Duration),
    /// The log on disk could not be read.
    #[error("cannot read the log: {0}")]
    History(String),
    /// A retired job of which nothing is kept here.
    #[error("the job is {0}")]
    Retired(String),
    /// What is asked for lies before what this node can tell.
    #[error("{0}")]
    TooOld(String),
    /// A log of another cluster.
    #[error("this is the log of cluster {theirs}, and this node belongs to cluster {ours}; nothing was imported")]
    OtherCluster {
        /// Whose log it is.
        theirs: String,
        /// Whose the node is.
        ours: String,
    },
    /// An answer that cannot be written, which only a local bug can bring about.
    #[error("cannot write the answer: {0}")]
    Json(String),
    /// No relay can be served here.
    #[error("this node takes no generators")]
    NoGenerators,
    /// The relay manager refused.
    #[error("generator `{gid}`: {reason}")]
    Generator {
        /// The generator.
        gid: String,
        /// Why.
        reason: String,
    },
    /// Not what is there by that name.
    #[error("{what} `{name}` is there already, as another: {reason}")]
    Taken {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: String,
        /// How they differ.
        reason: String,
    },
    /// A name or hash of no token.
    #[error("no token is called `{0}`, and no hash of one begins so")]
    UnknownToken(String),
    /// The gateway's workers could not be asked for.
    #[error("cannot list the gateway's workers: {0}")]
    Workers(String),
    /// The same job is being submitted, and its submission does not come to an end.
    #[error("job `{0}` is being submitted already; ask for it in a moment")]
    BeingSubmitted(String),
    /// The relays' manager refused.
    #[error(transparent)]
    Relay(RelayError),
    /// For callers on the Unix socket only.
    #[error("only a user of the node's own machine may ask for this, over its Unix socket")]
    NotHere,
    /// The reader of a stream has gone; nobody sees this.
    #[error("the reader has gone")]
    ReaderGone,
}

impl ApiError {
    /// One wrong field.
    pub(super) fn field(field: &str, expected: &str, got: &str) -> Self {
        Self::Fields(vec![violation(field, expected, got)])
    }
}

/// Names the fields, for clients that do not look at the details.
fn not_valid(wrong: &[FieldViolation]) -> String {
    let fields: Vec<&str> = wrong.iter().map(|wrong| wrong.field.as_str()).collect();
    format!("the request is not valid: {}", fields.join(", "))
}

/// A wrong field, with what was sent shortened.
pub(super) fn violation(field: &str, expected: &str, got: &str) -> FieldViolation {
    let mut shown: String = got.chars().take(GOT_CHARS_MAX).collect();
    if shown.len() < got.len() {
        shown.push('…');
    }
    FieldViolation { field: field.to_owned(), expected: expected.to_owned(), got: shown, line: 0, column: 0 }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let message = error.to_string();
        match error {
            ApiError::Stopped(_) => refusal(Code::Unavailable, message, "", vec![]),
            ApiError::Overloaded | ApiError::NoGenerators | ApiError::BeingSubmitted(_) => {
                refusal(Code::Unavailable, message, "", vec![])
            }
            ApiError::Generator { .. } | ApiError::Taken { .. } => {
                refusal(Code::FailedPrecondition, message, "", vec![])
            }
            ApiError::Json(_) => Self::internal(message),
            ApiError::Find(error) => of_find(&error, message),
            ApiError::Command(error) => of_command(error, message),
            ApiError::Fields(wrong) => refusal(Code::InvalidArgument, message, "", wrong),
            ApiError::Text(error) => {
                let place = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
                let wrong = violation("toml", &error.reason, &error.text);
                let wrong = FieldViolation { line: place(error.line), column: place(error.column), ..wrong };
                refusal(Code::InvalidArgument, message, "", vec![wrong])
            }
            ApiError::UnknownNamespace(_) => {
                let hint = "list the namespaces with `starling ns list`; one registered elsewhere a moment ago may not have arrived here";
                refusal(Code::NotFound, message, hint, vec![])
            }
            ApiError::Retired(_) => refusal(Code::NotFound, message, "", vec![]),
            ApiError::UnknownToken(_) => {
                let hint = "list them with `starling gateway token list`";
                refusal(Code::NotFound, message, hint, vec![])
            }
            ApiError::Workers(_) => refusal(Code::Unavailable, message, "see `starling gateway status`", vec![]),
            ApiError::TextTooLarge(_) => refusal(Code::ResourceExhausted, message, "", vec![]),
            ApiError::TooLarge { .. } => refusal(Code::ResourceExhausted, message, INTO_FILES, vec![]),
            ApiError::Deadline(_) => refusal(Code::DeadlineExceeded, message, "", vec![]),
            ApiError::History(_) => {
                let hint = "look at the node's own log, or ask another node with --via";
                refusal(Code::DataLoss, message, hint, vec![])
            }
            ApiError::TooOld(_) => refusal(
                Code::OutOfRange,
                message,
                "ask a node that runs with --archive: it keeps its whole log",
                vec![],
            ),
            ApiError::OtherCluster { .. } => {
                let hint = "import it at a node that has that cluster's secret; logs of two clusters cannot be merged";
                refusal(Code::FailedPrecondition, message, hint, vec![])
            }
            ApiError::Relay(error) => of_relay(&error, message),
            ApiError::NotHere => {
                let hint = "run `starling down` on that machine, or stop the process";
                refusal(Code::PermissionDenied, message, hint, vec![])
            }
            ApiError::ReaderGone => Self::cancelled(message),
        }
    }
}

const INTO_FILES: &str = "put large inputs into files that every node can read";

fn of_find(error: &FindError, message: String) -> Status {
    match error {
        FindError::UnknownJob(_) => {
            let hint = "list the jobs with `starling jobs --all`; \
                        one submitted elsewhere a moment ago may not have arrived here";
            refusal(Code::NotFound, message, hint, vec![])
        }
        FindError::UnknownNode(_) => {
            let hint = "list the nodes with `starling nodes`";
            refusal(Code::NotFound, message, hint, vec![])
        }
        FindError::Ambiguous(got, could_be) => {
            let expected = format!("one of {could_be}");
            let wrong = vec![violation("job", &expected, got)];
            refusal(Code::InvalidArgument, message, "write more of it", wrong)
        }
    }
}

fn of_relay(error: &RelayError, message: String) -> Status {
    match error {
        RelayError::Stopped(_) => refusal(Code::Unavailable, message, "", vec![]),
        RelayError::Unknown(_) => refusal(Code::NotFound, message, "", vec![]),
        RelayError::Field { .. } => refusal(Code::InvalidArgument, message, "", vec![]),
        RelayError::TooMany
        | RelayError::TakenOver(_)
        | RelayError::Foreign(_)
        | RelayError::NotYours(_)
        | RelayError::Command(_) => refusal(Code::FailedPrecondition, message, "", vec![]),
    }
}

fn of_command(error: CommandError, message: String) -> Status {
    match error {
        CommandError::UnknownNamespace(ns, known) => {
            let wrong = vec![violation("ns", &format!("one of {known}"), &ns)];
            refusal(Code::InvalidArgument, message, "", wrong)
        }
        CommandError::NoJobs(ns) => {
            let wrong = vec![violation("ns", "a namespace with jobs, such as batch", &ns)];
            refusal(Code::InvalidArgument, message, "", wrong)
        }
        CommandError::Schema(error) => {
            let field = proto_field(&error.field);
            let wrong = vec![violation(field, &error.expected, &error.found)];
            // Both have their type from the protobuf message, so only their size can be wrong.
            if matches!(field, "stdin" | "each_line") {
                let message = format!("{field} is too large: expected {}, got {}", error.expected, error.found);
                return refusal(Code::ResourceExhausted, message, INTO_FILES, wrong);
            }
            refusal(Code::InvalidArgument, not_valid(&wrong), "", wrong)
        }
        CommandError::Tasks(count) => {
            let expected = format!("1 to {} tasks", limits::TASKS_MAX);
            let wrong = vec![violation("array", &expected, &count.to_string())];
            refusal(Code::InvalidArgument, not_valid(&wrong), "", wrong)
        }
        CommandError::TooLarge(_) => refusal(Code::ResourceExhausted, message, INTO_FILES, vec![]),
        CommandError::Busy(_) | CommandError::DiskRefuses(_) | CommandError::ShuttingDown => {
            refusal(Code::Unavailable, message, "", vec![])
        }
        CommandError::UnknownToken | CommandError::UnknownNode => refusal(Code::NotFound, message, "", vec![]),
        CommandError::UnknownJob => refusal(Code::NotFound, message, "", vec![]),
        CommandError::Declaration(error) => {
            let place = if error.place.is_empty() { "declaration".to_owned() } else { error.place.join(".") };
            let wrong = vec![violation(&place, &error.expected, &error.found)];
            refusal(Code::InvalidArgument, message, "", wrong)
        }
        CommandError::Event(_) | CommandError::NotASubmission { .. } => {
            refusal(Code::InvalidArgument, message, "see `starling ns describe` for what it takes", vec![])
        }
        CommandError::VersionTaken { .. }
        | CommandError::TooManyNamespaces(_)
        | CommandError::TooManyTokens(_)
        | CommandError::NodeLives(_)
        | CommandError::NotHeld
        | CommandError::AlreadyFinished => refusal(Code::FailedPrecondition, message, "", vec![]),
        CommandError::NotForAnyone(_) => refusal(Code::PermissionDenied, message, "", vec![]),
    }
}

/// The name in the protobuf file of a field of namespaces `batch` and `simulation`.
fn proto_field(field: &str) -> &str {
    match field {
        "cpu" => "cpus_milli",
        "memory" => "mem_bytes",
        "lines" => "each_line",
        "request" => "request_id",
        "env_cmd" => "simulation.env_command",
        "policy_cmd" => "simulation.policy_command",
        "port_wait_ms" => "simulation.port_wait_ms",
        same => same,
    }
}

fn refusal(code: Code, message: String, hint: &str, violations: Vec<FieldViolation>) -> Status {
    if hint.is_empty() && violations.is_empty() {
        return Status::new(code, message);
    }
    let detail = ErrorDetail { hint: hint.to_owned(), violations };
    Status::with_details(code, message, detail.encode_to_vec().into())
}

/// A failed call as JSON.
#[derive(Debug, Serialize)]
pub(super) struct HttpRefusal {
    error: String,
    hint: String,
    violations: Vec<FieldViolation>,
}

/// The HTTP answer that says the same as `status`.
pub(super) fn http(status: &Status) -> (StatusCode, HttpRefusal) {
    let code = match status.code() {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::PAYLOAD_TOO_LARGE,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let detail = ErrorDetail::decode(status.details()).unwrap_or_default();
    let refusal = HttpRefusal { error: status.message().to_owned(), hint: detail.hint, violations: detail.violations };
    (code, refusal)
}

/// An HTTP request that never reached the API.
pub(super) fn http_refusal(error: String) -> HttpRefusal {
    HttpRefusal { error, hint: String::new(), violations: vec![] }
}
