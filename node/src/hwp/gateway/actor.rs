//! The actor: owns the table, tells the driver, makes calls, and keeps the sessions.
//!
//! Invariants: runs on a thread of its own, so that it may wait for the driver's queue; it never waits for a worker, nor for the thread that writes output.
//! Does not: decide anything about tasks or workers (`table` does).

use std::collections::VecDeque;
use std::time::Duration;

use starling_core::ids::{GatewayTerm, NodeId};
use starling_core::machine::{Input, Machine, Notice};
use starling_core::time::Now;
use starling_proto::hwp;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tonic::Streaming;
use tracing::{error, info};

use super::dial::Called;
use super::handle::{Answer, Effect, Handle, Message};
use super::logs::{Close, Closed, Heard, Logs};
use super::outbox::Outbox;
use super::session::{self, Session};
use super::table::{Millis, Table, Taken, Todo};
use super::{Options, Refusal, Tails};
use crate::driver;
use crate::hwp::id::AssignmentId;
use crate::output::Files;

/// What the driver may say before the actor looks: many more than start in a burst. Full: the task goes back to its owner.
const EFFECTS: usize = 65_536;
/// Calls that wait for the actor. Full: callers wait.
const MESSAGES: usize = 1_024;
/// Outputs that are complete and were not looked at. Full: the thread that writes waits.
const CLOSED: usize = 1_024;
/// Messages taken in one go.
const BURST: usize = 256;
/// Streams without a name. More are refused.
const IDLE_STREAMS_MAX: usize = 1_024;
/// Late results that are remembered, so that each is logged once.
const LATE_MAX: usize = 1_024;
/// Longest sleep.
const IDLE: Duration = Duration::from_secs(60);

/// Starts the gateway on a thread of its own. It ends with the driver.
///
/// # Errors
/// If the system gives no thread.
pub fn start(
    driver: driver::Handle,
    files: Files,
    me: NodeId,
    tails: Tails,
    runtime: &tokio::runtime::Handle,
) -> std::io::Result<Handle> {
    start_with(driver, files, me, tails, Options::default(), runtime)
}

/// As `start`, with other bounds.
///
/// # Errors
/// As `start`.
pub fn start_with(
    driver: driver::Handle,
    files: Files,
    me: NodeId,
    tails: Tails,
    options: Options,
    runtime: &tokio::runtime::Handle,
) -> std::io::Result<Handle> {
    let (effects, from_driver) = mpsc::channel(EFFECTS);
    let (messages, calls) = mpsc::channel(MESSAGES);
    let (complete, closed) = mpsc::channel(CLOSED);
    let logs = Logs::start(files, options.output_bytes_max, tails, complete)?;
    let (acting, acts) = watch::channel(false);
    let handle = Handle::new(effects, messages.clone(), acts, driver.clone(), logs.clone());
    let mut watcher = JoinSet::new();
    watcher.spawn_on(watch(driver.clone(), driver.subscribe(), messages), runtime);
    let actor = Actor {
        table: Table::new(me, options, logs.clone()),
        handle: handle.clone(),
        driver,
        logs,
        calls: JoinSet::new(),
        sessions: JoinSet::new(),
        idle: Vec::new(),
        closes: VecDeque::new(),
        late: VecDeque::new(),
        acting,
        is_over: false,
        _watcher: watcher,
    };
    let runtime = runtime.clone();
    std::thread::Builder::new()
        .name("gateway".to_owned())
        .spawn(move || runtime.block_on(actor.run(from_driver, calls, closed)))
        .map(|_detached| handle)
}

/// Tells the actor how the node stands whenever that changes.
///
/// Cancel safety: a change may be missed; it runs for as long as the actor.
async fn watch(driver: driver::Handle, mut news: broadcast::Receiver<Notice>, tx: mpsc::Sender<Message>) {
    loop {
        let acting = match news.recv().await {
            Ok(Notice::Gateway(standing)) => standing.acting(),
            Ok(
                Notice::Folded(_)
                | Notice::NodeDead(_)
                | Notice::Forked(_)
                | Notice::RootMismatch(_)
                | Notice::DiskRefuses(_)
                | Notice::Snapshot(_)
                | Notice::DiskAccepts
                | Notice::Adopted { .. }
                | Notice::Twin
                | Notice::GatewayFacts,
            ) => continue,
            Ok(Notice::Stopped) | Err(RecvError::Closed) => {
                let _gone = tx.send(Message::Over).await;
                return;
            }
            Err(RecvError::Lagged(_)) => {
                let look = |machine: &mut Machine, _now: Now| machine.election().standing().acting();
                // A driver that is busy: it may have stopped acting; better that workers come back once too often.
                driver.ask(look).await.unwrap_or_default()
            }
        };
        if tx.send(Message::Standing(acting)).await.is_err() {
            return;
        }
    }
}

struct Actor {
    driver: driver::Handle,
    /// For sessions.
    handle: Handle,
    table: Table,
    logs: Logs,
    calls: JoinSet<Called>,
    sessions: JoinSet<()>,
    idle: Vec<Outbox>,
    /// Last words for which the writer had no room.
    closes: VecDeque<Close>,
    late: VecDeque<AssignmentId>,
    acting: watch::Sender<bool>,
    is_over: bool,
    _watcher: JoinSet<()>,
}

