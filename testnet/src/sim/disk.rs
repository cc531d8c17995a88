//! One node's simulated disk: durable records, and the writes that are on their way to it.
//!
//! Invariants: only `commit` makes records durable; a crash lets a prefix of the oldest write survive, cut at a record boundary; a failed write leaves nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use starling_core::event::{Entry, SignedBatch};
use starling_core::ids::{GrantId, Hash, JobId, LogId, NodeId, Seq, Term, WriteId};
use starling_core::limits;
use starling_core::machine::{Note, Record};
use starling_core::namespace::{Declaration, is_submission};
use starling_core::rng::Rng;
use starling_core::time::Mono;

/// The last batches of a log among which the one that reaches furthest is.
const BRANCHES_LOOKED_AT: usize = 16;

/// What of a forked log is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Branches {
    All,
    /// One batch for each position, as a disk might that knows of no forks.
    First,
}

fn place_of(record: &Record) -> Option<(LogId, Seq)> {
    match record {
        Record::Batch(batch) => Some((batch.header().log, batch.header().first_seq)),
        Record::Note(_) | Record::CleanShutdown => None,
    }
}

/// The disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    records: Vec<Record>,
    /// By first position, then by head: an author that forked wrote several.
    batches: BTreeMap<LogId, BTreeMap<(Seq, Hash), SignedBatch>>,
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

    /// Power goes: a prefix of the oldest write survives. Returns what did, and how many records the write had.
    pub(crate) fn crash(&mut self, rng: &mut Rng) -> (Vec<Record>, usize) {
        let Some((_, mut records)) = self.pending.pop_front() else {
            return (Vec::new(), 0);
        };
        let whole = records.len();
        self.pending.clear();
        let kept = usize::try_from(rng.below(records.len() as u64 + 1)).unwrap_or(0);
        records.truncate(kept);
        records.iter().for_each(|record| self.index(record));
        self.records.extend(records.iter().cloned());
        (records, whole)
    }

    /// Loses some durable records for ever. Returns the jobs whose submission was among them, or lies behind one of them in its log, and whether a declaration does.
    pub(crate) fn lose(&mut self, lost: Range<usize>) -> (Vec<JobId>, bool) {
        let holes: Vec<(LogId, Seq)> = self.records[lost.clone()].iter().filter_map(place_of).collect();
        let behind = |record: &&Record| {
            place_of(record).is_some_and(|(log, seq)| holes.iter().any(|(of, hole)| *of == log && *hole <= seq))
        };
        let mut gone = Self::default();
        self.records.iter().filter(behind).for_each(|record| gone.index(record));
        let records = std::mem::take(&mut self.records);
        *self = Self { full_until: self.full_until, ..Self::default() };
        for (_, record) in records.into_iter().enumerate().filter(|(index, _)| !lost.contains(index)) {
            self.index(&record);
            self.records.push(record);
        }
        (gone.jobs.into_iter().collect(), !gone.declarations.is_empty())
    }

    /// Every batch held: its log, its first position, its head.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (LogId, Seq, Hash)> {
        self.batches.iter().flat_map(|(log, held)| held.keys().map(|(seq, head)| (*log, *seq, *head)))
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
                self.batches.entry(log).or_default().insert((batch.header().first_seq, batch.head()), batch.clone());
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
        self.batches.get(&header.log).is_some_and(|log| log.contains_key(&(header.first_seq, batch.head())))
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
        let held = self.batches.get(log).into_iter();
        // A batch of another branch may begin later and end earlier.
        let last = held.flat_map(|log| log.values().rev().take(BRANCHES_LOOKED_AT));
        last.map(|batch| batch.header().last_seq()).max().unwrap_or(Seq(0))
    }

    /// Events of `node` itself, over all its epochs.
    pub(crate) fn own_events(&self, node: &NodeId) -> u64 {
        self.batches.iter().filter(|(log, _)| log.node == *node).map(|(log, _)| self.len(log).0).sum()
    }

    /// Whole batches that hold events from `from` on, within one response; whether there is more.
    pub(crate) fn serve(&self, log: &LogId, from: Seq, branches: Branches) -> (Vec<SignedBatch>, bool) {
        let mut found = Vec::new();
        let mut bytes = 0;
        let Some(batches) = self.batches.get(log) else {
            return (found, false);
        };
        let start = (Seq(from.0.saturating_sub(limits::BATCH_EVENTS_MAX as u64)), Hash::ZERO);
        for batch in batches.range(start..).map(|(_, batch)| batch).filter(|batch| batch.header().last_seq() >= from) {
            if branches == Branches::First
                && found.last().is_some_and(|last: &SignedBatch| last.header().first_seq == batch.header().first_seq)
            {
                continue;
            }
            if bytes + batch.bytes().len() > limits::SYNC_RESPONSE_BYTES_MAX {
                return (found, true);
            }
            bytes += batch.bytes().len();
            found.push(batch.clone());
        }
        (found, false)
    }
}
