//! Relays and versions: a namespace that clients declare, relays that serve it here and there, and nodes that run an older version for a while.
//!
//! Invariants: a relay that goes away takes what it held along; the old version does not know namespace `simulation`, and is replaced when everything heals.

use starling_core::event::{Value, WorkSpec};
use starling_core::facts::{Outcome, Usage};
use starling_core::ids::{NodeId, RunId};
use starling_core::machine::{Command, Input};
use starling_core::namespace::declared::{Ends, Policy, RegisterRule, Rule, SubmitKinds};
use starling_core::namespace::{
    Declaration, Durability, FieldReq, FieldType, NamespaceSpec, Registry, batch, monitor, sys,
};
use starling_core::schedule::RelaySlots;

use super::clients::Report;
use super::marks::Mark;
use super::options::Sabotage;
use super::process::Crash;
use super::world::{Event, Seat, World};

/// The namespace that relays serve.
pub(crate) const CHECKS: &str = "checks";

/// The version before simulations.
pub(crate) fn old_registry() -> Registry {
    let mut registry = Registry::empty();
    registry.add(Box::new(sys::Sys::default()));
    registry.add(Box::new(batch::Batch::default()));
    registry.add(Box::new(monitor::Monitor::default()));
    registry
}

/// What clients declare: one of two versions, of which one has two contents, as if two people had edited it on two sides of a partition.
pub(crate) fn declaration(draw: u64) -> Declaration {
    let rule = |kind: &str, phase: &str, outcome: Ends, policy: Policy| Rule {
        phase: Some(phase.into()),
        outcome: Some(outcome),
        registers: vec![RegisterRule { register: "worst".into(), field: "weight".into(), policy }],
        labels: vec![("seen".into(), kind.into())],
        fields: vec![FieldReq::required("weight", FieldType::Int { min: 0, max: 100 })],
        ..Rule::new(kind)
    };
    let policy = [Policy::Max, Policy::Counter, Policy::Set][usize::try_from(draw % 3).unwrap_or(0)];
    Declaration {
        spec: NamespaceSpec {
            name: CHECKS.into(),
            preemptible: false,
            handler_type: "relay".into(),
            schema: vec![FieldReq::required("target", FieldType::Text { bytes_max: 64 })],
            durability: Durability::Logged,
        },
        version: if draw.is_multiple_of(3) { 1 } else { 2 },
        phases: ["waiting", "bad", "good"].map(Into::into).to_vec(),
        submit: SubmitKinds::One("SubmitCheck".into()),
        rules: vec![
            rule("CheckFailed", "bad", Ends::Failure, policy),
            rule("CheckPassed", "good", Ends::Success, policy),
        ],
    }
}

impl World {
    /// The node hears what its relay serves at present.
    pub(crate) fn tell_of_relay(&mut self, seat: Seat) {
        let node = self.node(seat);
        let is_here = node.relay_slots > 0 && node.relay_away <= self.now;
        let served = is_here.then(|| RelaySlots { ns: CHECKS.into(), slots: node.relay_slots });
        self.step(seat, Input::Relays(served.into_iter().collect()));
    }

    /// A relay goes away for a while.
    pub(crate) fn lose_relay(&mut self, seat: Seat) {
        let away_ms = 100 + self.rng.below(6_000);
        let until = self.now.after_ms(away_ms);
        let node = self.node_mut(seat);
        node.relay_away = until;
        if node.machine.is_none() {
            return;
        }
        let id = node.id;
        self.rules.extra_starts.on_crash(&id);
        self.tell_of_relay(seat);
        for run in self.processes.relayed(seat) {
            self.mark(Mark::RelayLost);
            self.processes.lose(seat, run);
            self.step(seat, Input::TaskEnded { run, outcome: Outcome::Lost, usage: Usage::default() });
        }
        self.after(away_ms, Event::Relay(seat));
    }

    /// The relay speaks of the end of a task in the namespace's words.
    pub(crate) fn relay_reports(&mut self, report: Report) {
        let Report { seat, life, run, outcome } = &report;
        let (seat, run) = (*seat, *run);
        let node = self.node(seat);
        if node.life != *life || node.machine.is_none() {
            return;
        }
        if node.paused_until > self.now {
            return self.defer(seat, Event::Report(Box::new(report)));
        }
        let kind = if outcome.is_success() { "CheckPassed" } else { "CheckFailed" };
        let weight = i64::try_from(self.rng.below(100)).unwrap_or(0);
        let spec = WorkSpec::new().with("weight", Value::Int(weight));
        let request = self.clients.request(seat);
        self.clients.reports.insert(request, report);
        self.step(seat, Input::Command { request, command: Command::Report { run, kind: kind.into(), spec } });
    }

    pub(crate) fn on_port(&mut self, seat: Seat, life: u32, run: RunId) {
        let node = self.node(seat);
        if node.life != life || node.machine.is_none() || !self.processes.runs(seat, run) {
            return;
        }
        if node.paused_until > self.now {
            return self.defer(seat, Event::Port { seat, life, run });
        }
        let port = u16::try_from(1_024 + self.rng.below(60_000)).unwrap_or(1_024);
        self.step(seat, Input::PortOpened { run, port, host: "127.0.0.1".into() });
    }

    /// An old version is replaced by the new one.
    pub(crate) fn upgrade(&mut self, seat: Seat) {
        if !self.node(seat).old || self.options.sabotage == Sabotage::NoUpgrade {
            return;
        }
        self.crash(seat, Crash::Machine);
        self.node_mut(seat).old = false;
        self.mark(Mark::OldUpgraded);
    }

    /// Whether the two may have different Facts although they hold the same logs: one runs the old version, or both do and may have joined a newer one's snapshot.
    pub(crate) fn understands_less(&self, seat: Seat, other: &NodeId) -> bool {
        let other = self.by_id.get(other).is_some_and(|seat| self.node(*seat).old);
        let joins = self.options.keep.snapshot_ms != u64::MAX;
        other != self.node(seat).old || (other && joins)
    }
}
