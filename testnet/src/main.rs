//! `starling-testnet`: the simulator, and local test clusters.
//!
//! Does not: hold any logic; each subcommand is one module of the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use starling_testnet::sim;

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
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Sim(arguments) => sim::cli::run(&arguments),
    }
}
