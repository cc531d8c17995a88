//! `starling-testnet chaos`: what to run from the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::field::{Network, find_faketime, probe};
use super::plan::{Plan, Shape};
use super::report::{say, show, show_plan};
use super::run::{Setting, run};
use crate::local::find_binary;

/// How to make chaos.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Load and faults for so long; healing and checks come on top (at most 90 s)
    #[arg(long, value_name = "MINUTES", default_value_t = 2.0, value_parser = minutes)]
    minutes: f64,
    /// Decides the faults and the load [default: another one each time]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// How many nodes
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=50))]
    nodes: u8,
    /// All nodes on loopback, where only their processes and disks are hurt
    #[arg(long)]
    loopback: bool,
    /// Kill one node for good on the way
    #[arg(long)]
    lose_one: bool,
    /// Print the faults and start nothing
    #[arg(long)]
    plan: bool,
    /// The library that steps clocks, libfaketimeMT.so.1 [default: where Debian's package puts it]
    #[arg(long, value_name = "FILE")]
    faketime: Option<PathBuf>,
    /// The starling binary [default: the one beside this program]
    #[arg(long, value_name = "FILE", env = "STARLING_BIN")]
    binary: Option<PathBuf>,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.1..=120.0).contains(&minutes) { Ok(minutes) } else { Err("0.1 to 120".to_owned()) }
}

/// Runs it; fails if any promise was broken.
///
/// # Errors
/// If the run cannot be made.
pub fn chaos(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    let network = if arguments.loopback { Network::Loopback } else { Network::Namespaces };
    let faketime = arguments.faketime.clone().or_else(find_faketime);
    let (tools, lacks) = probe(network, faketime.as_deref());
    for lack in &lacks {
        say(&format!("SKIPPED: {lack}"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0.1 to 120 minutes")]
    let length_ms = (arguments.minutes * 60_000.0) as u64;
    let loses_one = arguments.lose_one;
    let shape = Shape { seed, nodes: usize::from(arguments.nodes), length_ms, tools, loses_one };
    let plan = Plan::draw(&shape);
    let mut again =
        format!("starling-testnet chaos --minutes {} --seed {seed} --nodes {}", arguments.minutes, arguments.nodes);
    for (flag, _) in [(" --loopback", arguments.loopback), (" --lose-one", loses_one)].iter().filter(|(_, on)| *on) {
        again.push_str(flag);
    }
    if let Some(library) = &arguments.faketime {
        again.push_str(&format!(" --faketime {}", library.display()));
    }
    say(&again);
    if arguments.plan {
        show_plan(&plan);
        return Ok(ExitCode::SUCCESS);
    }
    let binary = find_binary(arguments.binary.as_deref())?;
    let outcome = run(Setting { binary: &binary, faketime: faketime.as_deref(), shape: &shape, plan: &plan })?;
    show(&outcome);
    if let Some(kept) = &outcome.kept {
        say(&format!("everything was kept in {}\nthe same plan again: {again}", kept.display()));
        return Ok(ExitCode::FAILURE);
    }
    say("every acknowledged job is sealed at every node, all roots are equal, and faults explain every extra start");
    Ok(ExitCode::SUCCESS)
}

/// Another one each time.
fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ u64::from(std::process::id())
}
