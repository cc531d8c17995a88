//! The table of generators and tasks: who serves what, who holds what, who is to be poked.
//!
//! Invariants: as in `relay`. A generator is live while its stream is open, while a poll of it waits, and for its lease after its last call. What is to be
//! done outside is collected and carried out by the actor: first what relays serve, then what ended, so that no lost task is granted here again too early.
//! Does not: read a clock, wait, or speak to anybody but the polls that wait in it.

mod generator;
mod polls;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use starling_core::facts::Outcome;
use starling_core::ids::{JobId, RunId};
use starling_core::machine::{CommandError, Spawn, Work};
use starling_core::schedule::RelaySlots;

use self::generator::Generator;
pub(super) use self::generator::{Link, link};
pub(super) use self::polls::Poll;
use super::callback::Callback;
use super::news::Touched;
use super::{GENERATORS_MAX, GeneratorView, Held, Reach, Registered, Registration, RelayError, Task, token};

/// How long a relay may take to stop a task before it is taken from it.
const KILL_MS: u64 = 5_000;
/// What a task ends with that was told to stop and did not report in time.
const TERMINATED: i32 = 15;
/// Callbacks at once, over all generators.
const CALLS_MAX: usize = 8;

/// Milliseconds by the driver's monotonic clock.
pub(super) type Millis = u64;

/// A task that was started here and has not ended.
#[derive(Debug)]
struct Run {
    task: Task,
    hands: Hands,
    /// When it ends at the latest, if it was told to stop.
    kill_at: Option<Millis>,
}

/// Where a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hands {
    /// Nobody has it.
    Nobody,
    /// A generator has it, but must be told of it (again).
    Untold(String),
    /// A generator works on it.
    Works(String),
    /// Its end was reported and is being logged: it takes no slot any more.
    Ending(String),
}

impl Hands {
    fn gid(&self) -> Option<&str> {
        match self {
            Self::Nobody => None,
            Self::Untold(gid) | Self::Works(gid) | Self::Ending(gid) => Some(gid),
        }
    }
}

/// A callback to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) gid: String,
    pub(super) session: u64,
    pub(super) callback: Callback,
}

/// What is to be done outside, in this order.
#[derive(Debug, Default)]
pub(super) struct Todo {
    /// What relays serve now, if that changed.
    pub(super) relays: Option<Vec<RelaySlots>>,
    /// Tasks that ended.
    pub(super) ended: Vec<(RunId, Outcome)>,
    /// Callbacks.
    pub(super) calls: Vec<Call>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    boot: u64,
    generators: BTreeMap<String, Generator>,
    runs: BTreeMap<RunId, Run>,
    /// Runs in nobody's hands, by namespace, in order.
    waiting: BTreeMap<String, VecDeque<RunId>>,
    /// As last told to the driver.
    served: Vec<RelaySlots>,
    calls: usize,
    next_session: u64,
    todo: Todo,
}

impl Table {
    pub(super) fn new(boot: u64) -> Self {
        Self {
            boot,
            generators: BTreeMap::new(),
            runs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            served: Vec::new(),
            calls: 0,
            next_session: 0,
            todo: Todo::default(),
        }
    }

    pub(super) fn has_generators(&self) -> bool {
        !self.generators.is_empty()
    }

    /// Registers a generator, or takes it over from whoever had its name, with the tasks in its hands. Whoever takes over is told of them again.
    pub(super) fn register(
        &mut self,
        now: Millis,
        registration: Registration,
        link: Link,
    ) -> Result<(Registered, u64), RelayError> {
        let Registration { gid, ns, slots, lease_ms, callback } = registration;
        if self.generators.get(&gid).is_some_and(|old| old.ns != ns) {
            self.leave(&gid);
        }
        if !self.generators.contains_key(&gid) && self.generators.len() >= GENERATORS_MAX {
            return Err(RelayError::TooMany);
        }
        self.next_session += 1;
        let mut generator = Generator::new(self.next_session, ns, slots, lease_ms, callback, link, now);
        if let Some(old) = self.generators.remove(&gid) {
            generator.hands = old.hands;
            for run in &generator.hands {
                if let Some(run) = self.runs.get_mut(run)
                    && matches!(run.hands, Hands::Works(_))
                {
                    run.hands = Hands::Untold(gid.clone());
                }
            }
        }
        self.generators.insert(gid, generator);
        Ok((Registered { slots, lease_ms }, self.next_session))
    }

    /// Forgets a generator: what it has in its hands is lost, for others to try again.
    pub(super) fn leave(&mut self, gid: &str) {
        let Some(generator) = self.generators.remove(gid) else {
            return;
        };
        for run in generator.hands {
            self.end(run, Outcome::Lost);
        }
        if !self.generators.values().any(|other| other.ns == generator.ns) {
            for run in self.waiting.remove(&generator.ns).unwrap_or_default() {
                self.end(run, Outcome::Lost);
            }
        }
    }

