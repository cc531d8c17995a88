//! Workers: registered, attached, silent, gone.

use std::collections::BTreeSet;
use std::time::Duration;

use starling_core::ids::WorkerName;
use starling_core::limits;
use starling_core::schedule::Worker as Sponsored;
use starling_proto::hwp;
use tonic::Status;

use super::super::capabilities::Capabilities;
use super::super::dial::{Call, Dialler};
use super::super::logs::Heard;
use super::super::outbox::Outbox;
use super::super::work::Trust;
use super::super::{Reach, Refusal, WorkerLine};
use super::{Due, Millis, PARKED_MAX, Parked, Table, unregistered};
use crate::hwp::id::AssignmentId;

/// The label by which our own worker makes itself known.
const OWN_LABEL: &str = "starling";
/// Calls that fail one after another until a worker that listens is taken to be gone.
const FAILURES_MAX: u32 = 3;

/// How a worker is reached.
#[derive(Debug)]
pub(super) enum Link {
    /// It has registered and not opened its stream.
    Awaited,
    /// By its stream.
    Stream { session: u64, outbox: Outbox, heard: Heard },
    /// By calls to it.
    Calls { dialler: Dialler, failures: u32, next_probe: Millis },
    /// Its stream broke, or its calls failed; it is waited for until then.
    Lost { until: Millis },
}

/// A heartbeat's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Beat {
    /// Milliseconds since the Unix epoch, by this node's clock.
    pub(in super::super) at_ms: u64,
    /// Thousandths of a core, and bytes.
    pub(in super::super) used: Option<(u64, u64)>,
}

/// A worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) capabilities: Capabilities,
    /// Kept for when it is lost and comes back.
    pub(super) dialler: Option<Dialler>,
    pub(super) link: Link,
    pub(super) tasks: BTreeSet<AssignmentId>,
    /// Of these, those that it was not told, and those that it was told and has not accepted.
    pub(super) unsent: BTreeSet<AssignmentId>,
    pub(super) sent: BTreeSet<AssignmentId>,
    pub(super) heard: Heard,
    beat: Beat,
}

impl Worker {
    fn new(capabilities: Capabilities, dialler: Option<Dialler>, link: Link, heard: Heard) -> Self {
        let (tasks, unsent, sent) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { capabilities, dialler, link, tasks, unsent, sent, heard, beat: Beat::default() }
    }

    pub(super) fn trust(&self) -> Trust {
        let is_own = self.capabilities.labels.iter().any(|label| label.0 == OWN_LABEL);
        if is_own { Trust::Own } else { Trust::Command }
    }

    pub(super) fn is_attached(&self) -> bool {
        match self.link {
            Link::Stream { .. } | Link::Calls { .. } => true,
            Link::Awaited | Link::Lost { .. } => false,
        }
    }

    fn heard_at(&self) -> Millis {
        match &self.link {
            Link::Stream { heard, .. } => self.heard.at().max(heard.at()),
            Link::Awaited | Link::Calls { .. } | Link::Lost { .. } => self.heard.at(),
        }
    }

    /// As the Machine sees it.
    pub(super) fn sponsored(&self, name: &WorkerName) -> Sponsored {
        let Capabilities { labels, slots, room, .. } = &self.capabilities;
        Sponsored { id: name.clone(), labels: labels.clone(), slots: *slots, room: *room, attached: self.is_attached() }
    }

    /// Ends its stream, if it has one.
    pub(super) fn end(&self, why: impl FnOnce() -> Status) {
        if let Link::Stream { outbox, .. } = &self.link {
            outbox.end(why());
        }
    }

    fn line(&self, name: &WorkerName, now: Millis) -> WorkerLine {
        WorkerLine {
            id: name.to_string(),
            labels: self.capabilities.labels.iter().map(|label| label.0.to_string()).collect(),
            slots: self.capabilities.slots,
            tasks: self.tasks.iter().map(ToString::to_string).collect(),
            reach: if self.dialler.is_some() { Reach::DialBack } else { Reach::Stream },
            attached: self.is_attached(),
            heard: Duration::from_millis(now.saturating_sub(self.heard_at())),
            cpu_milli: self.beat.used.map(|(cpu, _)| cpu),
            mem_bytes: self.beat.used.map(|(_, memory)| memory),
        }
    }

