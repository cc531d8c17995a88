//! Placement: which ready tasks go to which node.
//!
//! Rules: most urgent job first; within a job the own node if it has room, then nodes by rendezvous rank (Thaler and Ravishankar, 1998), so that owners spread
//! without talking; a node that works on a job gets its next chunk before it runs dry, sized so that a chunk lasts about `CHUNK_MS`.
//! Invariants: grants no more than a node seems able to start or is working off; looks at a bounded number of jobs per pass.

use super::decision::Decision;
use super::fleet::{Presence, RelaySlots};
use super::owned::{Open, Owned};
use super::owner::Owner;
use super::pool::{Label, Pool};
use crate::ids::{GrantId, GrantNo, JobId, NodeId, Seat};
use crate::limits;
use crate::resources::Resources;
use crate::time::Mono;

/// How long a chunk should keep a slot busy: long against a round trip and two syncs, short against a user's patience.
const CHUNK_MS: u64 = 150;

/// A place that may be given tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub seat: Seat,
    /// The name of the node, for jobs that ask for one; empty for a pool.
    pub name: smol_str::SmolStr,
    /// What the node, or each worker of the pool, is and has.
    pub labels: Vec<Label>,
    /// Of a pool: what one of its tasks may need.
    pub room: Option<Resources>,
    /// What relays there serve.
    pub relays: Vec<RelaySlots>,
}

impl Candidate {
    /// A node's own machine, and the relays there.
    #[must_use]
    pub fn machine(node: NodeId, presence: &Presence) -> Self {
        Self {
            seat: Seat::machine(node),
            name: presence.name.clone(),
            labels: presence.labels.clone(),
            room: None,
            relays: presence.relays.clone(),
        }
    }

    /// A pool of workers of the gateway `node`.
    #[must_use]
    pub fn pool(node: NodeId, pool: &Pool) -> Self {
        Self {
            seat: Seat { node, pool: Some(pool.name.clone()) },
            name: smol_str::SmolStr::default(),
            labels: pool.labels.clone(),
            room: Some(pool.room),
            relays: Vec::new(),
        }
    }

    /// How many tasks of the namespace its relays take at once.
    fn relay_slots(&self, ns: &str) -> u64 {
        self.relays.iter().find(|relay| relay.ns == ns).map_or(0, |relay| u64::from(relay.slots))
    }
}

impl Owner {
    /// Grants what can be granted to the live `candidates`; `me` is preferred for its own jobs.
    pub fn place(&mut self, now: Mono, me: &NodeId, candidates: &[Candidate], decisions: &mut Vec<Decision>) {
        self.unpark_if_changed(candidates);
        let queued: Vec<JobId> = self.queue.iter().take(limits::PLACE_SCAN_MAX).map(|(_, id)| *id).collect();
        for id in queued {
            if !self.is_placeable(&id, candidates) {
                self.park(id);
                continue;
            }
            let by_relay = self.jobs.get(&id).is_some_and(|owned| owned.relay.is_some());
            let has_room = |candidate: &Candidate| {
                by_relay || self.rooms.get(&candidate.seat).is_some_and(|room| room.free().cpu_milli > 0)
            };
            let works_on =
                |candidate: &Candidate| self.jobs.get(&id).is_some_and(|owned| owned.open_at(&candidate.seat) > 0);
            let mut ranked: Vec<&Candidate> =
                candidates.iter().filter(|candidate| has_room(candidate) || works_on(candidate)).collect();
            if ranked.is_empty() {
                continue;
            }
            let own = Seat::machine(*me);
            ranked.sort_by_key(|candidate| (candidate.seat != own, rank(&id, &candidate.seat)));
            self.place_job(now, id, &ranked, decisions);
        }
    }

