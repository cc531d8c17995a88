//! Starling's links: libp2p behind channels. Bytes in, bytes out.
//!
//! A node has one link to each peer: a secure connection (TCP with Noise; or QUIC), opened only after both
//! sides have proven that they know the cluster's secret, with two ordered lanes of frames, and gossip and tunnels
//! (byte streams) beside them. This crate keeps the links up: it dials, redials with growing pauses, notices silence, and settles
//! double connections.
//!
//! Invariants: the only crate that knows libp2p; every buffer is bounded (`limits`); nothing a peer sends can
//! panic it.
//! Does not: know what the bytes mean, store anything, or promise delivery (sync repairs).

mod address;
mod behaviour;
mod book;
mod challenge;
mod config;
mod connections;
mod error;
mod event;
mod frame;
mod gossip;
mod handle;
mod hello;
mod key;
mod lanes;
mod limits;
mod link;
mod listen;
mod node;
mod opening;
mod outbox;
mod pulse;
mod refusals;
mod start;
mod transport;
mod tunnel;

pub use config::{Config, Transport};
pub use error::{Error, PublishError, SendError, TunnelError};
pub use event::{DownReason, Event, Events, RefusedReason};
pub use gossip::{MessageTag, Topic, Verdict};
pub use handle::{Handle, Stats};
pub use key::PeerKey;
pub use lanes::Lane;
pub use limits::{BULK_FRAME_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, GOSSIP_BYTES_MAX, TUNNEL_OPENING_BYTES_MAX};
pub use opening::{Incoming, Tunnels};
pub use start::start;
pub use tunnel::Tunnel;
