//! One deliberately broken rule per invariant: each checker must see its own within a few seeds.

use starling_testnet::sim::campaign::{Repeats, run_seed};
use starling_testnet::sim::{Faults, Keep, Options, PerMille, Sabotage};

/// Seeds tried before a checker counts as blind.
const SEEDS: u64 = 20;

/// Breaks a rule and expects invariant `number` to be the one that is reported.
fn check(number: u8, sabotage: Sabotage, faults: Faults) {
    check_in(number, |seed| Options { sabotage, faults, ..Options::draw(seed) });
}

/// The same in worlds of one's own.
fn check_in(number: u8, world: impl Fn(u64) -> Options) {
    let sabotage = world(1).sabotage;
    let mut seen = Vec::new();
    let caught = (1..=SEEDS).any(|seed| {
        let number_seen = run_seed(world(seed), Repeats::Twice).failure.map(|failure| {
            seen.push(failure.violation.to_string());
            failure.violation.number
        });
        number_seen == Some(number)
    });
    assert!(caught, "{sabotage:?} was not seen by invariant {number} in {SEEDS} seeds; seen instead: {seen:?}");
}

fn crashes() -> Faults {
    Faults { crash: Some(3_000), ..Faults::NONE }
}

fn adversary() -> Faults {
    Faults { hostile: Some(500), ..Faults::NONE }
}

#[test]
fn a_disk_that_confirms_early_is_seen_by_1() {
    check(1, Sabotage::EarlyDurable, Faults { disk_ms_max: 50, ..Faults::NONE });
}

#[test]
fn a_second_writer_of_an_old_epoch_is_seen_by_2() {
    check(2, Sabotage::SecondWriter, crashes());
}

#[test]
fn a_delta_that_drops_an_event_is_seen_by_3() {
    check(3, Sabotage::SkewedDelta, adversary());
}

#[test]
fn a_delta_that_differs_between_nodes_is_seen_by_4() {
    check(4, Sabotage::SkewedDelta, adversary());
}

#[test]
fn a_disk_that_forgets_is_seen_by_5() {
    check(5, Sabotage::LosesDurable, crashes());
}

#[test]
fn pulls_that_bring_nothing_are_seen_by_6() {
    check(6, Sabotage::NoPulls, Faults { partition: Some(5_000), loss: PerMille(200), ..Faults::NONE });
}

/// Seeds in which hardly anything is kept.
fn forgetful(number: u8, sabotage: Sabotage, faults: Faults) {
    check_in(number, |seed| Options {
        keep: Keep::LITTLE,
        submit_every_ms: 200,
        sabotage,
        faults,
        ..Options::draw(seed)
    });
}

#[test]
fn a_retired_job_that_a_restart_brings_back_is_seen_by_8() {
    check_in(8, |seed| Options {
        keep: Keep { snapshot_bytes: u64::MAX, ..Keep::LITTLE },
        submit_every_ms: 200,
        sabotage: Sabotage::ForgetsRetired,
        faults: crashes(),
        ..Options::draw(seed)
    });
}

#[test]
fn a_replay_without_the_snapshots_is_seen_by_19() {
    forgetful(19, Sabotage::ReplaysLogAlone, Faults::NONE);
}

#[test]
fn jobs_that_nobody_retires_are_seen_by_22() {
    forgetful(22, Sabotage::NeverRetires, Faults::NONE);
}

#[test]
fn an_acknowledgement_of_a_copy_that_is_none_is_seen_by_7() {
    let faults = Faults { rollback: Some(700), ..Faults::NONE };
    check_in(7, |seed| Options {
        sabotage: Sabotage::HollowHave,
        faults,
        safety_ms: 8_000,
        submit_every_ms: 100,
        ..Options::draw(seed)
    });
}

#[test]
fn branches_that_nobody_serves_are_seen_by_15() {
    check(15, Sabotage::NoBranches, Faults { fork: PerMille(400), ..adversary() });
}

