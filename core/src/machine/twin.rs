//! Twins: two processes with one identity, because a data directory was copied and both copies run (ADR 20).
//!
//! How it shows: somebody speaks in this node's name after this process began, and goes on speaking. Peers who hear both show each what the other said.
//! Invariants: of two the one that began later stops, whatever it hears first; last words of this node's own earlier life are not taken for a twin.
//! Does not: stop the process (the edges do, on `Notice::Twin`).

use super::Machine;
use super::io::{Effect, Notice};
use crate::schedule::Presence;
use crate::time::{Mono, Now};

/// What is spoken and heard so long after this process began does not come from an earlier life of it.
const LATE_MS: u64 = 5_000;
/// A twin goes on speaking: two of its presences are heard so far apart.
const APART_MS: u64 = 2_000;

/// What this node knows of another process with its identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Twins {
    /// When this process began.
    began: Now,
    /// The first sign of an elder one.
    sign: Option<Sign>,
}

#[derive(Clone, Copy, Debug)]
struct Sign {
    boot: u64,
    seq: u64,
    heard: Mono,
}

impl Twins {
    pub(super) fn new(began: Now) -> Self {
        Self { began, sign: None }
    }

    /// Takes in a presence in this node's name; true once it is certain that another process lives.
    fn see(&mut self, now: Now, presence: &Presence) -> bool {
        let (boot, seq) = (presence.boot, presence.seq);
        let spoken_ms = presence.wall.0.saturating_sub(self.began.wall.0);
        if spoken_ms < LATE_MS || now.mono.since_ms(self.began.mono) < LATE_MS {
            return false;
        }
        let Some(sign) = self.sign.filter(|sign| sign.boot == boot) else {
            self.sign = Some(Sign { boot, seq, heard: now.mono });
            return false;
        };
        seq > sign.seq && now.mono.since_ms(sign.heard) >= APART_MS
    }
}

impl Machine {
    /// A presence in this node's own name: its own that came back, or a twin's. Of two processes the one that began first goes on.
    pub(super) fn on_own_presence(&mut self, now: Now, presence: &Presence) {
        if presence.boot < self.identity.boot && self.twins.see(now, presence) {
            self.effects.push(Effect::Notice(Notice::Twin));
        }
    }
}
