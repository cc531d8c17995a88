//! One link: the task that reads, writes and watches the two lanes to one peer, and hears what its tunnels are for.
//!
//! Frames go from the application's thread into the link's queue and from the link's reader into the event queue; the
//! swarm task is not on either path.
//!
//! Invariants: `LinkUp` is told after both sides have said hello, and then `LinkDown` exactly once, after the
//! last frame; its tunnels end with it; a link to a peer starts only after its predecessor's `LinkDown`. A link that waits for the
//! application is not silent.
//! Does not: dial, or decide which of two connections lives (`node`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::io::{BufReader, ReadHalf, WriteHalf};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use libp2p::swarm::{ConnectionId, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::event::{DownReason, Event, EventSender, Undelivered};
use crate::frame::{self, Kind, ReadError};
use crate::hello::{self, Introduction};
use crate::key::PeerKey;
use crate::lanes::Lane;
use crate::limits;
use crate::opening::{self, Incoming};
use crate::outbox::{self, Kill, Queues, Senders};
use crate::pulse::{Heard, Pulse};
use crate::tunnel::{self, Gate, Up};

/// What a link tells the swarm task.
#[derive(Debug)]
pub(crate) enum Note {
    /// The peer has said hello and the link is up.
    Up { peer: PeerKey, listens: Vec<SocketAddr> },
    /// The peer has named other peers.
    Introduced { introductions: Vec<Introduction> },
}

/// What every link of a node shares.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) senders: Arc<Senders>,
    pub(crate) events: EventSender,
    pub(crate) notes: mpsc::Sender<Note>,
    pub(crate) incoming: mpsc::Sender<Incoming>,
    pub(crate) heartbeat: Duration,
    pub(crate) silence: Duration,
}

/// A link about to start.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: PeerKey,
    pub(crate) addr: SocketAddr,
    pub(crate) connection: ConnectionId,
    pub(crate) control: Stream,
    pub(crate) bulk: Stream,
    /// Streams that the peer opens for tunnels.
    pub(crate) tunnels: mpsc::Receiver<Stream>,
    pub(crate) listens: Vec<SocketAddr>,
    pub(crate) kill: Arc<Kill>,
    pub(crate) pulse: Arc<Pulse>,
    /// Resolves when the peer's previous link has told its end.
    pub(crate) predecessor: Option<oneshot::Receiver<()>>,
    /// Dropped when this link has told its end.
    pub(crate) ended: oneshot::Sender<()>,
}

/// A link that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) peer: PeerKey,
    pub(crate) connection: ConnectionId,
    pub(crate) reason: DownReason,
}

/// Where the tunnels of a link begin.
struct Entrance {
    gate: Gate,
    streams: mpsc::Receiver<Stream>,
    up: Up,
}

type LaneReader = BufReader<Heard<ReadHalf<Stream>>>;

/// Runs a link to its end.
///
/// Cancel safety: not cancel safe; end it through `Kill`.
pub(crate) async fn run(link: Link, common: Common) -> Ended {
    let (peer, connection, addr, kill) = (link.peer, link.connection, link.addr, link.kill.clone());
    if let Some(predecessor) = link.predecessor {
        // An error is its end as well: the other half was dropped.
        let _ended = predecessor.await;
    }
    let mut lanes = Lanes::new(link.control, link.bulk, link.pulse);
    let greeting = tokio::time::timeout(limits::LINK_WAIT, lanes.greet(&link.listens));
    let listens = tokio::select! {
        biased;
        reason = kill.wait() => return Ended { peer, connection, reason },
        greeted = greeting => match greeted {
            Ok(Ok(listens)) => listens,
            Ok(Err(error)) => return Ended { peer, connection, reason: error.into() },
            Err(_elapsed) => return Ended { peer, connection, reason: DownReason::Silence },
        },
    };
    let (up, down) = tunnel::up();
    let tunnels = Entrance { gate: Gate::new(down), streams: link.tunnels, up };
    let (sender, queues) = outbox::queues(kill.clone(), connection, tunnels.gate.clone());
    // Before the event, so that the application may answer it at once.
    common.senders.insert(peer, sender);
    let told = async {
        let note = Note::Up { peer, listens };
        common.notes.send(note).await.or(Err(DownReason::Shutdown))?;
        common.events.send(Event::LinkUp { peer, addr }).await.or(Err(DownReason::Shutdown))
    };
    if let Err(reason) = told.await {
        common.senders.remove(peer);
        return Ended { peer, connection, reason };
    }
    let reason = lanes.carry(peer, queues, tunnels, &common, &kill).await;
    // Undelivered only when the application is gone.
    let _gone = common.events.send(Event::LinkDown { peer, reason }).await;
    drop(link.ended);
    Ended { peer, connection, reason }
}

