//! Explain: why a job waits, node by node.
//!
//! Invariants: says only what this node knows, so the same question at another node may get an older answer.

use smol_str::SmolStr;

use super::fleet::{Fleet, Health};
use super::pool::{Label, Pool};
use crate::facts::{Handler, Job, Wishes};
use crate::ids::NodeId;
use crate::resources::Resources;
use crate::time::Mono;

/// What stands between a job and one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeReason {
    /// Nothing: it could start there now.
    CouldRun,
    /// The node is full at the moment.
    Busy {
        /// What is free there.
        free: Resources,
    },
    /// The node is too small, even empty.
    TooSmall {
        /// What it has in all.
        total: Resources,
    },
    /// The job asks for another node.
    NotWanted,
    /// The job asks for a label that is not there.
    NoLabel {
        /// Which.
        label: SmolStr,
    },
    /// These workers cannot run it: they take single processes without standard input.
    NotForWorkers,
    /// Not heard of lately.
    Silent {
        /// For how long, milliseconds.
        for_ms: u64,
    },
    /// Its disk refuses writes.
    NotAccepting,
    /// The job is for relays of this namespace, and none is there.
    NoRelay {
        /// The namespace.
        ns: SmolStr,
    },
}

/// Why a job waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explanation {
    /// Its submission has not arrived here.
    Unknown,
    /// Every task has its outcome.
    Finished,
    /// Nothing waits: all unsealed tasks run, or ended and are about to be sealed.
    Running {
        /// How many.
        tasks: u64,
    },
    /// Tasks wait.
    Waiting {
        /// How many.
        tasks: u64,
        /// What each needs.
        need: Resources,
        /// Whether its owner is alive: only it grants.
        owner: Health,
        /// Each node's reason.
        nodes: Vec<(NodeId, SmolStr, NodeReason)>,
    },
}

/// Explains `job`, owned by `owner`.
#[must_use]
pub fn explain(now: Mono, owner: &NodeId, job: &Job, fleet: &Fleet) -> Explanation {
    let Some(submit) = job.submit.as_ref() else {
        return Explanation::Unknown;
    };
    let mut waiting = submit.tasks.difference(&job.sealed_tasks());
    if waiting.is_empty() {
        return Explanation::Finished;
    }
    let running = job.running_tasks();
    waiting.subtract(&running);
    if waiting.is_empty() {
        return Explanation::Running { tasks: running.len() };
    }
    let wishes = submit.wishes();
    let for_relays = match submit.handler() {
        Handler::Relay => Some(&submit.ns),
        Handler::Process | Handler::Pair => None,
    };
    let reason = |node: &NodeId, peer: &super::Peer| {
        let presence = &peer.presence;
        if fleet.health(now, node) != Health::Live {
            NodeReason::Silent { for_ms: now.since_ms(peer.heard) }
        } else if wishes.node.as_ref().is_some_and(|wanted| *wanted != presence.name) {
            NodeReason::NotWanted
        } else if let Some(label) = missing(&wishes, &presence.labels) {
            NodeReason::NoLabel { label }
        } else if !presence.total.covers(&submit.need) || presence.total.cpu_milli == 0 {
            NodeReason::TooSmall { total: presence.total }
        } else if !presence.accepts {
            NodeReason::NotAccepting
        } else if let Some(ns) = for_relays.filter(|ns| !presence.serves(ns)) {
            NodeReason::NoRelay { ns: ns.clone() }
        } else if presence.free.covers(&submit.need) {
            NodeReason::CouldRun
        } else {
            NodeReason::Busy { free: presence.free }
        }
    };
    let machines = fleet.peers().map(|(node, peer)| (*node, peer.presence.name.clone(), reason(node, peer)));
    let pools =
        fleet.live(now).flat_map(|(node, peer)| peer.presence.gateway.pools.iter().map(move |pool| (node, pool)));
    let pools = pools.map(|(node, pool)| (*node, pool.title(), pool_reason(&wishes, &submit.need, pool)));
    let nodes = machines.chain(pools).collect();
    Explanation::Waiting { tasks: waiting.len(), need: submit.need, owner: fleet.health(now, owner), nodes }
}

fn missing(wishes: &Wishes, labels: &[Label]) -> Option<SmolStr> {
    wishes.labels.iter().find(|wanted| !labels.iter().any(|label| label.satisfies(wanted))).cloned()
}

fn pool_reason(wishes: &Wishes, need: &Resources, pool: &Pool) -> NodeReason {
    if !wishes.by_workers {
        NodeReason::NotForWorkers
    } else if wishes.node.is_some() {
        NodeReason::NotWanted
    } else if let Some(label) = missing(wishes, &pool.labels) {
        NodeReason::NoLabel { label }
    } else if !pool.room.covers(need) {
        NodeReason::TooSmall { total: pool.room }
    } else if pool.free > 0 {
        NodeReason::CouldRun
    } else {
        NodeReason::Busy { free: Resources::default() }
    }
}
