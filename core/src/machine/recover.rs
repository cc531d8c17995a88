//! Recovery: from the records on disk back to a Machine.
//!
//! Invariants: what was acknowledged is in the records and so in the recovered Facts; without the clean-shutdown marker the next event opens a new epoch (DESIGN L2);
//! what was accepted and has no outcome is taken up again as far as it was found, and reported lost otherwise, exactly once (`resume`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::io::{Effect, Record};
use super::note::Note;
use super::outbox::Outbox;
use super::resume::{Accepted, Books, Survivor};
use super::retire::Retention;
use super::snapshot::{Alias, Keeping, Key, Local, Shared};
use super::succession::Duties;
use super::twin::Twins;
use super::{About, Disk, Identity, Machine};
use crate::config::Config;
use crate::election::Election;
use crate::event::{SignedBatch, cluster_id};
use crate::facts::{Facts, Job, Past, Touched};
use crate::ids::{Dot, Epoch, GrantId, JobId, LogId, NodeId};
use crate::log::{Ingest, LogSet};
use crate::namespace::Registry;
use crate::rng::Rng;
use crate::schedule::{Executor, Fleet, Owner};
use crate::sync::Sync;
use crate::time::{HlcClock, Now};

/// How many epochs a copied node leaves to its original at least, and how many different leaps there are.
const LEAP_MIN: u64 = 16;
const LEAPS: u64 = 1_009;

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
    owner: Owner,
    /// What history should have of jobs that were retired.
    past: Vec<Past>,
    /// Bytes of log beyond the snapshot.
    bytes: u64,
    /// Whether another node's snapshot was joined.
    joined: bool,
    /// Nodes that were heard in earlier lives.
    met: BTreeSet<NodeId>,
    /// Whether the data directory is a copy.
    moved: bool,
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
            owner: Owner::default(),
            past: Vec::new(),
            bytes: 0,
            joined: false,
            met: BTreeSet::new(),
            moved: false,
        }
    }

    /// Starts from a snapshot; before any record. `local` is absent for another node's snapshot that was joined: it comes after one's own.
    pub fn snapshot(&mut self, shared: Shared, local: Option<Local>) {
        let (_, dropped) = self.facts.merge(shared.facts);
        self.facts.refold(&self.registry);
        self.on_retired(&dropped);
        for end in &shared.logs {
            // Nothing can wait yet.
            let _nothing = self.logs.jump(end);
        }
        let Some(local) = local else {
            self.joined = true;
            return;
        };
        self.accepted.extend(local.accepted);
        self.met.extend(local.met);
        local.requests.into_iter().for_each(|Key { key, job }| self.owner.remember_key(key, job));
        local.aliases.into_iter().for_each(|Alias { name, hlc, job }| self.facts.remember_alias(name, hlc, job));
        self.clock.observe(local.clock, crate::time::Wall(local.clock.wall_ms));
    }

    fn on_retired(&mut self, jobs: &[(JobId, Job)]) {
        for (id, job) in jobs {
            if id.log.node == self.identity.signer.node() {
                self.owner.on_retired(*id, job);
            }
            self.past.extend(Past::of(*id, job));
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
            Record::Note(Note::Met { node }) => drop(self.met.insert(node)),
            Record::Batch(batch) => match self.ingest(batch.clone()) {
                Ingest::Ready(batches) | Ingest::Fork(batches) => batches.iter().for_each(|batch| self.fold(batch)),
                // What another's snapshot claims to contain was held here before: this node's own records are believed first.
                Ingest::Duplicate if self.joined => self.fold(&batch),
                // Written once already, or below the snapshot, or beyond a hole that a retracted write left; peers bring it again.
                Ingest::Duplicate | Ingest::Gap { .. } | Ingest::NotAdmitted | Ingest::Overfull => {}
            },
        }
    }

    fn ingest(&mut self, batch: SignedBatch) -> Ingest {
        self.bytes = self.bytes.saturating_add(batch.bytes().len() as u64);
        self.logs.ingest(batch)
    }

    fn fold(&mut self, batch: &SignedBatch) {
        self.logs.confirm(batch);
        let log = batch.header().log;
        for (seq, entry) in batch.entries() {
            if let Touched::Retired(jobs) = self.facts.fold(Dot { log, seq }, entry, &self.registry) {
                self.on_retired(&jobs);
            }
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

    /// The data directory was copied, or restored from elsewhere. Its original may run still and go on in its epochs: this node's next one lies well beyond these.
    pub fn moved(&mut self) {
        self.moved = true;
    }

    /// All records are in: the node may start.
    #[must_use]
    pub fn finish(self, now: Now) -> Machine {
        let me = self.identity.signer.node();
        let is_whole = |epoch: Epoch| {
            let log = LogId { node: me, epoch };
            !self.logs.is_forked(&log) && !self.logs.has_hole(&log)
        };
        let leap = if self.moved { LEAP_MIN + self.identity.boot % LEAPS } else { 0 };
        let epoch = match self.logs.last_epoch(&me) {
            Some(last) if self.clean && !self.moved && is_whole(last) => last,
            last => Epoch(last.map_or(0, |last| last.0) + 1 + leap),
        };
        let mut machine = Machine {
            me,
            cluster: cluster_id(&self.identity.secret),
            rng: Rng::new(self.identity.boot ^ me.prefix()),
            fleet: Fleet::new(&self.config, now.mono),
            sync: Sync::new(&self.config, now.mono),
            owner: self.owner,
            retention: Retention::new(now.mono, &self.config),
            keeping: Keeping::new(now.mono, &self.config, self.bytes, self.joined, self.accepted.clone()),
            elect_due: now.mono,
            duties: Duties::new(now.mono, self.met),
            twins: Twins::new(now),
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
            effects: if self.past.is_empty() { Vec::new() } else { vec![Effect::Retire(self.past)] },
            config: self.config,
            registry: self.registry,
            identity: self.identity,
            clock: self.clock,
            logs: self.logs,
            facts: self.facts,
            epoch,
            frozen: false,
            next_job: 0,
        };
        machine.next_job = machine.next_job_number();
        machine.owner.on_epoch(epoch);
        machine.resume(now, self.accepted, self.survivors, self.books);
        machine.resume_duties(now);
        machine
    }
}

impl Machine {
    /// The number of this node's next job: beyond all that it submitted, whether they are retired or not.
    pub(super) fn next_job_number(&self) -> u64 {
        let own = self.facts.jobs_of(&self.me);
        // Others may have spoken of jobs with any number; only this node submits under its own name.
        let submitted = own.filter(|(_, job)| job.submit.as_ref().is_some()).map(|(id, _)| id.no);
        submitted.chain(self.facts.retired().last_of(&self.me)).max().unwrap_or_default().0.saturating_add(1)
    }
}