impl Actor {
    async fn run(
        mut self,
        mut effects: mpsc::Receiver<Effect>,
        mut messages: mpsc::Receiver<Message>,
        mut closed: mpsc::Receiver<Closed>,
    ) {
        let (mut wanted, mut asked, mut complete) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let wait =
                self.table.next_deadline().map_or(IDLE, |at| Duration::from_millis(at.saturating_sub(self.now())));
            tokio::select! {
                biased;
                count = effects.recv_many(&mut wanted, BURST) => if count == 0 {
                    return;
                },
                count = closed.recv_many(&mut complete, BURST) => if count == 0 {
                    return;
                },
                Some(done) = self.calls.join_next() => self.on_called(done),
                Some(_over) = self.sessions.join_next() => {}
                () = self.logs.room(), if !self.closes.is_empty() => {}
                _count = messages.recv_many(&mut asked, BURST) => {}
                () = tokio::time::sleep(wait) => {}
            }
            let now = self.now();
            for effect in wanted.drain(..) {
                match effect {
                    Effect::Assign(spawn) => self.table.assign(now, &spawn),
                    Effect::Kill(run) => self.table.kill(now, run),
                }
            }
            for closed in complete.drain(..) {
                self.table.closed(now, closed);
            }
            for message in asked.drain(..) {
                self.on_message(now, message);
            }
            let todo = self.table.settle(now);
            if !self.carry_out(todo) || self.is_over {
                return self.stand(None);
            }
        }
    }

    fn now(&self) -> Millis {
        self.handle.now()
    }

    fn on_message(&mut self, now: Millis, message: Message) {
        match message {
            Message::Register { name, capabilities, dialler, answer } => {
                reply(answer, self.table.register(now, &name, *capabilities, dialler));
            }
            Message::Attach { name, inbound, outbox, answer } => {
                let heard = Heard::default();
                let session = self.table.attach(now, &name, outbox.clone(), heard.clone());
                if let Ok(number) = session {
                    let session = Session { name, number, handle: self.handle.clone(), outbox, heard };
                    self.sessions.spawn(session.run(*inbound));
                }
                reply(answer, session.map(|_number| ()));
            }
            Message::Idle { inbound, outbox, answer } => reply(answer, self.keep_idle(*inbound, outbox)),
            Message::Detach { name, session } => self.table.detach(now, &name, session),
            Message::Beat { name, beat, answer } => reply(answer, self.table.beat(now, &name, beat)),
            Message::Status { name, answer } => reply(answer, self.table.status(&name)),
            Message::Accepted { name, id } => self.table.accepted(now, &name, id),
            Message::Result { from, id, fill, answer } => {
                let taken = match self.table.acts() {
                    Ok(()) => Ok(self.table.result(now, from.as_ref(), id, *fill)),
                    Err(refusal) => Err(refusal),
                };
                if taken == Ok(Taken::Late) {
                    self.log_late(id);
                }
                if let Some(answer) = answer {
                    reply(answer, taken);
                }
            }
            Message::List { answer } => reply(answer, Ok(self.table.list(now))),
            Message::Standing(acting) => self.stand(acting),
            Message::Over => self.is_over = true,
        }
    }

    fn stand(&mut self, acting: Option<GatewayTerm>) {
        if let Some(term) = acting {
            info!(%term, "this node is the gateway: workers are served here");
        }
        self.table.stand(acting);
        self.acting.send_replace(acting.is_some());
        if acting.is_none() {
            self.idle.drain(..).for_each(|outbox| outbox.end(Refusal::NotActing.into()));
        }
    }

    /// A stream without a name: it gets its headers, and nothing else.
    fn keep_idle(&mut self, inbound: Streaming<hwp::AgentMessage>, outbox: Outbox) -> Result<(), Refusal> {
        self.table.acts()?;
        self.idle.retain(|outbox| !outbox.is_over());
        if self.idle.len() >= IDLE_STREAMS_MAX {
            return Err(Refusal::TooMany);
        }
        self.idle.push(outbox.clone());
        self.sessions.spawn(session::idle(inbound, outbox));
        Ok(())
    }

    fn log_late(&mut self, id: AssignmentId) {
        if self.late.contains(&id) {
            return;
        }
        info!(task = %id, "a late result changes nothing");
        if self.late.len() >= LATE_MAX {
            self.late.pop_front();
        }
        self.late.push_back(id);
    }

    fn on_called(&mut self, done: Result<Called, tokio::task::JoinError>) {
        match done {
            Ok(called) => self.table.called(self.now(), called),
            Err(error) => error!(%error, "a call to a worker was dropped"),
        }
    }

    /// False once the driver has ended.
    fn carry_out(&mut self, todo: Todo) -> bool {
        let Todo { workers, ended, closes, calls } = todo;
        self.closes.extend(closes);
        while let Some(close) = self.closes.pop_front() {
            if let Some(close) = self.logs.try_close(close) {
                self.closes.push_front(close);
                break;
            }
        }
        for call in calls {
            self.calls.spawn(call.make());
        }
        let workers = workers.map(Input::Workers);
        let ended = ended.into_iter().map(|(run, outcome, usage)| Input::TaskEnded { run, outcome, usage });
        workers.into_iter().chain(ended).all(|input| self.driver.input(input))
    }
}

/// Answers a caller, who may have gone.
fn reply<T>(answer: Answer<T>, result: Result<T, Refusal>) {
    let _gone = answer.send(result);
}
