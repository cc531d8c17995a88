//! Opens the two long-lived streams of a link, one per lane, and streams for tunnels, and hands them over.
//!
//! `libp2p-stream` could do it, but it picks any connection of a peer, drops an inbound stream when its
//! acceptor is busy and keeps a sender for each connection that ever was; here each stream is told with its
//! connection.
//!
//! Invariants: only the swarm task asks for lanes, and only on the side that opens them; a connection yields
//! each lane at most once in each direction; connections stay up until somebody closes them; whoever wished for a
//! stream gets it, or learns that there is none.
//! Does not: read or write the streams (`link`, `opening`), or bound tunnels (`tunnel::Gate`).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll, Waker};

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, DialUpgradeError, FullyNegotiatedInbound,
    FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, Stream, StreamProtocol,
    StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use crate::error::TunnelError;

/// Which of a link's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Small frames, up to 256 KiB; heartbeats travel here. A full queue costs the link.
    Control,
    /// Large frames, up to 2 MiB. A full queue is told to the sender, who waits or tells the peer.
    Bulk,
}

impl Lane {
    const ALL: [Self; 2] = [Self::Control, Self::Bulk];

    fn protocol(self) -> StreamProtocol {
        match self {
            Self::Control => StreamProtocol::new("/starling/1/control"),
            Self::Bulk => StreamProtocol::new("/starling/1/bulk"),
        }
    }
}

/// Where a stream for a tunnel goes. Dropped when its connection ends before that.
pub(crate) type TunnelReply = oneshot::Sender<Result<Stream, TunnelError>>;

/// A request to open something on one connection.
#[derive(Debug)]
pub(crate) enum Open {
    /// Both lanes.
    Lanes,
    /// A stream for a tunnel.
    Tunnel(TunnelReply),
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Lane(Lane),
    Tunnel,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Lane(Lane::Control), Self::Lane(Lane::Bulk), Self::Tunnel];

    fn protocol(self) -> StreamProtocol {
        match self {
            Self::Lane(lane) => lane.protocol(),
            Self::Tunnel => StreamProtocol::new("/starling/1/tunnel"),
        }
    }
}

/// A stream that is being opened.
#[derive(Debug)]
pub(crate) enum Wanted {
    Lane(Lane),
    Tunnel(TunnelReply),
}

/// What was opened.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It is negotiated.
    Lane(Lane, Stream),
    /// The peer would not open it.
    Failed(Lane),
    /// The peer wants a tunnel.
    Tunnel(Stream),
}

/// The same, with its connection.
#[derive(Debug)]
pub(crate) struct LaneEvent {
    pub(crate) connection: ConnectionId,
    pub(crate) opened: Opened,
}

/// Asks handlers for lanes, and passes on what they got.
#[derive(Default)]
pub(crate) struct Behaviour {
    // At most one request for lanes and four of their results per connection, and a request for each tunnel that has
    // room; what a peer opens goes on at the next poll.
    pending: VecDeque<ToSwarm<LaneEvent, Open>>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// Opens both lanes on `connection`; answered by events.
    pub(crate) fn open(&mut self, peer_id: PeerId, connection: ConnectionId) {
        self.notify(peer_id, connection, Open::Lanes);
    }

    /// Opens a stream for a tunnel on `connection`; answered by `reply`.
    pub(crate) fn open_tunnel(&mut self, peer_id: PeerId, connection: ConnectionId, reply: TunnelReply) {
        self.notify(peer_id, connection, Open::Tunnel(reply));
    }

    fn notify(&mut self, peer_id: PeerId, connection: ConnectionId, event: Open) {
        self.pending.push_back(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = LaneEvent;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, connection: ConnectionId, opened: THandlerOutEvent<Self>) {
        self.pending.push_back(ToSwarm::GenerateEvent(LaneEvent { connection, opened }));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(event) = self.pending.pop_front() {
            return Poll::Ready(event);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One connection's side of it.
#[derive(Default)]
pub(crate) struct Handler {
    wanted: VecDeque<Wanted>,
    done: VecDeque<Opened>,
    accepted: Vec<Lane>,
    waker: Option<Waker>,
}

impl Handler {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Opened;
    type InboundProtocol = Protocols;
    type OutboundProtocol = Protocols;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Wanted;

    fn listen_protocol(&self) -> SubstreamProtocol<Protocols, ()> {
        SubstreamProtocol::new(Protocols(Purpose::ALL.to_vec()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Protocols, Wanted, Opened>> {
        if let Some(opened) = self.done.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(opened));
        }
        if let Some(wanted) = self.wanted.pop_front() {
            let purpose = match &wanted {
                Wanted::Lane(lane) => Purpose::Lane(*lane),
                Wanted::Tunnel(_) => Purpose::Tunnel,
            };
            let protocol = SubstreamProtocol::new(Protocols(vec![purpose]), wanted);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, open: Open) {
        match open {
            Open::Lanes => self.wanted.extend(Lane::ALL.map(Wanted::Lane)),
            Open::Tunnel(reply) => self.wanted.push_back(Wanted::Tunnel(reply)),
        }
        self.wake();
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocols, Protocols, (), Wanted>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (purpose, stream), .. }) => {
                match purpose {
                    Purpose::Lane(lane) if !self.accepted.contains(&lane) => {
                        self.accepted.push(lane);
                        self.done.push_back(Opened::Lane(lane, stream));
                    }
                    // A second stream of a lane is dropped, which resets it.
                    Purpose::Lane(_) => {}
                    Purpose::Tunnel => self.done.push_back(Opened::Tunnel(stream)),
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (_, stream), info }) => {
                match info {
                    Wanted::Lane(lane) => self.done.push_back(Opened::Lane(lane, stream)),
                    // An error: nobody waits for it any more, and it is reset.
                    Wanted::Tunnel(reply) => drop(reply.send(Ok(stream))),
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => match info {
                Wanted::Lane(lane) => self.done.push_back(Opened::Failed(lane)),
                Wanted::Tunnel(reply) => drop(reply.send(Err(not_opened(error)))),
            },
            // Nothing else concerns a stream.
            _ => {}
        }
        self.wake();
    }
}

/// What to tell whoever wished for a tunnel.
fn not_opened(error: StreamUpgradeError<Infallible>) -> TunnelError {
    match error {
        StreamUpgradeError::NegotiationFailed => TunnelError::Unsupported,
        StreamUpgradeError::Timeout => TunnelError::Timeout,
        StreamUpgradeError::Io(error) => TunnelError::Broken(error),
        StreamUpgradeError::Apply(never) => match never {},
    }
}

/// Negotiates a stream's purpose by its protocol name.
#[derive(Debug)]
pub(crate) struct Protocols(Vec<Purpose>);

/// A purpose's name on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Name(Purpose, StreamProtocol);

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.1.as_ref()
    }
}

impl UpgradeInfo for Protocols {
    type Info = Name;
    type InfoIter = std::vec::IntoIter<Name>;

    fn protocol_info(&self) -> Self::InfoIter {
        let names: Vec<_> = self.0.iter().map(|purpose| Name(*purpose, purpose.protocol())).collect();
        names.into_iter()
    }
}

impl InboundUpgrade<Stream> for Protocols {
    type Output = (Purpose, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: Name) -> Self::Future {
        ready(Ok((name.0, stream)))
    }
}

impl OutboundUpgrade<Stream> for Protocols {
    type Output = (Purpose, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: Name) -> Self::Future {
        ready(Ok((name.0, stream)))
    }
}
