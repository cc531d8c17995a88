//! The redial book: whom to dial, where, and when.
//!
//! Pure: time and randomness come in as arguments. One connection per pair is wanted, so of two peers that know each
//! other the one with the smaller key dials at once and the other only after a delay, in case the first cannot.
//!
//! Invariants: nobody is dialled while connected or being dialled; pauses double from 0.2 s to 5 s and
//! never end; all maps are bounded; addresses from the configuration are never forgotten.
//! Does not: dial (`node` does), or know why a dial failed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::key::PeerKey;
use crate::limits;

const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Half of the 10 s in which a healed cluster should converge.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How much later the peer with the larger key dials.
const FALLBACK: Duration = Duration::from_millis(2_500);
/// A link that lived so long was a success; a shorter one counts as one more failure.
const LIVED: Duration = Duration::from_secs(5);
/// After so many failures in a row (over an hour) a learnt peer is forgotten.
const FAILURES_MAX: u32 = 1_000;

/// A number in 0..=u16::MAX that spreads pauses by a quarter in both directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jitter(pub(crate) u16);

/// Where an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The configuration: kept for ever.
    Joined,
    /// A hint, a neighbour or mDNS: forgotten when it does not work for hours.
    Learnt,
}

/// When a new address is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Now: the other side may not know us.
    Eager,
    /// By the rule of the smaller key: the other side probably knows us too.
    Polite,
}

/// Whom to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A peer, at all of its addresses.
    Peer(PeerKey),
    /// Whoever lives there.
    Address(SocketAddr),
}

/// A dial to start now. Its end must be told by `on_connected` or `on_failed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dial {
    pub(crate) target: Target,
    pub(crate) addresses: Vec<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting(Instant),
    Dialling,
    Connected(Instant),
}

#[derive(Clone, Debug)]
struct Entry {
    addresses: Vec<SocketAddr>,
    origin: Origin,
    failures: u32,
    state: State,
}

/// The book itself.
#[derive(Debug)]
pub(crate) struct Book {
    me: PeerKey,
    entries: BTreeMap<Target, Entry>,
    own: BTreeSet<SocketAddr>,
}

impl Book {
    pub(crate) fn new(me: PeerKey) -> Self {
        Self { me, entries: BTreeMap::new(), own: BTreeSet::new() }
    }

    /// Learns an address, of `peer` if that is known.
    pub(crate) fn learn(
        &mut self,
        peer: Option<PeerKey>,
        addr: SocketAddr,
        (origin, urgency): (Origin, Urgency),
        now: Instant,
    ) {
        if self.own.contains(&addr) || peer == Some(self.me) {
            return;
        }
        let target = match peer {
            Some(peer) => Target::Peer(peer),
            // Somebody whom we know lives there already.
            None if self.entries.values().any(|entry| entry.addresses.contains(&addr)) => {
                return;
            }
            None => Target::Address(addr),
        };
        let at = now + self.delay(target, urgency);
        if !self.make_room(target) {
            return;
        }
        let entry = self.entries.entry(target).or_insert_with(|| Entry {
            addresses: Vec::new(),
            origin,
            failures: 0,
            state: State::Waiting(at),
        });
        if origin == Origin::Joined {
            entry.origin = Origin::Joined;
        }
        if entry.addresses.contains(&addr) {
            return;
        }
        if entry.addresses.len() == limits::ADDRESSES_PER_PEER_MAX {
            // The oldest is the least likely to work still.
            entry.addresses.remove(0);
        }
        entry.addresses.push(addr);
        // A new address is a new chance: do not wait for the old ones' pause.
        if let State::Waiting(until) = entry.state {
            entry.state = State::Waiting(until.min(at));
        }
        // The address is known by its owner from now on.
        if peer.is_some()
            && let Some(anonymous) = self.entries.remove(&Target::Address(addr))
            && anonymous.origin == Origin::Joined
            && let Some(entry) = self.entries.get_mut(&target)
        {
            entry.origin = Origin::Joined;
        }
    }

    /// An address turned out to be our own.
    pub(crate) fn on_self(&mut self, addr: SocketAddr) {
        if self.own.len() < limits::OWN_ADDRESSES_MAX {
            self.own.insert(addr);
        }
        self.forget(addr, None);
    }

    /// `expected` does not live at `addr`; `found` does.
    pub(crate) fn on_other(&mut self, expected: PeerKey, found: PeerKey, addr: SocketAddr, now: Instant) {
        let origin = self.entries.get(&Target::Peer(expected)).map_or(Origin::Learnt, |entry| entry.origin);
        self.forget(addr, Some(found));
        self.learn(Some(found), addr, (origin, Urgency::Eager), now);
    }

