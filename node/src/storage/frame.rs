//! The bytes of a segment: one header, then frames of `len u32 | crc u32 | kind u8 | payload` (little endian).
//!
//! Invariants: the checksum covers length, kind and payload and starts from the segment's random salt, so bytes that a
//! peer chose (a batch that contains a forged frame) never pass for a frame of ours; the first frame of every group
//! carries `GROUP_START`, and a group is written only after the one before it was synced.
//! Does not: do any IO, or judge what a bad frame means (`scan`).

use bytes::Bytes;

use super::{LogKey, Record};

pub(super) const MAGIC: [u8; 8] = *b"STARLLOG";
pub(super) const VERSION: u32 = 1;
/// magic 8, version 4, segment number 4, salt 4, crc 4.
pub(super) const HEADER_BYTES: usize = 24;
/// len 4, crc 4, kind 1.
pub(super) const FRAME_BYTES: usize = 9;
/// node 32, epoch 8, first_seq 8, count 4.
pub(super) const BATCH_BYTES: usize = 52;
/// Largest payload of one frame. Batches are at most 64 KiB (DESIGN section 12); local notes get room to grow.
pub const RECORD_BYTES_MAX: usize = 4 << 20;

const KIND_BATCH: u8 = 1;
const KIND_LOCAL: u8 = 2;
const KIND_CLEAN: u8 = 3;
/// Set in `kind` on the first frame of each group commit.
pub(super) const GROUP_START: u8 = 0x80;

/// Where a frame stands within its group commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    First,
    Later,
}

/// The first `HEADER_BYTES` of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u32,
    pub(super) salt: u32,
}

/// What the first bytes of a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderBytes {
    Good(Header),
    OtherVersion(u32),
    Bad,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..20].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&out[..20]);
        out[20..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> HeaderBytes {
        if bytes.len() < HEADER_BYTES || bytes[..8] != MAGIC {
            return HeaderBytes::Bad;
        }
        // A later format may check its header differently, so the version is read first.
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return HeaderBytes::OtherVersion(version);
        }
        if crc32fast::hash(&bytes[..20]) != u32_at(bytes, 20) {
            return HeaderBytes::Bad;
        }
        HeaderBytes::Good(Self { number: u32_at(bytes, 12), salt: u32_at(bytes, 16) })
    }
}

/// A frame's first nine bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    pub(super) len: usize,
    crc: u32,
    pub(super) kind: u8,
}

impl Prefix {
    /// Reads the prefix if it could belong to a frame at all; this alone proves nothing.
    pub(super) fn plausible(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < FRAME_BYTES {
            return None;
        }
        let kind = bytes[8];
        let len = u32_at(bytes, 0) as usize;
        let fits = match kind & !GROUP_START {
            KIND_BATCH => (BATCH_BYTES..=RECORD_BYTES_MAX).contains(&len),
            KIND_LOCAL => len <= RECORD_BYTES_MAX,
            KIND_CLEAN => len == 0,
            _ => false,
        };
        fits.then_some(Self { len, crc: u32_at(bytes, 4), kind })
    }

    /// `payload` is what follows the prefix, exactly `len` bytes.
    pub(super) fn matches(self, salt: u32, payload: &[u8]) -> bool {
        payload.len() == self.len && checksum(salt, self.len, self.kind, payload, &[]) == self.crc
    }

    pub(super) fn starts_group(self) -> bool {
        self.kind & GROUP_START != 0
    }

    pub(super) fn is_clean_marker(self) -> bool {
        self.kind & !GROUP_START == KIND_CLEAN
    }
}

/// What the index keeps of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHead {
    pub(super) log: LogKey,
    pub(super) first_seq: u64,
    pub(super) count: u32,
}

/// The head of a verified payload, `None` for other kinds.
pub(super) fn batch_head(prefix: Prefix, payload: &[u8]) -> Option<BatchHead> {
    if prefix.kind & !GROUP_START != KIND_BATCH {
        return None;
    }
    let mut node = [0; 32];
    node.copy_from_slice(&payload[..32]);
    let log = LogKey { node, epoch: u64_at(payload, 32) };
    Some(BatchHead { log, first_seq: u64_at(payload, 40), count: u32_at(payload, 48) })
}

/// Turns a verified payload into the record that was written.
pub(super) fn decode(prefix: Prefix, payload: &[u8]) -> Record {
    if let Some(BatchHead { log, first_seq, count }) = batch_head(prefix, payload) {
        let bytes = Bytes::copy_from_slice(&payload[BATCH_BYTES..]);
        return Record::Batch { log, first_seq, count, bytes };
    }
    if prefix.is_clean_marker() { Record::Clean } else { Record::Local(Bytes::copy_from_slice(payload)) }
}

/// Size of a record's payload on disk.
pub(super) fn payload_bytes(record: &Record) -> usize {
    match record {
        Record::Batch { bytes, .. } => BATCH_BYTES + bytes.len(),
        Record::Local(bytes) => bytes.len(),
        Record::Clean => 0,
    }
}

/// Appends one frame; the payload must not exceed `RECORD_BYTES_MAX`.
pub(super) fn encode(out: &mut Vec<u8>, salt: u32, place: Place, record: &Record) {
    let flag = if place == Place::First { GROUP_START } else { 0 };
    let mut head = [0; BATCH_BYTES];
    let none: &[u8] = &[];
    let (kind, head, body): (u8, &[u8], &[u8]) = match record {
        Record::Batch { log, first_seq, count, bytes } => {
            head[..32].copy_from_slice(&log.node);
            head[32..40].copy_from_slice(&log.epoch.to_le_bytes());
            head[40..48].copy_from_slice(&first_seq.to_le_bytes());
            head[48..].copy_from_slice(&count.to_le_bytes());
            (KIND_BATCH, &head, bytes)
        }
        Record::Local(bytes) => (KIND_LOCAL, none, bytes),
        Record::Clean => (KIND_CLEAN, none, none),
    };
    let (kind, len) = (kind | flag, head.len() + body.len());
    out.extend_from_slice(&length(len).to_le_bytes());
    out.extend_from_slice(&checksum(salt, len, kind, head, body).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(head);
    out.extend_from_slice(body);
}

fn checksum(salt: u32, len: usize, kind: u8, head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    let len = length(len).to_le_bytes();
    hasher.update(&[len[0], len[1], len[2], len[3], kind]);
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("payloads are bounded by RECORD_BYTES_MAX")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}
