//! Gossipsub's configuration: two topics, anonymous messages named by their content.
//!
//! Invariants: a message is passed on only after the application's verdict; nothing here is relied on for delivery.
//! Does not: sign or verify (batches are signed already), or repair (sync does).

use std::time::Duration;

use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, IdentTopic, MessageAcceptance, MessageAuthenticity, MessageId, TopicHash, ValidationMode,
};

use crate::error::Error;
use crate::key::PeerKey;
use crate::limits;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Signed batches of the log.
    Log,
    /// Liveness, capacity and other things that are never logged.
    Presence,
}

/// The application's judgement of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Valid: pass it on.
    Accept,
    /// Neither pass it on nor hold it against the peer.
    Ignore,
    /// Invalid: do not pass it on.
    Reject,
}

/// Names a received message until its verdict is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageTag {
    pub(crate) id: [u8; 32],
    pub(crate) from: PeerKey,
}

impl MessageTag {
    pub(crate) fn message_id(&self) -> MessageId {
        MessageId::new(&self.id)
    }
}

impl Verdict {
    pub(crate) fn acceptance(self) -> MessageAcceptance {
        match self {
            Self::Accept => MessageAcceptance::Accept,
            Self::Ignore => MessageAcceptance::Ignore,
            Self::Reject => MessageAcceptance::Reject,
        }
    }
}

/// A cluster's two topics.
pub(crate) struct Topics {
    log: IdentTopic,
    presence: IdentTopic,
}

impl Topics {
    pub(crate) fn new(cluster_id: &[u8; 32]) -> Self {
        let hex: String = cluster_id[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            log: IdentTopic::new(format!("starling/1/{hex}/log")),
            presence: IdentTopic::new(format!("starling/1/{hex}/presence")),
        }
    }

    pub(crate) fn hash(&self, topic: Topic) -> TopicHash {
        match topic {
            Topic::Log => self.log.hash(),
            Topic::Presence => self.presence.hash(),
        }
    }

    pub(crate) fn topic(&self, hash: &TopicHash) -> Option<Topic> {
        [Topic::Log, Topic::Presence].into_iter().find(|topic| self.hash(*topic) == *hash)
    }
}

/// Whether the peer has said what it listens to.
pub(crate) fn is_greeted(behaviour: &Behaviour, peer: &PeerKey) -> bool {
    let peer = peer.peer_id();
    behaviour.all_peers().any(|(other, topics)| peer.as_ref() == Some(other) && !topics.is_empty())
}

/// A behaviour that is subscribed to both topics.
pub(crate) fn behaviour(topics: &Topics) -> Result<Behaviour, Error> {
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message| MessageId::new(blake3::hash(&message.data).as_bytes()))
        .flood_publish(false)
        .max_transmit_size(limits::GOSSIP_TRANSMIT_BYTES_MAX)
        // Below this an IDONTWANT costs more than the duplicate it saves (measured: FACTS, gossipsub).
        .idontwant_message_size_threshold(16 * 1024)
        // Up to 12 peers get every message in one hop; beyond that, two.
        .mesh_n(8)
        .mesh_n_low(6)
        .mesh_n_high(12)
        .mesh_outbound_min(2)
        .gossip_lazy(6)
        // What gossip misses is pulled by digest, so old messages need not be kept for asking.
        .history_length(2)
        .history_gossip(1)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_secs(1))
        // A pruned neighbour may be wanted again soon: clusters are small and links come and go.
        .prune_backoff(Duration::from_secs(10))
        .connection_handler_queue_len(limits::GOSSIP_QUEUE)
        .build()
        .map_err(|error| Error::Setup(Box::new(error)))?;
    let mut behaviour =
        Behaviour::new(MessageAuthenticity::Anonymous, config).map_err(|error| Error::Setup(error.into()))?;
    for topic in [&topics.log, &topics.presence] {
        behaviour.subscribe(topic).map_err(|error| Error::Setup(Box::new(error)))?;
    }
    Ok(behaviour)
}
