//! The actor: owns the table, tells the driver, makes callbacks, and carries reports to the Machine.
//!
//! Invariants: runs on a thread of its own, so that it may wait for the driver's queue; reports and callbacks run beside it, each kind within its bound; a
//! report that was accepted is carried out, whether or not its client waits.
//! Does not: decide anything about tasks (`table` does).

use std::time::Duration;

use starling_core::event::WorkSpec;
use starling_core::facts::Usage;
use starling_core::ids::RunId;
use starling_core::machine::{Command, CommandError, Input, Machine, Reply};
use starling_core::time::Now;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::error;

use super::callback::Caller;
use super::handle::{Effect, Handle, Message};
use super::spec::{self, Effect as ReportEffect};
use super::table::{Call, Millis, Table, Todo};
use super::{GENERATORS_MAX, RelayError, SLOTS_MAX, news, run_of};
use crate::driver::{self, Stopped};

/// What the driver may say before the actor looks: every slot of every generator started, killed, and both once more. Never full but by a bug.
const EFFECTS: usize = 4 * GENERATORS_MAX * SLOTS_MAX as usize;
/// Calls that wait for the actor. Full: callers wait.
const MESSAGES: usize = 1_024;
/// Messages taken in one go, so that polls get many tasks at once.
const BURST: usize = 256;
/// Reports on their way to the log. More are refused as busy.
const REPORTS_MAX: usize = 4_096;
/// Longest sleep.
const IDLE: Duration = Duration::from_secs(60);

/// Starts the manager on a thread of its own. It ends with the driver, or when all handles are gone.
///
/// # Errors
/// If the system gives no thread.
pub fn start(driver: driver::Handle, runtime: &tokio::runtime::Handle) -> std::io::Result<Handle> {
    let (effects, from_driver) = mpsc::channel(EFFECTS);
    let (messages, calls) = mpsc::channel(MESSAGES);
    let handle = Handle::new(effects, messages.clone());
    let (has_generators, watched) = watch::channel(false);
    let boot: u64 = rand::random();
    let mut watcher = JoinSet::new();
    let news = driver.subscribe();
    watcher.spawn_on(news::watch(driver.clone(), news, messages, watched), runtime);
    let actor = Actor {
        driver,
        boot,
        table: Table::new(boot),
        caller: Caller::new(),
        callbacks: JoinSet::new(),
        reports: JoinSet::new(),
        has_generators,
        _watcher: watcher,
    };
    let runtime = runtime.clone();
    std::thread::Builder::new()
        .name("relay".to_owned())
        .spawn(move || runtime.block_on(actor.run(from_driver, calls)))
        .map(|_detached| handle)
}

struct Actor {
    driver: driver::Handle,
    boot: u64,
    table: Table,
    caller: Caller,
    callbacks: JoinSet<(Call, bool)>,
    reports: JoinSet<Step>,
    has_generators: watch::Sender<bool>,
    _watcher: JoinSet<()>,
}

/// A report on its way.
#[derive(Debug)]
struct Report {
    gid: String,
    run: RunId,
    kind: String,
    answer: oneshot::Sender<Result<(), RelayError>>,
}

/// How far a report has come.
#[derive(Debug)]
enum Step {
    /// It was checked.
    Judged(Report, Result<(WorkSpec, ReportEffect), RelayError>),
    /// The Machine has answered.
    Told(Report, ReportEffect, Result<(), RelayError>),
}

impl Actor {
    async fn run(mut self, mut effects: mpsc::Receiver<Effect>, mut messages: mpsc::Receiver<Message>) {
        let (mut wanted, mut asked) = (Vec::new(), Vec::new());
        loop {
            let wait =
                self.table.next_deadline().map_or(IDLE, |at| Duration::from_millis(at.saturating_sub(self.now())));
            tokio::select! {
                biased;
                count = effects.recv_many(&mut wanted, BURST) => if count == 0 {
                    return;
                },
                Some(done) = self.reports.join_next() => self.on_step(done),
                Some(done) = self.callbacks.join_next() => self.on_called(done),
                _count = messages.recv_many(&mut asked, BURST) => {}
                () = tokio::time::sleep(wait) => {}
            }
            // Whatever else is there already is dealt with in one go.
            while wanted.len() < BURST
                && let Ok(effect) = effects.try_recv()
            {
                wanted.push(effect);
            }
            while let Some(done) = self.reports.try_join_next() {
                self.on_step(done);
            }
            for effect in wanted.drain(..) {
                match effect {
                    Effect::Assign(spawn) => self.table.assign(*spawn),
                    Effect::Kill(run) => self.table.kill(self.now(), run),
                }
            }
            for message in asked.drain(..) {
                self.on_message(message);
            }
            let todo = self.table.settle(self.now());
            if !self.carry_out(todo) {
                return;
            }
        }
    }

    fn now(&self) -> Millis {
        self.driver.clock().now().mono.0
    }

