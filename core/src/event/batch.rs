//! Batches: runs of one author's events under one signature.
//!
//! Wire form: `body ++ signature`. The body is the CBOR array `[1, cluster, node, epoch, first_seq, prev, [event bytes, …]]`;
//! its blake3 hash under a domain key is the *head*; the signature is ed25519 over the head; `prev` is the head of the batch before.
//! Invariants: a `SignedBatch` exists only if its bytes passed every check here; hash and signature cover the bytes received, never a re-encoding.
//! Does not: know whether the author is a member or the chain fits (`log` does).

use core::fmt;
use std::sync::Arc;

use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use minicbor::{Decoder, Encoder};

use super::Event;
use crate::ids::{ClusterId, Epoch, Hash, LogId, NodeId, Seq};
use crate::limits;

const HEAD_CONTEXT: &str = "starling 2026 batch head v1";
const MAC_CONTEXT: &str = "starling 2026 membership mac v1";
const CLUSTER_CONTEXT: &str = "starling 2026 cluster id v1";
/// Length of an ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;
const VERSION: u8 = 1;

/// The public name of the cluster that shares `secret`.
#[must_use]
pub fn cluster_id(secret: &[u8; 32]) -> ClusterId {
    ClusterId(blake3::derive_key(CLUSTER_CONTEXT, secret))
}

/// Proof that whoever made it knows the cluster's secret: what an `Admit` event carries (DESIGN section 10).
#[must_use]
pub fn membership_mac(secret: &[u8; 32], node: &NodeId) -> Hash {
    let key = blake3::derive_key(MAC_CONTEXT, secret);
    Hash(*blake3::keyed_hash(&key, &node.0).as_bytes())
}

/// A node's signing key. Its public half is the `NodeId`.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.node())
    }
}

impl Signer {
    /// From the 32 secret bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(seed) }
    }

    /// The public half.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.key.verifying_key().to_bytes())
    }
}

impl Signer {
    /// Signs anything but a batch, for instance a presence: `context` keeps the uses apart.
    #[must_use]
    pub fn sign(&self, context: &str, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.key.sign(&blake3::derive_key(context, bytes)).to_bytes()
    }
}

/// Whether `node` signed `bytes` with `Signer::sign`.
#[must_use]
pub fn verify(node: &NodeId, context: &str, bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    let digest = blake3::derive_key(context, bytes);
    VerifyingKey::from_bytes(&node.0).is_ok_and(|key| key.verify(&digest, &Signature::from_bytes(signature)).is_ok())
}

/// What a batch says before its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The log it continues.
    pub log: LogId,
    /// The position of its first event.
    pub first_seq: Seq,
    /// The head of the batch before it, `Hash::ZERO` at the start of a log.
    pub prev: Hash,
    /// How many events it holds.
    pub count: u32,
}

impl BatchHeader {
    /// The position of its last event.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        Seq(self.first_seq.0 + u64::from(self.count) - 1)
    }
}

/// One entry of a batch.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every entry is an event; a box would cost each of them an allocation"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An event of a shape this version reads.
    Event(Event),
    /// Bytes that it does not: kept, chained and passed on, folded by a later version.
    Unread(Vec<u8>),
}

/// Why bytes are not a batch. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Over the fixed limit.
    #[error("batch of {0} bytes is over the limit of {max}", max = limits::BATCH_BYTES_MAX)]
    TooLarge(usize),
    /// Not the wire form.
    #[error("bytes are not a batch: {0}")]
    Malformed(String),
    /// No events, or too many.
    #[error("batch of {0} events, allowed are 1 to {max}", max = limits::BATCH_EVENTS_MAX)]
    Count(u64),
    /// An event over the fixed limit.
    #[error("event of {0} bytes is over the limit of {max}", max = limits::EVENT_BYTES_MAX)]
    EventTooLarge(usize),
    /// Made for another cluster.
    #[error("batch belongs to another cluster")]
    OtherCluster,
    /// The author did not sign these bytes.
    #[error("signature does not match the author {0}")]
    Signature(NodeId),
}

struct Inner {
    bytes: Vec<u8>,
    header: BatchHeader,
    head: Hash,
    entries: Vec<Entry>,
}

/// A batch whose signature has been checked. Cheap to clone.
#[derive(Clone)]
pub struct SignedBatch(Arc<Inner>);

impl fmt::Debug for SignedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header();
        write!(f, "Batch({:?} {}+{})", header.log, header.first_seq, header.count)
    }
}

impl PartialEq for SignedBatch {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl Eq for SignedBatch {}

impl SignedBatch {
    /// Signs `events`, each with its canonical bytes, as the continuation of the signer's log after `prev`.
    ///
    /// # Panics
    /// If `events` is empty or over the limits, which only a local bug can bring about.
    #[must_use]
    pub fn seal(
        signer: &Signer,
        cluster: ClusterId,
        epoch: Epoch,
        first_seq: Seq,
        prev: Hash,
        events: Vec<(Event, Vec<u8>)>,
    ) -> Self {
        assert!(!events.is_empty() && events.len() <= limits::BATCH_EVENTS_MAX, "batch size");
        let log = LogId { node: signer.node(), epoch };
        let count = u32::try_from(events.len()).expect("bounded above");
        let header = BatchHeader { cluster, log, first_seq, prev, count };
        let mut bytes = encode_body(&header, &events);
        let head = head_of(&bytes);
        bytes.extend_from_slice(&signer.key.sign(&head.0).to_bytes());
        assert!(bytes.len() <= limits::BATCH_BYTES_MAX, "batch bytes");
        Self(Arc::new(Inner {
            bytes,
            header,
            head,
            entries: events.into_iter().map(|(event, _)| Entry::Event(event)).collect(),
        }))
    }