    /// Takes the dials that are due. They count as under way until their end is told.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Dial> {
        let mut dials = Vec::new();
        for (target, entry) in &mut self.entries {
            if matches!(entry.state, State::Waiting(at) if at <= now) && !entry.addresses.is_empty() {
                entry.state = State::Dialling;
                dials.push(Dial { target: *target, addresses: entry.addresses.clone() });
            }
        }
        dials
    }

    /// When to call `due` next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let waiting = self.entries.values().filter(|entry| !entry.addresses.is_empty());
        waiting
            .filter_map(|entry| match entry.state {
                State::Waiting(at) => Some(at),
                State::Dialling | State::Connected(_) => None,
            })
            .min()
    }

    /// There is a connection to `peer`. If we dialled it, `dialled` says as what and where.
    pub(crate) fn on_connected(&mut self, peer: PeerKey, dialled: Option<(Target, SocketAddr)>, now: Instant) {
        if let Some((target, addr)) = dialled {
            let origin = self.entries.get(&target).map_or(Origin::Learnt, |entry| entry.origin);
            if target != Target::Peer(peer) {
                self.entries.remove(&target);
            }
            self.learn(Some(peer), addr, (origin, Urgency::Polite), now);
        }
        let target = Target::Peer(peer);
        if self.make_room(target) {
            let entry = self.entries.entry(target).or_insert_with(|| Entry {
                addresses: Vec::new(),
                origin: Origin::Learnt,
                failures: 0,
                state: State::Connected(now),
            });
            entry.state = State::Connected(now);
        }
    }

    /// The last connection to `peer` is gone.
    pub(crate) fn on_disconnected(&mut self, peer: PeerKey, now: Instant, jitter: Jitter) {
        let target = Target::Peer(peer);
        let Some(entry) = self.entries.get_mut(&target) else {
            return;
        };
        if let State::Connected(since) = entry.state
            && now.saturating_duration_since(since) >= LIVED
        {
            entry.failures = 0;
        }
        self.pause(target, now, jitter);
    }

    /// A dial came to nothing.
    pub(crate) fn on_failed(&mut self, target: Target, now: Instant, jitter: Jitter) {
        let Some(entry) = self.entries.get_mut(&target) else {
            return;
        };
        // Connected in the meantime, from the other side.
        if entry.state != State::Dialling {
            return;
        }
        if entry.failures >= FAILURES_MAX && entry.origin == Origin::Learnt {
            self.entries.remove(&target);
            return;
        }
        self.pause(target, now, jitter);
    }

    /// Where `peer` can be dialled, as far as we know.
    pub(crate) fn addresses(&self, peer: PeerKey) -> &[SocketAddr] {
        self.entries.get(&Target::Peer(peer)).map_or(&[], |entry| &entry.addresses)
    }

    fn pause(&mut self, target: Target, now: Instant, Jitter(jitter): Jitter) {
        let polite = self.delay(target, Urgency::Polite);
        if let Some(entry) = self.entries.get_mut(&target) {
            let pause = PAUSE_MIN.saturating_mul(1 << entry.failures.min(6)).min(PAUSE_MAX);
            entry.failures += 1;
            // 3/4 to 5/4 of it.
            let spread = pause * 3 / 4 + pause / 2 * u32::from(jitter) / u32::from(u16::MAX);
            entry.state = State::Waiting(now + spread + polite);
        }
    }

    fn delay(&self, target: Target, urgency: Urgency) -> Duration {
        match (target, urgency) {
            (Target::Peer(peer), Urgency::Polite) if self.me > peer => FALLBACK,
            (Target::Peer(_) | Target::Address(_), Urgency::Polite | Urgency::Eager) => Duration::ZERO,
        }
    }

    /// Removes an address, except of one peer.
    fn forget(&mut self, addr: SocketAddr, except: Option<PeerKey>) {
        self.entries.remove(&Target::Address(addr));
        for (target, entry) in &mut self.entries {
            if except.is_none_or(|peer| *target != Target::Peer(peer)) {
                entry.addresses.retain(|known| *known != addr);
            }
        }
        // A peer without an address and without a connection cannot be dialled: nothing to remember.
        self.entries.retain(|_, entry| !entry.addresses.is_empty() || !matches!(entry.state, State::Waiting(_)));
    }

    /// Whether `target` is in the book or may be added; drops the worst entry when it is full.
    fn make_room(&mut self, target: Target) -> bool {
        if self.entries.contains_key(&target) || self.entries.len() < limits::BOOK_MAX {
            return true;
        }
        let spare = |entry: &Entry| entry.origin == Origin::Learnt && matches!(entry.state, State::Waiting(_));
        let candidates = self.entries.iter().filter(|(_, entry)| spare(entry));
        let worst = candidates.max_by_key(|(_, entry)| entry.failures).map(|(target, _)| *target);
        worst.is_some_and(|worst| self.entries.remove(&worst).is_some())
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