#[test]
fn ends_that_nobody_reports_are_seen_by_9() {
    check(9, Sabotage::SilentEnds, Faults::NONE);
}

#[test]
fn a_start_that_forgets_what_runs_is_seen_by_11() {
    check(11, Sabotage::NoMuster, Faults { daemon_crash: Some(2_000), ..Faults::NONE });
}

#[test]
fn a_second_process_without_any_fault_is_seen_by_10() {
    check(10, Sabotage::DoubleStart, Faults::NONE);
}

#[test]
fn a_second_process_that_no_crash_explains_is_seen_by_11() {
    check(11, Sabotage::DoubleStart, Faults { duplicate: PerMille(100), ..Faults::NONE });
}

#[test]
fn a_node_that_offers_more_than_it_has_is_seen_by_12() {
    check(12, Sabotage::Overcommit, Faults::NONE);
}

#[test]
fn a_task_sealed_twice_is_seen_by_13() {
    check(13, Sabotage::SealsTwice, adversary());
}

#[test]
fn an_outcome_that_changes_is_seen_by_14() {
    check(14, Sabotage::ChangesSeal, adversary());
}

#[test]
fn damaged_bytes_taken_for_good_are_seen_by_16() {
    check(16, Sabotage::OpensUnsigned, Faults { corrupt: PerMille(100), ..Faults::NONE });
}

#[test]
fn a_buffer_over_its_cap_is_seen_by_18() {
    check(18, Sabotage::TightCaps, Faults { reorder: PerMille(100), ..Faults::NONE });
}

#[test]
fn a_replay_that_reads_the_log_otherwise_is_seen_by_19() {
    check(19, Sabotage::OldReplay, Faults::NONE);
}

#[test]
fn versions_that_stay_mixed_are_seen_by_20() {
    check(20, Sabotage::NoUpgrade, Faults { old_version: PerMille(400), ..Faults::NONE });
}

#[test]
fn a_gateway_that_acts_at_once_is_seen_by_21() {
    check(21, Sabotage::NoSettle, Faults::NONE);
}

#[test]
fn a_superseded_gateway_that_is_obeyed_is_seen_by_21() {
    check_in(21, |seed| Options {
        workers: 3,
        submit_every_ms: 200,
        sabotage: Sabotage::NoFence,
        faults: adversary(),
        ..Options::draw(seed)
    });
}

#[test]
fn a_gateway_in_a_minority_is_seen_by_21() {
    check(21, Sabotage::NoHalfView, Faults { partition: Some(4_000), ..Faults::NONE });
}

#[test]
fn an_intake_that_looks_at_the_clock_is_seen_by_17() {
    check(17, Sabotage::ClockedIntake, Faults { clock_step: Some(3_000), ..Faults::NONE });
}

/// Long enough for owners to be found silent, and for those that come back to be heard.
fn succession(sabotage: Sabotage, faults: Faults) {
    check_in(25, |seed| Options { sabotage, faults, safety_ms: 90_000, ..Options::draw(seed) });
}

#[test]
fn jobs_taken_over_by_a_minority_are_seen_by_25() {
    succession(Sabotage::AdoptsAlone, Faults { partition: Some(8_000), ..Faults::NONE });
}

#[test]
fn jobs_taken_over_from_an_owner_that_speaks_are_seen_by_25() {
    succession(Sabotage::AdoptsHastily, crashes());
}

#[test]
fn an_adopter_that_acts_at_once_is_seen_by_25() {
    succession(Sabotage::AdoptsUnsettled, crashes());
}

#[test]
fn an_owner_that_does_not_give_way_is_seen_by_25() {
    succession(Sabotage::DeafOwner, Faults { partition: Some(15_000), ..Faults::NONE });
}

#[test]
fn a_number_from_outside_the_seed_is_seen_by_23() {
    check(23, Sabotage::Unseeded, Faults::NONE);
}

#[test]
fn an_event_minted_in_a_crash_loop_is_seen_by_24() {
    check(24, Sabotage::WorkInCrashLoop, Faults::NONE);
}
