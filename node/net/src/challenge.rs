//! The membership challenge: both ends of a fresh secure channel prove that they know the cluster secret.
//!
//! Each end sends a version and a nonce, then a MAC over role, nonces and both identities. The secure
//! channel has authenticated the identities, so a proof cannot be relayed to another pair, and the
//! role keeps it from being reflected.
//!
//! Invariants: nothing but the version, a nonce and a MAC is said before the peer's proof was checked; both
//! ends send their proof before either judges, so that both can tell the user why they part.
//! Does not: encrypt or identify (Noise does), or know addresses (`transport` does).

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::key::PeerKey;
use crate::limits;

/// First byte of the challenge. Raise it when the messages or the MAC change.
const VERSION: u8 = 1;

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// We opened the connection.
    Dialer,
    /// We accepted it.
    Listener,
}

/// Why a peer was not let in. No state changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChallengeError {
    /// Its proof is wrong: another secret, or another cluster id.
    #[error("the peer does not know this cluster's secret")]
    WrongSecret,
    /// It speaks another version of the challenge.
    #[error("the peer speaks version {0} of the membership challenge")]
    Version(u8),
    /// It did not answer in time.
    #[error("the peer did not answer the membership challenge")]
    Timeout,
    /// The connection broke.
    #[error("the connection broke during the membership challenge")]
    Io(#[from] io::Error),
}

/// What we need to prove membership, and to check it.
#[derive(Clone)]
pub(crate) struct Prover {
    key: [u8; 32],
    cluster_id: [u8; 32],
    me: PeerKey,
    wait: Duration,
}

impl Prover {
    pub(crate) fn new(secret: &[u8; 32], cluster_id: [u8; 32], me: PeerKey) -> Self {
        let key = blake3::derive_key("starling membership challenge 1", secret);
        Self { key, cluster_id, me, wait: limits::CHALLENGE_WAIT }
    }

    /// Who we are.
    pub(crate) fn me(&self) -> PeerKey {
        self.me
    }

    /// Runs the challenge over `stream` with the authenticated `peer`.
    ///
    /// Cancel safety: not cancel safe; a cancelled challenge leaves the stream unusable.
    pub(crate) async fn run<S>(&self, stream: &mut S, peer: PeerKey, role: Role) -> Result<(), ChallengeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let exchange = self.exchange(stream, peer, role, rand::random());
        match tokio::time::timeout(self.wait, exchange).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ChallengeError::Timeout),
        }
    }

    async fn exchange<S>(&self, stream: &mut S, peer: PeerKey, role: Role, mine: [u8; 32]) -> Result<(), ChallengeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut opening = [0; 33];
        opening[0] = VERSION;
        opening[1..].copy_from_slice(&mine);
        stream.write_all(&opening).await?;
        stream.flush().await?;

        let mut version = [0];
        stream.read_exact(&mut version).await?;
        if version[0] != VERSION {
            return Err(ChallengeError::Version(version[0]));
        }
        let mut theirs = [0; 32];
        stream.read_exact(&mut theirs).await?;

        let (expected, proof) = match role {
            Role::Dialer => {
                let say = |role| self.proof(role, (&mine, self.me), (&theirs, peer));
                (say(Role::Listener), say(Role::Dialer))
            }
            Role::Listener => {
                let say = |role| self.proof(role, (&theirs, peer), (&mine, self.me));
                (say(Role::Dialer), say(Role::Listener))
            }
        };
        stream.write_all(proof.as_bytes()).await?;
        stream.flush().await?;

        let mut answer = [0; 32];
        stream.read_exact(&mut answer).await?;
        // `blake3::Hash` compares in constant time.
        if blake3::Hash::from_bytes(answer) == expected {
            Ok(())
        } else {
            let part = part(stream);
            let _parted_or_not = tokio::time::timeout(limits::DRAIN_WAIT, part).await;
            Err(ChallengeError::WrongSecret)
        }
    }

    fn proof(&self, role: Role, dialer: (&[u8; 32], PeerKey), listener: (&[u8; 32], PeerKey)) -> blake3::Hash {
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        mac.update(match role {
            Role::Dialer => b"dialer  ",
            Role::Listener => b"listener",
        });
        mac.update(&self.cluster_id);
        for (nonce, key) in [dialer, listener] {
            mac.update(nonce);
            mac.update(&key.0);
        }
        mac.finalize()
    }
}

/// Waits until the peer has judged too: dropping a connection may discard what is on its way, and the peer
/// would never know why we left.
async fn part<S>(stream: &mut S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.close().await?;
    // The peer has nothing more to say; anything but its end is none of ours.
    let _end = stream.read(&mut [0]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::io::{AsyncReadExt, AsyncWriteExt};
    use libp2p::tcp::tokio::TcpStream;

    use super::{ChallengeError, Prover, Role};
    use crate::key::PeerKey;

    const A: PeerKey = PeerKey([1; 32]);
    const B: PeerKey = PeerKey([2; 32]);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dial = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let (dialled, accepted) = tokio::join!(dial, listener.accept());
        (TcpStream(dialled.unwrap()), TcpStream(accepted.unwrap().0))
    }

    async fn meet(a: Prover, b: Prover) -> (Result<(), ChallengeError>, Result<(), ChallengeError>) {
        let (mut left, mut right) = pair().await;
        tokio::join!(a.run(&mut left, B, Role::Dialer), b.run(&mut right, A, Role::Listener))
    }

    #[tokio::test]
    async fn same_secret_both_accept() {
        let (a, b) = meet(Prover::new(&[9; 32], [3; 32], A), Prover::new(&[9; 32], [3; 32], B)).await;
        assert!(a.is_ok() && b.is_ok());
    }

    #[tokio::test]
    async fn other_secret_or_cluster_both_refuse() {
        for (secret, cluster) in [([8; 32], [3; 32]), ([9; 32], [4; 32])] {
            let (a, b) = meet(Prover::new(&[9; 32], [3; 32], A), Prover::new(&secret, cluster, B)).await;
            assert!(matches!(a, Err(ChallengeError::WrongSecret)));
            assert!(matches!(b, Err(ChallengeError::WrongSecret)));
        }
    }

    #[tokio::test]
    async fn reflected_messages_are_refused() {
        let (mut left, mut right) = pair().await;
        let echo = async {
            let mut opening = [0; 33];
            right.read_exact(&mut opening).await.unwrap();
            right.write_all(&opening).await.unwrap();
            let mut proof = [0; 32];
            right.read_exact(&mut proof).await.unwrap();
            right.write_all(&proof).await.unwrap();
        };
        let prover = Prover::new(&[9; 32], [3; 32], A);
        let (result, ()) = tokio::join!(prover.run(&mut left, B, Role::Dialer), echo);
        assert!(matches!(result, Err(ChallengeError::WrongSecret)));
    }

    #[tokio::test]
    async fn silent_peer_times_out() {
        let (mut left, _right) = pair().await;
        let mut prover = Prover::new(&[9; 32], [3; 32], A);
        prover.wait = Duration::from_millis(20);
        let result = prover.run(&mut left, B, Role::Dialer).await;
        assert!(matches!(result, Err(ChallengeError::Timeout)));
    }
}
