//! Writing: numbering and signing this node's events, and what follows once a write is durable.
//!
//! Invariants: fold, gossip and acknowledgement happen in `on_durable` and nowhere else (DESIGN L1); a new epoch opens with its first event (L2).

use std::collections::BTreeMap;

use super::io::{AckLevel, CommandError, Effect, Notice, Record, Reply};
use super::note::Note;
use super::outbox::InFlight;
use super::resume::Accepted;
use super::{Disk, Machine};
use crate::event::{Entry, Event, SignedBatch, membership_mac};
use crate::facts::Touched;
use crate::ids::{Dot, GrantId, Hash, NodeId, Seq, WriteId};
use crate::limits;
use crate::log::Ingest;
use crate::namespace::{is_submission, sys};
use crate::sync::Message;
use crate::time::{Mono, Now};

/// A disk that refused is tried again after this long.
const DISK_RETRY_MS: u64 = 1_000;

impl Machine {
    /// When to write next: what is being held back for company, or the next try of a disk that refused.
    pub(super) fn flush_deadline(&self) -> Option<Mono> {
        if self.outbox.in_flight.is_some() {
            return None;
        }
        match &self.disk {
            Disk::Refuses { retry, .. } => Some(*retry),
            Disk::Accepts if self.outbox.is_empty() => None,
            Disk::Accepts => Some(self.outbox.pace.due(self.outbox.urgency(), &self.config)),
        }
    }

    /// Hands what waits to the disk, unless a write is in flight or company is expected.
    pub(super) fn flush(&mut self, now: Now) {
        if self.outbox.in_flight.is_some() {
            return;
        }
        match &self.disk {
            Disk::Refuses { retry, .. } if now.mono < *retry => return,
            // The write may be empty: otherwise a node that refuses all work would never learn that there is room again.
            Disk::Refuses { .. } => {}
            Disk::Accepts if self.outbox.is_empty() => return,
            Disk::Accepts => {}
        }
        let full = self.outbox.own_len() >= limits::BATCH_EVENTS_MAX;
        if !full && now.mono < self.outbox.pace.due(self.outbox.urgency(), &self.config) {
            return;
        }
        let mut own = self.outbox.drain_own(&mut self.clock, now.wall);
        // After a clean stop a node goes on in its last epoch: that must not be one it has given up.
        let leaves_frozen = self.frozen && self.outbox.marker;
        if (leaves_frozen || !own.is_empty()) && self.logs.tail(&self.own_log()).0 == Seq(0) {
            let mac = membership_mac(&self.identity.secret, &self.me);
            own.insert(0, sys::admit(self.clock.tick(now.wall), mac, &self.config.name));
        }
        self.outbox.pace.wrote(now.mono, own.len());
        let mut records: Vec<Record> =
            core::mem::take(&mut self.outbox.remote).into_iter().map(Record::Batch).collect();
        self.outbox.remote_bytes = 0;
        records.extend(self.sign(&own).into_iter().map(Record::Batch));
        records.extend(core::mem::take(&mut self.outbox.notes).into_iter().map(Record::Note));
        if core::mem::take(&mut self.outbox.marker) {
            records.push(Record::CleanShutdown);
        }
        let write = self.outbox.next_write();
        self.effects.push(Effect::Write { write, records: records.clone() });
        let answers = core::mem::take(&mut self.outbox.answers);
        let imports = core::mem::take(&mut self.outbox.imports);
        self.outbox.in_flight = Some(InFlight { write, records, own, answers, imports });
    }

    /// Signs events as batches at the tail of this node's log.
    fn sign(&mut self, events: &[Event]) -> Vec<SignedBatch> {
        let mut batches = Vec::new();
        let mut chunk: Vec<(Event, Vec<u8>)> = Vec::new();
        let mut size = limits::BATCH_OVERHEAD_BYTES;
        for event in events {
            let bytes = event.to_bytes();
            let cost = bytes.len() + 8;
            if chunk.len() == limits::BATCH_EVENTS_MAX || size + cost > limits::BATCH_BYTES_MAX {
                batches.extend(self.seal_batch(core::mem::take(&mut chunk)));
                size = limits::BATCH_OVERHEAD_BYTES;
            }
            size += cost;
            chunk.push((event.clone(), bytes));
        }
        batches.extend(self.seal_batch(chunk));
        batches
    }

    fn seal_batch(&mut self, events: Vec<(Event, Vec<u8>)>) -> Option<SignedBatch> {
        if events.is_empty() {
            return None;
        }
        let (tail, prev): (Seq, Hash) = self.logs.tail(&self.own_log());
        let signer = self.identity.signer.clone();
        let batch = SignedBatch::seal(&signer, self.cluster, self.epoch, Seq(tail.0 + 1), prev, events);
        let taken = self.logs.ingest(batch.clone());
        assert!(matches!(taken, Ingest::Ready(_)), "one's own next batch continues one's own log");
        Some(batch)
    }

