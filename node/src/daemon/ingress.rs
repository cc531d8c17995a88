//! Ingress: what arrives from the network, checked and handed to the driver.
//!
//! Invariants: signatures are checked here, off the driver's thread; bytes that fail any check are dropped and never reach the Machine.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;

use bytes::Bytes;
use minicbor::bytes::ByteSlice;
use starling_core::event::SignedBatch;
use starling_core::ids::{ClusterId, JobId, LogId, NodeId};
use starling_core::machine::{Input, Machine};
use starling_core::schedule::Presence;
use starling_core::time::Now;
use starling_net::{Event, Events, Lane, PeerKey, Topic, Verdict};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::edges::log_key;
use super::fetch::Fetches;
use super::serve::Serve;
use super::voices::Voices;
use crate::driver::Handle;
use crate::output::{self, Files, Kept, Pushes, Remote};
use crate::storage::Reader;
use crate::wire::{self, Bulk, Control};

/// With so few links every peer is in the author's gossip mesh.
const FULL_MESH: usize = 5;
/// Fewer batches than this are not worth a thread.
const SHARE_MIN: usize = 64;

/// What the network's events are turned into.
#[derive(Debug)]
pub(super) struct Ingress {
    /// The driver.
    pub(super) handle: Handle,
    /// The network, for verdicts and answers.
    pub(super) net: starling_net::Handle,
    /// The cluster.
    pub(super) cluster: ClusterId,
    /// Output on this node.
    pub(super) files: Files,
    /// Lines that clients push.
    pub(super) pushes: Pushes,
    /// Pieces of other nodes' clients that are being written.
    pub(super) keeping: Arc<Semaphore>,
    /// Answers to this node's own fetches.
    pub(super) remote: Remote,
    /// Pieces of snapshots that others want.
    pub(super) serve: SyncSender<Serve>,
    /// Pieces of snapshots that this node wants.
    pub(super) fetches: Fetches,
    /// Where the API is served.
    pub(super) api: String,
    /// Where workers may attach, to be told in presence.
    pub(super) workers: String,
    /// For answers that read files.
    pub(super) runtime: tokio::runtime::Handle,
    /// Who said what last.
    pub(super) voices: Arc<Voices>,
    /// This node.
    pub(super) me: NodeId,
}

impl Ingress {
    /// Serves events until the network or the driver stops. For a thread of its own.
    pub(super) fn run(mut self, mut events: Events) {
        while let Some(event) = events.blocking_recv() {
            if !self.take(event) {
                break;
            }
        }
    }

    /// False once the driver has ended.
    fn take(&mut self, event: Event) -> bool {
        let node = |peer: PeerKey| NodeId(peer.0);
        match event {
            Event::LinkUp { peer, addr } => {
                info!(node = %node(peer), %addr, "linked");
                for said in [node(peer), self.me].iter().filter_map(|node| self.voices.of(node)) {
                    // No link any more: there will be another occasion.
                    let _gone = self.net.send(peer, Lane::Control, wire::encode(&Control::Said(said.to_vec())));
                }
                self.handle.input(Input::LinkUp(node(peer)))
            }
            Event::LinkDown { peer, reason } => {
                info!(node = %node(peer), ?reason, "link lost");
                self.handle.input(Input::LinkDown(node(peer)))
            }
            Event::Gossip { topic, from, tag, bytes } => {
                let from = node(from);
                let input = match topic {
                    Topic::Log => open_batch(&bytes, &self.cluster).map(|batch| Input::Batch { from, batch }),
                    Topic::Presence => self.hear(&bytes),
                };
                self.net.verdict(tag, input.as_ref().map_or(Verdict::Reject, |input| self.judge(input)));
                input.is_none_or(|input| self.handle.input(input))
            }
            Event::Frame { peer, lane: Lane::Control, bytes } => self.control(node(peer), &bytes),
            Event::Frame { peer, lane: Lane::Bulk, bytes } => self.bulk(node(peer), &bytes),
            Event::Refused { addr, reason } => {
                warn!(%addr, %reason, "connection refused");
                true
            }
            Event::Listening(addr) => {
                info!(%addr, "listening for links");
                // Those behind an unspecified address are found one by one.
                let links = self.net.listening().iter().map(ToString::to_string).collect();
                self.handle.input(Input::Addresses { api: self.api.clone(), links, workers: self.workers.clone() })
            }
        }
    }

