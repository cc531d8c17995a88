//! The world: nodes, their disks and processes, the network between them, one queue of events, one source of chance.
//!
//! Invariants: effects are carried out as the real edges do, in the order given; a node that is down gets nothing; the first broken rule stops the run.
//! Does not: decide what goes wrong (`faults`) or what users want (`clients`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use starling_core::event::{SignedBatch, cluster_id};
use starling_core::ids::{ClusterId, Hash, NodeId, RunId, WriteId};
use starling_core::machine::snapshot::Bytes;
use starling_core::machine::{Effect, Input, Notice, Record};
use starling_core::rng::Rng;
use starling_core::sync::Message;
use starling_core::time::Mono;

use super::clients::{Clients, Report};
use super::faults::Fault;
use super::hostile::Hostile;
use super::keeping::Wanted;
use super::marks::{self, Mark, Marks, Memory};
use super::mesh::{self, Mesh};
use super::network::{Network, Origin, Packet};
use super::node::Node;
use super::options::{Faults, Options, Sabotage, Spreading, Watch};
use super::process::{Crash, Processes};
use super::queue::Queue;
use super::trace::{self, Trace};
use super::twins::Twin;
use super::workers::Outsider;
use crate::invariant::{Rules, Violation, clock_blind, equal_facts};

/// The secret that the world's members share.
pub(crate) const SECRET: [u8; 32] = [0x5a; 32];

/// A node's place in the world, the same over all its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seat(pub(crate) usize);

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Deliver { to: Seat, origin: Origin, packet: Packet },
    Disk { seat: Seat, life: u32, write: WriteId },
    Confirm { seat: Seat, life: u32, write: WriteId },
    Process { seat: Seat, life: u32, run: RunId },
    Tick { seat: Seat, life: u32 },
    Pair { a: Seat, b: Seat, version: u32 },
    Port { seat: Seat, life: u32, run: RunId },
    Relay(Seat),
    Worker(usize),
    Workers(Seat),
    Report(Box<Report>),
    Snapshot { seat: Seat, life: u32, bytes: Arc<Bytes>, upto: usize },
    Fetch { seat: Seat, life: u32, from: NodeId, id: Hash },
    Restart(Seat),
    Resume(Seat),
    Twin,
    Yield(Seat),
    Fault(Fault),
    Submit,
    Cancel,
    Hostile,
    Heartbeat(Seat),
    Lazy { from: Seat, to: Seat, batch: SignedBatch },
}

