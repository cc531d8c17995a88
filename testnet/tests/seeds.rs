//! A few seeds of the simulator, each run twice: the rest is `starling-testnet sim --seeds 500`.

use starling_testnet::sim::campaign::{Campaign, Mix, Repeats};
use starling_testnet::sim::marks::{Mark, Tally};
use starling_testnet::sim::mesh::{measure, percentile};
use starling_testnet::sim::scenario::Scenario;
use starling_testnet::sim::shrink::{breaks, shrink};
use starling_testnet::sim::{Faults, Options, PerMille, Sabotage, run};

/// Scenarios that are kept: what a seed once found.
const SCENARIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");

#[test]
fn the_first_seeds_hold_every_invariant() {
    let report = Campaign { from: 0, count: 24, nodes: None, lines: 0, repeats: Repeats::Twice, mix: Mix::Drawn }.run();
    let failures: Vec<String> =
        report.failed.iter().map(|(seed, failure)| format!("seed {seed}: {}", failure.violation)).collect();
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(report.passed, 24);
    assert!(
        report.totals.crashes > 20 && report.totals.partitions > 5 && report.totals.hostile > 50,
        "{:?}",
        report.totals
    );
}

#[test]
fn equal_seeds_give_equal_traces_and_others_differ() {
    let first = run(Options::draw(5));
    assert_eq!(first.trace, run(Options::draw(5)).trace);
    assert_ne!(first.trace, run(Options::draw(6)).trace);
}

#[test]
fn a_quiet_network_starts_nothing_twice() {
    let quiet = run(Options::draw(8));
    assert!(quiet.failure.is_none(), "{:?}", quiet.failure);
    assert!(quiet.totals.acknowledged > 0);
    assert_eq!(quiet.totals.extra_starts, 0);
}

#[test]
fn every_kept_scenario_does_what_its_file_says() {
    let mut count = 0;
    for entry in std::fs::read_dir(SCENARIOS).unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::from_text(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let broken = run(scenario.options).failure.map(|failure| failure.violation.number);
        assert_eq!(broken, scenario.breaks, "{}", path.display());
        count += 1;
    }
    assert!(count > 0, "no scenario in {SCENARIOS}");
}

#[test]
fn a_failing_run_shrinks_to_what_is_needed_for_it() {
    let faults = Faults { duplicate: PerMille(100), loss: PerMille(50), pause: Some(5_000), ..Faults::NONE };
    let world = |seed| Options { sabotage: Sabotage::DoubleStart, faults, workers: 2, ..Options::draw(seed) };
    let large = (1..20).map(world).find(|options| breaks(options, 11)).unwrap();
    let small = shrink(&large, 11).options;
    assert!(breaks(&small, 11));
    assert!(small.nodes <= large.nodes && small.safety_ms < large.safety_ms, "{small:?}");
    let Faults { duplicate, loss, pause, .. } = small.faults;
    let left = [duplicate > PerMille(0), loss > PerMille(0), pause.is_some()];
    // Without any fault it would be another rule that breaks; and none that is left can be left out.
    assert!(left.contains(&true), "{small:?}");
    let without = |change: fn(&mut Faults)| {
        let mut less = small.clone();
        change(&mut less.faults);
        breaks(&less, 11)
    };
    assert!(!left[0] || !without(|faults| faults.duplicate = PerMille(0)), "{small:?}");
    assert!(!left[1] || !without(|faults| faults.loss = PerMille(0)), "{small:?}");
    assert!(!left[2] || !without(|faults| faults.pause = None), "{small:?}");
}

#[test]
fn a_mark_that_is_never_reached_is_missed() {
    let mut tally = Tally::default();
    tally.add(&run(Options::draw(8)).totals.marks);
    let missed: Vec<Mark> = tally.missed().collect();
    assert!(missed.contains(&Mark::CrashAtWrite) && !missed.contains(&Mark::AckLocal), "{missed:?}");
}

#[test]
fn news_comes_to_every_node_over_a_lossy_mesh_and_healed_halves_agree() {
    let (figures, healing) = measure(Options { safety_ms: 10_000, ..Options::mesh(1, 70) }).unwrap();
    assert!(figures.batches > 20 && figures.missing == 0, "{figures:?}");
    let copies = percentile(&figures.copies_milli, 50);
    assert!((1_500..9_000).contains(&copies), "{copies} thousandths of a copy each");
    assert!(percentile(&figures.convergence_ms, 99) < 4_000, "{:?}", figures.convergence_ms);
    assert!(healing.equal_roots && healing.equal_ms.unwrap() <= 10_000, "{healing:?}");
}
