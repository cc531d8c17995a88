//! Pools: workers from outside, which the gateway sponsors and gives tasks to.
//!
//! Invariants: workers that are alike make one pool, named by what they have in common, so that presence and grants stay small whatever their number;
//! which worker takes a task is decided when the task starts, by the gateway alone.
//! Does not: speak to workers (`node` does).

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use smol_str::SmolStr;

use crate::ids::{PoolName, WorkerName};
use crate::resources::Resources;

/// A label: `docker`, or with a value, `gpu=2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Label(#[cbor(with = "crate::facts::text")] pub SmolStr);

impl Label {
    /// Reads what people write: 1 to `limits::LABEL_TEXT_BYTES_MAX` letters, digits and signs of `-_.=/:`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=/:".contains(&byte);
        let most = crate::limits::LABEL_TEXT_BYTES_MAX;
        if text.is_empty() || text.len() > most || !text.bytes().all(plain) {
            return Err(format!("expected a label: 1 to {most} letters, digits and signs of -_.=/:"));
        }
        Ok(Self(SmolStr::new(text)))
    }

    /// Whether this label is what `wanted` asks for: the same, or its key where only a key is asked for.
    #[must_use]
    pub fn satisfies(&self, wanted: &str) -> bool {
        self.0 == wanted || self.0.split_once('=').is_some_and(|(key, _)| key == wanted)
    }
}

/// Whether every label that is wanted is there.
pub(super) fn all_there(labels: &[Label], wanted: &[SmolStr]) -> bool {
    wanted.iter().all(|wanted| labels.iter().any(|label| label.satisfies(wanted)))
}

/// A worker that the gateway sponsors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// The name it gave itself.
    pub id: WorkerName,
    /// What it is and has, sorted.
    pub labels: Vec<Label>,
    /// How many tasks it takes at once.
    pub slots: u32,
    /// What one of these tasks may need.
    pub room: Resources,
    /// Whether it can be given tasks now; if not, it keeps those that it has until its lease is over.
    pub attached: bool,
}

impl Worker {
    /// The name of its pool.
    #[must_use]
    pub fn pool(&self) -> PoolName {
        let labels: Vec<&str> = self.labels.iter().map(|label| label.0.as_str()).collect();
        let Resources { cpu_milli, mem_bytes } = self.room;
        let memory = if mem_bytes == u64::MAX { String::new() } else { format!(";{mem_bytes}B") };
        PoolName(SmolStr::new(format!("{};{cpu_milli}m{memory}", labels.join(","))))
    }
}

/// A pool, as its gateway tells of it in presence.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pool {
    /// Its name.
    #[n(0)]
    pub name: PoolName,
    /// What its workers have in common: all of their labels.
    #[n(1)]
    pub labels: Vec<Label>,
    /// What one task may need.
    #[n(2)]
    pub room: Resources,
    /// Tasks that its workers take at once, all together.
    #[n(3)]
    pub slots: u32,
    /// Slots without a task.
    #[n(4)]
    pub free: u32,
}

impl Pool {
    /// What people see: `workers docker,linux`.
    #[must_use]
    pub fn title(&self) -> SmolStr {
        let labels: Vec<&str> = self.labels.iter().map(|label| label.0.as_str()).collect();
        SmolStr::new(format!("workers {}", labels.join(",")).trim_end())
    }
}

/// What a slot costs, in the books that owners keep of room: workers' slots are counted as cores.
pub(super) const SLOT: Resources = Resources { cpu_milli: 1_000, mem_bytes: 0 };

/// So many slots, as room.
pub(super) fn as_room(slots: u32) -> Resources {
    Resources::default().plus(&SLOT, u64::from(slots))
}

#[derive(Debug)]
struct Desk {
    worker: Worker,
    pool: PoolName,
    busy: u32,
}

/// The gateway's workers and who is busy.
#[derive(Debug, Default)]
pub(super) struct Workers {
    desks: BTreeMap<WorkerName, Desk>,
}

impl Workers {
    /// These are the workers now. Returns those that are gone.
    pub(super) fn set(&mut self, workers: Vec<Worker>) -> Vec<WorkerName> {
        let mut before = core::mem::take(&mut self.desks);
        for worker in workers {
            let busy = before.remove(&worker.id).map_or(0, |desk| desk.busy);
            self.desks.insert(worker.id.clone(), Desk { pool: worker.pool(), worker, busy });
        }
        before.into_keys().collect()
    }

    /// The least busy worker of a pool with a free slot, which becomes one task busier.
    pub(super) fn take(&mut self, pool: &PoolName) -> Option<WorkerName> {
        let free = |desk: &&mut Desk| desk.pool == *pool && desk.worker.attached && desk.busy < desk.worker.slots;
        let desk = self.desks.values_mut().filter(free).min_by_key(|desk| desk.busy)?;
        desk.busy += 1;
        Some(desk.worker.id.clone())
    }

    /// A task of the worker ended.
    pub(super) fn give_back(&mut self, worker: &WorkerName) {
        if let Some(desk) = self.desks.get_mut(worker) {
            desk.busy = desk.busy.saturating_sub(1);
        }
    }

    /// Whether the pool has any worker, attached or expected back.
    pub(super) fn has(&self, pool: &PoolName) -> bool {
        self.desks.values().any(|desk| desk.pool == *pool)
    }

    /// The pool for tasks that need `need`, if it has room for such.
    pub(super) fn fits(&self, pool: &PoolName, need: &Resources) -> bool {
        self.desks.values().any(|desk| desk.pool == *pool && desk.worker.room.covers(need))
    }

    /// Whether a worker of the pool has a slot without a task.
    pub(super) fn is_free(&self, pool: &PoolName) -> bool {
        let free = |desk: &Desk| desk.pool == *pool && desk.worker.attached && desk.busy < desk.worker.slots;
        self.desks.values().any(free)
    }

    /// How many workers there are.
    pub(super) fn len(&self) -> usize {
        self.desks.len()
    }

    /// The pools with a worker that takes tasks now.
    pub(super) fn pools(&self) -> Vec<Pool> {
        let mut pools: BTreeMap<&PoolName, Pool> = BTreeMap::new();
        for Desk { worker, pool, busy } in self.desks.values().filter(|desk| desk.worker.attached) {
            let entry = pools.entry(pool).or_insert_with(|| Pool {
                name: pool.clone(),
                labels: worker.labels.clone(),
                room: worker.room,
                slots: 0,
                free: 0,
            });
            entry.slots = entry.slots.saturating_add(worker.slots);
            entry.free = entry.free.saturating_add(worker.slots.saturating_sub(*busy));
        }
        pools.into_values().take(crate::limits::POOLS_MAX).collect()
    }
}
