//! The export file: signed batches between a header and an end that shows whether anything is missing (ADR 19).
//!
//! Form, numbers little endian: `magic 8 | version u32 | cluster 32 | made u64 | crc u32`, then for each batch `length u32 | signed batch`, then
//! `0 u32 | batches u64 | events u64 | blake3 32`. The checksum covers the header before it, the hash everything before it.
//! Invariants: a reader gives a batch only if its author signed it for the file's cluster, and ends well only behind a hash that fits; memory is bounded by one
//! batch, whatever the file says of lengths.
//! Does not: know whether a batch's author is a member or how it fits to others (`check` does).

use std::io::{self, Read, Write};

use starling_core::event::{BatchError, SignedBatch};
use starling_core::ids::ClusterId;
use starling_core::limits::BATCH_BYTES_MAX;

const MAGIC: [u8; 8] = *b"STARLEXP";
/// The form that this program writes, and the only one that it reads.
pub const VERSION: u32 = 1;
/// magic 8, version 4, cluster 32, made 8, crc 4.
const HEADER_BYTES: usize = 56;
const CHECKED_HEADER_BYTES: usize = 52;
const CONTEXT: &str = "starling 2026 export v1";

/// Why bytes are no export, or not a whole one. What was read before is good all the same.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// Something else.
    #[error("it is not an export of a log; `starling log export` writes one")]
    NotAnExport,
    /// By another version.
    #[error("it has export format {0}, this program reads format {VERSION}; use the program that wrote it")]
    Version(u32),
    /// The first bytes were changed.
    #[error("its header is damaged (the checksum does not fit); export it again, or copy it again")]
    Header,
    /// It ends before its end.
    #[error("it is cut off at byte {0}: its end marker is missing; export it again, or copy it again")]
    CutOff(u64),
    /// A length that no batch has.
    #[error(
        "it is damaged at byte {offset} (a batch of {bytes} bytes is beyond the limit of {BATCH_BYTES_MAX}); export it again, or copy it again"
    )]
    Length {
        /// Where.
        offset: u64,
        /// What it says.
        bytes: u32,
    },
    /// A batch that is none.
    #[error(
        "batch {number} at byte {offset} is not what its author signed ({source}); export it again, or copy it again"
    )]
    Batch {
        /// Which, from 1.
        number: u64,
        /// Where.
        offset: u64,
        /// What is wrong with it.
        source: BatchError,
    },
    /// The hash does not fit.
    #[error("it was changed after it was written (its hash does not fit); export it again, or copy it again")]
    Hash,
    /// The hash fits and the counts do not: whoever wrote it made a mistake.
    #[error("its end marker counts {named} batches, it has {found}; export it again")]
    Count {
        /// What it says.
        named: u64,
        /// What it has.
        found: u64,
    },
    /// Bytes behind the end.
    #[error("there are bytes behind its end marker, from byte {0} on; it is not the file that was written")]
    Trailing(u64),
    /// The operating system refused.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
}

/// What a file holds, as its end says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Batches.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
}

/// Writes an export. Without `finish` what was written reads as cut off.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    hasher: blake3::Hasher,
    counts: Counts,
}

impl<W: Write> Writer<W> {
    /// Begins an export of `cluster`, made at `made_unix_ms`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(to: W, cluster: &ClusterId, made_unix_ms: u64) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..44].copy_from_slice(&cluster.0);
        header[44..CHECKED_HEADER_BYTES].copy_from_slice(&made_unix_ms.to_le_bytes());
        let crc = crc32fast::hash(&header[..CHECKED_HEADER_BYTES]);
        header[CHECKED_HEADER_BYTES..].copy_from_slice(&crc.to_le_bytes());
        let mut writer = Self { to, hasher: blake3::Hasher::new_derive_key(CONTEXT), counts: Counts::default() };
        writer.put(&header)?;
        Ok(writer)
    }

    /// Adds the bytes of a signed batch that holds so many events.
    ///
    /// # Errors
    /// If it cannot be written, or is no batch by its length.
    pub fn batch(&mut self, bytes: &[u8], events: u32) -> io::Result<()> {
        let length =
            u32::try_from(bytes.len()).ok().filter(|length| (1..=BATCH_BYTES_MAX).contains(&(*length as usize)));
        let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the length of a batch"))?;
        self.put(&length.to_le_bytes())?;
        self.put(bytes)?;
        self.counts.batches += 1;
        self.counts.events += u64::from(events);
        Ok(())
    }

    /// Writes the end. Gives back what was written to, and what it holds.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> io::Result<(W, Counts)> {
        let counts = self.counts;
        self.put(&0_u32.to_le_bytes())?;
        self.put(&counts.batches.to_le_bytes())?;
        self.put(&counts.events.to_le_bytes())?;
        let hash = *self.hasher.finalize().as_bytes();
        self.to.write_all(&hash)?;
        self.to.flush()?;
        Ok((self.to, counts))
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.to.write_all(bytes)
    }
}

