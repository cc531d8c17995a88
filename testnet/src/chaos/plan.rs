//! What goes wrong when: a list of faults over time, drawn from a seed.
//!
//! Invariants: the same shape gives the same plan; every fault ends before its storm does (but for a node that is lost for good), and a calm follows each
//! storm; a node has one fault of its own at a time, and there is one partition at a time; outside of bold storms the undisturbed nodes are a majority.
//! Does not: know how a fault is made (`faults` does), or read a clock.

use std::collections::BTreeSet;
use std::fmt;

use starling_core::rng::Rng;

use crate::local::PerMille;

/// A storm and its calm, about; the storm takes three fifths.
const ROUND_MS: u64 = 50_000;
/// The first storm waits for the first jobs.
const LEAD_MS: u64 = 2_000;
/// A fault that would be cut shorter than this is left out.
const SHORTEST_MS: u64 = 800;
/// Between the beginnings of two faults, at least and at most.
const GAP_MS: (u64, u64) = (1_500, 4_500);
/// One storm in so many may leave no majority undisturbed.
const BOLD_ONE_IN: u64 = 4;
/// Draws before a moment stays without a new fault.
const TRIES: usize = 8;
/// An owner that hears nothing from an executor for so long grants its tasks again (`Config::dead_ms`).
const DEAD_MS: u64 = 6_000;

/// What can be done to nodes here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tools {
    /// Nodes are on hosts of their own, whose network can be disturbed.
    pub(super) network: bool,
    /// Data directories are on small file systems of their own.
    pub(super) small_disks: bool,
    /// Wall clocks can be set.
    pub(super) clocks: bool,
}

/// What a plan is drawn for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) length_ms: u64,
    pub(super) tools: Tools,
    /// Whether a node is killed for good on the way.
    pub(super) loses_one: bool,
}

/// Which way a partition cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Neither side hears the other.
    Both,
    /// The named side is not heard.
    Out,
    /// The named side does not hear.
    In,
}

/// What goes wrong. Nodes are numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// These nodes are parted from the others.
    Partition { side: BTreeSet<usize>, way: Way },
    /// A node loses this share of all packets, both ways.
    Loss { node: usize, loss: PerMille },
    /// A node's link goes down and up again and again.
    Flap { node: usize },
    /// `kill -9`; at the end it is started again.
    Kill { node: usize },
    /// `SIGSTOP`, and `SIGCONT` at the end.
    Pause { node: usize },
    /// No room for another page.
    FullDisk { node: usize },
    /// The wall clock is off by so many seconds.
    Clock { node: usize, by_s: i64 },
    /// `kill -9` for good.
    Gone { node: usize },
}

/// One fault, in milliseconds since the start of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
}

/// Faults by their beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) faults: Vec<Fault>,
    /// When each calm begins: all faults before it have ended.
    pub(super) calms_ms: Vec<u64>,
    pub(super) length_ms: u64,
}

/// Kinds without their particulars.
#[derive(Clone, Copy, Debug)]
enum Sort {
    Partition,
    Loss,
    Flap,
    Kill,
    Pause,
    FullDisk,
    Clock,
}

impl Tools {
    fn sorts(self) -> Vec<Sort> {
        let mut sorts = vec![Sort::Kill, Sort::Pause];
        if self.network {
            // Partitions are what a cluster without head node is for.
            sorts.extend([Sort::Partition, Sort::Partition, Sort::Loss, Sort::Flap]);
        }
        if self.small_disks {
            sorts.push(Sort::FullDisk);
        }
        if self.clocks {
            sorts.push(Sort::Clock);
        }
        sorts
    }
}

