//! One executor's words about one grant: what started, what ended and how, what it used, and what its namespace's rules made of it.
//!
//! Invariants: a lattice in every part. Whether the words count is the grant's to say (`Grant::run`).

use minicbor::{Decode, Encode};
use smol_str::SmolStr;

use super::job::Outcome;
use super::state::State;
use crate::ids::WorkerName;
use crate::lattice::{Change, IntervalSet, Lattice, Max, Min, VecMap};
use crate::time::Hlc;

/// What the tasks of a grant used so far, added up by their executor. Totals only grow, so the greatest is the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Usage {
    /// CPU time in user mode, milliseconds, all tasks together.
    #[n(0)]
    pub cpu_user_ms: u64,
    /// CPU time in the kernel, milliseconds, all tasks together.
    #[n(1)]
    pub cpu_sys_ms: u64,
    /// From start to end, milliseconds, all tasks together.
    #[n(2)]
    pub wall_ms: u64,
    /// Highest resident size of any one task, bytes; 0 if none was measured.
    #[n(3)]
    pub max_rss_bytes: u64,
}

impl Usage {
    /// Adds what one more task used.
    #[must_use]
    pub fn plus(&self, task: &Self) -> Self {
        Self {
            cpu_user_ms: self.cpu_user_ms.saturating_add(task.cpu_user_ms),
            cpu_sys_ms: self.cpu_sys_ms.saturating_add(task.cpu_sys_ms),
            wall_ms: self.wall_ms.saturating_add(task.wall_ms),
            max_rss_bytes: self.max_rss_bytes.max(task.max_rss_bytes),
        }
    }
}

impl Lattice for Usage {
    fn join(&mut self, other: Self) -> Change {
        let both = Self {
            cpu_user_ms: self.cpu_user_ms.max(other.cpu_user_ms),
            cpu_sys_ms: self.cpu_sys_ms.max(other.cpu_sys_ms),
            wall_ms: self.wall_ms.max(other.wall_ms),
            max_rss_bytes: self.max_rss_bytes.max(other.max_rss_bytes),
        };
        let grew = both != *self;
        *self = both;
        Change::from(grew)
    }
}

/// Where a task's environment listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Port {
    /// The TCP port.
    #[n(0)]
    pub port: u16,
    /// The host, as the policy was told.
    #[cbor(n(1), with = "crate::facts::text")]
    pub host: SmolStr,
}

/// What only some executors' reports have.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Extra {
    /// What was used.
    #[n(0)]
    pub usage: Usage,
    /// Ports by task (`simulation`).
    #[n(1)]
    pub ports: VecMap<u32, Max<Port>>,
    /// What the rules of a declared namespace made of its events.
    #[n(2)]
    pub state: State,
    /// Which of the gateway's workers started which tasks; empty for tasks that the executor ran itself.
    #[n(3)]
    pub workers: Option<Box<VecMap<WorkerName, IntervalSet>>>,
}

impl Lattice for Extra {
    fn join(&mut self, other: Self) -> Change {
        let parts = self.usage.join(other.usage).or(self.ports.join(other.ports)).or(self.state.join(other.state));
        parts.or(self.workers.join(other.workers))
    }
}

/// One executor's words about one grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Run {
    /// Tasks it started.
    #[n(0)]
    pub started: IntervalSet,
    /// Tasks that ended, by outcome.
    #[n(1)]
    pub ended: VecMap<Outcome, IntervalSet>,
    /// The first start.
    #[n(2)]
    pub first_start: Min<Hlc>,
    /// The last end.
    #[n(3)]
    pub last_end: Max<Hlc>,
    /// Whatever else it says; mostly nothing, and runs are many.
    #[n(4)]
    pub extra: Option<Box<Extra>>,
}

impl Run {
    /// Adds words of the rarer kinds.
    #[must_use]
    pub fn with(mut self, extra: Extra) -> Self {
        self.extra = (extra != Extra::default()).then(|| Box::new(extra));
        self
    }

    /// What it used, if it said.
    #[must_use]
    pub fn usage(&self) -> Option<&Usage> {
        self.extra.as_ref().map(|extra| &extra.usage).filter(|usage| **usage != Usage::default())
    }

    /// Where a task's environment listened, if it said.
    #[must_use]
    pub fn port(&self, task: u32) -> Option<&Port> {
        self.extra.as_ref()?.ports.lookup(&task)?.0.as_ref()
    }

    /// The worker that started a task, if one did.
    #[must_use]
    pub fn worker(&self, task: u32) -> Option<&WorkerName> {
        let workers = self.extra.as_ref()?.workers.as_ref()?;
        workers.iter().find(|(_, tasks)| tasks.contains(task)).map(|(worker, _)| worker)
    }

    /// What the rules of its namespace made of its words.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.extra.as_ref().map(|extra| &extra.state).filter(|state| !state.is_empty())
    }

    /// Tasks that ended, however.
    #[must_use]
    pub fn all_ended(&self) -> IntervalSet {
        let mut all = IntervalSet::new();
        for tasks in self.ended.values() {
            let _ = all.union_with(tasks);
        }
        all
    }
}

impl Lattice for Run {
    fn join(&mut self, other: Self) -> Change {
        let parts = self.started.join(other.started).or(self.ended.join(other.ended));
        let parts = parts.or(self.first_start.join(other.first_start)).or(self.last_end.join(other.last_end));
        parts.or(self.extra.join(other.extra))
    }
}