    /// A generator is in touch.
    pub(super) fn contact(&mut self, now: Millis, gid: &str) -> Result<&mut Generator, RelayError> {
        let generator = self.generators.get_mut(gid).ok_or_else(|| RelayError::Unknown(gid.to_owned()))?;
        generator.contact = now;
        Ok(generator)
    }

    /// A generator's stream broke: its lease begins now.
    pub(super) fn parted(&mut self, now: Millis, gid: &str, session: u64) {
        if let Some(generator) = self.generators.get_mut(gid).filter(|one| one.session == session) {
            generator.contact = now;
        }
    }

    /// Lets a poll wait for something to tell. `session` is that of a stream, which must not speak for another one's generator.
    pub(super) fn poll(&mut self, now: Millis, gid: &str, session: Option<u64>, poll: Poll) -> Result<(), RelayError> {
        let generator = self.contact(now, gid)?;
        if session.is_some_and(|session| session != generator.session) {
            return Err(RelayError::TakenOver(gid.to_owned()));
        }
        generator.park(poll);
        Ok(())
    }

    /// A task was started for a relay.
    pub(super) fn assign(&mut self, spawn: Spawn) {
        let Work::Relay(assignment) = spawn.work else {
            return;
        };
        let ns = assignment.ns.to_string();
        let task = Task {
            token: token(self.boot, spawn.run),
            grant: spawn.grant,
            index: spawn.task,
            attempt: spawn.attempt,
            ns: ns.clone(),
            priority: assignment.priority,
            spec: assignment.spec,
            lease_ms: 0,
        };
        if !self.generators.values().any(|generator| generator.ns == ns) {
            // The last one left while the driver decided.
            self.todo.ended.push((spawn.run, Outcome::Lost));
            return;
        }
        self.runs.insert(spawn.run, Run { task, hands: Hands::Nobody, kill_at: None });
        self.waiting.entry(ns).or_default().push_back(spawn.run);
    }

    /// A task is to stop: at once if nobody works on it, else by its relay's word.
    pub(super) fn kill(&mut self, now: Millis, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        match &run.hands {
            Hands::Nobody | Hands::Untold(_) => self.end(id, Outcome::Signal(TERMINATED)),
            Hands::Works(gid) => {
                run.kill_at = Some(now + KILL_MS);
                if let Some(generator) = self.generators.get_mut(gid) {
                    generator.cancelled.push(id);
                }
            }
            // The report is on its way already.
            Hands::Ending(_) => {}
        }
    }

    /// Whether `gid` may report on a run.
    pub(super) fn holds(&mut self, now: Millis, gid: &str, id: RunId) -> Result<(), RelayError> {
        self.contact(now, gid)?;
        match self.runs.get(&id).map(|run| &run.hands) {
            Some(Hands::Works(holder) | Hands::Untold(holder)) if holder == gid => Ok(()),
            Some(Hands::Works(holder) | Hands::Untold(holder)) => Err(RelayError::NotYours(holder.clone())),
            Some(Hands::Ending(_) | Hands::Nobody) | None => Err(CommandError::NotHeld.into()),
        }
    }

