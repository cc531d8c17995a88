//! gRPC over the Unix socket.
//!
//! Invariants: as in `tests`. Does not: test what the Machine decides.

use std::os::unix::fs::PermissionsExt as _;

use prost::Message as _;
use starling_proto::v1::{
    AckLevel, CancelRequest, CheckState, DoctorRequest, Ending, ErrorDetail, EventsRequest, IndexRange, InfoRequest,
    JobRef, JobState, JobSummary, ListJobsRequest, ListNodesRequest, LogsRequest, NodeState, SubmitReply,
    SubmitRequest, WaitRequest,
};
use tonic::{Code, Status};

use super::world::{DEADLINE, Node};
use crate::api::BindError;
use crate::api::socket::UnixSocket;

pub(super) fn command(words: &[&str]) -> SubmitRequest {
    SubmitRequest { command: words.iter().map(ToString::to_string).collect(), ..SubmitRequest::default() }
}

pub(super) async fn submitted(node: &mut Node, request: SubmitRequest) -> SubmitReply {
    node.client.submit(request).await.unwrap().into_inner()
}

pub(super) async fn refused(node: &mut Node, request: SubmitRequest) -> (Status, ErrorDetail) {
    let status = node.client.submit(request).await.unwrap_err();
    let detail = ErrorDetail::decode(status.details()).unwrap();
    (status, detail)
}

pub(super) async fn ended(node: &mut Node, job: &str) -> JobSummary {
    let request = WaitRequest { jobs: vec![job.to_owned()], progress: false };
    let mut stream = node.client.wait(request).await.unwrap().into_inner();
    let reply = tokio::time::timeout(DEADLINE, stream.message()).await.unwrap();
    let reply = reply.unwrap().unwrap();
    assert!(reply.ended);
    assert!(stream.message().await.unwrap().is_none());
    reply.job.unwrap()
}

#[tokio::test]
async fn submitted_job_runs_and_is_listed() {
    let mut node = Node::start().await;
    let reply = submitted(&mut node, command(&["/bin/echo", "hi"])).await;
    assert_eq!((reply.job.as_str(), reply.tasks, reply.warning.as_str()), ("wren-1", 1, ""));
    assert_eq!(reply.acked(), AckLevel::Local);
    let job = ended(&mut node, "wren-1").await;
    assert_eq!((job.state(), job.exit, job.ending()), (JobState::Done, Some(0), Ending::Exited));
    assert_eq!((job.name.as_str(), job.owner.as_str()), ("echo", "wren"));
    let list = node.client.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner();
    assert_eq!((list.total, list.jobs.len()), (1, 1));
    assert_eq!(list.jobs[0].nodes, ["wren"]);
    let detail = node.client.get_job(JobRef { job: "wren-1".into() }).await.unwrap().into_inner();
    assert_eq!(detail.command, ["/bin/echo", "hi"]);
    assert_eq!((detail.attempts.len(), detail.attempts[0].state()), (1, JobState::Done));
    assert_eq!(detail.seal.unwrap().by, "wren");
    let explained = node.client.explain(JobRef { job: "wren-1".into() }).await.unwrap().into_inner();
    assert_eq!(explained.summary, "it ended with exit code 0");
}

