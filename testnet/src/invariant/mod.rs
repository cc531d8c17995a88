//! The rules that every run must keep (DESIGN section 11), one file each.
//!
//! Invariants: a checker reads, it never changes what it looks at; each has a test that breaks its rule and sees it caught (`tests/broken.rs`).

pub(crate) mod any_order;
pub(crate) mod branches;
pub(crate) mod capacity;
pub(crate) mod clock_blind;
pub(crate) mod convergence;
pub(crate) mod crash_loop;
pub(crate) mod durable_first;
pub(crate) mod equal_facts;
pub(crate) mod extra_starts;
pub(crate) mod facts_contain_log;
pub(crate) mod frontier_grows;
pub(crate) mod hostile_bytes;
pub(crate) mod library;
pub(crate) mod live_only;
pub(crate) mod one_gateway;
pub(crate) mod one_owner;
pub(crate) mod one_seal;
pub(crate) mod one_start;
pub(crate) mod one_writer;
pub(crate) mod same_trace;
pub(crate) mod sealed;
pub(crate) mod stable_seals;
pub(crate) mod stays_retired;
pub(crate) mod survives;
pub(crate) mod within_caps;

use core::fmt;

use starling_core::event::SignedBatch;
use starling_core::ids::{JobId, NodeId};
use starling_core::machine::Machine;
use starling_core::time::Mono;

pub(crate) use library::Library;
pub use same_trace::look as same_trace;

use crate::sim::{Faults, Options, Seat, Starts, Watch};

/// When a rule is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// After every step.
    Step,
    /// Now and then, and fully at rest.
    Rest,
    /// Once faults have healed.
    Healed,
    /// Over whole runs.
    Run,
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its number in DESIGN section 11.
    pub number: u8,
    /// What it says.
    pub name: &'static str,
    /// When it is checked.
    pub kind: Kind,
    /// Where it comes from.
    pub source: &'static str,
}

const fn rule(number: u8, kind: Kind, name: &'static str, source: &'static str) -> Rule {
    Rule { number, name, kind, source }
}

/// All rules that the simulator checks.
pub const TABLE: [Rule; 25] = [
    rule(1, Kind::Step, "nothing leaves before it is durable", "L1"),
    rule(2, Kind::Step, "one writer per log", "L2, L3"),
    rule(3, Kind::Rest, "facts contain the fold of the frontier", "section 6"),
    rule(4, Kind::Rest, "equal frontiers, equal facts and roots", "section 6"),
    rule(5, Kind::Step, "a frontier never shrinks", "section 4"),
    rule(6, Kind::Healed, "what one node holds, all hold within 10 s", "section 5"),
    rule(7, Kind::Healed, "an acknowledged job survives the loss of all its copies but one", "section 1"),
    rule(8, Kind::Rest, "a retired job never returns", "J9"),
    rule(9, Kind::Healed, "every acknowledged job is sealed", "J8"),
    rule(10, Kind::Step, "without faults a task starts once", "section 1"),
    rule(11, Kind::Step, "extra starts are at most the suspicions and crashes that touch the job", "J6"),
    rule(12, Kind::Step, "no node runs more than it has", "J3"),
    rule(13, Kind::Step, "one seal per task and term", "J8"),
    rule(14, Kind::Rest, "a seal that was seen never changes", "section 1"),
    rule(15, Kind::Rest, "every branch of a fork is at every node, its author in a new epoch", "L6"),
    rule(16, Kind::Step, "hostile bytes are refused, hostile events inert, nothing panics", "L4, section 6"),
    rule(17, Kind::Step, "a wrong clock changes no acceptance", "L4"),
    rule(18, Kind::Step, "every buffer stays under its cap", "section 12"),
    rule(19, Kind::Rest, "the log in any order, parts of it and snapshots joined, give the same root", "section 6"),
    rule(20, Kind::Rest, "old and new versions mixed, then all new: the same facts", "section 6"),
    rule(21, Kind::Step, "one effective gateway, none in a minority", "section 8"),
    rule(22, Kind::Healed, "facts hold no retired job, and little of what was", "J9"),
    rule(23, Kind::Run, "same seed, same trace", "section 11"),
    rule(24, Kind::Healed, "a crash loop mints nothing", "L2"),
    rule(25, Kind::Step, "jobs change hands only from the silent, to one that sees half, and are in one hand", "J7"),
];

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub number: u8,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    pub(crate) fn new(number: u8, detail: String) -> Self {
        Self { number, detail }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = TABLE.iter().find(|rule| rule.number == self.number).map_or("", |rule| rule.name);
        write!(f, "invariant {} ({name}): {}", self.number, self.detail)
    }
}

