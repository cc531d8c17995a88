//! The past: Facts as of an earlier time or place in the logs, folded afresh from what lies on this node's disk.
//!
//! Where a snapshot took the place of the beginning of the log, folding starts from the newest snapshot that holds nothing later than what is asked for, and what lies
//! before the oldest one cannot be told.
//! Invariants: events count by their own clocks; the same delta functions as ever; nothing is told of a time that was not read whole; at most two such readers at once,
//! each with the memory of one more Facts; the driver is asked for nothing but names and ends of logs.
//! Does not: know why a job waited: belief is not in the log.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use prost::Message as _;
use starling_core::event::Entry;
use starling_core::facts::{Facts, view};
use starling_core::ids::{Dot, JobId, LogId, Seq};
use starling_core::log::{Survey, Surveyed};
use starling_core::machine::Machine;
use starling_core::namespace::Registry;
use starling_core::time::{Hlc, Now, Wall};
use starling_proto::v1::{FactsPage, JobFacts, JobSummary, ListJobsReply, ListJobsRequest, PullFactsRequest, View};
use tonic::Status;

use super::context::{Api, Base, ReadLog};
use super::convert::{clamp, seen, summary_of};
use super::facts::{Cursor, SLICE, fitting, of_facts, read_cursor};
use super::jobs::{Filter, LIST_BYTES_MAX, matches, matching};
use super::reason;
use super::retired::{self, Wanted};
use super::status::ApiError;
use super::stream::{Produced, send};
use crate::moment;

/// Until where to fold.
#[derive(Clone, Debug)]
enum Until {
    /// Events that were written at this time or before, in milliseconds since 1970.
    Time(u64),
    /// Events that a cursor has seen.
    Cursor(Cursor),
}

impl Until {
    fn takes(&self, log: &LogId, seq: Seq, hlc: Hlc) -> bool {
        match self {
            Self::Time(ms) => hlc.wall_ms <= *ms,
            Self::Cursor(cursor) => seq <= cursor.seen(log),
        }
    }

    fn takes_base(&self, base: &Base) -> bool {
        match self {
            Self::Time(ms) => base.made_unix_ms <= *ms,
            Self::Cursor(cursor) => base.shared.logs.iter().all(|end| end.len <= cursor.seen(&end.log)),
        }
    }
}

/// Whether Facts of an earlier time or place are asked for.
pub(super) fn is_meant(request: &PullFactsRequest) -> bool {
    request.at_unix_ms > 0 || !request.at_cursor.is_empty()
}

/// Lists jobs as they were, newest first.
///
/// Cancel safety: cancel safe.
pub(super) async fn jobs(api: &Api, request: ListJobsRequest, limit: usize) -> Result<ListJobsReply, ApiError> {
    let facts = Arc::new(then(api, Until::Time(request.at_unix_ms)).await?);
    let now = api.ask(|machine: &mut Machine, now: Now| (now.wall, seen(machine, now))).await?;
    let as_of = Wall(request.at_unix_ms.min(now.0.0));
    let node = match request.node.as_str() {
        "" => None,
        name => Some(view::find_node(&facts, name)?),
    };
    let filter = Filter { states: request.states.clone(), node };
    let (own, asked) = (Arc::clone(&facts), request.clone());
    let list = move || listed(&own, &asked, &filter, as_of, limit);
    let (mut jobs, mut total, gone) = blocking(list).await?.map_err(ApiError::Find)?;
    let room = limit.saturating_sub(jobs.len());
    if let Some(wanted) = Wanted::of(&request, node) {
        let (past, matched) = retired::newest(api, room, wanted.by(Arc::clone(&facts))).await?;
        jobs.extend(past.iter().map(|past| retired::summary_of(&facts, past.id, Some(past))));
        total += matched;
    }
    for id in gone.into_iter().take(room) {
        let past = retired::of(api, id).await?;
        jobs.push(retired::summary_of(&facts, id, past.as_ref()));
        total += 1;
    }
    jobs.sort_by_key(|job| std::cmp::Reverse(job.submitted_unix_ms));
    let mut bytes = 0;
    jobs.retain(|job| {
        bytes += job.encoded_len();
        bytes < LIST_BYTES_MAX
    });
    Ok(ListJobsReply { jobs, total: clamp(total), view: Some(View { as_of_unix_ms: as_of.0, ..now.1 }) })
}

type Listed = (Vec<JobSummary>, u64, Vec<JobId>);

fn listed(
    facts: &Facts,
    request: &ListJobsRequest,
    filter: &Filter,
    as_of: Wall,
    limit: usize,
) -> Result<Listed, view::FindError> {
    let (mut found, gone) = matching(facts, request)?;
    found.sort_unstable();
    let (mut jobs, mut total) = (Vec::new(), 0);
    for (_, id) in found {
        let Some(job) = facts.job(&id).filter(|job| matches(id, job, filter)) else {
            continue;
        };
        total += 1;
        if jobs.len() < limit {
            jobs.push(summary_of(facts, as_of, id, job, |view| reason::by_facts(facts, view, job)));
        }
    }
    Ok((jobs, total, gone))
}

