//! TCP, then Noise, then the membership challenge, then yamux; or QUIC, then the challenge on its first stream.
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
use libp2p::core::transport::{Boxed, Transport as _, timeout::TransportTimeout};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::core::{ConnectedPoint, Multiaddr};
use libp2p::identity::Keypair;
use libp2p::{noise, tcp, yamux};
use tokio::sync::mpsc;

use crate::challenge::{ChallengeError, Prover, Role};
use crate::config::Transport;
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
    /// There are no streams.
    #[error("no multiplexer")]
    Muxer(#[source] io::Error),
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

/// Builds the transport. Failed upgrades go to `reports`, or are dropped when it is full.
pub(crate) fn build(
    over: Transport,
    keypair: &Keypair,
    prover: Prover,
    reports: mpsc::Sender<Report>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let gate = Gate { over, prover, instance: rand::random(), reports };
    match over {
        Transport::Tcp => build_tcp(keypair, gate),
        #[cfg(feature = "quic")]
        Transport::Quic => Ok(build_quic(keypair, gate)),
    }
}

fn build_tcp(keypair: &Keypair, gate: Gate) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let noise = noise::Config::new(keypair)?.with_prologue(PROLOGUE.to_vec());
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
    let tcp = TransportTimeout::with_outgoing_timeout(tcp, limits::CONNECT_WAIT);
    let secured = tcp.and_then(move |socket, endpoint| {
        let (remote, role) = remote_of(&endpoint);
        Box::pin(async move {
            let secured = gate.secure_tcp(noise, socket, &remote, role).await;
            secured.map_err(|error| gate.report(error, &remote, role))
        })
    });
    Ok(TransportTimeout::new(secured, limits::UPGRADE_WAIT).boxed())
}

/// QUIC brings its own security and streams; the challenge runs on the first stream, before any other.
#[cfg(feature = "quic")]
fn build_quic(keypair: &Keypair, gate: Gate) -> Boxed<(PeerId, StreamMuxerBox)> {
    let quic = libp2p::quic::tokio::Transport::new(libp2p::quic::Config::new(keypair));
    let secured = quic.and_then(move |(peer, connection), endpoint| {
        let (remote, role) = remote_of(&endpoint);
        Box::pin(async move {
            let admitted = gate.admit_quic(peer, StreamMuxerBox::new(connection), &remote, role).await;
            admitted.map_err(|error| gate.report(error, &remote, role))
        })
    });
    TransportTimeout::new(secured, limits::UPGRADE_WAIT).boxed()
}

/// Where every connection must pass.
#[derive(Clone)]
struct Gate {
    over: Transport,
    prover: Prover,
    // Tells this process from another that runs with the same seed.
    instance: [u8; 32],
    reports: mpsc::Sender<Report>,
}

impl Gate {
    fn report(&self, error: UpgradeError, remote: &Multiaddr, role: Role) -> Reported {
        let error = Arc::new(error);
        if let Some(addr) = address::to_socket(remote, self.over) {
            // Full: the report is for counters and the user's eyes, the refusal itself stands.
            let _full = self.reports.try_send(Report { addr, role, error: error.clone() });
        }
        Reported(error)
    }

    async fn secure_tcp(
        &self,
        noise: noise::Config,
        socket: tcp::tokio::TcpStream,
        remote: &Multiaddr,
        role: Role,
    ) -> Result<(PeerId, StreamMuxerBox), UpgradeError> {
        give_up_unacknowledged(&socket);
        let (peer, mut channel) = match role {
            Role::Dialer => noise.upgrade_outbound(socket, "/noise").await?,
            Role::Listener => noise.upgrade_inbound(socket, "/noise").await?,
        };
        self.admit(peer, &mut channel, remote, role).await?;

        let mut muxer = yamux::Config::default();
        muxer.set_max_num_streams(limits::STREAMS_MAX);
        let connection = match role {
            Role::Dialer => muxer.upgrade_outbound(channel, "/yamux/1.0.0").await,
            Role::Listener => muxer.upgrade_inbound(channel, "/yamux/1.0.0").await,
        };
        Ok((peer, StreamMuxerBox::new(connection.map_err(UpgradeError::Muxer)?)))
    }

    #[cfg(feature = "quic")]
    async fn admit_quic(
        &self,
        peer: PeerId,
        mut connection: StreamMuxerBox,
        remote: &Multiaddr,
        role: Role,
    ) -> Result<(PeerId, StreamMuxerBox), UpgradeError> {
        use libp2p::core::muxing::StreamMuxerExt;

        let stream = std::future::poll_fn(|cx| match role {
            Role::Dialer => connection.poll_outbound_unpin(cx),
            Role::Listener => connection.poll_inbound_unpin(cx),
        });
        let mut stream = stream.await.map_err(UpgradeError::Muxer)?;
        self.admit(peer, &mut stream, remote, role).await?;
        // The peer may close its end first; the proof is done either way.
        let _closed = stream.close().await;
        Ok((peer, connection))
    }

    /// Who is it, is it who we want, and is it a member?
    async fn admit<S>(&self, peer: PeerId, channel: &mut S, remote: &Multiaddr, role: Role) -> Result<(), UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let found = PeerKey::from_peer_id(&peer).ok_or(UpgradeError::Identity)?;
        if found == self.prover.me() {
            return Err(self.mirror(channel).await?);
        }
        match address::expected_peer(remote) {
            Some(expected) if expected != found && role == Role::Dialer => {
                return Err(UpgradeError::OtherPeer { expected, found });
            }
            Some(_) | None => {}
        }
        Ok(self.prover.run(channel, found, role).await?)
    }

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
        Ok(if theirs == self.instance { UpgradeError::Myself } else { UpgradeError::Twin })
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
