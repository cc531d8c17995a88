//! One node of the world over all its lives: starting from its disk, crashing, standing still.
//!
//! Invariants: nothing but the disk outlives a crash; what happens to a node that stands still happens when it goes on, in order.

use starling_core::config::Config;
use starling_core::event::{SignedBatch, Signer};
use starling_core::ids::NodeId;
use starling_core::machine::{Identity, Input, Machine, Record, Recovery};
use starling_core::namespace::Registry;
use starling_core::resources::Resources;
use starling_core::rng::Rng;
use starling_core::time::{Mono, Now, Wall};

use super::disk::Disk;
use super::marks::Mark;
use super::options::{Options, PerMille, Sabotage};
use super::process::Crash;
use super::workers::Sponsored;
use super::world::{Event, SECRET, Seat, World};
use crate::invariant::Violation;

/// The wall clock at the start of every run.
pub(crate) const WALL_START_MS: u64 = 1_790_000_000_000;

/// One node over all its lives.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) total: Resources,
    pub(crate) machine: Option<Machine>,
    pub(crate) disk: Disk,
    pub(crate) life: u32,
    pub(crate) paused_until: Mono,
    /// What happened to it while it stood still.
    deferred: Vec<Event>,
    /// How far its wall clock is off, and by how much per million milliseconds it runs wrong.
    pub(crate) wall_ms: i64,
    pub(crate) drift: i64,
    /// Where its monotonic clock began.
    pub(crate) origin: u64,
    pub(crate) armed: Mono,
    /// Whether it runs a version that does not know simulations.
    pub(crate) old: bool,
    /// How many tasks its relay takes at once; 0 where it has none.
    pub(crate) relay_slots: u32,
    /// The workers that it sponsors.
    pub(crate) sponsored: Sponsored,
    /// Until then its relay is away.
    pub(crate) relay_away: Mono,
    /// It will never come back.
    pub(crate) gone: bool,
}

impl Node {
    pub(crate) fn new(options: &Options, seat: usize, rng: &mut Rng) -> Self {
        let cores = 1 + rng.below(4);
        let mut drift = || {
            if options.faults.clock_drift > PerMille(0) { rng.below(200) } else { 0 }
        };
        let drift = i64::try_from(drift()).unwrap_or(0) - i64::try_from(drift()).unwrap_or(0);
        Self {
            id: signer(options.seed, seat).node(),
            total: Resources { cpu_milli: cores * 1_000, mem_bytes: 1 << 30 },
            machine: None,
            disk: Disk::default(),
            life: 0,
            paused_until: Mono(0),
            deferred: Vec::new(),
            wall_ms: 0,
            drift: drift * i64::from(options.faults.clock_drift.0),
            origin: 0,
            armed: Mono(0),
            old: options.faults.old_version.hits(rng),
            // The first node has a relay, so that every job can be done.
            relay_slots: u32::try_from(rng.below(4)).unwrap_or(0).max(u32::from(seat == 0)),
            relay_away: Mono(0),
            gone: false,
            sponsored: Sponsored::new(),
        }
    }

    /// What its clocks show.
    pub(crate) fn clock(&self, now: Mono) -> Now {
        let passed = i64::try_from(now.0).unwrap_or(i64::MAX);
        let wall = i64::try_from(WALL_START_MS).unwrap_or(0) + passed + self.wall_ms + passed * self.drift / 1_000_000;
        Now { mono: Mono(now.0 + self.origin), wall: Wall(u64::try_from(wall).unwrap_or(0)) }
    }
}

impl World {
    /// Starts a process of a node that is down: reads its disk, as the daemon does.
    pub(crate) fn start(&mut self, seat: Seat) {
        if self.node(seat).machine.is_some() || self.node(seat).gone {
            return;
        }
        let identity = self.identity(seat);
        let total = match self.options.sabotage {
            Sabotage::Overcommit => Resources::default().plus(&self.node(seat).total, 2),
            _ => self.node(seat).total,
        };
        let mut config = Config::new(&name_of(seat), total);
        match self.options.sabotage {
            Sabotage::NoSettle | Sabotage::AdoptsUnsettled => config.settle_ms = 0,
            Sabotage::NoHalfView | Sabotage::AdoptsAlone => config.view_percent = 0,
            Sabotage::AdoptsHastily => config.adopt_ms = 500,
            _ => {}
        }
        config.retain_ms = self.options.keep.retain_ms(self.options.sabotage);
        config.retain_jobs = self.options.keep.retain_jobs;
        (config.snapshot_bytes, config.snapshot_ms) = (self.options.keep.snapshot_bytes, self.options.keep.snapshot_ms);
        let mut recovery = Recovery::new(config, self.registry(seat), identity);
        let origin = self.origin(seat);
        let found = origin.feed(&mut recovery, &self.cluster);
        self.broken(found);
        let first = self.node(seat).disk.first_beyond(&origin);
        self.node_mut(seat).disk.hear();
        let clean = matches!(self.node(seat).disk.records().last(), Some(Record::CleanShutdown));
        for index in first..self.node(seat).disk.records().len() {
            let record = self.reread(seat, index);
            recovery.record(record);
        }
        if self.options.sabotage == Sabotage::SecondWriter {
            recovery.record(Record::CleanShutdown);
        }
        let (survivors, books) = self.processes.muster(seat, self.now);
        self.node_mut(seat).disk.journaled = survivors.iter().map(|survivor| survivor.grant).collect();
        if self.options.sabotage != Sabotage::NoMuster {
            recovery.resume(survivors, books);
        }
        let origin = self.rng.below(1_000_000);
        let now = self.now;
        let node = self.node_mut(seat);
        node.origin = origin;
        node.life += 1;
        // What would have woken its last life wakes nobody.
        node.armed = Mono(0);
        let started = node.clock(now);
        let machine = recovery.finish(started);
        let frontier = machine.frontier().clone();
        let (id, life) = (node.id, node.life);
        let runs = machine.executor().run_ids().map(|(run, grant, task)| ((grant, task), run)).collect();
        self.processes.take_up(seat, life, &runs, |grant, task| machine.told(grant, task) == *task);
        let back = self.rules.stays_retired.look(seat, machine.facts());
        self.node_mut(seat).machine = Some(machine);
        if clean {
            self.rules.one_writer.hand_over(&id, life);
            self.mark(Mark::CleanEpoch);
        }
        let found = self.rules.frontier_grows.look(seat, &frontier);
        self.broken(back.or(found));
        self.trace.mix(&[31, self.now.0, seat.0 as u64]);
        self.trace.line(self.now, || format!("{seat:?} starts, life {life}"));
        self.step(seat, Input::Tick);
        self.tell_of_relay(seat);
        self.refresh_pairs_of(seat);
    }