/// Streams all jobs as they were.
///
/// Cancel safety: cancel safe.
pub(super) async fn pull(api: &Api, request: PullFactsRequest) -> Result<Produced<FactsPage>, Status> {
    let both = request.at_unix_ms > 0 && !request.at_cursor.is_empty();
    if both || !request.cursor.is_empty() || request.limit > 0 {
        let wrong = "alone: the past is told whole";
        return Err(ApiError::field("at", wrong, "at together with cursor, limit, or another at").into());
    }
    let until = if request.at_cursor.is_empty() {
        Until::Time(request.at_unix_ms)
    } else {
        Until::Cursor(api.call(read_cursor(api, &request.at_cursor)).await?)
    };
    let own = api.clone();
    api.stream(|tx| async move {
        let facts = Arc::new(then(&own, until).await?);
        let ids: Vec<JobId> = facts.jobs().map(|(id, _)| id).collect();
        for slice in ids.chunks(SLICE) {
            let (facts, slice, namespace) = (Arc::clone(&facts), slice.to_vec(), request.namespace.clone());
            let told = move || slice.iter().filter_map(|id| of_facts(&facts, *id, &namespace)).collect();
            let mut jobs: Vec<JobFacts> = blocking(told).await?;
            while !jobs.is_empty() {
                let rest = jobs.split_off(fitting(&jobs));
                send(&tx, FactsPage { jobs, ..FactsPage::default() }).await?;
                jobs = rest;
            }
        }
        let mut view = own.ask(|machine: &mut Machine, now: Now| seen(machine, now)).await?;
        if request.at_unix_ms > 0 {
            view.as_of_unix_ms = view.as_of_unix_ms.min(request.at_unix_ms);
        }
        send(&tx, FactsPage { view: Some(view), ..FactsPage::default() }).await
    })
}

/// Folds what is asked for. Waits for its turn.
///
/// Cancel safety: cancel safe: the reader stops.
async fn then(api: &Api, until: Until) -> Result<Facts, ApiError> {
    // The semaphore is never closed.
    let _turn = api.readers.acquire().await.map_err(|_closed| ApiError::Overloaded)?;
    let (log, stop) = (Arc::clone(&api.ctx.log), Stop::default());
    let flag = Arc::clone(&stop.0);
    let folded = blocking(move || fold(&*log, &until, &flag)).await?;
    drop(stop);
    folded
}

/// Tells a reader that nobody waits for it any more.
#[derive(Debug, Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|panicked| ApiError::History(panicked.to_string()))
}

fn fold(log: &dyn ReadLog, until: &Until, stop: &AtomicBool) -> Result<Facts, ApiError> {
    let registry = Registry::built_in();
    let bases = log.bases().map_err(ApiError::History)?;
    let oldest = bases.first().map(|base| base.made_unix_ms);
    // Up to where each log was held when a snapshot was made.
    let mut ends: BTreeMap<LogId, Seq> = BTreeMap::new();
    for end in bases.iter().flat_map(|base| &base.shared.logs) {
        let known = ends.entry(end.log).or_default();
        *known = end.len.max(*known);
    }
    let mut facts = Facts::bot();
    let mut covered: BTreeMap<LogId, Seq> = BTreeMap::new();
    if let Some(base) = bases.into_iter().rfind(|base| until.takes_base(base)) {
        covered = base.shared.logs.iter().map(|end| (end.log, end.len)).collect();
        let _retired = facts.merge(base.shared.facts);
        facts.refold(&registry);
    }
    let (mut survey, mut whole) = (Survey::default(), true);
    let take = &mut |batch: starling_core::event::SignedBatch| {
        let of = batch.header().log;
        let is_covered = |to: Seq| covered.get(&of).is_some_and(|end| *end >= to);
        whole &= match survey.take(&batch) {
            Surveyed::Next | Surveyed::Again | Surveyed::Branch => true,
            Surveyed::Hole { to, .. } => is_covered(to),
            Surveyed::Full => false,
        };
        for (seq, entry) in batch.entries() {
            // What this version cannot read says nothing to those who ask.
            if let Entry::Event(event) = entry
                && until.takes(&of, seq, event.hlc)
            {
                let _touched = facts.fold(Dot { log: of, seq }, entry, &registry);
            }
        }
        if !whole || stop.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    log.batches(take).map_err(ApiError::History)?;
    // Of a log that lies in snapshots only nothing was read.
    let held =
        |of: &LogId| survey.log(of).map_or(Seq(0), |span| span.len()).max(covered.get(of).copied().unwrap_or_default());
    whole &= ends.iter().all(|(of, end)| held(of) >= *end);
    if whole {
        return Ok(facts);
    }
    Err(ApiError::TooOld(match oldest {
        Some(ms) => format!(
            "a snapshot took the place of the older part of this node's log: it can tell how things were from {} on",
            moment::to_text(ms)
        ),
        None => "the older part of this node's log is in a snapshot that another node made: it can tell of the past once it has made one itself".to_owned(),
    }))
}
