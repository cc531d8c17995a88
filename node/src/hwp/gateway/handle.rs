//! The cloneable handle to the gateway.
//!
//! Invariants: what the driver says never waits; workers' calls wait for room.

use starling_core::ids::{GatewayTerm, RunId, WorkerName};
use starling_core::machine::Spawn;
use starling_proto::hwp;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Streaming;

use super::capabilities::Capabilities;
use super::dial::Dialler;
use super::logs::{Fill, Logs};
use super::outbox::Outbox;
use super::table::{Beat, Millis, Taken};
use super::{Refusal, Service, WorkerLine};
use crate::driver::{self, Stopped};
use crate::hwp::id::AssignmentId;

/// What the driver wants.
#[derive(Debug)]
pub(super) enum Effect {
    Assign(Box<Spawn>),
    Kill(RunId),
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// What everybody else wants.
#[derive(Debug)]
pub(super) enum Message {
    Register {
        name: WorkerName,
        capabilities: Box<Capabilities>,
        dialler: Option<Dialler>,
        answer: Answer<()>,
    },
    Attach {
        name: WorkerName,
        inbound: Box<Streaming<hwp::AgentMessage>>,
        outbox: Outbox,
        answer: Answer<()>,
    },
    /// A stream without a name.
    Idle {
        inbound: Box<Streaming<hwp::AgentMessage>>,
        outbox: Outbox,
        answer: Answer<()>,
    },
    Detach {
        name: WorkerName,
        session: u64,
    },
    Beat {
        name: WorkerName,
        beat: Beat,
        answer: Answer<()>,
    },
    Status {
        name: WorkerName,
        answer: Answer<hwp::WorkerStatus>,
    },
    Accepted {
        name: WorkerName,
        id: AssignmentId,
    },
    Result {
        from: Option<WorkerName>,
        id: AssignmentId,
        fill: Box<Fill>,
        answer: Option<Answer<Taken>>,
    },
    List {
        answer: Answer<Vec<WorkerLine>>,
    },
    Standing(Option<GatewayTerm>),
    /// The driver has ended.
    Over,
}

/// Access to the gateway.
#[derive(Clone, Debug)]
pub struct Handle {
    effects: mpsc::Sender<Effect>,
    messages: mpsc::Sender<Message>,
    acting: watch::Receiver<bool>,
    pub(super) driver: driver::Handle,
    pub(super) logs: Logs,
}

impl Handle {
    pub(super) fn new(
        effects: mpsc::Sender<Effect>,
        messages: mpsc::Sender<Message>,
        acting: watch::Receiver<bool>,
        driver: driver::Handle,
        logs: Logs,
    ) -> Self {
        Self { effects, messages, acting, driver, logs }
    }

    /// A task to hand to its worker. False if there is no room, or the gateway has ended.
    #[must_use]
    pub fn assign(&self, spawn: Spawn) -> bool {
        self.effects.try_send(Effect::Assign(Box::new(spawn))).is_ok()
    }

    /// A task to stop. A run that no worker was given is left alone.
    pub fn kill(&self, run: RunId) {
        // Without room the worker runs it to its end, which changes nothing any more.
        let _full = self.effects.try_send(Effect::Kill(run));
    }

    /// All workers, those included that are waited for; none where this node is not the gateway.
    ///
    /// Cancel safety: cancel safe.
    pub async fn list(&self) -> Vec<WorkerLine> {
        // If the actor is gone there are none.
        self.ask(|answer| Message::List { answer }).await.unwrap_or_default()
    }

    /// The protocol's face, for workers that came in by `via`, for instance a node's name.
    #[must_use]
    pub fn service(&self, via: String) -> Service {
        Service::new(self.clone(), via)
    }

    pub(super) async fn ask<T>(&self, message: impl FnOnce(Answer<T>) -> Message) -> Result<T, Refusal> {
        let (answer, reply) = oneshot::channel();
        self.tell(message(answer)).await?;
        reply.await.map_err(|_dropped| Stopped::Gone)?
    }

    /// The present moment by the driver's clock.
    pub(super) fn now(&self) -> Millis {
        self.driver.clock().now().mono.0
    }

    /// Waits until this node does not act (any more).
    ///
    /// Cancel safety: cancel safe.
    pub(super) async fn stood_down(&self) {
        let mut acting = self.acting.clone();
        // An actor that is gone does not act.
        let _gone = acting.wait_for(|acts| !*acts).await;
    }

    pub(super) async fn tell(&self, message: Message) -> Result<(), Refusal> {
        self.messages.send(message).await.map_err(|_closed| Stopped::Gone.into())
    }
}