impl Kind {
    /// The word for the table.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Partition { way: Way::Both, .. } => "partition",
            Self::Partition { way: Way::Out | Way::In, .. } => "one-way partition",
            Self::Loss { .. } => "loss",
            Self::Flap { .. } => "link flap",
            Self::Kill { .. } => "kill -9",
            Self::Pause { .. } => "pause",
            Self::FullDisk { .. } => "full disk",
            Self::Clock { .. } => "clock step",
            Self::Gone { .. } => "lost for good",
        }
    }

    /// The node that alone has it; `None` of a partition.
    pub(super) fn node(&self) -> Option<usize> {
        match self {
            Self::Partition { .. } => None,
            Self::Loss { node, .. }
            | Self::Flap { node }
            | Self::Kill { node }
            | Self::Pause { node }
            | Self::FullDisk { node }
            | Self::Clock { node, .. }
            | Self::Gone { node } => Some(*node),
        }
    }

    /// Nodes that cannot do their part meanwhile.
    fn disturbs(&self) -> BTreeSet<usize> {
        match self {
            Self::Partition { side, .. } => side.clone(),
            Self::Loss { .. } | Self::Clock { .. } => BTreeSet::new(),
            Self::Flap { node }
            | Self::Kill { node }
            | Self::Pause { node }
            | Self::FullDisk { node }
            | Self::Gone { node } => [*node].into(),
        }
    }

    /// Whether it may make one of these two doubt the other, or lose what it does for it.
    pub(super) fn comes_between(&self, one: usize, other: usize) -> bool {
        match self {
            Self::Partition { side, .. } => side.contains(&one) != side.contains(&other),
            Self::Loss { node, .. }
            | Self::Flap { node }
            | Self::Kill { node }
            | Self::Pause { node }
            | Self::FullDisk { node }
            | Self::Clock { node, .. }
            | Self::Gone { node } => [one, other].contains(node),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition { side, way } => {
                let side: Vec<String> = side.iter().map(ToString::to_string).collect();
                let how = match way {
                    Way::Both => "parted from the others",
                    Way::Out => "not heard by the others",
                    Way::In => "deaf to the others",
                };
                write!(out, "{}: {how}", side.join(" "))
            }
            Self::Loss { node, loss } => write!(out, "{node}: loses {} % of its packets", loss / 10),
            Self::Flap { node } => write!(out, "{node}: its link flaps"),
            Self::Kill { node } => write!(out, "{node}: kill -9, then started again"),
            Self::Pause { node } => write!(out, "{node}: stands still"),
            Self::FullDisk { node } => write!(out, "{node}: its disk is full"),
            Self::Clock { node, by_s } => write!(out, "{node}: its clock is off by {by_s} s"),
            Self::Gone { node } => write!(out, "{node}: kill -9 for good"),
        }
    }
}

impl Fault {
    /// How often it may make an owner doubt one executor.
    pub(super) fn doubts(&self) -> u32 {
        match self.kind {
            Kind::Loss { .. } | Kind::Flap { .. } => {
                let spells = self.end_ms.saturating_sub(self.start_ms) / DEAD_MS;
                u32::try_from(spells).unwrap_or(u32::MAX).saturating_add(1)
            }
            Kind::Partition { .. }
            | Kind::Kill { .. }
            | Kind::Pause { .. }
            | Kind::FullDisk { .. }
            | Kind::Clock { .. }
            | Kind::Gone { .. } => 1,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start_ms < other.end_ms && other.start_ms < self.end_ms
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: u64| ms as f64 / 1_000.0;
        write!(out, "{:6.1} s  {:5.1} s  ", seconds(self.start_ms), seconds(self.end_ms - self.start_ms))?;
        write!(out, "{:<18} {}", self.kind.word(), self.kind)
    }
}

impl Plan {
    /// Draws it.
    pub(super) fn draw(shape: &Shape) -> Self {
        let mut rng = Rng::new(shape.seed);
        let rounds = (shape.length_ms / ROUND_MS).max(1);
        let round_ms = shape.length_ms / rounds;
        let mut plan = Self { faults: Vec::new(), calms_ms: Vec::new(), length_ms: shape.length_ms };
        if shape.loses_one {
            let node = pick(&mut rng, shape.nodes);
            let start_ms = shape.length_ms / 2 + rng.below(shape.length_ms / 8);
            plan.faults.push(Fault { kind: Kind::Gone { node }, start_ms, end_ms: shape.length_ms });
        }
        let mut bag = Vec::new();
        for round in 0..rounds {
            let start_ms = round * round_ms + LEAD_MS;
            let end_ms = round * round_ms + round_ms * 3 / 5;
            let bold = rng.below(BOLD_ONE_IN) == 0;
            plan.storm(shape, &mut rng, &mut bag, Storm { start_ms, end_ms, bold });
            plan.calms_ms.push(end_ms);
        }
        plan.faults.sort_by_key(|fault| fault.start_ms);
        plan
    }

