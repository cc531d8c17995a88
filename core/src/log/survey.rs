//! A survey: what logs on a disk or in a file consist of, judged by their batches alone.
//!
//! It places batches as `LogSet` does, with two differences: it needs no secret, so it cannot tell members from others, and it goes on behind a hole, because the
//! part before may have given way to a snapshot.
//! Invariants: batches of one log are expected in the order of its chain; what is kept is 16 bytes a batch, at most `limits::SURVEY_BATCHES_MAX` of them.
//! Does not: hold batches, read anything, or say whether a hole is a fault.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::chain::{Chain, Placement};
use crate::event::{Entry, SignedBatch};
use crate::ids::{Hash, LogId, Seq};
use crate::limits;
use crate::namespace::sys;

/// How a batch fits to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surveyed {
    /// It continues its log.
    Next,
    /// It was there already.
    Again,
    /// Its author signed two different things for one position.
    Branch,
    /// It lies beyond a hole, and the log is taken to go on with it.
    Hole {
        /// The first position that is missing.
        from: Seq,
        /// The last one.
        to: Seq,
    },
    /// More batches than a survey keeps track of: it was left out.
    Full,
}

/// One log.
#[derive(Clone, Debug, Default)]
pub struct Span {
    chain: Chain,
    holes: Vec<(Seq, Seq)>,
    name: SmolStr,
    admitted: bool,
    batches: u64,
    events: u64,
    bytes: u64,
}

/// All logs of one place.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    logs: BTreeMap<LogId, Span>,
    batches: usize,
}

impl Survey {
    /// Takes the next batch into account.
    pub fn take(&mut self, batch: &SignedBatch) -> Surveyed {
        if self.batches >= limits::SURVEY_BATCHES_MAX {
            return Surveyed::Full;
        }
        let span = self.logs.entry(batch.header().log).or_default();
        let surveyed = span.take(batch);
        if surveyed != Surveyed::Again {
            self.batches += 1;
        }
        surveyed
    }

    /// All logs, in order.
    pub fn logs(&self) -> impl Iterator<Item = (&LogId, &Span)> {
        self.logs.iter()
    }

    /// One log.
    #[must_use]
    pub fn log(&self, log: &LogId) -> Option<&Span> {
        self.logs.get(log)
    }
}

impl Span {
    fn take(&mut self, batch: &SignedBatch) -> Surveyed {
        let header = batch.header();
        let surveyed = match self.chain.place(batch) {
            Placement::Next => Surveyed::Next,
            Placement::Duplicate => return Surveyed::Again,
            Placement::Fork => {
                // Beyond the bound it is counted all the same.
                let _room = self.chain.add_branch(batch);
                Surveyed::Branch
            }
            Placement::Gap => {
                let (from, to) = (Seq(self.chain.tail().0 + 1), Seq(header.first_seq.0 - 1));
                self.holes.push((from, to));
                self.chain.begin(header.first_seq, header.prev);
                Surveyed::Hole { from, to }
            }
        };
        if surveyed != Surveyed::Branch {
            self.chain.extend(batch);
        }
        if header.first_seq == Seq(1)
            && let Some((_, Entry::Event(event))) = batch.entries().next()
            && let Some(name) = sys::admitted_name(event)
        {
            self.name = name.clone();
            self.admitted = true;
        }
        self.batches += 1;
        self.events += u64::from(header.count);
        self.bytes += batch.bytes().len() as u64;
        surveyed
    }

    /// The position of the last event.
    #[must_use]
    pub fn len(&self) -> Seq {
        self.chain.tail()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// The head of the last batch.
    #[must_use]
    pub fn head(&self) -> Hash {
        self.chain.tail_head()
    }

    /// Missing positions, first and last of each hole, ascending.
    #[must_use]
    pub fn holes(&self) -> &[(Seq, Seq)] {
        &self.holes
    }

    /// The name that the author gave itself, if the beginning of the log is there.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the log opens with an `Admit`, or its beginning is not there.
    #[must_use]
    pub fn opens_well(&self) -> bool {
        self.admitted || self.holes.first().is_some_and(|(from, _)| *from == Seq(1))
    }

    /// Batches, those of other branches included.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Events in them.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where each batch of the chain begins, ascending, and the first 8 bytes of its head.
    pub fn marks(&self) -> impl Iterator<Item = (Seq, u64)> {
        self.chain.marks()
    }

    /// The first 8 bytes of the heads of batches on other branches.
    pub fn branches(&self) -> impl Iterator<Item = u64> {
        self.chain.all_branch_heads()
    }
}
