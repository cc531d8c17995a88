//! Where each batch lies: per log, a sorted vector of 24-byte entries.
//!
//! Invariants: only durable batches are entered; `first_seq` never decreases within a log; batches with one
//! `(log, first_seq)`, the branches of a fork, are all kept, in the order they were written.
//! Does not: hold batch bytes, read files, or judge chains.

use std::collections::HashMap;

use super::LogKey;
use super::frame::BatchHead;

/// One batch. `offset` is that of its frame, `len` that of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) first_seq: u64,
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) count: u32,
}

const _: () = assert!(size_of::<Entry>() == 24);

/// Position of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) len: u32,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    logs: HashMap<LogKey, Log>,
}

#[derive(Debug, Default)]
struct Log {
    entries: Vec<Entry>,
    /// Largest `count` seen: how far back an overlapping batch (a fork cut at other places) may begin.
    count_max: u32,
}

impl Index {
    pub(super) fn insert(&mut self, batch: BatchHead, at: At) {
        let BatchHead { log, first_seq, count } = batch;
        let At { segment, offset, len } = at;
        let log = self.logs.entry(log).or_default();
        log.count_max = log.count_max.max(count);
        let entry = Entry { first_seq, segment, offset, len, count };
        let place = log.entries.partition_point(|entry| entry.first_seq <= first_seq);
        log.entries.insert(place, entry);
    }

    /// Forgets batches in segments before `segment`.
    pub(super) fn forget_below(&mut self, segment: u32) {
        for log in self.logs.values_mut() {
            log.entries.retain(|entry| entry.segment >= segment);
            log.entries.shrink_to_fit();
        }
        self.logs.retain(|_, log| !log.entries.is_empty());
    }

    /// Whether batches of `log` with numbers `>= from_seq`, in segments below `below`, take more than so many bytes.
    pub(super) fn holds_more_than(&self, log: LogKey, from_seq: u64, below: u32, bytes: u64) -> bool {
        let Some(log) = self.logs.get(&log) else {
            return false;
        };
        let start = log.entries.partition_point(|entry| entry.first_seq < from_seq);
        let lengths =
            log.entries[start..].iter().filter(|entry| entry.segment < below).map(|entry| u64::from(entry.len));
        let mut sums = lengths.scan(0, |sum, len| {
            *sum += len;
            Some(*sum)
        });
        sums.any(|sum| sum > bytes)
    }

    /// Batches of `log` that contain a seq `>= from_seq`, in order: at least one if there is any, otherwise as many as
    /// fit into `max_bytes` of batch bytes (`len` less `overhead` each).
    pub(super) fn find(&self, log: LogKey, from_seq: u64, max_bytes: usize, overhead: usize) -> Vec<Entry> {
        let Some(log) = self.logs.get(&log) else {
            return Vec::new();
        };
        let earliest = from_seq.saturating_sub(u64::from(log.count_max));
        let start = log.entries.partition_point(|entry| entry.first_seq < earliest);
        let mut left = max_bytes;
        let mut found = Vec::new();
        for entry in &log.entries[start..] {
            if entry.first_seq < from_seq && entry.first_seq.saturating_add(u64::from(entry.count)) <= from_seq {
                continue;
            }
            let bytes = (entry.len as usize).saturating_sub(overhead);
            if !found.is_empty() && bytes > left {
                break;
            }
            left = left.saturating_sub(bytes);
            found.push(*entry);
        }
        found
    }
}
