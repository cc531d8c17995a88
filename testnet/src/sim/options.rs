//! What one run does: how many nodes, which faults and how many of them, all drawn from the seed.
//!
//! Source: swarm testing (Groce et al., 2012): each fault is on or off per seed, so that rare mixes occur and no fault always masks another.

use starling_core::rng::Rng;

/// A chance in a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMille(pub u32);

impl PerMille {
    /// Draws.
    pub fn hits(self, rng: &mut Rng) -> bool {
        self.0 > 0 && rng.below(1_000) < u64::from(self.0)
    }
}

/// How often something happens on average; `None` is never.
pub type EveryMs = Option<u64>;

/// Faults of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Packets that vanish.
    pub loss: PerMille,
    /// Packets that come twice.
    pub duplicate: PerMille,
    /// Packets that are held back for up to a second.
    pub reorder: PerMille,
    /// Packets that travel with flipped bits (gossip only; streams have a transport that notices).
    pub corrupt: PerMille,
    /// Crashes at any time.
    pub crash: EveryMs,
    /// Crashes of the daemon alone, whose tasks go on.
    pub daemon_crash: EveryMs,
    /// Writes around which the node crashes: before, torn in the middle, or after, with a part of what follows done.
    pub crash_at_write: PerMille,
    /// Stops by intention.
    pub clean_stop: EveryMs,
    /// Partitions: symmetric, one-way, flapping.
    pub partition: EveryMs,
    /// Nodes that stand still for a while.
    pub pause: EveryMs,
    /// Disks that refuse writes for a while.
    pub full_disk: EveryMs,
    /// Slow disks, milliseconds at most per write.
    pub disk_ms_max: u64,
    /// Wall clocks that step by up to an hour.
    pub clock_step: EveryMs,
    /// Wall clocks that run wrong.
    pub clock_drift: PerMille,
    /// Hostile bytes and hostile members.
    pub hostile: EveryMs,
    /// Batches of the hostile member that contradict what it signed before.
    pub fork: PerMille,
    /// One node is lost for ever, with its disk, at some moment before this.
    pub gone: EveryMs,
    /// Copies of a node's data directory that run elsewhere for a while.
    pub twin: EveryMs,
    /// Crashes that take the end of the disk along: a restored backup, or writes that were confirmed and never made.
    pub rollback: EveryMs,
    /// Crashes after which one record on the disk cannot be read.
    pub rot: EveryMs,
    /// Longest ordinary delay of a packet.
    pub delay_ms_max: u64,
    /// Relays that go away and come back.
    pub relay_loss: EveryMs,
    /// Workers from outside that go away and come back.
    pub worker_loss: EveryMs,
    /// Nodes that run an older version until everything heals.
    pub old_version: PerMille,
}

impl Faults {
    /// A quiet local network.
    pub const NONE: Self = Self {
        loss: PerMille(0),
        duplicate: PerMille(0),
        reorder: PerMille(0),
        corrupt: PerMille(0),
        crash: None,
        daemon_crash: None,
        crash_at_write: PerMille(0),
        clean_stop: None,
        partition: None,
        pause: None,
        full_disk: None,
        disk_ms_max: 3,
        clock_step: None,
        clock_drift: PerMille(0),
        hostile: None,
        fork: PerMille(0),
        gone: None,
        twin: None,
        rollback: None,
        rot: None,
        delay_ms_max: 3,
        relay_loss: None,
        worker_loss: None,
        old_version: PerMille(0),
    };

    /// Whether anything can go wrong that may cost a second start.
    #[must_use]
    pub fn disturb(&self) -> bool {
        let quiet = Self {
            disk_ms_max: self.disk_ms_max,
            delay_ms_max: self.delay_ms_max,
            hostile: self.hostile,
            fork: self.fork,
            ..Self::NONE
        };
        let quiet = Self { corrupt: self.corrupt, clock_step: self.clock_step, clock_drift: self.clock_drift, ..quiet };
        *self != quiet
    }

    fn draw(rng: &mut Rng) -> Self {
        let mut rate =
            |most: u64| PerMille(if rng.below(2) == 0 { 0 } else { u32::try_from(1 + rng.below(most)).unwrap_or(0) });
        let (loss, duplicate, reorder, corrupt) = (rate(200), rate(200), rate(200), rate(50));
        let (crash_at_write, clock_drift) = (rate(20), rate(100));
        let mut every = |least: u64, spread: u64| (rng.below(2) == 0).then(|| least + rng.below(spread));
        Self {
            loss,
            duplicate,
            reorder,
            corrupt,
            crash: every(2_000, 10_000),
            daemon_crash: None,
            crash_at_write,
            clean_stop: every(5_000, 20_000),
            partition: every(3_000, 10_000),
            pause: every(3_000, 10_000),
            full_disk: every(4_000, 10_000),
            disk_ms_max: if every(0, 1).is_some() { 100 } else { 5 },
            clock_step: every(3_000, 10_000),
            clock_drift,
            hostile: every(300, 2_000),
            delay_ms_max: if every(0, 1).is_some() { 100 } else { 5 },
            relay_loss: every(3_000, 10_000),
            old_version: PerMille(if every(0, 1).is_some() { 400 } else { 0 }),
            worker_loss: every(1_000, 6_000),
            fork: PerMille(if every(0, 1).is_some() { 200 } else { 0 }),
            gone: None,
            twin: None,
            rollback: every(5_000, 30_000),
            rot: every(5_000, 30_000),
        }
    }
}