    fn status(&self, name: &WorkerName) -> hwp::WorkerStatus {
        let is_full = self.tasks.len() >= self.capabilities.slots as usize;
        let state = match (self.is_attached(), is_full) {
            (false, _) => "away",
            (true, true) => "busy",
            (true, false) => "ready",
        };
        hwp::WorkerStatus {
            worker_id: name.to_string(),
            state: state.to_owned(),
            current_jobs: self.tasks.iter().map(ToString::to_string).collect(),
            last_heartbeat: i64::try_from(self.beat.at_ms).unwrap_or(i64::MAX),
        }
    }
}

impl Table {
    /// Registers a worker, or takes what a known one says of itself now; it keeps its tasks and its stream.
    pub(in super::super) fn register(
        &mut self,
        now: Millis,
        name: &WorkerName,
        capabilities: Capabilities,
        dialler: Option<Dialler>,
    ) -> Result<(), Refusal> {
        self.acts()?;
        let next_probe = now + self.timing.probe_ms;
        let link = |dialler: Option<&Dialler>| match dialler {
            Some(dialler) => Link::Calls { dialler: dialler.clone(), failures: 0, next_probe },
            None => Link::Awaited,
        };
        if let Some(worker) = self.workers.get_mut(name) {
            worker.heard.now(now);
            let before = worker.sponsored(name);
            match (&worker.link, &dialler) {
                // Its stream, or the wait for it to be opened again, goes on.
                (Link::Stream { .. }, _) | (Link::Lost { .. }, None) => {}
                // Many say it again and again: the connection is kept.
                (Link::Calls { dialler: known, .. }, Some(dialler))
                    if worker.capabilities.endpoint == capabilities.endpoint && known.shows_as(dialler) => {}
                (Link::Awaited | Link::Calls { .. } | Link::Lost { .. }, _) => worker.link = link(dialler.as_ref()),
            }
            (worker.capabilities, worker.dialler) = (capabilities, dialler);
            self.is_changed |= worker.sponsored(name) != before;
        } else {
            if self.workers.len() >= limits::WORKERS_MAX {
                return Err(Refusal::TooMany);
            }
            let heard = Heard::default();
            heard.now(now);
            let link = link(dialler.as_ref());
            self.workers.insert(name.clone(), Worker::new(capabilities, dialler, link, heard));
            self.is_changed = true;
        }
        self.look_at_worker(now, name);
        self.send_unsent(now, name);
        let waiting = self.parked.iter().find(|(_, parked)| parked.worker == *name).map(|(session, _)| *session);
        if let Some(session) = waiting
            && let Some(parked) = self.parked.remove(&session)
        {
            self.take_up(now, name, session, parked);
        }
        Ok(())
    }

    /// A worker opened its stream, which is session `answer` from now on.
    pub(in super::super) fn attach(
        &mut self,
        now: Millis,
        name: &WorkerName,
        outbox: Outbox,
        heard: Heard,
    ) -> Result<u64, Refusal> {
        self.acts()?;
        self.next_session += 1;
        let session = self.next_session;
        let stream = Parked { worker: name.clone(), outbox, heard };
        if self.workers.contains_key(name) {
            self.take_up(now, name, session, stream);
        } else if self.parked.len() < PARKED_MAX {
            // Some open their stream first; and a refusal at once would make a loop of it.
            self.parked.insert(session, stream);
            self.look_at(now + self.timing.park_ms, Due::Parked(session));
        } else {
            stream.outbox.end(unregistered(name));
        }
        Ok(session)
    }

    fn take_up(&mut self, now: Millis, name: &WorkerName, session: u64, stream: Parked) {
        let Some(worker) = self.workers.get_mut(name) else {
            return;
        };
        worker.end(|| Status::aborted(format!("another session of worker `{name}` began, which has its tasks now")));
        worker.heard.now(now);
        self.is_changed |= !worker.is_attached();
        let Parked { outbox, heard, .. } = stream;
        worker.link = Link::Stream { session, outbox, heard };
        self.look_at_worker(now, name);
        self.tell_again(now, name);
    }

