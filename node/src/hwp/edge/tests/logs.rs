//! Log intake.

use std::sync::{Arc, Mutex, OnceLock};

use starling_core::ids::{Epoch, JobId, JobNo, LogId, NodeId};
use starling_core::machine::Machine;
use starling_proto::hwp::LogEntry;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use super::world::{Echo, Made, Node, assignment, outlook, within};
use crate::exec::output::Stream;
use crate::output::{Files, Kept, PIECE_BYTES_MAX, Place, Pushes, Sent, Which};

fn entry(job_id: &str, data: &str) -> LogEntry {
    LogEntry { job_id: job_id.to_owned(), data: data.to_owned() }
}

async fn push(node: &Node, entries: Vec<LogEntry>) -> Result<(), tonic::Status> {
    let mut client = node.client().await;
    within(client.stream_logs(tokio_stream::iter(entries))).await.map(|_empty| ())
}

/// All that was pushed to a job of `files`' node.
fn pushed(files: &Files, job: JobId) -> String {
    let mut text = Vec::new();
    loop {
        let place = Place::pushed(job);
        let (data, _) = files.read(Which::Full, &place, Stream::Pushed, text.len() as u64, 1 << 20).unwrap();
        if data.is_empty() {
            return String::from_utf8(text).unwrap();
        }
        text.extend_from_slice(&data);
    }
}

async fn job(node: &Node, alias: &str) -> JobId {
    let alias = alias.to_owned();
    node.ask(move |machine: &Machine| machine.facts().job_called(&alias).unwrap()).await
}

