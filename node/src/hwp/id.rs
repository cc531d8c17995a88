//! What a worker calls a task: an id that says which grant and which task, whoever reads it later.
//!
//! Invariants: reading what was written gives the same; nobody but this node's cluster makes sense of it, so a client's own job id is none.

use std::fmt;

use starling_core::ids::{Epoch, GrantId, GrantNo, JobId, JobNo, LogId, NodeId, Term};

/// One task under one grant. On the wire `<owner>-<epoch>-<job>.<term>-<grant>.<task>`, the owner in 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AssignmentId {
    /// The permission to run it.
    pub grant: GrantId,
    /// The task.
    pub task: u32,
}

impl fmt::Display for AssignmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GrantId { job: JobId { log, no }, no: grant } = self.grant;
        write!(f, "{}-{}-{no}.{}-{}.{}", log.node.to_hex(), log.epoch, grant.term, grant.no, self.task)
    }
}

impl AssignmentId {
    /// Reads an id; `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (job, grant, task) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let mut job = job.split('-');
        let (node, epoch, no) = (job.next()?, job.next()?.parse().ok()?, job.next()?.parse().ok()?);
        let (term, grant) = grant.split_once('-')?;
        let log = LogId { node: node_id(node)?, epoch: Epoch(epoch) };
        let grant = GrantNo { term: Term(term.parse().ok()?), no: grant.parse().ok()? };
        let read = Self { grant: GrantId { job: JobId { log, no: JobNo(no) }, no: grant }, task: task.parse().ok()? };
        // One spelling only: `+1` and `01` parse as numbers too.
        (read.to_string() == text).then_some(read)
    }
}

fn node_id(hex: &str) -> Option<NodeId> {
    let digits = hex.as_bytes();
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(NodeId(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_it_was_written_and_nothing_else_reads() {
        let log = LogId { node: NodeId([0xab; 32]), epoch: Epoch(3) };
        let grant = GrantId { job: JobId { log, no: JobNo(12) }, no: GrantNo { term: Term(1), no: 7 } };
        let id = AssignmentId { grant, task: 4 };
        let text = id.to_string();
        assert!(text.ends_with("-3-12.1-7.4"), "{text}");
        assert_eq!(AssignmentId::parse(&text), Some(id));
        for other in
            ["", "job-1", "a.b.c", &text[1..], &format!("{text}.1"), &text.replace(".4", ".04"), &text.to_uppercase()]
        {
            assert_eq!(AssignmentId::parse(other), None, "{other}");
        }
    }
}
