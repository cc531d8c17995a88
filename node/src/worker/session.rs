//! The worker's stream to a server: registers, takes assignments, sends what jobs say and how they end, and beats.
//!
//! Invariants: one session at a time; whatever ends it, the next one follows, for ever; a server that does not read its stream holds up lines and results only, and
//! is left when answers pile up; a refusal is told once, and tried again slowly.
//! Does not: run jobs, or keep anything (`desk`, `results`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::stream::{PollNext, select_with_strategy};
use starling_proto::hwp::agent_message::Payload;
use starling_proto::hwp::server_message::Payload as Wish;
use starling_proto::hwp::{
    AgentMessage, HeartbeatRequest, JobAccepted, ServerMessage, StreamedAssignment, StreamedResult, WorkerRegistration,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use super::backoff::Backoff;
use super::desk::{Handle, Taken};
use super::follow::Sender;
use super::job::Assignment;
use super::link::{CALL_MAX, Client, Parting, Servers};
use super::results::Results;
use super::usage::Meter;
use super::{Limits, Tell};

/// Lines and results on their way; whoever has more waits.
const MESSAGES: usize = 64;
/// Answers to assignments on their way; a server that lets more pile up is left.
const REPLIES: usize = 4_096;
/// A session as long as this was a good one: the next try is made at once.
const GOOD: Duration = Duration::from_secs(5);
/// Heartbeats that may fail one after the other.
const BEATS_MISSED_MAX: u32 = 3;
/// When the worker stops: for the server to take what was sent.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// What sessions work with.
pub(super) struct Worker {
    pub(super) id: String,
    pub(super) capabilities: Vec<String>,
    pub(super) servers: Arc<Servers>,
    pub(super) handle: Handle,
    pub(super) results: Arc<Results>,
    pub(super) tell: Tell,
    pub(super) limits: Limits,
    /// True when results that are ready are all that is still wanted.
    pub(super) closing: watch::Receiver<bool>,
}

/// Tells how the link is: every trouble once, until all is well again.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Servers, and what was wrong with them.
    troubles: BTreeSet<(String, Trouble)>,
    is_well: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Refused,
    Lost,
}

impl Told {
    /// All is well, as `text` says.
    pub(super) fn well(&mut self, tell: &Tell, text: &str) {
        if !self.is_well {
            tell(text);
        }
        *self = Self { troubles: BTreeSet::new(), is_well: true };
    }

    pub(super) fn refused(&mut self, tell: &Tell, url: &str, why: &str) {
        if self.is_new(url, Trouble::Refused) {
            tell(&format!("{url} refuses this worker: {why}; trying again every few seconds"));
        }
    }

    pub(super) fn lost(&mut self, tell: &Tell, url: &str, why: &str) {
        if self.is_new(url, Trouble::Lost) {
            tell(&format!("no link to {url} ({why}); trying again"));
        }
    }

    fn is_new(&mut self, url: &str, trouble: Trouble) -> bool {
        self.is_well = false;
        self.troubles.insert((url.to_owned(), trouble))
    }
}

/// Holds sessions until the worker closes. `lines` is the present session's, for those who follow jobs.
pub(super) async fn run(worker: Worker, lines: watch::Sender<Option<Sender>>) {
    let (mut backoff, mut told) = (Backoff::default(), Told::default());
    loop {
        let begin = Instant::now();
        let (client, url) = worker.servers.client();
        let parting = hold(&worker, client, &url, &lines, &mut told).await;
        lines.send_replace(None);
        if begin.elapsed() >= GOOD {
            backoff.reset();
        }
        let pause = match parting {
            Parting::Closed => return,
            Parting::Refused(why) => {
                told.refused(&worker.tell, &url, &why);
                worker.limits.refused
            }
            Parting::Lost(why) => {
                told.lost(&worker.tell, &url, &why);
                backoff.pause()
            }
        };
        worker.servers.rotate();
        let mut closing = worker.closing.clone();
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = sleep(pause) => {}
        }
    }
}

/// Registers at a server.
pub(super) async fn register(worker: &Worker, client: &mut Client, capabilities: Vec<String>) -> Result<(), Parting> {
    let registration = WorkerRegistration { worker_id: worker.id.clone(), capabilities };
    let status = within(client.register_worker(registration)).await?;
    tracing::debug!(state = status.into_inner().state, "registered");
    Ok(())
}

/// A call with a deadline.
pub(super) async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded(format!("no answer within {} s", CALL_MAX.as_secs()));
    timeout(CALL_MAX, call).await.map_err(late)?
}

/// One session.
async fn hold(
    worker: &Worker,
    mut client: Client,
    url: &str,
    lines: &watch::Sender<Option<Sender>>,
    told: &mut Told,
) -> Parting {
    if let Err(parting) = register(worker, &mut client, worker.capabilities.clone()).await {
        return parting;
    }
    let (messages_tx, messages) = mpsc::channel(MESSAGES);
    let (replies_tx, replies) = mpsc::channel(REPLIES);
    // That a job was accepted is told before its lines are.
    let first = |_: &mut ()| PollNext::Left;
    let outgoing = select_with_strategy(ReceiverStream::new(replies), ReceiverStream::new(messages), first);
    let mut incoming = match within(client.job_stream(Request::new(outgoing))).await {
        Ok(incoming) => incoming.into_inner(),
        Err(status) => return status.into(),
    };
    told.well(&worker.tell, &format!("attached to {url} as worker {}", worker.id));
    // A new server does not know what runs here.
    for job_id in worker.handle.current().await {
        if replies_tx.try_send(accepted(job_id)).is_err() {
            return unread();
        }
    }
    lines.send_replace(Some(messages_tx.clone()));
    let parting = tokio::select! {
        biased;
        parting = hear(worker, &mut incoming, &replies_tx) => parting,
        parting = beat(worker, client) => parting,
        parting = hand_in(worker, &messages_tx) => parting,
    };
    // Ends the stream on this side, once what is in it was sent.
    lines.send_replace(None);
    drop((messages_tx, replies_tx));
    if matches!(parting, Parting::Closed) {
        let _late = timeout(CLOSE_MAX, async { while let Ok(Some(_)) = incoming.message().await {} }).await;
    }
    parting
}

