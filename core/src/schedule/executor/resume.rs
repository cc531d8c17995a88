//! Grants that outlive the daemon: taking them up again, and giving them up.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Executor;
use crate::facts::{Outcome, Submit, Usage};
use crate::ids::{GrantId, PoolName, RunId};
use crate::schedule::held::{Ended, Held, Lane, Offer, Running, Stop};
use crate::time::Mono;

/// What is left of a grant that was accepted before this node's last start.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// The grant, with the tasks that never started.
    pub offer: Offer,
    /// The tasks that run, each with the milliseconds since it started.
    pub running: Vec<(u32, u64)>,
    /// What the grant's tasks used so far, as told.
    pub usage: Usage,
}

/// Whether such tasks are this machine's own processes.
#[must_use]
pub fn is_on_machine(submit: &Submit, pool: Option<&PoolName>) -> bool {
    Lane::of(submit, pool) == Lane::Machine
}

impl Executor {
    /// Takes up a grant of this machine's own tasks again: what runs is reserved and has runs again, what waits goes to the queue. Time limits count from the first
    /// start. What runs is held even where it is more than this node offers now.
    pub fn resume(&mut self, now: Mono, resumed: Resumed, submit: &Submit) {
        let Resumed { offer, running, usage } = resumed;
        let Offer { grant, attempt, tasks: queue, pool: _ } = offer;
        self.next_arrival += 1;
        let mut held = Held {
            arrival: self.next_arrival,
            submit: Arc::new(submit.clone()),
            lane: Lane::Machine,
            attempt,
            queue,
            running: BTreeMap::new(),
            durable: true,
            usage,
        };
        for (task, ran_ms) in running {
            self.next_run += 1;
            let run = RunId(self.next_run);
            let limit_ms = submit.timeout_ms;
            let deadline = (limit_ms > 0).then(|| now.after_ms(limit_ms.saturating_sub(ran_ms)));
            self.used = self.used.plus(&submit.need, 1);
            held.running.insert(task, run);
            self.runs.insert(run, Running { grant, task, worker: None, deadline, stopping: None });
        }
        if !held.queue.is_empty() {
            let place = (core::cmp::Reverse(submit.priority), held.arrival, grant);
            self.lanes.entry(Lane::Machine).or_default().insert(place);
        }
        self.held.insert(grant, held);
    }

    /// Gives everything up: the runs to be killed, whose ends will be losses, and what will never start.
    pub fn give_up(&mut self) -> (Vec<RunId>, Vec<Ended>) {
        let grants: Vec<GrantId> = self.held.keys().copied().collect();
        let dropped = grants.iter().filter_map(|grant| self.drop_queue(grant, Outcome::Lost)).collect();
        let mut kills = Vec::new();
        for (run, running) in &mut self.runs {
            if running.stopping.is_none() {
                running.stopping = Some(Stop::GiveUp);
                kills.push(*run);
            }
        }
        (kills, dropped)
    }

    /// All runs with their grants and tasks.
    pub fn run_ids(&self) -> impl Iterator<Item = (RunId, GrantId, u32)> + '_ {
        self.runs.iter().map(|(run, running)| (*run, running.grant, running.task))
    }
}
