//! Events: the signed entries of the log, and the batches that carry them.
//!
//! Invariants: an Event encodes in one way only; bytes that do not decode are kept, never a panic.
//! Does not: say what an Event means (`namespace` does).

mod batch;
#[cfg(test)]
mod tests;
mod value;

pub use batch::{
    BatchError, BatchHeader, Entry, SIGNATURE_BYTES, SignedBatch, Signer, cluster_id, membership_mac, verify,
};
use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};
use smol_str::SmolStr;
pub use value::{Value, WorkSpec};

use crate::ids::{GrantNo, Hash, JobId, NodeId};
use crate::lattice::IntervalSet;
use crate::time::Hlc;

/// The part of an Event that every namespace shares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SysContext {
    /// The job the event is about.
    pub job: Option<JobId>,
    /// The tasks of that job; empty where the event concerns the whole job.
    pub tasks: IntervalSet,
    /// The grant under which the tasks ran.
    pub grant: Option<GrantNo>,
    /// The tasks' attempt; 0 where it says nothing.
    pub attempt: u16,
    /// The node the event is about, where that is not its author.
    pub node: Option<NodeId>,
    /// The job's priority; higher goes first.
    pub priority: i32,
    /// The declaration that gives the event its meaning, where its namespace is a declared one: the hash of `Declaration::to_bytes`.
    pub schema: Option<Hash>,
}

/// A log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, by the author's hybrid clock.
    pub hlc: Hlc,
    /// The namespace that gives it meaning.
    pub ns: SmolStr,
    /// What happened, in the namespace's words.
    pub kind: SmolStr,
    /// The version of that meaning; `(ns, kind, ver)` never changes what it folds to.
    pub ver: u16,
    /// Job, tasks, node, priority.
    pub ctx: SysContext,
    /// The namespace's own fields.
    pub spec: WorkSpec,
}

/// Wire form: a map of small integers to the fields that say something, keys ascending.
impl<C> Encode<C> for SysContext {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        let present = [
            self.job.is_some(),
            !self.tasks.is_empty(),
            self.grant.is_some(),
            self.attempt != 0,
            self.node.is_some(),
            self.priority != 0,
            self.schema.is_some(),
        ];
        e.map(present.iter().filter(|present| **present).count() as u64)?;
        if let Some(job) = &self.job {
            e.u8(0)?;
            job.encode(e, ctx)?;
        }
        if !self.tasks.is_empty() {
            e.u8(1)?;
            self.tasks.encode(e, ctx)?;
        }
        if let Some(grant) = &self.grant {
            e.u8(2)?;
            grant.encode(e, ctx)?;
        }
        if self.attempt != 0 {
            e.u8(3)?.u16(self.attempt)?;
        }
        if let Some(node) = &self.node {
            e.u8(4)?;
            node.encode(e, ctx)?;
        }
        if self.priority != 0 {
            e.u8(5)?.i32(self.priority)?;
        }
        if let Some(schema) = &self.schema {
            e.u8(6)?;
            schema.encode(e, ctx)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for SysContext {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let len = d.map()?.ok_or_else(|| DecodeError::message("context of unknown length"))?;
        let mut context = Self::default();
        let mut last = None;
        for _ in 0..len {
            let key = d.u8()?;
            if last.is_some_and(|last| key <= last) {
                return Err(DecodeError::message("context keys out of order"));
            }
            last = Some(key);
            match key {
                0 => context.job = Some(JobId::decode(d, ctx)?),
                1 => context.tasks = IntervalSet::decode(d, ctx)?,
                2 => context.grant = Some(GrantNo::decode(d, ctx)?),
                3 => context.attempt = d.u16()?,
                4 => context.node = Some(NodeId::decode(d, ctx)?),
                5 => context.priority = d.i32()?,
                6 => context.schema = Some(Hash::decode(d, ctx)?),
                _ => return Err(DecodeError::message("unknown context key")),
            }
        }
        Ok(context)
    }
}

/// Wire form: `[wall_ms, count, ns, kind, ver, ctx, spec]`.
impl<C> Encode<C> for Event {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(7)?.u64(self.hlc.wall_ms)?.u32(self.hlc.count)?.str(&self.ns)?.str(&self.kind)?.u16(self.ver)?;
        self.ctx.encode(e, ctx)?;
        self.spec.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Event {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        if d.array()? != Some(7) {
            return Err(DecodeError::message("event must be an array of 7"));
        }
        Ok(Self {
            hlc: Hlc { wall_ms: d.u64()?, count: d.u32()? },
            ns: SmolStr::new(d.str()?),
            kind: SmolStr::new(d.str()?),
            ver: d.u16()?,
            ctx: SysContext::decode(d, ctx)?,
            spec: WorkSpec::decode(d, ctx)?,
        })
    }
}

impl Event {
    /// The canonical bytes. At most `limits::EVENT_BYTES_MAX` of them may enter a batch.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// If they are not an event of a shape this version knows, or hold more than one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let event = Self::decode(&mut decoder, &mut ())?;
        if decoder.position() == bytes.len() { Ok(event) } else { Err(DecodeError::message("bytes after the event")) }
    }
}
