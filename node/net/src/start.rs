//! Builds a node from its configuration and sets it going.
//!
//! Invariants: when `start` returns, the addresses are bound and the task runs; when it fails, nothing is left.
//! Does not: do anything afterwards (`node` does).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use libp2p::core::transport::TransportError;
use libp2p::swarm::{self, Swarm};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::behaviour::Behaviour;
use crate::book::{Book, Origin, Urgency};
use crate::challenge::Prover;
use crate::config::{Config, Transport};
use crate::error::Error;
use crate::event::{self, Events};
use crate::gossip::Topics;
use crate::handle::{Handle, Shared};
use crate::key::{self, PeerKey};
use crate::link::Common;
use crate::listen::Claim;
use crate::node::Node;
use crate::opening::{self, Tunnels};
use crate::refusals::Refusals;
use crate::{address, limits, listen, transport};

/// Binds the configured addresses and starts the network on the current tokio runtime. Whoever wants no tunnels drops
/// the [`Tunnels`]; peers that open some are then refused.
///
/// # Errors When an address cannot be bound ([`Error::AddrInUse`] if somebody has it), or outside a runtime.
/// Nothing is left running.
pub fn start(config: Config) -> Result<(Handle, Events, Tunnels), Error> {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return Err(Error::NoRuntime);
    };
    let keypair = key::keypair(config.seed);
    let me = PeerKey::from_seed(config.seed);
    let peer_id = keypair.public().to_peer_id();
    let topics = Topics::new(&config.cluster_id);
    let prover = Prover::new(&config.cluster_secret, config.cluster_id, me);
    let (reports_tx, reports) = mpsc::channel(limits::NOTE_QUEUE);
    let transport = transport::build(config.transport, &keypair, prover, reports_tx)
        .map_err(|error| Error::Setup(Box::new(error)))?;
    let behaviour = Behaviour::new(&config, &topics, peer_id)?;
    // Links are closed by our own rules alone, never for being idle.
    let settings = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::MAX);
    let mut swarm = Swarm::new(transport, behaviour, peer_id, settings);
    let claims =
        config.listen.iter().map(|addr| bind(&mut swarm, *addr, config.transport)).collect::<Result<Vec<_>, _>>()?;

    let (events_tx, events) = event::queue();
    let (incoming_tx, tunnels) = opening::queue();
    let (notes_tx, notes) = mpsc::channel(limits::NOTE_QUEUE);
    let (commands_tx, commands) = mpsc::channel(limits::COMMAND_QUEUE);
    let shared = Arc::new(Shared::default());
    let common = Common {
        senders: shared.senders.clone(),
        events: events_tx.clone(),
        notes: notes_tx,
        incoming: incoming_tx,
        heartbeat: config.heartbeat.max(limits::HEARTBEAT_MIN),
        silence: config.silence,
    };
    let mut book = Book::new(me);
    for addr in &config.join {
        book.learn(None, *addr, (Origin::Joined, Urgency::Eager), Instant::now());
    }
    let mut node = Node {
        me,
        transport: config.transport,
        swarm,
        topics,
        book,
        refusals: Refusals::default(),
        connections: HashMap::new(),
        current: HashMap::new(),
        dials: HashMap::new(),
        ends: HashMap::new(),
        links: JoinSet::new(),
        shared: shared.clone(),
        events: events_tx,
        common,
        announce: config.announce,
        _claims: claims,
    };
    // Addresses of named interfaces are there already; the caller wants to see their ports.
    while let Some(Some(event)) = node.swarm.next().now_or_never() {
        node.on_swarm(event);
    }
    runtime.spawn(node.run(commands, notes, reports));
    Ok((Handle::new(me, commands_tx, shared), events, tunnels))
}

fn bind(swarm: &mut Swarm<Behaviour>, addr: SocketAddr, over: Transport) -> Result<Claim, Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => Error::AddrInUse { addr },
        _ => Error::Listen { addr, source },
    };
    let claim = listen::claim(addr, over).map_err(failed)?;
    match swarm.listen_on(address::to_multiaddr(addr, over)) {
        Ok(_) => Ok(claim),
        Err(TransportError::Other(source)) => Err(failed(source)),
        Err(error @ TransportError::MultiaddrNotSupported(_)) => Err(Error::Setup(Box::new(error))),
    }
}
