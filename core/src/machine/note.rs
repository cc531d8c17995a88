//! Notes: records of this node's own, beside the log, that nobody else is told.
//!
//! Invariants: a note is on disk before anything follows from it; one that is not pressing goes along with the next write.

use minicbor::{Decode, Encode};

use crate::ids::{Attempt, GrantId, NodeId, PoolName};
use crate::lattice::IntervalSet;

/// What only this node needs to remember.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Note {
    /// This node accepted tasks under a grant.
    #[n(0)]
    Accepted {
        /// The grant.
        #[n(0)]
        grant: GrantId,
        /// The tasks.
        #[n(1)]
        tasks: IntervalSet,
        /// The attempt. Absent in what older versions wrote.
        #[n(2)]
        attempt: Option<Attempt>,
        /// The pool of workers that is to run them, if one is.
        #[n(3)]
        pool: Option<PoolName>,
    },
    /// This node heard another for the first time, so that its silence means something from now on.
    #[n(1)]
    Met {
        /// Which.
        #[n(0)]
        node: NodeId,
    },
}

impl Note {
    /// Whether it needs a write of its own; others go along with the next.
    pub(super) fn is_pressing(&self) -> bool {
        match self {
            Self::Accepted { .. } => true,
            Self::Met { .. } => false,
        }
    }
}
