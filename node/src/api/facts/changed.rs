//! What changed: which jobs the events beyond a cursor speak of, and the cursor behind them.
//!
//! Invariants: a job that a later cursor would leave out is named here: the frontier is taken before the logs are read, and read to its end; a newly
//! registered namespace brings all of its jobs, because it may give meaning to events that were passed by. The log of an author that forked is read from
//! its start, because a branch may arrive behind the cursor.
//! Does not: look at jobs (`page` does).

use std::collections::BTreeSet;
use std::sync::Arc;

use smol_str::SmolStr;
use starling_core::event::{Entry, Event, SignedBatch};
use starling_core::ids::{ClusterId, JobId, LogId, Seq};
use starling_core::machine::{CommandError, Machine};
use starling_core::namespace::sys;

use super::cursor::Cursor;
use crate::api::context::Api;
use crate::api::status::ApiError;

/// Bytes of a log read at once, without and with a limit: what is read is told, so a small limit wants small chunks.
const CHUNK_BYTES: usize = 1 << 20;
const LIMITED_CHUNK_BYTES: usize = 64 << 10;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct Asked {
    /// Only jobs of this namespace; empty = all.
    pub(in crate::api) namespace: SmolStr,
    /// What was seen before.
    pub(in crate::api) cursor: Cursor,
    /// Stop reading after so many jobs; 0 = never.
    pub(in crate::api) limit: usize,
}

/// Which jobs changed.
#[derive(Clone, Debug)]
pub(in crate::api) struct Changed {
    /// The jobs, maybe more than those of the namespace asked for.
    pub(in crate::api) jobs: Vec<JobId>,
    /// Where to go on.
    pub(in crate::api) cursor: Cursor,
    /// Whether the limit left something for the next time.
    pub(in crate::api) more: bool,
}

/// How far this node's logs reach.
struct Reach {
    cluster: ClusterId,
    tips: Vec<(LogId, Seq)>,
    forked: BTreeSet<LogId>,
    /// All jobs, if it is not worth reading logs.
    all: Option<Vec<JobId>>,
}

/// Collects what changed since a cursor.
///
/// Cancel safety: cancel safe.
///
/// # Errors
/// If the namespace is not known, or the log cannot be read.
pub(in crate::api) async fn since(api: &Api, asked: &Asked) -> Result<Changed, ApiError> {
    let (namespace, takes_all) = (asked.namespace.clone(), asked.cursor.is_empty() && asked.limit == 0);
    let reach = api.ask(move |machine, _now| reach(machine, &namespace, takes_all)).await??;
    let mut cursor = asked.cursor.clone();
    if let Some(jobs) = reach.all {
        for (log, last) in &reach.tips {
            cursor.advance(log, *last);
        }
        return Ok(Changed { jobs, cursor, more: false });
    }
    let mut named = Named { namespace: asked.namespace.clone(), ..Named::default() };
    let (limit, bytes) = match asked.limit {
        0 => (usize::MAX, CHUNK_BYTES),
        limit => (limit, LIMITED_CHUNK_BYTES),
    };
    // Forked ones last, or they would take up the limit each time.
    let (forked, sound): (Vec<_>, Vec<_>) = reach.tips.iter().partition(|(log, _)| reach.forked.contains(log));
    for (log, last) in sound.iter().chain(&forked) {
        let seen = if reach.forked.contains(log) { Seq(0) } else { cursor.seen(log) };
        let mut next = Seq(seen.0 + 1);
        while next <= *last && named.jobs.len() < limit {
            let part = Part { cluster: reach.cluster, log: *log, from: next, last: *last, bytes };
            (named, next) = chunk(api, part, named).await?;
            cursor.advance(log, Seq(next.0 - 1));
        }
    }
    let more = reach.tips.iter().any(|(log, last)| *last > cursor.seen(log));
    let jobs = api.ask(move |machine, _now| named.complete(machine)).await?;
    Ok(Changed { jobs, cursor, more })
}

fn reach(machine: &Machine, namespace: &SmolStr, takes_all: bool) -> Result<Reach, CommandError> {
    if !namespace.is_empty() && !machine.namespaces().contains(namespace) {
        let known = machine.namespaces().join(", ");
        return Err(CommandError::UnknownNamespace(namespace.clone(), known));
    }
    let all = takes_all.then(|| machine.facts().jobs().map(|(id, _)| id).collect());
    Ok(Reach {
        cluster: machine.cluster(),
        tips: machine.frontier().tips().map(|(log, tip)| (*log, tip.len)).collect(),
        forked: machine.logs().forked().copied().collect(),
        all,
    })
}

/// What events name.
#[derive(Clone, Debug, Default)]
struct Named {
    /// The namespace of interest; empty = all.
    namespace: SmolStr,
    jobs: BTreeSet<JobId>,
    /// Namespaces that were registered.
    registered: BTreeSet<SmolStr>,
    /// Whether a part of a log is not here any more, because a snapshot took its place: it may have named any job.
    hole: bool,
}

impl Named {
    fn read(&mut self, event: &Event) {
        let Some(job) = event.ctx.job else {
            self.registered.extend(sys::registered_name(event));
            return;
        };
        // The kernel's events do not say of which namespace their job is.
        if self.namespace.is_empty() || event.ns == self.namespace || event.ns == sys::NAME {
            self.jobs.insert(job);
        }
    }

    /// All jobs, those of holes and registered namespaces too.
    fn complete(mut self, machine: &Machine) -> Vec<JobId> {
        if self.hole {
            self.jobs.extend(machine.facts().jobs().map(|(id, _)| id));
        }
        if !self.registered.is_empty() {
            let of = machine
                .facts()
                .jobs()
                .filter(|(_, job)| job.submit.as_ref().is_some_and(|submit| self.registered.contains(&submit.ns)));
            let of: Vec<JobId> = of.map(|(id, _)| id).collect();
            self.jobs.extend(of);
        }
        self.jobs.into_iter().collect()
    }
}

/// What is read of one log at once.
#[derive(Clone, Copy, Debug)]
struct Part {
    cluster: ClusterId,
    log: LogId,
    from: Seq,
    last: Seq,
    bytes: usize,
}

/// Reads a part of one log; what it names is added, and the first position not read is told.
async fn chunk(api: &Api, part: Part, mut named: Named) -> Result<(Named, Seq), ApiError> {
    let history = Arc::clone(&api.ctx.history);
    let read = move || -> Result<(Named, Seq), String> {
        let mut next = part.from;
        for bytes in history(part.log, part.from, part.bytes)? {
            let batch = SignedBatch::open_own(&bytes, &part.cluster).map_err(|error| error.to_string())?;
            named.hole |= batch.header().first_seq > next;
            for (seq, entry) in batch.entries() {
                if let Entry::Event(event) = entry
                    && (part.from..=part.last).contains(&seq)
                {
                    named.read(event);
                }
            }
            next = next.max(Seq(batch.header().last_seq().0 + 1));
        }
        // Nothing more on disk, whatever the frontier says: do not ask for ever.
        let end = Seq(part.last.0 + 1);
        named.hole |= next == part.from;
        Ok((named, if next == part.from { end } else { next.min(end) }))
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|error| ApiError::History(error.to_string()))?.map_err(ApiError::History)
}