    fn storm(&mut self, shape: &Shape, rng: &mut Rng, bag: &mut Vec<Sort>, storm: Storm) {
        let mut at = storm.start_ms + rng.below(GAP_MS.0);
        while at + SHORTEST_MS <= storm.end_ms {
            for _ in 0..TRIES {
                if bag.is_empty() {
                    // Each sort has its turn before any comes again.
                    *bag = shape.tools.sorts();
                }
                let place = index(rng, bag.len());
                let mut fault = drawn(rng, bag[place], shape.nodes, at);
                fault.end_ms = fault.end_ms.min(storm.end_ms);
                if self.admits(shape, &fault, storm.bold) {
                    bag.swap_remove(place);
                    self.faults.push(fault);
                    break;
                }
            }
            at += GAP_MS.0 + rng.below(GAP_MS.1 - GAP_MS.0);
        }
    }

    fn admits(&self, shape: &Shape, fault: &Fault, bold: bool) -> bool {
        let mut disturbed = fault.kind.disturbs();
        for other in self.faults.iter().filter(|other| other.overlaps(fault)) {
            // Two partitions have no node, so they meet here as two faults of one node do.
            if other.kind.node() == fault.kind.node() {
                return false;
            }
            disturbed.extend(other.kind.disturbs());
        }
        let most = if bold { shape.nodes - 1 } else { ((shape.nodes - 1) / 2).max(1) };
        disturbed.len() <= most
    }
}

struct Storm {
    start_ms: u64,
    end_ms: u64,
    bold: bool,
}

fn index(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).unwrap_or(0)
}

fn pick(rng: &mut Rng, nodes: usize) -> usize {
    index(rng, nodes) + 1
}

fn between(rng: &mut Rng, least: u64, most: u64) -> u64 {
    least + rng.below(most - least + 1)
}

fn drawn(rng: &mut Rng, sort: Sort, nodes: usize, start_ms: u64) -> Fault {
    let node = pick(rng, nodes);
    let (kind, lasts_ms) = match sort {
        Sort::Partition => (partition(rng, nodes), between(rng, 3_000, 20_000)),
        Sort::Loss => {
            let loss = u32::try_from(between(rng, 5, 50)).unwrap_or(5) * 10;
            (Kind::Loss { node, loss }, between(rng, 4_000, 15_000))
        }
        Sort::Flap => (Kind::Flap { node }, between(rng, 3_000, 8_000)),
        Sort::Kill => (Kind::Kill { node }, between(rng, 1_000, 12_000)),
        Sort::Pause => (Kind::Pause { node }, between(rng, 1_000, 20_000)),
        Sort::FullDisk => (Kind::FullDisk { node }, between(rng, 3_000, 12_000)),
        Sort::Clock => {
            let by_s = i64::try_from(between(rng, 1, 7_200)).unwrap_or(1) - 3_600;
            (Kind::Clock { node, by_s }, between(rng, 4_000, 15_000))
        }
    };
    Fault { kind, start_ms, end_ms: start_ms + lasts_ms }
}

