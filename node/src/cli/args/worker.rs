//! `hwp-worker`: the flags of a worker.
//!
//! Invariants: as in `args`; a token in the environment is shown nowhere.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// What `hwp-worker --help` begins with.
pub(super) const ABOUT: &str = "Run jobs on this machine for any server that speaks HWP, the Hodei worker protocol: a Starling node, or another.

The worker connects to the server, says what this machine can do, and runs what it is given until it is stopped with Ctrl-C or SIGTERM. It connects again by itself, \
    and keeps results until the server has them.

Example: starling hwp-worker --server http://127.0.0.1:50051 --capability docker --slots 4";

/// Flags of `hwp-worker`.
#[derive(Debug, Clone, Args)]
pub struct HwpWorkerArgs {
    /// Where jobs come from: http://HOST:PORT, or https:// with --ca; repeat it to name others to turn to when one is gone
    #[arg(long = "server", value_name = "URL", required = true)]
    pub servers: Vec<String>,
    /// The token that the server expects; better in STARLING_HWP_TOKEN or --token-file, where `ps` does not show it
    #[arg(long, value_name = "TOKEN", env = "STARLING_HWP_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File that holds the token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Name of this worker at the server, where no other may have it [default: this host's with a few digits, kept in --dir]
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// A label that jobs may ask for, for example gpu=2; docker or podman also lets jobs run in images; may be repeated
    #[arg(long = "capability", value_name = "LABEL")]
    pub capabilities: Vec<String>,
    /// How many jobs run at once [default: one for each CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub slots: Option<u16>,
    /// Directory of this worker alone, for output and results [default: the first free hwp-worker-K under ~/.local/state/starling]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Certificate (PEM) of the authority that vouches for the server
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// This worker's own certificate (PEM), for servers that ask for one
    #[arg(long, value_name = "FILE", requires_all = ["key", "ca"])]
    pub cert: Option<PathBuf>,
    /// The key (PEM) of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Have the server call this worker at IP:PORT, instead of holding a stream to it; for servers of the first HWP
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// error, warn, info, debug, trace, or a filter such as warn,starling_node=debug
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub log_level: String,
}
