//! Every bound of this crate, in one place.
//!
//! Invariants: no queue, map or wait elsewhere in the crate is larger or longer than a number named here.
//! Does not: bound what the caller keeps after it has taken an event.

use std::time::Duration;

/// Shortest heartbeat that is honoured.
pub(crate) const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
/// Largest payload of one frame on lane Control, in bytes.
pub const CONTROL_FRAME_BYTES_MAX: usize = 256 * 1024;
/// Largest payload of one frame on lane Bulk, in bytes (a sync response is at most 1 MiB).
pub const BULK_FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Largest message that `publish` takes, in bytes. Well under the transmit limit, because
/// gossipsub silently loses a message as large as that limit.
pub const GOSSIP_BYTES_MAX: usize = 192 * 1024;
/// Gossipsub's limit for one message with its envelope.
pub(crate) const GOSSIP_TRANSMIT_BYTES_MAX: usize = 256 * 1024;
/// Messages waiting per peer inside gossipsub; more are dropped and counted, sync repairs.
pub(crate) const GOSSIP_QUEUE: usize = 512;

/// Control frames waiting for one peer's writer. When full: the sender gets `Full`, the link is dropped.
pub(crate) const CONTROL_QUEUE: usize = 1024;
/// Bytes waiting for one peer's Control writer, so that 1,024 large frames cannot pile up.
pub(crate) const CONTROL_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Bulk frames waiting for one peer's writer. When full: the sender gets `Full`, the link stays.
pub(crate) const BULK_QUEUE: usize = 8;
/// Events waiting for the application. When full: links stop reading, gossip is dropped and counted.
pub(crate) const EVENT_QUEUE: usize = 4096;
/// Payload bytes waiting for the application, in KiB.
pub(crate) const EVENT_QUEUE_KIB: usize = 64 * 1024;
/// Commands waiting for the swarm task. When full: refused.
pub(crate) const COMMAND_QUEUE: usize = 4096;
/// Notes from links and upgrades waiting for the swarm task. Links wait, upgrades drop.
pub(crate) const NOTE_QUEUE: usize = 256;
/// How much a writer gathers before it writes.
pub(crate) const WRITE_BATCH_BYTES: usize = 64 * 1024;
/// Read buffer of each lane.
pub(crate) const READ_BUFFER_BYTES: usize = 32 * 1024;

/// Established connections in all; DESIGN speaks of 200 nodes and each pair may briefly have two.
pub(crate) const CONNECTIONS_MAX: u32 = 512;
/// Connections per peer: one, and some while dead ones wait for the system to give them up.
pub(crate) const CONNECTIONS_PER_PEER_MAX: u32 = 4;
/// Inbound connections that have not yet proven anything.
pub(crate) const PENDING_INBOUND_MAX: u32 = 128;
/// Dials under way.
pub(crate) const PENDING_OUTBOUND_MAX: u32 = 128;
/// What the multiplexer may let a peer send ahead, over all streams of a connection, beyond the 256 KiB that each may
/// at least: windows grow where the application reads fast and the way is long (60 ms at 1 GB/s take this much).
pub(crate) const WINDOW_GROWTH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Streams on one connection, as the multiplexer counts them. It reserves 256 KiB for each out of 1 GiB and gives the
/// rest to growth, and only this number of the two can be set; so it says how little is left. What really bounds
/// streams is that two lanes, gossipsub's few and `TUNNELS_PER_PEER_MAX` each way are kept, and all others dropped.
pub(crate) const STREAMS_MAX: usize = (1024 * 1024 * 1024 - WINDOW_GROWTH_BYTES_MAX) / (256 * 1024);
/// Tunnels to one peer that we opened, and as many that it opened. More are refused.
pub(crate) const TUNNELS_PER_PEER_MAX: usize = 64;
/// Tunnels waiting for the application. When full: refused.
pub(crate) const INCOMING_QUEUE: usize = 256;
/// Largest opening of a tunnel, in bytes.
pub const TUNNEL_OPENING_BYTES_MAX: usize = 1024;
/// Longest reason for refusing one, in bytes of UTF-8. Longer ones are cut.
pub(crate) const TUNNEL_REASON_BYTES_MAX: usize = 200;
/// What a tunnel gathers of one write: with its length, what the multiplexer sends in one frame.
pub(crate) const TUNNEL_CHUNK_BYTES: usize = 16 * 1024 - 2;

/// Peers in the redial book, and as many addresses without a known peer.
pub(crate) const BOOK_MAX: usize = 1024;
/// Addresses of one peer.
pub(crate) const ADDRESSES_PER_PEER_MAX: usize = 8;
/// Addresses remembered as our own.
pub(crate) const OWN_ADDRESSES_MAX: usize = 64;
/// Peers introduced to a neighbour in one frame.
pub(crate) const INTRODUCED_MAX: usize = 256;
/// Refusals remembered for rate limiting.
pub(crate) const REFUSALS_MAX: usize = 256;

/// A TCP connection alone. After a partition the system would wait seconds between its own attempts; a new dial
/// is faster.
pub(crate) const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// How long the system keeps a connection whose bytes nobody acknowledges; without it a cut connection with
/// full buffers would take a quarter of an hour to close.
pub(crate) const UNACKNOWLEDGED_WAIT: Duration = Duration::from_secs(8);
/// Dial, Noise, proof and muxer together.
pub(crate) const UPGRADE_WAIT: Duration = Duration::from_secs(10);
/// The membership challenge alone.
pub(crate) const CHALLENGE_WAIT: Duration = Duration::from_secs(5);
/// From connection to a usable link; then the connection is closed.
pub(crate) const LINK_WAIT: Duration = Duration::from_secs(10);
/// Two connections to one peer that are opened within this time come of dialling each other; with a later one the earlier is given up.
pub(crate) const DOUBLES_WAIT: Duration = Duration::from_secs(5);
/// A peer whose gossip has not said by then what it listens to never will.
pub(crate) const GREETING_WAIT: Duration = Duration::from_secs(4);
/// From the wish for a tunnel to its answer; and for each step at the side that is asked.
pub(crate) const TUNNEL_WAIT: Duration = Duration::from_secs(5);
/// How long a closing link may take to write what is queued.
pub(crate) const DRAIN_WAIT: Duration = Duration::from_millis(500);
/// How long `shutdown` may take in all.
pub(crate) const SHUTDOWN_WAIT: Duration = Duration::from_secs(3);
/// One refusal per address is told in this time.
pub(crate) const REFUSAL_QUIET: Duration = Duration::from_secs(10);

const _: () = assert!(GOSSIP_BYTES_MAX + 1024 < GOSSIP_TRANSMIT_BYTES_MAX);
const _: () = assert!(CONTROL_FRAME_BYTES_MAX < CONTROL_QUEUE_BYTES);
const _: () =
    assert!(TUNNEL_REASON_BYTES_MAX < 256 && TUNNEL_OPENING_BYTES_MAX < 1 << 16 && TUNNEL_CHUNK_BYTES < 1 << 16);
const _: () = assert!(BULK_FRAME_BYTES_MAX / 1024 < EVENT_QUEUE_KIB);
