//! `wait`: stays until jobs have ended, on whichever node still answers.
//!
//! Invariants: each job is reported once, when its outcome is sealed; the exit code is the highest of
//! the jobs' codes; when the node goes away, the jobs that are still out are waited for at another.
//! Does not: cancel.

use std::collections::BTreeSet;
use std::time::Duration;

use starling_proto::Word as _;
use starling_proto::v1::{JobSummary, WaitReply, WaitRequest};
use tokio::time::{Instant, timeout_at};

use super::args::WaitArgs;
use super::connect::Client;
use super::error::{CliError, EXIT_OK, EXIT_TIMEOUT, job_exit_code};
use super::jobs::{state_tone, state_word};
use super::output::Format;
use super::{Patience, Session, units};

/// A limit far enough away to be none.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Whether progress is told on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    Progress,
    Quiet,
}

/// Runs the verb.
pub(crate) async fn wait(session: &Session<'_>, args: WaitArgs) -> Result<u8, CliError> {
    let out = session.out;
    let limit = args.timeout.map_or(FOREVER, |limit| Duration::from_millis(limit.0));
    let deadline = Instant::now() + limit.min(FOREVER);
    let report = if args.progress { Report::Progress } else { Report::Quiet };
    let client = session.open().await?;
    let mut code = EXIT_OK;
    let watch = watch(session, client, args.jobs, report, |job| {
        code = code.max(job_exit_code(job));
        match out.format() {
            Format::Json => out.json(&[job]),
            Format::Human => out.line(&line(session, job)),
        }
    });
    match timeout_at(deadline, watch).await {
        Ok(ended) => ended.map(|()| code),
        Err(_elapsed) => {
            out.warn(&format!("still not ended after {}", units::duration(millis(limit))));
            Ok(EXIT_TIMEOUT)
        }
    }
}

/// Waits for one job and returns its final summary.
pub(crate) async fn one(
    session: &Session<'_>,
    client: Client,
    job: String,
    report: Report,
) -> Result<JobSummary, CliError> {
    let mut last = None;
    watch(session, client, vec![job], report, |job| {
        last = Some(job.clone());
        Ok(())
    })
    .await?;
    last.ok_or(CliError::CutShort)
}

/// Calls `on_end` for each job as it ends; returns after the last.
async fn watch(
    session: &Session<'_>,
    mut client: Client,
    jobs: Vec<String>,
    report: Report,
    mut on_end: impl FnMut(&JobSummary) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut ended = BTreeSet::new();
    let mut patience = Patience::default();
    loop {
        let outcome = watch_once(session, &mut client, &jobs, report, |job| {
            patience.renew();
            // A second stream reports again what ended before.
            if ended.insert(job.id.clone()) { on_end(job) } else { Ok(()) }
        })
        .await;
        match outcome {
            Ok(()) => return Ok(()),
            Err(error) => client = session.reopen(error, &mut patience).await?,
        }
    }
}

/// One stream, from start to end.
async fn watch_once(
    session: &Session<'_>,
    client: &mut Client,
    jobs: &[String],
    report: Report,
    mut on_end: impl FnMut(&JobSummary) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let request = WaitRequest { jobs: jobs.to_vec(), progress: report == Report::Progress };
    let mut stream = client.wait(request).await?.into_inner();
    let mut left = jobs.len();
    while left > 0 {
        let Some(WaitReply { job: Some(job), ended, .. }) = stream.message().await? else {
            return Err(CliError::CutShort);
        };
        if ended {
            left -= 1;
            on_end(&job)?;
        } else {
            session.out.note(&sentence(&job));
        }
    }
    Ok(())
}

fn line(session: &Session<'_>, job: &JobSummary) -> String {
    let state = session.out.paint(state_word(job.state()), state_tone(job.state()));
    let exit = job.exit.map_or_else(|| "-".to_owned(), |exit| exit.to_string());
    format!("{}  {state}  exit {exit}  {}", job.id, units::duration(job.elapsed_ms))
}

/// `wren-12: running, 3 of 10 done, 1 failed`.
pub(crate) fn sentence(job: &JobSummary) -> String {
    let counts = job.counts.unwrap_or_default();
    let mut text = format!(
        "{}: {}, {} of {} done",
        job.id,
        job.state().word(),
        units::count(counts.done.into()),
        units::count(job.tasks.into())
    );
    for (number, word) in [(counts.failed, "failed"), (counts.cancelled, "cancelled")] {
        if number > 0 {
            text.push_str(&format!(", {} {word}", units::count(number.into())));
        }
    }
    if !job.reason.is_empty() {
        text.push_str(&format!(" ({})", job.reason));
    }
    text
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
