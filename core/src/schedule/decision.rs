//! What an owner decides: events to write, offers to send.
//!
//! Does not: decide (`owner` does) or carry out (`machine` does).

use crate::facts::Outcome;
use crate::ids::{Attempt, GrantId, JobId, Seat};
use crate::lattice::IntervalSet;

/// What the owner wants written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Log a grant, then offer it.
    Grant {
        /// The grant.
        grant: GrantId,
        /// The executor, and whether it runs them itself.
        seat: Seat,
        /// The attempt.
        attempt: Attempt,
        /// The tasks.
        tasks: IntervalSet,
    },
    /// Log that a grant is withdrawn.
    Void(GrantId),
    /// Log final outcomes.
    Seal {
        /// The job.
        job: JobId,
        /// The tasks.
        tasks: IntervalSet,
        /// How they ended.
        outcome: Outcome,
    },
}

/// An offer to be sent, or sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// To whom, and for which of its places.
    pub seat: Seat,
    /// Which grant.
    pub grant: GrantId,
    /// The attempt.
    pub attempt: Attempt,
    /// The tasks.
    pub tasks: IntervalSet,
}