/// What happened in a run, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Virtual time.
    pub virtual_ms: u64,
    /// Inputs stepped.
    pub steps: u64,
    /// Nodes that went down without warning.
    pub crashes: u64,
    /// Partitions, flaps counted singly.
    pub partitions: u64,
    /// Submissions acknowledged.
    pub acknowledged: u64,
    /// Processes started.
    pub starts: u64,
    /// Starts beyond the first that faults brought about.
    pub extra_starts: u64,
    /// Hostile or damaged packets.
    pub hostile: u64,
    /// Terms of gateways.
    pub terms: u64,
    /// What happened that must happen sometimes.
    pub marks: Marks,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    /// The faults at work now; none after healing.
    pub(crate) faults: Faults,
    pub(crate) now: Mono,
    pub(crate) rng: Rng,
    pub(crate) nodes: Vec<Node>,
    pub(crate) by_id: BTreeMap<NodeId, Seat>,
    pub(crate) network: Network,
    pub(crate) workers: Vec<Outsider>,
    pub(crate) processes: Processes,
    pub(crate) clients: Clients,
    pub(crate) hostile: Hostile,
    pub(crate) trace: Trace,
    pub(crate) rules: Rules,
    pub(crate) totals: Totals,
    pub(crate) cluster: ClusterId,
    pub(crate) violation: Option<Violation>,
    /// Nodes that were told to stop.
    pub(crate) stopping: BTreeSet<Seat>,
    /// Another process with a node's identity.
    pub(crate) twin: Option<Twin>,
    /// Whether some node ran an older version at first.
    pub(crate) was_mixed: bool,
    pub(crate) memory: Memory,
    /// How batches spread, where it is not to everybody at once.
    pub(crate) mesh: Option<Mesh>,
    queue: Queue<Event>,
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        let mut rng = Rng::new(options.seed ^ 0x574f_524c_4400_0001);
        let nodes: Vec<Node> = (0..options.nodes).map(|seat| Node::new(&options, seat, &mut rng)).collect();
        let links = if options.spread == Spreading::Mesh { mesh::pairs(options.nodes, &mut rng) } else { None };
        let by_id = nodes.iter().enumerate().map(|(seat, node)| (node.id, Seat(seat))).collect();
        let mut world = Self {
            faults: options.faults,
            now: Mono(0),
            network: Network::new(options.nodes, links),
            workers: (0..options.workers).map(|index| Outsider::new(index, rng.number())).collect(),
            processes: Processes::default(),
            clients: Clients::default(),
            hostile: Hostile::new(options.seed),
            trace: Trace::new(options.lines),
            rules: Rules::new(options.nodes),
            totals: Totals::default(),
            cluster: cluster_id(&SECRET),
            violation: None,
            stopping: BTreeSet::new(),
            twin: None,
            was_mixed: nodes.iter().any(|node| node.old),
            memory: Memory::default(),
            mesh: (options.spread == Spreading::Mesh).then(|| Mesh::new(options.nodes)),
            queue: Queue::new(),
            rng,
            nodes,
            by_id,
            options,
        };
        for seat in world.seats().collect::<Vec<_>>() {
            world.start(seat);
        }
        for index in 0..world.workers.len() {
            world.after(100, Event::Worker(index));
        }
        world.knit();
        world.plan_faults();
        world.after(500, Event::Submit);
        world
    }

    pub(crate) fn seats(&self) -> impl Iterator<Item = Seat> + use<> {
        (0..self.nodes.len()).map(Seat)
    }

    pub(crate) fn node(&self, seat: Seat) -> &Node {
        &self.nodes[seat.0]
    }

    pub(crate) fn node_mut(&mut self, seat: Seat) -> &mut Node {
        &mut self.nodes[seat.0]
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.queue.push(self.now.after_ms(ms), event);
    }

    /// Lets time pass until `until`, or until a rule is broken.
    pub(crate) fn run_until(&mut self, until: Mono) {
        while self.violation.is_none() {
            let Some((at, event)) = self.queue.pop(until) else {
                break;
            };
            self.now = at;
            self.dispatch(event);
        }
        if self.violation.is_none() {
            self.now = self.now.max(until);
        }
        self.totals.virtual_ms = self.now.0;
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Deliver { to, origin, packet } => self.on_deliver(to, origin, packet),
            Event::Disk { seat, life, write } => self.on_disk(seat, life, write),
            Event::Confirm { seat, life, write } => self.on_confirm(seat, life, write),
            Event::Process { seat, life, run } => self.on_process(seat, life, run),
            Event::Tick { seat, life } => self.on_tick(seat, life),
            Event::Pair { a, b, version } => self.on_pair(a, b, version),
            Event::Port { seat, life, run } => self.on_port(seat, life, run),
            Event::Report(report) => self.relay_reports(*report),
            Event::Relay(seat) => self.tell_of_relay(seat),
            Event::Worker(index) => self.on_worker(index),
            Event::Workers(seat) => self.on_workers(seat),
            Event::Snapshot { seat, life, bytes, upto } => self.on_snapshot(seat, life, bytes, upto),
            Event::Fetch { seat, life, from, id } => self.on_fetch(seat, life, from, id),
            Event::Restart(seat) => self.start(seat),
            Event::Resume(seat) => self.resume(seat),
            Event::Fault(fault) => self.on_fault(fault),
            Event::Submit => self.on_submit(),
            Event::Cancel => self.on_cancel(),
            Event::Twin => self.on_twin(),
            Event::Yield(seat) => self.on_yield(seat),
            Event::Hostile => self.on_hostile(),
            Event::Heartbeat(seat) => self.on_heartbeat(seat),
            Event::Lazy { from, to, batch } => self.on_lazy(from, to, batch),
        }
    }

    pub(crate) fn broken(&mut self, violation: Option<Violation>) {
        if self.violation.is_none() {
            self.violation = violation;
        }
    }

    /// One input to one node, and everything that follows from it.
    pub(crate) fn step(&mut self, seat: Seat, input: Input) {
        let now = self.node(seat).clock(self.now);
        let words = trace::of_input(&input);
        self.trace.mix(&[self.now.0, seat.0 as u64]);
        self.trace.mix(&words);
        self.trace.line(self.now, || format!("{seat:?} <- {input:?}"));
        let at_write = matches!(input, Input::Durable(_));
        let is_watched = self.options.watch == Watch::Close || self.totals.steps.is_multiple_of(64);
        let Some(machine) = self.nodes[seat.0].machine.as_mut() else {
            return;
        };
        let (cause, epoch) = (marks::cause(&input), machine.own_log().epoch);
        let effects = machine.step(now, input);
        self.totals.steps += 1;
        if marks::froze(machine, epoch) {
            self.totals.marks.hit(Mark::EpochFrozen);
        }
        if is_watched {
            let found = self.rules.look_at_machine(seat, machine, now.mono, &self.options);
            self.broken(found);
        }
        let writes = at_write || effects.iter().any(|effect| matches!(effect, Effect::Write { .. }));
        let crash = writes && self.faults.crash_at_write.hits(&mut self.rng);
        let carried =
            if crash { usize::try_from(self.rng.below(effects.len() as u64 + 1)).unwrap_or(0) } else { effects.len() };
        for effect in effects.into_iter().take(carried) {
            // A node that just stopped does nothing more.
            if self.node(seat).machine.is_none() {
                break;
            }
            self.trace.mix(&trace::of_effect(&effect));
            self.trace.line(self.now, || format!("{seat:?} -> {effect:?}"));
            self.note(seat, cause, &effect);
            self.perform(seat, effect);
        }
        if crash {
            self.totals.crashes += 1;
            self.mark(Mark::CrashAtWrite);
            let daemon_only = self.faults.daemon_crash.is_some() && self.totals.crashes.is_multiple_of(2);
            self.crash(seat, if daemon_only { Crash::Daemon } else { Crash::Machine });
            let down_ms = 50 + self.rng.below(3_000);
            self.after(down_ms, Event::Restart(seat));
        }
        self.arm(seat);
    }

    /// Makes sure that the node is woken when it asked to be.
    fn arm(&mut self, seat: Seat) {
        let now = self.now;
        let node = &mut self.nodes[seat.0];
        let Some(machine) = node.machine.as_ref() else {
            return;
        };
        let due = Mono(machine.next_deadline().0.saturating_sub(node.origin)).max(now.after_ms(1));
        if node.armed <= now || due < node.armed {
            node.armed = due;
            let life = node.life;
            self.queue.push(due, Event::Tick { seat, life });
        }
    }

    fn on_tick(&mut self, seat: Seat, life: u32) {
        let node = self.node(seat);
        if node.machine.is_none() || node.life != life {
            return;
        }
        if node.paused_until > self.now {
            return self.defer(seat, Event::Tick { seat, life });
        }
        let due = node.machine.as_ref().is_some_and(|machine| machine.next_deadline().0 <= node.clock(self.now).mono.0);
        if due { self.step(seat, Input::Tick) } else { self.arm(seat) }
    }

    fn perform(&mut self, seat: Seat, effect: Effect) {
        let node = &self.nodes[seat.0];
        if self.options.watch == Watch::Close {
            let found = crate::invariant::durable_first::look(&node.disk, &effect);
            self.broken(found);
        }
        match effect {
            Effect::Write { write, records } => self.write(seat, write, records),
            Effect::Gossip(batch) => self.gossip(seat, batch),
            Effect::Publish(presence) => {
                self.on_voice(seat, &presence);
                self.send_all(seat, &Packet::Presence(Arc::new(presence)));
            }
            Effect::Send { to, message } => {
                if let Some(to) = self.by_id.get(&to).copied() {
                    self.send(seat, to, Packet::Message(Box::new(message)));
                }
            }
            Effect::Retire(past) => self.on_retire(seat, &past),
            Effect::Snapshot(bytes) => self.write_snapshot(seat, *bytes),
            Effect::Fetch { from, id, .. } => self.fetch(seat, from, id),
            Effect::Serve { to, log, from, known, instead, joined } => {
                self.serve(seat, to, Wanted { log, from, known, instead, joined });
            }
            Effect::Spawn(spawn) => self.spawn(seat, *spawn),
            Effect::Kill(run) => {
                self.processes.kill(seat, run);
                let (life, delay) = (self.node(seat).life, 1 + self.rng.below(50));
                self.after(delay, Event::Process { seat, life, run });
            }
            Effect::Reply { request, reply } => self.on_reply(request, reply),
            Effect::Notice(notice) => self.on_notice(seat, notice),
        }
    }

    fn write(&mut self, seat: Seat, write: WriteId, records: Vec<Record>) {
        let life = self.node(seat).life;
        self.node_mut(seat).disk.begin(write, records);
        let delay = 1 + self.rng.below(self.faults.disk_ms_max.max(1));
        if self.options.sabotage == Sabotage::EarlyDurable {
            self.after(0, Event::Confirm { seat, life, write });
            self.after(delay, Event::Disk { seat, life, write });
        } else {
            self.after(delay, Event::Disk { seat, life, write });
        }
    }

    /// The disk is done with a write.
    fn on_disk(&mut self, seat: Seat, life: u32, write: WriteId) {
        if self.node(seat).life != life || self.node(seat).machine.is_none() {
            return;
        }
        if self.node(seat).disk.full_until > self.now {
            self.node_mut(seat).disk.fail(write);
            return self.step(seat, Input::WriteFailed { write, reason: "no space left on device".into() });
        }
        let records = self.node_mut(seat).disk.commit(write);
        self.on_committed(seat, life, &records);
        if self.options.sabotage != Sabotage::EarlyDurable {
            self.on_confirm(seat, life, write);
        }
    }

    /// The node hears that a write is durable, once it listens.
    fn on_confirm(&mut self, seat: Seat, life: u32, write: WriteId) {
        let node = self.node(seat);
        if node.life != life || node.machine.is_none() {
            return;
        }
        if node.paused_until > self.now {
            return self.defer(seat, Event::Confirm { seat, life, write });
        }
        self.node_mut(seat).disk.hear();
        self.step(seat, Input::Durable(write));
    }

    pub(crate) fn on_committed(&mut self, seat: Seat, life: u32, records: &[Record]) {
        for record in records {
            if let Record::Batch(batch) = record {
                let found = self.rules.on_durable(self.nodes[seat.0].id, life, batch);
                self.broken(found);
            }
        }
    }

    fn on_deliver(&mut self, to: Seat, origin: Origin, packet: Packet) {
        let node = self.node(to);
        if node.machine.is_none() {
            return;
        }
        if node.paused_until > self.now {
            return self.defer(to, Event::Deliver { to, origin, packet });
        }
        let Some(from) = self.arrives(to, origin) else {
            return;
        };
        if let Packet::Batch(batch) = &packet
            && !self.is_first_copy(to, self.by_id.get(&from).copied(), batch)
        {
            return;
        }
        let Some(packet) = self.as_heard(to, packet) else {
            return;
        };
        let foreseen = self.foresee(to, &packet);
        let input = match packet {
            Packet::Batch(batch) if self.seems_of_another_time(to, &batch) => None,
            Packet::Batch(_) if self.options.sabotage == Sabotage::HollowHave => None,
            Packet::Batch(batch) => Some(Input::Batch { from, batch }),
            Packet::BatchBytes { bytes, intact } => self.open(from, &bytes, intact),
            Packet::Message(message) => Some(Input::Message { from, message: *message }),
            Packet::MessageBytes(bytes) => {
                Message::from_bytes(&bytes).ok().map(|message| Input::Message { from, message })
            }
            Packet::Presence(presence) => Some(Input::Presence(presence.as_ref().clone())),
            Packet::Pulled { .. } if self.options.sabotage == Sabotage::NoPulls => None,
            Packet::Pulled { log, batches, more } => Some(Input::Pulled { from, log, batches, more }),
        };
        if let Some(input) = input {
            self.step(to, input);
        }
        if let (Some(foreseen), Some(machine)) = (foreseen, self.node(to).machine.as_ref()) {
            let found = clock_blind::look(to, machine, &foreseen);
            self.broken(found);
        }
    }

    fn open(&mut self, from: NodeId, bytes: &[u8], intact: bool) -> Option<Input> {
        self.totals.hostile += u64::from(!intact);
        let opened = match self.options.sabotage {
            Sabotage::OpensUnsigned => SignedBatch::open_own(bytes, &self.cluster),
            _ => SignedBatch::open(bytes, &self.cluster),
        };
        let found = crate::invariant::hostile_bytes::look(opened.as_ref().err(), intact);
        self.broken(found);
        if opened.is_err() {
            self.mark(Mark::HostileRefused);
        }
        opened.ok().map(|batch| Input::Batch { from, batch })
    }

    fn on_notice(&mut self, seat: Seat, notice: Notice) {
        match notice {
            Notice::NodeDead(node) => {
                let owner = self.node(seat).id;
                self.rules.extra_starts.on_suspicion(&owner, &node);
            }
            // One node's belief, which all others follow.
            Notice::Adopted { log, by } if by == self.node(seat).id => self.rules.extra_starts.on_adoption(&log),
            // Versions that understand different things have different Facts.
            Notice::RootMismatch(node) if self.understands_less(seat, &node) => {}
            Notice::RootMismatch(node) => {
                let facts = |seat: Seat| self.node(seat).machine.as_ref().map(|machine| machine.facts());
                let theirs = self.by_id.get(&node).and_then(|other| facts(*other));
                let differ = facts(seat).zip(theirs).map(|(ours, theirs)| equal_facts::difference(ours, theirs));
                let detail =
                    format!("{seat:?} has the frontier of {node} and another root: {}", differ.unwrap_or_default());
                self.broken(Some(Violation::new(4, detail)));
            }
            Notice::Forked(log) if self.rules.one_writer.may_fork(&log.node) => {}
            Notice::Forked(log) => {
                let detail = format!("{seat:?} holds two branches of {log:?}");
                self.broken(Some(Violation::new(2, detail)));
            }
            Notice::Gateway(standing) => {
                if standing.acting().is_none() {
                    self.dismiss_workers(seat);
                }
            }
            Notice::Twin => self.on_told_of_twin(seat),
            Notice::Stopped if self.stopping.remove(&seat) => self.stop(seat),
            Notice::Folded(batch) => self.on_spread(&batch),
            Notice::Snapshot(_)
            | Notice::DiskRefuses(_)
            | Notice::DiskAccepts
            | Notice::GatewayFacts
            | Notice::Adopted { .. }
            | Notice::Stopped => {}
        }
    }
}
