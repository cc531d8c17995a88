//! What workers cannot do to the node.

use starling_core::event::WorkSpec;
use starling_core::facts::Outcome;
use starling_proto::hwp;
use tonic::Code;

use super::ends::gzip;
use super::world::*;
use crate::exec::output::Stream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_lines_is_cut_and_says_so() {
    let node = Node::start().await;
    let mut worker = node.worker("w1", &["w"]).await;
    let job = node.submit("w", &["x"], 1, WorkSpec::new()).await;
    let task = worker.accepts().await;
    let line = "x".repeat(32 << 10);
    for _ in 0..64 {
        worker.logs(&task, &line).await;
    }
    worker.ends(&task, 0).await;
    node.ended(job, Outcome::Exit(0), 1).await;
    let (_, len, _) = node.told.recv().unwrap();
    assert!((1 << 20..(1 << 20) + 100).contains(&len), "{len}");
    let end = node.tail(&task);
    let dropped = 64 * ((32 << 10) + 1) - (1 << 20);
    assert!(end.ends_with(&format!("\n[starling: {dropped} bytes dropped, cap is 1048576]\n")), "{end}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gzip_bomb_is_cut_where_the_output_is_full() {
    let node = Node::start().await;
    let mut worker = node.worker("w1", &["w"]).await;
    let zeros = vec![0; 64 << 20];
    for (packed, end) in [
        (gzip(&zeros), "\n[starling: output cut at 1048576 bytes]\n".to_owned()),
        (gzip(b"words")[..12].to_vec().into(), "compressed output is damaged".to_owned()),
    ] {
        let job = node.submit("w", &["x"], 1, WorkSpec::new()).await;
        let task = worker.accepts().await;
        worker.results(hwp::StreamedResult { compressed_logs: packed, ..result(&task, 0) }).await;
        node.ended(job, Outcome::Exit(0), 1).await;
        assert!(node.tail(&task).contains(&end), "{}", node.tail(&task));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_never_reads_is_cut_off() {
    let node = Node::with(super::super::Options { accept_ms: 200, lease_ms: 20_000, ..QUICK }).await;
    let mut worker = node.worker("w1", &["w", "slots=1024"]).await;
    // More than the queue, the connection's window and the sockets hold.
    let word = "x".repeat(10 << 10);
    node.submit("w", &[&word], 1_024, WorkSpec::new()).await;
    node.list(|workers| workers.len() == 1 && !workers[0].attached).await;
    let status = loop {
        if let Err(status) = worker.hears().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("does not read"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_many_slots_is_told_as_it_accepts() {
    let node = Node::with(super::super::Options { accept_ms: 20_000, ..QUICK }).await;
    let mut worker = node.worker("w1", &["w", "slots=1024"]).await;
    let job = node.submit("w", &["x"], 1_024, WorkSpec::new()).await;
    node.list(|workers| workers[0].tasks.len() == 1_024).await;
    for _ in 0..1_024 {
        let task = worker.accepts().await;
        worker.ends(&task, 0).await;
    }
    node.ended(job, Outcome::Exit(0), 1_024).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_others_tasks_are_no_output() {
    let node = Node::start().await;
    let mut worker = node.worker("w1", &["w"]).await;
    let other = node.worker("w2", &["other"]).await;
    let job = node.submit("w", &["x"], 1, WorkSpec::new()).await;
    let task = worker.accepts().await;
    other.logs(&task, "forged").await;
    other.ends(&task, 0).await;
    // Its next words are taken after those.
    node.submit("other", &["y"], 1, WorkSpec::new()).await;
    worker.logs(&task, "mine").await;
    worker.ends(&task, 4).await;
    node.ended(job, Outcome::Exit(4), 1).await;
    assert_eq!(node.output(&task, Stream::Out), "mine\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream_is_ended_and_its_worker_forgotten() {
    let node = Node::with(super::super::Options { silence_ms: 1_000, ..QUICK }).await;
    let mut worker = node.worker("w1", &["w"]).await;
    let status = worker.hears().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("nothing was heard"), "{status}");
    assert!(node.gateway.list().await.is_empty());
}
