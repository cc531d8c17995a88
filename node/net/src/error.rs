//! What can go wrong at this crate's boundary.
//!
//! Invariants: each variant says what happened; none of them changed any state unless it says so.
//! Does not: cover what happens to links later; those are events.

use std::net::SocketAddr;

/// Why [`crate::start`] did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Somebody else listens there.
    #[error("address {addr} is in use; choose another port, or stop the program that holds it")]
    AddrInUse {
        /// The address as configured.
        addr: SocketAddr,
    },
    /// The address could not be bound for another reason.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address as configured.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The library refused our settings: a bug, or no entropy.
    #[error("cannot set up the network")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no tokio runtime here.
    #[error("the network must be started on a tokio runtime")]
    NoRuntime,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no link to that peer now.
    #[error("no link to this peer")]
    NotLinked,
    /// Its queue is full. On lane Control the link is being dropped; on Bulk it stays, try later.
    #[error("the peer's send queue is full")]
    Full,
    /// The frame is larger than the lane allows; nothing else changed.
    #[error("a frame of {bytes} bytes exceeds the lane's limit of {bytes_max}")]
    TooLarge {
        /// The frame's size.
        bytes: usize,
        /// The lane's limit.
        bytes_max: usize,
    },
}

/// Why a message was not handed to gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The message is larger than [`crate::GOSSIP_BYTES_MAX`].
    #[error("a message of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge {
        /// The message's size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The network is behind; the message is dropped, sync will repair it.
    #[error("the network's command queue is full")]
    Full,
    /// The network has been shut down.
    #[error("the network is shut down")]
    Stopped,
}

/// Why a tunnel was not opened. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// There is no link to that peer now.
    #[error("no link to this peer")]
    NotLinked,
    /// As many tunnels as are allowed lead from here to this peer already.
    #[error("{count_max} tunnels to this peer are open, and no more are allowed")]
    TooMany {
        /// The limit.
        count_max: usize,
    },
    /// The opening is larger than [`crate::TUNNEL_OPENING_BYTES_MAX`].
    #[error("an opening of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge {
        /// The opening's size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The peer said no.
    #[error("the peer refused the tunnel: {0}")]
    Refused(String),
    /// The peer is of a version that has no tunnels.
    #[error("the peer knows no tunnels; update its node")]
    Unsupported,
    /// There was no answer within 5 s.
    #[error("the peer did not answer in time")]
    Timeout,
    /// The link went down meanwhile, or the peer dropped the tunnel without an answer.
    #[error("the tunnel broke before it was open")]
    Broken(#[from] std::io::Error),
    /// The network is behind; try again later.
    #[error("the network's command queue is full")]
    Full,
    /// The network has been shut down.
    #[error("the network is shut down")]
    Stopped,
}
