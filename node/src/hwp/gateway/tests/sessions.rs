//! Workers that come and go.

use starling_core::event::{Value, WorkSpec};
use starling_core::facts::Outcome;
use starling_proto::hwp;
use starling_proto::hwp::agent_message::Payload;
use tonic::{Code, Request};

use super::world::*;
use crate::exec::output::Stream;

fn retried() -> WorkSpec {
    WorkSpec::new().with("retries", Value::int(3))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_comes_back_in_time_goes_on() {
    let node = Node::with(super::super::Options { lease_ms: 10_000, ..QUICK }).await;
    let mut worker = node.worker("w1", &["w", "slots=2"]).await;
    let job = node.submit("w", &["x"], 1, WorkSpec::new()).await;
    let task = worker.accepts().await;
    node.accepted(&worker, &task).await;
    let pending = node.submit("w", &["y"], 1, WorkSpec::new()).await;
    let unaccepted = worker.is_given().await;
    drop(worker);
    node.list(|workers| workers.len() == 1 && !workers[0].attached && workers[0].tasks.len() == 2).await;
    let mut worker = node.stream("w1").await;
    let again = worker.accepts().await;
    assert_eq!(again.job_id, unaccepted.job_id, "what was accepted is not told again");
    worker.logs(&task, "two").await;
    worker.ends(&task, 0).await;
    worker.ends(&again, 0).await;
    node.ended(job, Outcome::Exit(0), 1).await;
    node.ended(pending, Outcome::Exit(0), 1).await;
    assert_eq!(node.output(&task, Stream::Out), "begun\ntwo\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_a_worker_that_stays_away_are_tried_again() {
    let node = Node::start().await;
    let mut worker = node.worker("w1", &["w"]).await;
    let job = node.submit("w", &["x"], 1, retried()).await;
    let first = worker.accepts().await;
    drop(worker);
    node.list(<[_]>::is_empty).await;
    let mut other = node.worker("w2", &["w"]).await;
    let second = other.accepts().await;
    assert_ne!(first.job_id, second.job_id);
    assert_eq!(second.spec.env["STARLING_ATTEMPT"], "2");
    // The first comes back with its result: it is of an attempt that is over.
    let late = node.worker("w1", &["w"]).await;
    late.ends(&first, 7).await;
    other.ends(&second, 0).await;
    node.ended(job, Outcome::Exit(0), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_session_wins_and_has_the_tasks() {
    let node = Node::start().await;
    let mut older = node.worker("w1", &["w"]).await;
    let job = node.submit("w", &["x"], 1, WorkSpec::new()).await;
    let task = older.accepts().await;
    // Until it is accepted it would be told again.
    node.accepted(&older, &task).await;
    let newer = node.worker("w1", &["w"]).await;
    let status = older.hears().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("another session of worker `w1`"), "{status}");
    newer.ends(&task, 0).await;
    node.ended(job, Outcome::Exit(0), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_never_accepted_is_cancelled_and_tried_again() {
    let node = Node::start().await;
    let mut worker = node.worker("w1", &["w", "starling"]).await;
    let job = node.submit("w", &["x"], 1, retried()).await;
    let first = worker.is_given().await;
    assert_eq!(worker.is_cancelled().await, first.job_id);
    let second = loop {
        // The acknowledgement of its end may come first.
        match worker.hears().await.unwrap() {
            hwp::server_message::Payload::CancelJob(cancel) => assert_eq!(cancel.job_id, first.job_id),
            hwp::server_message::Payload::AssignJob(assign) => break assign,
        }
    };
    worker.say(Payload::JobAccepted(hwp::JobAccepted { job_id: first.job_id.clone() })).await;
    assert_eq!(worker.is_cancelled().await, first.job_id, "an orphan is to be stopped");
    worker.say(Payload::JobAccepted(hwp::JobAccepted { job_id: second.job_id.clone() })).await;
    worker.results(hwp::StreamedResult { job_id: second.job_id, ..hwp::StreamedResult::default() }).await;
    node.ended(job, Outcome::Exit(0), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_wait_a_moment_for_their_worker_to_register() {
    let node = Node::with(super::super::Options { park_ms: 400, ..QUICK }).await;
    let mut early = node.stream("w1").await;
    node.register("w1", &["w"]).await.unwrap();
    node.list(|workers| workers.len() == 1 && workers[0].attached).await;
    let job = node.submit("w", &["x"], 1, WorkSpec::new()).await;
    let task = early.accepts().await;
    early.ends(&task, 0).await;
    node.ended(job, Outcome::Exit(0), 1).await;
    let status = node.stream("w2").await.hears().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("RegisterWorker"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_a_name_is_left_open() {
    let node = Node::start().await;
    let mut client = node.connect().await;
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(rx);
    let mut told = soon(client.job_stream(Request::new(stream))).await.unwrap().into_inner();
    tx.send(hwp::AgentMessage::default()).await.unwrap();
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), told.message()).await.is_err());
    drop(tx);
    assert!(soon(told.message()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_known_by_what_it_says_of_itself() {
    let node = Node::start().await;
    let unknown = hwp::GetWorkerStatusRequest { worker_id: "w1".to_owned() };
    let status = node.client.clone().get_worker_status(unknown.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let wrong = node.register("w1", &["slots=many"]).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert!(wrong.message().contains("`slots=many`"), "{wrong}");
    assert_eq!(node.register("", &[]).await.unwrap_err().code(), Code::InvalidArgument);
    let mut worker = node.worker("w1", &["w", "gpu=2"]).await;
    let usage = hwp::ResourceUsage { cpu_usage_m: 1_500, memory_usage_mb: 2, ..hwp::ResourceUsage::default() };
    let beat = hwp::HeartbeatRequest {
        worker_id: "w1".to_owned(),
        resource_usage: Some(usage),
        ..hwp::HeartbeatRequest::default()
    };
    node.client.clone().heartbeat(beat).await.unwrap();
    let line = node.gateway.list().await.remove(0);
    assert_eq!((line.cpu_milli, line.mem_bytes), (Some(1_500), Some(2 << 20)));
    assert_eq!(line.labels, ["gpu=2", "w"]);
    node.submit("gpu", &["x"], 1, WorkSpec::new()).await;
    let task = worker.accepts().await;
    let known = node.client.clone().get_worker_status(unknown).await.unwrap().into_inner();
    assert_eq!((known.state.as_str(), known.current_jobs), ("busy", vec![task.job_id]));
    assert!(known.last_heartbeat > 1_700_000_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_our_own_worker_does_not_name_again_it_has_lost() {
    let node = Node::with(super::super::Options { lease_ms: 10_000, accept_ms: 1_000, ..QUICK }).await;
    let mut worker = node.worker("w1", &["w", "starling", "slots=2"]).await;
    let (kept, lost) = (node.submit("w", &["x"], 1, retried()).await, node.submit("w", &["y"], 1, retried()).await);
    let (first, second) = (worker.accepts().await, worker.accepts().await);
    node.accepted(&worker, &second).await;
    drop(worker);
    node.list(|workers| !workers[0].attached).await;
    let mut worker = node.worker("w1", &["w", "starling", "slots=2"]).await;
    worker.say(Payload::JobAccepted(hwp::JobAccepted { job_id: first.job_id.clone() })).await;
    assert_eq!(worker.is_cancelled().await, second.job_id);
    loop {
        match worker.hears().await.unwrap() {
            hwp::server_message::Payload::CancelJob(cancel) => assert_eq!(cancel.job_id, second.job_id),
            hwp::server_message::Payload::AssignJob(assign) => {
                assert_eq!(assign.job_spec.unwrap().env["STARLING_ATTEMPT"], "2");
                worker.results(hwp::StreamedResult { job_id: assign.job_id, ..hwp::StreamedResult::default() }).await;
                break;
            }
        }
    }
    worker.ends(&first, 0).await;
    let both = [first.id.grant.job, second.id.grant.job];
    assert!(both.contains(&kept) && both.contains(&lost));
    for job in both {
        node.ended(job, Outcome::Exit(0), 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_node_stops_acting_its_workers_are_sent_away() {
    let node = Node::start().await;
    let mut worker = node.worker("w1", &["w"]).await;
    node.submit("w", &["x"], 1, WorkSpec::new()).await;
    let task = worker.accepts().await;
    assert!(node.driver.try_input(starling_core::machine::Input::Shutdown));
    let status = loop {
        match worker.hears().await {
            // The task is lost to this node: another attempt is made elsewhere.
            Ok(hwp::server_message::Payload::CancelJob(cancel)) => assert_eq!(cancel.job_id, task.job_id),
            Ok(other @ hwp::server_message::Payload::AssignJob(_)) => panic!("{other:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("not the gateway any more"), "{status}");
    assert!(node.gateway.list().await.is_empty());
    assert_eq!(node.register("w1", &["w"]).await.unwrap_err().code(), Code::Unavailable);
}
