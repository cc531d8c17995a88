//! Logs over the Unix socket.
//!
//! Invariants: as in `tests`. Does not: test how output is kept (`output`, `exec`).

use starling_core::facts::view;
use starling_core::ids::GrantId;
use starling_proto::Word as _;
use starling_proto::v1::{CancelRequest, IndexRange, LogChunk, LogStream, LogsRequest, SubmitRequest, WaitRequest};
use tonic::{Code, Streaming};

use super::calls::{command, submitted};
use super::world::{DEADLINE, Node, Reach};
use crate::exec::output::{Stream, path};
use crate::output::Place;

async fn next(stream: &mut Streaming<LogChunk>) -> Option<LogChunk> {
    tokio::time::timeout(DEADLINE, stream.message()).await.unwrap().unwrap()
}

#[tokio::test]
async fn followed_logs_end_with_the_job_and_carry_true_offsets() {
    let mut node = Node::start().await;
    let array = vec![IndexRange { start: 3, end: 5 }];
    let job = submitted(&mut node, SubmitRequest { array, ..command(&["echo", "hi"]) }).await.job;
    let request = LogsRequest { job: job.clone(), follow: true, ..Default::default() };
    let mut stream = node.client.logs(request).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(chunk) = tokio::time::timeout(DEADLINE, stream.message()).await.unwrap().unwrap() {
        assert_eq!((chunk.offset, chunk.node.as_str(), chunk.stream().word()), (0, "wren", "out"));
        seen.push((chunk.task, String::from_utf8(chunk.data).unwrap()));
    }
    seen.sort();
    assert_eq!(seen, [3, 4, 5].map(|task| (task, "echo hi\n".to_owned())));
    let request = LogsRequest { job: job.clone(), task: Some(4), offset: 5, ..Default::default() };
    let mut stream = node.client.logs(request).await.unwrap().into_inner();
    let chunk = stream.message().await.unwrap().unwrap();
    assert_eq!((chunk.task, chunk.offset, chunk.data.as_slice()), (4, 5, b"hi\n".as_slice()));
    assert!(stream.message().await.unwrap().is_none());
    let request = LogsRequest { job, task: Some(9), ..Default::default() };
    assert_eq!(node.client.logs(request).await.unwrap_err().code(), Code::InvalidArgument);
}

/// Where task 0 of the newest job writes, once it runs.
async fn running_place(node: &Node) -> Place {
    let find = |machine: &mut starling_core::machine::Machine, _now| {
        let (job, facts) = machine.facts().jobs().next_back()?;
        let grant = view::latest_run(facts, 0)?.grant;
        Some(Place { grant: GrantId { job, no: grant }, task: 0 })
    };
    let running = async {
        loop {
            if let Some(place) = node.handle.ask(find).await.unwrap() {
                return place;
            }
        }
    };
    tokio::time::timeout(DEADLINE, running).await.unwrap()
}

#[tokio::test]
async fn growing_output_of_a_running_task_is_followed_in_order() {
    let mut node = Node::start().await;
    let job = submitted(&mut node, command(&["hold"])).await.job;
    let request = LogsRequest { job: job.clone(), follow: true, ..Default::default() };
    let mut stream = node.client.logs(request).await.unwrap().into_inner();
    let prefix = node.files.prefix(&running_place(&node).await);
    std::fs::create_dir_all(prefix.parent().unwrap()).unwrap();
    let whole: Vec<u8> = (0..=255).cycle().take(600_000).collect();
    let mut got = Vec::new();
    for end in [10, 300_000, whole.len()] {
        std::fs::write(path(&prefix, Stream::Err), &whole[..end]).unwrap();
        while got.len() < end {
            let chunk = next(&mut stream).await.unwrap();
            assert_eq!((chunk.offset, chunk.stream().word()), (got.len() as u64, "err"));
            got.extend(chunk.data);
        }
        assert!(got == whole[..end], "bytes differ before {end}");
    }
    let cancel = CancelRequest { jobs: vec![job], ..Default::default() };
    node.client.cancel(cancel).await.unwrap();
    assert!(next(&mut stream).await.is_none());
}

