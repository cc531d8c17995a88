//! Serving: what others lack, from this node's disk: batches of the log, and where the log is gone, pieces of a snapshot.
//!
//! Invariants: one thread, so a flood of pulls takes one disk's time and no more; answers are bounded (`limits`).
//! Does not: decide what anybody lacks (`starling_core::sync` does).

use std::sync::mpsc::Receiver;

use starling_core::ids::{Hash, LogId, NodeId, Seq};
use starling_core::limits;
use starling_core::machine::Instead;
use starling_core::sync::Message;
use starling_net::{Lane, PeerKey};
use tracing::{debug, warn};

use super::edges::log_key;
use crate::storage::Reader;
use crate::storage::snapshots::{Name, Snapshots};
use crate::wire::{self, Bulk, Control};

/// What somebody wants.
#[derive(Clone, Copy, Debug)]
pub(super) enum Serve {
    /// A log.
    Log(Wanted),
    /// A piece of a snapshot.
    Piece { to: NodeId, id: Hash, offset: u64 },
}

/// A log, from a position on, that this node knows up to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) to: NodeId,
    pub(super) log: LogId,
    pub(super) from: Seq,
    pub(super) known: Seq,
    /// Where a snapshot is offered.
    pub(super) instead: Instead,
    /// The snapshot that is not.
    pub(super) joined: Option<Hash>,
}

/// The disk and the network.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) reader: Reader,
    pub(super) snapshots: Snapshots,
    pub(super) net: starling_net::Handle,
}

impl Server {
    /// Serves until nobody can ask any more. For a thread of its own.
    pub(super) fn run(&self, queue: &Receiver<Serve>) {
        for wanted in queue {
            match wanted {
                Serve::Log(wanted) => self.log(wanted),
                Serve::Piece { to, id, offset } => self.piece(to, id, offset),
            }
        }
    }

    fn log(&self, wanted: Wanted) {
        let Wanted { to, log, from, known, instead, joined } = wanted;
        // Whoever has all of it wants what is in the log, whatever is not.
        let newest = self.snapshots.newest().filter(|(name, _)| joined != Some(Hash(*name)));
        let rather = match instead {
            Instead::OfGone => false,
            Instead::OfMuch => newest.is_some_and(|(_, bytes)| self.saves(&log, from, bytes)),
            Instead::OfAny => true,
        };
        if let Some((name, bytes)) = newest.filter(|_| rather) {
            return self.offer(to, log, name, bytes);
        }
        let found = match self.reader.read(log_key(&log), from.0, limits::SYNC_RESPONSE_BYTES_MAX) {
            Ok(found) => found,
            Err(error) => return warn!(?log, %error, "cannot read the log for a peer"),
        };
        // What was asked for is not there although something later is, or nothing although it is known: a snapshot contains it.
        let is_gone = match found.first() {
            Some((first_seq, _)) => *first_seq > from.0,
            None => from <= known,
        };
        if is_gone && let Some((name, bytes)) = newest {
            return self.offer(to, log, name, bytes);
        }
        let size: usize = found.iter().map(|(_, bytes)| bytes.len()).sum();
        // A response near the limit was cut; a short one was all there is.
        let more = size + limits::BATCH_BYTES_MAX > limits::SYNC_RESPONSE_BYTES_MAX;
        let batches = found.iter().map(|(_, bytes)| bytes.as_ref().into()).collect();
        self.send(to, Lane::Bulk, wire::encode(&Bulk::Batches { log, more, batches }));
    }

    /// Whether the newest snapshot saves sending much more log than it is long.
    fn saves(&self, log: &LogId, from: Seq, bytes: u64) -> bool {
        let enough = bytes.max(limits::SNAPSHOT_SAVES_BYTES);
        let covered = self.snapshots.covered_below();
        self.reader.holds_more_than(log_key(log), from.0, covered, enough)
    }

    fn offer(&self, to: NodeId, log: LogId, name: Name, bytes: u64) {
        let message = Message::SnapshotAhead { log, id: Hash(name), bytes };
        self.send(to, Lane::Control, wire::encode(&Control::Core(message)));
    }

    fn piece(&self, to: NodeId, id: Hash, offset: u64) {
        match self.snapshots.piece(&id.0, offset, limits::SNAPSHOT_CHUNK_BYTES_MAX) {
            Ok(Some(data)) => {
                self.send(to, Lane::Bulk, wire::encode(&Bulk::Piece { id, offset, data: data.as_ref().into() }));
            }
            // Another has taken its place, and the peer will be offered that one.
            Ok(None) => debug!(node = %to, "a piece of a snapshot that is not here"),
            Err(error) => warn!(%error, "cannot read a snapshot for a peer"),
        }
    }

    fn send(&self, to: NodeId, lane: Lane, frame: bytes::Bytes) {
        if let Err(error) = self.net.send(PeerKey(to.0), lane, frame) {
            debug!(node = %to, %error, "pull not answered");
        }
    }
}
