//! Facts: what the log adds up to. Every node folds the same events into the same Facts, in whatever order they arrive.
//!
//! Invariants: a join-semilattice with `bot()`; `fold` is `join` with the delta of one event, which is total, pure and reads nothing but the declaration that the event names by its hash; any permutation of
//! the same events, with duplicates, gives equal bytes and equal roots.
//! Does not: contain anything one node believes alone (liveness is in `schedule::Fleet`).

mod bytes;
mod declared;
mod gateway;
mod job;
mod owners;
mod past;
mod phase;
mod retired;
mod roster;
mod run;
pub mod state;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};
use std::sync::Arc;

pub use bytes::FactsError;
pub use declared::{Declarations, Declared, Registration};
pub use gateway::{Claim, Gateway, Token};
pub use job::{Cancel, Grant, Handler, Handling, Job, Outcome, Placed, Submit, Wishes};
pub use owners::{Adoption, Owners};
pub use past::{Ended, Past, Ran};
pub use retired::Retired;
pub use roster::{Drain, Name, NodeInfo};
pub use run::{Extra, Port, Run, Usage};
use smol_str::SmolStr;

use crate::event::{Entry, Event};
use crate::ids::{Dot, Hash, JobId, JobNo, LogId, NodeId};
use crate::lattice::{Change, Lattice};
use crate::namespace::{Registry, opaque};
use crate::time::Hlc;

/// What one event adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// Nothing: the statement is not its author's to make, or says nothing.
    Nothing,
    /// Something about a member.
    Node(NodeId, NodeInfo),
    /// Something about a job.
    Job(JobId, Box<Job>),
    /// A namespace is declared.
    Declaration(Box<Declarations>),
    /// Something about the gateway.
    Gateway(Box<Gateway>),
    /// Jobs are retired.
    Retired(Box<Retired>),
    /// A node took over the jobs of a log.
    Adoption(LogId, Adoption),
    /// Of a namespace or version not known here: kept, folded when it is.
    Opaque(Dot, Vec<u8>),
}