/// The smaller side of a random cut.
fn partition(rng: &mut Rng, nodes: usize) -> Kind {
    let size = index(rng, (nodes / 2).max(1)) + 1;
    let mut side = BTreeSet::new();
    while side.len() < size {
        side.insert(pick(rng, nodes));
    }
    let way = match rng.below(4) {
        0 => Way::Out,
        1 => Way::In,
        _ => Way::Both,
    };
    Kind::Partition { side, way }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Tools = Tools { network: true, small_disks: true, clocks: true };

    fn shape(seed: u64) -> Shape {
        Shape { seed, nodes: 5, length_ms: 600_000, tools: ALL, loses_one: false }
    }

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(Plan::draw(&shape(7)), Plan::draw(&shape(7)));
        assert_ne!(Plan::draw(&shape(7)).faults, Plan::draw(&shape(8)).faults);
    }

    #[test]
    fn every_sort_occurs_within_two_minutes() {
        for seed in 0..100 {
            let plan = Plan::draw(&Shape { length_ms: 120_000, ..shape(seed) });
            let words: BTreeSet<&str> = plan.faults.iter().map(|fault| fault.kind.word()).collect();
            for word in ["loss", "link flap", "kill -9", "pause", "full disk", "clock step"] {
                assert!(words.contains(word), "seed {seed} has no {word}: {words:?}");
            }
            assert!(words.iter().any(|word| word.ends_with("partition")), "seed {seed}");
        }
    }

    #[test]
    fn storms_end_before_their_calms() {
        for seed in 0..100 {
            let plan = Plan::draw(&shape(seed));
            assert_eq!(plan.calms_ms.len(), 12);
            for calm in &plan.calms_ms {
                let meets = |fault: &&Fault| fault.start_ms < calm + 19_000 && fault.end_ms > *calm;
                assert_eq!(plan.faults.iter().find(meets), None, "seed {seed}, calm at {calm} ms");
            }
            assert!(plan.faults.iter().all(|fault| fault.start_ms + SHORTEST_MS <= fault.end_ms));
        }
    }

    #[test]
    fn a_node_has_one_fault_at_a_time_and_not_all_have_one() {
        let mut minorities = 0;
        for seed in 0..100 {
            let plan = Plan::draw(&shape(seed));
            for fault in &plan.faults {
                let at_its_start = |other: &&Fault| other.start_ms <= fault.start_ms && fault.start_ms < other.end_ms;
                let now: Vec<&Fault> = plan.faults.iter().filter(at_its_start).collect();
                let nodes: BTreeSet<Option<usize>> = now.iter().map(|fault| fault.kind.node()).collect();
                assert_eq!(nodes.len(), now.len(), "seed {seed}: {now:?}");
                let disturbed: BTreeSet<usize> = now.iter().flat_map(|fault| fault.kind.disturbs()).collect();
                assert!(disturbed.len() < 5, "seed {seed}: {now:?}");
                minorities += usize::from(disturbed.len() > 2);
            }
        }
        assert!(minorities > 0, "no seed left a minority");
    }

    #[test]
    fn without_tools_only_processes_are_hurt() {
        let plan = Plan::draw(&Shape { tools: Tools::default(), ..shape(3) });
        assert!(plan.faults.len() > 20);
        assert!(plan.faults.iter().all(|fault| matches!(fault.kind, Kind::Kill { .. } | Kind::Pause { .. })));
    }

    #[test]
    fn a_node_lost_for_good_has_no_later_faults() {
        for seed in 0..100 {
            let plan = Plan::draw(&Shape { loses_one: true, ..shape(seed) });
            let gone = plan.faults.iter().find(|fault| matches!(fault.kind, Kind::Gone { .. })).unwrap();
            let later = |fault: &&Fault| *fault != gone && fault.kind.node() == gone.kind.node();
            assert!(plan.faults.iter().filter(later).all(|fault| fault.end_ms <= gone.start_ms), "seed {seed}");
        }
    }

    #[test]
    fn a_partition_comes_between_its_sides_only() {
        let cut = Kind::Partition { side: [1, 2].into(), way: Way::In };
        assert!(cut.comes_between(1, 3));
        assert!(!cut.comes_between(1, 2));
        assert!(!cut.comes_between(3, 4));
        assert!(Kind::Kill { node: 2 }.comes_between(2, 2));
        assert!(!Kind::Kill { node: 2 }.comes_between(1, 3));
    }
}
