//! Workers from outside: they attach to the gateway through any node, run what they are given, and vanish for a while.
//!
//! Invariants: as the edge does, a node passes an assignment on only while the claim that counts in its own Facts is the sender's; a worker whose session breaks
//! keeps its tasks for a lease. What a worker runs dies with its gateway's process: its result would count no more.

use std::collections::BTreeMap;

use starling_core::facts::Outcome;
use starling_core::ids::{GatewayTerm, WorkerName};
use starling_core::machine::{Errand, Input};
use starling_core::resources::Resources;
use starling_core::schedule::{Label, Worker};
use starling_core::time::Mono;

use super::marks::Mark;
use super::options::Sabotage;
use super::world::{Event, Seat, World};
use crate::invariant::one_gateway;

/// How long a gateway waits for a worker whose session broke.
const LEASE_MS: u64 = 5_000;
/// How long it waits for a word about an assignment.
pub(crate) const ACCEPT_MS: u64 = 5_000;
/// How often a worker looks at its session.
const LOOK_MS: u64 = 200;
/// The label that some jobs ask for; the first worker has it.
pub(crate) const LABEL: &str = "field";

/// A worker's way to its gateway.
#[derive(Clone, Copy, Debug)]
struct Session {
    entry: (Seat, u32),
    gateway: (Seat, u32),
    term: GatewayTerm,
}

/// A worker.
#[derive(Clone, Debug)]
pub(crate) struct Outsider {
    slots: u32,
    labels: Vec<Label>,
    /// Until then it is gone.
    away: Mono,
    session: Option<Session>,
}

impl Outsider {
    /// Number `index` of a world.
    pub(crate) fn new(index: usize, draw: u64) -> Self {
        let label = if index == 0 || draw.is_multiple_of(2) { LABEL } else { "other" };
        let slots = 1 + u32::try_from(draw % 3).unwrap_or(0);
        Self { slots, labels: vec![Label(label.into())], away: Mono(0), session: None }
    }
}

/// What a gateway knows of its workers: until when it waits for those whose session broke.
pub(crate) type Sponsored = BTreeMap<usize, Option<Mono>>;

impl World {
    /// A worker looks at its session, and attaches if it has none.
    pub(crate) fn on_worker(&mut self, index: usize) {
        if let Some(session) = self.workers[index].session
            && (self.workers[index].away > self.now || !self.holds(&session))
        {
            self.mark(Mark::WorkerLost);
            self.workers[index].session = None;
            self.detach(index, &session);
        }
        self.end_leases(index);
        if self.workers[index].session.is_none() && self.workers[index].away <= self.now {
            self.attach(index);
        }
        let wait = LOOK_MS + self.rng.below(LOOK_MS);
        self.after(wait, Event::Worker(index));
    }

    /// A worker goes away for a while.
    pub(crate) fn lose_worker(&mut self) {
        let (count, away_ms) = (self.workers.len() as u64, 100 + self.rng.below(8_000));
        let index = usize::try_from(self.rng.below(count)).unwrap_or(0);
        if let Some(worker) = self.workers.get_mut(index) {
            worker.away = self.now.after_ms(away_ms);
        }
    }

    pub(crate) fn heal_workers(&mut self) {
        for worker in &mut self.workers {
            worker.away = Mono(0);
        }
    }

    /// Whether the entry still passes on what the gateway says.
    fn obeys(&self, session: &Session) -> bool {
        let Some(machine) = self.node(session.entry.0).machine.as_ref() else {
            return false;
        };
        let gateway = self.node(session.gateway.0).id;
        machine.facts().gateway().is_held_by(&gateway, session.term) || self.options.sabotage == Sabotage::NoFence
    }

    fn lives(&self, (seat, life): (Seat, u32)) -> bool {
        self.node(seat).machine.is_some() && self.node(seat).life == life
    }

    /// Whether the session stands. A node that stands still breaks nothing.
    fn holds(&self, session: &Session) -> bool {
        let (entry, gateway) = (session.entry, session.gateway);
        let joined = entry.0 == gateway.0 || self.is_linked(entry.0, gateway.0);
        self.lives(entry) && self.lives(gateway) && joined && self.obeys(session)
    }

