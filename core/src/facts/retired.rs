//! Which jobs are retired: sealed, kept for a while, and dropped from Facts for ever (DESIGN J9).
//!
//! The filter algebra (map, retired): joining two Facts joins their maps and their sets of retired jobs, and leaves out of the map whatever is retired. A set of
//! numbers per log is mostly one range, so a million retired jobs cost what one costs.
//! Invariants: grows only; a job that is retired is in no map, whatever arrives of it and in whichever order.
//! Does not: decide when a job is retired (`machine` of its owner does), nor remember what it was (`past` makes the record that history keeps).

use std::collections::BTreeMap;

use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};

use crate::ids::{Epoch, JobId, JobNo, LogId, NodeId};
use crate::lattice::{Change, Lattice, Numbers};

/// Retired jobs by log, under the name of whoever retired them: authority is in the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    by_log: BTreeMap<LogId, BTreeMap<NodeId, Numbers>>,
}

/// Whether what `author` says of the retirement of jobs in `log` counts: it is the owner's to say.
fn may_retire(author: &NodeId, log: &LogId) -> bool {
    log.node == *author
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
    pub fn of(&self, log: &LogId) -> impl Iterator<Item = &Numbers> {
        let log = *log;
        let said = self.by_log.get(&log).into_iter().flatten();
        said.filter(move |(author, _)| may_retire(author, &log)).map(|(_, jobs)| jobs)
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
