//! `starling-testnet sim`: seeds from the command line, results as lines on stdout.
#![expect(clippy::print_stdout, reason = "this is the output of a command")]

use std::process::ExitCode;

use clap::Args;

use super::campaign::{Campaign, Mix, Repeats, Report, run_seed, speed};
use super::marks::Mark;
use super::mesh::{measure as measure_mesh, percentile};
use super::options::Options;
use super::run::Failure;
use super::scenario::Scenario;
use super::shrink::shrink;

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
    /// Measure how news spreads among this many nodes over a mesh as gossipsub's, and how a partition heals.
    #[arg(long, value_name = "NODES", conflicts_with_all = ["seeds", "speed"], value_parser = clap::value_parser!(u16).range(2..=2_000))]
    mesh: Option<u16>,
    /// With --seed: if it breaks a rule, leave out what is not needed for that, and print the scenario.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// Replay a scenario from a file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seed", "speed", "mesh"])]
    scenario: Option<std::path::PathBuf>,
    /// With --mesh: how many virtual seconds of load.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
}

/// Runs it.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    if let Some(nodes) = arguments.speed {
        return measure(nodes);
    }
    if let Some(nodes) = arguments.mesh {
        let safety_ms = arguments.seconds.saturating_mul(1_000);
        let options = Options { safety_ms, ..Options::mesh(arguments.seed.unwrap_or(1), usize::from(nodes)) };
        return spread(options);
    }
    if let Some(file) = &arguments.scenario {
        return replay(file, if arguments.verbose { arguments.lines } else { 0 });
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
    if let Some((seed, failure)) = report.failed.first().filter(|_| arguments.shrink) {
        show_shrunk(&campaign.options(*seed), failure);
    }
    let unreached = campaign.unreached(&report);
    for mark in &unreached {
        println!("never reached in {} seeds: {}", campaign.count, mark.text());
    }
    if report.failed.is_empty() && unreached.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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

fn show_shrunk(options: &Options, failure: &Failure) {
    let number = failure.violation.number;
    let small = shrink(options, number);
    let about = failure.violation.to_string();
    println!(
        "# shrunk in {} runs; keep it as testnet/scenarios/NAME.toml, replay it with sim --scenario FILE",
        small.runs
    );
    println!("{}", Scenario { about, breaks: Some(number), options: small.options }.to_text());
}

/// Whether a run kept what its file says of it.
fn replay(file: &std::path::Path, lines: usize) -> ExitCode {
    let read = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let scenario = match read.and_then(|text| Scenario::from_text(&text).map_err(|error| error.to_string())) {
        Ok(scenario) => scenario,
        Err(error) => {
            println!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    };
    let outcome = run_seed(Options { lines, ..scenario.options }, Repeats::Twice);
    for line in outcome.failure.iter().flat_map(|failure| &failure.lines) {
        println!("  {line}");
    }
    let broken = outcome.failure.map(|failure| failure.violation);
    match &broken {
        Some(violation) => println!("{violation}"),
        None => println!("every rule held"),
    }
    if broken.map(|violation| violation.number) == scenario.breaks { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Nodes up to which a healed partition must be forgotten within ten seconds (DESIGN section 11, rule 6).
const HEALS_FAST_MAX: usize = 100;
const HEAL_MS_MAX: u64 = 10_000;

fn spread(options: Options) -> ExitCode {
    let nodes = options.nodes;
    let (figures, healing) = match measure_mesh(options) {
        Ok(measured) => measured,
        Err(violation) => {
            println!("{violation}");
            return ExitCode::FAILURE;
        }
    };
    let at = |list: &[u64], percent| percentile(list, percent);
    let (all, each, copies) = (&figures.convergence_ms, &figures.fold_ms, &figures.copies_milli);
    println!("{nodes} nodes, {} batches at every node, {} not", figures.batches, figures.missing);
    println!("a batch is folded at a node: p50 {} ms, p99 {} ms, max {} ms", at(each, 50), at(each, 99), at(each, 100));
    println!("a batch is folded at all:    p50 {} ms, p99 {} ms, max {} ms", at(all, 50), at(all, 99), at(all, 100));
    let mean = copies.iter().sum::<u64>() / u64::try_from(copies.len().max(1)).unwrap_or(1);
    let p99 = at(copies, 99);
    println!(
        "copies of it per node: mean {}.{:03}, p99 {}.{:03}",
        mean / 1_000,
        mean % 1_000,
        p99 / 1_000,
        p99 % 1_000
    );
    let Some(equal_ms) = healing.equal_ms.filter(|_| healing.equal_roots) else {
        println!("the halves of a healed partition did not come to agree");
        return ExitCode::FAILURE;
    };
    println!("a partition in halves healed: equal roots after {equal_ms} ms");
    let late = nodes <= HEALS_FAST_MAX && equal_ms > HEAL_MS_MAX;
    if late || figures.missing > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn show(report: &Report, campaign: &Campaign) {
    for (seed, failure) in report.failed.iter().take(SHOWN) {
        show_failure(*seed, failure, campaign);
    }
    if campaign.count > 1 {
        println!("{:>7} {:>9}  coverage mark", "seeds", "times");
        for mark in Mark::ALL {
            let (seeds, times) = report.tally.of(*mark);
            println!("{seeds:>7} {times:>9}  {}", mark.text());
        }
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