    /// The end of a run was reported; its slot is free while that is being logged.
    pub(super) fn ending(&mut self, gid: &str, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.hands = Hands::Ending(gid.to_owned());
        }
    }

    /// The end was not logged: the generator has the task as before.
    pub(super) fn goes_on(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id)
            && let Hands::Ending(gid) = &run.hands
        {
            run.hands = Hands::Works(gid.clone());
        }
    }

    /// The end is in the log.
    pub(super) fn over(&mut self, id: RunId) {
        self.forget(id);
    }

    /// Who has a task, for programs that find their tasks in Facts: one that waits goes to the generator of its namespace with the most room.
    pub(super) fn claim(&mut self, now: Millis, job: &JobId, index: u32) -> Result<Held, RelayError> {
        let is_meant = |run: &Run| run.task.grant.job == *job && run.task.index == index;
        let (id, run) = self.runs.iter_mut().find(|(_, run)| is_meant(run)).ok_or(CommandError::NotHeld)?;
        let id = *id;
        let gid = match &run.hands {
            Hands::Nobody => {
                let of_namespace = self.generators.iter().filter(|(_, generator)| generator.ns == run.task.ns);
                let most_room = of_namespace.max_by_key(|(_, generator)| {
                    let load = u32::try_from(generator.hands.len()).unwrap_or(u32::MAX);
                    (generator.callback.is_some(), generator.slots.saturating_sub(load))
                });
                let (gid, _) = most_room.ok_or(CommandError::NotHeld)?;
                if let Some(queue) = self.waiting.get_mut(&run.task.ns) {
                    queue.retain(|waiting| *waiting != id);
                }
                gid.clone()
            }
            Hands::Untold(gid) | Hands::Works(gid) => gid.clone(),
            Hands::Ending(_) => return Err(CommandError::NotHeld.into()),
        };
        run.hands = Hands::Works(gid.clone());
        let token = run.task.token.clone();
        self.contact(now, &gid)?.hands.insert(id);
        Ok(Held { gid, token })
    }

    /// Facts of these namespaces' jobs changed.
    pub(super) fn touched(&mut self, touched: &Touched) {
        for generator in self.generators.values_mut().filter(|generator| touched.has(&generator.ns)) {
            generator.poke();
        }
    }

    /// A callback ended.
    pub(super) fn called(&mut self, now: Millis, call: &Call, is_ok: bool) {
        self.calls = self.calls.saturating_sub(1);
        // Somebody may have registered under that name since.
        if let Some(generator) = self.generators.get_mut(&call.gid).filter(|one| one.session == call.session) {
            generator.called(now, is_ok);
        }
    }

    /// Ends a run here and tells of it.
    fn end(&mut self, id: RunId, outcome: Outcome) {
        if self.forget(id) {
            self.todo.ended.push((id, outcome));
        }
    }

    /// Takes a run out of the table; false if it was not there.
    fn forget(&mut self, id: RunId) -> bool {
        let Some(run) = self.runs.remove(&id) else {
            return false;
        };
        match run.hands.gid() {
            Some(gid) => {
                if let Some(generator) = self.generators.get_mut(gid) {
                    generator.hands.remove(&id);
                    generator.cancelled.retain(|cancelled| *cancelled != id);
                }
            }
            None => {
                if let Some(queue) = self.waiting.get_mut(&run.task.ns) {
                    queue.retain(|waiting| *waiting != id);
                }
            }
        }
        true
    }

    /// Everything that time and what was done before it bring about.
    pub(super) fn settle(&mut self, now: Millis) -> Todo {
        self.expire(now);
        self.answer_polls(now);
        self.start_calls(now);
        let served = self.serving();
        if served != self.served {
            self.served.clone_from(&served);
            self.todo.relays = Some(served);
        }
        std::mem::take(&mut self.todo)
    }

    fn expire(&mut self, now: Millis) {
        for generator in self.generators.values_mut() {
            generator.renew(now);
        }
        let gone = self.generators.iter().filter(|(_, generator)| generator.ends_at().is_some_and(|end| end <= now));
        let gone: Vec<String> = gone.map(|(gid, _)| gid.clone()).collect();
        for gid in gone {
            tracing::info!(relay = %gid, "a relay's lease ran out; its tasks are granted again");
            self.leave(&gid);
        }
        let overdue = self.runs.iter().filter(|(_, run)| run.kill_at.is_some_and(|at| at <= now));
        let overdue: Vec<RunId> = overdue.map(|(id, _)| *id).collect();
        for id in overdue {
            self.end(id, Outcome::Signal(TERMINATED));
        }
    }

    /// Starts callbacks, those that failed least first: hanging ones must not hold up the others.
    fn start_calls(&mut self, now: Millis) {
        let due = self.generators.iter().filter(|(_, generator)| generator.call_at().is_some_and(|at| at <= now));
        let mut due: Vec<(u32, String)> = due.map(|(gid, generator)| (generator.failures(), gid.clone())).collect();
        due.sort();
        for (_, gid) in due.into_iter().take(CALLS_MAX.saturating_sub(self.calls)) {
            if let Some(generator) = self.generators.get_mut(&gid)
                && let Some(callback) = generator.start_call()
            {
                self.calls += 1;
                self.todo.calls.push(Call { gid, session: generator.session, callback });
            }
        }
    }

    /// What the generators take, by namespace.
    fn serving(&self) -> Vec<RelaySlots> {
        let mut slots: BTreeMap<&str, u32> = BTreeMap::new();
        for generator in self.generators.values() {
            *slots.entry(&generator.ns).or_default() += generator.slots;
        }
        slots.into_iter().map(|(ns, slots)| RelaySlots { ns: ns.into(), slots }).collect()
    }

    /// When `settle` has something to do without anything else happening.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let calls = |generator: &Generator| if self.calls < CALLS_MAX { generator.call_at() } else { None };
        let generators = self.generators.values();
        let moments = generators.flat_map(|one| [one.ends_at(), one.renew_at(), one.poll_ends_at(), calls(one)]);
        moments.flatten().chain(self.runs.values().filter_map(|run| run.kill_at)).min()
    }

    /// Everybody, for people.
    pub(super) fn list(&self, now: Millis) -> Vec<GeneratorView> {
        let view = |(gid, generator): (&String, &Generator)| {
            let reach = match (generator.is_streaming(), &generator.callback) {
                (true, _) => Reach::Stream,
                (false, Some(_)) => Reach::Callback,
                (false, None) => Reach::Calls,
            };
            GeneratorView {
                gid: gid.clone(),
                ns: generator.ns.clone(),
                slots: generator.slots,
                held: generator.hands.len(),
                waiting: self.waiting.get(&generator.ns).map_or(0, VecDeque::len),
                silent_ms: if generator.is_live() { 0 } else { now.saturating_sub(generator.contact) },
                lease_ms: generator.lease_ms,
                reach,
            }
        };
        self.generators.iter().map(view).collect()
    }
}
