//! The past: jobs and Facts as of an earlier time or cursor, and what a compacted log cannot tell.
//!
//! Invariants: as in `tests`.

use std::time::{SystemTime, UNIX_EPOCH};

use starling_core::machine::Machine;
use starling_core::machine::snapshot::Shared;
use starling_core::time::Now;
use starling_proto::v1::{CancelRequest, FactsPage, JobFacts, JobState, JobSummary, ListJobsRequest, PullFactsRequest};
use tonic::Status;

use super::calls::{command, ended, submitted};
use super::world::{DEADLINE, Node};
use crate::api::Base;

/// The next millisecond, so that what happened is past, and what comes is not.
async fn a_moment() -> u64 {
    let now = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let start = now();
    while now() <= start + 1 {
        tokio::task::yield_now().await;
    }
    start + 1
}

async fn jobs_at(node: &mut Node, at_unix_ms: u64) -> Result<Vec<(String, JobState)>, Status> {
    let request = ListJobsRequest { at_unix_ms, ..ListJobsRequest::default() };
    let reply = node.client.list_jobs(request).await?.into_inner();
    assert_eq!(reply.total as usize, reply.jobs.len());
    let line = |job: &JobSummary| (job.id.clone(), job.state());
    Ok(reply.jobs.iter().map(line).collect())
}

async fn facts(node: &mut Node, request: PullFactsRequest) -> Result<(Vec<JobFacts>, String), Status> {
    let mut stream = node.client.pull_facts(request).await?.into_inner();
    let (mut jobs, mut cursor) = (Vec::new(), String::new());
    while let Some(FactsPage { jobs: more, cursor: end, .. }) = stream.message().await? {
        jobs.extend(more);
        cursor = end;
    }
    Ok((jobs, cursor))
}

fn named(id: &str, state: JobState) -> (String, JobState) {
    (id.to_owned(), state)
}

#[tokio::test]
async fn jobs_are_shown_as_they_were() {
    let mut node = Node::start().await;
    let before = a_moment().await;
    submitted(&mut node, command(&["/bin/echo", "hi"])).await;
    ended(&mut node, "wren-1").await;
    submitted(&mut node, command(&["hold"])).await;
    let running = ListJobsRequest { states: vec![JobState::Running.into()], ..ListJobsRequest::default() };
    let wait = async { while node.client.list_jobs(running.clone()).await.unwrap().into_inner().jobs.is_empty() {} };
    tokio::time::timeout(DEADLINE, wait).await.unwrap();
    let between = a_moment().await;
    let cursor = facts(&mut node, PullFactsRequest::default()).await.unwrap().1;
    node.client.cancel(CancelRequest { jobs: vec!["wren-2".into()], ..CancelRequest::default() }).await.unwrap();
    ended(&mut node, "wren-2").await;
    let after = a_moment().await;
    assert_eq!(jobs_at(&mut node, before).await.unwrap(), []);
    let then = [named("wren-2", JobState::Running), named("wren-1", JobState::Done)];
    assert_eq!(jobs_at(&mut node, between).await.unwrap(), then);
    let now = [named("wren-2", JobState::Cancelled), named("wren-1", JobState::Done)];
    assert_eq!(jobs_at(&mut node, after).await.unwrap(), now);
    for request in [
        PullFactsRequest { at_unix_ms: between, ..PullFactsRequest::default() },
        PullFactsRequest { at_cursor: cursor.clone(), ..PullFactsRequest::default() },
    ] {
        let (mut told, _) = facts(&mut node, request).await.unwrap();
        told.sort_by(|one, two| one.id.cmp(&two.id));
        let told: Vec<_> = told.iter().map(|job| (job.id.clone(), job.state())).collect();
        assert_eq!(told, [named("wren-1", JobState::Done), named("wren-2", JobState::Running)]);
    }
    let both = PullFactsRequest { at_cursor: cursor.clone(), cursor, ..PullFactsRequest::default() };
    assert!(facts(&mut node, both).await.unwrap_err().message().contains("at"));
}

#[tokio::test]
async fn what_a_snapshot_took_the_place_of_is_told_from_when_on() {
    let mut node = Node::start().await;
    submitted(&mut node, command(&["/bin/echo", "hi"])).await;
    ended(&mut node, "wren-1").await;
    let early = a_moment().await;
    submitted(&mut node, command(&["/bin/echo", "ho"])).await;
    ended(&mut node, "wren-2").await;
    let made = a_moment().await;
    let shared =
        |machine: &mut Machine, _now: Now| Shared { logs: machine.logs().ends(), facts: machine.facts().clone() };
    let shared = node.handle.ask(shared).await.unwrap();
    let count = node.whole.batches().len();
    submitted(&mut node, command(&["hold"])).await;
    let late = a_moment().await;
    node.whole.bases.lock().unwrap().push(Base { made_unix_ms: made, shared });
    node.whole.drop_first(count);
    let then = [named("wren-2", JobState::Done), named("wren-1", JobState::Done)];
    assert_eq!(jobs_at(&mut node, made).await.unwrap(), then);
    assert_eq!(jobs_at(&mut node, late).await.unwrap().len(), 3);
    let refused = jobs_at(&mut node, early).await.unwrap_err();
    let from = format!("it can tell how things were from {} on", crate::moment::to_text(made));
    assert!(refused.message().contains(&from), "{refused:?}");
}