/// The two streams, split for reading and writing at once.
struct Lanes {
    control_reader: LaneReader,
    control_writer: WriteHalf<Stream>,
    bulk_reader: LaneReader,
    bulk_writer: WriteHalf<Stream>,
    pulse: Arc<Pulse>,
}

impl Lanes {
    fn new(control: Stream, bulk: Stream, pulse: Arc<Pulse>) -> Self {
        let (control_reader, control_writer) = control.split();
        let (bulk_reader, bulk_writer) = bulk.split();
        let buffered = |reader| BufReader::with_capacity(limits::READ_BUFFER_BYTES, Heard::new(reader, pulse.clone()));
        Self {
            control_reader: buffered(control_reader),
            control_writer,
            bulk_reader: buffered(bulk_reader),
            bulk_writer,
            pulse,
        }
    }

    /// Says where we listen, and reads the same of the peer.
    async fn greet(&mut self, listens: &[SocketAddr]) -> Result<Vec<SocketAddr>, ReadError> {
        let (mut payload, mut out) = (Vec::new(), Vec::new());
        hello::encode_addresses(listens, &mut payload);
        frame::encode(Kind::Hello, &payload, &mut out);
        self.control_writer.write_all(&out).await?;
        self.control_writer.flush().await?;
        let (kind, payload) = frame::read(Lane::Control, &mut self.control_reader).await?;
        if kind != Kind::Hello {
            return Err(ReadError::Violation);
        }
        hello::decode_addresses(&payload).ok_or(ReadError::Violation)
    }

    /// Reads, writes and watches until one of them ends the link.
    async fn carry(self, peer: PeerKey, queues: Queues, tunnels: Entrance, common: &Common, kill: &Kill) -> DownReason {
        let Entrance { gate, mut streams, up } = tunnels;
        let Self { mut control_reader, control_writer, mut bulk_reader, bulk_writer, pulse } = self;
        let Queues { control, bulk, queued_bytes } = queues;
        let reading = Reading { peer, common, pulse: &pulse };
        let write_control = write(control_writer, control, Some(common.heartbeat), Some(&queued_bytes));
        let mut write_control = std::pin::pin!(write_control.fuse());
        let mut write_bulk = std::pin::pin!(write(bulk_writer, bulk, None, None).fuse());
        let reason = tokio::select! {
            biased;
            reason = kill.wait() => reason,
            reason = reading.lane(Lane::Control, &mut control_reader) => reason,
            // What the peer said on Control before it closed the rest is still to be read.
            reason = linger(reading.lane(Lane::Bulk, &mut bulk_reader)) => reason,
            reason = linger((&mut write_control).map(|()| DownReason::Closed)) => reason,
            reason = linger((&mut write_bulk).map(|()| DownReason::Closed)) => reason,
            () = watch(&pulse, common.silence) => DownReason::Silence,
            never = opening::receive(peer, &gate, &mut streams, &common.incoming) => match never {},
        };
        common.senders.remove(peer);
        // Tunnels end now, whatever the connection below still does.
        drop(up);
        if matches!(reason, DownReason::Shutdown | DownReason::Local) {
            // No sender is left, so the writers end when their queues are empty. Then the peer must have the
            // time to read it all: closing a socket with unread bytes resets it, and discards what is on its
            // way. So read until the peer has seen our end and ended too.
            let mut nowhere = futures::io::sink();
            let end = futures::io::copy(&mut control_reader, &mut nowhere);
            let drain = async { tokio::join!(write_control, write_bulk, end) };
            let _drained_or_not = tokio::time::timeout(limits::DRAIN_WAIT, drain).await;
        }
        reason
    }
}

