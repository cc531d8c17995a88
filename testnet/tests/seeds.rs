//! A few seeds of the simulator, each run twice: the rest is `starling-testnet sim --seeds 500`.

use starling_testnet::sim::campaign::{Campaign, Mix, Repeats};
use starling_testnet::sim::{Options, run};

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
