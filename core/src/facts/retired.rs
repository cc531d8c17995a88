//! Which jobs are retired: sealed, kept for a while, and dropped from Facts for ever (DESIGN J9).
//!
//! The filter algebra (map, retired): joining two Facts joins their maps and their sets of retired jobs, and leaves out of the map whatever is retired. A set of
//! numbers per log is mostly one range, so a million retired jobs cost what one costs.
//! Invariants: grows only; a job that is retired is in no map, whatever arrives of it and in whichever order.
//! Does not: decide when a job is retired (`machine` of its owner does), nor remember what it was (`past` makes the record that history keeps).

use std::collections::{BTreeMap, BTreeSet, btree_map};

use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};
use smol_str::SmolStr;

use super::{Facts, Job};
use crate::event::Event;
use crate::ids::{Dot, Epoch, JobId, JobNo, LogId, NodeId};
use crate::lattice::{Change, Lattice, Numbers};
use crate::limits;
use crate::time::Hlc;

/// Retired jobs by log, under the name of whoever owned them then and said so (`namespace::sys` reads nobody else's word).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    by_log: BTreeMap<LogId, BTreeMap<NodeId, Numbers>>,
}

impl Retired {
    /// What one statement says.
    #[must_use]
    pub fn one(log: LogId, author: NodeId, jobs: Numbers) -> Self {
        if jobs.is_empty() {
            return Self::default();
        }
        Self { by_log: BTreeMap::from([(log, BTreeMap::from([(author, jobs)]))]) }
    }

    /// Whether the job is retired.
    #[must_use]
    pub fn contains(&self, id: &JobId) -> bool {
        self.of(&id.log).any(|jobs| jobs.contains(id.no.0))
    }

    /// What is retired of one log: sets that may overlap.
    pub fn of(&self, log: &LogId) -> impl Iterator<Item = &Numbers> + use<'_> {
        self.by_log.get(log).into_iter().flat_map(BTreeMap::values)
    }

    /// The retired jobs with this number among all logs of `node`.
    pub fn called(&self, node: &NodeId, no: JobNo) -> impl Iterator<Item = JobId> {
        self.logs_of(node).map(move |log| JobId { log: *log, no }).filter(|id| self.contains(id))
    }

    /// The greatest number that is retired of any log of `node`.
    #[must_use]
    pub fn last_of(&self, node: &NodeId) -> Option<JobNo> {
        self.logs_of(node).flat_map(|log| self.of(log)).filter_map(Numbers::last).max().map(JobNo)
    }

    fn logs_of(&self, node: &NodeId) -> impl Iterator<Item = &LogId> {
        let range = LogId { node: *node, epoch: Epoch(0) }..=LogId { node: *node, epoch: Epoch(u64::MAX) };
        self.by_log.range(range).map(|(log, _)| log)
    }

    /// Every log, with whoever retired jobs of it and which.
    pub fn iter(&self) -> impl Iterator<Item = (&LogId, &NodeId, &Numbers)> {
        self.by_log.iter().flat_map(|(log, said)| said.iter().map(move |(author, jobs)| (log, author, jobs)))
    }

    /// How many jobs are retired.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.by_log.keys().flat_map(|log| self.of(log)).map(Numbers::len).fold(0, u64::saturating_add)
    }

    /// Whether nobody retired anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_log.is_empty()
    }
}

/// What retirement does to all else that is known.
impl Facts {
    /// Takes what is retired of these logs out of the map.
    pub(super) fn drop_retired(&mut self, logs: &[LogId]) -> Vec<(JobId, Job)> {
        let mut dropped = Vec::new();
        for log in logs {
            let Some(shelf) = self.jobs.get_mut(log) else {
                continue;
            };
            let mut numbers: Vec<JobNo> = Vec::new();
            for (start, end) in self.retired.of(log).flat_map(Numbers::ranges) {
                numbers.extend(shelf.range(JobNo(start)..=JobNo(end)).map(|(no, _)| *no));
            }
            for no in numbers {
                let Some(slot) = shelf.remove(&no) else {
                    continue;
                };
                // Without a digest it is no part of the sum.
                self.sum = self.sum.wrapping_sub(slot.digest.unwrap_or(0));
                dropped.push((JobId { log: *log, no }, slot.job));
            }
            if shelf.is_empty() {
                self.jobs.remove(log);
            }
        }
        for (id, job) in &dropped {
            if let Some((alias, hlc)) = job.submit.as_ref().and_then(|submit| Some((submit.alias()?, submit.hlc))) {
                self.remember_alias(alias.clone(), hlc, *id);
            }
        }
        let mut opaque = core::mem::take(&mut self.opaque);
        self.filter_opaque(&mut opaque);
        self.opaque = opaque;
        dropped
    }

    /// The name of a retired job goes on to name it, for as long as it is among the last `limits::RETIRED_KEYS_MAX`.
    pub(crate) fn remember_alias(&mut self, alias: SmolStr, hlc: Hlc, id: JobId) {
        self.aliases.entry(alias.clone()).or_default().insert((hlc, id));
        self.retired_aliases.push_back((alias, hlc, id));
        if self.retired_aliases.len() > limits::RETIRED_KEYS_MAX
            && let Some((alias, hlc, id)) = self.retired_aliases.pop_front()
            && let btree_map::Entry::Occupied(mut named) = self.aliases.entry(alias)
        {
            named.get_mut().remove(&(hlc, id));
            if named.get().is_empty() {
                named.remove();
            }
        }
    }

    /// The names of the jobs that were retired last, for a snapshot.
    pub(crate) fn retired_aliases(&self) -> impl Iterator<Item = &(SmolStr, Hlc, JobId)> {
        self.retired_aliases.iter()
    }

    /// Whether an event that is kept is about a retired job.
    pub(super) fn is_about_retired(&self, bytes: &[u8]) -> bool {
        !self.retired.is_empty()
            && Event::from_bytes(bytes).is_ok_and(|event| event.ctx.job.is_some_and(|id| self.is_retired(&id)))
    }

    pub(super) fn filter_opaque(&self, opaque: &mut BTreeMap<Dot, BTreeSet<Vec<u8>>>) {
        opaque.retain(|_, all| {
            all.retain(|bytes| !self.is_about_retired(bytes));
            !all.is_empty()
        });
    }
}

impl Lattice for Retired {
    fn join(&mut self, other: Self) -> Change {
        self.by_log.join(other.by_log)
    }
}

/// Wire form: a map of maps, keys ascending.
impl<C> Encode<C> for Retired {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        self.by_log.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Retired {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        Ok(Self { by_log: BTreeMap::decode(d, ctx)? })
    }
}
