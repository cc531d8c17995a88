//! Import: signed batches that a person brings in a file, taken in as those of a peer that nobody trusts.
//!
//! Invariants: acceptance is that of `LogSet` and nothing else; an import is answered once all that is new in it is on disk, or refused if the disk refuses; what lies
//! beyond a gap is not kept, because there is no peer to ask for what lies before.
//! Does not: check signatures (a `SignedBatch` exists only with a good one) or read files.

use super::Machine;
use super::io::{CommandError, Effect, Reply};
use crate::event::SignedBatch;
use crate::ids::{RequestId, Seq};
use crate::limits;
use crate::time::Now;

/// What became of a batch that somebody brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Accepted: it goes to the disk, and is folded once it is there.
    New,
    /// Held already. Nothing changed.
    Known,
    /// What lies before it in its log is missing here.
    Gap {
        /// The first missing position.
        missing_from: Seq,
    },
    /// Its log does not open with a proof that its author knows the cluster's secret. Nothing changed.
    NotAdmitted,
    /// A bound is reached. Nothing changed.
    Full,
}

impl Machine {
    /// Takes in batches; the reply comes when what is new is durable, at once if nothing is.
    pub(super) fn import(
        &mut self,
        now: Now,
        request: RequestId,
        batches: Vec<SignedBatch>,
    ) -> Result<Option<Reply>, CommandError> {
        self.takes_writes()?;
        let waiting = self.outbox.imports.len();
        if waiting >= limits::IMPORTS_MAX {
            return Err(CommandError::Busy(waiting));
        }
        let taken: Vec<Taken> = batches.into_iter().map(|batch| self.take_in_imported(now, batch)).collect();
        if !taken.contains(&Taken::New) {
            return Ok(Some(Reply::Imported(taken)));
        }
        self.outbox.hurry();
        self.outbox.imports.push((request, taken));
        Ok(None)
    }

    fn take_in_imported(&mut self, now: Now, batch: SignedBatch) -> Taken {
        let header = batch.header();
        let missing_from = Seq(self.logs.reach(&header.log).0 + 1);
        if header.first_seq > missing_from { Taken::Gap { missing_from } } else { self.take_in(now, batch) }
    }

    /// The disk refused: nothing of these imports counts, and nobody brings them again but who brought them.
    pub(super) fn refuse_imports(&mut self, in_flight: Vec<(RequestId, Vec<Taken>)>, reason: &str) {
        let waiting = core::mem::take(&mut self.outbox.imports);
        for (request, _) in in_flight.into_iter().chain(waiting) {
            let reply = Reply::Error(CommandError::DiskRefuses(reason.to_owned()));
            self.effects.push(Effect::Reply { request, reply });
        }
    }
}
