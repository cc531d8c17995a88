//! Turns: of several callers with one job id, one is served after the other, so that the second finds what the first has made.
//!
//! Invariants: a turn lasts until the driver has answered, even if its caller leaves; an id without a turn takes no memory.
//! Does not: know whether the job exists (the Machine does).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smol_str::SmolStr;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

type Ids = HashMap<SmolStr, Arc<Semaphore>>;

/// The ids under way. Bounded by the calls that are served at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<Ids>>);

/// The right to submit under an id.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    id: SmolStr,
    /// Taken out when the turn ends.
    held: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Waits for those who came before.
    ///
    /// Cancel safety: cancel safe.
    pub(super) async fn take(&self, id: &SmolStr) -> Turn {
        let one = Arc::clone(self.ids().entry(id.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))));
        // A caller that leaves while it waits must not leave the id behind: it holds a turn that has not begun.
        let mut turn = Turn { turns: self.clone(), id: id.clone(), held: None };
        // Nobody closes it.
        turn.held = one.acquire_owned().await.ok();
        turn
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.held.take());
        let mut ids = self.turns.ids();
        // Nobody else waits: only the table has it. Whoever comes next must take the table's lock first.
        if ids.get(&self.id).is_some_and(|one| Arc::strong_count(one) == 1) {
            ids.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn turns_of_one_id_follow_each_other_and_leave_nothing() {
        let (turns, id) = (Turns::default(), SmolStr::new("job-1"));
        let first = turns.take(&id).await;
        assert!(turns.take(&"job-2".into()).now_or_never().is_some(), "another id is free");
        let mut second = Box::pin(turns.take(&id));
        assert!((&mut second).now_or_never().is_none());
        assert!(turns.take(&id).now_or_never().is_none(), "a third comes, and leaves");
        drop(first);
        drop(second.now_or_never().expect("it is its turn"));
        assert!(turns.ids().is_empty());
    }
}