    fn place_job(&mut self, now: Mono, id: JobId, ranked: &[&Candidate], decisions: &mut Vec<Decision>) {
        let Some(owned) = self.jobs.get(&id) else {
            return;
        };
        let widths: Vec<u64> = ranked.iter().map(|candidate| self.width(owned, candidate)).collect();
        let all_slots: u64 = widths.iter().sum();
        for (candidate, width) in ranked.iter().zip(widths) {
            let Some(owned) = self.jobs.get_mut(&id) else {
                return;
            };
            let ready = owned.ready_len();
            if width == 0 || ready == 0 {
                continue;
            }
            let chunk = chunk_per_slot(owned, ready, all_slots);
            let open = owned.open_at(&candidate.seat);
            let target = width * chunk;
            // A topped-up node gets at least half a load, so that grants stay few.
            if open * 2 > target {
                continue;
            }
            let Some((attempt, tasks)) = owned.take_ready(target - open) else {
                continue;
            };
            let grant = GrantId { job: id, no: GrantNo { term: owned.term, no: owned.next_grant } };
            owned.next_grant = owned.next_grant.saturating_add(1);
            owned.open.insert(grant.no, Open::new(candidate.seat.clone(), attempt, tasks.clone(), now));
            self.add_open(grant, &candidate.seat);
            decisions.push(Decision::Grant { grant, seat: candidate.seat.clone(), attempt, tasks });
        }
        if self.jobs.get(&id).is_some_and(|owned| owned.ready_len() == 0) {
            let priority = self.jobs.get(&id).map_or(0, |owned| owned.priority);
            self.queue.remove(&(core::cmp::Reverse(priority), id));
        }
    }

    /// Relays are kept one round ahead, so that they never wait for a grant.
    fn relay_width(&self, owned: &Owned, ns: &str, candidate: &Candidate) -> u64 {
        let others = self.relay_tasks_at(&candidate.seat, ns).saturating_sub(owned.open_at(&candidate.seat));
        (candidate.relay_slots(ns) * 2).saturating_sub(others)
    }

    /// Whether any candidate could run the job if it were empty.
    fn is_placeable(&self, id: &JobId, candidates: &[Candidate]) -> bool {
        let Some(owned) = self.jobs.get(id) else {
            return true;
        };
        candidates.iter().any(|candidate| {
            let room = self.rooms.get(&candidate.seat);
            let fits = room.is_some_and(|room| room.total.slots(&owned.need_at(&candidate.seat)) > 0);
            fits && owned.wants(candidate) && owned.relay.as_ref().is_none_or(|ns| candidate.relay_slots(ns) > 0)
        })
    }

    /// The slots that `owned` has or may have at a seat.
    fn width(&self, owned: &Owned, candidate: &Candidate) -> u64 {
        let Some(room) = self.rooms.get(&candidate.seat).filter(|room| !room.refused) else {
            return 0;
        };
        if !owned.wants(candidate) {
            return 0;
        }
        if let Some(ns) = &owned.relay {
            return self.relay_width(owned, ns, candidate);
        }
        let need = owned.need_at(&candidate.seat);
        let most = u64::from(room.total.slots(&need));
        let working = owned.open_at(&candidate.seat).min(most);
        (u64::from(room.free().slots(&need)) + working).min(most)
    }
}

fn chunk_per_slot(owned: &Owned, ready: u64, all_slots: u64) -> u64 {
    if owned.relay.is_some() {
        return 1;
    }
    // Unknown tasks go one by one; known ones so that a chunk lasts a while, never more than a fair share of half the rest.
    let by_time = owned.task_ms.map_or(1, |task_ms| CHUNK_MS.checked_div(task_ms).unwrap_or(u64::MAX));
    let fair = ready.checked_div(all_slots * 2).unwrap_or(1);
    by_time.min(fair).clamp(1, u64::from(limits::CHUNK_PER_SLOT_MAX))
}

/// Rendezvous weight of a seat for a job; static, so that every pass and every restart ranks alike.
fn rank(job: &JobId, seat: &Seat) -> u64 {
    let pool = seat.pool.iter().flat_map(|pool| pool.0.bytes());
    let salt = pool.fold(0_u64, |salt, byte| salt.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
    let mut mixed = seat.node.prefix()
        ^ salt
        ^ job.log.node.prefix().rotate_left(17)
        ^ job.no.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}
