//! News: which namespaces' jobs a fold changed, so that their relays are poked.
//!
//! Invariants: what is folded after a generator was registered is told, or everything is: a watcher that lags pokes all.
//! Does not: keep pokes (`table` does).

use std::collections::BTreeSet;

use starling_core::event::{Entry, SignedBatch};
use starling_core::ids::JobId;
use starling_core::machine::{Machine, Notice};
use starling_core::namespace::sys;
use starling_core::time::Now;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, watch};

use super::handle::Message;
use crate::driver::Handle;

/// Whose jobs changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// Those of these namespaces.
    Some(BTreeSet<String>),
    /// Maybe all.
    All,
}

impl Touched {
    pub(super) fn has(&self, ns: &str) -> bool {
        match self {
            Self::Some(names) => names.contains(ns),
            Self::All => true,
        }
    }
}

/// What was folded and not looked at yet.
#[derive(Debug, Default)]
struct Folded {
    names: BTreeSet<String>,
    /// Jobs of which the kernel spoke: their namespace is in Facts.
    jobs: BTreeSet<JobId>,
}

impl Folded {
    fn add(&mut self, batch: &SignedBatch) {
        for (_, entry) in batch.entries() {
            match entry {
                Entry::Event(event) if event.ns == sys::NAME => self.jobs.extend(event.ctx.job),
                Entry::Event(event) => {
                    if event.ctx.job.is_some() && !self.names.contains(event.ns.as_str()) {
                        self.names.insert(event.ns.to_string());
                    }
                }
                Entry::Unread(_) => {}
            }
        }
    }
}

/// Tells the actor of every fold while there are generators, until either end is gone.
///
/// Cancel safety: pokes may be lost; it runs for as long as the actor.
pub(super) async fn watch(
    driver: Handle,
    mut news: broadcast::Receiver<Notice>,
    tx: mpsc::Sender<Message>,
    busy: watch::Receiver<bool>,
) {
    loop {
        let touched = match news.recv().await {
            Ok(Notice::Folded(batch)) if *busy.borrow() => touched(&driver, &batch, &mut news).await,
            Ok(
                Notice::Folded(_)
                | Notice::NodeDead(_)
                | Notice::Forked(_)
                | Notice::RootMismatch(_)
                | Notice::DiskRefuses(_)
                | Notice::DiskAccepts
                | Notice::Gateway(_)
                | Notice::Adopted { .. }
                | Notice::Twin
                | Notice::GatewayFacts,
            ) => continue,
            Ok(Notice::Stopped) | Err(RecvError::Closed) => return,
            // After a join anything may have changed.
            Ok(Notice::Snapshot(_)) | Err(RecvError::Lagged(_)) => Touched::All,
        };
        if tx.send(Message::Touched(touched)).await.is_err() {
            return;
        }
    }
}

/// What `batch`, and all that is queued behind it, changed.
async fn touched(driver: &Handle, batch: &SignedBatch, news: &mut broadcast::Receiver<Notice>) -> Touched {
    let mut folded = Folded::default();
    folded.add(batch);
    loop {
        match news.try_recv() {
            Ok(Notice::Folded(batch)) => folded.add(&batch),
            Ok(
                Notice::NodeDead(_)
                | Notice::Forked(_)
                | Notice::RootMismatch(_)
                | Notice::DiskRefuses(_)
                | Notice::DiskAccepts
                | Notice::Gateway(_)
                | Notice::Adopted { .. }
                | Notice::Twin
                | Notice::GatewayFacts
                | Notice::Stopped,
            ) => {}
            Ok(Notice::Snapshot(_)) | Err(TryRecvError::Lagged(_)) => return Touched::All,
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    let Folded { mut names, jobs } = folded;
    if jobs.is_empty() {
        return Touched::Some(names);
    }
    let look = move |machine: &mut Machine, _now: Now| -> BTreeSet<String> {
        let submits = jobs.iter().filter_map(|id| machine.facts().job(id)?.submit.as_ref());
        submits.map(|submit| submit.ns.to_string()).collect()
    };
    match driver.ask(look).await {
        Ok(more) => {
            names.extend(more);
            Touched::Some(names)
        }
        // Better one poke too many.
        Err(_busy) => Touched::All,
    }
}
