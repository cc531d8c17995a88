//! Voices: the last presence of each node, this one included, as it was signed. On a new link each side says how it stands itself, for gossip may take a while, and
//! shows what was last said in the other's name: two processes with one identity may never hear each other, for they take each other's links away (ADR 20).
//!
//! Invariants: bounded by the number of members; what is shown bears its author's signature.
//! Does not: judge (`starling_core::machine` does).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use starling_core::ids::NodeId;
use starling_core::limits::FLEET_MAX;

/// What was said longer ago proves nothing.
const STALE: Duration = Duration::from_secs(15);

/// Who said what last.
#[derive(Debug, Default)]
pub(super) struct Voices(Mutex<BTreeMap<NodeId, (Instant, Bytes)>>);

impl Voices {
    pub(super) fn hear(&self, node: NodeId, signed: &Bytes) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() < FLEET_MAX || last.contains_key(&node) {
            last.insert(node, (Instant::now(), signed.clone()));
        }
    }

    /// What was said in the name of `node` a moment ago.
    pub(super) fn of(&self, node: &NodeId) -> Option<Bytes> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(node).filter(|(heard, _)| heard.elapsed() < STALE).map(|(_, signed)| signed.clone())
    }
}
