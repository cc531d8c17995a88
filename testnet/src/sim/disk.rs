//! One node's simulated disk: durable records, and the writes that are on their way to it.
//!
//! Invariants: only `commit` makes records durable; a crash lets a prefix of the oldest write survive, cut at a record boundary; a failed write leaves nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use starling_core::event::{Entry, SignedBatch};
use starling_core::ids::{GrantId, Hash, JobId, LogId, NodeId, Seq, Term, WriteId};
use starling_core::limits;
use starling_core::machine::snapshot::{self, Bytes, Shared};
use starling_core::machine::{Note, Record};
use starling_core::namespace::{Declaration, is_submission};
use starling_core::rng::Rng;
use starling_core::time::Mono;

use super::keeping::{Held, Origin};

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

/// What leaves a node is checked against this.
#[derive(Clone, Debug, Default)]
struct Books {
    notes: BTreeSet<GrantId>,
    /// Grants and jobs in the owner's own log, and the declaration that a job needs to be understood.
    grants: BTreeSet<GrantId>,
    jobs: BTreeMap<JobId, Option<Hash>>,
    declarations: BTreeSet<Hash>,
    /// How far each log reaches.
    lens: BTreeMap<LogId, Seq>,
}

impl Books {
    fn add(&mut self, record: &Record) {
        match record {
            Record::Batch(batch) => {
                let log = batch.header().log;
                self.reach(log, batch.header().last_seq());
                for (_, entry) in batch.entries() {
                    let Entry::Event(event) = entry else { continue };
                    let declared = event.spec.bytes("declaration").map(Declaration::from_bytes);
                    self.declarations.extend(declared.and_then(Result::ok).map(|declaration| declaration.id()));
                    if let Some((job, no)) = event.ctx.job.zip(event.ctx.grant) {
                        // Only an executor speaks under a grant that is another's: as good as its note, if a bad disk lost that.
                        let speaks = !no.term.is_of(&job.log.node, &log.node);
                        self.notes.extend(speaks.then_some(GrantId { job, no }));
                    }
                    let term = event.ctx.grant.map_or(Term::FIRST, |no| no.term);
                    let Some(job) = event.ctx.job.filter(|job| term.is_of(&job.log.node, &log.node)) else {
                        continue;
                    };
                    match (event.kind.as_str(), event.ctx.grant) {
                        ("Grant", Some(no)) => drop(self.grants.insert(GrantId { job, no })),
                        _ if is_submission(event) => drop(self.jobs.insert(job, event.ctx.schema)),
                        _ => {}
                    }
                }
            }
            Record::Note(Note::Accepted { grant, .. }) => drop(self.notes.insert(*grant)),
            Record::Note(Note::Met { .. }) | Record::CleanShutdown => {}
        }
    }

    fn reach(&mut self, log: LogId, last: Seq) {
        let len = self.lens.entry(log).or_default();
        *len = (*len).max(last);
    }

    fn add_snapshot(&mut self, shared: &Shared) {
        shared.logs.iter().for_each(|end| self.reach(end.log, end.reach()));
        let facts = &shared.facts;
        for (job, known) in facts.jobs() {
            self.jobs.entry(job).or_insert_with(|| known.submit.as_ref().and_then(|submit| submit.schema()));
            for (no, grant) in known.grants.iter() {
                let id = GrantId { job, no: *no };
                let speaks = |node: &NodeId| !no.term.is_of(&job.log.node, node) && grant.run_by(node).is_some();
                self.grants.extend(grant.placed.as_ref().map(|_| id));
                self.notes.extend(facts.nodes().any(|(node, _)| speaks(node)).then_some(id));
            }
        }
        self.declarations.extend(facts.declarations().iter().map(|(id, _)| id));
    }

    /// A job that is held, but whose declaration is not, is not understood.
    fn understands(&self, job: &JobId) -> bool {
        self.jobs.get(job).is_some_and(|schema| schema.is_none_or(|id| self.declarations.contains(&id)))
    }
}

