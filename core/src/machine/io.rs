//! What enters the Machine and what leaves it: closed sets, so that every edge and the simulator must treat each case.
//!
//! Invariants: nothing here does anything; an `Effect` that must follow a write is only emitted once `Input::Durable` has told of it.

use smol_str::SmolStr;

use super::import::Taken;
use super::note::Note;
use super::snapshot::{self, Shared, SnapshotNews};
use crate::election::Standing;
use crate::event::{SignedBatch, WorkSpec};
use crate::facts::{Outcome, Past, Usage};
use crate::ids::{GrantId, Hash, JobId, LogId, NodeId, RequestId, RunId, Seq, WorkerName, WriteId};
use crate::lattice::IntervalSet;
use crate::namespace::batch::Launch;
use crate::namespace::simulation::Pair;
use crate::namespace::{Declaration, DeclarationError, EventError, SchemaError};
use crate::resources::Resources;
use crate::schedule::{Presence, RelaySlots, Worker};
use crate::sync::Message;

/// What happened.
#[expect(clippy::large_enum_variant, reason = "an Input lives for one step and is never kept in numbers")]
#[derive(Debug)]
pub enum Input {
    /// Time passed; `Machine::next_deadline` says when to call at the latest.
    Tick,
    /// A batch arrived by gossip.
    Batch {
        /// From whom.
        from: NodeId,
        /// The verified batch.
        batch: SignedBatch,
    },
    /// The answer to a pull.
    Pulled {
        /// From whom.
        from: NodeId,
        /// Of which log.
        log: LogId,
        /// Verified batches, in order; empty if the peer has none.
        batches: Vec<SignedBatch>,
        /// Whether the peer holds more.
        more: bool,
    },
    /// A direct message.
    Message {
        /// From whom.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// A node spoke of itself; the edges have checked its signature.
    Presence(Presence),
    /// A link is up.
    LinkUp(NodeId),
    /// A link is down.
    LinkDown(NodeId),
    /// A write is on disk.
    Durable(WriteId),
    /// A write failed; none of it, nor of any later one, is on disk.
    WriteFailed {
        /// Which.
        write: WriteId,
        /// Why, for people.
        reason: String,
    },
    /// A user wants something.
    Command {
        /// Echoed in the reply.
        request: RequestId,
        /// What.
        command: Command,
    },
    /// A task started by `Effect::Spawn` ended, or could not start.
    TaskEnded {
        /// Which.
        run: RunId,
        /// How.
        outcome: Outcome,
        /// What it used.
        usage: Usage,
    },
    /// The environment of a simulation listens.
    PortOpened {
        /// Whose.
        run: RunId,
        /// The TCP port.
        port: u16,
        /// The host that the policy is told.
        host: SmolStr,
    },
    /// Which namespaces relays at this node serve now, in place of what was said before.
    Relays(Vec<RelaySlots>),
    /// These are the gateway's workers now, in place of what was said before. Nodes that are not the gateway have none.
    Workers(Vec<Worker>),
    /// A hardware reading, to be sent along with presence.
    Stats(WorkSpec),
    /// Where the API and the links listen, to be told in presence.
    Addresses {
        /// The API.
        api: String,
        /// The links.
        links: Vec<String>,
        /// Where workers may attach.
        workers: String,
    },
    /// The snapshot of `Effect::Snapshot` is on disk, or why it is not.
    Snapshotted(Result<(), String>),
    /// The end of `Effect::Fetch`: the snapshot, checked and durable on this node's disk, or why there is none.
    Fetched {
        /// From whom.
        from: NodeId,
        /// What.
        result: Result<Box<Shared>, String>,
    },
    /// Stop taking work, stop what runs here, and hand all of it back to its owners.
    GiveUp,
    /// Stop taking work and write the clean-shutdown marker. What runs goes on.
    Shutdown,
}

/// How durable a submission must be before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum AckLevel {
    /// On this node's disk.
    Local,
    /// On this node's disk and another's. Falls back to `Local`, and says so, where no other node answers.
    Remote1,
}

/// A submission.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The namespace.
    pub ns: SmolStr,
    /// The kind of event that submits a job there; empty for the namespace's usual one.
    pub kind: SmolStr,
    /// The array's indexes.
    pub tasks: IntervalSet,
    /// Higher goes first.
    pub priority: i32,
    /// The namespace's fields.
    pub spec: WorkSpec,
    /// When to acknowledge.
    pub ack: AckLevel,
}

