//! `log`: checking, carrying and comparing the signed log.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do with the signed log.
#[derive(Debug, Clone, Subcommand)]
pub enum LogVerb {
    /// Check every checksum, signature and chain of a node's log or of an export; exits with 1 if something is wrong
    Verify(LogVerifyArgs),
    /// Write the log to one file that another node can import
    Export(LogExportArgs),
    /// Give an export to a node; what it has already is passed over
    Import(LogImportArgs),
    /// Compare two places, log by log; exits with 0 if they are equal, 1 if not, 2 if that cannot be told
    Diff(LogDiffArgs),
}

#[derive(Debug, Clone, Args)]
pub struct LogVerifyArgs {
    /// An export file, or a node's data directory [default: the directories of all nodes of this host]
    #[arg(value_name = "FILE|DIR", conflicts_with = "data_dir")]
    pub place: Option<PathBuf>,
    /// A node's data directory; its node may be running
    #[arg(long, value_name = "DIR", alias = "dir")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct LogExportArgs {
    /// Where to write it; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The data directory of a node that is stopped [default: ask a running node]
    #[arg(long, value_name = "DIR", alias = "dir")]
    pub data_dir: Option<PathBuf>,
    /// Only what this node wrote: its name or id, or the beginning of either
    #[arg(long, value_name = "NODE")]
    pub log: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct LogImportArgs {
    /// The export
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct LogDiffArgs {
    /// An export file, a data directory, or a running node as for --via
    #[arg(value_name = "A")]
    pub first: String,
    /// Another one
    #[arg(value_name = "B")]
    pub second: String,
}
