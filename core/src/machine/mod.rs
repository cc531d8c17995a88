//! The Machine: one node's whole protocol as a state machine, `step(now, Input) -> Vec<Effect>`.
//!
//! Invariants: no clock, entropy, IO, threads or async in here; `step` is total: no input panics it; nothing leaves before its write is durable (DESIGN L1);
//! the same seed and the same inputs give the same effects, byte for byte.
//! Does not: know sockets, files or processes. `node` and `testnet::sim` carry out the effects.

mod commands;
mod gateway;
mod import;
mod invariants;
mod io;
mod note;
mod outbox;
mod pace;
mod peers;
mod recover;
mod resume;
mod retire;
pub mod snapshot;
mod succession;
#[cfg(test)]
mod tests;
mod twin;
mod work;
mod write;

use std::collections::{BTreeMap, VecDeque};

pub use import::Taken;
pub use invariants::{Buffer, Violation, buffers, check};
pub use io::{
    AckLevel, Assignment, Command, CommandError, Effect, Errand, Input, Instead, Notice, Record, Reply, Spawn,
    Submission, Work,
};
pub use note::Note;
pub use recover::Recovery;
pub use resume::{Accepted, Books, Fate, Survivor};
pub use snapshot::SnapshotNews;
pub use succession::Outlook;

use crate::config::Config;
use crate::election::Election;
use crate::event::{Signer, WorkSpec};
use crate::facts::Facts;
use crate::ids::{ClusterId, Epoch, GrantId, JobId, LogId, NodeId, RequestId, Seq};
use crate::log::{Frontier, LogSet};
use crate::namespace::Registry;
use crate::rng::Rng;
use crate::schedule::{Executor, Fleet, Offer, Owner};
use crate::sync::Sync;
use crate::time::{HlcClock, Mono, Now};
use outbox::Outbox;
use succession::Duties;

/// Who this node is: its keys and the cluster's secret.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Signs the log.
    pub signer: Signer,
    /// Shared by the members.
    pub secret: [u8; 32],
    /// Chosen anew at every start of the process: greater at each later one, and never the same in two processes.
    pub boot: u64,
}

/// An acknowledgement owed to a client.
#[derive(Clone, Copy, Debug)]
struct Owed {
    request: RequestId,
    job: JobId,
    level: AckLevel,
    since: Mono,
}

/// Whether the disk takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Disk {
    Accepts,
    Refuses { reason: String, retry: Mono },
}

/// What this node tells about itself beside its books.
#[derive(Clone, Debug, Default)]
struct About {
    api: String,
    links: Vec<String>,
    workers: String,
    stats: Option<WorkSpec>,
    seq: u64,
    next_presence: Mono,
    /// Frontier digest and Facts root, taken together every few presences.
    digest: u64,
    root: u64,
    root_due: u64,
}

/// One node.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    registry: Registry,
    identity: Identity,
    me: NodeId,
    cluster: ClusterId,
    clock: HlcClock,
    rng: Rng,
    logs: LogSet,
    epoch: Epoch,
    /// An epoch was given up because others showed more of it, so that the present one must be opened even if there is nothing to say.
    frozen: bool,
    facts: Facts,
    fleet: Fleet,
    sync: Sync,
    owner: Owner,
    executor: Executor,
    election: Election,
    duties: Duties,
    twins: twin::Twins,
    /// When to look at the election again.
    elect_due: Mono,
    outbox: Outbox,
    about: About,
    disk: Disk,
    next_job: u64,
    /// Submissions waiting for this node's disk.
    owed_local: BTreeMap<JobId, Owed>,
    /// Submissions on this node's disk, waiting for another's, by position in this node's log.
    owed_remote: BTreeMap<(LogId, Seq), Owed>,
    /// Grants whose acceptance is being written, and whom to tell.
    accepting: BTreeMap<GrantId, NodeId>,
    /// Offers for jobs whose submission has not arrived.
    parked: VecDeque<(Mono, NodeId, Offer)>,
    /// Nodes asked for work lately.
    asked: BTreeMap<NodeId, Mono>,
    /// Sealed jobs of this node, until they are retired.
    retention: retire::Retention,
    /// When to write a snapshot, and what only this node's has.
    keeping: snapshot::Keeping,
    /// Whether capacity or the queue changed since the last placement.
    place_due: bool,
    stopping: bool,
    /// The clean-shutdown marker is on disk: nothing may follow it.
    stopped: bool,
    effects: Vec<Effect>,
}