/// What users ask that changes something. Questions are answered from `Machine::facts` and `Machine::fleet`.
#[derive(Clone, Debug)]
pub enum Command {
    /// Submit a job.
    Submit(Box<Submission>),
    /// Cancel a job, whoever owns it.
    Cancel(JobId),
    /// Register a namespace.
    Declare(Box<Declaration>),
    /// A node is gone for good: it counts no more where half of the members must be seen.
    Forget(NodeId),
    /// A node takes no new work, or takes it again.
    Drain {
        /// Which.
        node: NodeId,
        /// It takes none.
        on: bool,
        /// Why, for people.
        reason: SmolStr,
    },
    /// Let workers in that show the token with this hash.
    AddToken {
        /// The hash of the token's text.
        hash: Hash,
        /// For people.
        name: SmolStr,
    },
    /// Let them in no more.
    RevokeToken(Hash),
    /// A relay speaks of a task that it was given.
    Report {
        /// The task.
        run: RunId,
        /// In the namespace's words.
        kind: SmolStr,
        /// The kind's fields.
        spec: WorkSpec,
    },
    /// Take in signed batches that a person brings, as if a peer had sent them.
    Import(Vec<SignedBatch>),
    /// Anybody speaks of a job, where its namespace's rules allow that.
    Remark {
        /// The job.
        job: JobId,
        /// In the namespace's words.
        kind: SmolStr,
        /// The kind's fields.
        spec: WorkSpec,
    },
}

/// Why a command was refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such namespace.
    #[error("unknown namespace `{0}`; known are: {1}")]
    UnknownNamespace(SmolStr, String),
    /// A namespace without jobs.
    #[error("namespace `{0}` takes no jobs")]
    NoJobs(SmolStr),
    /// The spec does not fit.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// An empty or huge array.
    #[error("field `tasks`: expected 1 to {max} tasks, got {0}", max = crate::limits::TASKS_MAX)]
    Tasks(u64),
    /// The event would not fit.
    #[error("the spec takes {0} bytes, allowed are {max}; put large inputs into files", max = crate::limits::EVENT_BYTES_MAX)]
    TooLarge(usize),
    /// Too much is waiting for the disk.
    #[error("this node is busy: {0} submissions wait for its disk; try again, or at another node")]
    Busy(usize),
    /// The disk refuses writes.
    #[error(
        "this node cannot write its log ({0}); it keeps what it has acknowledged; submit at another node or make room"
    )]
    DiskRefuses(String),
    /// On its way out.
    #[error("this node is shutting down; submit at another node")]
    ShuttingDown,
    /// No such job.
    #[error("no such job")]
    UnknownJob,
    /// Too late.
    #[error("the job has finished")]
    AlreadyFinished,
    /// The declaration is not one.
    #[error(transparent)]
    Declaration(#[from] DeclarationError),
    /// Another declaration has that name and version.
    #[error("namespace `{name}` version {version} is registered with another content; raise `version` to change it")]
    VersionTaken {
        /// The name.
        name: SmolStr,
        /// The version.
        version: u32,
    },
    /// Too many declarations.
    #[error("{0} namespaces are registered, which is the most that a cluster takes")]
    TooManyNamespaces(usize),
    /// The event is not one of the namespace's.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The namespace has no such kind of submission.
    #[error("kind `{kind}`: expected {expected}, the kind that submits jobs of namespace `{ns}`")]
    NotASubmission {
        /// What was given.
        kind: SmolStr,
        /// What is right.
        expected: String,
        /// The namespace.
        ns: SmolStr,
    },
    /// No member of that id.
    #[error("no such node; `starling nodes` shows those that there are")]
    UnknownNode,
    /// It is not gone.
    #[error("{0} is not gone: it was heard of lately; stop it first, or wait until `starling nodes` shows it as DOWN")]
    NodeLives(SmolStr),
    /// A token that nobody added.
    #[error("no such token; `starling gateway token list` shows those that there are")]
    UnknownToken,
    /// Too many tokens.
    #[error("{0} tokens were added already, revoked ones included, and no more are taken")]
    TooManyTokens(usize),
    /// The task is not (any more) with a relay of this node.
    #[error(
        "this task is not in a relay's hands here: it was reported already, its lease ran out, or it was given to another"
    )]
    NotHeld,
    /// Only the executor may say that.
    #[error("kind `{0}` is for the relay that holds the task to report; its rule does not say `by = \"anyone\"`")]
    NotForAnyone(SmolStr),
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The job is durable.
    Submitted {
        /// The job.
        job: JobId,
        /// How durable: the level reached, not the one asked for.
        level: AckLevel,
        /// False if the idempotency key had been used: this is that job.
        fresh: bool,
    },
    /// The cancel is in the log.
    Cancelled,
    /// The namespace is in the log.
    Declared {
        /// Its hash.
        id: Hash,
        /// False if that very declaration had been registered: nothing was written.
        fresh: bool,
    },
    /// What was said is in the log, or was there already.
    Noted,
    /// What became of each batch, in their order. What is new is in the log.
    Imported(Vec<Taken>),
    /// Refused.
    Error(CommandError),
}

