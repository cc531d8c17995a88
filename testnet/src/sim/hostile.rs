//! Hostile bytes and hostile members: garbage, strangers' batches, forged statements about jobs of others, kinds nobody knows.
//!
//! Invariants: what is sent is well signed by whoever signs it: the point is that authority, not form, makes it inert.

use starling_core::event::{Event as LogEntry, SignedBatch, Signer, SysContext, Value, WorkSpec, membership_mac};
use starling_core::facts::{Delta, Outcome, Usage};
use starling_core::ids::{
    Attempt, Dot, Epoch, GatewayTerm, GrantId, GrantNo, Hash, JobId, JobNo, LogId, NodeId, Seq, Term,
};
use starling_core::lattice::IntervalSet;
use starling_core::namespace::{Durability, Namespace, NamespaceSpec, Registry, Voice, batch, sys};
use starling_core::schedule::Offer;
use starling_core::sync::Message;
use starling_core::time::Hlc;

use super::marks::Mark;
use super::network::{Origin, Packet};
use super::node::signer;
use super::options::Sabotage;
use super::world::{Event, SECRET, Seat, World};

/// A namespace that only hostile events use.
const STRANGE: &str = "strange";

/// The adversary.
#[derive(Debug)]
pub(crate) struct Hostile {
    /// Knows the cluster's secret.
    member: Signer,
    /// Does not.
    stranger: Signer,
    tail: Seq,
    head: Hash,
    /// Everything the member signed on its first branch, so that it can be shown again.
    log: Vec<SignedBatch>,
    /// The last batches of its other branches.
    branches: Vec<SignedBatch>,
    jobs: u64,
}

impl Hostile {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            member: signer(seed, 1_000),
            stranger: signer(seed, 1_001),
            tail: Seq(0),
            head: Hash::ZERO,
            log: Vec::new(),
            branches: Vec::new(),
            jobs: 0,
        }
    }

    fn log_id(&self) -> LogId {
        LogId { node: self.member.node(), epoch: Epoch(1) }
    }
}

/// A delta that differs from what everybody else folds.
#[derive(Debug)]
pub(crate) struct Skewed {
    spec: NamespaceSpec,
}

impl Default for Skewed {
    fn default() -> Self {
        let spec = NamespaceSpec {
            name: STRANGE.into(),
            preemptible: false,
            handler_type: "".into(),
            schema: Vec::new(),
            durability: Durability::Logged,
        };
        Self { spec }
    }
}

impl Namespace for Skewed {
    fn spec(&self) -> &NamespaceSpec {
        &self.spec
    }

    fn delta(&self, _dot: Dot, _event: &LogEntry) -> Delta {
        Delta::Nothing
    }
}

impl World {
    pub(crate) fn on_hostile(&mut self) {
        let Some(every) = self.faults.hostile else {
            return;
        };
        self.totals.hostile += 1;
        match self.rng.below(5) {
            0 => self.garbage(),
            1 => self.strangers_batch(),
            2 => self.lies(),
            _ if self.faults.fork.hits(&mut self.rng) && !self.hostile.log.is_empty() => self.contradiction(),
            _ => self.members_batch(),
        }
        let wait = 1 + self.rng.below(every * 2);
        self.after(wait, Event::Hostile);
    }

    /// Random bytes to every decoder.
    fn garbage(&mut self) {
        let len = usize::try_from(self.rng.below(600)).unwrap_or(0);
        let mut bytes: Vec<u8> = (0..len).map(|_| self.rng.number().to_le_bytes()[0]).collect();
        if self.rng.below(2) == 0 && bytes.len() > 3 {
            // The beginning of a batch, so that the decoder gets past its first check.
            bytes[..3].copy_from_slice(&[0x87, 0x01, 0x58]);
        }
        let accepted = SignedBatch::open(&bytes, &self.cluster).is_ok();
        let found = crate::invariant::hostile_bytes::garbage(accepted);
        self.broken(found);
        let to = self.pick();
        let stranger = self.hostile.stranger.node();
        self.after(1, Event::Deliver { to, origin: Origin::Outside(stranger), packet: Packet::MessageBytes(bytes) });
    }

    /// A log that opens without proof of membership.
    fn strangers_batch(&mut self) {
        let mac = membership_mac(&[0; 32], &self.hostile.stranger.node());
        let events = vec![with_bytes(sys::admit(self.hlc(), mac, "cuckoo")), with_bytes(self.forged())];
        let signer = self.hostile.stranger.clone();
        let first = Seq(1 + self.rng.below(3));
        let batch = SignedBatch::seal(&signer, self.cluster, Epoch(1), first, Hash::ZERO, events);
        self.show(&batch, None);
    }