#[tokio::test]
async fn lists_filter_and_count_beyond_the_limit() {
    let mut node = Node::start().await;
    for words in [["exit", "0"], ["exit", "3"], ["echo", "x"]] {
        let job = submitted(&mut node, command(&words)).await.job;
        ended(&mut node, &job).await;
    }
    let request = ListJobsRequest { states: vec![JobState::Failed.into()], ..Default::default() };
    let failed = node.client.list_jobs(request).await.unwrap().into_inner();
    assert_eq!((failed.total, failed.jobs[0].id.as_str(), failed.jobs[0].exit), (1, "wren-2", Some(3)));
    let request = ListJobsRequest { limit: 1, ..Default::default() };
    let newest = node.client.list_jobs(request).await.unwrap().into_inner();
    assert_eq!((newest.total, newest.jobs.len(), newest.jobs[0].id.as_str()), (3, 1, "wren-3"));
    let request = ListJobsRequest { jobs: vec!["wren-9".into()], ..Default::default() };
    assert_eq!(node.client.list_jobs(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn wrong_fields_are_all_named_and_nothing_is_submitted() {
    let mut node = Node::start().await;
    let request = SubmitRequest {
        array: vec![IndexRange { start: 5, end: 1 }],
        env: [("A=B".to_owned(), "x".to_owned())].into(),
        ..SubmitRequest::default()
    };
    let (status, detail) = refused(&mut node, request).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let fields: Vec<&str> = detail.violations.iter().map(|wrong| wrong.field.as_str()).collect();
    assert_eq!(fields, ["command", "env.A=B", "array"]);
    assert_eq!(detail.violations[2].got, "5-1");
    // What only the schema knows comes back under the name that the user sent.
    let request = SubmitRequest { cpus_milli: Some(2_000_000_000), ..command(&["true"]) };
    let (status, detail) = refused(&mut node, request).await;
    assert_eq!((status.code(), detail.violations[0].field.as_str()), (Code::InvalidArgument, "cpus_milli"));
    let (_, detail) = refused(&mut node, SubmitRequest { ns: "nope".into(), ..command(&["true"]) }).await;
    assert_eq!((detail.violations[0].field.as_str(), detail.violations[0].got.as_str()), ("ns", "nope"));
    let list = node.client.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.total, 0);
}

#[tokio::test]
async fn too_much_input_is_refused_with_the_limit() {
    let mut node = Node::start().await;
    let large = [
        SubmitRequest { stdin: vec![0; 9_000], ..command(&["cat"]) },
        SubmitRequest { stdin: vec![0; 20_000], ..command(&["cat"]) },
        SubmitRequest { each_line: vec!["x".repeat(100); 200], ..command(&["cat"]) },
        command(&["cat", &"x".repeat(17_000)]),
    ];
    for request in large {
        let (status, detail) = refused(&mut node, request).await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(detail.hint.contains("put large inputs into files"), "{detail:?}");
        let limit = status.message().contains("16384") || status.message().contains("8192");
        assert!(limit, "{}", status.message());
    }
}

#[tokio::test]
async fn job_that_fits_nowhere_is_accepted_with_a_warning_and_explained() {
    let mut node = Node::start().await;
    let reply = submitted(&mut node, SubmitRequest { mem_bytes: 64 << 30, ..command(&["true"]) }).await;
    assert_eq!(reply.warning, "no live node has 1 cpu and 64 GiB; the job waits");
    let explained = node.client.explain(JobRef { job: reply.job }).await.unwrap().into_inner();
    assert_eq!(explained.state(), JobState::Pending);
    assert_eq!(explained.summary, "1 task waits: no live node has 1 cpu and 64 GiB");
    assert_eq!((explained.nodes[0].node.as_str(), explained.nodes[0].eligible), ("wren", false));
    let reply = submitted(&mut node, SubmitRequest { node: "owl".into(), ..command(&["true"]) }).await;
    assert_eq!(reply.warning, "no node is called owl; the job waits for one");
}

#[tokio::test]
async fn cancelled_job_ends_as_cancelled() {
    let mut node = Node::start().await;
    let job = submitted(&mut node, command(&["hold"])).await.job;
    let cancel = CancelRequest { jobs: vec![job.clone()], ..Default::default() };
    let reply = node.client.cancel(cancel.clone()).await.unwrap().into_inner();
    assert!(reply.results[0].accepted);
    let ended = ended(&mut node, &job).await;
    assert_eq!((ended.state(), ended.reason.as_str()), (JobState::Cancelled, "cancelled at wren"));
    let again = node.client.cancel(cancel).await.unwrap().into_inner();
    assert_eq!((again.results[0].accepted, again.results[0].note.as_str()), (false, "already CANCELLED"));
}

#[tokio::test]
async fn unknown_job_is_not_found_everywhere() {
    let mut node = Node::start().await;
    let job = JobRef { job: "wren-7".into() };
    let jobs = vec!["wren-7".to_owned()];
    let codes = [
        node.client.get_job(job.clone()).await.unwrap_err().code(),
        node.client.explain(job).await.unwrap_err().code(),
        node.client.wait(WaitRequest { jobs: jobs.clone(), progress: false }).await.unwrap_err().code(),
        node.client.cancel(CancelRequest { jobs, ..Default::default() }).await.unwrap_err().code(),
        node.client.logs(LogsRequest { job: "x".into(), ..Default::default() }).await.unwrap_err().code(),
        node.client.events(EventsRequest { job: "x-1".into(), ..Default::default() }).await.unwrap_err().code(),
    ];
    assert_eq!(codes, [Code::NotFound; 6]);
    let none = WaitRequest { jobs: vec![], progress: false };
    assert_eq!(node.client.wait(none).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn wait_reports_each_reference_once_and_progress_between() {
    let mut node = Node::start().await;
    let array = vec![IndexRange { start: 0, end: 49 }];
    let many = submitted(&mut node, SubmitRequest { array, ..command(&["echo", "x"]) }).await.job;
    let one = submitted(&mut node, command(&["exit", "2"])).await.job;
    let request = WaitRequest { jobs: vec![many.clone(), one.clone(), one.clone()], progress: true };
    let mut stream = node.client.wait(request).await.unwrap().into_inner();
    let mut ended = Vec::new();
    while let Some(reply) = tokio::time::timeout(DEADLINE, stream.message()).await.unwrap().unwrap() {
        if reply.ended {
            ended.push(reply.job.unwrap().id);
        }
    }
    ended.sort();
    assert_eq!(ended, [many, one.clone(), one]);
}

#[tokio::test]
async fn events_are_read_from_the_past_and_followed() {
    let mut node = Node::start().await;
    for _ in 0..5 {
        let job = submitted(&mut node, command(&["echo", "x"])).await.job;
        ended(&mut node, &job).await;
    }
    let all = collect(&mut node, EventsRequest::default()).await;
    assert_eq!(all[0], "sys.Admit ");
    let kinds = |job: &str| -> Vec<String> { all.iter().filter(|line| line.ends_with(job)).cloned().collect() };
    // The end of so short a job says that it had started.
    let is_start = |kind: &String| kind.starts_with("batch.JobStarted");
    let mut seen = kinds("wren-4");
    seen.retain(|kind| !is_start(kind));
    let life = ["batch.SubmitJob", "sys.Grant", "batch.JobFinished", "sys.Seal"];
    assert_eq!(seen, life.map(|kind| format!("{kind} wren-4")));
    let tail = collect(&mut node, EventsRequest { tail: 2, ..Default::default() }).await;
    assert_eq!(tail, all[all.len() - 2..]);
    let of_job = collect(&mut node, EventsRequest { job: "wren-2".into(), tail: 1, ..Default::default() }).await;
    assert_eq!(of_job, ["sys.Seal wren-2"]);
    let follow = EventsRequest { follow: true, tail: 1, ..Default::default() };
    let mut stream = node.client.events(follow).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().kind, "Seal");
    submitted(&mut node, command(&["echo", "x"])).await;
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|last| last != "Seal") {
        let event = tokio::time::timeout(DEADLINE, stream.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(event.job, "wren-6");
        if event.kind != "JobStarted" {
            kinds.push(event.kind);
        }
    }
    assert_eq!(kinds, ["SubmitJob", "Grant", "JobFinished", "Seal"]);
}

async fn collect(node: &mut Node, request: EventsRequest) -> Vec<String> {
    let mut stream = node.client.events(request).await.unwrap().into_inner();
    let mut lines = Vec::new();
    while let Some(line) = stream.message().await.unwrap() {
        lines.push(format!("{}.{} {}", line.ns, line.kind, line.job));
    }
    lines
}

#[tokio::test]
async fn nodes_info_and_doctor_describe_this_node() {
    let mut node = Node::start().await;
    submitted(&mut node, command(&["hold"])).await;
    let nodes = node.client.list_nodes(ListNodesRequest::default()).await.unwrap().into_inner();
    let [line] = nodes.nodes.as_slice() else {
        panic!("one node expected, got {:?}", nodes.nodes);
    };
    assert_eq!((line.name.as_str(), line.state(), line.cpus_milli), ("wren", NodeState::Ready, 2_000));
    assert_eq!((line.version.as_str(), line.answering), ("1.2.3", true));
    assert_eq!(nodes.view.unwrap().roster_nodes, 1);
    let info = node.client.info(InfoRequest {}).await.unwrap().into_inner();
    assert!(info.ready && info.loopback_only && info.events >= 2);
    assert_eq!((info.frontier.len(), info.disk_state.as_str()), (1, "ok"));
    let doctor = node.client.doctor(DoctorRequest {}).await.unwrap().into_inner();
    let failed = doctor.checks.iter().filter(|check| check.state() == CheckState::Fail).count();
    assert_eq!((failed, doctor.checks.len()), (0, 10));
}

#[tokio::test]
async fn stopping_ends_streams_as_unavailable_and_removes_the_socket() {
    let mut node = Node::start().await;
    let mode = std::fs::metadata(&node.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(UnixSocket::bind(&node.socket), Err(BindError::InUse(_))));
    let job = submitted(&mut node, command(&["hold"])).await.job;
    let wait = WaitRequest { jobs: vec![job], progress: false };
    let mut stream = node.client.wait(wait).await.unwrap().into_inner();
    node.stop_serving().await;
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
    assert!(!node.socket.exists());
    std::fs::write(&node.socket, "stale").unwrap();
    UnixSocket::bind(&node.socket).unwrap();
}
