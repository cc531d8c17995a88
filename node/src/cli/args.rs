//! The command line: every verb, flag and default of the binary.
//!
//! Invariants: an unknown flag or verb is a usage error (exit code 2); values are checked here, so
//! the verbs receive typed ones. Flags of `up` stay optional, because the configuration file and
//! the environment come after them.
//! Does not: read the environment for `up` (the configuration does), connect, or print.

mod down;
mod gateway;
mod hwp;
mod log;
mod sim;
mod task;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub use down::{DownArgs, SuperviseArgs};
pub use gateway::{GatewayVerb, TokenAddArgs, TokenRevokeArgs, TokenVerb};
pub use hwp::{HwpArgs, HwpAt};
pub use log::{LogDiffArgs, LogExportArgs, LogImportArgs, LogVerb, LogVerifyArgs};
pub use sim::{PairArgs, SimRunArgs, SimSubmitArgs, SimVerb};
use starling_proto::Word;
use starling_proto::v1::JobState;
pub use task::{Ack, DemandArgs, ManyArgs, RunArgs, SubmitArgs, TaskArgs};
pub use worker::HwpWorkerArgs;

use super::units::{CpusMilli, MemBytes, Millis, Moment, parse_label};

/// How long nodes remember readings.
const PAST_MS_MAX: u64 = 3_600_000;
/// No cursor is shorter.
const CURSOR_CHARS_MIN: usize = 20;

/// A batch cluster with no head node: start `starling up` on every machine, submit to any.
#[derive(Debug, Parser)]
#[command(name = "starling", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub options: ClientOptions,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags that every client verb understands.
#[derive(Debug, Clone, Default, Args)]
pub struct ClientOptions {
    /// Ask this node: its name or number on this host, HOST:PORT, or the path of its socket
    #[arg(long, global = true, value_name = "NODE", env = "STARLING_VIA")]
    pub via: Option<String>,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// No footer and no notes on stderr
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a node here; it finds the others by itself
    Up(UpArgs),
    /// Stop a node of this machine; the tasks that run there go on
    Down(DownArgs),
    /// Hand a job to the cluster
    Submit(SubmitArgs),
    /// Run one command somewhere and stream its output here; exits with its code
    Run(RunArgs),
    /// Run simulations: an env that listens on a port, and a policy that is told which
    #[command(subcommand)]
    Sim(SimVerb),
    /// List jobs
    Jobs(JobsArgs),
    /// Look at one job
    #[command(subcommand)]
    Job(JobVerb),
    /// Print the output of a job
    Logs(LogsArgs),
    /// Wait until jobs end; exits with the highest of their codes
    Wait(WaitArgs),
    /// Stop jobs
    Cancel(CancelArgs),
    /// List nodes, and the workers of their gateway
    Nodes(NodesArgs),
    /// Look at one node
    #[command(subcommand)]
    Node(NodeVerb),
    /// Watch all nodes and what runs on them; Ctrl-C ends it
    Top(TopArgs),
    /// List the relays of the answering node: programs outside that run tasks
    Relays,
    /// Run jobs on this machine for any server that speaks HWP, the Hodei worker protocol
    #[command(long_about = worker::ABOUT)]
    HwpWorker(Box<HwpWorkerArgs>),
    /// Look at the gateway to workers from outside, and say who may come in
    #[command(subcommand)]
    Gateway(GatewayVerb),
    /// Print the shared log
    Events(EventsArgs),
    /// Check, carry and compare the signed log, for clusters whose nodes cannot meet
    #[command(subcommand)]
    Log(LogVerb),
    /// Print what is known of jobs as JSON lines, whole or since a cursor
    Facts(FactsArgs),
    /// Declare namespaces and look at them
    #[command(subcommand)]
    Ns(NsVerb),
    /// Make or look at a cluster
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Check the node and its agreement with the others
    Doctor,
    /// Host tasks for a node; nodes start this themselves
    #[command(hide = true)]
    Supervise(SuperviseArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
}

#[derive(Debug, Subcommand)]
pub enum JobVerb {
    /// Everything known about a job
    Info(JobArg),
    /// Why a job waits, or what happened to it
    Explain(JobArg),
    /// The events of a job
    Events(JobEventsArgs),
}

#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// What a node's machine does, what its running jobs use, and the past hour
    Info(NodeInfoArgs),
    /// Let a node take no new work; what it has goes on
    Drain(DrainArgs),
    /// Let a node take work again
    Resume(MemberArg),
}

/// Flags of `node drain`.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// Name or id of the node, or the beginning of either [default: the answering node]
    #[arg(value_name = "NODE")]
    pub node: Option<String>,
    /// Why, for those who look at `nodes`
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// A node.
#[derive(Debug, Clone, Args)]
pub struct MemberArg {
    /// Name or id of the node, or the beginning of either [default: the answering node]
    #[arg(value_name = "NODE")]
    pub node: Option<String>,
}

