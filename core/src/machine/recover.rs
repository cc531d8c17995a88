//! Recovery: from the records on disk back to a Machine.
//!
//! Invariants: what was acknowledged is in the records and so in the recovered Facts; without the clean-shutdown marker the next event opens a new epoch (DESIGN L2);
//! what was accepted and has no outcome is taken up again as far as it was found, and reported lost otherwise, exactly once (`resume`).

use std::collections::{BTreeMap, VecDeque};

use super::io::{Note, Record};
use super::outbox::Outbox;
use super::resume::{Accepted, Books, Survivor};
use super::succession::Duties;
use super::{About, Disk, Identity, Machine};
use crate::config::Config;
use crate::election::Election;
use crate::event::{SignedBatch, cluster_id};
use crate::facts::Facts;
use crate::ids::{Dot, Epoch, GrantId, LogId};
use crate::log::{Ingest, LogSet};
use crate::namespace::Registry;
use crate::rng::Rng;
use crate::schedule::{Executor, Fleet, Owner};
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
    accepted: BTreeMap<GrantId, Accepted>,
    survivors: Vec<Survivor>,
    books: Books,
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
            survivors: Vec::new(),
            books: Books::Partial,
            clean: false,
        }
    }

    /// Takes in the next record.
    pub fn record(&mut self, record: Record) {
        self.clean = matches!(record, Record::CleanShutdown);
        match record {
            Record::CleanShutdown => {}
            Record::Note(Note::Accepted { grant, tasks, attempt, pool }) => {
                self.accepted.insert(grant, Accepted { tasks, attempt, pool });
            }
            Record::Batch(batch) => match self.logs.ingest(batch) {
                Ingest::Ready(batches) | Ingest::Fork(batches) => batches.iter().for_each(|batch| self.fold(batch)),
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

    /// What the edges found of the tasks that were started here and are not known to have been told. Without this call nothing is known of any, and all of them
    /// are lost.
    pub fn resume(&mut self, survivors: Vec<Survivor>, books: Books) {
        self.survivors = survivors;
        self.books = books;
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
        machine.owner.on_epoch(epoch);
        machine.resume(now, self.accepted, self.survivors, self.books);
        machine.resume_duties(now);
        machine
    }
}
