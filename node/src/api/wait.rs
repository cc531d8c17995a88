//! Wait: one reply for each job as its outcome is sealed.
//!
//! Invariants: subscribed before the first question, so no seal falls between; moved by news, and
//! asks again every `RECHECK` in case some were missed.
//! Does not: poll.

use std::time::Duration;

use starling_core::event::Event;
use starling_core::facts::view;
use starling_core::ids::JobId;
use starling_core::machine::Machine;
use starling_core::namespace::{is_submission, sys};
use starling_core::time::Now;
use starling_proto::v1::{TaskCounts, WaitReply, WaitRequest};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::context::Api;
use super::convert::{seen, summary};
use super::jobs::check_references;
use super::retired;
use super::status::ApiError;
use super::stream::{News, Produced, send};

/// Longest time between two looks.
pub(super) const RECHECK: Duration = Duration::from_secs(2);
/// A job that was submitted elsewhere a moment ago may be on its way: so long it is not called unknown.
const ARRIVAL: Duration = Duration::from_secs(1);
/// Shortest time between two looks at jobs with many seals.
const MANY_SEALS_PAUSE: Duration = Duration::from_millis(5);
/// On top of that for each further job: a look costs the driver about a tenth of it.
const PAUSE_PER_JOB: Duration = Duration::from_micros(20);
/// Shortest time between two progress reports.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// One reference that has not ended. Kept in order of the job.
#[derive(Clone, Debug)]
struct Open {
    job: JobId,
    told: Option<TaskCounts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    Progress,
    EndOnly,
}

/// Waits for jobs.
///
/// Cancel safety: cancel safe.
pub(super) async fn wait(api: &Api, request: WaitRequest) -> Result<Produced<WaitReply>, Status> {
    let mut news = News::of(&api.ctx.handle);
    let report = if request.progress { Report::Progress } else { Report::EndOnly };
    let patience = Instant::now() + ARRIVAL;
    let watched = loop {
        match api.call(resolve(api, request.jobs.clone(), report)).await {
            Err(status) if status.code() == Code::NotFound && Instant::now() < patience => {
                news.wait(patience - Instant::now(), is_submission).await?;
            }
            found => break found?,
        }
    };
    let own = api.clone();
    api.stream(|tx| async move { run(&own, watched, news, &tx).await })
}

#[derive(Debug)]
struct Watched {
    open: Vec<Open>,
    report: Report,
    /// Shortest time between two looks.
    pause: Duration,
}

async fn resolve(api: &Api, jobs: Vec<String>, report: Report) -> Result<Watched, ApiError> {
    check_references(&jobs)?;
    let find = move |machine: &mut Machine, _now: Now| -> Result<_, ApiError> {
        let facts = machine.facts();
        let found: Result<Vec<JobId>, _> = jobs.iter().map(|text| view::find_job(facts, text)).collect();
        let found = found?;
        let tasks = |id: &JobId| facts.job(id).and_then(|job| Some(job.submit.as_ref()?.tasks.len()));
        let single = found.iter().all(|id| tasks(id) == Some(1));
        Ok((found, single))
    };
    let (mut found, single) = api.ask(find).await??;
    found.sort_unstable();
    let pause = match report {
        Report::Progress => PROGRESS_PAUSE,
        // Such a job is sealed by one event: nothing to be gained from patience.
        Report::EndOnly if single && found.len() == 1 => Duration::ZERO,
        Report::EndOnly => MANY_SEALS_PAUSE,
    };
    let many = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let pause = pause + PAUSE_PER_JOB.saturating_mul(many - 1);
    let open = found.into_iter().map(|job| Open { job, told: None }).collect();
    Ok(Watched { open, report, pause })
}

async fn run(api: &Api, watched: Watched, mut news: News, tx: &mpsc::Sender<WaitReply>) -> Result<(), ApiError> {
    let Watched { mut open, report, pause } = watched;
    loop {
        let looked = Instant::now();
        let ask = move |machine: &mut Machine, now: Now| look(machine, now, open, report);
        let Looked { mut replies, left, retired } = api.ask(ask).await?;
        open = left;
        for id in retired {
            replies.push(of_retired(api, id).await?);
        }
        for reply in replies {
            send(tx, reply).await?;
        }
        if open.is_empty() {
            return Ok(());
        }
        let concerns = |event: &Event| {
            let moves = report == Report::Progress || (event.ns == sys::NAME && event.kind == "Seal");
            let is_open = |job| open.binary_search_by_key(&job, |open: &Open| open.job).is_ok();
            moves && event.ctx.job.is_some_and(is_open)
        };
        news.wait(RECHECK, concerns).await?;
        if !pause.is_zero() {
            tokio::time::sleep_until(looked + pause).await;
            news.drain();
        }
    }
}

/// What history keeps of a job that was retired before anybody looked.
async fn of_retired(api: &Api, id: JobId) -> Result<WaitReply, ApiError> {
    let past = retired::of(api, id).await?;
    let show = move |machine: &mut Machine, now: Now| {
        let job = retired::summary(machine, id, past.as_ref());
        WaitReply { job: Some(job), ended: true, view: Some(seen(machine, now)) }
    };
    api.ask(show).await
}

/// What to tell now, what stays open, and what only history knows of.
struct Looked {
    replies: Vec<WaitReply>,
    left: Vec<Open>,
    retired: Vec<JobId>,
}

fn look(machine: &Machine, now: Now, open: Vec<Open>, report: Report) -> Looked {
    let (mut replies, mut left, mut retired) = (Vec::new(), Vec::new(), Vec::new());
    for mut open in open {
        let Some(job) = machine.facts().job(&open.job) else {
            if machine.facts().is_retired(&open.job) {
                retired.push(open.job);
            } else {
                left.push(open);
            }
            continue;
        };
        let ended = job.is_sealed();
        if ended || report == Report::Progress {
            let job = summary(machine, now, open.job, job);
            if ended || job.counts != open.told {
                open.told = job.counts;
                replies.push(WaitReply { job: Some(job), ended, view: Some(seen(machine, now)) });
            }
        }
        if !ended {
            left.push(open);
        }
    }
    Looked { replies, left, retired }
}