    /// Checks bytes from anywhere: form, limits, cluster, signature.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn open(bytes: &[u8], cluster: &ClusterId) -> Result<Self, BatchError> {
        let (batch, signature) = Self::parse(bytes, cluster)?;
        let author = batch.0.header.log.node;
        let verified =
            VerifyingKey::from_bytes(&author.0).is_ok_and(|key| key.verify(&batch.0.head.0, &signature).is_ok());
        if verified { Ok(batch) } else { Err(BatchError::Signature(author)) }
    }

    /// Reads bytes that this node verified before it wrote them to its own checksummed disk.
    ///
    /// # Errors
    /// If they are not a batch of this cluster.
    pub fn open_own(bytes: &[u8], cluster: &ClusterId) -> Result<Self, BatchError> {
        Self::parse(bytes, cluster).map(|(batch, _)| batch)
    }

    fn parse(bytes: &[u8], cluster: &ClusterId) -> Result<(Self, Signature), BatchError> {
        if bytes.len() > limits::BATCH_BYTES_MAX {
            return Err(BatchError::TooLarge(bytes.len()));
        }
        let (body, signature) =
            bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or_else(|| BatchError::Malformed("too short".into()))?;
        let malformed = |error: minicbor::decode::Error| BatchError::Malformed(error.to_string());
        let mut decoder = Decoder::new(body);
        let header = decode_header(&mut decoder).map_err(malformed)?;
        if header.cluster != *cluster {
            return Err(BatchError::OtherCluster);
        }
        let count = decoder.array().map_err(malformed)?.unwrap_or(0);
        if count == 0 || count > limits::BATCH_EVENTS_MAX as u64 {
            return Err(BatchError::Count(count));
        }
        let mut entries = Vec::new();
        for _ in 0..count {
            let event = decoder.bytes().map_err(malformed)?;
            if event.len() > limits::EVENT_BYTES_MAX {
                return Err(BatchError::EventTooLarge(event.len()));
            }
            entries.push(Event::from_bytes(event).map_or_else(|_| Entry::Unread(event.to_vec()), Entry::Event));
        }
        if decoder.position() != body.len() || header.first_seq.0 == 0 || header.first_seq.0 > u64::MAX / 2 {
            return Err(BatchError::Malformed("bytes after the body, or a position out of range".into()));
        }
        // `count` is at most 256 here.
        let header = BatchHeader { count: u32::try_from(count).unwrap_or(u32::MAX), ..header };
        let inner = Inner { bytes: bytes.to_vec(), header, head: head_of(body), entries };
        Ok((Self(Arc::new(inner)), Signature::from_bytes(signature)))
    }

    /// What it says before its events.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.0.header
    }

    /// The hash that the next batch names as `prev`.
    #[must_use]
    pub fn head(&self) -> Hash {
        self.0.head
    }

    /// The signed bytes, as received.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Its entries with their positions.
    pub fn entries(&self) -> impl Iterator<Item = (Seq, &Entry)> {
        (self.0.header.first_seq.0..).map(Seq).zip(&self.0.entries)
    }
}

fn head_of(body: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(HEAD_CONTEXT);
    hasher.update(body);
    Hash(*hasher.finalize().as_bytes())
}

fn encode_body(header: &BatchHeader, events: &[(Event, Vec<u8>)]) -> Vec<u8> {
    let write = |e: &mut Encoder<Vec<u8>>| -> Result<(), minicbor::encode::Error<core::convert::Infallible>> {
        e.array(7)?.u8(VERSION)?.bytes(&header.cluster.0)?.bytes(&header.log.node.0)?;
        e.u64(header.log.epoch.0)?.u64(header.first_seq.0)?.bytes(&header.prev.0)?;
        e.array(events.len() as u64)?;
        for (_, bytes) in events {
            e.bytes(bytes)?;
        }
        Ok(())
    };
    let mut encoder = Encoder::new(Vec::with_capacity(
        limits::BATCH_OVERHEAD_BYTES + events.iter().map(|(_, bytes)| bytes.len() + 3).sum::<usize>(),
    ));
    write(&mut encoder).expect("writing to memory cannot fail");
    encoder.into_writer()
}

fn decode_header(d: &mut Decoder<'_>) -> Result<BatchHeader, minicbor::decode::Error> {
    let error = |text: &'static str| minicbor::decode::Error::message(text);
    if d.array()? != Some(7) || d.u8()? != VERSION {
        return Err(error("not a batch of version 1"));
    }
    let bytes32 = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).ok().ok_or_else(|| error("32 bytes expected"));
    let cluster = ClusterId(bytes32(d.bytes()?)?);
    let node = NodeId(bytes32(d.bytes()?)?);
    let epoch = Epoch(d.u64()?);
    let first_seq = Seq(d.u64()?);
    let prev = Hash(bytes32(d.bytes()?)?);
    Ok(BatchHeader { cluster, log: LogId { node, epoch }, first_seq, prev, count: 0 })
}
