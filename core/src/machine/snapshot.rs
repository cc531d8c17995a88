//! Snapshots: all that a node holds as one value, so that the raw log below can go and a new node need not read it (ADR 17).
//!
//! Two parts: what all nodes share (where each log ends, Facts, their root) and what is this node's alone (acceptances that are open, keys of retired jobs, its clock).
//! Invariants: a snapshot holds what is durable and nothing else; the shared part is checked against its root wherever it comes from; whatever another node
//! sends is on this node's disk before it is joined.
//! Does not: write, send or fetch bytes (the edges do).

use std::collections::BTreeMap;

use minicbor::{Decode, Decoder, Encode, Encoder};
use smol_str::SmolStr;

use super::Machine;
use super::io::{Effect, Notice};
use super::resume::Accepted;
use crate::config::Config;
use crate::facts::{Facts, FactsError};
use crate::ids::{ClusterId, GrantId, Hash, JobId, LogId, NodeId};
use crate::lattice::IntervalSet;
use crate::limits;
use crate::log::LogEnd;
use crate::time::{Hlc, Mono, Now};

const VERSION: u8 = 1;
const CONTEXT: &str = "starling 2026 snapshot v1";
/// After a start, and after a snapshot that failed, the next is tried no sooner than this, or the configured time if that is shorter.
const SOON_MS: u64 = 60_000;
/// A peer whose snapshot was refused is not asked for it again for this long, nor for another for that long: it may have written that while the first one came.
const SHUN_MS: u64 = 60_000;
const SHUN_OTHER_MS: u64 = 2_000;

/// Why bytes are not a snapshot to be used here. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not the form that this version writes.
    #[error("bytes are not a snapshot: {0}")]
    Malformed(#[from] minicbor::decode::Error),
    /// Written by another version.
    #[error("a snapshot of format {0}; this program reads format {VERSION}")]
    Version(u8),
    /// Of another cluster.
    #[error("a snapshot of another cluster")]
    OtherCluster,
    /// Its Facts cannot be read.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// Its Facts are not those that it names.
    #[error("its facts have root {found}, it names root {named}")]
    WrongRoot {
        /// What it says.
        named: Hash,
        /// What its Facts have.
        found: Hash,
    },
    /// Logs out of order, or ends that cannot be.
    #[error("its logs are out of order")]
    Logs,
}

/// What all nodes share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where each log ends.
    pub logs: Vec<LogEnd>,
    /// What these logs add up to.
    pub facts: Facts,
}

/// What is one node's alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Local {
    /// Tasks that it accepted and has not reported the end of.
    #[n(0)]
    pub accepted: BTreeMap<GrantId, Accepted>,
    /// Idempotency keys of retired jobs, oldest first.
    #[n(1)]
    pub requests: Vec<Key>,
    /// Names that clients chose for retired jobs, oldest first.
    #[n(2)]
    pub aliases: Vec<Alias>,
    /// Its clock: never behind anything that it signed.
    #[n(3)]
    pub clock: Hlc,
    /// Nodes that it has heard. Absent in what older versions wrote.
    #[cbor(n(4), default)]
    pub met: Vec<NodeId>,
}

/// The key under which a retired job was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Key {
    /// The key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// The job.
    #[n(1)]
    pub job: JobId,
}

/// The name of a retired job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Alias {
    /// The name.
    #[cbor(n(0), with = "crate::facts::text")]
    pub name: SmolStr,
    /// When it was submitted.
    #[n(1)]
    pub hlc: Hlc,
    /// The job.
    #[n(2)]
    pub job: JobId,
}

/// A snapshot to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// The shared part.
    pub shared: Vec<u8>,
    /// The local part.
    pub local: Vec<u8>,
}

/// What happened to a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotNews {
    /// One is on disk.
    Written,
    /// One could not be written.
    Failed(String),
    /// This node was behind what others still have, and joined this node's. Anything may have changed.
    Joined(NodeId),
    /// A node's is no good, or does not come.
    Refused {
        /// Whose.
        from: NodeId,
        /// Why.
        reason: String,
    },
}

/// The name of a snapshot: a hash of its shared part.
#[must_use]
pub fn name(shared: &[u8]) -> Hash {
    Hash(blake3::derive_key(CONTEXT, shared))
}

impl Shared {
    fn to_bytes(cluster: &ClusterId, logs: &[LogEnd], facts: &mut Facts) -> Vec<u8> {
        let root = facts.root();
        let mut encoder = Encoder::new(Vec::new());
        let write = |e: &mut Encoder<Vec<u8>>| -> Result<(), minicbor::encode::Error<core::convert::Infallible>> {
            e.array(5)?.u8(VERSION)?.encode(cluster)?.encode(root)?.encode(logs)?.bytes(&facts.to_bytes())?;
            Ok(())
        };
        write(&mut encoder).expect("writing to memory cannot fail");
        encoder.into_writer()
    }