    /// A member's batch full of statements that are not its to make.
    fn members_batch(&mut self) {
        let mut events = Vec::new();
        if self.hostile.tail == Seq(0) {
            let mac = membership_mac(&SECRET, &self.hostile.member.node());
            events.push(sys::admit(self.hlc(), mac, "cuckoo"));
        }
        for _ in 0..=self.rng.below(4) {
            events.push(self.forged());
        }
        if matches!(self.options.sabotage, Sabotage::SealsTwice | Sabotage::ChangesSeal) {
            events.extend(self.seal_own());
        }
        // A claim that one node hears long before the gateway does: where the fence is gone, it obeys the gateway still.
        let only = (self.options.sabotage == Sabotage::NoFence).then(|| self.pick());
        if only.is_some() && self.rng.below(4) == 0 {
            events.push(sys::claim_gateway(self.hlc(), GatewayTerm(1_000 + self.hostile.tail.0)));
        }
        let events: Vec<_> = events.into_iter().map(with_bytes).collect();
        let count = events.len() as u64;
        let hostile = &mut self.hostile;
        let batch =
            SignedBatch::seal(&hostile.member, self.cluster, Epoch(1), Seq(hostile.tail.0 + 1), hostile.head, events);
        hostile.tail = Seq(hostile.tail.0 + count);
        hostile.head = batch.head();
        hostile.log.push(batch);
        // All of it, so that nobody waits for what only the adversary could tell.
        for batch in self.hostile.log.clone() {
            self.show(&batch, only);
        }
    }

    /// A batch beside one that the member signed, or behind such a batch: shown to one node, or to most.
    fn contradiction(&mut self) {
        self.mark(Mark::Branched);
        let member = self.hostile.member.node();
        self.rules.one_writer.excuse(member);
        let count = self.hostile.branches.len() as u64;
        let known = usize::try_from(self.rng.below(count + 1)).unwrap_or(0);
        let (first, prev) = match self.hostile.branches.get(known) {
            Some(branch) => (Seq(branch.header().last_seq().0 + 1), branch.head()),
            None => {
                let pick = usize::try_from(self.rng.below(self.hostile.log.len() as u64)).unwrap_or(0);
                let beside = *self.hostile.log[pick].header();
                (beside.first_seq, beside.prev)
            }
        };
        let mut events = Vec::new();
        if first == Seq(1) {
            let mac = membership_mac(&SECRET, &member);
            events.push(with_bytes(sys::admit(self.hlc(), mac, "cuckoo")));
        }
        for _ in 0..=self.rng.below(3) {
            events.push(with_bytes(self.forged()));
        }
        let batch = SignedBatch::seal(&self.hostile.member, self.cluster, Epoch(1), first, prev, events);
        match self.hostile.branches.get_mut(known) {
            Some(branch) => *branch = batch.clone(),
            None => self.hostile.branches.push(batch.clone()),
        }
        let only = (self.rng.below(2) == 0).then(|| self.pick());
        self.show(&batch, only);
    }

    /// Jobs of the adversary's own, sealed against the rules for owners: twice in one term, or anew in a later one.
    fn seal_own(&mut self) -> Vec<LogEntry> {
        let log = self.hostile.log_id();
        let job = |no| JobId { log, no: JobNo(no) };
        self.hostile.jobs += 1;
        let no = self.hostile.jobs;
        let tasks = IntervalSet::one(1);
        let spec = WorkSpec::new().with("command", Value::List(vec![Value::text("work")]));
        let mut events = vec![
            batch::submit_job(self.hlc(), job(no), tasks.clone(), 0, spec),
            sys::seal(self.hlc(), job(no), Term(1), tasks.clone(), &Outcome::Exit(5)),
        ];
        if self.options.sabotage == Sabotage::SealsTwice {
            events.push(sys::seal(self.hlc(), job(no), Term(1), tasks, &Outcome::Exit(5)));
        } else if no > 1 {
            events.push(sys::seal(self.hlc(), job(no - 1), Term(2), tasks, &Outcome::Exit(0)));
        }
        events
    }

