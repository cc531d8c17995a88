//! A twin: another process with a node's identity, somewhere outside of this world, because a data directory was copied. It speaks of itself like the node does.
//!
//! What a copy does to the log are faults of their own (`rollback`, `fork`).
//! Invariants: one at a time; a node is told to stop only if an elder twin of it speaks.

use std::sync::Arc;

use starling_core::machine::Input;
use starling_core::schedule::Presence;
use starling_core::time::{Mono, Wall};

use super::marks::Mark;
use super::network::{Origin, Packet};
use super::node::WALL_START_MS;
use super::options::Faults;
use super::world::{Event, Seat, World};
use crate::invariant::Violation;

/// What it said may arrive so much later: at a node that stood still.
const ECHO_MS: u64 = 15_000;

/// The other process.
#[derive(Debug)]
pub(crate) struct Twin {
    of: Seat,
    /// The least for an elder one, the greatest for a younger.
    boot: u64,
    seq: u64,
    until: Mono,
    /// What its original said last.
    voice: Option<Presence>,
}

impl World {
    /// A copy of the node's data directory is started somewhere.
    pub(crate) fn beget(&mut self, of: Seat) {
        let boot = if self.rng.below(2) == 0 { 0 } else { u64::MAX };
        let until = self.now.after_ms(5_000 + self.rng.below(20_000));
        if self.twin.is_none() && !self.node(of).gone {
            self.twin = Some(Twin { of, boot, seq: 0, until, voice: None });
            self.after(500, Event::Twin);
        }
    }

    /// It speaks, and goes on for a while.
    pub(crate) fn on_twin(&mut self) {
        let wall = Wall(WALL_START_MS + self.now.0);
        let Some(twin) = &mut self.twin else { return };
        if self.now >= twin.until.after_ms(ECHO_MS) {
            self.twin = None;
            return;
        }
        let speaks = self.now < twin.until && self.faults != self.faults.healed();
        twin.seq += 1;
        let of = twin.of;
        let said = twin.voice.clone().map(|voice| Presence { boot: twin.boot, seq: twin.seq, wall, root: 0, ..voice });
        if let Some(said) = said.filter(|_| speaks) {
            let (origin, said) = (Origin::Outside(said.node), Arc::new(said));
            // It runs beside the original, and is heard where that is.
            let hear: Vec<Seat> = self.seats().filter(|to| *to == of || self.is_linked(of, *to)).collect();
            for to in hear {
                let delay = 1 + self.rng.below(100);
                self.after(delay, Event::Deliver { to, origin, packet: Packet::Presence(Arc::clone(&said)) });
            }
        }
        let wait = 700 + self.rng.below(300);
        self.after(wait, Event::Twin);
    }

    /// The original says something.
    pub(crate) fn on_voice(&mut self, seat: Seat, presence: &Presence) {
        if let Some(twin) = self.twin.as_mut().filter(|twin| twin.of == seat) {
            twin.voice = Some(presence.clone());
        }
    }

    /// A node is told that it must end because of a twin.
    pub(crate) fn on_told_of_twin(&mut self, seat: Seat) {
        if self.twin.as_ref().is_some_and(|twin| twin.of == seat && twin.boot == 0) {
            self.after(0, Event::Yield(seat));
        } else {
            self.broken(Some(Violation::new(2, format!("{seat:?} is to end for an elder twin that it does not have"))));
        }
    }

    /// It does as the daemon does.
    pub(crate) fn on_yield(&mut self, seat: Seat) {
        if self.node(seat).machine.is_some() && self.stopping.insert(seat) {
            self.mark(Mark::Yielded);
            let id = self.node(seat).id;
            self.rules.extra_starts.on_crash(&id);
            self.step(seat, Input::GiveUp);
            self.step(seat, Input::Shutdown);
        }
    }
}

impl Faults {
    /// What is left of them once everything has healed.
    pub(crate) const fn healed(&self) -> Self {
        Self { disk_ms_max: self.disk_ms_max, delay_ms_max: self.delay_ms_max, ..Self::NONE }
    }
}