    fn on_message(&mut self, message: Message) {
        let now = self.now();
        match message {
            Message::Register { registration, link, answer } => {
                let result = self.table.register(now, registration, link);
                // Before the answer, so that nothing folded after it goes unseen.
                self.has_generators.send_replace(self.table.has_generators());
                reply(answer, result);
            }
            Message::Leave { gid, answer } => {
                let result = self.table.contact(now, &gid).map(|_generator| ());
                self.table.leave(&gid);
                reply(answer, result);
            }
            Message::Contact { gid, answer } => reply(answer, self.table.contact(now, &gid).map(|_generator| ())),
            Message::Poll { gid, session, wait_ms, mut poll, refusal } => {
                poll.until = now + wait_ms;
                reply(refusal, self.table.poll(now, &gid, session, poll));
            }
            Message::TaskOf { job, index, answer } => reply(answer, self.table.claim(now, &job, index)),
            Message::Report { gid, token, kind, spec, answer } => {
                match run_of(self.boot, &token).and_then(|run| self.table.holds(now, &gid, run).map(|()| run)) {
                    Ok(run) => self.judge(Report { gid, run, kind, answer }, spec),
                    Err(error) => reply(answer, Err(error)),
                }
            }
            Message::List { answer } => reply(answer, Ok(self.table.list(now))),
            Message::Parted { gid, session } => self.table.parted(now, &gid, session),
            Message::Touched(touched) => self.table.touched(&touched),
        }
    }

    fn judge(&mut self, report: Report, spec: WorkSpec) {
        if self.reports.len() >= REPORTS_MAX {
            return reply(report.answer, Err(Stopped::Busy.into()));
        }
        let (driver, run, kind) = (self.driver.clone(), report.run, report.kind.clone());
        self.reports.spawn(async move {
            let question = move |machine: &mut Machine, _now: Now| spec::judge(machine, run, &kind, spec);
            let judged = match driver.ask(question).await {
                Ok(judged) => judged.map_err(RelayError::Command),
                Err(stopped) => Err(stopped.into()),
            };
            Step::Judged(report, judged)
        });
    }

    fn on_step(&mut self, step: Result<Step, tokio::task::JoinError>) {
        match step {
            Ok(Step::Judged(report, Ok((spec, effect)))) => self.tell(report, spec, effect),
            Ok(Step::Judged(report, Err(error))) => reply(report.answer, Err(error)),
            Ok(Step::Told(report, effect, result)) => {
                match (effect, &result) {
                    // The Machine does not know the run: it is over, whatever the table says.
                    (ReportEffect::Ends, Ok(())) | (_, Err(RelayError::Command(CommandError::NotHeld))) => {
                        self.table.over(report.run);
                    }
                    (ReportEffect::Ends, Err(_)) => self.table.goes_on(report.run),
                    (ReportEffect::GoesOn, _) => {}
                }
                reply(report.answer, result);
            }
            Err(error) => error!(%error, "a relay's report was dropped"),
        }
    }

    /// Commands the Machine to log a report, unless the task changed hands while it was checked.
    fn tell(&mut self, report: Report, spec: WorkSpec, effect: ReportEffect) {
        if let Err(error) = self.table.holds(self.now(), &report.gid, report.run) {
            return reply(report.answer, Err(error));
        }
        if effect == ReportEffect::Ends {
            self.table.ending(&report.gid, report.run);
        }
        let command = Command::Report { run: report.run, kind: report.kind.as_str().into(), spec };
        let driver = self.driver.clone();
        self.reports.spawn(async move {
            let result = match driver.command(command).await {
                Ok(
                    Reply::Noted
                    | Reply::Imported(_)
                    | Reply::Submitted { .. }
                    | Reply::Cancelled
                    | Reply::Declared { .. },
                ) => Ok(()),
                Ok(Reply::Error(error)) => Err(error.into()),
                Err(stopped) => Err(stopped.into()),
            };
            Step::Told(report, effect, result)
        });
    }

    fn on_called(&mut self, done: Result<(Call, bool), tokio::task::JoinError>) {
        match done {
            Ok((call, is_ok)) => self.table.called(self.now(), &call, is_ok),
            Err(error) => error!(%error, "a callback was dropped"),
        }
    }

    /// False once the driver has ended.
    fn carry_out(&mut self, todo: Todo) -> bool {
        let Todo { relays, ended, calls } = todo;
        self.has_generators.send_if_modified(|has| std::mem::replace(has, self.table.has_generators()) != *has);
        for call in calls {
            let caller = self.caller.clone();
            self.callbacks.spawn(async move {
                let is_ok = caller.poke(&call.callback, &call.gid).await;
                (call, is_ok)
            });
        }
        let relays = relays.map(Input::Relays);
        let ended = ended.into_iter().map(|(run, outcome)| Input::TaskEnded { run, outcome, usage: Usage::default() });
        relays.into_iter().chain(ended).all(|input| self.driver.input(input))
    }
}

/// Answers a caller, who may have gone.
fn reply<T>(answer: oneshot::Sender<Result<T, RelayError>>, result: Result<T, RelayError>) {
    let _gone = answer.send(result);
}
