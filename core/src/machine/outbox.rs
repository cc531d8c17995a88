//! The outbox: everything that waits for the next write, and the write in flight.
//!
//! Invariants: one write at a time, so that writes group by themselves; reports and seals of one grant or job merge into one event while they wait; what a failed
//! write carried comes back, except submissions, which are refused.
//! Does not: sign or number events; `Machine::flush` does.

use std::collections::BTreeMap;

use super::import::Taken;
use super::io::{Record, Reply};
use super::note::Note;
use super::pace::{Pace, Urgency};
use crate::event::{Event, SignedBatch};
use crate::facts::{Outcome, Usage};
use crate::ids::{GrantId, JobId, LogId, RequestId, Term, WorkerName, WriteId};
use crate::lattice::{IntervalSet, Lattice as _};
use crate::namespace::{Voice, is_submission, sys};
use crate::schedule::Ended;
use crate::time::{HlcClock, Wall};

/// Ranges in one event; more are split, so that an event stays far below its limit.
const RANGES_MAX: usize = 512;

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) write: WriteId,
    pub(super) records: Vec<Record>,
    pub(super) own: Vec<Event>,
    /// Clients that wait for it, and what they will be told.
    pub(super) answers: Vec<(RequestId, Reply)>,
    /// Imports that wait for it.
    pub(super) imports: Vec<(RequestId, Vec<Taken>)>,
}

/// Tasks of one grant that ended alike.
#[derive(Debug)]
struct Finished {
    voice: Voice,
    tasks: IntervalSet,
    usage: Usage,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    events: Vec<Event>,
    /// Clients that wait for the events, and what they will be told.
    pub(super) answers: Vec<(RequestId, Reply)>,
    started: BTreeMap<GrantId, (Voice, IntervalSet)>,
    /// Starts by workers. None of them is left out: only they say who did the work.
    started_by: BTreeMap<(GrantId, WorkerName), (Voice, IntervalSet)>,
    finished: BTreeMap<(GrantId, Outcome), Finished>,
    seals: BTreeMap<(JobId, Term, Outcome), IntervalSet>,
    /// Whether something in `finished`, `seals` or `remote` is waited for, for instance the end of a job with a single task.
    pub(super) awaited: bool,
    pub(super) notes: Vec<Note>,
    pub(super) remote: Vec<SignedBatch>,
    pub(super) remote_bytes: usize,
    /// Imports that wait for `remote`.
    pub(super) imports: Vec<(RequestId, Vec<Taken>)>,
    pub(super) marker: bool,
    pub(super) in_flight: Option<InFlight>,
    next_write: u64,
    pub(super) pace: Pace,
}

impl Outbox {
    pub(super) fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// An event for which a client waits.
    pub(super) fn push_for(&mut self, event: Event, request: RequestId, reply: Reply) {
        self.events.push(event);
        self.answers.push((request, reply));
    }

    /// Forgets submissions that wait: their clients are being told that the disk refuses.
    pub(super) fn drop_submissions(&mut self) {
        self.events.retain(|event| !is_submission(event));
    }

    /// Moves the submissions that wait to the log `home`; returns the ids they had.
    pub(super) fn rehome_submissions(&mut self, home: LogId) -> Vec<JobId> {
        let waiting =
            self.events.iter_mut().filter(|event| is_submission(event)).filter_map(|event| event.ctx.job.as_mut());
        waiting
            .map(|job| {
                let old = *job;
                job.log = home;
                old
            })
            .collect()
    }

    /// Whether an owner's word on a job of `log` waits for the disk, or is on its way to it.
    pub(super) fn speaks_of(&self, log: &LogId) -> bool {
        let written = self.in_flight.iter().flat_map(|flight| &flight.own);
        let of_log = |event: &Event| event.ns == sys::NAME && event.ctx.job.is_some_and(|job| job.log == *log);
        self.events.iter().chain(written).any(of_log) || self.seals.keys().any(|(job, _, _)| job.log == *log)
    }

    /// Whether a report of an end under a grant may wait for the disk, or be on its way to it.
    pub(super) fn reports_on(&self, grant: &GrantId) -> bool {
        let written = self.in_flight.iter().flat_map(|flight| &flight.own);
        let on_grant = |event: &Event| {
            event.ns != sys::NAME && event.ctx.job == Some(grant.job) && event.ctx.grant == Some(grant.no)
        };
        self.events.iter().chain(written).any(on_grant) || self.finished.keys().any(|(told, _)| told == grant)
    }

