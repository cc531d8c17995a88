//! What a task is, what it needs, and how many of it there are: the flags of the verbs that submit.
//!
//! Invariants: as in `args`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::units::{ArraySpec, CpusMilli, EnvEntry, MemBytes, Millis, parse_env, parse_label};

/// What a task asks for, whatever it runs.
#[derive(Debug, Clone, Default, Args)]
pub struct DemandArgs {
    /// A name for the job that you choose; submitting again under it gives the same job
    #[arg(long, value_name = "NAME")]
    pub alias: Option<String>,
    /// Name shown in tables [default: the program's name]
    #[arg(short, long, value_name = "NAME")]
    pub name: Option<String>,
    /// CPUs reserved per task, for example 1 or 0.5 [default: 1]
    #[arg(short, long, value_name = "N")]
    pub cpus: Option<CpusMilli>,
    /// Memory reserved per task, for example 512M or 2G [default: none]
    #[arg(short, long, value_name = "SIZE")]
    pub mem: Option<MemBytes>,
    /// Working directory [default: the caller's]
    #[arg(short = 'C', long, value_name = "DIR")]
    pub chdir: Option<PathBuf>,
    /// Higher runs earlier
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i32,
    /// How often to try a failed task again
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,
    /// Time limit of each task, for example 30s, 5m or 1h30m
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Millis>,
    /// Run only on this node
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// How safe the job must be before the answer [default: remote1, or local on a lone node]
    #[arg(long, value_name = "LEVEL")]
    pub ack: Option<Ack>,
}

/// What a task is and needs; shared by `submit` and `run`.
#[derive(Debug, Clone, Default, Args)]
pub struct TaskArgs {
    /// Submit to this namespace: fields (-f) say what to do, no command
    #[arg(long, value_name = "NAME", conflicts_with_all = ["command", "env", "chdir", "stdin"])]
    pub ns: Option<String>,
    /// A field of the namespace; a list by repeating it, a map by KEY.SUB=VALUE, either also as JSON
    #[arg(short, long = "field", value_name = "KEY=VALUE", requires = "ns", conflicts_with = "command", value_parser = parse_field)]
    pub fields: Vec<String>,
    #[command(flatten)]
    pub demand: DemandArgs,
    /// Set a variable of the task, or hand on the caller's; may be repeated
    #[arg(short, long = "env", value_name = "K[=V]", value_parser = parse_env)]
    pub env: Vec<EnvEntry>,
    /// Run only where all these labels are, such as gpu or gpu=2; see `nodes --wide`
    #[arg(long, value_name = "LABEL[,LABEL…]", value_delimiter = ',', value_parser = parse_label, conflicts_with = "ns")]
    pub constraint: Vec<String>,
    /// Container image to run the command in, on a node or worker with label docker
    #[arg(long, value_name = "IMAGE", conflicts_with = "ns")]
    pub image: Option<String>,
    /// Standard input of every task; - reads it from here
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<PathBuf>,
    /// Program and arguments
    #[arg(required_unless_present = "ns", trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Acknowledgement levels that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ack {
    /// On the disk of the node that answers
    Local,
    /// On its disk and on another node's
    Remote1,
}

/// How many tasks, and what is told of them; shared by the verbs that submit.
#[derive(Debug, Clone, Default, Args)]
pub struct ManyArgs {
    /// Task indices: 0-9, 1-10,20 or 0-100:10; the task finds its own in STARLING_TASK
    #[arg(short, long, value_name = "INDICES", conflicts_with = "each_line")]
    pub array: Option<ArraySpec>,
    /// One task per line of FILE (- is stdin); the task finds its line in STARLING_LINE
    #[arg(long, value_name = "FILE")]
    pub each_line: Option<PathBuf>,
    /// Wait for the end and exit with the job's code
    #[arg(long)]
    pub wait: bool,
    /// Print the job id alone
    #[arg(long, conflicts_with = "json")]
    pub parsable: bool,
}

#[derive(Debug, Clone, Default, Args)]
pub struct SubmitArgs {
    #[command(flatten)]
    pub many: ManyArgs,
    #[command(flatten)]
    pub task: TaskArgs,
}

#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub task: TaskArgs,
}

fn parse_field(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        Some(_) | None => Err("expected KEY=VALUE".to_owned()),
    }
}