    /// In a small cluster the author has sent its batch to everybody; passing it on would double the traffic. Should one of the others not be linked to the
    /// author, anti-entropy brings it within a second.
    fn judge(&self, input: &Input) -> Verdict {
        match input {
            Input::Batch { from, batch }
                if batch.header().log.node == *from && self.net.linked().len() <= FULL_MESH =>
            {
                Verdict::Ignore
            }
            _ => Verdict::Accept,
        }
    }

    fn open_presence(bytes: &[u8]) -> Option<Presence> {
        match wire::open_presence(bytes) {
            Ok(presence) => Some(presence),
            Err(error) => {
                debug!(%error, "presence dropped");
                None
            }
        }
    }

    fn hear(&mut self, bytes: &Bytes) -> Option<Input> {
        let presence = Self::open_presence(bytes)?;
        self.voices.hear(presence.node, bytes);
        for link in presence.links.iter().take(8).filter_map(|link| link.parse().ok()) {
            self.net.hint(link, Some(PeerKey(presence.node.0)));
        }
        Some(Input::Presence(presence))
    }

    /// Keeps lines that a client pushed at another node. A peer that sends more than this node writes waits for its answers.
    fn keep_pushed(&self, from: NodeId, id: u64, job: JobId, piece: Bytes) {
        let Ok(permit) = Arc::clone(&self.keeping).try_acquire_owned() else {
            return;
        };
        let (handle, pushes, net) = (self.handle.clone(), self.pushes.clone(), self.net.clone());
        self.runtime.spawn(async move {
            let is_there = move |machine: &mut Machine, _now: Now| {
                machine.facts().job(&job).is_some_and(|job| job.submit.as_ref().is_some())
            };
            let kept = match handle.ask(is_there).await {
                Ok(true) => pushes.keep(job, piece).await,
                Ok(false) => Kept::Unknown,
                Err(_busy) => Kept::Failed,
            };
            // No link any more: the asker gives up by itself.
            let _gone = net.send(PeerKey(from.0), Lane::Control, wire::encode(&Control::Pushed { id, kept }));
            drop(permit);
        });
    }

    fn control(&mut self, from: NodeId, bytes: &[u8]) -> bool {
        match minicbor::decode::<Control>(bytes) {
            Ok(Control::Core(message)) => self.handle.input(Input::Message { from, message }),
            Ok(Control::Said(signed)) => self.hear(&Bytes::from(signed)).is_none_or(|input| self.handle.input(input)),
            Ok(Control::Piece { id, offset }) => {
                // Full: the peer asks again.
                let _full = self.serve.try_send(Serve::Piece { to: from, id, offset });
                true
            }
            Ok(Control::Pushed { id, kept }) => {
                self.pushes.answered(id, kept);
                true
            }
            Ok(Control::Fetch { id, fetch }) => {
                let (files, net) = (self.files.clone(), self.net.clone());
                self.runtime.spawn(async move {
                    if let Some((data, len)) = output::answer(&files, &fetch).await {
                        let frame = wire::encode(&Bulk::Fetched { id, len, data: data.as_ref().into() });
                        // No link any more: the asker gives up by itself.
                        let _gone = net.send(PeerKey(from.0), Lane::Bulk, frame);
                    }
                });
                true
            }
            Err(error) => {
                debug!(node = %from, %error, "message dropped");
                true
            }
        }
    }