/// The disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    records: Vec<Record>,
    /// By first position, then by head: an author that forked wrote several.
    batches: BTreeMap<LogId, BTreeMap<(Seq, Hash), SignedBatch>>,
    /// What records and snapshots hold.
    books: Books,
    /// What snapshots hold of that.
    kept: Books,
    pending: VecDeque<(WriteId, Vec<Record>)>,
    /// Records ever written whose durability the node has heard of.
    heard: usize,
    /// Records that are gone because snapshots hold them.
    dropped: usize,
    /// This node's own snapshots, the two newest.
    own: Vec<Held>,
    /// Others' that it joined since the older of them.
    joined: Vec<Held>,
    /// Snapshots ever kept.
    snapshots: usize,
    /// How many there were when records were lost last.
    lossy: Option<usize>,
    /// Grants of which this life found tasks in supervisors' journals, whatever became of the log.
    pub(crate) journaled: BTreeSet<GrantId>,
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

    /// Loses some durable records for ever. Returns the jobs whose submission or declaration was among them, or lies behind one of them in its log, and whether
    /// any declaration does.
    pub(crate) fn lose(&mut self, lost: Range<usize>) -> (Vec<JobId>, bool) {
        let holes: Vec<(LogId, Seq)> = self.records[lost.clone()].iter().filter_map(place_of).collect();
        let behind = |record: &&Record| {
            place_of(record).is_some_and(|(log, seq)| holes.iter().any(|(of, hole)| *of == log && *hole <= seq))
        };
        let (mut gone, mut whole) = (Books::default(), self.kept.clone());
        for record in &self.records {
            if behind(&record) { gone.add(record) } else { whole.add(record) }
        }
        let understood = self.books.jobs.keys().filter(|job| self.books.understands(job));
        let jobs = understood.filter(|job| gone.jobs.contains_key(job) || !whole.understands(job)).copied().collect();
        self.books = self.kept.clone();
        self.batches.clear();
        for (index, record) in std::mem::take(&mut self.records).into_iter().enumerate() {
            if !lost.contains(&index) {
                self.index(&record);
                self.records.push(record);
            }
        }
        let written = self.dropped + lost.start..self.dropped + lost.end;
        let moved = |upto: usize| upto - upto.min(written.end).saturating_sub(written.start);
        self.own.iter_mut().for_each(|held| held.upto = moved(held.upto));
        self.heard = moved(self.heard);
        self.pending.clear();
        self.lossy = Some(self.snapshots);
        (jobs, !gone.declarations.is_empty())
    }

    /// All of it is gone. Returns the jobs whose submission was on it, and whether a declaration was.
    pub(crate) fn burn(&mut self) -> (Vec<JobId>, bool) {
        let Books { jobs, declarations, .. } = std::mem::take(self).books;
        (jobs.into_keys().collect(), !declarations.is_empty())
    }

    /// Every batch held: its log, its first position, its head.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (LogId, Seq, Hash)> {
        self.batches.iter().flat_map(|(log, held)| held.keys().map(|(seq, head)| (*log, *seq, *head)))
    }

    fn index(&mut self, record: &Record) {
        self.books.add(record);
        if let Record::Batch(batch) = record {
            let log = batch.header().log;
            self.batches.entry(log).or_default().insert((batch.header().first_seq, batch.head()), batch.clone());
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
        self.books.grants.contains(grant)
    }

    pub(crate) fn holds_job(&self, job: &JobId) -> bool {
        self.books.jobs.contains_key(job)
    }

    pub(crate) fn holds_declaration(&self, id: &Hash) -> bool {
        self.books.declarations.contains(id)
    }

    pub(crate) fn holds_note(&self, grant: &GrantId) -> bool {
        self.books.notes.contains(grant)
    }

    /// Events of `log` held from its start on.
    pub(crate) fn len(&self, log: &LogId) -> Seq {
        self.books.lens.get(log).copied().unwrap_or_default()
    }

    /// The node hears that all that was written is durable.
    pub(crate) fn hear(&mut self) {
        self.heard = self.dropped + self.records.len();
    }

    /// Records ever written that the node has heard to be durable: what a snapshot of it holds.
    pub(crate) fn heard(&self) -> usize {
        self.heard
    }

    /// Keeps a snapshot of one's own, and drops what the one before holds.
    pub(crate) fn keep_own(&mut self, bytes: Arc<Bytes>, upto: usize) {
        self.snapshots += 1;
        let covered = upto.saturating_sub(self.dropped).min(self.records.len());
        self.records[..covered].iter().for_each(|record| self.kept.add(record));
        self.own.push(Held { bytes, upto, number: self.snapshots });
        if self.own.len() > 2 {
            self.own.remove(0);
        }
        if let [older, _] = self.own.as_slice() {
            let (upto, number) = (older.upto, older.number);
            self.joined.retain(|joined| joined.number > number);
            for record in self.records.drain(..upto.saturating_sub(self.dropped)) {
                if let Record::Batch(batch) = record
                    && let Some(log) = self.batches.get_mut(&batch.header().log)
                {
                    log.remove(&(batch.header().first_seq, batch.head()));
                }
            }
            self.dropped = self.dropped.max(upto);
            self.batches.retain(|_, log| !log.is_empty());
        }
    }

    /// Keeps another node's snapshot.
    pub(crate) fn keep_joined(&mut self, held: Held, shared: &Shared) {
        self.snapshots += 1;
        self.books.add_snapshot(shared);
        self.kept.add_snapshot(shared);
        self.joined.push(Held { number: self.snapshots, ..held });
    }

    /// All snapshots.
    pub(crate) fn held(&self) -> Vec<Held> {
        self.own.iter().chain(&self.joined).cloned().collect()
    }

    /// Whether the newest snapshot holds more than so many of the batches of `log` from a position on that are still here.
    pub(crate) fn spares(&self, log: &LogId, from: Seq, batches: usize) -> bool {
        let upto = self.own.last().map_or(0, |own| own.upto.saturating_sub(self.dropped));
        let covered = self.records.iter().take(upto).filter_map(place_of);
        covered.filter(|(of, seq)| of == log && *seq >= from).nth(batches).is_some()
    }

    pub(crate) fn newest_own(&self) -> Option<&Held> {
        self.own.last()
    }

    pub(crate) fn snapshot_named(&self, id: &Hash) -> Option<Held> {
        self.own.iter().find(|held| snapshot::name(&held.bytes.shared) == *id).cloned()
    }

    /// What a node starts from.
    pub(crate) fn origin(&self, newest_is_damaged: bool) -> Origin {
        let older = self.own.len().saturating_sub(2);
        // A snapshot may be all that is left of what was lost. Nothing is promised for two faults of one disk.
        let is_spare = self.own.get(older).is_some_and(|held| self.lossy.is_none_or(|lossy| lossy < held.number));
        let own = if newest_is_damaged && is_spare { self.own.get(older) } else { self.own.last() };
        let number = own.map_or(0, |own| own.number);
        let joined = self.joined.iter().filter(|joined| joined.number > number).cloned().collect();
        Origin { own: own.cloned(), joined }
    }

    /// Where the records begin that a start from there needs.
    pub(crate) fn first_beyond(&self, origin: &Origin) -> usize {
        origin.own.as_ref().map_or(0, |own| own.upto.saturating_sub(self.dropped))
    }

    /// Whether what is asked for is not there any more, although it was, or something later is.
    pub(crate) fn is_gone(&self, log: &LogId, from: Seq, known: Seq) -> bool {
        let held = self.batches.get(log).into_iter().flat_map(BTreeMap::values);
        let next = held.map(SignedBatch::header).find(|header| header.last_seq() >= from);
        next.map_or(from <= known, |next| next.first_seq > from)
    }

    /// Whether a snapshot holds the log beyond this position.
    pub(crate) fn is_kept(&self, log: &LogId, seq: Seq) -> bool {
        self.kept.lens.get(log).is_some_and(|len| *len >= seq)
    }

    /// Events of `node` itself, over all its epochs.
    pub(crate) fn own_events(&self, node: &NodeId) -> u64 {
        self.books.lens.iter().filter(|(log, _)| log.node == *node).map(|(_, len)| len.0).sum()
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
