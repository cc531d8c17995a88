//! Asking other nodes for output: requests out, answers back, by number.
//!
//! Invariants: at most `PENDING_MAX` requests wait; each for at most `DEADLINE`; an answer to nobody is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use starling_core::ids::NodeId;
use tokio::sync::oneshot;

use super::{Place, Which};
use crate::exec::output::Stream;

const PENDING_MAX: usize = 1_024;
const DEADLINE: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Fetch {
    /// The whole or the tail.
    #[n(0)]
    pub which: Which,
    /// Whose.
    #[n(1)]
    pub place: Place,
    /// Which of its streams.
    #[n(2)]
    pub stream: Stream,
    /// From where.
    #[n(3)]
    pub offset: u64,
}

/// Sends a request to a node; false if there is no link.
pub type SendFetch = Box<dyn Fn(NodeId, u64, Fetch) -> bool + Send + Sync>;

type Waiting = HashMap<u64, oneshot::Sender<(Bytes, u64)>>;

struct Shared {
    send: SendFetch,
    /// A leaf: never held across an await.
    pending: Mutex<(u64, Waiting)>,
}

/// Fetches from other nodes.
#[derive(Clone)]
pub struct Remote(Arc<Shared>);

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

impl Remote {
    /// Sends through `send`.
    #[must_use]
    pub fn new(send: SendFetch) -> Self {
        Self(Arc::new(Shared { send, pending: Mutex::new((0, Waiting::new())) }))
    }

    /// Asks `node`; `None` if it cannot be reached, does not answer in time, or cannot read.
    ///
    /// Cancel safety: cancel safe; a late answer is dropped.
    pub async fn fetch(&self, node: NodeId, fetch: Fetch) -> Option<(Bytes, u64)> {
        let (id, answer) = self.begin()?;
        let result = if (self.0.send)(node, id, fetch) {
            tokio::time::timeout(DEADLINE, answer).await.ok().and_then(Result::ok)
        } else {
            None
        };
        self.waiting(|pending| pending.1.remove(&id));
        result
    }

    fn begin(&self) -> Option<(u64, oneshot::Receiver<(Bytes, u64)>)> {
        self.waiting(|(next, waiting)| {
            // Those whose asker has gone make room.
            if waiting.len() >= PENDING_MAX {
                waiting.retain(|_, answer| !answer.is_closed());
            }
            if waiting.len() >= PENDING_MAX {
                return None;
            }
            *next += 1;
            let (tx, rx) = oneshot::channel();
            waiting.insert(*next, tx);
            Some((*next, rx))
        })
    }

    /// An answer has come.
    pub fn answered(&self, id: u64, data: Bytes, len: u64) {
        if let Some(answer) = self.waiting(|pending| pending.1.remove(&id)) {
            // The asker may have given up.
            let _gone = answer.send((data, len));
        }
    }

    fn waiting<T>(&self, act: impl FnOnce(&mut (u64, Waiting)) -> T) -> T {
        act(&mut self.0.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