impl Machine {
    /// Takes in what happened, decides, and says what to do. After `Notice::Stopped` nothing is taken in: a record behind the clean-shutdown marker would undo it.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        if self.stopped {
            return refused(input);
        }
        self.fleet.wake(now.mono);
        match input {
            Input::Tick => {}
            Input::Batch { from, batch } => self.on_batch(now, from, batch),
            Input::Pulled { from, log, batches, more } => self.on_pulled(now, from, log, batches, more),
            Input::Message { from, message } => self.on_message(now, from, message),
            Input::Presence(presence) => self.on_presence(now, presence),
            Input::LinkUp(peer) => self.on_link_up(now, peer),
            Input::LinkDown(peer) => self.sync.link_down(&peer),
            Input::Durable(write) => self.on_durable(now, write),
            Input::WriteFailed { write, reason } => self.on_write_failed(now, write, reason),
            Input::Command { request, command } => self.on_command(now, request, command),
            Input::TaskEnded { run, outcome, usage } => self.on_task_ended(run, outcome, usage),
            Input::PortOpened { run, port, host } => self.on_port_opened(now, run, port, &host),
            Input::Relays(relays) => self.on_relays(relays),
            Input::Workers(workers) => self.on_workers(workers),
            Input::Stats(stats) => self.about.stats = Some(stats),
            Input::Addresses { api, links, workers } => {
                self.about.api = api;
                self.about.workers = workers;
                self.about.links = links;
                self.about.next_presence = now.mono;
            }
            Input::Snapshotted(result) => self.on_snapshotted(now, result),
            Input::Fetched { from, result } => self.on_fetched(now, from, result),
            Input::GiveUp => self.on_give_up(),
            Input::Shutdown => {
                self.stopping = true;
                self.outbox.marker = true;
            }
        }
        if self.stopped {
            return core::mem::take(&mut self.effects);
        }
        self.on_time(now);
        self.elect(now);
        self.succeed(now);
        self.settle(now);
        self.retire_due(now);
        self.flush(now);
        self.snapshot_due(now);
        core::mem::take(&mut self.effects)
    }

    /// When `step` must be called at the latest, with `Input::Tick` if nothing else happened.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        let mut next = self.about.next_presence.min(self.sync.next_deadline());
        let parts = [
            self.owner.next_deadline(),
            self.executor.next_deadline(),
            self.flush_deadline(),
            self.election.next_deadline(),
            self.duties.next_deadline(),
            self.retention.next_deadline(&self.config),
        ];
        for deadline in parts {
            next = next.min(deadline.unwrap_or(next));
        }
        next
    }

    /// What the log adds up to.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The root of the Facts; see `Facts::root`.
    pub fn root(&mut self) -> crate::ids::Hash {
        self.facts.root()
    }

    /// Who seems alive.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// What this node holds durably.
    #[must_use]
    pub fn frontier(&self) -> &Frontier {
        self.logs.frontier()
    }

    /// All logs.
    #[must_use]
    pub fn logs(&self) -> &LogSet {
        &self.logs
    }

    /// The owner's books.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The executor's books.
    #[must_use]
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// This node's part in the election of the gateway.
    #[must_use]
    pub fn election(&self) -> &Election {
        &self.election
    }

    /// The namespaces.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Peers with a link.
    #[must_use]
    pub fn sync(&self) -> &Sync {
        &self.sync
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// This node's settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Why the disk refuses writes, if it does.
    #[must_use]
    pub fn disk_refusal(&self) -> Option<&str> {
        match &self.disk {
            Disk::Accepts => None,
            Disk::Refuses { reason, .. } => Some(reason),
        }
    }

    /// The log that this node appends to, or will.
    #[must_use]
    pub fn own_log(&self) -> LogId {
        LogId { node: self.me, epoch: self.epoch }
    }
}

/// What a Machine that has stopped says: no to commands.
fn refused(input: Input) -> Vec<Effect> {
    let Input::Command { request, .. } = input else {
        return Vec::new();
    };
    vec![Effect::Reply { request, reply: Reply::Error(CommandError::ShuttingDown) }]
}
