//! `starling-testnet sim`: seeds from the command line, results as lines on stdout.
#![expect(clippy::print_stdout, reason = "this is the output of a command")]

use std::process::ExitCode;

use clap::Args;

use super::campaign::{Campaign, Mix, Repeats, Report, speed};
use super::run::Failure;

/// Lines of trace shown with `--verbose`, unless told otherwise.
const LINES: usize = 30;
/// Failures shown in full.
const SHOWN: usize = 20;

/// What to simulate.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Run this many seeds, each twice, and compare the traces.
    #[arg(long, value_name = "COUNT", conflicts_with = "seed")]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Run one seed.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Use this many nodes instead of what the seed says.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(2..=64))]
    nodes: Option<u8>,
    /// Only runs in which gateways are lost: partitions that flap, pauses, crashes, workers that come and go.
    #[arg(long)]
    election: bool,
    /// Show the last lines of the trace of a failure.
    #[arg(long)]
    verbose: bool,
    /// How many lines --verbose shows.
    #[arg(long, value_name = "COUNT", default_value_t = LINES)]
    lines: usize,
    /// With --seed: run it twice and compare the traces.
    #[arg(long)]
    twice: bool,
    /// Measure virtual over real time with this many nodes and no faults.
    #[arg(long, value_name = "NODES", conflicts_with_all = ["seeds", "seed"])]
    speed: Option<u8>,
}

/// Runs it.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    if let Some(nodes) = arguments.speed {
        return measure(nodes);
    }
    let nodes = arguments.nodes.map(usize::from);
    let lines = if arguments.verbose { arguments.lines } else { 0 };
    let mix = if arguments.election { Mix::Elections } else { Mix::Drawn };
    let campaign = match arguments.seed {
        Some(seed) => {
            let repeats = if arguments.twice { Repeats::Twice } else { Repeats::Once };
            Campaign { from: seed, count: 1, nodes, lines, repeats, mix }
        }
        None => Campaign {
            from: arguments.from,
            count: arguments.seeds.unwrap_or(100),
            nodes,
            lines,
            repeats: Repeats::Twice,
            mix,
        },
    };
    let report = campaign.run();
    show(&report, &campaign);
    if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(nodes: u8) -> ExitCode {
    match speed(usize::from(nodes)) {
        Ok((ratio, totals)) => {
            println!(
                "{} virtual s, {} steps, {} jobs acknowledged",
                totals.virtual_ms / 1_000,
                totals.steps,
                totals.acknowledged
            );
            println!("sim_speedup_{nodes} {ratio:.0}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{} at {} ms", failure.violation, failure.at_ms);
            ExitCode::FAILURE
        }
    }
}

fn show(report: &Report, campaign: &Campaign) {
    for (seed, failure) in report.failed.iter().take(SHOWN) {
        show_failure(*seed, failure, campaign);
    }
    let totals = &report.totals;
    println!(
        "{} virtual s, {} steps, {} crashes, {} partitions, {} hostile packets, {} jobs acknowledged, {} starts, {} of them extra, {} terms of gateways",
        totals.virtual_ms / 1_000,
        totals.steps,
        totals.crashes,
        totals.partitions,
        totals.hostile,
        totals.acknowledged,
        totals.starts,
        totals.extra_starts,
        totals.terms
    );
    println!("{} seeds passed, {} failed", report.passed, report.failed.len());
}

fn show_failure(seed: u64, failure: &Failure, campaign: &Campaign) {
    println!("seed {seed}: {} (at {} ms)", failure.violation, failure.at_ms);
    for line in &failure.lines {
        println!("  {line}");
    }
    let nodes = campaign.nodes.map_or_else(String::new, |nodes| format!(" --nodes {nodes}"));
    let mix = if campaign.mix == Mix::Elections { " --election" } else { "" };
    println!("replay: cargo run --profile sim -p starling-testnet -- sim --seed {seed}{nodes}{mix} --verbose");
}
