//! Blocks of records: `len u32 | crc u32 | payload`. The payload names nodes that are new to the file, then holds records, which refer to nodes by number.
//!
//! Invariants: a record of a plain job takes about 70 bytes; bytes that are no block are told apart by their checksum, never a panic.
//! Does not: do any IO.

use std::collections::BTreeMap;

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError};
use smol_str::SmolStr;
use starling_core::facts::{Ended, Past, Ran, Usage};
use starling_core::ids::{Epoch, JobId, JobNo, LogId, NodeId};
use starling_core::lattice::IntervalSet;

use super::NodeIndex;

/// len 4, crc 4.
pub(super) const HEAD_BYTES: usize = 8;
/// No block is larger: one record may take most of it.
pub(super) const PAYLOAD_BYTES_MAX: usize = 4 << 20;

type Written = Result<(), EncodeError<std::convert::Infallible>>;

/// The nodes that records name.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    nodes: Vec<NodeId>,
    numbers: BTreeMap<NodeId, NodeIndex>,
}

impl Names {
    fn number(&mut self, node: NodeId) -> NodeIndex {
        let next = NodeIndex::try_from(self.nodes.len()).unwrap_or(NodeIndex::MAX);
        *self.numbers.entry(node).or_insert_with(|| {
            self.nodes.push(node);
            next
        })
    }

    fn node(&self, number: NodeIndex) -> Result<NodeId, DecodeError> {
        let found = self.nodes.get(number as usize).copied();
        found.ok_or_else(|| DecodeError::message("a node that was never named"))
    }

    /// Learns the names in a payload that is read for the first time, and its records.
    pub(super) fn learn(&mut self, payload: &[u8]) -> Option<Vec<Past>> {
        let first = first_new(payload).ok()?;
        if first.0 as usize == self.nodes.len() {
            for node in first.1 {
                self.number(node);
            }
        }
        self.decode(payload)
    }

    /// The records of a payload whose names are known.
    pub(super) fn decode(&self, payload: &[u8]) -> Option<Vec<Past>> {
        let mut d = Decoder::new(payload);
        let mut read = || -> Result<Vec<Past>, DecodeError> {
            d.u32()?;
            let _names: Vec<NodeId> = d.decode()?;
            let mut all = Vec::new();
            while d.position() < payload.len() {
                all.push(self.read(&mut d)?);
            }
            Ok(all)
        };
        read().ok()
    }

    fn write(&mut self, past: &Past, e: &mut Encoder<Vec<u8>>) -> Written {
        let owner = self.number(past.id.log.node);
        e.u32(owner)?.u64(past.id.log.epoch.0)?.u64(past.id.no.0)?;
        e.str(&past.ns)?.str(&past.name)?.str(&past.alias)?;
        e.u64(past.tasks)?.u64(past.submitted_ms)?;
        match past.started_ms {
            Some(started) => e.i64(difference(started, past.submitted_ms))?,
            None => e.null()?,
        };
        e.i64(difference(past.ended_ms, past.submitted_ms))?;
        e.array(past.ended.len() as u64)?;
        for Ended { outcome, count, tasks } in &past.ended {
            e.encode(outcome)?;
            write_tasks(e, tasks, *count)?;
        }
        e.array(past.ran.len() as u64)?;
        for Ran { node, grant, attempt, tasks } in &past.ran {
            let node = self.number(*node);
            e.u32(node)?.encode(grant)?.encode(attempt)?;
            e.encode(tasks)?;
        }
        let Usage { cpu_user_ms, cpu_sys_ms, wall_ms, max_rss_bytes } = past.usage;
        e.u64(cpu_user_ms)?.u64(cpu_sys_ms)?.u64(wall_ms)?.u64(max_rss_bytes)?;
        Ok(())
    }

    fn read(&self, d: &mut Decoder<'_>) -> Result<Past, DecodeError> {
        let node = self.node(d.u32()?)?;
        let id = JobId { log: LogId { node, epoch: Epoch(d.u64()?) }, no: JobNo(d.u64()?) };
        let (ns, name, alias) = (text(d)?, text(d)?, text(d)?);
        let (tasks, submitted_ms) = (d.u64()?, d.u64()?);
        let started_ms = match d.datatype()? {
            Type::Null => {
                d.null()?;
                None
            }
            // The types of a foreign crate: anything else is a number, or an error.
            _ => Some(submitted_ms.saturating_add_signed(d.i64()?)),
        };
        let ended_ms = submitted_ms.saturating_add_signed(d.i64()?);
        let mut ended = Vec::new();
        for _ in 0..len(d)? {
            let outcome = d.decode()?;
            let (tasks, count) = read_tasks(d)?;
            ended.push(Ended { outcome, count, tasks });
        }
        let mut ran = Vec::new();
        for _ in 0..len(d)? {
            ran.push(Ran { node: self.node(d.u32()?)?, grant: d.decode()?, attempt: d.decode()?, tasks: d.decode()? });
        }
        let usage = Usage { cpu_user_ms: d.u64()?, cpu_sys_ms: d.u64()?, wall_ms: d.u64()?, max_rss_bytes: d.u64()? };
        let request = Vec::new();
        Ok(Past { id, ns, name, alias, request, tasks, submitted_ms, started_ms, ended_ms, ended, ran, usage })
    }
}

