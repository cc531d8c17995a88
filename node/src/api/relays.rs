//! Relays: registering, work, reports, pokes; by calls and by one stream.
//!
//! Invariants: a report is durable before it is noted; a stream has at most `REPORTS_AHEAD` reports on their way, then it is read no further.
//! Does not: know who holds which task (`relay` does), or what a report means (the Machine does).

use std::collections::BTreeMap;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};
use smol_str::SmolStr;
use starling_core::event::WorkSpec;
use starling_core::facts::view;
use starling_core::ids::JobId;
use starling_core::machine::{CommandError, Machine};
use starling_core::time::Now;
use starling_proto::v1::relay_hear::Hear;
use starling_proto::v1::relay_say::Say;
use starling_proto::v1::{
    RelayCancelled, RelayHear, RelayHello, RelayLine, RelayNoted, RelayPoke, RelayRefused, RelayReport, RelaySay,
    RelayTask, RelayWelcome, RelayWork, RelaysReply,
};
use tokio::sync::mpsc;
use tonic::Status;

use super::context::Api;
use super::convert::{clamp, seen};
use super::status::ApiError;
use super::stream::{Produced, send};
use crate::declare;
use crate::relay::{Batch, Callback, Registration, RelayError, Session, Task, Wants};

/// Reports of one stream on their way to the log.
const REPORTS_AHEAD: usize = 512;
/// Tasks handed over at once.
const TASKS_AT_ONCE: usize = 256;

/// Registers a relay that calls, or is called.
///
/// Cancel safety: it may be registered.
pub(super) async fn register(api: &Api, hello: RelayHello) -> Result<RelayWelcome, ApiError> {
    let registration = registration(api, hello).await?;
    let (gid, namespace) = (registration.gid.clone(), registration.ns.clone());
    let agreed = api.ctx.relays.register(registration).await?;
    Ok(RelayWelcome { gid, namespace, slots: agreed.slots, lease_ms: agreed.lease_ms })
}

/// A registration for a namespace that is known here.
async fn registration(api: &Api, hello: RelayHello) -> Result<Registration, ApiError> {
    let RelayHello { gid, namespace: ns, slots, lease_ms, callback_url } = hello;
    let callback = if callback_url.is_empty() { None } else { Some(Callback::parse(&callback_url)?) };
    let registration = Registration { gid, ns, slots, lease_ms, callback }.complete()?;
    let ns = SmolStr::new(&registration.ns);
    let look = move |machine: &mut Machine, _now: Now| {
        let known = machine.namespaces();
        if known.contains(&ns) { Ok(()) } else { Err(CommandError::UnknownNamespace(ns, known.join(", "))) }
    };
    api.ask(look).await??;
    Ok(registration)
}

/// The relays at this node.
///
/// Cancel safety: cancel safe.
pub(super) async fn list(api: &Api) -> Result<RelaysReply, ApiError> {
    let relays = api.ctx.relays.list().await?;
    let line = |one: crate::relay::GeneratorView| RelayLine {
        gid: one.gid,
        namespace: one.ns,
        slots: one.slots,
        held: clamp(one.held),
        waiting: clamp(one.waiting),
        silent_ms: one.silent_ms,
        lease_ms: one.lease_ms,
        reach: one.reach.word().to_owned(),
    };
    let view = api.ask(|machine: &mut Machine, now: Now| seen(machine, now)).await?;
    Ok(RelaysReply { relays: relays.into_iter().map(line).collect(), view: Some(view) })
}

/// What a poll over HTTP asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// Tasks at most; 0 for as many as there are slots.
    pub(super) max: usize,
    /// How long to wait for something to tell.
    pub(super) wait_ms: u64,
    /// Pokes count as something.
    pub(super) wants: Wants,
}

/// Waits for work.
///
/// Cancel safety: a client that leaves before the answer is sent leaves its tasks; one that loses it registers again.
pub(super) async fn work(api: &Api, gid: &str, ask: Ask) -> Result<RelayWork, ApiError> {
    let max = if ask.max == 0 { TASKS_AT_ONCE } else { ask.max.min(TASKS_AT_ONCE) };
    let Batch { tasks, cancelled, poked } = api.ctx.relays.poll(gid, ask.wants, max, ask.wait_ms).await?;
    Ok(RelayWork { tasks: told(api, tasks).await, cancelled, poked })
}

