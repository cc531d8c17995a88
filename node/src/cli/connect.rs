//! Finds a node and opens the one connection of this process to it.
//!
//! Invariants: without `--via` the lowest-numbered node of this host whose socket accepts is taken;
//! every unary call has a deadline; a silent TCP peer is noticed by keep-alive.
//! Does not: retry a call. Verbs that only watch may open again (`reopen`).

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use starling_proto::v1::starling_client::StarlingClient;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};
use tower::service_fn;

use super::error::CliError;

/// Deadline of opening a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Deadline of one unary call: above the time in which a node gives up asking another one.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_DEADLINE: Duration = Duration::from_secs(10);
/// Replies with many jobs exceed the default of 4 MiB.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// Node directories looked at on one host.
const LOCAL_NODES_MAX: usize = 1_000;

const SOCKET_FILE: &str = "api.sock";
const NAME_FILE: &str = "name";

/// A client of one node.
pub(crate) type Client = StarlingClient<Channel>;

/// What `--via` selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The first node of this host that accepts.
    AnyLocal,
    /// Node number k of this host.
    Number(u32),
    /// A node of this host by name.
    Name(String),
    /// A socket.
    Socket(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl Target {
    /// Reads the value of `--via`.
    pub(crate) fn parse(via: Option<&str>) -> Self {
        let Some(via) = via.filter(|via| !via.is_empty()) else {
            return Self::AnyLocal;
        };
        if let Some(address) = via.strip_prefix("http://") {
            return Self::Tcp(address.trim_end_matches('/').to_owned());
        }
        if via.contains('/') {
            return Self::Socket(PathBuf::from(via));
        }
        if via.contains(':') {
            return Self::Tcp(via.to_owned());
        }
        via.parse().map_or_else(|_not_a_number| Self::Name(via.to_owned()), Self::Number)
    }
}

/// Where nodes of this user keep their state: `$STARLING_HOME`, else under `$XDG_STATE_HOME`, else
/// under `~/.local/state`.
pub fn base_dir() -> PathBuf {
    let variable = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty());
    if let Some(home) = variable("STARLING_HOME") {
        return PathBuf::from(home);
    }
    if let Some(state) = variable("XDG_STATE_HOME") {
        return PathBuf::from(state).join("starling");
    }
    let home = variable("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    home.join(".local/state/starling")
}

/// Opens a connection to the selected node.
///
/// # Errors
/// `NoDaemon` when nothing accepts; `Usage` when `--via` names nothing that exists.
pub(crate) async fn open(target: &Target) -> Result<Client, CliError> {
    let channel = match target {
        Target::Tcp(address) => open_tcp(address).await?,
        Target::Socket(path) => {
            let path = if path.is_dir() { path.join(SOCKET_FILE) } else { path.clone() };
            open_socket(path).await?
        }
        Target::Number(number) => open_socket(base_dir().join(format!("node-{number}")).join(SOCKET_FILE)).await?,
        Target::Name(name) => open_socket(find_by_name(&base_dir(), name)?).await?,
        Target::AnyLocal => {
            let base = base_dir();
            let (stream, path) = first_accepting(&base).ok_or_else(|| none_answers(&base))?;
            over_unix(Some(stream), path).await?
        }
    };
    Ok(StarlingClient::new(channel).max_decoding_message_size(REPLY_BYTES_MAX))
}

/// Opens again after the link broke, for verbs that only watch: the same target may now lead to
/// another node.
///
/// # Errors
/// The last error of `open`, once `deadline` has passed.
pub(crate) async fn reopen(target: &Target, deadline: Instant) -> Result<Client, CliError> {
    loop {
        sleep(REOPEN_PAUSE).await;
        match open(target).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_not_yet) => {}
        }
    }
}

/// Makes one unary call within the deadline.
///
/// # Errors
/// The call's own status, or `Silent`.
pub(crate) async fn call<T>(request: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CliError> {
    match timeout(CALL_DEADLINE, request).await {
        Ok(reply) => Ok(reply?.into_inner()),
        Err(_elapsed) => Err(CliError::Silent { seconds: CALL_DEADLINE.as_secs() }),
    }
}

fn endpoint(uri: Uri) -> Endpoint {
    Endpoint::from(uri)
        .connect_timeout(CONNECT_DEADLINE)
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_DEADLINE)
}

async fn open_tcp(address: &str) -> Result<Channel, CliError> {
    let uri = Uri::builder().scheme("http").authority(address).path_and_query("/").build().map_err(|error| {
        CliError::Usage {
            message: format!("--via {address}: {error}"),
            hint: "write HOST:PORT, a node's name, its number, or the path of its socket".to_owned(),
        }
    })?;
    endpoint(uri).connect().await.map_err(|error| CliError::NoDaemon {
        message: format!("no starling node answers at {address}: {}", innermost(&error)),
        hint: "check the address with `starling cluster info` on that machine".to_owned(),
    })
}

async fn open_socket(path: PathBuf) -> Result<Channel, CliError> {
    match StdUnixStream::connect(&path) {
        Ok(stream) => over_unix(Some(stream), path).await,
        Err(error) => Err(CliError::NoDaemon {
            message: format!("no starling node answers at {}: {error}", path.display()),
            hint: "start one with `starling up`, or leave out --via to ask any node here".to_owned(),
        }),
    }
}

/// HTTP/2 over the stream that is open already, or over a new one if it was used up.
async fn over_unix(stream: Option<StdUnixStream>, path: PathBuf) -> Result<Channel, CliError> {
    let mut first = stream;
    let shown = path.clone();
    let connector = service_fn(move |_uri: Uri| {
        let (ready, path) = (first.take(), path.clone());
        async move {
            let stream = match ready {
                Some(stream) => {
                    stream.set_nonblocking(true)?;
                    UnixStream::from_std(stream)?
                }
                None => UnixStream::connect(path).await?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    endpoint(Uri::from_static("http://starling.local")).connect_with_connector(connector).await.map_err(|error| {
        CliError::NoDaemon {
            message: format!("the node at {} does not answer: {}", shown.display(), innermost(&error)),
            hint: "look at its log, or ask another node with --via".to_owned(),
        }
    })
}

/// Node directories under `base`, by ascending number.
pub(crate) fn local_nodes(base: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(base)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("node-")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .take(LOCAL_NODES_MAX)
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

fn first_accepting(base: &Path) -> Option<(StdUnixStream, PathBuf)> {
    local_nodes(base).into_iter().find_map(|dir| {
        let path = dir.join(SOCKET_FILE);
        StdUnixStream::connect(&path).ok().map(|stream| (stream, path))
    })
}

fn find_by_name(base: &Path, name: &str) -> Result<PathBuf, CliError> {
    let mut names = Vec::new();
    for dir in local_nodes(base) {
        let Ok(found) = fs::read_to_string(dir.join(NAME_FILE)) else {
            continue;
        };
        if found.trim() == name {
            return Ok(dir.join(SOCKET_FILE));
        }
        names.push(found.trim().to_owned());
    }
    Err(CliError::NoDaemon {
        message: format!("no starling node named {name} under {}", base.display()),
        hint: if names.is_empty() {
            "start one with `starling up`, or give --via HOST:PORT of another machine".to_owned()
        } else {
            format!("nodes here: {}; for another machine give --via HOST:PORT", names.join(", "))
        },
    })
}

fn none_answers(base: &Path) -> CliError {
    CliError::NoDaemon {
        message: format!("no starling node answers under {}", base.display()),
        hint: "start one with `starling up`".to_owned(),
    }
}

/// The deepest cause: transport errors say little above it.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