    fn identity(&mut self, seat: Seat) -> Identity {
        let boot = if self.options.sabotage == Sabotage::Unseeded { super::outside::draw() } else { self.rng.number() };
        Identity { signer: signer(self.options.seed, seat.0), secret: SECRET, boot }
    }

    pub(crate) fn registry(&self, seat: Seat) -> Registry {
        let mut registry = if self.node(seat).old { super::relays::old_registry() } else { Registry::built_in() };
        if self.options.sabotage == Sabotage::SkewedDelta && seat == Seat(0) {
            registry.add(Box::new(super::hostile::Skewed::default()));
        }
        if self.options.sabotage == Sabotage::ForgetsRetired && self.node(seat).life > 0 {
            registry = super::hostile::unretiring();
        }
        registry
    }

    /// A record as it comes back from the disk, sometimes through its bytes.
    fn reread(&mut self, seat: Seat, index: usize) -> Record {
        let record = self.node(seat).disk.records()[index].clone();
        match record {
            Record::Batch(batch) if self.options.as_bytes.hits(&mut self.rng) => {
                let again = SignedBatch::open_own(batch.bytes(), &self.cluster).ok();
                if again.is_none() {
                    self.broken(Some(Violation::new(16, "an own batch does not read back from disk".into())));
                }
                Record::Batch(again.unwrap_or(batch))
            }
            Record::Batch(_) | Record::Note(_) | Record::CleanShutdown => record,
        }
    }

    /// Power off, or the daemon alone: whatever it had in memory is gone.
    pub(crate) fn crash(&mut self, seat: Seat, crash: Crash) {
        if self.node(seat).machine.is_none() {
            return;
        }
        let mut rng = self.rng.clone();
        let (id, life) = (self.node(seat).id, self.node(seat).life);
        let (survivors, whole) = self.node_mut(seat).disk.crash(&mut rng);
        self.rng = rng;
        match survivors.len() {
            0 if whole > 0 => self.mark(Mark::LostWrite),
            kept if kept < whole => self.mark(Mark::TornWrite),
            _ => {}
        }
        self.on_committed(seat, life, &survivors);
        if self.options.sabotage == Sabotage::LosesDurable {
            let len = self.node(seat).disk.records().len();
            let _ = self.node_mut(seat).disk.lose(len.saturating_sub(8)..len);
        }
        self.node_mut(seat).machine = None;
        self.node_mut(seat).sponsored.clear();
        self.rules.one_gateway.on_crash(seat);
        self.rules.one_owner.on_crash(seat);
        match crash {
            Crash::Machine => self.rules.extra_starts.on_crash(&id),
            // No excuse for starting a task of the machine's own again.
            Crash::Daemon => self.processes.frail(seat).for_each(|job| self.rules.extra_starts.touch(job)),
        }
        self.memory.on_crash(seat);
        if self.clients.hang_up(seat) {
            self.mark(Mark::Unanswered);
        }
        self.processes.crash(seat, life, crash);
        self.stopping.remove(&seat);
        self.trace.mix(&[32, self.now.0, seat.0 as u64, survivors.len() as u64]);
        self.trace.line(self.now, || {
            format!("{seat:?} crashes ({crash:?}), {} records of its write survive", survivors.len())
        });
        self.refresh_pairs_of(seat);
    }

    pub(crate) fn defer(&mut self, seat: Seat, event: Event) {
        self.node_mut(seat).deferred.push(event);
    }

    /// A node that stood still goes on, with everything that it missed.
    pub(crate) fn resume(&mut self, seat: Seat) {
        if self.node(seat).paused_until <= self.now {
            for event in std::mem::take(&mut self.node_mut(seat).deferred) {
                self.after(0, event);
            }
        }
    }
}

/// What people call it.
pub(crate) fn name_of(seat: Seat) -> String {
    format!("bird{}", seat.0)
}

pub(crate) fn signer(seed: u64, number: usize) -> Signer {
    let mut rng = Rng::new(seed.rotate_left(17) ^ (number as u64) << 48 ^ 0x004b_4559);
    let mut bytes = [0; 32];
    bytes.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&rng.number().to_le_bytes()));
    Signer::from_seed(&bytes)
}