/// Checkers that remember something between steps.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) library: Library,
    pub(crate) one_writer: one_writer::OneWriter,
    pub(crate) frontier_grows: frontier_grows::FrontierGrows,
    pub(crate) extra_starts: extra_starts::ExtraStarts,
    pub(crate) one_gateway: one_gateway::OneGateway,
    pub(crate) one_owner: one_owner::OneOwner,
    pub(crate) one_seal: one_seal::OneSeal,
    pub(crate) stable_seals: stable_seals::StableSeals,
    pub(crate) stays_retired: stays_retired::StaysRetired,
    pub(crate) survives: survives::Survives,
}

impl Rules {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            library: Library::default(),
            one_writer: one_writer::OneWriter::default(),
            frontier_grows: frontier_grows::FrontierGrows::new(nodes),
            extra_starts: extra_starts::ExtraStarts::default(),
            one_gateway: one_gateway::OneGateway::default(),
            one_owner: one_owner::OneOwner::default(),
            one_seal: one_seal::OneSeal::default(),
            stable_seals: stable_seals::StableSeals::default(),
            stays_retired: stays_retired::StaysRetired::default(),
            survives: survives::Survives::default(),
        }
    }

    /// A batch became durable on `node`'s disk.
    pub(crate) fn on_durable(&mut self, node: NodeId, life: u32, batch: &SignedBatch) -> Option<Violation> {
        let found = self.one_writer.look(node, life, batch);
        if !self.library.add(batch) {
            return found;
        }
        self.extra_starts.on_batch(batch);
        if self.one_writer.may_fork(&batch.header().log.node) {
            return found;
        }
        found.or_else(|| self.one_seal.look(batch))
    }

    /// A machine made a step.
    pub(crate) fn look_at_machine(
        &mut self,
        seat: Seat,
        machine: &Machine,
        mono: Mono,
        options: &Options,
    ) -> Option<Violation> {
        let caps = within_caps::look(seat, machine, options.sabotage);
        if options.watch == Watch::Loose {
            // The others remember what they saw, and now and then is not enough for that.
            return caps;
        }
        let mut found = self.frontier_grows.look(seat, machine.frontier());
        // What breaks a guard of succession breaks that of the gateway too, and sooner.
        if !options.sabotage.is_of_succession() {
            found = found.or_else(|| self.one_gateway.look(seat, machine, mono));
        }
        // One whose disk has lost its adoptions hears of old ones as if they were new.
        if !self.one_writer.may_fork(&machine.me()) {
            found = found.or_else(|| self.one_owner.look(seat, machine, mono));
        }
        found.or(caps)
    }

    /// A task was started: whether failures of its own explain all of its starts.
    pub(crate) fn look_at_starts(&self, faults: &Faults, job: JobId, task: u32, starts: Starts) -> Option<Violation> {
        // An owner that forgot what it had granted grants it again.
        if self.one_writer.may_fork(&job.log.node) {
            return None;
        }
        if faults.disturb() {
            self.extra_starts.look(job, task, &starts)
        } else {
            one_start::look(job, task, starts.extra(1))
        }
    }
}
