//! TCP, then Noise, then the membership challenge, then yamux.
//!
//! There is one way to secure and one way to multiplex, so neither is negotiated: the first bytes on the wire are
//! the Noise handshake, whose prologue names the protocol.
//!
//! Invariants: a connection that leaves here is to an ed25519 peer, not ourselves, the one that was
//! dialled if one was named, and it has proven membership. Every failure after TCP is reported with its address.
//! Does not: decide whom to dial (`book`) or what to tell the user (`refusals`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, Transport, timeout::TransportTimeout};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::core::{ConnectedPoint, Multiaddr};
use libp2p::identity::Keypair;
use libp2p::{noise, tcp, yamux};
use tokio::sync::mpsc;

use crate::challenge::{ChallengeError, Prover, Role};
use crate::key::PeerKey;
use crate::{address, limits};

const PROLOGUE: &[u8] = b"starling/1";

/// Why a connection was given up before anything was spoken on it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// Not Noise, not our prologue, or the connection broke: a stranger, or garbage.
    #[error("no secure channel")]
    Noise(#[from] noise::Error),
    /// The identity is of a kind that we do not use.
    #[error("the peer's identity is not ed25519")]
    Identity,
    /// We have dialled ourselves.
    #[error("the peer is this node itself")]
    Myself,
    /// Another process runs with our seed.
    #[error("another node runs with this node's own identity")]
    Twin,
    /// Somebody else lives at that address.
    #[error("expected peer {expected}, found {found}")]
    OtherPeer { expected: PeerKey, found: PeerKey },
    /// It is no member.
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    /// The muxer could not start.
    #[error("no multiplexer")]
    Yamux(#[source] io::Error),
}

/// A failed upgrade, for the swarm task.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) addr: SocketAddr,
    pub(crate) role: Role,
    pub(crate) error: Arc<UpgradeError>,
}

/// What the swarm sees of a reported failure.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the upgrade failed")]
pub(crate) struct Reported(#[source] Arc<UpgradeError>);

#[derive(Clone)]
struct Upgrade {
    noise: noise::Config,
    prover: Prover,
    me: PeerKey,
    // Tells this process from another that runs with the same seed.
    instance: [u8; 32],
    reports: mpsc::Sender<Report>,
}

/// Builds the transport. Failed upgrades go to `reports`, or are dropped when it is full.
pub(crate) fn build(
    keypair: &Keypair,
    me: PeerKey,
    prover: Prover,
    reports: mpsc::Sender<Report>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let noise = noise::Config::new(keypair)?.with_prologue(PROLOGUE.to_vec());
    let upgrade = Upgrade {
        noise,
        prover,
        me,
        instance: rand::random(),
        reports,
    };
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
    let tcp = TransportTimeout::with_outgoing_timeout(tcp, limits::CONNECT_WAIT);
    let secured = tcp.and_then(move |socket, endpoint| Box::pin(upgrade.apply(socket, endpoint)));
    Ok(TransportTimeout::new(secured, limits::UPGRADE_WAIT).boxed())
}

impl Upgrade {
    async fn apply(
        self,
        socket: tcp::tokio::TcpStream,
        endpoint: ConnectedPoint,
    ) -> Result<(PeerId, StreamMuxerBox), Reported> {
        let (remote, role) = remote_of(&endpoint);
        let reports = self.reports.clone();
        self.secure(socket, remote.clone(), role)
            .await
            .map_err(|error| {
                let error = Arc::new(error);
                if let Some(addr) = address::to_socket(&remote) {
                    // Full: the report is for counters and the user's eyes, the refusal itself stands.
                    let _full = reports.try_send(Report {
                        addr,
                        role,
                        error: error.clone(),
                    });
                }
                Reported(error)
            })
    }

    async fn secure(
        self,
        socket: tcp::tokio::TcpStream,
        remote: Multiaddr,
        role: Role,
    ) -> Result<(PeerId, StreamMuxerBox), UpgradeError> {
        give_up_unacknowledged(&socket);
        let (peer, mut channel) = match role {
            Role::Dialer => {
                self.noise
                    .clone()
                    .upgrade_outbound(socket, "/noise")
                    .await?
            }
            Role::Listener => self.noise.clone().upgrade_inbound(socket, "/noise").await?,
        };
        let found = PeerKey::from_peer_id(&peer).ok_or(UpgradeError::Identity)?;
        if found == self.me {
            return Err(self.mirror(&mut channel).await?);
        }
        match address::expected_peer(&remote) {
            Some(expected) if expected != found && role == Role::Dialer => {
                return Err(UpgradeError::OtherPeer { expected, found });
            }
            Some(_) | None => {}
        }
        self.prover.run(&mut channel, found, role).await?;

        let mut muxer = yamux::Config::default();
        muxer.set_max_num_streams(limits::STREAMS_MAX);
        let connection = match role {
            Role::Dialer => muxer.upgrade_outbound(channel, "/yamux/1.0.0").await,
            Role::Listener => muxer.upgrade_inbound(channel, "/yamux/1.0.0").await,
        };
        Ok((
            peer,
            StreamMuxerBox::new(connection.map_err(UpgradeError::Yamux)?),
        ))
    }
}

impl Upgrade {
    /// Finds out whether the peer with our identity is us.
    async fn mirror<S>(&self, channel: &mut S) -> Result<UpgradeError, UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let exchange = async {
            channel.write_all(&self.instance).await?;
            channel.flush().await?;
            let mut theirs = [0; 32];
            channel.read_exact(&mut theirs).await?;
            Ok::<_, io::Error>(theirs)
        };
        let theirs = match tokio::time::timeout(limits::CHALLENGE_WAIT, exchange).await {
            Ok(theirs) => theirs.map_err(ChallengeError::Io)?,
            Err(_elapsed) => return Err(ChallengeError::Timeout.into()),
        };
        Ok(if theirs == self.instance {
            UpgradeError::Myself
        } else {
            UpgradeError::Twin
        })
    }
}

#[cfg(target_os = "linux")]
fn give_up_unacknowledged(socket: &tcp::tokio::TcpStream) {
    let wait_ms = u32::try_from(limits::UNACKNOWLEDGED_WAIT.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&socket.0, wait_ms) {
        // The link still works; only a cut one takes longer to close.
        tracing::debug!(%error, "cannot set the TCP user timeout");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_up_unacknowledged(_: &tcp::tokio::TcpStream) {}

fn remote_of(endpoint: &ConnectedPoint) -> (Multiaddr, Role) {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => (address.clone(), Role::Dialer),
        ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr.clone(), Role::Listener),
    }
}
