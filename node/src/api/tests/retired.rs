//! Retired jobs: every question about a job is answered from history.

use starling_proto::v1::{
    CancelRequest, Ending, JobRef, JobState, ListJobsRequest, LogsRequest, SubmitRequest, WaitRequest,
};
use tonic::Code;

use super::calls::{command, ended, submitted};
use super::world::{DEADLINE, Node};

/// Waits until a job has left Facts.
async fn retired(node: &Node, number: u64) {
    let is_gone = async {
        loop {
            let look = move |machine: &mut starling_core::machine::Machine, _now| {
                machine.facts().jobs().all(|(id, _)| id.no.0 != number)
            };
            if node.handle.ask(look).await.unwrap() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, is_gone).await.unwrap();
}

#[tokio::test]
async fn a_retired_job_is_listed_shown_explained_waited_for_and_its_output_read() {
    let mut node = Node::forgetful().await;
    submitted(&mut node, command(&["/bin/echo", "hi"])).await;
    ended(&mut node, "wren-1").await;
    submitted(&mut node, command(&["exit", "3"])).await;
    ended(&mut node, "wren-2").await;
    retired(&node, 1).await;
    retired(&node, 2).await;

    let list = node.client.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner();
    let ids: Vec<&str> = list.jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!((list.total, ids.as_slice()), (2, ["wren-2", "wren-1"].as_slice()));
    let failed = ListJobsRequest { states: vec![JobState::Failed.into()], ..ListJobsRequest::default() };
    let list = node.client.list_jobs(failed).await.unwrap().into_inner();
    assert_eq!((list.total, list.jobs[0].id.as_str(), list.jobs[0].exit), (1, "wren-2", Some(3)));
    let open = ListJobsRequest { states: vec![JobState::Running.into()], ..ListJobsRequest::default() };
    assert_eq!(node.client.list_jobs(open).await.unwrap().into_inner().total, 0);
    let named = ListJobsRequest { jobs: vec!["wren-1".into()], ..ListJobsRequest::default() };
    let list = node.client.list_jobs(named).await.unwrap().into_inner();
    assert_eq!((list.total, list.jobs[0].state()), (1, JobState::Done));
    assert_eq!((list.jobs[0].nodes.as_slice(), list.jobs[0].name.as_str()), (["wren".to_owned()].as_slice(), "echo"));

    let detail = node.client.get_job(JobRef { job: "wren-2".into() }).await.unwrap().into_inner();
    let summary = detail.summary.unwrap();
    assert_eq!((summary.state(), summary.exit, summary.ending()), (JobState::Failed, Some(3), Ending::Exited));
    assert!(summary.reason.contains("retired"), "{}", summary.reason);
    assert_eq!(detail.usage.unwrap().wall_ms, 100);
    let explained = node.client.explain(JobRef { job: "wren-2".into() }).await.unwrap().into_inner();
    assert_eq!(explained.summary, "1 tasks failed; the worst: exit code 3");

    let again = ended(&mut node, "wren-1").await;
    assert_eq!((again.state(), again.exit), (JobState::Done, Some(0)));
    let request = LogsRequest { job: "wren-1".into(), follow: true, ..LogsRequest::default() };
    let mut logs = node.client.logs(request).await.unwrap().into_inner();
    let mut text = Vec::new();
    while let Some(chunk) = tokio::time::timeout(DEADLINE, logs.message()).await.unwrap().unwrap() {
        text.extend(chunk.data);
    }
    assert_eq!(String::from_utf8(text).unwrap(), "/bin/echo hi\n");

    let cancel = CancelRequest { jobs: vec!["wren-1".into()], ..CancelRequest::default() };
    let reply = node.client.cancel(cancel).await.unwrap().into_inner();
    assert_eq!((reply.results[0].accepted, reply.results[0].note.as_str()), (false, "already retired"));
    let unknown = node.client.get_job(JobRef { job: "wren-9".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn a_wait_that_began_before_the_retirement_ends_with_it() {
    let mut node = Node::forgetful().await;
    submitted(&mut node, command(&["hold"])).await;
    submitted(&mut node, command(&["exit", "0"])).await;
    let request = WaitRequest { jobs: vec!["wren-1".into(), "wren-2".into()], progress: false };
    let mut stream = node.client.wait(request).await.unwrap().into_inner();
    retired(&node, 2).await;
    let cancel = CancelRequest { jobs: vec!["wren-1".into()], ..CancelRequest::default() };
    node.client.cancel(cancel).await.unwrap();
    let mut states = Vec::new();
    while let Some(reply) = tokio::time::timeout(DEADLINE, stream.message()).await.unwrap().unwrap() {
        let job = reply.job.unwrap();
        states.push((job.id.clone(), job.state()));
    }
    states.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(states, [("wren-1".to_owned(), JobState::Cancelled), ("wren-2".to_owned(), JobState::Done)]);
}

#[tokio::test]
async fn a_submission_that_is_repeated_after_the_retirement_is_the_same_job() {
    let mut node = Node::forgetful().await;
    let keyed = SubmitRequest { request_id: "once".into(), ..command(&["exit", "0"]) };
    submitted(&mut node, keyed.clone()).await;
    ended(&mut node, "wren-1").await;
    retired(&node, 1).await;
    assert_eq!(submitted(&mut node, keyed).await.job, "wren-1");
    assert_eq!(submitted(&mut node, command(&["exit", "0"])).await.job, "wren-2");
}
