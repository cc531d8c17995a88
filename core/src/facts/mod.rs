//! Facts: what the log adds up to. Every node folds the same events into the same Facts, in whatever order they arrive.
//!
//! Invariants: a join-semilattice with `bot()`; `fold` is `join` with the delta of one event, which is total, pure and reads nothing; any permutation of
//! the same events, with duplicates, gives equal bytes and equal roots.
//! Does not: contain anything one node believes alone (liveness is in `schedule::Fleet`).

mod job;
mod roster;
pub mod state;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub mod view;

use std::collections::{BTreeMap, BTreeSet, btree_map};

pub use job::{Cancel, Extra, Grant, Handler, Handling, Job, Outcome, Placed, Port, Run, Submit, Usage};
use minicbor::Encoder;
pub use roster::{Name, NodeInfo};

use crate::event::Entry;
use crate::ids::{Dot, Hash, JobId, JobNo, LogId, NodeId};
use crate::lattice::{Change, Lattice};
use crate::namespace::Registry;

/// What one event adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// Nothing: the statement is not its author's to make, or says nothing.
    Nothing,
    /// Something about a member.
    Node(NodeId, NodeInfo),
    /// Something about a job.
    Job(JobId, Box<Job>),
    /// Of a namespace or version not known here: kept, folded when it is.
    Opaque(Dot, Vec<u8>),
}

/// What a fold changed, for whoever must look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touched {
    /// Nothing.
    Nothing,
    /// A member.
    Node(NodeId),
    /// A job.
    Job(JobId),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slot {
    job: Job,
    /// Contribution to the root; `None` while the job has changed since.
    digest: Option<u128>,
}

/// The state of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    nodes: BTreeMap<NodeId, NodeInfo>,
    /// By log, so that a job costs an 8-byte key; boxed, because a tree's nodes are half empty.
    jobs: BTreeMap<LogId, BTreeMap<JobNo, Box<Slot>>>,
    /// A set for each position, because an author that forked may have written two different things there.
    opaque: BTreeMap<Dot, BTreeSet<Vec<u8>>>,
    /// Jobs whose digest is out of date.
    stale: Vec<JobId>,
    /// Sum of the digests of all other jobs.
    sum: u128,
    /// Sum of the digests of everything but jobs; `None` while that has changed since.
    rest: Option<u128>,
}

impl PartialEq for Facts {
    /// Compares what is known, not what is cached.
    fn eq(&self, other: &Self) -> bool {
        self.nodes == other.nodes && self.opaque == other.opaque && self.jobs().eq(other.jobs())
    }
}

impl Eq for Facts {}

impl Facts {
    /// Nothing is known.
    #[must_use]
    pub fn bot() -> Self {
        Self::default()
    }

    /// Folds one log entry.
    pub fn fold(&mut self, dot: Dot, entry: &Entry, registry: &Registry) -> Touched {
        match entry {
            Entry::Event(event) => self.absorb(registry.delta(dot, event)),
            Entry::Unread(bytes) => self.absorb(Delta::Opaque(dot, bytes.clone())),
        }
    }

    /// Joins a delta.
    pub fn absorb(&mut self, delta: Delta) -> Touched {
        match delta {
            Delta::Nothing => Touched::Nothing,
            Delta::Node(node, info) => {
                self.rest = None;
                if self.nodes.contains_key(&node) {
                    let change = self.nodes.entry(node).or_default().join(info);
                    return if change.grew() { Touched::Node(node) } else { Touched::Nothing };
                }
                self.nodes.insert(node, info);
                Touched::Node(node)
            }
            Delta::Job(id, job) => {
                if self.join_job(id, *job).grew() {
                    Touched::Job(id)
                } else {
                    Touched::Nothing
                }
            }
            Delta::Opaque(dot, bytes) => {
                self.rest = None;
                self.opaque.entry(dot).or_default().insert(bytes);
                Touched::Nothing
            }
        }
    }

