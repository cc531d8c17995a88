//! Many seeds: two workers, each seed run twice, failures as one line that replays them.
//!
//! Invariants: a panic in a run is a failure of its seed, not of the campaign.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::marks::{Mark, SEEDS_MIN, Tally};
use super::options::Options;
use super::run::{Failure, Outcome, run};
use super::world::Totals;
use crate::invariant::{self, Violation};

/// Workers of one campaign: the cores of the smallest machine it should run on.
const WORKERS: usize = 2;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub count: u64,
    /// How many nodes, instead of what the seed says.
    pub nodes: Option<usize>,
    /// Lines of trace to keep.
    pub lines: usize,
    /// How often each seed is run.
    pub repeats: Repeats,
    /// What goes wrong.
    pub mix: Mix,
}

/// What goes wrong in a campaign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mix {
    /// Whatever the seed says.
    #[default]
    Drawn,
    /// In every seed, what makes gateways change.
    Elections,
}

/// How often each seed is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// Once.
    Once,
    /// Twice, with equal traces.
    Twice,
}

/// How a campaign went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seeds that held.
    pub passed: u64,
    /// Seeds that did not, in order.
    pub failed: Vec<(u64, Failure)>,
    /// Over all seeds, first runs only.
    pub totals: Totals,
    /// Which marks were reached, in first runs only.
    pub tally: Tally,
}

impl Campaign {
    /// The options of one seed.
    #[must_use]
    pub fn options(&self, seed: u64) -> Options {
        let mut options = match self.mix {
            Mix::Drawn => Options::draw(seed),
            Mix::Elections => Options::elections(seed),
        };
        options.nodes = self.nodes.unwrap_or(options.nodes);
        options.lines = self.lines;
        options
    }

    /// Marks that this campaign should have reached and did not: none if it is too small, or if it does not draw everything.
    #[must_use]
    pub fn unreached(&self, report: &Report) -> Vec<Mark> {
        let must = self.count >= SEEDS_MIN && self.mix == Mix::Drawn && self.nodes.is_none();
        if must { report.tally.missed().collect() } else { Vec::new() }
    }

    /// Runs all seeds.
    #[must_use]
    pub fn run(&self) -> Report {
        let next = AtomicU64::new(self.from);
        let end = self.from.saturating_add(self.count);
        let report = Mutex::new(Report::default());
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end {
                            break;
                        }
                        let outcome = run_seed(self.options(seed), self.repeats);
                        if let Ok(mut report) = report.lock() {
                            report.add(seed, outcome);
                        }
                    }
                });
            }
        });
        let mut report = report.into_inner().unwrap_or_default();
        report.failed.sort_by_key(|(seed, _)| *seed);
        report
    }
}

impl Report {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.totals.add(&outcome.totals);
        self.tally.add(&outcome.totals.marks);
        match outcome.failure {
            None => self.passed += 1,
            Some(failure) => self.failed.push((seed, failure)),
        }
    }
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.virtual_ms += other.virtual_ms;
        self.steps += other.steps;
        self.crashes += other.crashes;
        self.partitions += other.partitions;
        self.acknowledged += other.acknowledged;
        self.starts += other.starts;
        self.extra_starts += other.extra_starts;
        self.hostile += other.hostile;
        self.terms += other.terms;
    }
}

/// Runs one seed, as often as asked.
#[must_use]
pub fn run_seed(options: Options, repeats: Repeats) -> Outcome {
    let mut first = run_caught(options.clone());
    if first.failure.is_none() && repeats == Repeats::Twice {
        let second = run_caught(options);
        first.failure = second.failure.clone().or_else(|| {
            let violation = invariant::same_trace(&first, &second)?;
            Some(Failure { violation, at_ms: first.totals.virtual_ms, lines: Vec::new() })
        });
    }
    first
}

fn run_caught(options: Options) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(options))).unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let violation = Violation { number: 16, detail: format!("panic: {}", text.unwrap_or_default()) };
        Outcome {
            trace: 0,
            totals: Totals::default(),
            failure: Some(Failure { violation, at_ms: 0, lines: Vec::new() }),
        }
    })
}

/// Runs of which the fastest counts: whatever else the machine does only ever makes one slower.
const SPEED_RUNS: u32 = 5;

/// Virtual over real time for `nodes` nodes in peace.
///
/// # Errors
/// The first broken rule.
pub fn speed(nodes: usize) -> Result<(f64, Totals), Failure> {
    let mut best = (0.0, Totals::default());
    for _ in 0..SPEED_RUNS {
        let start = Instant::now();
        let outcome = run(Options::speed(nodes));
        let real = start.elapsed();
        if let Some(failure) = outcome.failure {
            return Err(failure);
        }
        let ratio = Duration::from_millis(outcome.totals.virtual_ms).as_secs_f64() / real.as_secs_f64();
        if ratio > best.0 {
            best = (ratio, outcome.totals);
        }
    }
    Ok(best)
}
