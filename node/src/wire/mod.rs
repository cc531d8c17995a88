//! Frames between nodes: what travels on the two lanes of a link, and the signed presence.
//!
//! Invariants: bytes that do not decode are an error, never a panic; batches travel as the bytes that were signed.
//! Does not: send anything.

use bytes::Bytes;
use minicbor::bytes::ByteSlice;
use starling_core::event::{SIGNATURE_BYTES, Signer, verify};
use starling_core::ids::{Hash, JobId, LogId};
use starling_core::schedule::Presence;
use starling_core::sync::Message;

use crate::exec::output::Stream;
use crate::output::{Fetch, Kept, Place};

const PRESENCE_CONTEXT: &str = "starling 2026 presence v1";

/// Bytes that are no frame.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not the wire form.
    #[error("bytes are not a frame")]
    Malformed(#[from] minicbor::decode::Error),
    /// Too short to hold a signature, or signed by somebody else.
    #[error("presence is not signed by the node it names")]
    Signature,
}

/// A frame on lane Control.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub enum Control {
    /// For the Machine.
    #[n(0)]
    Core(#[n(0)] Message),
    /// "Send me this output."
    #[n(1)]
    Fetch {
        /// Echoed.
        #[n(0)]
        id: u64,
        /// What.
        #[n(1)]
        fetch: Fetch,
    },
    /// What became of a `Bulk::Push`.
    #[n(2)]
    Pushed {
        /// The push's.
        #[n(0)]
        id: u64,
        /// What.
        #[n(1)]
        kept: Kept,
    },
    /// "Send me this piece of a snapshot."
    #[n(3)]
    Piece {
        /// The snapshot's name.
        #[n(0)]
        id: Hash,
        /// From where.
        #[n(1)]
        offset: u64,
    },
    /// A presence as its author signed it: the sender's own, or what was last said in the receiver's name, by it or by a twin.
    #[n(4)]
    Said(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// A frame on lane Bulk.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub enum Bulk<'a> {
    /// The answer to a pull.
    #[n(0)]
    Batches {
        /// The log.
        #[n(0)]
        log: LogId,
        /// Whether there is more.
        #[n(1)]
        more: bool,
        /// Signed batches, in order.
        #[b(2)]
        batches: Vec<&'a ByteSlice>,
    },
    /// The answer to a fetch.
    #[n(1)]
    Fetched {
        /// The request's.
        #[n(0)]
        id: u64,
        /// The stream's length.
        #[n(1)]
        len: u64,
        /// The bytes.
        #[b(2)]
        data: &'a ByteSlice,
    },
    /// The end of a stream, for the job's owner to keep.
    #[n(2)]
    Tail {
        /// Whose.
        #[n(0)]
        place: Place,
        /// Which one.
        #[n(1)]
        stream: Stream,
        /// The bytes.
        #[b(2)]
        data: &'a ByteSlice,
    },
    /// Lines that a client pushed to a job, for its owner to keep.
    #[n(3)]
    Push {
        /// Echoed.
        #[n(0)]
        id: u64,
        /// Which job's.
        #[n(1)]
        job: JobId,
        /// The bytes.
        #[b(2)]
        data: &'a ByteSlice,
    },
    /// A piece of a snapshot.
    #[n(4)]
    Piece {
        /// The snapshot's name.
        #[n(0)]
        id: Hash,
        /// From where.
        #[n(1)]
        offset: u64,
        /// The bytes.
        #[b(2)]
        data: &'a ByteSlice,
    },
}

/// The wire form of any frame.
pub fn encode<T: minicbor::Encode<()>>(frame: &T) -> Bytes {
    Bytes::from(minicbor::to_vec(frame).expect("writing to memory cannot fail"))
}

/// A presence with its author's signature behind it.
#[must_use]
pub fn sign_presence(signer: &Signer, presence: &Presence) -> Bytes {
    let mut bytes = minicbor::to_vec(presence).expect("writing to memory cannot fail");
    let signature = signer.sign(PRESENCE_CONTEXT, &bytes);
    bytes.extend_from_slice(&signature);
    Bytes::from(bytes)
}

/// Reads and checks a signed presence.
///
/// # Errors
/// If it is malformed or not signed by the node it names.
pub fn open_presence(bytes: &[u8]) -> Result<Presence, WireError> {
    let (body, signature) = bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(WireError::Signature)?;
    let presence: Presence = minicbor::decode(body)?;
    if verify(&presence.node, PRESENCE_CONTEXT, body, signature) { Ok(presence) } else { Err(WireError::Signature) }
}

#[cfg(test)]
mod tests {
    use starling_core::ids::{Epoch, NodeId};

    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let control = Control::Core(Message::Digest(7));
        assert_eq!(minicbor::decode::<Control>(&encode(&control)).unwrap(), control);
        let log = LogId { node: NodeId([1; 32]), epoch: Epoch(2) };
        let bulk = Bulk::Batches { log, more: true, batches: vec![b"one"[..].into(), b"two"[..].into()] };
        let bytes = encode(&bulk);
        assert_eq!(minicbor::decode::<Bulk<'_>>(&bytes).unwrap(), bulk);
        assert!(minicbor::decode::<Bulk<'_>>(&bytes[..bytes.len() - 1]).is_err());
        assert!(open_presence(&[0; 10]).is_err());
    }
}