/// What a fold changed, for whoever must look again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Nothing.
    Nothing,
    /// A member.
    Node(NodeId),
    /// A job.
    Job(JobId),
    /// The gateway: another holder, or a token.
    Gateway,
    /// These jobs were retired: this is the last that is known of them.
    Retired(Vec<(JobId, Job)>),
    /// The owner of a log's jobs.
    Owner(LogId),
    /// A declaration arrived, and with it the meaning of these events, which had been kept.
    Declaration(Vec<(Dot, Event)>),
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
    declarations: Declarations,
    gateway: Gateway,
    owners: Owners,
    retired: Retired,
    /// Jobs by the name that their client chose, earliest submitted first; found again from `jobs`, but for retired ones.
    aliases: BTreeMap<SmolStr, BTreeSet<(Hlc, JobId)>>,
    /// The names of jobs that were retired last.
    retired_aliases: VecDeque<(SmolStr, Hlc, JobId)>,
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
        self.nodes == other.nodes
            && self.opaque == other.opaque
            && self.declarations == other.declarations
            && self.gateway == other.gateway
            && self.retired == other.retired
            && self.owners == other.owners
            && self.jobs().eq(other.jobs())
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
            Entry::Event(event) => {
                let delta = self.delta(dot, event, registry);
                self.absorb(delta)
            }
            Entry::Unread(bytes) => self.absorb(Delta::Opaque(dot, bytes.clone())),
        }
    }

    /// What an event adds: by the namespaces of this binary, or by the declaration that the event names. A declaration is named by its content, so this
    /// is a function of the event alone wherever the declaration is known.
    fn delta(&self, dot: Dot, event: &Event, registry: &Registry) -> Delta {
        if registry.namespace(&event.ns).is_some() {
            return registry.delta(dot, event);
        }
        match event.ctx.schema.and_then(|hash| self.declarations.by_hash(&hash)) {
            Some(declaration) if declaration.spec.name == event.ns => declaration.delta(dot, event),
            Some(_) => Delta::Nothing,
            None => opaque(dot, event),
        }
    }

    /// A declaration has arrived: what was kept for it is folded now.
    fn unwrap_opaque(&mut self) -> Vec<(Dot, Event)> {
        let mut read = Vec::new();
        let known = |bytes: &Vec<u8>| {
            let event = Event::from_bytes(bytes).ok()?;
            let declaration = self.declarations.by_hash(&event.ctx.schema?)?;
            Some((event, Arc::clone(declaration)))
        };
        let ready = self.opaque.iter().flat_map(|(dot, all)| {
            all.iter()
                .filter_map(|bytes| known(bytes).map(|(event, declaration)| (*dot, bytes.clone(), event, declaration)))
        });
        for (dot, bytes, event, declaration) in ready.collect::<Vec<_>>() {
            let delta = if declaration.spec.name == event.ns { declaration.delta(dot, &event) } else { Delta::Nothing };
            if matches!(delta, Delta::Opaque(..)) {
                continue;
            }
            if let Some(all) = self.opaque.get_mut(&dot) {
                all.remove(&bytes);
                if all.is_empty() {
                    self.opaque.remove(&dot);
                }
            }
            self.absorb(delta);
            read.push((dot, event));
        }
        read
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
            Delta::Declaration(declarations) => {
                self.rest = None;
                let before = self.declarations.len();
                if !self.declarations.join(*declarations).grew() {
                    return Touched::Nothing;
                }
                let is_new = self.declarations.len() > before;
                Touched::Declaration(if is_new { self.unwrap_opaque() } else { Vec::new() })
            }
            Delta::Gateway(gateway) => {
                self.rest = None;
                if self.gateway.join(*gateway).grew() { Touched::Gateway } else { Touched::Nothing }
            }
            Delta::Retired(retired) => {
                self.rest = None;
                let logs: Vec<LogId> = retired.iter().map(|(log, _, _)| *log).collect();
                if !self.retired.join(*retired).grew() {
                    return Touched::Nothing;
                }
                Touched::Retired(self.drop_retired(&logs))
            }
            Delta::Opaque(_, bytes) if self.is_about_retired(&bytes) => Touched::Nothing,
            Delta::Adoption(log, adoption) => {
                self.rest = None;
                if self.owners.join(Owners::one(log, adoption)).grew() { Touched::Owner(log) } else { Touched::Nothing }
            }
            Delta::Opaque(dot, bytes) => {
                self.rest = None;
                self.opaque.entry(dot).or_default().insert(bytes);
                Touched::Nothing
            }
        }
    }

    /// A job that is retired stays out, whatever is said of it.
    fn join_job(&mut self, id: JobId, job: Job) -> Change {
        if self.retired.contains(&id) {
            return Change::None;
        }
        if let Some((alias, hlc)) = job.submit.as_ref().and_then(|submit| Some((submit.alias()?, submit.hlc))) {
            self.aliases.entry(alias.clone()).or_default().insert((hlc, id));
        }
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

    /// Folds what had been kept because an older version did not understand it.
    pub fn refold(&mut self, registry: &Registry) {
        for (dot, all) in core::mem::take(&mut self.opaque) {
            for bytes in all {
                let entry = Event::from_bytes(&bytes).map_or(Entry::Unread(bytes), Entry::Event);
                self.fold(dot, &entry, registry);
            }
        }
        self.rest = None;
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
        let declared = self.declarations.iter().map(|(hash, one)| digest_of(&(hash, one.first)));
        let gateway = (!self.gateway.is_empty()).then(|| digest_of(&("gateway", &self.gateway)));
        let owners = self.owners.iter().map(|entry| digest_of(&("owner", entry)));
        let retired = self.retired.iter().map(|(log, by, jobs)| digest_of(&("retired", log, by, jobs)));
        let few = declared.chain(gateway).chain(owners).chain(retired);
        members.chain(opaque).chain(few).fold(0, u128::wrapping_add)
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

    /// The jobs that were submitted at `node`.
    pub fn jobs_of(&self, node: &NodeId) -> impl Iterator<Item = (JobId, &Job)> {
        let range = LogId { node: *node, epoch: crate::ids::Epoch(0) }..=LogId {
            node: *node,
            epoch: crate::ids::Epoch(u64::MAX),
        };
        self.jobs
            .range(range)
            .flat_map(|(log, shelf)| shelf.iter().map(|(no, slot)| (JobId { log: *log, no: *no }, &slot.job)))
    }

    /// The jobs of one log.
    pub fn jobs_in(&self, log: &LogId) -> impl Iterator<Item = (JobId, &Job)> + use<'_> {
        let log = *log;
        let shelf = self.jobs.get(&log).into_iter().flatten();
        shelf.map(move |(no, slot)| (JobId { log, no: *no }, &slot.job))
    }

    /// Logs that hold jobs.
    pub fn logs(&self) -> impl Iterator<Item = &LogId> {
        self.jobs.keys()
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

    /// The declared namespaces.
    #[must_use]
    pub fn declarations(&self) -> &Declarations {
        &self.declarations
    }

    /// The gateway's claim and tokens.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Who owns the jobs of which log.
    #[must_use]
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Who owns a job.
    #[must_use]
    pub fn owner_of(&self, job: &JobId) -> NodeId {
        self.owners.owner_of(&job.log)
    }

    /// The job whose client chose this name; of several (submitted on two sides of a partition) the earliest.
    #[must_use]
    pub fn job_called(&self, alias: &str) -> Option<JobId> {
        self.aliases.get(alias)?.first().map(|(_, id)| *id)
    }

    /// Events that nobody here reads, with where they lie.
    pub fn opaque(&self) -> impl Iterator<Item = (&Dot, &Vec<u8>)> {
        self.opaque.iter().flat_map(|(dot, all)| all.iter().map(move |bytes| (dot, bytes)))
    }

    /// Events kept for a version that understands them.
    #[must_use]
    pub fn opaque_count(&self) -> usize {
        self.opaque.values().map(BTreeSet::len).sum()
    }

    /// Which jobs are retired.
    #[must_use]
    pub fn retired(&self) -> &Retired {
        &self.retired
    }

    /// Whether the job is retired: nothing is known of it here any more, and nothing will be.
    #[must_use]
    pub fn is_retired(&self, id: &JobId) -> bool {
        self.retired.contains(id)
    }

    /// Joins all that another node knows. Returns the jobs known here that were retired there.
    pub fn merge(&mut self, other: Self) -> (Change, Vec<(JobId, Job)>) {
        self.rest = None;
        let logs: Vec<LogId> = other.retired.iter().map(|(log, _, _)| *log).collect();
        let mut change = self.nodes.join(other.nodes).or(self.retired.join(other.retired));
        let dropped = self.drop_retired(&logs);
        for (log, shelf) in other.jobs {
            for (no, slot) in shelf {
                change = change.or(self.join_job(JobId { log, no }, slot.job));
            }
        }
        let mut opaque = other.opaque;
        self.filter_opaque(&mut opaque);
        let change = change.or(self.opaque.join(opaque)).or(self.declarations.join(other.declarations));
        let change = change.or(self.gateway.join(other.gateway)).or(self.owners.join(other.owners));
        self.unwrap_opaque();
        (change, dropped)
    }
}

impl Lattice for Facts {
    fn join(&mut self, other: Self) -> Change {
        self.merge(other).0
    }
}

fn digest_of<T: minicbor::Encode<()>>(value: &T) -> u128 {
    let bytes = minicbor::to_vec(value).expect("writing to memory cannot fail");
    let hash = blake3::hash(&bytes);
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_be_bytes(half)
}