#[tokio::test]
async fn lines_are_kept_by_the_owner_in_their_order() {
    let node = Node::start().await;
    let mut client = node.client().await;
    for alias in ["one", "two"] {
        within(client.assign_job(assignment(alias, &["hold"]))).await.unwrap();
    }
    let long = "x".repeat(3 * PIECE_BYTES_MAX);
    let mut entries = vec![entry("one", "a"), entry("two", "b\n"), entry("wren-1", &long), entry("two", "")];
    entries.extend((0..2_000).map(|number| entry("two", &format!("line {number}"))));
    push(&node, entries).await.unwrap();
    push(&node, vec![entry("one", "later")]).await.unwrap();
    let (one, two) = (job(&node, "one").await, job(&node, "two").await);
    assert_eq!(pushed(&node.files, one), format!("a\n{long}\nlater\n"));
    let lines: String = (0..2_000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(pushed(&node.files, two), format!("b\n\n{lines}"));
}

#[tokio::test]
async fn lines_appear_while_the_client_goes_on() {
    let node = Node::start().await;
    let mut client = node.client().await;
    within(client.assign_job(assignment("one", &["hold"]))).await.unwrap();
    let (tx, entries) = mpsc::channel(4);
    let call =
        tokio::runtime::Handle::current().spawn(async move { client.stream_logs(ReceiverStream::new(entries)).await });
    tx.send(entry("one", "now")).await.unwrap();
    let one = job(&node, "one").await;
    let appears = async {
        while pushed(&node.files, one).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within(appears).await;
    assert!(!call.is_finished());
    drop(tx);
    within(call).await.unwrap().unwrap();
    assert_eq!(pushed(&node.files, one), "now\n");
}

#[tokio::test]
async fn a_job_that_nobody_knows_is_refused_and_what_came_before_is_kept() {
    let node = Node::start().await;
    let mut client = node.client().await;
    within(client.assign_job(assignment("one", &["hold"]))).await.unwrap();
    let refused = push(&node, vec![entry("one", "a"), entry("nothing", "b")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("nothing"), "{refused}");
    push(&node, vec![entry("one", "c")]).await.unwrap();
    assert!(pushed(&node.files, job(&node, "one").await).ends_with("c\n"));
}

/// A node that knows the job `far-1` of another, whose `files` are kept through `owner`.
async fn beside(owner: Pushes, is_linked: bool) -> (Node, JobId) {
    let answering: Arc<OnceLock<Pushes>> = Arc::default();
    let (runtime, answers) = (tokio::runtime::Handle::current(), Arc::clone(&answering));
    let send = move |_to: NodeId, id, job, piece: &bytes::Bytes| {
        if !is_linked {
            return Sent::NotLinked;
        }
        let (owner, answers, piece) = (owner.clone(), Arc::clone(&answers), piece.clone());
        runtime.spawn(async move {
            let kept = owner.keep(job, piece).await;
            answers.get().unwrap().answered(id, kept);
        });
        Sent::Yes
    };
    let node = Node::made(Made { send: Box::new(send), ..Made::default() }).await;
    answering.set(node.pushes.clone()).unwrap();
    let log = LogId { node: NodeId([2; 32]), epoch: Epoch(1) };
    (node, JobId { log, no: JobNo(1) })
}

#[tokio::test]
async fn pieces_for_another_node_wait_for_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::under(dir.path());
    let owner = Pushes::new(NodeId([2; 32]), files.clone(), Box::new(|_, _, _, _| Sent::NotLinked));
    let (node, far) = beside(owner.clone(), true).await;
    for number in 0..100 {
        let piece = format!("line {number}\n").into();
        assert_eq!(within(node.pushes.push(far, piece)).await, Ok(true));
    }
    let lines: String = (0..100).map(|number| format!("line {number}\n")).collect();
    assert_eq!(pushed(&files, far), lines);
    assert_eq!(owner.keep(far, vec![b'x'; PIECE_BYTES_MAX + 1].into()).await, Kept::Unknown, "a piece too large");
    let (cut_off, _) = beside(owner, false).await;
    let refused = within(cut_off.pushes.push(far, "x\n".into())).await.unwrap_err();
    assert!(refused.to_string().contains("cannot be reached"), "{refused}");
}

#[tokio::test]
async fn lines_about_assignments_go_to_the_gateway_and_others_do_not() {
    let echo = Echo::default();
    let (_seats, following) = tokio::sync::watch::channel(outlook(9, 1, echo.line()));
    let node = Node::made(Made { outlooks: Some(following), ..Made::default() }).await;
    let mut client = node.client().await;
    within(client.assign_job(assignment("one", &["hold"]))).await.unwrap();
    let assigned = format!("{}-1-1.0-1.0", node.me.to_hex());
    let lines =
        [(&*assigned, "w1"), (&*assigned, "w2"), ("one", "c1"), ("one", "c2"), (&*assigned, "w3"), ("one", "c3")];
    let entries: Vec<LogEntry> = lines.iter().map(|(job_id, data)| entry(job_id, data)).collect();
    let mut request = Request::new(tokio_stream::iter(entries));
    request.metadata_mut().insert("worker-id", "w".parse().unwrap());
    within(client.stream_logs(request)).await.unwrap();
    assert_eq!(echo.heard(), ["w:logs", "w1", "w2", "w3"]);
    assert_eq!(pushed(&node.files, job(&node, "one").await), "c1\nc2\nc3\n");
}

#[tokio::test]
async fn a_flood_is_bounded_and_marked_as_cut() {
    // The cap is 64 MiB: 70 MiB in lines of 64 KiB.
    let node = Node::start().await;
    let mut client = node.client().await;
    within(client.assign_job(assignment("one", &["hold"]))).await.unwrap();
    let sent = Arc::new(Mutex::new(0_u32));
    let counted = Arc::clone(&sent);
    let line = "y".repeat((64 << 10) - 1);
    let entries = futures::stream::iter(0..1_120);
    let entries = futures::StreamExt::map(entries, move |_| {
        *counted.lock().unwrap() += 1;
        entry("one", &line)
    });
    within(client.stream_logs(futures::StreamExt::boxed(entries))).await.unwrap();
    assert_eq!(*sent.lock().unwrap(), 1_120);
    let place = Place::pushed(job(&node, "one").await);
    let (end, len) = node.files.read(Which::Full, &place, Stream::Pushed, 64 << 20, 1_000).unwrap();
    assert_eq!(len, (64 << 20) + end.len() as u64);
    let end = String::from_utf8(end.to_vec()).unwrap();
    assert!(end.contains("[starling: cut here") && end.len() < 200, "{end}");
}
