//! `starling-testnet`: the simulator, and local test clusters.
//!
//! Does not: hold any logic; each subcommand is one module of the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use starling_testnet::{bench, chaos, local, sim};

#[derive(Debug, Parser)]
#[command(name = "starling-testnet", about = "Starling's simulator and local test clusters")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run simulated clusters under faults and check every invariant.
    Sim(sim::cli::Arguments),
    /// Start a local cluster of real nodes to play with.
    Up(local::UpArgs),
    /// Real nodes under load and faults; every promise made to a client is checked at the end.
    Chaos(chaos::cli::Arguments),
    /// Measure, and print each figure beside its floor or a peer.
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Sim(arguments) => sim::cli::run(&arguments),
        Command::Up(arguments) => report(local::up(&arguments)),
        Command::Chaos(arguments) => match chaos::cli::chaos(&arguments) {
            Ok(code) => code,
            Err(error) => report(Err(error)),
        },
        Command::Bench(arguments) => report(bench::bench(&arguments)),
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `anyhow` prints the causes with `#`.
            #[expect(clippy::print_stderr, reason = "the last word of a command that failed")]
            {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