    pub(super) fn push_started(&mut self, grant: GrantId, voice: Voice, task: u32, worker: Option<&WorkerName>) {
        let empty = || (voice, IntervalSet::new());
        let (_, tasks) = match worker {
            None => self.started.entry(grant).or_insert_with(empty),
            Some(worker) => self.started_by.entry((grant, worker.clone())).or_insert_with(empty),
        };
        let _ = tasks.insert(task);
    }

    pub(super) fn push_finished(&mut self, ended: Ended) {
        let Ended { grant, voice, tasks, outcome, usage } = ended;
        let empty = || Finished { voice, tasks: IntervalSet::new(), usage: Usage::default() };
        let finished = self.finished.entry((grant, outcome)).or_insert_with(empty);
        let _ = finished.tasks.union_with(&tasks);
        let _ = finished.usage.join(usage);
    }

    pub(super) fn push_seal(&mut self, job: JobId, term: Term, tasks: &IntervalSet, outcome: Outcome) {
        let _ = self.seals.entry((job, term, outcome)).or_default().union_with(tasks);
    }

    /// Another node's batch; `awaited` if somebody here or there waits for what it says.
    pub(super) fn push_remote(&mut self, batch: SignedBatch, awaited: Urgency) {
        self.awaited |= awaited == Urgency::Urgent;
        self.remote_bytes += batch.bytes().len();
        self.remote.push(batch);
    }

    /// Somebody waits for what is in here.
    pub(super) fn hurry(&mut self) {
        self.awaited = true;
    }

    /// Events of this node that wait.
    pub(super) fn own_len(&self) -> usize {
        self.events.len() + self.started.len() + self.started_by.len() + self.finished.len() + self.seals.len()
    }

    /// Whether anybody waits for what is in here.
    pub(super) fn urgency(&self) -> Urgency {
        let background = self.events.is_empty() && !self.has_notes() && !self.marker;
        if background && !self.awaited { Urgency::Background } else { Urgency::Urgent }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own_len() == 0 && !self.has_notes() && self.remote.is_empty() && !self.marker
    }

    fn has_notes(&self) -> bool {
        self.notes.iter().any(Note::is_pressing)
    }

    pub(super) fn next_write(&mut self) -> WriteId {
        self.next_write += 1;
        WriteId(self.next_write)
    }

    /// Takes this node's events, merged, in the order: statements, starts, ends, seals.
    pub(super) fn drain_own(&mut self, clock: &mut HlcClock, wall: Wall) -> Vec<Event> {
        self.awaited = false;
        let mut events = core::mem::take(&mut self.events);
        let finished = core::mem::take(&mut self.finished);
        let mut started = core::mem::take(&mut self.started);
        // A task that started and ended since the last write needs no event of its start: its end says so.
        for ((grant, outcome), ended) in &finished {
            if matches!(outcome, Outcome::Exit(_) | Outcome::Signal(_) | Outcome::TimedOut | Outcome::Broke(_))
                && let Some((_, starts)) = started.get_mut(grant)
            {
                starts.subtract(&ended.tasks);
            }
        }
        for (grant, (voice, tasks)) in started {
            for part in split(tasks) {
                events.push(voice.started(clock.tick(wall), grant, part));
            }
        }
        for ((grant, worker), (voice, tasks)) in core::mem::take(&mut self.started_by) {
            for part in split(tasks) {
                events.push(voice.started_by(clock.tick(wall), grant, part, &worker));
            }
        }
        for ((grant, outcome), Finished { voice, tasks, usage }) in finished {
            for part in split(tasks) {
                events.push(voice.finished(clock.tick(wall), grant, part, &outcome, &usage));
            }
        }
        for ((job, term, outcome), tasks) in core::mem::take(&mut self.seals) {
            for part in split(tasks) {
                events.push(sys::seal(clock.tick(wall), job, term, part, &outcome));
            }
        }
        events
    }
}

fn split(tasks: IntervalSet) -> Vec<IntervalSet> {
    if tasks.is_empty() {
        return Vec::new();
    }
    if tasks.ranges().len() <= RANGES_MAX {
        return vec![tasks];
    }
    let parts = tasks.ranges().chunks(RANGES_MAX);
    parts.filter_map(|part| IntervalSet::from_ranges(part.to_vec()).ok()).collect()
}
