//! The driver: the one actor that owns the Machine.
//!
//! Invariants: nothing else touches the Machine; the driver's thread never waits for a peer, a disk or a process, only for its own queue; it takes whatever is
//! queued before it flushes, so that writes group by themselves.
//! Does not: decide anything (`starling_core::machine` does) or do any IO (the `Edges` it is given do).

mod handle;

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use handle::Message;
pub use handle::{Clock, Handle, Question, Stopped};
use starling_core::ids::RequestId;
use starling_core::machine::{Effect, Input, Machine, Notice, Reply, SnapshotNews};
use tokio::sync::oneshot;
use tracing::{error, warn};

/// Inputs that wait for the driver. Full: edges wait, the API answers that the node is busy.
const QUEUE: usize = 4_096;
/// News that a slow subscriber may lag behind before it must ask again.
const NEWS: usize = 4_096;
/// Messages taken in one go before effects are looked at again, so that one flood cannot starve timers.
const BURST: usize = 512;

/// What carries out effects. Called on the driver's thread, so nothing in it may block.
pub trait Edges: Send {
    /// Carries out one effect. `Reply` and `Notice` never get here.
    fn perform(&mut self, effect: Effect);
}

/// Creates the handle and the queue that `run` serves.
#[must_use]
pub fn channel(clock: Clock) -> (Handle, Queue) {
    let (tx, rx) = std::sync::mpsc::sync_channel(QUEUE);
    let (news, _) = tokio::sync::broadcast::channel(NEWS);
    (Handle::new(tx, news.clone(), clock), Queue { rx, news, clock })
}

/// The driver's end.
#[derive(Debug)]
pub struct Queue {
    rx: Receiver<Message>,
    news: tokio::sync::broadcast::Sender<Notice>,
    clock: Clock,
}

struct Driver<E> {
    machine: Machine,
    edges: E,
    news: tokio::sync::broadcast::Sender<Notice>,
    clock: Clock,
    waiting: std::collections::BTreeMap<RequestId, oneshot::Sender<Reply>>,
    next_request: u64,
    stopped: bool,
}

/// Serves the queue until the clean-shutdown marker is on disk or every handle is gone.
pub fn run<E: Edges>(machine: Machine, queue: Queue, edges: E) {
    let Queue { rx, news, clock } = queue;
    let waiting = std::collections::BTreeMap::new();
    let mut driver = Driver { machine, edges, news, clock, waiting, next_request: 0, stopped: false };
    while !driver.stopped {
        let now = clock.now();
        let wait = driver.machine.next_deadline().since_ms(now.mono);
        match rx.recv_timeout(Duration::from_millis(wait)) {
            Ok(message) => {
                driver.take(message);
                for message in rx.try_iter().take(BURST) {
                    driver.take(message);
                }
                driver.release();
            }
            Err(RecvTimeoutError::Timeout) => driver.step(Input::Tick),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
}

impl<E: Edges> Driver<E> {
    fn take(&mut self, message: Message) {
        match message {
            Message::Input(input) => self.step(*input),
            Message::Command(command, answer) => {
                self.next_request += 1;
                let request = RequestId(self.next_request);
                self.waiting.insert(request, answer);
                self.step(Input::Command { request, command: *command });
            }
            Message::Question(question) => {
                let now = self.clock.now();
                question.0(&mut self.machine, now);
            }
        }
    }

    /// Runs the timers that came due while a burst was taken.
    fn release(&mut self) {
        if self.machine.next_deadline() <= self.clock.now().mono {
            self.step(Input::Tick);
        }
    }

    fn step(&mut self, input: Input) {
        for effect in self.machine.step(self.clock.now(), input) {
            match effect {
                Effect::Reply { request, reply } => {
                    if let Some(answer) = self.waiting.remove(&request) {
                        // The client may have gone; its job goes on.
                        let _gone = answer.send(reply);
                    }
                }
                Effect::Notice(notice) => self.tell(notice),
                other @ (Effect::Write { .. }
                | Effect::Gossip(_)
                | Effect::Publish(_)
                | Effect::Send { .. }
                | Effect::Serve { .. }
                | Effect::Retire(_)
                | Effect::Snapshot(_)
                | Effect::Fetch { .. }
                | Effect::Spawn(_)
                | Effect::Kill(_)) => self.edges.perform(other),
            }
        }
    }

    fn tell(&mut self, notice: Notice) {
        match &notice {
            Notice::Folded(_) | Notice::Gateway(_) | Notice::GatewayFacts => {}
            Notice::Snapshot(news) => tell_of_snapshot(news),
            Notice::NodeDead(node) => {
                warn!(%node, "node is silent; its unfinished tasks are granted again");
            }
            Notice::Adopted { log, by } => {
                warn!(author = %log.node, epoch = %log.epoch, %by, "a node took over the jobs of a silent one");
            }
            Notice::Forked(log) => error!(?log, "a member signed two different things for one position of its log"),
            Notice::RootMismatch(node) => {
                error!(%node, "equal logs gave different facts here and there; please report this");
            }
            Notice::DiskRefuses(reason) => {
                error!(%reason, "the disk refuses writes; new submissions are refused");
            }
            Notice::DiskAccepts => warn!("the disk takes writes again"),
            Notice::Twin => error!("another process runs with this node's identity"),
            Notice::Stopped => self.stopped = true,
        }
        // Nobody may be listening.
        let _nobody = self.news.send(notice);
    }
}

fn tell_of_snapshot(news: &SnapshotNews) {
    match news {
        SnapshotNews::Written => {}
        SnapshotNews::Failed(reason) => warn!(%reason, "no snapshot was written; the log grows until one is"),
        SnapshotNews::Joined(node) => warn!(%node, "this node was far behind; it took over a snapshot"),
        SnapshotNews::Refused { from, reason } => {
            warn!(node = %from, %reason, "a snapshot was refused; others are asked");
        }
    }
}