fn unread() -> Parting {
    Parting::Lost("the server does not read what it is sent".to_owned())
}

fn accepted(job_id: String) -> AgentMessage {
    AgentMessage { payload: Some(Payload::JobAccepted(JobAccepted { job_id })) }
}

/// Does what the server says.
async fn hear(
    worker: &Worker,
    incoming: &mut Streaming<ServerMessage>,
    replies: &mpsc::Sender<AgentMessage>,
) -> Parting {
    loop {
        let wish = match incoming.message().await {
            Ok(Some(message)) => message.payload,
            Ok(None) => return Parting::Lost("the server closed the stream".to_owned()),
            Err(status) => return status.into(),
        };
        match wish {
            Some(Wish::AssignJob(assignment)) => {
                for reply in assign(worker, assignment).await {
                    if replies.try_send(reply).is_err() {
                        return unread();
                    }
                }
            }
            Some(Wish::CancelJob(cancel)) => {
                let outcome = worker.handle.cancel(cancel.job_id.clone()).await;
                tracing::debug!(job = cancel.job_id, ?outcome, "cancel heard");
            }
            // Of a later protocol.
            None => {}
        }
    }
}

async fn assign(worker: &Worker, assignment: StreamedAssignment) -> Vec<AgentMessage> {
    let StreamedAssignment { job_id, job_spec, .. } = assignment;
    let spec = job_spec.unwrap_or_default();
    let assignment = Assignment {
        job_id: job_id.clone(),
        image: spec.image,
        command: spec.command,
        env: spec.env,
        timeout: (spec.timeout_ms > 0).then(|| Duration::from_millis(spec.timeout_ms)),
    };
    let refused = |why: &str| {
        let result = StreamedResult {
            job_id: job_id.clone(),
            exit_code: -1,
            stderr: why.to_owned(),
            ..StreamedResult::default()
        };
        AgentMessage { payload: Some(Payload::JobResult(result)) }
    };
    match worker.handle.assign(assignment).await {
        Taken::New | Taken::Known => vec![accepted(job_id)],
        Taken::Full => vec![accepted(job_id.clone()), refused("worker is full")],
        Taken::Stopping => vec![accepted(job_id.clone()), refused("worker is stopping")],
    }
}

/// Sends every result that is ready, each once; when the worker closes, returns after the last one.
async fn hand_in(worker: &Worker, messages: &Sender) -> Parting {
    let (mut changes, mut closing) = (worker.results.changes(), worker.closing.clone());
    let mut sent = BTreeSet::new();
    loop {
        changes.borrow_and_update();
        let is_last = *closing.borrow_and_update();
        let ready = worker.results.ready();
        sent.retain(|no| ready.contains(no));
        for no in ready {
            if !sent.insert(no) {
                continue;
            }
            let results = Arc::clone(&worker.results);
            let kept = tokio::task::spawn_blocking(move || results.load(no)).await;
            for message in kept.ok().flatten().map(|kept| kept.messages()).into_iter().flatten() {
                if messages.send(message).await.is_err() {
                    return Parting::Lost("the stream broke".to_owned());
                }
            }
        }
        if is_last {
            return Parting::Closed;
        }
        tokio::select! {
            Ok(()) = changes.changed() => {}
            Ok(()) = closing.changed() => {}
            else => return Parting::Closed,
        }
    }
}

/// Beats until the server does not answer any more, or does not know this worker.
async fn beat(worker: &Worker, mut client: Client) -> Parting {
    let mut ticks = interval(worker.limits.heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let seconds = worker.limits.heartbeat.as_secs();
    let mut meter = Some(Meter::start());
    let mut missed = 0;
    loop {
        ticks.tick().await;
        let jobs = worker.handle.current().await.len();
        let Some(mut taken) = meter.take() else { return Parting::Lost("this machine cannot be read".to_owned()) };
        let read = tokio::task::spawn_blocking(move || {
            let usage = taken.read(jobs, seconds);
            (taken, usage)
        });
        let Ok((back, usage)) = read.await else { return Parting::Closed };
        meter = Some(back);
        let request =
            HeartbeatRequest { worker_id: worker.id.clone(), timestamp: now_unix_ms(), resource_usage: Some(usage) };
        let Err(status) = within(client.heartbeat(request)).await else {
            missed = 0;
            continue;
        };
        match status.code() {
            // Servers of the published protocol have no heartbeat.
            Code::Unimplemented => std::future::pending().await,
            Code::NotFound | Code::Unauthenticated | Code::PermissionDenied => return status.into(),
            _ if missed + 1 >= BEATS_MISSED_MAX => return status.into(),
            _ => missed += 1,
        }
    }
}

fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
