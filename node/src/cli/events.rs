//! `events`: the shared log as lines.
//!
//! Invariants: one line an event, in the order in which the node gives them.
//! Does not: go on at another node: a second node may order events of different authors otherwise.

use starling_proto::v1::{EventLine, EventsRequest};

use super::args::EventsArgs;
use super::error::{CliError, EXIT_OK};
use super::output::{Format, now_unix_ms};
use super::table::clean;
use super::{Session, units};

/// Past events shown before following.
const TAIL_WHEN_FOLLOWING: u32 = 20;

/// Runs the verb.
pub(crate) async fn events(session: &Session<'_>, args: EventsArgs) -> Result<u8, CliError> {
    let out = session.out;
    let unasked = if args.follow && args.since.is_none() { TAIL_WHEN_FOLLOWING } else { 0 };
    let request = EventsRequest {
        follow: args.follow,
        job: args.job.unwrap_or_default(),
        since_unix_ms: args.since.map_or(0, |since| now_unix_ms().saturating_sub(since.0)),
        tail: args.tail.unwrap_or(unasked),
    };
    let mut client = session.open().await?;
    let mut stream = client.events(request).await?.into_inner();
    while let Some(event) = stream.message().await? {
        match out.format() {
            Format::Json => out.json(&[event])?,
            Format::Human => out.line(&line(&event))?,
        }
    }
    Ok(EXIT_OK)
}

/// `TIME AUTHOR/EPOCH#SEQ NS.KIND JOB[TASKS] @NODE TEXT`.
pub(crate) fn line(event: &EventLine) -> String {
    let mut text = format!(
        "{}  {}/{}#{}  {}.{}",
        units::time(event.at_unix_ms),
        event.author,
        event.epoch,
        event.seq,
        event.ns,
        event.kind
    );
    if !event.job.is_empty() {
        text.push_str(&format!("  {}", event.job));
        if !event.tasks.is_empty() {
            text.push_str(&format!("[{}]", units::tasks(&event.tasks)));
        }
    }
    if !event.node.is_empty() {
        text.push_str(&format!("  @{}", event.node));
    }
    if !event.text.is_empty() {
        text.push_str(&format!("  {}", event.text));
    }
    clean(&text)
}
