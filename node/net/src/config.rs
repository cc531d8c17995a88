//! What a node must be told before it can link: keys, addresses, two intervals.
//!
//! Invariants: none of the secrets appear in `Debug`.
//! Does not: read files, flags or the environment.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// What links run over. All nodes of a cluster must use the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// TCP, Noise and yamux.
    #[default]
    Tcp,
    /// QUIC, on the UDP ports of the same numbers.
    #[cfg(feature = "quic")]
    Quic,
}

/// Configuration of [`crate::start`].
#[derive(Clone)]
pub struct Config {
    /// ed25519 seed of this node. Two running nodes with one seed refuse each other.
    pub seed: [u8; 32],
    /// Names the gossip topics. Nodes with different ids refuse each other, even with one secret.
    pub cluster_id: [u8; 32],
    /// What every member knows. A peer that cannot prove it is refused before anything else is said.
    pub cluster_secret: [u8; 32],
    /// What links run over.
    pub transport: Transport,
    /// Addresses to bind; port 0 lets the system choose. Empty: dial only.
    pub listen: Vec<SocketAddr>,
    /// Where peers should dial us, when that is not where we listen (behind a port forwarding, say). `None`: where we
    /// listen. Told to linked peers only.
    pub announce: Option<Vec<SocketAddr>>,
    /// Addresses to dial until they answer, for ever. Whose they are is learnt by dialling.
    pub join: Vec<SocketAddr>,
    /// Announce and look for nodes by multicast on every interface except loopback. A hint only.
    pub mdns: bool,
    /// How often a silent link says that it lives. Too low costs idle CPU; it must be well under
    /// `silence`; at least 10 ms. Default 1 s (DESIGN section 5).
    pub heartbeat: Duration,
    /// A link on which nothing arrives for so long is cut and dialled anew. Too low cuts links to busy
    /// machines; too high leaves a partition unnoticed. Default 4 s: three lost heartbeats and one late.
    pub silence: Duration,
}

impl Config {
    /// A node that listens nowhere and joins nobody, with the default intervals.
    pub fn new(seed: [u8; 32], cluster_id: [u8; 32], cluster_secret: [u8; 32]) -> Self {
        Self {
            seed,
            cluster_id,
            cluster_secret,
            transport: Transport::default(),
            listen: Vec::new(),
            announce: None,
            join: Vec::new(),
            mdns: false,
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(4),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("transport", &self.transport)
            .field("listen", &self.listen)
            .field("announce", &self.announce)
            .field("join", &self.join)
            .field("mdns", &self.mdns)
            .field("heartbeat", &self.heartbeat)
            .field("silence", &self.silence)
            .finish_non_exhaustive()
    }
}