/// Leaves; the relay's tasks are granted again.
///
/// Cancel safety: it may have left.
pub(super) async fn leave(api: &Api, gid: &str) -> Result<(), ApiError> {
    Ok(api.ctx.relays.leave(gid).await?)
}

/// A relay's word on a task.
///
/// Cancel safety: once the manager has it, it is carried out.
pub(super) async fn report(api: &Api, gid: &str, report: RelayReport) -> Result<RelayNoted, ApiError> {
    let RelayReport { task, kind, spec, id } = report;
    api.ctx.relays.report(gid, &task, &kind, from_json(&spec)?).await?;
    Ok(RelayNoted { id })
}

/// A poke for each change, many in one.
///
/// Cancel safety: cancel safe.
pub(super) async fn pokes(api: &Api, gid: String) -> Result<Produced<RelayPoke>, Status> {
    // So that an unknown relay is refused at once.
    api.call(async { Ok(api.ctx.relays.contact(&gid).await?) }).await?;
    let relays = api.ctx.relays.clone();
    api.stream(|tx| async move {
        loop {
            let batch = relays.poll(&gid, Wants::Pokes, 1, u64::MAX).await?;
            if batch.poked {
                send(&tx, RelayPoke {}).await?;
            }
        }
    })
}

/// A relay's stream.
///
/// Cancel safety: cancel safe; a stream that is dropped begins its relay's lease.
pub(super) async fn relay<S>(api: &Api, mut said: S) -> Result<Produced<RelayHear>, Status>
where
    S: Stream<Item = Result<RelaySay, Status>> + Send + Unpin + 'static,
{
    let expected = || ApiError::field("say", "hello, first of all", "something else");
    let first = api.call(async { said.next().await.ok_or_else(expected) }).await??;
    let Some(Say::Hello(hello)) = first.say else {
        return Err(expected().into());
    };
    if !hello.callback_url.is_empty() {
        return Err(ApiError::field("callback_url", "nothing: the stream carries pokes", &hello.callback_url).into());
    }
    let (gid, namespace) = (hello.gid.clone(), hello.namespace.clone());
    let open = async { Ok(api.ctx.relays.open(registration(api, hello).await?).await?) };
    let session = api.call(open).await?;
    let agreed = session.registered();
    let welcome = RelayWelcome { gid, namespace, slots: agreed.slots, lease_ms: agreed.lease_ms };
    let own = api.clone();
    api.stream(|tx| async move {
        send(&tx, hear(Hear::Welcome(welcome))).await?;
        match converse(&own, &session, said, &tx).await? {
            Ended::Left => Ok(session.leave().await?),
            Ended::Broke => Ok(()),
        }
    })
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The relay closed its side.
    Left,
    /// The connection did.
    Broke,
}

async fn converse<S>(api: &Api, session: &Session, mut said: S, tx: &mpsc::Sender<RelayHear>) -> Result<Ended, ApiError>
where
    S: Stream<Item = Result<RelaySay, Status>> + Send + Unpin,
{
    let mut reports = FuturesUnordered::new();
    let mut poll = Box::pin(session.poll(TASKS_AT_ONCE));
    let mut open = true;
    while open || !reports.is_empty() {
        tokio::select! {
            biased;
            Some(answer) = reports.next(), if !reports.is_empty() => send(tx, answer).await?,
            batch = &mut poll, if open => {
                tell(api, batch?, tx).await?;
                poll = Box::pin(session.poll(TASKS_AT_ONCE));
            }
            next = said.next(), if open && reports.len() < REPORTS_AHEAD => match next {
                Some(Ok(RelaySay { say: Some(Say::Report(report)) })) => reports.push(noted(session, report)),
                Some(Ok(RelaySay { say: Some(Say::Hello(_)) | None })) => {
                    return Err(ApiError::field("say", "a report: hello was said", "something else"));
                }
                Some(Err(_broken)) => return Ok(Ended::Broke),
                None => open = false,
            },
        }
    }
    Ok(Ended::Left)
}

