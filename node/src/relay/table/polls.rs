//! Polls: generators that wait to be told something, and what they are told.
//!
//! Invariants: what is told to nobody, because the poll's client has gone, is not told: it stays as it was. A task goes to the least loaded of the generators
//! that ask.

use std::collections::BTreeMap;

use starling_core::ids::RunId;
use tokio::sync::oneshot;

use super::generator::Generator;
use super::{Hands, Millis, Table};
use crate::relay::{Batch, Task, Wants, token};

/// A generator that waits.
#[derive(Debug)]
pub(in crate::relay) struct Poll {
    pub(in crate::relay) wants: Wants,
    /// Tasks at once.
    pub(in crate::relay) max: usize,
    /// When it is answered with nothing.
    pub(in crate::relay) until: Millis,
    pub(in crate::relay) answer: oneshot::Sender<Batch>,
}

impl Poll {
    /// Whether somebody still waits for the answer.
    pub(super) fn is_open(&self) -> bool {
        !self.answer.is_closed()
    }

    fn wants_work(&self) -> bool {
        match self.wants {
            Wants::Work | Wants::Both => true,
            Wants::Pokes => false,
        }
    }

    fn wants_pokes(&self) -> bool {
        match self.wants {
            Wants::Pokes | Wants::Both => true,
            Wants::Work => false,
        }
    }
}

impl Generator {
    /// The first poll that waits for work.
    fn work_poll(&self) -> Option<&Poll> {
        self.polls.iter().find(|poll| poll.wants_work() && poll.is_open())
    }
}

impl Table {
    pub(super) fn answer_polls(&mut self, now: Millis) {
        // Again after each client that turns out to have gone: its tasks may be for another one.
        loop {
            let mut dealt = self.deal();
            let asking = self.generators.iter().filter(|(_, generator)| !generator.polls.is_empty());
            let asking: Vec<String> = asking.map(|(gid, _)| gid.clone()).collect();
            let mut again = false;
            for gid in asking {
                let tasks = dealt.remove(&gid).unwrap_or_default();
                again |= self.answer(now, &gid, &tasks) == Answered::SomeWereGone;
            }
            if !again {
                return;
            }
        }
    }

    /// Who gets which of the waiting tasks. Nothing changes hands yet.
    fn deal(&self) -> BTreeMap<String, Vec<RunId>> {
        let mut dealt: BTreeMap<String, Vec<RunId>> = BTreeMap::new();
        for (ns, queue) in self.waiting.iter().filter(|(_, queue)| !queue.is_empty()) {
            let asking = self.generators.iter().filter(|(_, generator)| generator.ns == *ns);
            let mut asking: Vec<Asking<'_>> = asking.filter_map(|(gid, one)| self.asking(gid, one)).collect();
            for run in queue {
                let least = asking.iter_mut().filter(|one| one.room > 0).min_by_key(|one| one.load);
                let Some(least) = least else {
                    break;
                };
                least.room -= 1;
                least.load += 1;
                dealt.entry(least.gid.to_owned()).or_default().push(*run);
            }
        }
        dealt
    }

    fn asking<'a>(&self, gid: &'a str, generator: &Generator) -> Option<Asking<'a>> {
        let poll = generator.work_poll()?;
        let works = |id: &&RunId| self.runs.get(id).is_some_and(|run| !matches!(run.hands, Hands::Ending(_)));
        let load = generator.hands.iter().filter(works).count();
        let free = usize::try_from(generator.slots).unwrap_or(usize::MAX).saturating_sub(load);
        Some(Asking { gid, load, room: free.min(poll.max) })
    }

    /// Answers those polls of a generator that there is something for, or whose time is over.
    fn answer(&mut self, now: Millis, gid: &str, dealt: &[RunId]) -> Answered {
        let Some(generator) = self.generators.get_mut(gid) else {
            return Answered::All;
        };
        let untold = |id: &RunId| self.runs.get(id).is_some_and(|run| matches!(run.hands, Hands::Untold(_)));
        let mut tasks: Vec<RunId> = generator.hands.iter().copied().filter(untold).collect();
        tasks.extend(dealt);
        let mut answered = Answered::All;
        let polls = std::mem::take(&mut generator.polls);
        for poll in polls {
            let is_over = poll.until <= now;
            let poked = poll.wants_pokes() && generator.is_poked;
            let has_work = poll.wants_work() && !(tasks.is_empty() && generator.cancelled.is_empty());
            if !is_over && !poked && !has_work {
                generator.polls.push_back(poll);
                continue;
            }
            let told: Vec<RunId> = if has_work { tasks.iter().copied().take(poll.max).collect() } else { Vec::new() };
            let hand = |id: &RunId| -> Option<Task> {
                Some(Task { lease_ms: generator.lease_ms, ..self.runs.get(id)?.task.clone() })
            };
            let cancelled = generator.cancelled.iter().filter(|_| has_work);
            let batch = Batch {
                tasks: told.iter().filter_map(hand).collect(),
                cancelled: cancelled.map(|id| token(self.boot, *id)).collect(),
                poked,
            };
            if poll.answer.send(batch).is_err() {
                answered = Answered::SomeWereGone;
                continue;
            }
            generator.contact = now;
            generator.is_poked &= !poked;
            if has_work {
                generator.cancelled.clear();
                tasks.retain(|id| !told.contains(id));
            }
            for id in told {
                generator.hands.insert(id);
                if let Some(run) = self.runs.get_mut(&id) {
                    if let (Hands::Nobody, Some(queue)) = (&run.hands, self.waiting.get_mut(&generator.ns)) {
                        queue.retain(|waiting| *waiting != id);
                    }
                    run.hands = Hands::Works(gid.to_owned());
                }
            }
        }
        answered
    }
}

/// A generator that asks for work.
struct Asking<'a> {
    gid: &'a str,
    /// Tasks that it works on.
    load: usize,
    /// How many more it may be given now.
    room: usize,
}

/// How polls were answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answered {
    /// Whoever was answered was there.
    All,
    /// Some clients had gone.
    SomeWereGone,
}
