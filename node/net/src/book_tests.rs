//! Tests of the redial book, with made-up time.
//!
//! Invariants: no sleeping, no sockets.
//! Does not: test dialling (`tests/links.rs`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Book, Dial, FALLBACK, Jitter, Origin, PAUSE_MAX, Target, Urgency};
use crate::key::PeerKey;
use crate::limits;

const SMALL: PeerKey = PeerKey([1; 32]);
const ME: PeerKey = PeerKey([5; 32]);
const LARGE: PeerKey = PeerKey([9; 32]);
const MIDDLE: Jitter = Jitter(u16::MAX / 2);
const POLITE: (Origin, Urgency) = (Origin::Learnt, Urgency::Polite);

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn dial(target: Target, ports: &[u16]) -> Dial {
    Dial { target, addresses: ports.iter().map(|port| addr(*port)).collect() }
}

#[test]
fn smaller_key_dials_at_once_and_larger_after_the_fallback() {
    let now = Instant::now();
    let mut book = Book::new(ME);
    book.learn(Some(LARGE), addr(1), POLITE, now);
    book.learn(Some(SMALL), addr(2), POLITE, now);
    assert_eq!(book.due(now), [dial(Target::Peer(LARGE), &[1])]);
    assert_eq!(book.next_due(), Some(now + FALLBACK));
    assert_eq!(book.due(now + FALLBACK), [dial(Target::Peer(SMALL), &[2])]);
}

#[test]
fn dialling_is_not_repeated_until_it_ends() {
    let now = Instant::now();
    let mut book = Book::new(ME);
    book.learn(Some(LARGE), addr(1), POLITE, now);
    assert_eq!(book.due(now).len(), 1);
    book.learn(Some(LARGE), addr(2), POLITE, now);
    assert_eq!(book.due(now + PAUSE_MAX * 2), []);
    assert_eq!(book.next_due(), None);
}

#[test]
fn pauses_double_to_a_limit_and_stay_there() {
    let mut now = Instant::now();
    let mut book = Book::new(ME);
    book.learn(None, addr(1), (Origin::Joined, Urgency::Eager), now);
    let mut pauses = Vec::new();
    for _ in 0..2_000 {
        assert_eq!(book.due(now).len(), 1);
        book.on_failed(Target::Address(addr(1)), now, MIDDLE);
        let next = book.next_due().unwrap();
        pauses.push(next - now);
        now = next;
    }
    assert!(pauses[0] < Duration::from_millis(210) && pauses[1] > Duration::from_millis(390));
    assert!(pauses[1_999] > PAUSE_MAX * 9 / 10 && pauses[1_999] < PAUSE_MAX * 11 / 10);
}

#[test]
fn learnt_peer_that_never_answers_is_forgotten() {
    let mut now = Instant::now();
    let mut book = Book::new(ME);
    book.learn(Some(LARGE), addr(1), POLITE, now);
    let mut dials = 0;
    while let Some(next) = book.next_due() {
        now = next;
        dials += book.due(now).len();
        book.on_failed(Target::Peer(LARGE), now, MIDDLE);
    }
    assert_eq!(dials, 1_001);
}

#[test]
fn joined_address_becomes_its_peers_and_is_redialled() {
    let now = Instant::now();
    let mut book = Book::new(ME);
    book.learn(None, addr(1), (Origin::Joined, Urgency::Eager), now);
    assert_eq!(book.due(now), [dial(Target::Address(addr(1)), &[1])]);
    book.on_connected(LARGE, Some((Target::Address(addr(1)), addr(1))), now);
    assert_eq!(book.next_due(), None);
    book.learn(None, addr(1), POLITE, now);
    assert_eq!(book.next_due(), None);

    let later = now + Duration::from_secs(60);
    book.on_disconnected(LARGE, later, MIDDLE);
    let next = book.next_due().unwrap();
    assert!(next - later < Duration::from_millis(300));
    assert_eq!(book.due(next), [dial(Target::Peer(LARGE), &[1])]);
}

#[test]
fn short_links_count_as_failures() {
    let mut now = Instant::now();
    let mut book = Book::new(ME);
    book.learn(Some(LARGE), addr(1), POLITE, now);
    for _ in 0..10 {
        book.due(now);
        book.on_connected(LARGE, Some((Target::Peer(LARGE), addr(1))), now);
        book.on_disconnected(LARGE, now, MIDDLE);
        now = book.next_due().unwrap();
    }
    book.due(now);
    book.on_connected(LARGE, None, now);
    book.on_disconnected(LARGE, now, MIDDLE);
    assert!(book.next_due().unwrap() - now > PAUSE_MAX * 9 / 10);
}

#[test]
fn failure_after_an_inbound_connection_changes_nothing() {
    let now = Instant::now();
    let mut book = Book::new(ME);
    book.learn(Some(LARGE), addr(1), POLITE, now);
    book.due(now);
    book.on_connected(LARGE, None, now);
    book.on_failed(Target::Peer(LARGE), now, MIDDLE);
    assert_eq!(book.next_due(), None);
}

#[test]
fn own_address_is_never_dialled_again() {
    let now = Instant::now();
    let mut book = Book::new(ME);
    book.learn(None, addr(1), (Origin::Joined, Urgency::Eager), now);
    book.learn(Some(LARGE), addr(1), POLITE, now);
    book.on_self(addr(1));
    book.learn(None, addr(1), POLITE, now);
    book.learn(Some(LARGE), addr(1), POLITE, now);
    assert_eq!(book.next_due(), None);
}

#[test]
fn address_with_a_new_owner_moves_to_it() {
    let now = Instant::now();
    let mut book = Book::new(ME);
    book.learn(Some(LARGE), addr(1), (Origin::Joined, Urgency::Eager), now);
    book.due(now);
    book.on_other(LARGE, SMALL, addr(1), now);
    assert_eq!(book.addresses(LARGE), []);
    assert_eq!(book.due(now), [dial(Target::Peer(SMALL), &[1])]);
}

#[test]
fn book_is_bounded_and_keeps_what_was_configured() {
    let now = Instant::now();
    let mut book = Book::new(ME);
    book.learn(None, addr(1), (Origin::Joined, Urgency::Eager), now);
    for port in 2..5_000 {
        book.learn(None, addr(port), (Origin::Learnt, Urgency::Eager), now);
    }
    for port in 1..100 {
        book.learn(Some(LARGE), addr(port), POLITE, now);
    }
    let dials = book.due(now);
    assert!(dials.len() <= limits::BOOK_MAX);
    assert!(dials.iter().all(|dial| dial.addresses.len() <= limits::ADDRESSES_PER_PEER_MAX));
}
