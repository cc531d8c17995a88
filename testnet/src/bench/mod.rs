//! Benchmarks: our figures beside the floor or a peer, ratios from one run, because machines are noisy.
//!
//! Invariants: real processes, real sockets, real disks; floors are measured in the same run; no group but `survive` and `history` runs longer than a few minutes.
//! Peers' figures were measured on a quiet machine with 2 cores and 24 GiB in November 2026; they are quoted, not measured here.
#![expect(clippy::print_stdout, reason = "this is the output of a command")]

mod api;
mod cluster;
mod core;
mod figures;
mod history;
mod hwp;
mod load;
mod relay;
mod survive;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::local::find_binary;
pub use figures::{Beside, Figure};

/// Flags of `bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Only figures whose group begins so: core, cluster, load, relay, hwp, memory, catch-up, survive, history
    #[arg(long, value_name = "GROUP")]
    pub only: Option<String>,
    /// The starling binary [default: the one beside this program]
    #[arg(long, value_name = "FILE", env = "STARLING_BIN")]
    pub binary: Option<PathBuf>,
}

type Group = fn(&Path) -> anyhow::Result<Vec<Figure>>;

const GROUPS: [(&str, Group); 9] = [
    ("core", core::figures),
    ("cluster", cluster::figures),
    ("load", load::figures),
    ("relay", relay::figures),
    ("hwp", hwp::figures),
    ("memory", cluster::memory),
    ("catch-up", load::catch_up),
    ("survive", survive::figures),
    ("history", history::figures),
];

/// Measures and prints.
///
/// # Errors
/// If a cluster does not come up or a figure cannot be taken.
pub fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    let binary = find_binary(args.binary.as_deref())?;
    if !args.json {
        println!("{}", Figure::header());
    }
    for (name, group) in GROUPS {
        if args.only.as_ref().is_some_and(|only| !name.starts_with(only.as_str())) {
            continue;
        }
        for figure in group(&binary).with_context(|| format!("measuring group {name}"))? {
            println!("{}", if args.json { figure.json() } else { figure.row() });
        }
    }
    Ok(())
}
