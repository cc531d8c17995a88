//! The election by itself: views in, steps out.
//!
//! Invariants: none. Does not: test presence or the log (`machine::tests` does).

use super::*;
use crate::testing::{hlc, node};

const ALL: [u8; 3] = [1, 2, 3];
const GRACE_MS: u64 = 3_000;

fn election() -> Election {
    Election::new(SETTLE_MS, GRACE_MS)
}

fn claim(term: u64, seed: u8) -> Claim {
    Claim { term: GatewayTerm(term), node: node(seed), hlc: hlc(term) }
}

/// A node of three, with what it sees.
struct Seen {
    claim: Option<Claim>,
    gone: bool,
    willing: bool,
    live: usize,
    candidates: Vec<NodeId>,
}

impl Seen {
    fn all(claim: Option<Claim>, gone: bool) -> Self {
        Self { claim, gone, willing: true, live: 3, candidates: ALL.map(node).to_vec() }
    }

    fn view(&self, me: u8) -> View<'_> {
        View {
            me: node(me),
            willing: self.willing,
            claim: self.claim.as_ref(),
            holder_gone: self.gone,
            candidates: &self.candidates,
            live: self.live,
            roster: 3,
            percent: 50,
        }
    }
}

/// The candidate of that place in `term`.
fn ranked(term: u64, place: u64) -> u8 {
    let seen = Seen::all(None, true);
    ALL.into_iter().find(|seed| seen.view(*seed).place(GatewayTerm(term)) == Some(place)).unwrap()
}

/// What a node does while time passes and the view stays; (when, what).
fn run(election: &mut Election, me: u8, seen: &Seen, from: u64, to: u64) -> Vec<(u64, Step)> {
    (from..=to).step_by(100).filter_map(|ms| Some((ms, election.step(Mono(ms), &seen.view(me))?))).collect()
}

#[test]
fn the_first_in_rank_claims_at_once_and_the_next_only_if_it_does_not() {
    let seen = Seen::all(None, true);
    let mut claims: Vec<u64> = Vec::new();
    for place in 0..3 {
        let steps = run(&mut election(), ranked(1, place), &seen, 0, 2_500);
        assert_eq!(steps.first().map(|(_, step)| *step), Some(Step::Claim(GatewayTerm(1))));
        claims.push(steps[0].0);
    }
    assert_eq!(claims, [0, 1_000, 2_000]);
}

#[test]
fn a_claim_acts_once_it_has_stood_for_a_second() {
    let mut one = election();
    let seen = Seen::all(Some(claim(4, 2)), false);
    assert_eq!(run(&mut one, 2, &seen, 0, 900), []);
    assert_eq!(one.next_deadline(), Some(Mono(1_000)));
    assert_eq!(run(&mut one, 2, &seen, 1_000, 9_000), [(1_000, Step::Act(GatewayTerm(4)))]);
    assert_eq!(one.standing(), Standing::Acting { term: GatewayTerm(4), since: Mono(1_000) });
}

#[test]
fn a_greater_claim_ends_settling_and_acting() {
    let mine = Seen::all(Some(claim(4, 2)), false);
    let greater = Seen::all(Some(claim(5, 1)), false);
    let mut settling = election();
    assert_eq!(run(&mut settling, 2, &mine, 0, 500), []);
    assert_eq!(run(&mut settling, 2, &greater, 600, 3_000), []);
    let mut acting = election();
    run(&mut acting, 2, &mine, 0, 1_500);
    assert_eq!(run(&mut acting, 2, &greater, 1_600, 3_000), [(1_600, Step::StandDown)]);
    assert_eq!(acting.standing(), Standing::Following);
}

#[test]
fn a_minority_neither_claims_nor_acts_and_goes_on_when_it_is_none_any_more() {
    let alone = Seen { live: 1, candidates: vec![node(2)], ..Seen::all(None, true) };
    assert_eq!(run(&mut election(), 2, &alone, 0, 9_000), []);
    let mut acting = election();
    let mine = Seen::all(Some(claim(4, 2)), false);
    run(&mut acting, 2, &mine, 0, 1_500);
    let cut_off = Seen { live: 1, ..Seen::all(Some(claim(4, 2)), false) };
    assert_eq!(run(&mut acting, 2, &cut_off, 1_600, 5_000), [(1_600, Step::StandDown)]);
    // Nobody claimed meanwhile: the same term, settled again.
    assert_eq!(run(&mut acting, 2, &mine, 5_100, 9_000), [(6_100, Step::Act(GatewayTerm(4)))]);
}

