//! One node's simulated disk: durable records, and the writes that are on their way to it.
//!
//! Invariants: only `commit` makes records durable; a crash lets a prefix of the oldest write survive, cut at a record boundary; a failed write leaves nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use starling_core::event::{Entry, SignedBatch};
use starling_core::ids::{GrantId, Hash, JobId, LogId, NodeId, Seq, Term, WriteId};
use starling_core::limits;
use starling_core::machine::{Note, Record};
use starling_core::namespace::{Declaration, is_submission};
use starling_core::rng::Rng;
use starling_core::time::Mono;

/// The disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    records: Vec<Record>,
    batches: BTreeMap<LogId, BTreeMap<Seq, SignedBatch>>,
    notes: BTreeSet<GrantId>,
    /// Grants and jobs in the owner's own log, so that what leaves can be checked against what is durable.
    grants: BTreeSet<GrantId>,
    jobs: BTreeSet<JobId>,
    declarations: BTreeSet<Hash>,
    pending: VecDeque<(WriteId, Vec<Record>)>,
    /// Until then every write fails.
    pub(crate) full_until: Mono,
}

impl Disk {
    pub(crate) fn begin(&mut self, write: WriteId, records: Vec<Record>) {
        self.pending.push_back((write, records));
    }

    /// The oldest write is done; the records that became durable.
    pub(crate) fn commit(&mut self, write: WriteId) -> Vec<Record> {
        let Some((_, records)) = self.pending.pop_front_if(|(pending, _)| *pending == write) else {
            return Vec::new();
        };
        records.iter().for_each(|record| self.index(record));
        self.records.extend(records.iter().cloned());
        records
    }

    /// The oldest write fails: nothing of it is durable.
    pub(crate) fn fail(&mut self, write: WriteId) {
        let _ = self.pending.pop_front_if(|(pending, _)| *pending == write);
    }

    /// Power goes: a prefix of the oldest write survives. Returns what did.
    pub(crate) fn crash(&mut self, rng: &mut Rng) -> Vec<Record> {
        let Some((_, mut records)) = self.pending.pop_front() else {
            return Vec::new();
        };
        self.pending.clear();
        let kept = usize::try_from(rng.below(records.len() as u64 + 1)).unwrap_or(0);
        records.truncate(kept);
        records.iter().for_each(|record| self.index(record));
        self.records.extend(records.iter().cloned());
        records
    }

    /// Forgets the last durable records, as no honest disk does.
    pub(crate) fn forget(&mut self, count: usize) {
        let kept = self.records.len().saturating_sub(count);
        let records = std::mem::take(&mut self.records);
        *self = Self { full_until: self.full_until, ..Self::default() };
        for record in records.into_iter().take(kept) {
            self.index(&record);
            self.records.push(record);
        }
    }

    fn index(&mut self, record: &Record) {
        match record {
            Record::Batch(batch) => {
                let log = batch.header().log;
                for (_, entry) in batch.entries() {
                    let Entry::Event(event) = entry else { continue };
                    let declared = event.spec.bytes("declaration").map(Declaration::from_bytes);
                    self.declarations.extend(declared.and_then(Result::ok).map(|declaration| declaration.id()));
                    let term = event.ctx.grant.map_or(Term::FIRST, |no| no.term);
                    let Some(job) = event.ctx.job.filter(|job| term.is_of(&job.log.node, &log.node)) else {
                        continue;
                    };
                    match (event.kind.as_str(), event.ctx.grant) {
                        ("Grant", Some(no)) => drop(self.grants.insert(GrantId { job, no })),
                        _ if is_submission(event) => drop(self.jobs.insert(job)),
                        _ => {}
                    }
                }
                self.batches.entry(log).or_default().insert(batch.header().first_seq, batch.clone());
            }
            Record::Note(Note::Accepted { grant, .. }) => drop(self.notes.insert(*grant)),
            Record::CleanShutdown => {}
        }
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn holds(&self, batch: &SignedBatch) -> bool {
        let header = batch.header();
        self.batches
            .get(&header.log)
            .and_then(|log| log.get(&header.first_seq))
            .is_some_and(|held| held.head() == batch.head())
    }

    pub(crate) fn holds_grant(&self, grant: &GrantId) -> bool {
        self.grants.contains(grant)
    }

    pub(crate) fn holds_job(&self, job: &JobId) -> bool {
        self.jobs.contains(job)
    }

    pub(crate) fn holds_declaration(&self, id: &Hash) -> bool {
        self.declarations.contains(id)
    }

    pub(crate) fn holds_note(&self, grant: &GrantId) -> bool {
        self.notes.contains(grant)
    }

    /// Events of `log` held from its start on.
    pub(crate) fn len(&self, log: &LogId) -> Seq {
        self.batches
            .get(log)
            .and_then(|log| log.last_key_value())
            .map_or(Seq(0), |(_, batch)| batch.header().last_seq())
    }

    /// Events of `node` itself, over all its epochs.
    pub(crate) fn own_events(&self, node: &NodeId) -> u64 {
        self.batches.iter().filter(|(log, _)| log.node == *node).map(|(log, _)| self.len(log).0).sum()
    }

    /// Whole batches that hold events from `from` on, within one response; whether there is more.
    pub(crate) fn serve(&self, log: &LogId, from: Seq) -> (Vec<SignedBatch>, bool) {
        let mut found = Vec::new();
        let mut bytes = 0;
        let Some(batches) = self.batches.get(log) else {
            return (found, false);
        };
        let start = batches.range(..=from).next_back().map_or(Seq(0), |(first, _)| *first);
        for batch in batches.range(start..).map(|(_, batch)| batch).filter(|batch| batch.header().last_seq() >= from) {
            if bytes + batch.bytes().len() > limits::SYNC_RESPONSE_BYTES_MAX {
                return (found, true);
            }
            bytes += batch.bytes().len();
            found.push(batch.clone());
        }
        (found, false)
    }
}
