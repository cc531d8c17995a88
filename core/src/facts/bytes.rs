//! Facts as bytes: the canonical form, for comparing nodes and for snapshots, and back.
//!
//! Shape: `[members, jobs, opaque]`, then what most clusters lack, each only if there is any: declarations (a map), the gateway (an array), adoptions (tag 6), retired jobs (tag 7).
//! Invariants: equal Facts have equal bytes; bytes from anywhere are Facts or an error, never a panic, and Facts that were read write the very bytes that were read.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::Encoder;
use minicbor::data::{Tag, Type};
use minicbor::decode::{Decoder, Error as DecodeError};

use super::{Declarations, Delta, Facts, Gateway, Job, NodeInfo, Owners, Registration, Retired};
use crate::ids::{Dot, Hash, JobId, NodeId};
use crate::lattice::{Lattice as _, Min};
use crate::namespace::Declaration;

type Opaque = BTreeMap<Dot, BTreeSet<Vec<u8>>>;

const OWNERS: Tag = Tag::new(6);
const RETIRED: Tag = Tag::new(7);

/// Bytes that are no Facts. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// Not the canonical form.
    #[error("bytes are not facts: {0}")]
    Malformed(#[from] DecodeError),
    /// They can be read, but not as anything that a node of this version would have written.
    #[error("facts are not in the form that this version writes")]
    NotCanonical,
}

impl Facts {
    /// The canonical bytes of everything.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        let everything = (&self.nodes, self.jobs().collect::<Vec<_>>(), &self.opaque);
        encoder.encode(&everything).expect("writing to memory cannot fail");
        if !self.declarations.is_empty() {
            encoder.encode(&self.declarations).expect("writing to memory cannot fail");
        }
        if !self.gateway.is_empty() {
            encoder.encode(&self.gateway).expect("writing to memory cannot fail");
        }
        if !self.owners.is_empty() {
            encoder.tag(OWNERS).expect("writing to memory cannot fail");
            encoder.encode(&self.owners).expect("writing to memory cannot fail");
        }
        if !self.retired.is_empty() {
            encoder.tag(RETIRED).expect("writing to memory cannot fail");
            encoder.encode(&self.retired).expect("writing to memory cannot fail");
        }
        encoder.into_writer()
    }

    /// Reads the canonical bytes.
    ///
    /// # Errors
    /// If they are anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FactsError> {
        let mut decoder = Decoder::new(bytes);
        let facts = read(&mut decoder)?;
        if decoder.position() == bytes.len() && facts.to_bytes() == bytes {
            Ok(facts)
        } else {
            Err(FactsError::NotCanonical)
        }
    }
}

fn read(d: &mut Decoder<'_>) -> Result<Facts, DecodeError> {
    let mut facts = Facts::bot();
    if d.array()? != Some(3) {
        return Err(DecodeError::message("facts must begin with an array of 3"));
    }
    facts.nodes = d.decode::<BTreeMap<NodeId, NodeInfo>>()?;
    let jobs = d.array()?.ok_or_else(|| DecodeError::message("jobs of unknown number"))?;
    for _ in 0..jobs {
        let (id, job): (JobId, Job) = d.decode()?;
        if job.submit.as_ref().is_some_and(|submit| !submit.is_sound()) {
            return Err(DecodeError::message("a job's spec is none"));
        }
        facts.absorb(Delta::Job(id, Box::new(job)));
    }
    facts.opaque = d.decode::<Opaque>()?;
    if next(d)? == Some(Type::Map) {
        facts.declarations = declarations(d)?;
    }
    if next(d)? == Some(Type::Array) {
        facts.gateway = d.decode::<Gateway>()?;
    }
    while next(d)? == Some(Type::Tag) {
        let tag = d.tag()?;
        if tag == OWNERS {
            facts.owners = d.decode::<Owners>()?;
        } else if tag == RETIRED {
            facts.absorb(Delta::Retired(Box::new(d.decode::<Retired>()?)));
        } else {
            return Err(DecodeError::message("unknown part of facts"));
        }
    }
    Ok(facts)
}

/// What comes next; `None` at the end.
fn next(d: &Decoder<'_>) -> Result<Option<Type>, DecodeError> {
    if d.position() == d.input().len() { Ok(None) } else { d.datatype().map(Some) }
}

fn declarations(d: &mut Decoder<'_>) -> Result<Declarations, DecodeError> {
    let mut all = Declarations::default();
    let len = d.map()?.ok_or_else(|| DecodeError::message("declarations of unknown number"))?;
    for _ in 0..len {
        let hash: Hash = d.decode()?;
        if d.array()? != Some(2) {
            return Err(DecodeError::message("a declaration must be an array of 2"));
        }
        let declaration = Declaration::from_bytes(d.bytes()?)
            .map_err(|_not_one| DecodeError::message("a declaration of a form that this version does not read"))?;
        let Min(Some(first)) = d.decode::<Min<Registration>>()? else {
            return Err(DecodeError::message("a declaration that nobody registered"));
        };
        if declaration.id() != hash {
            return Err(DecodeError::message("a declaration under a name that is not its hash"));
        }
        let _ = all.join(Declarations::one(declaration, first));
    }
    Ok(all)
}
