//! How often something may be looked at, by what looking costs.
//!
//! Invariants: on average a look takes at most 1 / `SHARE` of the time, unless that would mean less than one look a minute.

use std::time::{Duration, Instant};

/// A look that took `t` is followed by a pause of `SHARE * t`: half a percent. Low: costs more. High: figures are older on busy machines.
const SHARE: u32 = 200;
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// When the next look is due.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Option<Instant>,
}

impl Pace {
    /// Whether it is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// A look took from `begin` to `end`.
    pub(super) fn took(&mut self, begin: Instant, end: Instant) {
        let cost = end.saturating_duration_since(begin);
        self.next = Some(end + cost.saturating_mul(SHARE).min(PAUSE_MAX));
    }
}