    fn attach(&mut self, index: usize) {
        let entry = self.pick();
        let Some(claim) = self.node(entry).machine.as_ref().and_then(|machine| machine.facts().gateway().claim())
        else {
            return;
        };
        let term = claim.term;
        let Some(gateway) = self.by_id.get(&claim.node).copied() else {
            return;
        };
        let session =
            Session { entry: (entry, self.node(entry).life), gateway: (gateway, self.node(gateway).life), term };
        let awake = [entry, gateway].iter().all(|seat| self.node(*seat).paused_until <= self.now);
        let acts = |machine: &starling_core::machine::Machine| machine.election().standing().acting() == Some(term);
        if awake && self.holds(&session) && self.node(gateway).machine.as_ref().is_some_and(acts) {
            self.workers[index].session = Some(session);
            self.node_mut(gateway).sponsored.insert(index, None);
            self.tell_of_workers(gateway);
        }
    }

    /// The gateway notices that a worker is gone, if it is still there itself.
    fn detach(&mut self, index: usize, session: &Session) {
        let until = self.now.after_ms(LEASE_MS);
        let gateway = session.gateway;
        if self.lives(gateway)
            && let Some(lease) = self.node_mut(gateway.0).sponsored.get_mut(&index)
        {
            *lease = Some(until);
            self.tell_of_workers(gateway.0);
        }
    }

    fn end_leases(&mut self, index: usize) {
        for seat in self.seats().collect::<Vec<_>>() {
            let lease = self.node(seat).sponsored.get(&index).copied().flatten();
            if lease.is_some_and(|lease| lease <= self.now) {
                self.node_mut(seat).sponsored.remove(&index);
                let id = self.node(seat).id;
                self.rules.extra_starts.on_crash(&id);
                self.tell_of_workers(seat);
            }
        }
    }

    /// A node that stopped acting has no workers any more; theirs will find another gateway.
    pub(crate) fn dismiss_workers(&mut self, seat: Seat) {
        let id = self.node(seat).id;
        self.rules.extra_starts.on_crash(&id);
        self.node_mut(seat).sponsored.clear();
        for worker in &mut self.workers {
            worker.session = worker.session.filter(|session| session.gateway.0 != seat);
        }
    }

    fn tell_of_workers(&mut self, seat: Seat) {
        if self.node(seat).machine.is_none() {
            return;
        }
        if self.node(seat).paused_until > self.now {
            return self.defer(seat, Event::Workers(seat));
        }
        let sponsored = self.node(seat).sponsored.iter();
        let workers = sponsored.map(|(index, lease)| self.as_told(*index, lease.is_none())).collect();
        self.step(seat, Input::Workers(workers));
    }

    /// The gateway hears of its workers again, after it stood still.
    pub(crate) fn on_workers(&mut self, seat: Seat) {
        self.tell_of_workers(seat);
    }

    fn as_told(&self, index: usize, attached: bool) -> Worker {
        let worker = &self.workers[index];
        Worker {
            id: WorkerName(format!("w{index}").into()),
            labels: worker.labels.clone(),
            slots: worker.slots,
            room: Resources { cpu_milli: 1_000, mem_bytes: u64::MAX },
            attached,
        }
    }

    /// Whether an assignment of the gateway at `seat` reaches the worker, over the node that it attached through.
    pub(crate) fn is_delivered(&mut self, seat: Seat, errand: &Errand) -> bool {
        let index = errand.worker.0.trim_start_matches('w').parse::<usize>().unwrap_or(usize::MAX);
        let session = self.workers.get(index).and_then(|worker| worker.session);
        let Some(session) = session.filter(|session| session.gateway == (seat, self.node(seat).life)) else {
            return false;
        };
        let awake = self.node(session.entry.0).paused_until <= self.now && self.workers[index].away <= self.now;
        if !awake || !self.holds(&session) {
            return false;
        }
        let claim = self.node(session.entry.0).machine.as_ref().and_then(|one| one.facts().gateway().claim().copied());
        let found = one_gateway::obeyed(session.entry.0, &self.node(seat).id, session.term, claim.as_ref());
        self.broken(found);
        true
    }

    /// How the end of an assignment that nobody accepted is told.
    pub(crate) fn vanished() -> (Outcome, u64) {
        (Outcome::Lost, ACCEPT_MS)
    }
}
