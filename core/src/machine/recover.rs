//! Recovery: from the records on disk back to a Machine.
//!
//! Invariants: what was acknowledged is in the records and so in the recovered Facts; without the clean-shutdown marker the next event opens a new epoch (DESIGN L2);
//! tasks that were accepted and have no outcome are reported lost, exactly once, so that their owners grant them again.

use std::collections::{BTreeMap, VecDeque};

use super::io::{Note, Record};
use super::outbox::Outbox;
use super::succession::Duties;
use super::{About, Disk, Identity, Machine};
use crate::config::Config;
use crate::election::Election;
use crate::event::{SignedBatch, cluster_id};
use crate::facts::{Facts, Outcome, Usage};
use crate::ids::{Dot, Epoch, GrantId, LogId};
use crate::lattice::IntervalSet;
use crate::log::{Ingest, LogSet};
use crate::namespace::{Registry, Voice};
use crate::rng::Rng;
use crate::schedule::{Ended, Executor, Fleet, Owner};
use crate::sync::Sync;
use crate::time::{HlcClock, Now};

/// Builds a Machine from records, one at a time, in the order they were written.
#[derive(Debug)]
pub struct Recovery {
    config: Config,
    registry: Registry,
    identity: Identity,
    logs: LogSet,
    facts: Facts,
    clock: HlcClock,
    accepted: BTreeMap<GrantId, IntervalSet>,
    clean: bool,
}

impl Recovery {
    /// Nothing read yet.
    #[must_use]
    pub fn new(config: Config, registry: Registry, identity: Identity) -> Self {
        let logs = LogSet::new(identity.secret);
        Self {
            config,
            registry,
            identity,
            logs,
            facts: Facts::bot(),
            clock: HlcClock::default(),
            accepted: BTreeMap::new(),
            clean: false,
        }
    }

    /// Takes in the next record.
    pub fn record(&mut self, record: Record) {
        self.clean = matches!(record, Record::CleanShutdown);
        match record {
            Record::CleanShutdown => {}
            Record::Note(Note::Accepted { grant, tasks }) => {
                self.accepted.insert(grant, tasks);
            }
            Record::Batch(batch) => match self.logs.ingest(batch) {
                Ingest::Ready(batches) => batches.iter().for_each(|batch| self.fold(batch)),
                Ingest::Fork(batch) => self.fold(&batch),
                // Written once already, or beyond a hole that a retracted write left; peers bring it again.
                Ingest::Duplicate | Ingest::Gap { .. } | Ingest::NotAdmitted | Ingest::Overfull => {}
            },
        }
    }

    fn fold(&mut self, batch: &SignedBatch) {
        self.logs.confirm(batch);
        let log = batch.header().log;
        for (seq, entry) in batch.entries() {
            self.facts.fold(Dot { log, seq }, entry, &self.registry);
            if let crate::event::Entry::Event(event) = entry
                && log.node == self.identity.signer.node()
            {
                // Never behind anything this node has signed, whatever the wall clock says now.
                self.clock.observe(event.hlc, crate::time::Wall(event.hlc.wall_ms));
            }
        }
    }

    /// All records are in: the node may start.
    #[must_use]
    pub fn finish(self, now: Now) -> Machine {
        let me = self.identity.signer.node();
        let epoch = match self.logs.last_epoch(&me) {
            None => Epoch(1),
            Some(last) if self.clean && !self.logs.is_forked(&LogId { node: me, epoch: last }) => last,
            Some(last) => Epoch(last.0 + 1),
        };
        let next_job = self
            .facts
            .jobs_of(&me)
            // Others may have spoken of jobs with any number; only this node submits under its own name.
            .filter(|(_, job)| job.submit.as_ref().is_some())
            .map(|(id, _)| id.no.0)
            .max()
            .unwrap_or(0)
            + 1;
        let mut machine = Machine {
            me,
            cluster: cluster_id(&self.identity.secret),
            rng: Rng::new(self.identity.boot ^ me.prefix()),
            fleet: Fleet::new(&self.config, now.mono),
            sync: Sync::new(&self.config, now.mono),
            owner: Owner::default(),
            elect_due: now.mono,
            duties: Duties::new(now.mono),
            election: Election::new(self.config.settle_ms, self.config.suspect_ms),
            executor: Executor::new(me, self.config.total),
            outbox: Outbox::default(),
            about: About { next_presence: now.mono, ..About::default() },
            disk: Disk::Accepts,
            owed_local: BTreeMap::new(),
            owed_remote: BTreeMap::new(),
            accepting: BTreeMap::new(),
            parked: VecDeque::new(),
            asked: BTreeMap::new(),
            place_due: true,
            stopping: false,
            stopped: false,
            effects: Vec::new(),
            config: self.config,
            registry: self.registry,
            identity: self.identity,
            clock: self.clock,
            logs: self.logs,
            facts: self.facts,
            epoch,
            frozen: false,
            next_job,
        };
        machine.report_lost(self.accepted);
        machine.resume_duties(now);
        machine
    }
}

impl Machine {
    /// Tasks that this node had accepted, and perhaps started, before it went down.
    fn report_lost(&mut self, mut accepted: BTreeMap<GrantId, IntervalSet>) {
        // A grant to oneself needs no note: the grant itself is in the log.
        for (id, job) in self.facts.jobs() {
            for (no, grant) in job.grants.iter().filter(|(no, _)| no.term.is_of(&id.log.node, &self.me)) {
                if let Some(placed) = grant.placed.as_ref().filter(|placed| placed.node == self.me && !grant.void) {
                    accepted.insert(GrantId { job: id, no: *no }, placed.tasks.clone());
                }
            }
        }
        for (grant, tasks) in accepted {
            let job = self.facts.job(&grant.job);
            let known = job.and_then(|job| job.grants.lookup(&grant.no));
            let run = known.and_then(|grant| grant.run_by(&self.me));
            let mut lost = run.map_or_else(|| tasks.clone(), |run| tasks.difference(&run.all_ended()));
            if let Some(job) = job {
                lost.subtract(&job.sealed_tasks());
            }
            // Nobody waits for what was withdrawn or is sealed.
            if !lost.is_empty() && known.is_none_or(|grant| !grant.void) {
                let voice = job.and_then(|job| job.submit.as_ref()).map(|submit| Voice::of(submit)).unwrap_or_default();
                let (outcome, usage) = (Outcome::Lost, Usage::default());
                self.outbox.push_finished(Ended { grant, voice, tasks: lost, outcome, usage });
            }
            self.executor.refuse(grant);
        }
    }
}