    /// Reads and checks the shared part.
    ///
    /// # Errors
    /// If it is of another form, version or cluster, or its Facts do not have the root that it names.
    pub fn from_bytes(bytes: &[u8], cluster: &ClusterId) -> Result<Self, SnapshotError> {
        let mut d = Decoder::new(bytes);
        if d.array()? != Some(5) {
            return Err(minicbor::decode::Error::message("a snapshot must be an array of 5").into());
        }
        let version = d.u8()?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        if d.decode::<ClusterId>()? != *cluster {
            return Err(SnapshotError::OtherCluster);
        }
        let named: Hash = d.decode()?;
        let logs: Vec<LogEnd> = d.decode()?;
        let mut facts = Facts::from_bytes(d.bytes()?)?;
        if d.position() != bytes.len() || !logs.windows(2).all(|pair| pair[0].log < pair[1].log) {
            return Err(SnapshotError::Logs);
        }
        if !logs.iter().all(LogEnd::is_sound) {
            return Err(SnapshotError::Logs);
        }
        let found = facts.root();
        if found == named { Ok(Self { logs, facts }) } else { Err(SnapshotError::WrongRoot { named, found }) }
    }
}

impl Local {
    /// Reads the local part.
    ///
    /// # Errors
    /// If the bytes are anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        Ok(minicbor::decode(bytes)?)
    }
}

/// A snapshot on its way to the disk.
#[derive(Debug)]
struct Writing {
    /// Where the logs end in it.
    ends: Vec<LogEnd>,
    /// The bytes of log that it covers.
    bytes: u64,
    /// Whether it is to take the place of another node's.
    joined: bool,
}

/// The books of snapshots.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Bytes of log since the last one.
    bytes: u64,
    /// The next is due no sooner.
    due: Mono,
    /// How long the last one was: the next is due no sooner than there is as much log.
    last: u64,
    /// Another node's was joined: one of one's own takes its place.
    joined: bool,
    /// The one that is being written.
    in_flight: Option<Writing>,
    /// Acceptances on this node's disk that may be open.
    accepted: BTreeMap<GrantId, Accepted>,
    /// How many of them there may be before they are looked through.
    accepted_max: usize,
    /// From whom one is being fetched, and which.
    fetching: Option<(NodeId, Hash)>,
    /// The last one joined from each node: it has nothing more to give.
    joined_last: BTreeMap<NodeId, Hash>,
    /// Peers whose last snapshot was no good, did not come, or had nothing more to give: which that was, and when.
    shunned: BTreeMap<NodeId, (Hash, Mono)>,
}

impl Keeping {
    /// The books of a node that starts now, with so many bytes of log beyond its snapshot.
    pub(super) fn new(
        now: Mono,
        config: &Config,
        bytes: u64,
        joined: bool,
        accepted: BTreeMap<GrantId, Accepted>,
    ) -> Self {
        let due = if joined { now } else { now.after_ms(SOON_MS.min(config.snapshot_ms)) };
        Self { bytes, due, joined, accepted, ..Self::default() }
    }

    /// So much was written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    fn is_due(&self, now: Mono, config: &Config) -> bool {
        let due = (self.joined || self.bytes >= config.snapshot_bytes.max(self.last)) && now >= self.due;
        // Never one while another's is on its way: which of the two files contains the other would be for chance to say.
        due && self.in_flight.is_none() && self.fetching.is_none()
    }
}

/// The part of an acceptance that is still open: nobody reported its end, the owner neither withdrew nor sealed it.
pub(super) fn still_open(facts: &Facts, me: &NodeId, grant: &GrantId, tasks: &IntervalSet) -> IntervalSet {
    if facts.is_retired(&grant.job) {
        return IntervalSet::new();
    }
    let job = facts.job(&grant.job);
    let known = job.and_then(|job| job.grants.lookup(&grant.no));
    // Nobody waits for what was withdrawn.
    if known.is_some_and(|grant| grant.void) {
        return IntervalSet::new();
    }
    let run = known.and_then(|grant| grant.run_by(me));
    let mut open = run.map_or_else(|| tasks.clone(), |run| tasks.difference(&run.all_ended()));
    if let Some(job) = job {
        open.subtract(&job.sealed_tasks());
    }
    open
}

impl Machine {
    /// An acceptance is on disk.
    pub(super) fn keep_accepted(&mut self, grant: GrantId, accepted: Accepted) {
        self.keeping.accepted.insert(grant, accepted);
        if self.keeping.accepted.len() > self.keeping.accepted_max.max(2 * limits::HELD_GRANTS_MAX) {
            self.drop_closed();
            self.keeping.accepted_max = 2 * self.keeping.accepted.len();
        }
    }

