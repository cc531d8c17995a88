//! The gateway's list of workers on its way to another node.
//!
//! Invariants: what was encoded decodes to the same; bytes that are no list are an error; fields may be added at the end.
//! Does not: carry the bytes (`daemon` does).

use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::hwp::gateway::{Reach, WorkerLine};

/// Longest encoded list that is read. Low: a full gateway's workers are not listed. High: each question may take more memory.
pub const LIST_BYTES_MAX: u64 = 16 << 20;

/// Bytes that are no list.
#[derive(Debug, thiserror::Error)]
#[error("the gateway's list of workers cannot be read; is it another version?")]
pub struct Malformed(#[from] minicbor::decode::Error);

#[derive(Encode, Decode)]
struct Line {
    #[n(0)]
    id: String,
    #[n(1)]
    labels: Vec<String>,
    #[n(2)]
    slots: u32,
    #[n(3)]
    tasks: Vec<String>,
    #[n(4)]
    is_called: bool,
    #[n(5)]
    attached: bool,
    #[n(6)]
    heard_ms: u64,
    #[n(7)]
    cpu_milli: Option<u64>,
    #[n(8)]
    mem_bytes: Option<u64>,
}

/// The bytes of a list.
#[must_use]
pub fn encode(workers: &[WorkerLine]) -> Vec<u8> {
    let line = |worker: &WorkerLine| Line {
        id: worker.id.clone(),
        labels: worker.labels.clone(),
        slots: worker.slots,
        tasks: worker.tasks.clone(),
        is_called: worker.reach == Reach::DialBack,
        attached: worker.attached,
        heard_ms: u64::try_from(worker.heard.as_millis()).unwrap_or(u64::MAX),
        cpu_milli: worker.cpu_milli,
        mem_bytes: worker.mem_bytes,
    };
    let lines: Vec<Line> = workers.iter().map(line).collect();
    minicbor::to_vec(lines).expect("writing to memory cannot fail")
}

/// The list in some bytes.
///
/// # Errors
/// If there is none.
pub fn decode(bytes: &[u8]) -> Result<Vec<WorkerLine>, Malformed> {
    let lines: Vec<Line> = minicbor::decode(bytes)?;
    let worker = |line: Line| WorkerLine {
        id: line.id,
        labels: line.labels,
        slots: line.slots,
        tasks: line.tasks,
        reach: if line.is_called { Reach::DialBack } else { Reach::Stream },
        attached: line.attached,
        heard: Duration::from_millis(line.heard_ms),
        cpu_milli: line.cpu_milli,
        mem_bytes: line.mem_bytes,
    };
    Ok(lines.into_iter().map(worker).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_as_it_was_written() {
        let worker = |id: &str, reach| WorkerLine {
            id: id.to_owned(),
            labels: vec!["docker".to_owned()],
            slots: 4,
            tasks: vec!["t".to_owned()],
            reach,
            attached: reach == Reach::Stream,
            heard: Duration::from_millis(12),
            cpu_milli: Some(1),
            mem_bytes: None,
        };
        let workers = [worker("a", Reach::Stream), worker("b", Reach::DialBack)];
        let bytes = encode(&workers);
        assert_eq!(decode(&bytes).unwrap(), workers);
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode(b"nonsense").is_err());
    }
}