/// Reads an export front to back.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    hasher: blake3::Hasher,
    offset: u64,
    cluster: ClusterId,
    made_unix_ms: u64,
    found: Counts,
    buffer: Vec<u8>,
    ended: bool,
}

/// A batch and where it lies.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Where its length begins.
    pub offset: u64,
    /// The batch.
    pub batch: SignedBatch,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If it is none.
    pub fn open(from: R) -> Result<Self, FormError> {
        let hasher = blake3::Hasher::new_derive_key(CONTEXT);
        let (cluster, found, buffer) = (ClusterId([0; 32]), Counts::default(), Vec::new());
        let mut reader = Self { from, hasher, offset: 0, cluster, made_unix_ms: 0, found, buffer, ended: false };
        let mut header = [0; HEADER_BYTES];
        let have = reader.fill(&mut header)?;
        let same = have.min(MAGIC.len());
        if have == 0 || header[..same] != MAGIC[..same] {
            return Err(FormError::NotAnExport);
        }
        // A later form may have another header, so the version is judged first.
        let version = u32_at(&header, 8);
        if have >= 12 && version != VERSION {
            return Err(FormError::Version(version));
        }
        if have < HEADER_BYTES {
            return Err(FormError::CutOff(have as u64));
        }
        if crc32fast::hash(&header[..CHECKED_HEADER_BYTES]) != u32_at(&header, CHECKED_HEADER_BYTES) {
            return Err(FormError::Header);
        }
        reader.cluster.0.copy_from_slice(&header[12..44]);
        reader.made_unix_ms = u64_at(&header, 44);
        reader.hasher.update(&header);
        Ok(reader)
    }

    /// Whose log it is.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// When it was made, by the clock of who made it.
    #[must_use]
    pub fn made_unix_ms(&self) -> u64 {
        self.made_unix_ms
    }

    /// What was read so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.found
    }

    /// The next batch; `None` behind an end that fits.
    ///
    /// # Errors
    /// If the file is not what was written. Nothing more can be read then.
    pub fn next_batch(&mut self) -> Result<Option<Placed>, FormError> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.offset;
        let mut length = [0; 4];
        self.exactly(&mut length)?;
        let bytes = u32::from_le_bytes(length);
        if bytes == 0 {
            self.hasher.update(&length);
            return self.end().map(|()| None);
        }
        if bytes as usize > BATCH_BYTES_MAX {
            return Err(FormError::Length { offset, bytes });
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(bytes as usize, 0);
        self.exactly(&mut buffer)?;
        self.hasher.update(&length);
        self.hasher.update(&buffer);
        let number = self.found.batches + 1;
        let batch = SignedBatch::open(&buffer, &self.cluster);
        let batch = batch.map_err(|source| FormError::Batch { number, offset, source })?;
        self.buffer = buffer;
        self.found.batches = number;
        self.found.events += u64::from(batch.header().count);
        Ok(Some(Placed { offset, batch }))
    }

    fn end(&mut self) -> Result<(), FormError> {
        let mut counts = [0; 16];
        self.exactly(&mut counts)?;
        self.hasher.update(&counts);
        let mut hash = [0; 32];
        self.exactly(&mut hash)?;
        if *self.hasher.finalize().as_bytes() != hash {
            return Err(FormError::Hash);
        }
        let named = Counts { batches: u64_at(&counts, 0), events: u64_at(&counts, 8) };
        if named != self.found {
            return Err(FormError::Count { named: named.batches, found: self.found.batches });
        }
        let end = self.offset;
        if self.fill(&mut [0])? > 0 {
            return Err(FormError::Trailing(end));
        }
        self.ended = true;
        Ok(())
    }

    fn exactly(&mut self, into: &mut [u8]) -> Result<(), FormError> {
        let wanted = into.len();
        if self.fill(into)? == wanted { Ok(()) } else { Err(FormError::CutOff(self.offset)) }
    }

    /// Reads as much as there is, at most as much as fits.
    fn fill(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut have = 0;
        while have < into.len() {
            match self.from.read(&mut into[have..]) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.offset += have as u64;
        Ok(have)
    }
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