    fn join_job(&mut self, id: JobId, job: Job) -> Change {
        match self.jobs.entry(id.log).or_default().entry(id.no) {
            btree_map::Entry::Vacant(entry) => {
                entry.insert(Box::new(Slot { job, digest: None }));
                self.stale.push(id);
                return Change::Grew;
            }
            btree_map::Entry::Occupied(mut entry) => {
                let slot = entry.get_mut();
                if !slot.job.join(job).grew() {
                    return Change::None;
                }
                // Without a digest it is on the list already.
                if let Some(old) = slot.digest.take() {
                    self.sum = self.sum.wrapping_sub(old);
                    self.stale.push(id);
                }
            }
        }
        Change::Grew
    }

    fn refresh(&mut self) {
        for id in core::mem::take(&mut self.stale) {
            let Some(slot) = self.jobs.get_mut(&id.log).and_then(|shelf| shelf.get_mut(&id.no)) else {
                continue;
            };
            if slot.digest.is_none() {
                let digest = digest_of(&(id, &slot.job));
                slot.digest = Some(digest);
                self.sum = self.sum.wrapping_add(digest);
            }
        }
    }

    /// A hash of all Facts: the sum of the hashes of its entries (Bellare and Micciancio, 1997), so that only what changed is hashed again.
    pub fn root(&mut self) -> Hash {
        self.refresh();
        let rest = match self.rest {
            Some(rest) => rest,
            None => self.sum_of_rest(),
        };
        self.rest = Some(rest);
        let sum = self.sum.wrapping_add(rest);
        let mut root = [0; 32];
        root[..16].copy_from_slice(&sum.to_be_bytes());
        Hash(root)
    }

    fn sum_of_rest(&self) -> u128 {
        let members = self.nodes.iter().map(|entry| digest_of(&entry));
        let opaque = self.opaque.iter().flat_map(|(dot, all)| all.iter().map(move |bytes| digest_of(&(dot, bytes))));
        members.chain(opaque).fold(0, u128::wrapping_add)
    }

    /// The job, if anything is known of it.
    #[must_use]
    pub fn job(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(&id.log)?.get(&id.no).map(|slot| &slot.job)
    }

    /// All jobs, by log and number.
    pub fn jobs(&self) -> impl DoubleEndedIterator<Item = (JobId, &Job)> {
        self.jobs
            .iter()
            .flat_map(|(log, shelf)| shelf.iter().map(|(no, slot)| (JobId { log: *log, no: *no }, &slot.job)))
    }

    /// The jobs that `node` owns.
    pub fn jobs_of(&self, node: &NodeId) -> impl Iterator<Item = (JobId, &Job)> {
        let range = LogId { node: *node, epoch: crate::ids::Epoch(0) }..=LogId {
            node: *node,
            epoch: crate::ids::Epoch(u64::MAX),
        };
        self.jobs
            .range(range)
            .flat_map(|(log, shelf)| shelf.iter().map(|(no, slot)| (JobId { log: *log, no: *no }, &slot.job)))
    }

    /// How many jobs are known.
    #[must_use]
    pub fn job_count(&self) -> usize {
        self.jobs.values().map(BTreeMap::len).sum()
    }

    /// The roster.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &NodeInfo)> {
        self.nodes.iter()
    }

    /// One member.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&NodeInfo> {
        self.nodes.get(id)
    }

    /// How many members there are.
    #[must_use]
    pub fn roster_size(&self) -> usize {
        self.nodes.len()
    }

    /// Events kept for a version that understands them.
    #[must_use]
    pub fn opaque_count(&self) -> usize {
        self.opaque.values().map(BTreeSet::len).sum()
    }

    /// The canonical bytes of everything, for comparing nodes byte by byte.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        let everything = (&self.nodes, self.jobs().collect::<Vec<_>>(), &self.opaque);
        encoder.encode(&everything).expect("writing to memory cannot fail");
        encoder.into_writer()
    }
}

impl Lattice for Facts {
    fn join(&mut self, other: Self) -> Change {
        self.rest = None;
        let mut change = self.nodes.join(other.nodes);
        for (log, shelf) in other.jobs {
            for (no, slot) in shelf {
                change = change.or(self.join_job(JobId { log, no }, slot.job));
            }
        }
        change.or(self.opaque.join(other.opaque))
    }
}

fn digest_of<T: minicbor::Encode<()>>(value: &T) -> u128 {
    let bytes = minicbor::to_vec(value).expect("writing to memory cannot fail");
    let hash = blake3::hash(&bytes);
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_be_bytes(half)
}
