//! The fleet: silence, patience with those that are often late, and doubt of oneself.

use crate::config::Config;
use crate::ids::NodeId;
use crate::resources::Resources;
use crate::schedule::{Fleet, Health, Presence};
use crate::testing::node;
use crate::time::Mono;

fn fleet() -> Fleet {
    Fleet::new(&Config::new("wren", Resources::default()), Mono(0))
}

/// Hears `node` at each of these moments.
fn hear(fleet: &mut Fleet, who: NodeId, at: impl IntoIterator<Item = u64>) {
    for ms in at {
        fleet.wake(Mono(ms));
        assert!(fleet.hear(Mono(ms), Presence { node: who, seq: ms, ..super::explain::presence(1, "wren") }));
    }
}

fn healths(fleet: &Fleet, who: NodeId, at: [u64; 4]) -> [Health; 4] {
    at.map(|ms| fleet.health(Mono(ms), &who))
}

#[test]
fn a_punctual_node_is_suspect_after_three_and_dead_after_six_seconds() {
    let mut fleet = fleet();
    hear(&mut fleet, node(2), (1..=10).map(|second| second * 1_000));
    let seen = healths(&fleet, node(2), [12_999, 13_000, 15_999, 16_000]);
    assert_eq!(seen, [Health::Live, Health::Suspect, Health::Suspect, Health::Dead]);
}

#[test]
fn a_node_that_was_late_is_given_longer_until_it_is_punctual_again() {
    let mut fleet = fleet();
    hear(&mut fleet, node(2), [1_000, 2_000, 3_900]);
    // By 400 ms too late: 800 ms more.
    let seen = healths(&fleet, node(2), [6_899, 6_900, 10_699, 10_700]);
    assert_eq!(seen, [Health::Live, Health::Suspect, Health::Suspect, Health::Dead]);
    hear(&mut fleet, node(2), (5..=60).map(|second| second * 1_000));
    assert_eq!(fleet.health(Mono(66_000), &node(2)), Health::Dead);
}

#[test]
fn a_node_that_was_started_again_was_not_late() {
    let mut fleet = fleet();
    hear(&mut fleet, node(2), [1_000, 2_000]);
    for ms in (3_000..20_000).step_by(1_000) {
        fleet.wake(Mono(ms));
    }
    let reborn = |seq| Presence { node: node(2), boot: 77, seq, ..super::explain::presence(1, "wren") };
    for (seq, ms) in (1..).zip([20_000, 21_000]) {
        fleet.wake(Mono(ms));
        assert!(fleet.hear(Mono(ms), reborn(seq)));
    }
    assert_eq!(fleet.health(Mono(26_999), &node(2)), Health::Suspect);
    assert_eq!(fleet.health(Mono(27_000), &node(2)), Health::Dead);
}

#[test]
fn however_late_a_node_was_twice_the_usual_silence_is_death() {
    let mut fleet = fleet();
    hear(&mut fleet, node(2), [1_000]);
    for ms in (2_000..60_000).step_by(1_000) {
        fleet.wake(Mono(ms));
    }
    hear(&mut fleet, node(2), [60_000]);
    assert_eq!(fleet.health(Mono(71_999), &node(2)), Health::Suspect);
    assert_eq!(fleet.health(Mono(72_000), &node(2)), Health::Dead);
}

#[test]
fn who_stood_still_does_not_hold_it_against_the_others() {
    let mut fleet = fleet();
    hear(&mut fleet, node(2), [1_000, 2_000]);
    assert_eq!(fleet.health(Mono(30_000), &node(2)), Health::Dead);
    fleet.wake(Mono(30_000));
    assert_eq!(fleet.health(Mono(30_000), &node(2)), Health::Live);
    // Another silence from now on counts.
    for ms in (30_500..36_500).step_by(500) {
        fleet.wake(Mono(ms));
    }
    assert_eq!(fleet.health(Mono(36_000), &node(2)), Health::Dead);
}