    /// A session is over.
    pub(in super::super) fn detach(&mut self, now: Millis, name: &WorkerName, session: u64) {
        self.parked.remove(&session);
        let is_current =
            |worker: &Worker| matches!(worker.link, Link::Stream { session: current, .. } if current == session);
        if self.workers.get(name).is_some_and(is_current) {
            self.lose(now, name);
        }
    }

    /// The worker cannot be reached; it is waited for.
    pub(super) fn lose(&mut self, now: Millis, name: &WorkerName) {
        let until = now + self.timing.lease_ms;
        if let Some(worker) = self.workers.get_mut(name) {
            worker.link = Link::Lost { until };
            self.is_changed = true;
            self.look_at(until, Due::Worker(name.clone()));
        }
    }

    pub(in super::super) fn beat(&mut self, now: Millis, name: &WorkerName, beat: Beat) -> Result<(), Refusal> {
        self.acts()?;
        // Before it has registered it is heard, and that is all.
        if let Some(worker) = self.workers.get_mut(name) {
            worker.heard.now(now);
            worker.beat = beat;
        }
        Ok(())
    }

    pub(in super::super) fn status(&self, name: &WorkerName) -> Result<hwp::WorkerStatus, Refusal> {
        self.acts()?;
        let worker = self.workers.get(name).ok_or_else(|| Refusal::UnknownWorker(name.clone()))?;
        Ok(worker.status(name))
    }

    pub(in super::super) fn list(&self, now: Millis) -> Vec<WorkerLine> {
        self.workers.iter().map(|(name, worker)| worker.line(name, now)).collect()
    }

    /// Something came over a worker's stream.
    pub(in super::super) fn hear(&self, now: Millis, name: &WorkerName) {
        if let Some(worker) = self.workers.get(name) {
            worker.heard.now(now);
        }
    }

    /// A call to a worker that listens got through, or did not.
    pub(super) fn reached(&mut self, now: Millis, name: &WorkerName, is_reached: bool) {
        let Some(worker) = self.workers.get_mut(name) else {
            return;
        };
        if is_reached {
            worker.heard.now(now);
        }
        let mut is_gone = false;
        if let Link::Calls { failures, .. } = &mut worker.link {
            *failures = if is_reached { 0 } else { *failures + 1 };
            is_gone = *failures >= FAILURES_MAX;
        }
        if is_gone {
            self.lose(now, name);
        }
    }

    /// Looks whether a worker is still to be counted on, and when to look again.
    pub(super) fn look_at_worker(&mut self, now: Millis, name: &WorkerName) {
        let timing = self.timing;
        let Some(worker) = self.workers.get_mut(name) else {
            return;
        };
        let silent_at = worker.heard_at() + timing.silence_ms;
        let again = match &mut worker.link {
            Link::Awaited | Link::Stream { .. } => silent_at,
            Link::Lost { until } => *until,
            Link::Calls { next_probe, dialler, .. } => {
                if *next_probe <= now {
                    *next_probe = now + timing.probe_ms;
                    self.todo.calls.push(Call::probe(name, dialler));
                }
                *next_probe
            }
        };
        if again > now {
            return self.look_at(again, Due::Worker(name.clone()));
        }
        let silence = timing.silence_ms / 1_000;
        worker
            .end(|| Status::unavailable(format!("nothing was heard from this worker for {silence} s; connect again")));
        tracing::info!(worker = %name, tasks = worker.tasks.len(), "worker is gone");
        self.forget(name);
    }

    /// The worker is no more, and what it had is lost.
    pub(super) fn forget(&mut self, name: &WorkerName) {
        let Some(worker) = self.workers.remove(name) else {
            return;
        };
        self.is_changed = true;
        for id in worker.tasks {
            self.drop_task(&id);
        }
    }
}
