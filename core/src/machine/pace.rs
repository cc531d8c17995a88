//! Pace: when the next write may go out, so that writes under load carry much and lone events do not wait.
//!
//! Each write costs every node a signature check, a sync and a round of gossip. Two rules keep their number down:
//! statements that somebody waits for (submissions, grants, acceptances) go at once, unless the last write already carried company, then a
//! little later; reports and seals go at once a few times in a row, then at a steady rate (a leaky bucket).
//! Invariants: nothing waits longer than `Config::group_commit_ms` after the last write, or `REPORT_MS` behind a full bucket (ADR 8).

use crate::config::Config;
use crate::time::Mono;

/// Writes of this many events or more make the next urgent one wait for company.
const COMPANY: usize = 4;
/// Steady pace of writes that hold reports and seals alone.
const REPORT_MS: u64 = 10;
/// So many of them may go at once after a quiet time.
const BURST: u64 = 10;

/// Whether anybody waits for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Somebody does.
    Urgent,
    /// Reports and seals: they may gather.
    Background,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    last: Mono,
    last_events: usize,
    /// When the bucket would be empty at the steady pace.
    drained: Mono,
}

impl Pace {
    /// The earliest moment for the next write.
    pub(super) fn due(&self, urgency: Urgency, config: &Config) -> Mono {
        match urgency {
            Urgency::Urgent if self.last_events >= COMPANY => self.last.after_ms(config.group_commit_ms),
            Urgency::Urgent => self.last,
            Urgency::Background => Mono(self.drained.0.saturating_sub(REPORT_MS * BURST)),
        }
    }

    /// A write went out.
    pub(super) fn wrote(&mut self, now: Mono, events: usize) {
        self.last = now;
        self.last_events = events;
        // Urgent writes count too but cannot overdraw the bucket, or reports would wait for longer than one pace.
        let full = now.after_ms(REPORT_MS * (BURST + 1));
        self.drained = self.drained.max(now).after_ms(REPORT_MS).min(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Resources;

    #[test]
    fn lone_reports_go_at_once_and_streams_of_them_gather() {
        let config = Config::new("wren", Resources::default());
        let mut pace = Pace::default();
        let mut writes = 0;
        for ms in 1_000..2_000 {
            let now = Mono(ms);
            if pace.due(Urgency::Background, &config) <= now {
                pace.wrote(now, 1);
                writes += 1;
            }
        }
        assert!((100..=111).contains(&writes), "{writes} writes in a second");
        assert!(pace.due(Urgency::Background, &config) <= Mono(2_000 + REPORT_MS));
        assert_eq!(pace.due(Urgency::Background, &config).since_ms(Mono(10_000)), 0, "quiet fills the bucket");
    }

    #[test]
    fn many_urgent_writes_hold_reports_back_by_one_pace_at_most() {
        let config = Config::new("wren", Resources::default());
        let mut pace = Pace::default();
        (0..1_000).for_each(|_| pace.wrote(Mono(1_000), 1));
        assert_eq!(pace.due(Urgency::Background, &config), Mono(1_000 + REPORT_MS));
    }

    #[test]
    fn urgent_events_wait_only_behind_company() {
        let config = Config::new("wren", Resources::default());
        let mut pace = Pace::default();
        pace.wrote(Mono(1_000), COMPANY - 1);
        assert_eq!(pace.due(Urgency::Urgent, &config), Mono(1_000));
        pace.wrote(Mono(1_000), COMPANY);
        assert_eq!(pace.due(Urgency::Urgent, &config), Mono(1_000 + config.group_commit_ms));
    }
}
