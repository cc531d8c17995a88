//! Logs carried from node to node: exports, imports of them, and what is refused.
//!
//! Invariants: as in `tests`. Does not: read or write files.

use starling_core::event::SignedBatch;
use starling_core::ids::ClusterId;
use starling_core::machine::Machine;
use starling_core::time::Now;
use starling_proto::v1::{ExportLogRequest, ImportLogReply, ListJobsRequest, LogPiece};
use tonic::{Code, Status};

use super::calls::{command, ended, submitted};
use super::world::Node;

const SECRET: [u8; 32] = [7; 32];

async fn exported(node: &mut Node, author: &str) -> Vec<LogPiece> {
    let request = ExportLogRequest { author: author.to_owned() };
    let mut stream = node.client.export_log(request).await.unwrap().into_inner();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.message().await.unwrap() {
        pieces.push(piece);
    }
    pieces
}

async fn import(node: &mut Node, pieces: Vec<LogPiece>) -> Result<ImportLogReply, Status> {
    node.client.import_log(futures::stream::iter(pieces)).await.map(tonic::Response::into_inner)
}

fn batches(pieces: &[LogPiece]) -> Vec<Vec<u8>> {
    pieces.iter().flat_map(|piece| piece.batches.clone()).collect()
}

/// A piece with these batches of a cluster.
fn piece(cluster: &[u8], batches: &[Vec<u8>]) -> Vec<LogPiece> {
    vec![LogPiece { cluster: cluster.to_vec(), batches: batches.to_vec(), end: None }]
}

async fn root(node: &Node) -> (u64, String) {
    let root = |machine: &mut Machine, _now: Now| (machine.frontier().events(), machine.root().to_hex());
    node.handle.ask(root).await.unwrap()
}

/// Two members that never met, each with a job that has ended.
async fn apart() -> (Node, Node) {
    let (mut wren, mut lark) = (Node::named("wren", 1, SECRET).await, Node::named("lark", 2, SECRET).await);
    for node in [&mut wren, &mut lark] {
        let job = submitted(node, command(&["/bin/echo", "hi"])).await.job;
        ended(node, &job).await;
    }
    (wren, lark)
}

#[tokio::test]
async fn two_nodes_that_never_met_are_equal_after_a_crosswise_import() {
    let (mut wren, mut lark) = apart().await;
    let (of_wren, of_lark) = (exported(&mut wren, "").await, exported(&mut lark, "").await);
    let end = of_wren.last().unwrap().end.clone().unwrap();
    assert_eq!(end.batches, batches(&of_wren).len() as u64);
    assert_eq!(end.tips.len(), 1);
    let reply = import(&mut wren, of_lark.clone()).await.unwrap();
    assert_eq!((reply.new_batches, reply.known_batches, reply.refused_batches), (batches(&of_lark).len() as u64, 0, 0));
    assert_eq!(import(&mut lark, of_wren.clone()).await.unwrap().new_events, end.events);
    assert_eq!(root(&wren).await, root(&lark).await);
    let again = import(&mut lark, of_wren).await.unwrap();
    assert_eq!((again.new_batches, again.known_batches), (0, end.batches));
    assert_eq!((again.events, again.facts_root), root(&lark).await);
    let jobs = lark.client.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner().jobs;
    let mut ids: Vec<_> = jobs.iter().map(|job| job.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["lark-1", "wren-1"]);
}

#[tokio::test]
async fn an_export_of_one_author_has_only_its_log() {
    let (mut wren, mut lark) = apart().await;
    let of_lark = exported(&mut lark, "").await;
    import(&mut wren, of_lark.clone()).await.unwrap();
    assert_eq!(batches(&exported(&mut wren, "lark").await), batches(&of_lark));
    let unknown = wren.client.export_log(ExportLogRequest { author: "owl".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn a_log_of_another_cluster_is_refused_by_name_and_nothing_changes() {
    let mut wren = Node::named("wren", 1, SECRET).await;
    let mut owl = Node::named("owl", 3, [8; 32]).await;
    let job = submitted(&mut owl, command(&["/bin/echo", "hi"])).await.job;
    ended(&mut owl, &job).await;
    let before = root(&wren).await;
    let foreign = exported(&mut owl, "").await;
    let refused = import(&mut wren, foreign.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("this is the log of cluster"), "{refused:?}");
    // Under the right name it is no better.
    let ours = wren.handle.ask(|machine: &mut Machine, _now: Now| machine.cluster()).await.unwrap();
    let reply = import(&mut wren, piece(&ours.0, &batches(&foreign))).await.unwrap();
    assert_eq!((reply.new_batches, reply.refused_batches), (0, batches(&foreign).len() as u64));
    assert!(reply.refusals[0].reason.contains("another cluster"), "{:?}", reply.refusals);
    assert_eq!(root(&wren).await, before);
}

#[tokio::test]
async fn doctored_strange_and_disconnected_batches_are_refused_and_the_node_goes_on() {
    let (mut wren, mut lark) = apart().await;
    let of_lark = exported(&mut lark, "").await;
    let (cluster, all) = (of_lark[0].cluster.clone(), batches(&of_lark));
    let mut doctored = all[0].clone();
    let last = doctored.len() - 1;
    doctored[last] ^= 1;
    let reply = import(&mut wren, piece(&cluster, &[doctored, all[1].clone()])).await.unwrap();
    assert_eq!((reply.new_batches, reply.refused_batches), (0, 2));
    let reasons: Vec<&str> = reply.refusals.iter().map(|refusal| refusal.reason.as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("signature does not match")), "{reasons:?}");
    let first = SignedBatch::open(&all[0], &ClusterId(cluster.clone().try_into().unwrap())).unwrap();
    let missing = format!("events 1 to {} are missing", first.header().last_seq());
    assert!(reasons.iter().any(|reason| reason.contains(&missing)), "{reasons:?}");
    // One that signs well and is no member.
    let mut stranger = Node::named("owl", 3, [8; 32]).await;
    ended_job(&mut stranger).await;
    let forged = forged_opening(3, ClusterId(cluster.clone().try_into().unwrap()));
    let reply = import(&mut wren, piece(&cluster, &[forged.bytes().to_vec()])).await.unwrap();
    assert!(reply.refusals[0].reason.contains("it is no member"), "{:?}", reply.refusals);
    // Nothing at all, and no cluster.
    assert_eq!(import(&mut wren, vec![]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(import(&mut wren, piece(b"x", &[])).await.unwrap_err().code(), Code::InvalidArgument);
    let huge = piece(&cluster, &vec![vec![0; 64 << 10]; 17]);
    assert_eq!(import(&mut wren, huge).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(import(&mut wren, of_lark).await.unwrap().refused_batches, 0);
    ended_job(&mut wren).await;
}

async fn ended_job(node: &mut Node) {
    let job = submitted(node, command(&["/bin/echo", "hi"])).await.job;
    ended(node, &job).await;
}

/// The opening of a log whose author does not know the cluster's secret.
fn forged_opening(seed: u8, cluster: ClusterId) -> SignedBatch {
    use starling_core::event::{Signer, membership_mac};
    use starling_core::ids::{Epoch, Hash, Seq};
    let signer = Signer::from_seed(&[seed; 32]);
    let mac = membership_mac(&[9; 32], &signer.node());
    let admit = starling_core::namespace::sys::admit(starling_core::time::Hlc::default(), mac, "owl");
    let bytes = admit.to_bytes();
    SignedBatch::seal(&signer, cluster, Epoch(1), Seq(1), Hash::ZERO, vec![(admit, bytes)])
}
