//! Messages: what one node says to another over their link.
//!
//! Invariants: encodes in one way; bytes that do not decode are an error, never a panic.
//! Does not: carry batches; those travel as gossip or as answers to a pull, raw, so that hash and signature cover the bytes received.

use minicbor::{Decode, Encode};

use crate::ids::{GrantId, Hash, LogId, Seq};
use crate::log::Frontier;
use crate::resources::Resources;
use crate::schedule::Offer;

/// A direct message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// "Does your frontier hash to this?" Answered with `Tips` if not.
    #[n(0)]
    Digest(#[n(0)] u64),
    /// "This is what I hold." Answered with `TipsBack` if the receiver lacks something too.
    #[n(1)]
    Tips(#[n(0)] Frontier),
    /// The answer to `Tips`; not answered.
    #[n(2)]
    TipsBack(#[n(0)] Frontier),
    /// "Send me this log from there on."
    #[n(3)]
    Pull {
        /// The log.
        #[n(0)]
        log: LogId,
        /// The first event wanted.
        #[n(1)]
        from: Seq,
        /// Whether a snapshot would do: where there is much to send, or branches that may lie in it alone. Absent in what older versions say.
        #[cbor(n(2), default)]
        or_snapshot: bool,
        /// The receiver's snapshot that was joined last: what lies beside it is wanted. Absent in what older versions say.
        #[n(3)]
        joined: Option<Hash>,
    },
    /// "Your log is on my disk up to here."
    #[n(4)]
    Have {
        /// The receiver's log.
        #[n(0)]
        log: LogId,
        /// Events held durably.
        #[n(1)]
        len: Seq,
    },
    /// "Run these."
    #[n(5)]
    Offer(#[n(0)] Offer),
    /// The answer to an offer.
    #[n(6)]
    OfferReply {
        /// The grant.
        #[n(0)]
        grant: GrantId,
        /// Whether it was accepted, durably.
        #[n(1)]
        accepted: bool,
        /// What is free on the executor now.
        #[n(2)]
        free: Resources,
    },
    /// "I have free slots and you have a backlog" (DESIGN J4).
    #[n(7)]
    Ask {
        /// What the sender has in all.
        #[n(0)]
        total: Resources,
        /// What is free there.
        #[n(1)]
        free: Resources,
    },
    /// The answer to a pull of what the sender has no longer, or of more than its snapshot takes: "I have a snapshot of all of it."
    #[n(8)]
    SnapshotAhead {
        /// The log that was asked for.
        #[n(0)]
        log: LogId,
        /// The snapshot's name.
        #[n(1)]
        id: Hash,
        /// How long its shared part is.
        #[n(2)]
        bytes: u64,
    },
}

/// Bytes that are no message.
#[derive(Debug, thiserror::Error)]
#[error("bytes are not a message")]
pub struct MessageError(#[from] minicbor::decode::Error);

impl Message {
    /// The wire form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// If the bytes are anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        Ok(minicbor::decode(bytes)?)
    }
}
