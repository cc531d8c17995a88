//! Retirement: which of this node's sealed jobs leave Facts, and what follows wherever that is folded (DESIGN J9).
//!
//! Invariants: only the owner retires; a job is retired only once it is sealed; a start alone retires nothing for a while, so that a crash loop appends nothing
//! (DESIGN L2); what is kept of a job is told before anything that follows from its being gone.
//! Does not: remember retired jobs (`node::history` does).

use std::collections::{BTreeMap, BTreeSet, btree_map};

use super::Machine;
use super::io::Effect;
use crate::config::Config;
use crate::facts::{Job, Past};
use crate::ids::{JobId, LogId};
use crate::lattice::Numbers;
use crate::limits;
use crate::namespace::sys;
use crate::time::{Mono, Now};

/// Retirements are gathered for this long.
const RETIRE_EVERY_MS: u64 = 1_000;
/// After its start a node retires nothing for this long, or for as long as it keeps jobs if that is shorter.
const UPTIME_MS: u64 = 15_000;
/// Jobs retired at once.
const JOBS_AT_ONCE: usize = 4_096;

/// Sealed jobs of this node, oldest first.
#[derive(Debug, Default)]
pub(super) struct Retention {
    by_age: BTreeSet<(Mono, JobId)>,
    since: BTreeMap<JobId, Mono>,
    next: Mono,
}

impl Retention {
    /// Nothing is kept yet, at a node that starts now.
    pub(super) fn new(now: Mono, config: &Config) -> Self {
        Self { next: now.after_ms(UPTIME_MS.min(config.retain_ms)), ..Self::default() }
    }

    /// A job was sealed.
    pub(super) fn keep(&mut self, since: Mono, id: JobId) {
        if let btree_map::Entry::Vacant(entry) = self.since.entry(id) {
            entry.insert(since);
            self.by_age.insert((since, id));
        }
    }

    fn forget(&mut self, id: &JobId) {
        if let Some(since) = self.since.remove(id) {
            self.by_age.remove(&(since, *id));
        }
    }

    /// Jobs to retire now.
    fn due(&mut self, now: Mono, config: &Config) -> Vec<JobId> {
        let mut due = Vec::new();
        if now < self.next {
            return due;
        }
        while let Some((since, id)) = self.by_age.first().copied() {
            let old = now.since_ms(since) >= config.retain_ms;
            if !(old || self.by_age.len() > config.retain_jobs) || due.len() >= JOBS_AT_ONCE {
                break;
            }
            self.forget(&id);
            due.push(id);
        }
        if !due.is_empty() {
            self.next = now.after_ms(RETIRE_EVERY_MS);
        }
        due
    }

    /// When `due` would find something.
    pub(super) fn next_deadline(&self, config: &Config) -> Option<Mono> {
        let (since, _) = self.by_age.first()?;
        let over = self.by_age.len() > config.retain_jobs;
        Some(if over { self.next } else { since.after_ms(config.retain_ms).max(self.next) })
    }

    /// Jobs that wait.
    pub(super) fn len(&self) -> usize {
        self.by_age.len()
    }
}

impl Machine {
    /// Sealed jobs of this node that have not been retired.
    #[must_use]
    pub fn retained(&self) -> usize {
        self.retention.len()
    }

    /// Notes that a job of this node is sealed.
    pub(super) fn keep_sealed(&mut self, since: Mono, id: JobId) {
        if self.owns(&id.log) && self.facts.job(&id).is_some_and(Job::is_sealed) {
            self.retention.keep(since, id);
        }
    }

    /// Whether retiring the jobs of this log is this node's to do.
    fn owns(&self, log: &LogId) -> bool {
        self.facts.owners().owner_of(log) == self.me
    }

    /// Whether it may be done now. An owner that sees less than half of the members may have been superseded on the other side.
    fn may_retire(&self, now: Now) -> bool {
        let (live, roster) = self.seen(now);
        let busy = self.outbox.own_len() >= limits::OUTBOX_EVENTS_MAX / 2;
        let able = !self.stopping && !busy && self.disk_refusal().is_none();
        able && live * 100 >= roster * self.config.view_percent
    }

    /// Retires what has been kept for long enough.
    pub(super) fn retire_due(&mut self, now: Now) {
        // Looking whether it may be costs a walk over the fleet.
        if self.retention.next_deadline(&self.config).is_none_or(|due| due > now.mono) {
            return;
        }
        if !self.may_retire(now) {
            self.retention.next = self.retention.next.max(now.mono.after_ms(RETIRE_EVERY_MS));
            return;
        }
        let mut by_log: BTreeMap<LogId, Numbers> = BTreeMap::new();
        for id in self.retention.due(now.mono, &self.config) {
            if self.acts_for(&id.log) {
                let _ = by_log.entry(id.log).or_default().insert(id.no.0);
            } else {
                // Of a log that it has yet to take up, or that is another's by now.
                self.keep_sealed(now.mono, id);
            }
        }
        for (log, jobs) in by_log {
            let ranges: Vec<(u64, u64)> = jobs.ranges().collect();
            for part in ranges.chunks(limits::RETIRE_RANGES_MAX) {
                let mut jobs = Numbers::new();
                for (start, end) in part {
                    let _ = jobs.insert_range(*start, *end);
                }
                let hlc = self.clock.tick(now.wall);
                let term = self.facts.owners().term_of(&log);
                self.outbox.push(sys::retire(hlc, log, term, &jobs));
            }
        }
    }

    /// Jobs left Facts: history keeps what there is to keep, and the books let go of them.
    pub(super) fn on_retired(&mut self, jobs: &[(JobId, Job)]) {
        if jobs.is_empty() {
            return;
        }
        for (id, job) in jobs {
            self.retention.forget(id);
            if self.owns(&id.log) || id.log.node == self.me {
                self.owner.on_retired(*id, job);
            }
            if self.executor.holds(id) {
                // Whatever still runs of it is an attempt that no longer counts.
                let (kills, _nobody_waits) = self.executor.on_cancel(id);
                self.effects.extend(kills.into_iter().map(Effect::Kill));
            }
        }
        self.parked.retain(|(_, _, offer)| !self.facts.is_retired(&offer.grant.job));
        self.place_due = true;
        let past: Vec<Past> = jobs.iter().filter_map(|(id, job)| Past::of(*id, job)).collect();
        if !past.is_empty() {
            self.effects.push(Effect::Retire(past));
        }
    }
}
