//! Twins: who is told to stop, and that a copy's epochs are not its original's.

use super::*;
use crate::schedule::Presence;

/// A presence of node 1, started at `boot`.
fn spoken(boot: u64, seq: u64, at: u64) -> Presence {
    let effects = machine(1).step(now(at), Input::Tick);
    let presence =
        effects.into_iter().find_map(|effect| if let Effect::Publish(said) = effect { Some(said) } else { None });
    Presence { boot, seq, wall: now(at).wall, ..presence.unwrap() }
}

/// Whether node 1, started at `boot`, is told to stop by these presences, each with when it is heard.
fn yields(boot: u64, heard: &[(u64, Presence)]) -> bool {
    let total = Resources { cpu_milli: 2_000, mem_bytes: 1 << 30 };
    let identity = Identity { signer: Signer::from_seed(&[1; 32]), secret: SECRET, boot };
    let mut machine = Recovery::new(Config::new("wren", total), Registry::built_in(), identity).finish(now(0));
    let heard = heard.iter().map(|(at, presence)| machine.step(now(*at), Input::Presence(presence.clone())));
    heard.flatten().any(|effect| matches!(effect, Effect::Notice(Notice::Twin)))
}

#[test]
fn of_two_processes_with_one_identity_the_later_one_stops() {
    let signs = |boot| [(6_000, spoken(boot, 20, 6_000)), (8_500, spoken(boot, 23, 8_400))];
    assert!(yields(7, &signs(6)));
    assert!(!yields(7, &signs(8)), "that one stops");
    assert!(!yields(7, &signs(7)), "its own words that came back");
}

#[test]
fn last_words_of_an_earlier_life_are_not_a_twin() {
    let late = [(6_000, spoken(6, 20, 0)), (9_000, spoken(6, 23, 900))];
    assert!(!yields(7, &late), "spoken before it could be a twin, and held up");
    let early = [(1_000, spoken(6, 20, 6_000)), (4_000, spoken(6, 23, 9_000))];
    assert!(!yields(7, &early), "of a clock that runs ahead, heard right after the start");
    let burst = [(6_000, spoken(6, 20, 6_000)), (6_100, spoken(6, 23, 6_000)), (6_200, spoken(6, 24, 6_000))];
    assert!(!yields(7, &burst), "all at once, by way of a node that stood still");
    let again = [(6_000, spoken(6, 20, 6_000)), (9_000, spoken(6, 20, 6_000))];
    assert!(!yields(7, &again), "the same one twice");
}