    fn drop_closed(&mut self) {
        let (facts, me) = (&self.facts, &self.me);
        self.keeping.accepted.retain(|grant, kept| !still_open(facts, me, grant, &kept.tasks).is_empty());
    }

    /// Writes a snapshot once there is enough log beyond the last one.
    pub(super) fn snapshot_due(&mut self, now: Now) {
        if self.stopping || !self.keeping.is_due(now.mono, &self.config) || self.disk_refusal().is_some() {
            return;
        }
        let logs = self.logs.ends();
        self.drop_closed();
        let requests = self.owner.retired_requests().map(|(key, job)| Key { key: key.clone(), job: *job });
        let aliases = self.facts.retired_aliases();
        let local = Local {
            accepted: self.keeping.accepted.clone(),
            requests: requests.collect(),
            aliases: aliases.map(|(name, hlc, job)| Alias { name: name.clone(), hlc: *hlc, job: *job }).collect(),
            clock: self.clock.last(),
            met: self.duties.met().copied().collect(),
        };
        let shared = Shared::to_bytes(&self.cluster, &logs, &mut self.facts);
        let local = minicbor::to_vec(&local).expect("writing to memory cannot fail");
        self.keeping.last = (shared.len() + local.len()) as u64;
        let joined = core::mem::take(&mut self.keeping.joined);
        self.keeping.in_flight = Some(Writing { ends: logs, bytes: self.keeping.bytes, joined });
        self.effects.push(Effect::Snapshot(Box::new(Bytes { shared, local })));
    }

    /// The snapshot is on disk, and what lies below it may be gone; or it could not be written.
    pub(super) fn on_snapshotted(&mut self, now: Now, result: Result<(), String>) {
        let Some(Writing { ends, bytes, joined }) = self.keeping.in_flight.take() else {
            return;
        };
        match result {
            Ok(()) => {
                self.logs.compact(&ends);
                self.keeping.bytes = self.keeping.bytes.saturating_sub(bytes);
                self.keeping.due = now.mono.after_ms(self.config.snapshot_ms);
                self.effects.push(Effect::Notice(Notice::Snapshot(SnapshotNews::Written)));
            }
            Err(reason) => {
                // What it was to replace cannot be given to anybody, and its batches are nowhere in this node's log.
                self.keeping.joined |= joined;
                self.keeping.due = now.mono.after_ms(SOON_MS.min(self.config.snapshot_ms));
                self.effects.push(Effect::Notice(Notice::Snapshot(SnapshotNews::Failed(reason))));
            }
        }
    }

    /// What this node asked `from` for lies below what that one still has; it offers a snapshot in its place.
    pub(super) fn on_snapshot_ahead(&mut self, now: Now, from: NodeId, log: LogId, id: Hash, bytes: u64) {
        if !self.sync.is_asked(&log, &from) {
            return;
        }
        self.sync.end_pull(&log);
        let for_ms = |failed: &Hash| if *failed == id { SHUN_MS } else { SHUN_OTHER_MS };
        let shunned = self.keeping.shunned.get(&from).is_some_and(|(id, at)| now.mono.since_ms(*at) < for_ms(id));
        let busy = self.keeping.fetching.is_some() || self.keeping.in_flight.is_some();
        let is_known = self.keeping.joined_last.get(&from) == Some(&id);
        if is_known && !shunned {
            // Only an older version offers again what it was told is joined. What is missing still lies in its log alone.
            self.keeping.shunned.insert(from, (id, now.mono));
        }
        if busy || is_known || shunned {
            return;
        }
        if bytes > limits::SNAPSHOT_BYTES_MAX {
            return self.refuse_snapshot(now, (from, id), format!("it would take {bytes} bytes"));
        }
        self.keeping.fetching = Some((from, id));
        self.effects.push(Effect::Fetch { from, id, bytes });
    }

    /// Whether a snapshot of this peer's is not asked for at present.
    pub(super) fn shuns(&self, now: Now, peer: &NodeId) -> bool {
        self.keeping.shunned.get(peer).is_some_and(|(_, at)| now.mono.since_ms(*at) < SHUN_MS)
    }

    /// Which of this peer's snapshots was joined last.
    pub(super) fn joined_of(&self, peer: &NodeId) -> Option<Hash> {
        self.keeping.joined_last.get(peer).copied()
    }

    /// A peer that comes back is asked again: mostly it was its absence that made it fail.
    pub(super) fn forgive(&mut self, peer: &NodeId) {
        self.keeping.shunned.remove(peer);
    }

    fn refuse_snapshot(&mut self, now: Now, (from, id): (NodeId, Hash), reason: String) {
        self.keeping.shunned.insert(from, (id, now.mono));
        self.effects.push(Effect::Notice(Notice::Snapshot(SnapshotNews::Refused { from, reason })));
    }

