//! Fetching another node's snapshot, piece by piece, and what must be true of it before the Machine hears of it.
//!
//! Invariants: one at a time; every piece is the one that was asked for, so a peer that sends garbage, little, or for ever is given up at once; what came before a
//! link was lost is kept, and the same snapshot goes on from there; the whole has the hash, the form, the cluster and the root that it names, and is on disk, before
//! it is handed over.
//! Does not: choose whom to ask (`starling_core::machine` does).

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use starling_core::ids::{ClusterId, Hash, NodeId};
use starling_core::limits;
use starling_core::machine::Input;
use starling_core::machine::snapshot::{self, Shared};
use starling_net::{Lane, PeerKey};
use tracing::info;

use crate::driver::Handle;
use crate::storage::snapshots::Snapshots;
use crate::wire::{self, Control};

/// A piece that has not come by then is asked for again.
const PIECE_WAIT: Duration = Duration::from_secs(2);
/// So often, then the peer is given up.
const TRIES: u32 = 4;
/// Wishes and pieces that wait. Full: pieces are dropped and asked for again.
const QUEUE: usize = 8;

#[derive(Debug)]
enum Word {
    Want { from: NodeId, id: Hash, bytes: u64 },
    Piece { from: NodeId, id: Hash, offset: u64, data: Vec<u8> },
}

/// Access to the fetcher.
#[derive(Clone, Debug)]
pub(super) struct Fetches(SyncSender<Word>);

/// The thread's end.
#[derive(Debug)]
pub(super) struct Queue(Receiver<Word>);

/// The two ends.
pub(super) fn channel() -> (Fetches, Queue) {
    let (tx, rx) = sync_channel(QUEUE);
    (Fetches(tx), Queue(rx))
}

impl Fetches {
    /// Fetches a snapshot; false if the fetcher is busy with another.
    pub(super) fn want(&self, from: NodeId, id: Hash, bytes: u64) -> bool {
        self.0.try_send(Word::Want { from, id, bytes }).is_ok()
    }

    /// A piece arrived.
    pub(super) fn piece(&self, from: NodeId, id: Hash, offset: u64, data: &[u8]) {
        let _full = self.0.try_send(Word::Piece { from, id, offset, data: data.to_vec() });
    }
}

/// What fetching stands on.
#[derive(Debug)]
pub(super) struct Fetcher {
    pub(super) handle: Handle,
    pub(super) net: starling_net::Handle,
    pub(super) snapshots: Snapshots,
    pub(super) cluster: ClusterId,
}

/// What came of a snapshot so far.
#[derive(Debug)]
struct Partial {
    id: Hash,
    bytes: Vec<u8>,
}

impl Fetcher {
    /// Serves until nobody can ask any more. For a thread of its own.
    pub(super) fn run(self, queue: &Queue) {
        let mut partial: Option<Partial> = None;
        while let Ok(word) = queue.0.recv() {
            // A piece that nobody waits for.
            let Word::Want { from, id, bytes } = word else {
                continue;
            };
            let mut so_far =
                partial.take().filter(|old| old.id == id).unwrap_or_else(|| Partial { id, bytes: Vec::new() });
            let result = match self.fetch(queue, from, bytes, &mut so_far) {
                Ok(()) => self.check(&so_far),
                Err(reason) => {
                    partial = Some(so_far);
                    Err(reason)
                }
            };
            if result.is_ok() {
                info!(node = %from, bytes, "fetched a snapshot in place of much log, or of log that is not kept any more");
            }
            if !self.handle.input(Input::Fetched { from, result }) {
                return;
            }
        }
    }

    fn fetch(&self, queue: &Queue, from: NodeId, bytes: u64, so_far: &mut Partial) -> Result<(), String> {
        let mut tries = 0;
        while (so_far.bytes.len() as u64) < bytes {
            let offset = so_far.bytes.len() as u64;
            let frame = wire::encode(&Control::Piece { id: so_far.id, offset });
            let sent = self.net.send(PeerKey(from.0), Lane::Control, frame);
            sent.map_err(|error| format!("it cannot be asked: {error}"))?;
            match Self::await_piece(queue, from, so_far.id, offset) {
                Some(data) => {
                    let wanted = limits::SNAPSHOT_CHUNK_BYTES_MAX as u64;
                    if data.len() as u64 != wanted.min(bytes - offset) {
                        so_far.bytes.clear();
                        return Err("it sends pieces of another size than was asked for".to_owned());
                    }
                    so_far.bytes.extend_from_slice(&data);
                    tries = 0;
                }
                None if tries + 1 < TRIES => tries += 1,
                None => return Err(format!("it stopped answering after {offset} of {bytes} bytes")),
            }
        }
        Ok(())
    }

    fn await_piece(queue: &Queue, from: NodeId, id: Hash, offset: u64) -> Option<Vec<u8>> {
        let until = Instant::now() + PIECE_WAIT;
        loop {
            match queue.0.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Word::Piece { from: by, id: of, offset: at, data }) if (by, of, at) == (from, id, offset) => {
                    return Some(data);
                }
                // Late, or of another; the Machine wants one at a time.
                Ok(Word::Piece { .. } | Word::Want { .. }) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// The whole is here: is it what it should be? Then it goes to disk.
    fn check(&self, whole: &Partial) -> Result<Box<Shared>, String> {
        if snapshot::name(&whole.bytes) != whole.id {
            return Err("its bytes do not have the hash that it is named by".to_owned());
        }
        let shared = Shared::from_bytes(&whole.bytes, &self.cluster).map_err(|error| error.to_string())?;
        self.snapshots.write_joined(&whole.bytes).map_err(|error| format!("it cannot be kept here: {error}"))?;
        Ok(Box::new(shared))
    }
}