fn text(d: &mut Decoder<'_>) -> Result<SmolStr, DecodeError> {
    d.str().map(SmolStr::new)
}

fn len(d: &mut Decoder<'_>) -> Result<u64, DecodeError> {
    d.array()?.ok_or_else(|| DecodeError::message("an array of unknown length"))
}

/// Wall clocks jump, so the later moment may have the smaller reading.
fn difference(later: u64, earlier: u64) -> i64 {
    let (later, earlier) = (i64::try_from(later).unwrap_or(i64::MAX), i64::try_from(earlier).unwrap_or(i64::MAX));
    later.saturating_sub(earlier)
}

/// Which tasks, or how many where that is all that is kept.
fn write_tasks(e: &mut Encoder<Vec<u8>>, tasks: &IntervalSet, count: u64) -> Written {
    if tasks.is_empty() {
        e.u64(count)?;
    } else {
        e.encode(tasks)?;
    }
    Ok(())
}

fn read_tasks(d: &mut Decoder<'_>) -> Result<(IntervalSet, u64), DecodeError> {
    if d.datatype()? == Type::Array {
        let tasks: IntervalSet = d.decode()?;
        let count = tasks.len();
        return Ok((tasks, count));
    }
    Ok((IntervalSet::new(), d.u64()?))
}

/// The number of the first node that a payload names, and all that it names.
fn first_new(payload: &[u8]) -> Result<(NodeIndex, Vec<NodeId>), DecodeError> {
    let mut d = Decoder::new(payload);
    Ok((d.u32()?, d.decode()?))
}

/// The least and the greatest number of each log, with one more job.
pub(super) fn widen(logs: &mut Vec<(LogId, u64, u64)>, id: &JobId) {
    match logs.iter_mut().find(|(log, _, _)| *log == id.log) {
        Some((_, low, high)) => (*low, *high) = ((*low).min(id.no.0), (*high).max(id.no.0)),
        None => logs.push((id.log, id.no.0, id.no.0)),
    }
}

/// One block of the first of `all`, about `bytes_max` of them, at least one. Returns it, how many, and which logs they are of.
pub(super) fn encode(all: &[Past], names: &mut Names, bytes_max: usize) -> (Vec<u8>, usize, Vec<(LogId, u64, u64)>) {
    let known = names.nodes.len();
    let mut records = Encoder::new(Vec::new());
    let (mut count, mut logs) = (0, Vec::new());
    for past in all {
        names.write(past, &mut records).expect("writing to memory cannot fail");
        widen(&mut logs, &past.id);
        count += 1;
        if records.writer().len() >= bytes_max {
            break;
        }
    }
    let first = NodeIndex::try_from(known).unwrap_or(NodeIndex::MAX);
    let head = (first, &names.nodes[known..]);
    let mut payload = Encoder::new(Vec::new());
    payload.u32(head.0).and_then(|e| e.encode(head.1)).expect("writing to memory cannot fail");
    let mut payload = payload.into_writer();
    payload.extend_from_slice(&records.into_writer());
    let len = u32::try_from(payload.len()).expect("what is kept of a job is bounded");
    let mut block = Vec::with_capacity(HEAD_BYTES + payload.len());
    block.extend_from_slice(&len.to_le_bytes());
    block.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    block.extend_from_slice(&payload);
    (block, count, logs)
}

/// What a block's first bytes say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) len: usize,
    crc: u32,
}

impl Head {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (crc, _) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        (1..=PAYLOAD_BYTES_MAX).contains(&len).then_some(Self { len, crc: u32::from_le_bytes(*crc) })
    }

    pub(super) fn matches(self, payload: &[u8]) -> bool {
        payload.len() == self.len && crc32fast::hash(payload) == self.crc
    }
}

/// The payloads of neighbouring blocks; `Some(None)` where one is damaged, which ends them.
#[derive(Debug)]
pub(super) struct Blocks<'a> {
    rest: &'a [u8],
}

impl<'a> Blocks<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn next(&mut self) -> Option<Option<&'a [u8]>> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = Head::read(self.rest).and_then(|head| {
            let payload = self.rest.get(HEAD_BYTES..HEAD_BYTES + head.len)?;
            head.matches(payload).then_some(payload)
        });
        match whole {
            Some(payload) => self.rest = &self.rest[HEAD_BYTES + payload.len()..],
            None => self.rest = &[],
        }
        Some(whole)
    }
}
