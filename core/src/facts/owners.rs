//! Owners: who owns the jobs of each log.
//!
//! Invariants: a log's author owns its jobs until another node adopts them; of several adoptions the one of the greatest term counts, and terms of different
//! nodes differ, so that all nodes agree on one owner.
//! Does not: decide who adopts (`election::steward` does) or when an adopter acts (`machine` does).

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::ids::{LogId, NodeId, Term};
use crate::lattice::{Change, Lattice, Max};
use crate::time::Hlc;

/// A node took over the jobs of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Adoption {
    /// In which term it owns them.
    #[n(0)]
    pub term: Term,
    /// Who.
    #[n(1)]
    pub node: NodeId,
    /// When.
    #[n(2)]
    pub hlc: Hlc,
}

/// The owners of all logs that were adopted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Owners(BTreeMap<LogId, Max<Adoption>>);

impl Owners {
    /// One adoption.
    #[must_use]
    pub fn one(log: LogId, adoption: Adoption) -> Self {
        Self(BTreeMap::from([(log, Max::new(adoption))]))
    }

    /// The adoption of `log` that counts.
    #[must_use]
    pub fn adoption(&self, log: &LogId) -> Option<&Adoption> {
        self.0.get(log)?.0.as_ref()
    }

    /// Who owns the jobs of `log`.
    #[must_use]
    pub fn owner_of(&self, log: &LogId) -> NodeId {
        self.adoption(log).map_or(log.node, |adoption| adoption.node)
    }

    /// In which term they are owned now.
    #[must_use]
    pub fn term_of(&self, log: &LogId) -> Term {
        self.adoption(log).map_or(Term::FIRST, |adoption| adoption.term)
    }

    /// All adoptions that count.
    pub fn iter(&self) -> impl Iterator<Item = (&LogId, &Adoption)> {
        self.0.iter().filter_map(|(log, adoption)| Some((log, adoption.0.as_ref()?)))
    }

    /// Whether nothing was ever adopted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Lattice for Owners {
    fn join(&mut self, other: Self) -> Change {
        self.0.join(other.0)
    }
}