    /// Direct messages that claim what the sender may not.
    fn lies(&mut self) {
        let grant = GrantId {
            job: self.victim(),
            no: GrantNo { term: Term(1), no: 1 + u32::try_from(self.rng.below(3)).unwrap_or(0) },
        };
        let free = starling_core::resources::Resources { cpu_milli: u64::MAX, mem_bytes: u64::MAX };
        let message = match self.rng.below(4) {
            0 => Message::Offer(Offer {
                grant,
                attempt: Attempt(u16::MAX),
                tasks: IntervalSet::from_range(0, u32::MAX),
                pool: None,
            }),
            1 => Message::OfferReply { grant, accepted: true, free },
            2 => Message::OfferReply { grant, accepted: false, free },
            _ => Message::Ask { total: free, free },
        };
        let (to, from) = (self.pick(), self.hostile.member.node());
        self.after(
            1,
            Event::Deliver { to, origin: Origin::Outside(from), packet: Packet::MessageBytes(message.to_bytes()) },
        );
    }

    /// Sends it to most nodes, or to one.
    fn show(&mut self, batch: &SignedBatch, only: Option<Seat>) {
        let from = batch.header().log.node;
        for to in self.seats().filter(|to| only.is_none_or(|only| only == *to)).collect::<Vec<Seat>>() {
            if only.is_some() || self.rng.below(3) > 0 {
                if from == self.hostile.stranger.node() {
                    self.mark(Mark::StrangerRefused);
                }
                let packet = Packet::BatchBytes { bytes: batch.bytes().to_vec(), intact: true };
                let delay = 1 + self.rng.below(50);
                self.after(delay, Event::Deliver { to, origin: Origin::Outside(from), packet });
            }
        }
    }

    fn hlc(&mut self) -> Hlc {
        Hlc { wall_ms: self.rng.number(), count: 0 }
    }

    /// A job of somebody else.
    fn victim(&mut self) -> JobId {
        let count = self.clients.acked.len() as u64;
        let pick = usize::try_from(self.rng.below(count.max(1))).unwrap_or(0);
        let nobody = JobId { log: LogId { node: NodeId([9; 32]), epoch: Epoch(u64::MAX) }, no: JobNo(u64::MAX) };
        self.clients.acked.keys().nth(pick).copied().unwrap_or(nobody)
    }

    fn forged(&mut self) -> LogEntry {
        let (job, hlc) = (self.victim(), self.hlc());
        let tasks = IntervalSet::from_range(0, 40);
        let no = GrantNo { term: Term(1), no: 1 + u32::try_from(self.rng.below(3)).unwrap_or(0) };
        let grant = GrantId { job, no };
        match self.rng.below(10) {
            0 => sys::grant(
                hlc,
                grant,
                &starling_core::ids::Seat::machine(self.hostile.member.node()),
                Attempt(1),
                tasks,
            ),
            1 => sys::void(hlc, grant, Term::FIRST),
            2 => sys::seal(hlc, job, Term(9), tasks, &Outcome::Exit(66)),
            3 => Voice::default().started(hlc, grant, tasks),
            4 => Voice::default().finished(hlc, grant, tasks, &Outcome::Exit(0), &Usage::default()),
            5 => Voice::default().finished(hlc, grant, tasks, &Outcome::Lost, &Usage::default()),
            6 => batch::submit_job(hlc, job, tasks, i32::MAX, WorkSpec::new()),
            7 => strange(hlc, STRANGE, "Nonsense", 1),
            8 => strange(hlc, "batch", "JobFinished", 7),
            _ => strange(hlc, "sys", "Coronation", u16::MAX),
        }
    }
}

fn strange(hlc: Hlc, ns: &str, kind: &str, ver: u16) -> LogEntry {
    let spec = WorkSpec::new().with("what", Value::List(vec![Value::Bool(true), Value::Int(i64::MIN)]));
    LogEntry { hlc, ns: ns.into(), kind: kind.into(), ver, ctx: SysContext::default(), spec }
}

fn with_bytes(event: LogEntry) -> (LogEntry, Vec<u8>) {
    let bytes = event.to_bytes();
    (event, bytes)
}

/// The kernel's kinds as a version knew them that had never heard of retirement, and takes no care of what it does not know.
#[derive(Debug, Default)]
struct Unretiring(sys::Sys);

impl Namespace for Unretiring {
    fn spec(&self) -> &NamespaceSpec {
        self.0.spec()
    }

    fn delta(&self, dot: Dot, event: &starling_core::event::Event) -> Delta {
        if event.kind == "Retire" { Delta::Nothing } else { self.0.delta(dot, event) }
    }
}

/// All namespaces, without retirement.
pub(crate) fn unretiring() -> Registry {
    let mut registry = Registry::empty();
    registry.add(Box::new(Unretiring::default()));
    registry.add(Box::new(batch::Batch::default()));
    registry.add(Box::new(starling_core::namespace::simulation::Simulation::default()));
    registry.add(Box::new(starling_core::namespace::monitor::Monitor::default()));
    registry
}