#[tokio::test]
async fn what_clients_push_follows_the_tasks_output_or_stands_alone() {
    let mut node = Node::start().await;
    let job = submitted(&mut node, command(&["hold"])).await.job;
    let place = running_place(&node).await;
    let prefix = node.files.prefix(&place);
    std::fs::create_dir_all(prefix.parent().unwrap()).unwrap();
    std::fs::write(path(&prefix, Stream::Out), "task\n").unwrap();
    let pushed = path(&node.files.prefix(&Place::pushed(place.grant.job)), Stream::Pushed);
    std::fs::write(&pushed, "pushed\n").unwrap();
    let (task, client) = (("out", "task\n"), ("pushed", "pushed\n"));
    for (streams, only, expected) in [
        (vec![], None, vec![task, client]),
        (vec![], Some(0), vec![task]),
        (vec![LogStream::Pushed.into()], None, vec![client]),
        (vec![LogStream::Out.into()], None, vec![task]),
    ] {
        let request = LogsRequest { job: job.clone(), streams, task: only, ..Default::default() };
        let mut stream = node.client.logs(request).await.unwrap().into_inner();
        for (word, text) in expected {
            let chunk = next(&mut stream).await.unwrap();
            assert_eq!((chunk.stream().word(), chunk.data.as_slice(), chunk.offset), (word, text.as_bytes(), 0));
            assert_eq!(chunk.node, "wren");
        }
        assert!(next(&mut stream).await.is_none());
    }
    let streams = vec![LogStream::Pushed.into()];
    let request = LogsRequest { job: job.clone(), streams, follow: true, ..Default::default() };
    let mut stream = node.client.logs(request).await.unwrap().into_inner();
    assert_eq!(next(&mut stream).await.unwrap().data, b"pushed\n");
    std::fs::write(&pushed, "pushed\nlater\n").unwrap();
    let chunk = next(&mut stream).await.unwrap();
    assert_eq!((chunk.offset, chunk.data.as_slice()), (7, b"later\n".as_slice()));
    let cancel = CancelRequest { jobs: vec![job], ..Default::default() };
    node.client.cancel(cancel).await.unwrap();
    assert!(next(&mut stream).await.is_none());
}

#[tokio::test]
async fn streams_of_an_environment_server_are_read_when_asked_for() {
    let mut node = Node::start().await;
    let job = submitted(&mut node, command(&["hold"])).await.job;
    let prefix = node.files.prefix(&running_place(&node).await);
    std::fs::create_dir_all(prefix.parent().unwrap()).unwrap();
    for stream in Stream::ALL {
        std::fs::write(path(&prefix, stream), format!("{stream:?}")).unwrap();
    }
    let streams = [LogStream::EnvErr, LogStream::EnvOut].map(Into::into).to_vec();
    for (asked, expected) in [
        (streams, [("env_err", "EnvErr"), ("env_out", "EnvOut")]),
        // A plain job has none, and is not asked for any.
        (vec![], [("out", "Out"), ("err", "Err")]),
    ] {
        let request = LogsRequest { job: job.clone(), streams: asked, ..Default::default() };
        let mut stream = node.client.logs(request).await.unwrap().into_inner();
        for (word, text) in expected {
            let chunk = next(&mut stream).await.unwrap();
            assert_eq!((chunk.stream().word(), chunk.data.as_slice()), (word, text.as_bytes()));
        }
        assert!(next(&mut stream).await.is_none());
    }
    let request = LogsRequest { job, streams: vec![7], ..Default::default() };
    assert_eq!(node.client.logs(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn output_out_of_reach_is_said_and_the_owners_copy_is_given() {
    for (reach, bytes, note) in [
        (Reach::Nothing, 0, "log unreachable: node wren does not answer"),
        (Reach::Tails, 65_536, "full log unreachable: node wren does not answer; last 64 KiB from the owner"),
    ] {
        let mut node = Node::with_output(reach).await;
        let job = submitted(&mut node, command(&["echo", "hi"])).await.job;
        let wait = WaitRequest { jobs: vec![job.clone()], progress: false };
        let mut ended = node.client.wait(wait).await.unwrap().into_inner();
        ended.message().await.unwrap().unwrap();
        let request = LogsRequest { job, follow: true, ..Default::default() };
        let mut stream = node.client.logs(request).await.unwrap().into_inner();
        let chunk = next(&mut stream).await.unwrap();
        assert_eq!((chunk.data.len(), chunk.note.as_str()), (bytes, note));
        assert!(next(&mut stream).await.is_none());
    }
}