impl From<ReadError> for DownReason {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(_) => Self::Closed,
            ReadError::Violation => Self::Violation,
        }
    }
}

struct Reading<'a> {
    peer: PeerKey,
    common: &'a Common,
    pulse: &'a Pulse,
}

impl Reading<'_> {
    /// Reads a lane until it ends.
    async fn lane(&self, lane: Lane, reader: &mut LaneReader) -> DownReason {
        loop {
            let (kind, bytes) = match frame::read(lane, reader).await {
                Ok(frame) => frame,
                Err(error) => return error.into(),
            };
            match (kind, lane) {
                (Kind::Data, _) => {
                    if self.deliver(Event::Frame { peer: self.peer, lane, bytes }).await.is_err() {
                        return DownReason::Shutdown;
                    }
                }
                (Kind::Beat, Lane::Control) => {}
                (Kind::Introductions, Lane::Control) => {
                    let Some(introductions) = hello::decode_introductions(&bytes) else {
                        return DownReason::Violation;
                    };
                    // Full: the swarm task is busy; introductions are hints.
                    let _full = self.common.notes.try_send(Note::Introduced { introductions });
                }
                (Kind::Beat | Kind::Introductions, Lane::Bulk) | (Kind::Hello, _) => {
                    return DownReason::Violation;
                }
            }
        }
    }

    async fn deliver(&self, event: Event) -> Result<(), Undelivered> {
        let Err(event) = self.common.events.try_send(event) else {
            return Ok(());
        };
        // The application is behind: stop reading this lane, so that the peer's queue fills, not our memory.
        self.pulse.stall();
        let result = self.common.events.send(event).await;
        self.pulse.resume();
        result
    }
}

/// Writes queued frames, and a beat when there was none for `heartbeat`, until the queue closes or the stream breaks.
async fn write(
    mut stream: WriteHalf<Stream>,
    mut queue: mpsc::Receiver<(Kind, Bytes)>,
    heartbeat: Option<Duration>,
    queued_bytes: Option<&AtomicUsize>,
) {
    let mut out = Vec::with_capacity(1024);
    // Bulk has no beat of its own: the tick is far away and says nothing.
    let mut tick = tokio::time::interval(heartbeat.unwrap_or(Duration::from_secs(86_400)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        out.clear();
        let first = tokio::select! {
            biased;
            frame = queue.recv() => match frame {
                Some(frame) => Some(frame),
                None => break,
            },
            _ = tick.tick() => None,
        };
        let mut next = match (first, heartbeat) {
            (Some(frame), _) => Some(frame),
            (None, Some(_)) => Some((Kind::Beat, Bytes::new())),
            (None, None) => continue,
        };
        // Everything that waits goes out with one flush.
        while let Some((kind, payload)) = next {
            if let Some(queued_bytes) = queued_bytes {
                queued_bytes.fetch_sub(payload.len(), Ordering::Relaxed);
            }
            frame::encode(kind, &payload, &mut out);
            if out.len() >= limits::WRITE_BATCH_BYTES {
                if stream.write_all(&out).await.is_err() {
                    return;
                }
                out.clear();
            }
            next = queue.try_recv().ok();
        }
        if stream.write_all(&out).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if heartbeat.is_some() {
            tick.reset();
        }
        // A large frame should not keep its memory for the life of the link.
        out.shrink_to(2 * limits::WRITE_BATCH_BYTES);
    }
    // The queue is closed: say so to the peer. If that fails the connection is gone anyway.
    let _gone = stream.close().await;
}

/// Holds back the news that a stream was closed.
async fn linger(end: impl Future<Output = DownReason>) -> DownReason {
    let reason = end.await;
    if reason == DownReason::Closed {
        tokio::time::sleep(limits::DRAIN_WAIT).await;
    }
    reason
}

/// Returns when nothing has arrived for `silence`.
async fn watch(pulse: &Pulse, silence: Duration) {
    loop {
        let silent_for = pulse.silent_for();
        if silent_for >= silence {
            return;
        }
        tokio::time::sleep(silence - silent_for).await;
    }
}
