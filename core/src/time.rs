//! Time as an input: a monotonic clock for waiting, a wall clock for people, a hybrid clock for events.
//!
//! Invariants: an author's `Hlc` never goes back, whatever its wall clock does; a remote clock pulls ours forward by a bounded step (DESIGN L7).
//! Does not: read any clock. The edges pass `Now` in.

use minicbor::{Decode, Encode};

use crate::limits;

/// Milliseconds of a clock that only goes forward, from an origin that means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(pub u64);

impl Mono {
    /// The moment `ms` milliseconds later.
    #[must_use]
    pub fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, 0 if that lies ahead.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds since 1970 as this machine believes; may jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Wall(pub u64);

/// Both clocks, read once per step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For waiting.
    pub mono: Mono,
    /// For people and for `Hlc`.
    pub wall: Wall,
}

/// A hybrid logical clock reading (Kulkarni et al., 2014): wall milliseconds, then a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Hlc {
    /// Milliseconds since 1970, never behind anything the author had seen.
    #[n(0)]
    pub wall_ms: u64,
    /// Orders events of one millisecond.
    #[n(1)]
    pub count: u32,
}

/// The state of one author's hybrid clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// The latest reading.
    #[must_use]
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// A reading later than every one before: `max(wall, last + 1)`.
    pub fn tick(&mut self, wall: Wall) -> Hlc {
        let next = if wall.0 > self.last.wall_ms {
            Hlc { wall_ms: wall.0, count: 0 }
        } else {
            match self.last.count.checked_add(1) {
                Some(count) => Hlc { wall_ms: self.last.wall_ms, count },
                None => Hlc { wall_ms: self.last.wall_ms.saturating_add(1), count: 0 },
            }
        };
        self.last = next;
        next
    }

    /// Follows a remote reading, at most to `wall + HLC_AHEAD_MS_MAX`, so that one wrong clock cannot drag the cluster along.
    pub fn observe(&mut self, remote: Hlc, wall: Wall) {
        let ceiling = Hlc { wall_ms: wall.0.saturating_add(limits::HLC_AHEAD_MS_MAX), count: 0 };
        self.last = self.last.max(remote.min(ceiling));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_stepping_back_keeps_readings_rising() {
        let mut clock = HlcClock::default();
        let first = clock.tick(Wall(1_000));
        let second = clock.tick(Wall(10));
        assert!(second > first);
        assert_eq!(second, Hlc { wall_ms: 1_000, count: 1 });
    }

    #[test]
    fn remote_clock_an_hour_ahead_is_followed_by_half_a_second() {
        let mut clock = HlcClock::default();
        clock.observe(Hlc { wall_ms: 3_601_000, count: 7 }, Wall(1_000));
        assert_eq!(clock.tick(Wall(1_000)), Hlc { wall_ms: 1_500, count: 1 });
    }
}