/// A rule broken on purpose, to prove that its checker sees it. Never drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// Everything honest.
    #[default]
    None,
    /// Disks confirm writes before they are durable.
    EarlyDurable,
    /// After a crash a node believes that it had stopped cleanly, and goes on in the old epoch.
    SecondWriter,
    /// One node folds an event to something else than the others.
    SkewedDelta,
    /// A crash takes durable records along.
    LosesDurable,
    /// Disks serve one branch of a fork only.
    NoBranches,
    /// Nodes say that they hold what they have only heard.
    HollowHave,
    /// Answers to pulls never arrive.
    NoPulls,
    /// Processes end, and nobody is told.
    SilentEnds,
    /// Every tenth process is started twice.
    DoubleStart,
    /// Nodes offer twice what they have.
    Overcommit,
    /// A member seals its task twice, with the same outcome.
    SealsTwice,
    /// A member seals its task again, with another outcome.
    ChangesSeal,
    /// Gossip is taken in without checking signatures.
    OpensUnsigned,
    /// The caps are a thousandth of what the protocol says.
    TightCaps,
    /// A start of a process draws from outside the seed.
    Unseeded,
    /// Somebody submits in the middle of the crash loop.
    WorkInCrashLoop,
    /// The log is replayed by an older version than the one that folded it.
    OldReplay,
    /// Old versions are never upgraded.
    NoUpgrade,
    /// A starting node does not look for tasks that run on.
    NoMuster,
    /// A claim to be the gateway acts at once.
    NoSettle,
    /// Nodes pass on what any gateway says, superseded or not.
    NoFence,
    /// A gateway needs to see nobody but itself.
    NoHalfView,
    /// After a crash a node reads its log as if nothing had ever been retired.
    ForgetsRetired,
    /// The log is replayed without the snapshots that took the place of its beginning.
    ReplaysLogAlone,
    /// Nodes retire nothing, although they should.
    NeverRetires,
    /// Whoever takes over jobs needs to see nobody but itself.
    AdoptsAlone,
    /// Nodes take over the jobs of an owner that was silent for a moment.
    AdoptsHastily,
    /// Whoever takes over jobs acts at once.
    AdoptsUnsettled,
    /// Owners never hear that others took over from them.
    DeafOwner,
    /// Nodes with a wrong clock refuse batches that seem to be of another time.
    ClockedIntake,
}

/// What nodes keep, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How long a sealed job is kept; `None` is for ever.
    pub retain_ms: Option<u64>,
    /// How many of them.
    pub retain_jobs: usize,
    /// Bytes of log between two snapshots.
    pub snapshot_bytes: u64,
    /// Time between two snapshots.
    pub snapshot_ms: u64,
}

impl Keep {
    /// Nothing ever goes.
    pub const ALL: Self =
        Self { retain_ms: None, retain_jobs: usize::MAX, snapshot_bytes: u64::MAX, snapshot_ms: u64::MAX };
    /// Hardly anything stays.
    pub const LITTLE: Self = Self { retain_ms: Some(1_500), retain_jobs: 3, snapshot_bytes: 3_000, snapshot_ms: 1_000 };

    /// Retirement, snapshots, both or neither.
    fn draw(rng: &mut Rng) -> Self {
        let (retires, snapshots) = (rng.below(3) > 0, rng.below(3) > 0);
        let mut keep = Self::ALL;
        if retires {
            keep.retain_ms = Some(500 + rng.below(6_000));
            keep.retain_jobs = if rng.below(2) == 0 { 3 } else { usize::MAX };
        }
        if snapshots {
            (keep.snapshot_bytes, keep.snapshot_ms) = (1_000 + rng.below(20_000), 200 + rng.below(6_000));
        }
        keep
    }