/// A node that is gone.
#[derive(Debug, Clone, Args)]
pub struct ForgetArgs {
    /// Name or id of the node, or the beginning of either
    #[arg(value_name = "NODE")]
    pub node: String,
}

#[derive(Debug, Subcommand)]
pub enum NsVerb {
    /// Register a namespace, or a new version of one, from a TOML file
    Put(NsPutArgs),
    /// List the namespaces, built in and declared
    List,
    /// The fields of a namespace's submissions and what its kinds mean
    Describe(NsDescribeArgs),
    /// Print a declared namespace as TOML that `ns put` takes
    Get(NsDescribeArgs),
}

#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// Write a new cluster secret and print how other machines join
    Init(ClusterInitArgs),
    /// The answering node and its cluster
    Info,
    /// Say that a node is gone for good, so that those left may take over where they see less than half
    Forget(ForgetArgs),
}

#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Each value `up` would use with these flags, and where it comes from
    Show(Box<UpArgs>),
}

/// Flags of `up`. All are optional: the file and the defaults fill in the rest.
#[derive(Debug, Clone, Default, Args)]
pub struct UpArgs {
    /// Name of the node in the cluster [default: chosen once, kept in the data directory]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Data directory [default: the first free node-K under ~/.local/state/starling]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Listen for other nodes at IP:PORT [default: the first free port from 7400]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Serve the API at IP:PORT
    #[arg(long, value_name = "IP:PORT")]
    pub api: Option<SocketAddr>,
    #[command(flatten)]
    pub hwp: HwpArgs,
    #[command(flatten)]
    pub liveness: LivenessArgs,
    /// Address of a node to join; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub join: Vec<String>,
    /// CPUs to offer [default: all]
    #[arg(long, value_name = "N")]
    pub cpus: Option<CpusMilli>,
    /// Memory to offer, for example 16G [default: most of it]
    #[arg(long, value_name = "SIZE")]
    pub mem: Option<MemBytes>,
    /// Do not look for nodes with multicast DNS
    #[arg(long)]
    pub no_mdns: bool,
    /// What this node is and has, for jobs that ask for it, such as gpu or gpu=2; may be repeated
    #[arg(long = "label", value_name = "LABEL", value_parser = parse_label)]
    pub labels: Vec<String>,
    /// Keep the whole log for ever, for looking far back; other nodes keep an hour of it
    #[arg(long)]
    pub archive: bool,
    /// Never be the gateway that serves workers from outside
    #[arg(long)]
    pub no_gateway: bool,
    /// File that holds the cluster secret
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Directory through which nodes of one host or file system find each other
    #[arg(long, value_name = "DIR")]
    pub rendezvous: Option<PathBuf>,
    /// error, warn, info, debug, trace, or a filter such as info,starling_net=debug
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// How often a node speaks, and how long it may be silent.
#[derive(Debug, Clone, Default, Args)]
pub struct LivenessArgs {
    /// Time between two signs of life; the same at all nodes. Lower: more traffic. Higher: deaths are noticed later [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub heartbeat: Option<Millis>,
    /// Silence after which a node's tasks run elsewhere, and after five thirds of it its queue too. Lower: tasks run twice after
    /// a hiccup. Higher: they wait [default: 6s]
    #[arg(long, value_name = "TIME")]
    pub grace: Option<Millis>,
}

/// Flags of `cluster init`.
#[derive(Debug, Clone, Default, Args)]
pub struct ClusterInitArgs {
    /// Where to write the secret [default: cluster.secret in the base directory]
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Replace a secret that exists; nodes that hold the old one are cut off
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Clone, Default, Args)]
pub struct JobsArgs {
    /// Only these jobs
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Only jobs in this state: pending, running, done, failed, cancelled or lost; may be repeated
    #[arg(short, long = "state", value_name = "STATE", value_parser = parse_state, value_delimiter = ',')]
    pub states: Vec<JobState>,
    /// Only jobs of this name
    #[arg(short, long, value_name = "NAME")]
    pub name: Option<String>,
    /// Only jobs with a task on this node
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// At most so many, newest first
    #[arg(short, long, value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// No limit
    #[arg(short, long, conflicts_with = "limit")]
    pub all: bool,
    /// As they were then: so long ago, such as 2h, or a moment such as 2026-11-26T11:07:30Z
    #[arg(long, value_name = "TIME")]
    pub at: Option<Moment>,
}

#[derive(Debug, Clone, Args)]
pub struct JobArg {
    /// Id of the job, such as wren-12, or a unique prefix
    #[arg(value_name = "JOB")]
    pub job: String,
}

