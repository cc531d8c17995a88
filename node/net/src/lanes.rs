//! Opens the two long-lived streams of a link, one per lane, and hands them to the swarm task.
//!
//! `libp2p-stream` could do it, but it picks any connection of a peer, drops an inbound stream when its
//! acceptor is busy and keeps a sender for each connection that ever was; here each stream is told with its
//! connection.
//!
//! Invariants: only the swarm task asks for lanes, and only on the side that opens them; a connection yields
//! each lane at most once in each direction; connections stay up until somebody closes them.
//! Does not: read or write the streams (`link`).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll, Waker};

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, Stream, StreamProtocol,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

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

/// A request to open both lanes on one connection.
#[derive(Debug)]
pub(crate) struct Open;

/// What happened to a lane.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It is negotiated.
    Lane(Lane, Stream),
    /// The peer would not open it.
    Failed(Lane),
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
    // At most one request and four results per connection.
    pending: VecDeque<ToSwarm<LaneEvent, Open>>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// Opens both lanes on `connection`; answered by events.
    pub(crate) fn open(&mut self, peer_id: PeerId, connection: ConnectionId) {
        self.pending.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: Open,
        });
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
    wanted: VecDeque<Lane>,
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
    type OutboundOpenInfo = Lane;

    fn listen_protocol(&self) -> SubstreamProtocol<Protocols, ()> {
        SubstreamProtocol::new(Protocols(Lane::ALL.to_vec()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Protocols, Lane, Opened>> {
        if let Some(opened) = self.done.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(opened));
        }
        if let Some(lane) = self.wanted.pop_front() {
            let protocol = SubstreamProtocol::new(Protocols(vec![lane]), lane);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Open: Open) {
        self.wanted.extend(Lane::ALL);
        self.wake();
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocols, Protocols, (), Lane>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (lane, stream), .. })
                if !self.accepted.contains(&lane) =>
            {
                self.accepted.push(lane);
                self.done.push_back(Opened::Lane(lane, stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (lane, stream), .. }) => {
                self.done.push_back(Opened::Lane(lane, stream));
            }
            ConnectionEvent::DialUpgradeError(error) => {
                self.done.push_back(Opened::Failed(error.info));
            }
            // A second stream of a lane is dropped, which resets it. Nothing else concerns a lane.
            _ => {}
        }
        self.wake();
    }
}

/// Negotiates a lane by its protocol name.
#[derive(Debug)]
pub(crate) struct Protocols(Vec<Lane>);

/// A lane's name on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Name(Lane, StreamProtocol);

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.1.as_ref()
    }
}

impl UpgradeInfo for Protocols {
    type Info = Name;
    type InfoIter = std::vec::IntoIter<Name>;

    fn protocol_info(&self) -> Self::InfoIter {
        let names: Vec<_> = self.0.iter().map(|lane| Name(*lane, lane.protocol())).collect();
        names.into_iter()
    }
}

impl InboundUpgrade<Stream> for Protocols {
    type Output = (Lane, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: Name) -> Self::Future {
        ready(Ok((name.0, stream)))
    }
}

impl OutboundUpgrade<Stream> for Protocols {
    type Output = (Lane, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: Name) -> Self::Future {
        ready(Ok((name.0, stream)))
    }
}
