//! Frontier: how much of every log a node holds durably, with the head hash at that point.
//!
//! Invariants: lengths only grow; equal frontiers mean equal logs, unless an author forked, which differing heads show.

use std::collections::BTreeMap;

use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};

use crate::ids::{Hash, LogId, Seq};

/// Where one log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub struct Tip {
    /// Events held.
    #[n(0)]
    pub len: Seq,
    /// The first 8 bytes of the hash of the last batch.
    #[n(1)]
    pub head: u64,
}

/// A version vector with head hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    tips: BTreeMap<LogId, Tip>,
    /// Sum of the hashes of the tips, so that one moving tip costs two hashes, however many logs there are.
    digest: u64,
}

fn tip_digest(log: &LogId, tip: &Tip) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&log.node.0);
    hasher.update(&log.epoch.0.to_le_bytes());
    hasher.update(&tip.len.0.to_le_bytes());
    hasher.update(&tip.head.to_le_bytes());
    Hash(*hasher.finalize().as_bytes()).prefix()
}

impl<C> Encode<C> for Frontier {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        self.tips.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Frontier {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let mut frontier = Self::default();
        for (log, tip) in BTreeMap::<LogId, Tip>::decode(d, ctx)? {
            frontier.set(log, tip);
        }
        Ok(frontier)
    }
}

impl Frontier {
    /// Sets where `log` ends.
    pub(crate) fn set(&mut self, log: LogId, tip: Tip) {
        let added = tip_digest(&log, &tip);
        let old = self.tips.insert(log, tip);
        let removed = old.map_or(0, |old| tip_digest(&log, &old));
        self.digest = self.digest.wrapping_add(added).wrapping_sub(removed);
    }

    /// Where `log` ends, if any of it is held.
    #[must_use]
    pub fn tip(&self, log: &LogId) -> Option<Tip> {
        self.tips.get(log).copied()
    }

    /// All logs, in order.
    pub fn tips(&self) -> impl Iterator<Item = (&LogId, &Tip)> {
        self.tips.iter()
    }

    /// Events held over all logs.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.tips.values().map(|tip| tip.len.0).sum()
    }

    /// Whether this holds at least the events that `other` does.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.tips.iter().all(|(log, tip)| self.tips.get(log).is_some_and(|own| own.len > tip.len || own == tip))
    }

    /// A hash of the whole, compared before frontiers are sent.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }
}