    fn bulk(&self, from: NodeId, bytes: &[u8]) -> bool {
        match minicbor::decode::<Bulk<'_>>(bytes) {
            Ok(Bulk::Batches { log, more, batches }) => {
                let batches = open_all(&batches, &self.cluster);
                self.handle.input(Input::Pulled { from, log, batches, more })
            }
            Ok(Bulk::Piece { id, offset, data }) => {
                self.fetches.piece(from, id, offset, data);
                true
            }
            Ok(Bulk::Fetched { id, len, data }) => {
                self.remote.answered(id, Bytes::copy_from_slice(data), len);
                true
            }
            Ok(Bulk::Push { id, job, data }) => {
                self.keep_pushed(from, id, job, Bytes::copy_from_slice(data));
                true
            }
            Ok(Bulk::Tail { place, stream, data }) => {
                let small = data.len() as u64 <= output::TAIL_BYTES;
                if small && let Err(error) = self.files.keep_tail(&place, stream, data) {
                    debug!(%error, "tail not kept");
                }
                true
            }
            Err(error) => {
                debug!(node = %from, %error, "frame dropped");
                true
            }
        }
    }
}

fn open_batch(bytes: &[u8], cluster: &ClusterId) -> Option<SignedBatch> {
    match SignedBatch::open(bytes, cluster) {
        Ok(batch) => Some(batch),
        Err(error) => {
            debug!(%error, "batch dropped");
            None
        }
    }
}

/// All up to the first that is no good. Checking signatures is most of the work of catching up, so that many are shared out among all processors.
fn open_all(all: &[&ByteSlice], cluster: &ClusterId) -> Vec<SignedBatch> {
    let open = |part: &[&ByteSlice]| part.iter().map_while(|bytes| open_batch(bytes, cluster)).collect::<Vec<_>>();
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let share = all.len().div_ceil(processors).max(SHARE_MIN);
    if all.len() <= share {
        return open(all);
    }
    let parts: Vec<&[&ByteSlice]> = all.chunks(share).collect();
    let opened: Vec<Vec<SignedBatch>> = thread::scope(|scope| {
        let running: Vec<_> = parts.iter().map(|part| scope.spawn(|| open(part))).collect();
        running.into_iter().map(|part| part.join().unwrap_or_default()).collect()
    });
    let whole = parts.iter().zip(&opened).take_while(|(part, opened)| part.len() == opened.len()).count();
    opened.into_iter().take(whole + 1).flatten().collect()
}

/// Raw batches from the disk, for those who read history.
pub(super) fn history(reader: &Reader, log: &LogId, from: u64, max_bytes: usize) -> Result<Vec<Bytes>, String> {
    let found = reader.read(log_key(log), from, max_bytes).map_err(|error| error.to_string())?;
    Ok(found.into_iter().map(|(_, bytes)| bytes).collect())
}

#[cfg(test)]
mod tests {
    use starling_core::event::{Signer, cluster_id};
    use starling_core::ids::{Epoch, Hash, Seq};
    use starling_core::namespace::sys;
    use starling_core::time::Hlc;

    use super::*;

    #[test]
    fn many_batches_are_opened_in_order_up_to_the_first_bad_one() {
        let (signer, cluster) = (Signer::from_seed(&[1; 32]), cluster_id(&[7; 32]));
        let mut prev = Hash::ZERO;
        let mut signed: Vec<Vec<u8>> = Vec::new();
        for seq in 1..=300 {
            let event = sys::forget(Hlc::default(), signer.node());
            let batch =
                SignedBatch::seal(&signer, cluster, Epoch(1), Seq(seq), prev, vec![(event.clone(), event.to_bytes())]);
            prev = batch.head();
            signed.push(batch.bytes().to_vec());
        }
        let open = |signed: &[Vec<u8>]| -> Vec<u64> {
            let all: Vec<&ByteSlice> = signed.iter().map(|bytes| bytes.as_slice().into()).collect();
            open_all(&all, &cluster).iter().map(|batch| batch.header().first_seq.0).collect()
        };
        assert_eq!(open(&signed), (1..=300).collect::<Vec<_>>());
        assert_eq!(open(&signed[..5]), [1, 2, 3, 4, 5]);
        for bad in [0, 149, 150, 299] {
            let mut damaged = signed.clone();
            damaged[bad][40] ^= 1;
            assert_eq!(open(&damaged).len(), bad);
        }
    }
}