async fn tell(api: &Api, batch: Batch, tx: &mpsc::Sender<RelayHear>) -> Result<(), ApiError> {
    let Batch { tasks, cancelled, poked } = batch;
    if poked {
        send(tx, hear(Hear::Poke(RelayPoke {}))).await?;
    }
    for task in told(api, tasks).await {
        send(tx, hear(Hear::Assigned(task))).await?;
    }
    for task in cancelled {
        send(tx, hear(Hear::Cancelled(RelayCancelled { task }))).await?;
    }
    Ok(())
}

async fn noted(session: &Session, report: RelayReport) -> RelayHear {
    let RelayReport { task, kind, spec, id } = report;
    let result = match from_json(&spec) {
        Ok(spec) => session.report(&task, &kind, spec).await.map_err(ApiError::from),
        Err(error) => Err(error),
    };
    hear(match result {
        Ok(()) => Hear::Noted(RelayNoted { id }),
        Err(error) => Hear::Refused(RelayRefused { id, reason: Status::from(error).message().to_owned() }),
    })
}

fn hear(hear: Hear) -> RelayHear {
    RelayHear { hear: Some(hear) }
}

/// Tasks with their jobs' ids as people read them.
async fn told(api: &Api, tasks: Vec<Task>) -> Vec<RelayTask> {
    if tasks.is_empty() {
        return Vec::new();
    }
    let jobs: Vec<JobId> = tasks.iter().map(|task| task.grant.job).collect();
    let name = move |machine: &mut Machine, _now: Now| -> Vec<String> {
        jobs.iter().map(|job| view::job_name(machine.facts(), job)).collect()
    };
    // The tasks are in the relay's hands already: without a readable id they are still told.
    let names = match api.ask(name.clone()).await {
        Ok(names) => names,
        Err(_busy) => api.ask(name).await.unwrap_or_default(),
    };
    let names = names.into_iter().chain(std::iter::repeat(String::new()));
    tasks.into_iter().zip(names).map(|(task, job)| to_proto(task, job)).collect()
}

fn to_proto(task: Task, job: String) -> RelayTask {
    let spec = task.spec.0.iter().map(|(key, value)| (key.to_string(), declare::to_json(value)));
    let spec: serde_json::Value = spec.collect();
    let text = |key: &str| task.spec.text(key).map(ToString::to_string).unwrap_or_default();
    RelayTask {
        job,
        name: text("name"),
        alias: text("alias"),
        spec: spec.to_string(),
        task: task.token,
        index: task.index,
        attempt: task.attempt.into(),
        namespace: task.ns,
        priority: task.priority,
        lease_ms: task.lease_ms,
    }
}

/// A report's fields: a JSON object, or nothing.
///
/// # Errors
/// What is no object, or holds a value that specs do not.
fn from_json(text: &str) -> Result<WorkSpec, ApiError> {
    if text.is_empty() {
        return Ok(WorkSpec::new());
    }
    let fields: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| ApiError::field("spec", "a JSON object", &error.to_string()))?;
    let field = |(key, value): (String, serde_json::Value)| match declare::from_json(None, &value) {
        Ok(value) => Ok((SmolStr::new(key), value)),
        Err(found) => Err(ApiError::field(
            &format!("spec.{key}"),
            "true, false, a whole number, text, a list or an object",
            &found,
        )),
    };
    Ok(WorkSpec(fields.into_iter().map(field).collect::<Result<_, _>>()?))
}

impl From<RelayError> for ApiError {
    fn from(error: RelayError) -> Self {
        match error {
            RelayError::Stopped(error) => Self::Stopped(error),
            RelayError::Command(error) => Self::Command(error),
            RelayError::Field { field, expected, got } => Self::field(field, &expected, &got),
            other @ (RelayError::Unknown(_)
            | RelayError::TooMany
            | RelayError::TakenOver(_)
            | RelayError::Foreign(_)
            | RelayError::NotYours(_)) => Self::Relay(other),
        }
    }
}
