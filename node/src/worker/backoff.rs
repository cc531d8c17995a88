//! How long to wait before the next try.
//!
//! Invariants: from 0.1 s to 2 s, doubling; half of each wait is chance, so that workers do not come back all at once.

use std::time::Duration;

const FIRST_MS: u64 = 100;
const LAST_MS: u64 = 2_000;

#[derive(Debug)]
pub(super) struct Backoff {
    next_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next_ms: FIRST_MS }
    }
}

impl Backoff {
    /// The next wait.
    pub(super) fn pause(&mut self) -> Duration {
        let full = self.next_ms;
        self.next_ms = (full * 2).min(LAST_MS);
        Duration::from_millis(rand::random_range(full / 2..=full))
    }

    /// All went well: the next wait is a short one again.
    pub(super) fn reset(&mut self) {
        self.next_ms = FIRST_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_their_bounds_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..10).map(|_| backoff.pause().as_millis()).collect();
        assert!((50..=100).contains(&waits[0]), "{waits:?}");
        assert!(waits[6..].iter().all(|wait| (1_000..=2_000).contains(wait)), "{waits:?}");
        backoff.reset();
        assert!(backoff.pause().as_millis() <= 100);
    }
}