#[test]
fn of_two_members_the_survivor_is_half() {
    let seen = Seen { live: 1, candidates: vec![node(2)], ..Seen::all(Some(claim(1, 1)), true) };
    let view = View { roster: 2, ..seen.view(2) };
    let mut one = election();
    assert_eq!(one.step(Mono(0), &view), None);
    assert_eq!(one.step(Mono(GRACE_MS), &view), Some(Step::Claim(GatewayTerm(2))));
}

#[test]
fn a_holder_that_lives_keeps_the_seat_whatever_its_rank() {
    for holder in ALL {
        let seen = Seen::all(Some(claim(7, holder)), false);
        for me in ALL.into_iter().filter(|me| *me != holder) {
            assert_eq!(run(&mut election(), me, &seen, 0, 20_000), []);
        }
    }
}

#[test]
fn who_is_not_willing_gives_the_seat_up_and_does_not_claim() {
    let mut one = election();
    let mine = Seen::all(Some(claim(4, 2)), false);
    run(&mut one, 2, &mine, 0, 1_500);
    let unwilling = Seen { willing: false, candidates: vec![node(1), node(3)], ..Seen::all(Some(claim(4, 2)), true) };
    assert_eq!(run(&mut one, 2, &unwilling, 1_600, 9_000), [(1_600, Step::StandDown)]);
}

#[test]
fn a_claim_that_does_not_appear_is_made_again_and_a_hiccup_begins_the_wait_anew() {
    let seen = Seen::all(None, true);
    let (first, second) = (ranked(1, 0), ranked(1, 1));
    let again = run(&mut election(), first, &seen, 0, 3_500);
    assert_eq!(again, [(0, Step::Claim(GatewayTerm(1))), (3_000, Step::Claim(GatewayTerm(1)))]);
    let mut one = election();
    assert_eq!(run(&mut one, second, &seen, 0, 900), []);
    assert_eq!(run(&mut one, second, &Seen::all(Some(claim(1, first)), false), 950, 1_000), []);
    assert_eq!(run(&mut one, second, &Seen::all(None, true), 1_100, 2_000), []);
}

#[test]
fn a_restarted_holder_settles_again_under_its_old_term() {
    let seen = Seen::all(Some(claim(4, 2)), false);
    assert_eq!(run(&mut election(), 2, &seen, 50, 2_000), [(1_050, Step::Act(GatewayTerm(4)))]);
}

#[test]
fn a_new_holder_that_was_never_heard_is_not_gone_yet() {
    let seen = Seen::all(Some(claim(4, 2)), true);
    let first = ranked(5, 0);
    let steps = run(&mut election(), first, &seen, 0, 3_500);
    assert_eq!(steps, [(3_000, Step::Claim(GatewayTerm(5)))]);
}

mod steward {
    use super::*;
    use crate::election::{Duty, Silence, duty};
    use crate::ids::Term;
    use crate::testing::log;

    fn silence(silent_ms: u64, candidates: &[NodeId]) -> Silence<'_> {
        Silence { log: log(9), term: Term::FIRST, silent_ms, adopt_ms: 10_000, candidates, is_half: true }
    }

    /// Those who adopt after so long.
    fn adopters(silent_ms: u64, candidates: &[NodeId]) -> usize {
        let adopts = |me: &&NodeId| matches!(duty(me, &silence(silent_ms, candidates)), Duty::Adopt(_));
        candidates.iter().filter(adopts).count()
    }

    #[test]
    fn of_the_live_nodes_one_adopts_first_and_the_others_wait_for_it() {
        let nodes = [node(1), node(2), node(3)];
        let counts: Vec<usize> = [9_999, 10_000, 11_999, 12_000, 14_000].map(|ms| adopters(ms, &nodes)).to_vec();
        assert_eq!(counts, [0, 1, 1, 2, 3]);
    }

    #[test]
    fn whoever_sees_too_little_or_takes_no_writes_adopts_nothing() {
        let nodes = [node(1), node(2)];
        let blind = Silence { is_half: false, ..silence(60_000, &nodes) };
        assert_eq!(duty(&node(1), &blind), Duty::Wait { for_ms: None });
        assert_eq!(duty(&node(3), &silence(60_000, &nodes)), Duty::Wait { for_ms: None });
    }

    #[test]
    fn two_adopters_of_one_term_speak_in_different_ones() {
        let term = |me: u8| match duty(&node(me), &silence(60_000, &[node(1), node(2)])) {
            Duty::Adopt(term) => term,
            Duty::Wait { .. } => panic!("it adopts"),
        };
        let (one, two) = (term(1), term(2));
        assert_ne!(one, two);
        assert_eq!((one.number(), two.number()), (2, 2));
        assert!(one.is_of(&node(9), &node(1)) && !one.is_of(&node(9), &node(2)) && !one.is_of(&node(9), &node(9)));
        assert_eq!(one.adopted_by(&node(2)).number(), 3);
    }
}
