//! `down` and `supervise`: their flags.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    /// Kill the tasks that run there; their owners grant them again. Without it they go on, and the node takes them up at its next start
    #[arg(long)]
    pub kill_jobs: bool,
}

#[derive(Debug, Clone, Args)]
pub struct SuperviseArgs {
    /// The spool of a node's data directory
    #[arg(value_name = "SPOOL")]
    pub spool: PathBuf,
    /// The supervisor's name there
    #[arg(value_name = "NAME")]
    pub name: String,
}
