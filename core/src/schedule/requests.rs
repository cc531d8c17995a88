//! Clients' idempotency keys: which job a repeated submission means, for a while after it is retired too.
//!
//! Invariants: a key names the first job that was submitted under it; those of retired jobs are bounded, the oldest go.

use std::collections::{BTreeMap, VecDeque};

use super::Owner;
use crate::facts::Job;
use crate::ids::JobId;
use crate::limits;

/// The keys.
#[derive(Debug, Default)]
pub(super) struct Requests {
    by_key: BTreeMap<Vec<u8>, JobId>,
    /// Those of jobs that were retired last.
    retired: VecDeque<(Vec<u8>, JobId)>,
}

impl Requests {
    /// A job was submitted under `key`, which may be empty.
    pub(super) fn add(&mut self, key: &[u8], id: JobId) {
        if !key.is_empty() {
            self.by_key.entry(key.to_vec()).or_insert(id);
        }
    }

    fn retire(&mut self, key: Vec<u8>, id: JobId) {
        self.add(&key, id);
        self.retired.push_back((key, id));
        if self.retired.len() > limits::RETIRED_KEYS_MAX
            && let Some((key, id)) = self.retired.pop_front()
            && self.by_key.get(&key) == Some(&id)
        {
            self.by_key.remove(&key);
        }
    }
}

impl Owner {
    /// The job submitted with this idempotency key.
    #[must_use]
    pub fn request(&self, key: &[u8]) -> Option<JobId> {
        self.requests.by_key.get(key).copied()
    }

    /// A job is retired. A client that repeats its submission gets the same answer for a while.
    pub fn on_retired(&mut self, id: JobId, job: &Job) {
        self.forget(id);
        if let Some(submit) = job.submit.as_ref().filter(|submit| !submit.request.is_empty()) {
            self.remember_key(submit.request.clone(), id);
        }
    }

    /// The key of a retired job, for as long as it is among the last `limits::RETIRED_KEYS_MAX`.
    pub(crate) fn remember_key(&mut self, key: Vec<u8>, id: JobId) {
        self.requests.retire(key, id);
    }

    /// The keys of the jobs that were retired last, for a snapshot.
    pub(crate) fn retired_requests(&self) -> impl Iterator<Item = &(Vec<u8>, JobId)> {
        self.requests.retired.iter()
    }
}
