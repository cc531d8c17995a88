//! Names of things: nodes, logs, events, jobs, tasks, grants.
//!
//! Invariants: every id is a newtype with a total order; a `NodeId` is an ed25519 public key.
//! Does not: resolve the names people type (`facts::view` does).

use core::fmt;

use minicbor::{Decode, Encode};
use smol_str::SmolStr;

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

        /// The order of the bytes. Ids key most maps, and 8 bytes nearly always decide.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> core::cmp::Ordering {
                self.prefix().cmp(&other.prefix()).then_with(|| self.0.cmp(&other.0))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// The whole value as 64 lower-case hex digits.
            #[must_use]
            pub fn to_hex(&self) -> String {
                self.0.iter().map(|byte| format!("{byte:02x}")).collect()
            }

            /// The first 8 bytes as a big-endian number: a short, order-preserving digest.
            #[must_use]
            pub fn prefix(&self) -> u64 {
                let mut first = [0; 8];
                first.copy_from_slice(&self.0[..8]);
                u64::from_be_bytes(first)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:08x})", stringify!($name), self.prefix() >> 32)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:08x}", self.prefix() >> 32)
            }
        }
    };
}

bytes32!(
    /// A node: its ed25519 public key, which is its libp2p identity too.
    NodeId
);
bytes32!(
    /// A cluster: a hash of the secret that its members share.
    ClusterId
);
bytes32!(
    /// A blake3 hash.
    Hash
);

impl Default for Hash {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Hash {
    /// The hash before the first batch of every log.
    pub const ZERO: Self = Self([0; 32]);
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// One uninterrupted life of a node's log; an unclean restart opens the next.
    Epoch(u64)
);
number!(
    /// A position in one log, counted from 1.
    Seq(u64)
);
number!(
    /// A job's number in its owner's log, contiguous, counted from 1.
    JobNo(u64)
);
number!(
    /// One task of a job's array.
    TaskId(u32)
);
number!(
    /// How often a task was granted, counted from 1.
    Attempt(u16)
);
number!(
    /// A term of the gateway; every claim raises it.
    GatewayTerm(u64)
);
number!(
    /// A term of ownership of a log's jobs. The log's author owns them in term 1; whoever adopts them does so in a later term, whose lower half names the
    /// adopter: two nodes that adopt at once speak in different terms, of which the greater counts.
    Term(u64)
);

/// Bits of a term that name the adopter.
const ADOPTER_BITS: u32 = 32;
/// Terms count up to here: a term must fit a signed value of an event's spec.
const TERM_NUMBER_MAX: u64 = (1 << (63 - ADOPTER_BITS)) - 1;

impl Term {
    /// The term of a log's author.
    pub const FIRST: Self = Self(1);

    /// The term in which `adopter` owns what was owned in this one.
    #[must_use]
    pub fn adopted_by(self, adopter: &NodeId) -> Self {
        let number = self.number().saturating_add(1).min(TERM_NUMBER_MAX);
        Self(number << ADOPTER_BITS | tag(adopter))
    }

    /// How many owners there were up to this term, for people.
    #[must_use]
    pub fn number(self) -> u64 {
        let adoptions = self.0 >> ADOPTER_BITS;
        if adoptions == 0 { self.0 } else { adoptions }
    }

    /// Whether `speaker` may speak in this term of jobs in a log of `author`.
    #[must_use]
    pub fn is_of(self, author: &NodeId, speaker: &NodeId) -> bool {
        if self.is_adopted() { self.0 & ((1 << ADOPTER_BITS) - 1) == tag(speaker) } else { author == speaker }
    }

    /// Whether this is an adopter's term.
    #[must_use]
    pub fn is_adopted(self) -> bool {
        self.0 >> ADOPTER_BITS > 0
    }
}

fn tag(node: &NodeId) -> u64 {
    node.prefix() >> (64 - ADOPTER_BITS)
}

/// One author's log in one epoch. Exactly one process ever writes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct LogId {
    /// The author.
    #[n(0)]
    pub node: NodeId,
    /// The author's epoch.
    #[n(1)]
    pub epoch: Epoch,
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.epoch)
    }
}

/// One event: a log and a position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Dot {
    /// The log that holds the event.
    #[n(0)]
    pub log: LogId,
    /// Its position, from 1.
    #[n(1)]
    pub seq: Seq,
}

/// A job: the log of the node that accepted it, and a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct JobId {
    /// The log that holds the submission. Its author owns the job, until another node adopts the log's jobs.
    #[n(0)]
    pub log: LogId,
    /// The job's number there.
    #[n(1)]
    pub no: JobNo,
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}-{}", self.log, self.no)
    }
}

/// A grant's number within its job; later terms sort after earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct GrantNo {
    /// The owner's term when it granted.
    #[n(0)]
    pub term: Term,
    /// The number within the term, from 1; those of the owner's later epochs begin higher (`schedule::Owner::on_epoch`).
    #[n(1)]
    pub no: u32,
}

impl fmt::Debug for GrantNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term.number(), self.no)
    }
}

/// A grant: the owner's permission to one executor to run some tasks of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct GrantId {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// The grant's number within the job.
    #[n(1)]
    pub no: GrantNo,
}

/// One start of one task on one executor; unique while the executor's process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// A caller's handle for a Command, echoed in its Reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A durable write asked of the disk, echoed when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// A pool: the workers of one gateway that are alike, named by what they have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PoolName(#[cbor(with = "crate::facts::text")] pub SmolStr);

/// A worker from outside, by the name that it gave itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct WorkerName(#[cbor(with = "crate::facts::text")] pub SmolStr);

impl fmt::Display for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place for tasks: a node's own machine, or a pool of the workers that it sponsors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// The executor, which answers for the tasks.
    pub node: NodeId,
    /// The pool; absent for the machine itself.
    pub pool: Option<PoolName>,
}

impl Seat {
    /// A node's own machine.
    #[must_use]
    pub fn machine(node: NodeId) -> Self {
        Self { node, pool: None }
    }
}