    pub(crate) fn retain_ms(&self, sabotage: Sabotage) -> u64 {
        let never = sabotage == Sabotage::NeverRetires;
        self.retain_ms.filter(|_| !never).unwrap_or(u64::MAX)
    }
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::None,
        Self::EarlyDurable,
        Self::SecondWriter,
        Self::SkewedDelta,
        Self::LosesDurable,
        Self::NoBranches,
        Self::HollowHave,
        Self::NoPulls,
        Self::SilentEnds,
        Self::DoubleStart,
        Self::Overcommit,
        Self::SealsTwice,
        Self::ChangesSeal,
        Self::OpensUnsigned,
        Self::TightCaps,
        Self::Unseeded,
        Self::WorkInCrashLoop,
        Self::OldReplay,
        Self::NoUpgrade,
        Self::NoSettle,
        Self::NoFence,
        Self::NoHalfView,
        Self::AdoptsAlone,
        Self::AdoptsHastily,
        Self::AdoptsUnsettled,
        Self::DeafOwner,
        Self::ClockedIntake,
        Self::ForgetsRetired,
        Self::NeverRetires,
        Self::NoMuster,
        Self::ReplaysLogAlone,
    ];

    /// Whether it breaks a guard of succession.
    #[must_use]
    pub fn is_of_succession(self) -> bool {
        matches!(self, Self::AdoptsAlone | Self::AdoptsHastily | Self::AdoptsUnsettled | Self::DeafOwner)
    }
}

/// How a batch comes to other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spreading {
    /// From its author to everybody: what gossip does at its best, and most often in small clusters.
    Direct,
    /// Along a mesh: see `mesh`.
    Mesh,
}

/// How closely a run is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Everything after every step; costly comparisons now and then, and at rest.
    Close,
    /// What one Machine can check of itself, now and then: for measuring speed.
    Loose,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything else follows from it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// How long faults happen and work is submitted.
    pub safety_ms: u64,
    /// Mean time between two submissions.
    pub submit_every_ms: u64,
    /// How many workers from outside.
    pub workers: usize,
    /// Tasks of the largest array.
    pub tasks_max: u32,
    /// Which faults.
    pub faults: Faults,
    /// What nodes keep.
    pub keep: Keep,
    /// Share of packets that travel as bytes, to exercise the codec.
    pub as_bytes: PerMille,
    /// A rule broken on purpose.
    pub sabotage: Sabotage,
    /// How batches spread.
    pub spread: Spreading,
    /// How closely it is watched.
    pub watch: Watch,
    /// Lines of trace to keep for a failure.
    pub lines: usize,
}

impl Options {
    /// Draws a run from its seed. One seed in eight is free of faults.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5357_4152_4d00_0001);
        let nodes = 2 + usize::try_from(rng.below(6)).unwrap_or(0);
        let mut faults = if seed.is_multiple_of(8) { Faults::NONE } else { Faults::draw(&mut rng) };
        // From a source of its own, so that what older seeds draw stays as it was.
        let mut more = Rng::new(seed ^ 0x4441_454d_4f4e_0001);
        if faults != Faults::NONE && more.below(2) == 0 {
            faults.daemon_crash = Some(1_500 + more.below(6_000));
        }
        let mut gone = Rng::new(seed ^ 0x474f_4e45_0000_0001);
        if faults != Faults::NONE && gone.below(4) == 0 {
            faults.gone = Some(5_000 + gone.below(25_000));
        }
        let mut twin = Rng::new(seed ^ 0x5457_494e_0000_0001);
        if faults != Faults::NONE && twin.below(6) == 0 {
            faults.twin = Some(5_000 + twin.below(20_000));
        }
        Self {
            seed,
            nodes,
            safety_ms: 30_000,
            submit_every_ms: 300 + rng.below(1_500),
            workers: usize::try_from(rng.below(4)).unwrap_or(0),
            tasks_max: 31,
            faults,
            keep: Keep::draw(&mut Rng::new(seed ^ 0x4b45_4550_0000_0001)),
            as_bytes: PerMille(30),
            sabotage: Sabotage::None,
            spread: Spreading::Direct,
            watch: Watch::Close,
            lines: 0,
        }
    }

    /// Draws a run in which gateways are lost in every way, with workers that attach to them.
    #[must_use]
    pub fn elections(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x454c_4543_5400_0001);
        let drawn = Self::draw(seed | 1);
        let mut every = |least: u64, spread: u64| Some(least + rng.below(spread));
        let faults = Faults {
            partition: every(2_000, 6_000),
            pause: every(2_000, 6_000),
            crash: every(3_000, 10_000),
            clean_stop: every(5_000, 20_000),
            worker_loss: every(1_000, 6_000),
            ..drawn.faults
        };
        Self { seed, workers: drawn.workers.max(1), faults, ..drawn }
    }

    /// Many nodes and a mesh that loses one packet in a hundred: how fast does news spread?
    #[must_use]
    pub fn mesh(seed: u64, nodes: usize) -> Self {
        let faults = Faults { loss: PerMille(10), delay_ms_max: 10, ..Faults::NONE };
        Self { seed, submit_every_ms: 250, faults, spread: Spreading::Mesh, ..Self::speed(nodes) }
    }

    /// Many nodes in peace: how fast is the simulator?
    #[must_use]
    pub fn speed(nodes: usize) -> Self {
        Self {
            nodes,
            safety_ms: 60_000,
            submit_every_ms: 1_000,
            workers: 0,
            tasks_max: 1,
            faults: Faults::NONE,
            keep: Keep::ALL,
            as_bytes: PerMille(0),
            watch: Watch::Loose,
            ..Self::draw(0)
        }
    }
}