/// One durable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A batch, ours or another's.
    Batch(SignedBatch),
    /// Something only this node needs to remember.
    Note(Note),
    /// The log ends here by intention; the next start goes on in the same epoch.
    CleanShutdown,
}

/// What to do. Carried out in the order given.
#[expect(clippy::large_enum_variant, reason = "Effects are few per step and carried out at once")]
#[derive(Debug)]
pub enum Effect {
    /// Append these records and sync, then answer `Input::Durable`, or `Input::WriteFailed`.
    Write {
        /// Echoed.
        write: WriteId,
        /// In order.
        records: Vec<Record>,
    },
    /// Publish on the log topic.
    Gossip(SignedBatch),
    /// Publish on the presence topic, signed.
    Publish(Presence),
    /// Send over the link, if it is up.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Read whole batches that hold events from `from` on, at most `limits::SYNC_RESPONSE_BYTES_MAX`, and send them.
    Serve {
        /// To whom.
        to: NodeId,
        /// Which log.
        log: LogId,
        /// The first event wanted.
        from: Seq,
        /// Up to here it is durable: what is not in the log is in a snapshot.
        known: Seq,
        /// Where a snapshot is offered in place of log.
        instead: Instead,
        /// A snapshot of this node's that the peer has joined: it is not offered again, whatever is gone.
        joined: Option<Hash>,
    },
    /// Keep what is known of jobs that are gone from Facts. Whoever carries this out must have it on disk before it carries out a later `Snapshot`.
    Retire(Vec<Past>),
    /// Write a snapshot, then drop the log below the one before; answer `Input::Snapshotted`.
    Snapshot(Box<snapshot::Bytes>),
    /// Fetch the shared part of another node's snapshot, check it, write it to disk; answer `Input::Fetched` whatever comes of it.
    Fetch {
        /// From whom.
        from: NodeId,
        /// Its name: the hash that it must have.
        id: Hash,
        /// Its length.
        bytes: u64,
    },
    /// Start a task; answer `Input::TaskEnded` when it ends.
    Spawn(Box<Spawn>),
    /// Stop a process and its group, gently at first.
    Kill(RunId),
    /// Answer a command.
    Reply {
        /// Whose.
        request: RequestId,
        /// What.
        reply: Reply,
    },
    /// Tell local subscribers.
    Notice(Notice),
}

/// Where a peer that asks for log is offered a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// In place of what is gone.
    OfGone,
    /// Also in place of much.
    OfMuch,
    /// In any case: branches of the log may lie in the snapshot alone, whatever else is there.
    OfAny,
}

/// A process to start.
#[derive(Clone, Debug)]
pub struct Spawn {
    /// The handle.
    pub run: RunId,
    /// The grant.
    pub grant: GrantId,
    /// The task.
    pub task: u32,
    /// The attempt.
    pub attempt: u16,
    /// What to run.
    pub work: Work,
}

/// What a task consists of.
#[derive(Clone, Debug)]
pub enum Work {
    /// One process.
    Process(Launch),
    /// An environment and a policy.
    Pair(Box<Pair>),
    /// A process on a worker.
    Worker(Box<Errand>),
    /// Something that a relay does: hand it over, and end it when the relay says so or is gone.
    Relay(Box<Assignment>),
}

/// A task for a worker.
#[derive(Clone, Debug)]
pub struct Errand {
    /// Who is to run it.
    pub worker: WorkerName,
    /// The job's name, for people.
    pub name: SmolStr,
    /// What to run.
    pub launch: Launch,
    /// What it needs.
    pub need: Resources,
}

/// A task for a relay.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The namespace.
    pub ns: SmolStr,
    /// The job's priority.
    pub priority: i32,
    /// The job's fields, defaults filled in.
    pub spec: WorkSpec,
}

/// News for local subscribers. Coalesced by them; a question to Facts gives the whole picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A batch was folded; the Facts contain it.
    Folded(SignedBatch),
    /// A node was found dead.
    NodeDead(NodeId),
    /// The jobs of a log have another owner.
    Adopted {
        /// The log.
        log: LogId,
        /// Who owns them now.
        by: NodeId,
    },
    /// A member signed two different things for one position of its log.
    Forked(LogId),
    /// Two nodes with equal frontiers disagree on the Facts: a bug, to be reported.
    RootMismatch(NodeId),
    /// The disk refuses writes.
    DiskRefuses(String),
    /// The disk takes writes again.
    DiskAccepts,
    /// How this node stands in the election has changed.
    Gateway(Standing),
    /// The claim that counts, or a token, has changed.
    GatewayFacts,
    /// Another process runs with this node's identity, and began before this one: this one must end.
    Twin,
    /// Something about snapshots.
    Snapshot(SnapshotNews),
    /// The clean-shutdown marker is on disk: the process may end.
    Stopped,
}