    /// Another node's snapshot was fetched, checked and written to this node's disk; or it was not.
    pub(super) fn on_fetched(&mut self, now: Now, from: NodeId, result: Result<Box<Shared>, String>) {
        let fetched = self.keeping.fetching.take();
        let shared = match result {
            Ok(shared) => *shared,
            Err(reason) => return self.refuse_snapshot(now, fetched.unwrap_or((from, Hash::ZERO)), reason),
        };
        self.keeping.joined_last.extend(fetched);
        let held = self.logs.frontier().digest();
        let Shared { logs, facts } = shared;
        let before = self.facts.owners().clone();
        let (_, dropped) = self.facts.merge(facts);
        self.facts.refold(&self.registry);
        let adopted = self.facts.owners().iter().map(|(log, _)| *log);
        let moved: Vec<LogId> =
            adopted.filter(|log| before.adoption(log) != self.facts.owners().adoption(log)).collect();
        moved.into_iter().for_each(|log| self.on_owner_changed(now, log));
        self.on_retired(&dropped);
        for end in logs {
            self.jump(now, &end);
        }
        self.next_job = self.next_job.max(self.next_job_number());
        self.keeping.joined = true;
        self.keeping.due = now.mono;
        self.effects.push(Effect::Notice(Notice::Snapshot(SnapshotNews::Joined(from))));
        if let Some((from, id)) = fetched.filter(|_| self.logs.frontier().digest() == held) {
            // Two nodes that cannot agree would fetch each other's, and write one each time, without a pause.
            self.keeping.shunned.insert(from, (id, now.mono));
        }
        self.look_at_all(now);
        // What lies beyond the snapshot comes from the log.
        if self.sync.is_linked(&from) {
            let digest = self.logs.frontier().digest();
            let message = crate::sync::Message::Digest(digest);
            self.effects.push(Effect::Send { to: from, message });
        }
    }

    fn jump(&mut self, now: Now, end: &LogEnd) {
        let (held, was_forked) = (self.logs.batches(&end.log), self.logs.is_forked(&end.log));
        let released = self.logs.jump(end);
        if !was_forked && self.logs.is_forked(&end.log) {
            self.effects.push(Effect::Notice(Notice::Forked(end.log)));
        }
        let Some(released) = released else {
            if self.logs.batches(&end.log) > held {
                self.learn_own_log(now, end.log);
            }
            return;
        };
        self.sync.end_pull(&end.log);
        self.learn_own_log(now, end.log);
        for batch in released {
            let urgency = self.urgency_of(&batch);
            self.outbox.push_remote(batch, urgency);
        }
    }

    /// Everything may have changed: owner and executor look at all that concerns them.
    fn look_at_all(&mut self, now: Now) {
        // Another node may have kept jobs of a log whose owner, which is this node, knew of none and acts for nothing there.
        let known: Vec<LogId> = self.facts.logs().copied().collect();
        for log in &known {
            self.note_duty(now, *log);
            if self.facts.jobs_in(log).any(|(id, _)| self.has_misread(&id)) {
                self.doubt_own_log(now, *log);
            }
        }
        let logs: Vec<LogId> = known.into_iter().filter(|log| self.acts_for(log)).collect();
        let mut decisions = Vec::new();
        for log in logs {
            let term = self.facts.owners().term_of(&log);
            let jobs: Vec<JobId> = self.facts.jobs_in(&log).map(|(id, _)| id).collect();
            for id in jobs {
                let Some(job) = self.facts.job(&id) else {
                    continue;
                };
                self.owner.on_job(now.mono, (id, term), job, None, &mut decisions);
                for no in job.grants.iter().map(|(no, _)| *no) {
                    self.owner.on_job(now.mono, (id, term), job, Some(no), &mut decisions);
                }
                self.keep_sealed(now.mono, id);
            }
        }
        self.decide(now, decisions);
        for grant in self.executor.held_grants() {
            let job = self.facts.job(&grant.job);
            let (void, cancelled) = job.map_or((false, false), |job| {
                (job.grants.lookup(&grant.no).is_some_and(|grant| grant.void), job.cancel.0.is_some())
            });
            if void {
                self.executor.on_void(grant);
            }
            if cancelled {
                let (kills, ended) = self.executor.on_cancel(&grant.job);
                self.effects.extend(kills.into_iter().map(Effect::Kill));
                ended.into_iter().for_each(|ended| self.report(ended));
            }
        }
        for (_, from, offer) in core::mem::take(&mut self.parked) {
            self.on_offer(now, from, offer);
        }
        self.elect_due = now.mono;
        self.effects.push(Effect::Notice(Notice::GatewayFacts));
        self.place_due = true;
    }
}
