//! How tasks on workers end, and what they leave behind.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use starling_core::event::{Value, WorkSpec};
use starling_core::facts::Outcome;
use starling_proto::hwp;

use super::world::*;
use crate::exec::output::Stream;

pub(super) fn gzip(bytes: &[u8]) -> bytes::Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_worker_runs_a_job_and_its_lines_are_the_jobs_output() {
    let node = Node::start().await;
    let mut worker = node.worker("w1", &["docker", "slots=2"]).await;
    let env = Value::Map([("A".into(), Value::text("x y"))].into());
    let more = WorkSpec::new().with("env", env).with("cwd", Value::text("/tmp")).with("name", Value::text("hello"));
    let job = node.submit("docker", &["echo", "hi there"], 1, more).await;
    let task = worker.accepts().await;
    assert_eq!(task.spec.name, "hello");
    let words: Vec<&str> = task.spec.command.iter().map(String::as_str).collect();
    assert_eq!(words[..3], ["env", "-C", "/tmp"]);
    assert_eq!(words[words.len() - 2..], ["echo", "hi there"]);
    let owner = format!("STARLING_RUN_OWNER={}", node.me().to_hex());
    for wanted in ["A=x y", "STARLING_ATTEMPT=1", "STARLING_TASK=0", &owner] {
        assert!(words.contains(&wanted), "{words:?}");
    }
    assert_eq!(task.spec.env["A"], "x y");
    worker.logs(&task, "one").await;
    worker.logs(&task, "two\n").await;
    worker.ends(&task, 0).await;
    node.ended(job, Outcome::Exit(0), 1).await;
    assert_eq!(node.output(&task, Stream::Out), "one\ntwo\n");
    assert_eq!(node.told.recv().unwrap().1, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_signals_and_failed_starts_are_told_apart() {
    let node = Node::start().await;
    let mut worker = node.worker("w1", &["w"]).await;
    let refusal = hwp::StreamedResult { stderr: "no such program\n".to_owned(), ..hwp::StreamedResult::default() };
    let none = hwp::StreamedResult::default;
    for (exit_code, more, outcome) in [
        (3, none(), Outcome::Exit(3)),
        (-1, none(), Outcome::Signal(9)),
        (-1, refusal, Outcome::NotStarted(126, "no such program".into())),
    ] {
        let job = node.submit("w", &["x"], 1, WorkSpec::new()).await;
        let task = worker.accepts().await;
        worker.results(hwp::StreamedResult { job_id: task.job_id.clone(), exit_code, ..more.clone() }).await;
        node.ended(job, outcome, 1).await;
        assert_eq!(node.output(&task, Stream::Err), more.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_workers_last_line_says_more_and_is_no_output() {
    let node = Node::start().await;
    let mut worker = node.worker("w1", &["starling", "w"]).await;
    for (line, outcome) in
        [("[starling: signal 15]", Outcome::Signal(15)), ("[starling: timed out]", Outcome::TimedOut)]
    {
        let job = node.submit("w", &["x"], 1, WorkSpec::new()).await;
        let task = worker.accepts().await;
        assert_eq!(task.spec.command, ["x"], "our own worker needs no wrapping");
        worker.logs(&task, "[starling: cancelled]").await;
        worker.logs(&task, "words").await;
        worker.logs(&task, line).await;
        worker.ends(&task, -1).await;
        node.ended(job, outcome, 1).await;
        assert_eq!(worker.is_cancelled().await, task.job_id, "the result is acknowledged");
        assert_eq!(node.output(&task, Stream::Out), "[starling: cancelled]\nwords\n");
    }
    // A program may say that too.
    let job = node.submit("w", &["x"], 1, WorkSpec::new()).await;
    let task = worker.accepts().await;
    worker.logs(&task, "[starling: timed out]").await;
    worker.ends(&task, 0).await;
    node.ended(job, Outcome::Exit(0), 1).await;
    assert_eq!(node.output(&task, Stream::Out), "[starling: timed out]\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_lines_the_result_is_the_output() {
    let node = Node::start().await;
    let mut worker = node.worker("w1", &["w"]).await;
    let texts = |compressed_logs| hwp::StreamedResult {
        stdout: "out\n".to_owned(),
        stderr: "err\n".to_owned(),
        compressed_logs,
        ..hwp::StreamedResult::default()
    };
    for (more, out) in [(texts(bytes::Bytes::new()), "out\n"), (texts(gzip(b"all of it")), "all of it")] {
        let job = node.submit("w", &["x"], 1, WorkSpec::new()).await;
        let task = worker.accepts().await;
        worker.results(hwp::StreamedResult { job_id: task.job_id.clone(), ..more }).await;
        node.ended(job, Outcome::Exit(0), 1).await;
        assert_eq!(node.output(&task, Stream::Out), out);
        assert_eq!(node.output(&task, Stream::Err), "err\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_watched_over_by_timeout_and_by_the_node() {
    let node = Node::start().await;
    let mut worker = node.worker("w1", &["w"]).await;
    let limit = || WorkSpec::new().with("timeout_ms", Value::int(300));
    let job = node.submit("w", &["sleep", "9"], 1, limit()).await;
    let task = worker.accepts().await;
    let words: Vec<&str> = task.spec.command.iter().map(String::as_str).collect();
    assert!(words.ends_with(&["timeout", "-k", "5", "0.300", "sleep", "9"]), "{words:?}");
    // The node's own limit comes as a cancel; the worker says nothing more.
    assert_eq!(worker.is_cancelled().await, task.job_id);
    node.ended(job, Outcome::TimedOut, 1).await;
    // An early 124 is the program's own.
    let job = node.submit("w", &["x"], 1, limit()).await;
    let task = worker.accepts().await;
    worker.ends(&task, 124).await;
    node.ended(job, Outcome::Exit(124), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_is_over_in_time_and_a_late_result_changes_nothing() {
    let node = Node::start().await;
    let mut worker = node.worker("w1", &["w"]).await;
    let obeyed = node.submit("w", &["x"], 1, WorkSpec::new()).await;
    let task = worker.accepts().await;
    node.cancel(obeyed).await;
    assert_eq!(worker.is_cancelled().await, task.job_id);
    worker.ends(&task, -1).await;
    node.ended(obeyed, Outcome::Cancelled, 1).await;
    let ignored = node.submit("w", &["x"], 1, WorkSpec::new()).await;
    let task = worker.accepts().await;
    worker.logs(&task, "before").await;
    node.cancel(ignored).await;
    assert_eq!(worker.is_cancelled().await, task.job_id);
    node.ended(ignored, Outcome::Cancelled, 1).await;
    worker.logs(&task, "after").await;
    worker.ends(&task, 0).await;
    let report = hwp::JobResult { job_id: task.job_id.clone(), exit_code: 0 };
    node.client.clone().report_result(report).await.unwrap();
    node.ended(ignored, Outcome::Cancelled, 1).await;
    assert_eq!(node.output(&task, Stream::Out), "before\n");
    // One of no job that anybody knows.
    let other = hwp::JobResult { job_id: task.job_id.replace('-', "-9"), exit_code: 0 };
    for job_id in ["mine".to_owned(), other.job_id] {
        let status = node.client.clone().report_result(hwp::JobResult { job_id, exit_code: 0 }).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_cannot_be_told_is_not_started() {
    let node = Node::start().await;
    let _worker = node.worker("w1", &["w"]).await;
    let env = Value::Map([("-i".into(), Value::text("x"))].into());
    let job = node.submit("w", &["cat"], 1, WorkSpec::new().with("env", env)).await;
    let reason = "\"-i\" cannot be the name of an environment variable";
    node.ended(job, Outcome::NotStarted(126, reason.into()), 1).await;
}