    /// A write is on disk: fold, gossip, acknowledge.
    pub(super) fn on_durable(&mut self, now: Now, write: WriteId) {
        let Some(done) = self.outbox.in_flight.take_if(|flight| flight.write == write) else {
            return;
        };
        if self.disk != Disk::Accepts {
            self.disk = Disk::Accepts;
            self.effects.push(Effect::Notice(Notice::DiskAccepts));
        }
        let mut have: BTreeMap<NodeId, (crate::ids::LogId, Seq)> = BTreeMap::new();
        for record in done.records {
            match record {
                Record::Batch(batch) => {
                    let header = *batch.header();
                    self.keeping.wrote(batch.bytes().len());
                    self.logs.confirm(&batch);
                    self.fold_batch(now, &batch);
                    if header.log.node == self.me {
                        self.effects.push(Effect::Gossip(batch.clone()));
                    } else if holds_submission(&batch) {
                        have.insert(header.log.node, (header.log, header.last_seq()));
                    }
                    self.effects.push(Effect::Notice(Notice::Folded(batch)));
                }
                Record::Note(Note::Accepted { grant, tasks, attempt, pool }) => {
                    self.keep_accepted(grant, Accepted { tasks, attempt, pool });
                    self.on_accept_durable(now, grant);
                }
                Record::Note(Note::Met { .. }) => {}
                Record::CleanShutdown => {
                    self.stopped = true;
                    self.effects.push(Effect::Notice(Notice::Stopped));
                }
            }
        }
        let imported = done.imports.into_iter().map(|(request, taken)| (request, Reply::Imported(taken)));
        let answers = done.answers.into_iter().chain(imported);
        self.effects.extend(answers.map(|(request, reply)| Effect::Reply { request, reply }));
        for (author, (log, len)) in have {
            if self.sync.is_linked(&author) {
                self.effects.push(Effect::Send { to: author, message: Message::Have { log, len } });
            }
        }
    }

    fn fold_batch(&mut self, now: Now, batch: &SignedBatch) {
        let log = batch.header().log;
        for (seq, entry) in batch.entries() {
            let dot = Dot { log, seq };
            let touched = self.facts.fold(dot, entry, &self.registry);
            if let Entry::Event(event) = entry {
                if log.node != self.me {
                    self.clock.observe(event.hlc, now.wall);
                }
                match touched {
                    Touched::Nothing | Touched::Node(_) => {}
                    Touched::Gateway => {
                        self.elect_due = now.mono;
                        self.effects.push(Effect::Notice(Notice::GatewayFacts));
                    }
                    Touched::Retired(jobs) => self.on_retired(&jobs),
                    Touched::Owner(log) => self.on_owner_changed(now, log),
                    Touched::Job(job) => self.on_job_touched(now, dot, job, event),
                    Touched::Declaration(read) => {
                        for (dot, event) in read {
                            if let Some(job) = event.ctx.job {
                                self.on_job_touched(now, dot, job, &event);
                            }
                        }
                    }
                }
            }
        }
    }

    /// A submission of this node is folded: answer, or wait for another node's disk.
    pub(super) fn on_submission_durable(&mut self, dot: Dot, job: crate::ids::JobId) {
        let Some(owed) = self.owed_local.remove(&job) else {
            return;
        };
        let peers = self.sync.links().next().is_some();
        if owed.level == AckLevel::Remote1 && peers {
            self.owed_remote.insert((dot.log, dot.seq), owed);
        } else {
            self.acknowledge(owed, AckLevel::Local);
        }
    }

    pub(super) fn acknowledge(&mut self, owed: super::Owed, level: AckLevel) {
        let reply = Reply::Submitted { job: owed.job, level, fresh: true };
        self.effects.push(Effect::Reply { request: owed.request, reply });
    }

    /// Another node has this node's log on disk up to `len`.
    pub(super) fn on_have(&mut self, log: crate::ids::LogId, len: Seq) {
        while let Some(entry) = self.owed_remote.first_entry() {
            let (of, seq) = *entry.key();
            if of > log || (of == log && seq > len) {
                break;
            }
            let owed = entry.remove();
            let level = if of == log { AckLevel::Remote1 } else { AckLevel::Local };
            self.acknowledge(owed, level);
        }
    }

    /// The disk refused: nothing of the write counts. Submissions are refused, everything else waits for the next try.
    pub(super) fn on_write_failed(&mut self, now: Now, write: WriteId, reason: String) {
        let Some(failed) = self.outbox.in_flight.take_if(|flight| flight.write == write) else {
            return;
        };
        self.logs.retract_undurable();
        // What others' batches wait for the next write may continue those that failed: all of them come again by anti-entropy.
        self.outbox.remote.clear();
        self.outbox.remote_bytes = 0;
        for owed in core::mem::take(&mut self.owed_local).into_values() {
            let reply = Reply::Error(CommandError::DiskRefuses(reason.clone()));
            self.effects.push(Effect::Reply { request: owed.request, reply });
        }
        self.refuse_imports(failed.imports, &reason);
        // Their events come again, and so does the answer.
        self.outbox.answers.extend(failed.answers);
        let is_kept = |event: &Event| sys::admission_mac(event).is_none() && !is_submission(event);
        for event in failed.own.into_iter().filter(is_kept) {
            self.outbox.push(event);
        }
        for record in failed.records {
            match record {
                Record::Note(note) => self.outbox.notes.push(note),
                Record::CleanShutdown => self.outbox.marker = true,
                // Others' batches come again by anti-entropy.
                Record::Batch(_) => {}
            }
        }
        self.outbox.drop_submissions();
        self.effects.push(Effect::Notice(Notice::DiskRefuses(reason.clone())));
        self.disk = Disk::Refuses { reason, retry: now.mono.after_ms(DISK_RETRY_MS) };
        // Everyone should hear soon that this node takes no work.
        self.about.next_presence = now.mono;
    }

    fn on_accept_durable(&mut self, now: Now, grant: GrantId) {
        let lost = self.executor.on_durable(&grant);
        if let Some(owner) = self.accepting.remove(&grant) {
            self.answer_offer(now, owner, grant, super::work::Answer::Accepted);
        }
        if let Some(lost) = lost {
            self.report(lost);
        }
    }
}

/// Whether a client may wait for the news that this batch is on a second disk.
fn holds_submission(batch: &SignedBatch) -> bool {
    batch.entries().any(|(_, entry)| match entry {
        Entry::Event(event) => is_submission(event),
        Entry::Unread(_) => false,
    })
}