#[derive(Debug, Clone, Args)]
pub struct JobEventsArgs {
    /// Id of the job, such as wren-12, or a unique prefix
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Go on with new events
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Id of the job, such as wren-12, or a unique prefix
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Only this task
    #[arg(value_name = "TASK")]
    pub task: Option<u32>,
    /// Go on until the job ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only this stream; without it a simulation's env is shown on stderr, each line marked `env| `
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<Stream>,
    /// Skip so many bytes of each stream
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub offset: u64,
    /// Put the task's index before each line
    #[arg(short, long)]
    pub prefix: bool,
}

/// One of a task's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stream {
    /// Standard output
    Out,
    /// Standard error
    Err,
    /// Standard output of a simulation's env
    #[value(alias = "env_out")]
    EnvOut,
    /// Standard error of a simulation's env
    #[value(alias = "env_err")]
    EnvErr,
    /// What clients pushed to the job from outside
    Pushed,
}

#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Ids of the jobs
    #[arg(required = true, value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Give up after this time, with exit code 124
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Millis>,
    /// Also print progress, on stderr
    #[arg(short, long)]
    pub progress: bool,
}

#[derive(Debug, Clone, Args)]
pub struct CancelArgs {
    /// Ids of the jobs
    #[arg(required = true, value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Kept with the job
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
pub struct EventsArgs {
    /// Go on with new events
    #[arg(short, long)]
    pub follow: bool,
    /// Only events of this job
    #[arg(long, value_name = "JOB")]
    pub job: Option<String>,
    /// Only events of the last TIME, for example 10m
    #[arg(long, value_name = "TIME")]
    pub since: Option<Millis>,
    /// Only the last N past events [default: all; 20 with -f]
    #[arg(short = 'n', long, value_name = "N")]
    pub tail: Option<u32>,
}

#[derive(Debug, Clone, Default, Args)]
pub struct FactsArgs {
    /// Only jobs of this namespace
    #[arg(long, value_name = "NS")]
    pub namespace: Option<String>,
    /// Only what changed since, by the cursor that an earlier call printed on stderr, at any node
    #[arg(long, value_name = "CURSOR", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// Stop after about N jobs
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// All as it was then: so long ago, such as 2h, a moment such as 2026-11-26T11:07:30Z, or where a cursor was printed
    #[arg(long, value_name = "TIME|CURSOR", conflicts_with_all = ["since", "limit"], allow_hyphen_values = true, value_parser = parse_at)]
    pub at: Option<At>,
}

/// A time, or a place in the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// A time.
    Time(Moment),
    /// What an earlier call printed.
    Cursor(String),
}

/// Reads a time, or else something that may be a cursor.
fn parse_at(text: &str) -> Result<At, String> {
    let is_cursor = |text: &str| {
        text.len() >= CURSOR_CHARS_MIN
            && text.bytes().all(|one| one.is_ascii_alphanumeric() || matches!(one, b'-' | b'_'))
    };
    match text.parse() {
        Ok(moment) => Ok(At::Time(moment)),
        Err(_other) if is_cursor(text) => Ok(At::Cursor(text.to_owned())),
        Err(wrong) => Err(format!("{wrong}, or a cursor")),
    }
}

#[derive(Debug, Clone, Args)]
pub struct NsPutArgs {
    /// The declaration; - reads it from standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct NsDescribeArgs {
    /// Name of the namespace
    #[arg(value_name = "NAME")]
    pub name: String,
    /// This version [default: the one that new submissions get]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub version: Option<u32>,
    /// Of several declarations of one version, the one whose hash begins so
    #[arg(long, value_name = "HASH")]
    pub id: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
pub struct NodesArgs {
    /// Also the labels of nodes
    #[arg(short, long)]
    pub wide: bool,
}

#[derive(Debug, Clone, Args)]
pub struct NodeInfoArgs {
    /// Name or id of the node, or a unique prefix [default: the answering node]
    #[arg(value_name = "NAME")]
    pub node: Option<String>,
    /// Also the readings of the last TIME, 1h at most
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_past)]
    pub since: Millis,
    /// Show it again every second; Ctrl-C ends it
    #[arg(short, long)]
    pub watch: bool,
}

#[derive(Debug, Clone, Default, Args)]
pub struct TopArgs {
    /// Print it once and end
    #[arg(long)]
    pub once: bool,
}

/// Reads how far back to look.
fn parse_past(text: &str) -> Result<Millis, String> {
    let since: Millis = text.parse()?;
    if since.0 > PAST_MS_MAX {
        return Err("nodes remember readings for an hour: ask for 1h or less".to_owned());
    }
    Ok(since)
}

fn parse_state(word: &str) -> Result<JobState, String> {
    match JobState::from_word(word) {
        Some(state) if state != JobState::Unknown => Ok(state),
        Some(_) | None => Err("expected pending, running, done, failed, cancelled or lost".to_owned()),
    }
}
