//! Sync: bounded pulls, rounds that become rare, and the wire form of messages.

use proptest::prelude::*;

use super::{LogId, Message, Mono, Sync};
use crate::config::Config;
use crate::ids::{Attempt, Epoch, Seq};
use crate::limits;
use crate::log::{Frontier, Tip};
use crate::resources::Resources;
use crate::rng::Rng;
use crate::schedule::Offer;
use crate::testing::{grant_id, job_id, log, node, tasks};

fn sync() -> Sync {
    let mut sync = Sync::new(&Config::new("wren", Resources::default()), Mono(0));
    sync.link_up(node(2));
    sync
}

fn epoch(of: u64) -> LogId {
    LogId { epoch: Epoch(of), ..log(1) }
}

#[test]
fn a_log_is_pulled_once_at_a_time() {
    let mut sync = sync();
    assert!(sync.begin_pull(Mono(0), log(1), Seq(1), node(2)));
    assert!(!sync.begin_pull(Mono(0), log(1), Seq(1), node(2)));
    sync.end_pull(&log(1));
    assert!(sync.begin_pull(Mono(0), log(1), Seq(1), node(2)));
}

#[test]
fn pulls_in_flight_are_bounded() {
    let mut sync = sync();
    let begun = (1..=20).filter(|of| sync.begin_pull(Mono(0), epoch(*of), Seq(1), node(2)));
    assert_eq!(begun.count(), limits::PULLS_MAX);
    assert_eq!(sync.pulls(), limits::PULLS_MAX);
}

#[test]
fn an_unanswered_pull_is_asked_again() {
    let mut sync = sync();
    sync.link_up(node(3));
    assert!(sync.begin_pull(Mono(0), log(1), Seq(1), node(2)));
    let late = Mono(limits::PULL_TIMEOUT_MS);
    assert!(!sync.begin_pull(Mono(late.0 - 1), log(1), Seq(1), node(3)));
    assert!(sync.begin_pull(late, log(1), Seq(1), node(3)));
}

#[test]
fn a_pull_that_is_never_answered_is_not_in_flight_for_ever() {
    let mut sync = sync();
    assert!(sync.begin_pull(Mono(0), log(1), Seq(1), node(2)));
    let _peer = sync.round(Mono(limits::PULL_TIMEOUT_MS - 1), &mut Rng::new(1));
    assert!(sync.is_pulling());
    let _peer = sync.round(Mono(limits::PULL_TIMEOUT_MS), &mut Rng::new(1));
    assert!(!sync.is_pulling());
}

#[test]
fn a_pull_over_a_lost_link_is_forgotten() {
    let mut sync = sync();
    assert!(sync.begin_pull(Mono(0), log(1), Seq(1), node(2)));
    sync.link_down(&node(2));
    assert!(!sync.is_pulling());
    assert!(!sync.begin_pull(Mono(0), log(1), Seq(1), node(2)), "nobody to ask any more");
}

#[test]
fn rounds_that_find_nothing_become_rare_until_something_happens() {
    let (mut sync, mut rng) = (sync(), Rng::new(1));
    let mut waits = Vec::new();
    let mut now = Mono(0);
    for _ in 0..20 {
        assert_eq!(sync.round(now, &mut rng), Some(node(2)));
        assert_eq!(sync.round(now, &mut rng), None);
        waits.push(sync.next_deadline().since_ms(now));
        now = sync.next_deadline();
    }
    let (busy, idle) = waits.split_at(10);
    assert!(busy.iter().all(|wait| (750..=1_250).contains(wait)), "{busy:?}");
    assert!(idle.iter().all(|wait| (7_500..=12_500).contains(wait)), "{idle:?}");
    sync.begin_pull(now, log(1), Seq(1), node(2));
    sync.round(now, &mut rng);
    assert!(sync.next_deadline().since_ms(now) <= 1_250);
}

#[test]
fn without_links_a_round_asks_nobody() {
    let (mut sync, mut rng) = (sync(), Rng::new(1));
    sync.link_down(&node(2));
    assert_eq!(sync.round(Mono(0), &mut rng), None);
}

fn messages() -> Vec<Message> {
    let grant = grant_id(job_id(1, 1), 2);
    let room = Resources { cpu_milli: 1_000, mem_bytes: 5 };
    let mut frontier = Frontier::default();
    let tip = Tip { len: Seq(3), head: 9 };
    frontier.set(log(1), tip);
    vec![
        Message::Digest(u64::MAX),
        Message::Tips(frontier.clone()),
        Message::TipsBack(frontier),
        Message::Pull { log: log(1), from: Seq(4), or_snapshot: true, joined: None },
        Message::Pull { log: log(1), from: Seq(4), or_snapshot: false, joined: Some(crate::ids::Hash([3; 32])) },
        Message::Have { log: log(1), len: Seq(4) },
        Message::Offer(Offer { grant, attempt: Attempt(1), tasks: tasks(1, 9), pool: None }),
        Message::OfferReply { grant, accepted: true, free: room },
        Message::Ask { total: room, free: room },
        Message::SnapshotAhead { log: log(1), id: crate::ids::Hash([3; 32]), bytes: 1 << 40 },
    ]
}

#[test]
fn messages_survive_the_wire_and_a_cut_one_is_refused() {
    for message in messages() {
        let bytes = message.to_bytes();
        assert_eq!(Message::from_bytes(&bytes).unwrap(), message);
        for len in 0..bytes.len() {
            assert!(Message::from_bytes(&bytes[..len]).is_err(), "{message:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_message_or_an_error(which in 0_usize..10, at in any::<prop::sample::Index>(), byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Message::from_bytes(&noise);
        let mut bytes = messages()[which].to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Message::from_bytes(&bytes);
    }
}
