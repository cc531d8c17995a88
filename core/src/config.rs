//! What a node may set about the protocol.
//!
//! Does not: decide what is accepted into the log; that depends on bytes alone (DESIGN L4).

use smol_str::SmolStr;

use crate::election;
use crate::resources::Resources;
use crate::schedule::Label;

/// Settings of one Machine. Times are in milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name people see, for instance `wren`.
    pub name: SmolStr,
    /// What tasks on this node may reserve. Too high: tasks slow each other down. Too low: idle hardware. Default: what the machine has.
    pub total: Resources,
    /// The version of the program, for people. Default: none.
    pub version: SmolStr,
    /// How often presence is published. Low: traffic grows with the square of the cluster. High: deaths and free slots are noticed late. Default 1,000 (DESIGN section 5).
    pub presence_ms: u64,
    /// Silence after which a node gets no new work. Low: a hiccup idles it. High: offers to a dead node cost a round trip. Default 3 presences.
    pub suspect_ms: u64,
    /// Silence after which a node's unfinished tasks are granted again. Low: tasks run twice after a hiccup. High: tasks wait. Default 6,000.
    pub dead_ms: u64,
    /// Shortest time between two anti-entropy exchanges, give or take a quarter. Default 1,000.
    pub sync_ms: u64,
    /// The same after ten exchanges that found nothing. Default 10,000.
    pub sync_idle_ms: u64,
    /// Longest time an event waits for company before it is written, once writes carry several events. Low: more signatures and syncs. High: latency. Default 2.
    pub group_commit_ms: u64,
    /// What the node is and has, for jobs that ask for it. Default: nothing.
    pub labels: Vec<Label>,
    /// Whether the node would serve workers from outside. Default: yes.
    pub gateway: bool,
    /// How long a claim to be the gateway stands before its author acts. Low: two nodes may act for a moment. High: workers wait. Default 1,000 (DESIGN section 8).
    pub settle_ms: u64,
    /// Share of the members, in percent, that must be seen by whoever claims to be the gateway, acts as it, or takes over another node's jobs. Low: both sides of a
    /// split do so. High: fewer failures are survived. Default 50 (DESIGN sections 7 and 8).
    pub view_percent: usize,
    /// Silence after which the gateway is taken to be gone where its link is down too. Low: it moves after a hiccup. High: workers wait. Default 2,000.
    pub gateway_gone_ms: u64,
    /// How long a job is kept in Facts after its last outcome is final, before only history knows it. Low: details (attempts, spec, who was asked) are gone soon.
    /// High: memory, and bytes of every snapshot. Default 300,000 (Slurm's MinJobAge).
    pub retain_ms: u64,
    /// How many such jobs an owner keeps at most; beyond, the oldest go at once. Low and high as above. Default 10,000 (Slurm's MaxJobCount).
    pub retain_jobs: usize,
    /// Bytes of log since the last snapshot before there is another; never fewer than that one took, so that snapshots at most double what is written. Low:
    /// snapshots are written all the time. High: whoever starts or joins reads up to so much log, batch by batch. Default 16 MiB.
    pub snapshot_bytes: u64,
    /// Whether this node wants all log there is, so that it never takes a snapshot where a peer still has the log. Default false.
    pub archive: bool,
    /// Shortest time between two snapshots. Low: a busy node makes one after another. High: under load there is much more log between two. Default 60,000.
    pub snapshot_ms: u64,
    /// Silence after which another node takes over what a node owns. Low: jobs change hands, and some run twice, after a hiccup. High: a dead node's queue waits.
    /// Default 10,000 (DESIGN J7).
    pub adopt_ms: u64,
    /// An offer without an answer is repeated after this long. Default 1,000.
    pub offer_retry_ms: u64,
}

impl Config {
    /// Defaults for a node called `name` that offers `total`.
    #[must_use]
    pub fn new(name: &str, total: Resources) -> Self {
        Self {
            name: SmolStr::new(name),
            total,
            version: SmolStr::default(),
            presence_ms: 1_000,
            suspect_ms: 3_000,
            dead_ms: 6_000,
            sync_ms: 1_000,
            sync_idle_ms: 10_000,
            group_commit_ms: 2,
            labels: Vec::new(),
            gateway: true,
            settle_ms: election::SETTLE_MS,
            view_percent: 50,
            gateway_gone_ms: 2_000,
            retain_ms: 300_000,
            retain_jobs: 10_000,
            snapshot_bytes: 16 << 20,
            archive: false,
            snapshot_ms: 60_000,
            adopt_ms: 10_000,
            offer_retry_ms: 1_000,
        }
    }
}
