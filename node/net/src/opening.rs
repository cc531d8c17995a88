//! How a tunnel begins: the opener says what it is for, the other side accepts or refuses.
//!
//! On the wire, first from the opener: u16 big-endian length, that many bytes of opening. Then the answer: one byte 0
//! for yes; or 1, one byte length, that many bytes of reason in UTF-8.
//!
//! Invariants: a tunnel is handed over only when both sides agree to it; every step has a deadline; a peer that asks for
//! too many, or asks badly, is refused at the cost of its own tunnels alone.
//! Does not: know what an opening means (the application does), or carry bytes (`tunnel`).

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::swarm::Stream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::error::TunnelError;
use crate::key::PeerKey;
use crate::limits;
use crate::tunnel::{Down, Gate, Tunnel};

const YES: u8 = 0;
const NO: u8 = 1;

/// A tunnel that a peer wants to open. Dropping it resets it, and the peer learns no reason.
#[derive(Debug)]
pub struct Incoming {
    /// Who asks.
    pub from: PeerKey,
    /// What for, at most [`crate::TUNNEL_OPENING_BYTES_MAX`] bytes of the peer's choice.
    pub opening: Bytes,
    stream: Stream,
    down: Down,
    room: OwnedSemaphorePermit,
}

impl Incoming {
    /// Says yes. Waits only while the link's writer is behind, and not for long; still, whoever takes
    /// tunnels from several peers answers each in a task of its own.
    ///
    /// # Errors
    /// When the peer has given up, the link is down, or the answer could not be written within 5 s.
    ///
    /// Cancel safety: dropping the future drops the tunnel.
    pub async fn accept(mut self) -> Result<Tunnel, TunnelError> {
        within(&mut self.down, answer(&mut self.stream, &[YES])).await?;
        Ok(Tunnel::new(self.stream, self.down, self.room))
    }

    /// Says no, and why, in at most 200 bytes; longer reasons are cut. Waits as `accept` does. A peer that cannot be
    /// told needs no telling.
    ///
    /// Cancel safety: dropping the future drops the tunnel.
    pub async fn refuse(mut self, reason: &str) {
        let _untold = within(&mut self.down, refuse(&mut self.stream, reason)).await;
    }
}

/// The application's end: tunnels that peers want to open.
#[derive(Debug)]
pub struct Tunnels {
    queue: mpsc::Receiver<Incoming>,
}

impl Tunnels {
    /// The next one; `None` after shutdown. Peers are refused while 256 wait here, and when nobody listens any more.
    ///
    /// Cancel safety: cancel safe.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.queue.recv().await
    }

    /// Takes no more: peers that ask are refused. Those that wait already are still handed out.
    pub fn close(&mut self) {
        self.queue.close();
    }
}

/// The network's end and the application's.
pub(crate) fn queue() -> (mpsc::Sender<Incoming>, Tunnels) {
    let (tx, queue) = mpsc::channel(limits::INCOMING_QUEUE);
    (tx, Tunnels { queue })
}

/// The opener's side: says what the tunnel is for, and hears the answer.
pub(crate) async fn ask<S>(stream: &mut S, opening: &[u8]) -> Result<(), TunnelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (size, bytes_max) = (opening.len(), limits::TUNNEL_OPENING_BYTES_MAX);
    let length = u16::try_from(size).map_err(|_range| TunnelError::TooLarge { bytes: size, bytes_max })?;
    let said = answer(stream, &[&length.to_be_bytes(), opening].concat()).await;
    // A peer may refuse before it has heard all, or any of it; then its answer says more than the failed write.
    let mut code = [0];
    if let Err(error) = stream.read_exact(&mut code).await {
        return Err(said.err().unwrap_or_else(|| error.into()));
    }
    match code {
        [YES] => Ok(()),
        [NO] => {
            let mut length = [0];
            stream.read_exact(&mut length).await?;
            let mut reason = vec![0; usize::from(length[0])];
            stream.read_exact(&mut reason).await?;
            // It goes to logs and terminals, and the peer chose it.
            let text = String::from_utf8_lossy(&reason).replace(char::is_control, " ");
            Err(TunnelError::Refused(text))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the peer's answer to an opening is none").into()),
    }
}

/// A link's side: asks each stream that the peer opens what it is for, and hands it to the application.
///
/// Cancel safety: dropping the future resets the streams that were not handed over.
pub(crate) async fn receive(
    from: PeerKey,
    gate: &Gate,
    streams: &mut mpsc::Receiver<Stream>,
    incoming: &mpsc::Sender<Incoming>,
) -> Infallible {
    let mut asked = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = asked.next() => {}
            // Whoever fills this keeps only itself waiting.
            Some(stream) = streams.recv(), if asked.len() < limits::TUNNELS_PER_PEER_MAX => {
                asked.push(hear(from, gate, stream, incoming));
            }
            else => std::future::pending().await,
        }
    }
}

/// Hears one opening.
async fn hear(from: PeerKey, gate: &Gate, mut stream: Stream, incoming: &mpsc::Sender<Incoming>) {
    let mut down = gate.down.clone();
    let Ok(room) = gate.theirs.clone().try_acquire_owned() else {
        // Untold: the link is down or slow, and the peer gives up by itself.
        let _untold = within(&mut down, refuse(&mut stream, "you have too many tunnels to this node")).await;
        return;
    };
    let opening = match within(&mut down, hear_opening(&mut stream)).await {
        Ok(Some(opening)) => opening,
        Ok(None) => {
            tracing::debug!(peer = %from, "a tunnel's opening is too large");
            let _untold = within(&mut down, refuse(&mut stream, "the opening is too large")).await;
            return;
        }
        Err(error) => {
            tracing::debug!(peer = %from, %error, "a tunnel's opening did not arrive");
            return;
        }
    };
    let (refused, reason) = match incoming.try_send(Incoming { from, opening, stream, down, room }) {
        Ok(()) => return,
        Err(TrySendError::Full(refused)) => (refused, "this node is behind with tunnels"),
        Err(TrySendError::Closed(refused)) => (refused, "this node takes no tunnels"),
    };
    refused.refuse(reason).await;
}

/// `None` if it is too large.
async fn hear_opening<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<Bytes>, TunnelError> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > limits::TUNNEL_OPENING_BYTES_MAX {
        return Ok(None);
    }
    let mut opening = vec![0; length];
    stream.read_exact(&mut opening).await?;
    Ok(Some(opening.into()))
}

async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, reason: &str) -> Result<(), TunnelError> {
    let reason = &reason[..reason.floor_char_boundary(limits::TUNNEL_REASON_BYTES_MAX)];
    let length = u8::try_from(reason.len()).unwrap_or(u8::MAX);
    answer(stream, &[&[NO, length], reason.as_bytes()].concat()).await
}

async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), TunnelError> {
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}

/// Gives up at the deadline, or when the link goes down.
pub(crate) async fn within<T>(
    down: &mut Down,
    step: impl Future<Output = Result<T, TunnelError>>,
) -> Result<T, TunnelError> {
    tokio::select! {
        biased;
        () = down.wait() => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
        result = tokio::time::timeout(limits::TUNNEL_WAIT, step) => result.unwrap_or(Err(TunnelError::Timeout)),
    }
}

#[cfg(test)]
#[path = "opening_tests.rs"]
mod tests;
