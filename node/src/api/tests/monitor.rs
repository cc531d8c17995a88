//! Readings over gRPC and HTTP.
//!
//! Invariants: as in `tests`. Does not: read this machine: the readings are made up.

use starling_core::ids::{Epoch, JobNo, NodeId};
use starling_core::machine::Input;
use starling_proto::v1::{GetNodeRequest, ListNodesRequest, NodeDetail, NodeLine, SubmitRequest};
use tonic::Code;

use super::calls::{command, submitted};
use super::http::get;
use super::world::{DEADLINE, Node};
use crate::monitor::{Disk, JobKey, JobUse, Reading};

fn reading(job: JobKey) -> Reading {
    let used = JobUse { job, tasks: 1, cpu_milli: 990, cpu_ms: 2_000, rss_bytes: 1 << 20 };
    let unknown = JobUse { job: JobKey { owner: 0xabcd_ef01_0000_0000, ..job }, ..used };
    Reading {
        read_unix_ms: 7,
        cpu_milli: 1_500,
        cpu_total_milli: 2_000,
        disks: vec![Disk { mount: "/data".into(), used_bytes: 1, total_bytes: 2 }],
        jobs: vec![used, unknown],
        ..Reading::default()
    }
}

/// The node's line once its reading is there.
async fn with_usage(node: &mut Node, with_jobs: bool) -> NodeLine {
    let look = async {
        loop {
            let reply = node.client.list_nodes(ListNodesRequest { with_jobs }).await.unwrap().into_inner();
            if let [line] = reply.nodes.as_slice()
                && line.usage.is_some()
            {
                return line.clone();
            }
        }
    };
    tokio::time::timeout(DEADLINE, look).await.unwrap()
}

async fn get_node(node: &mut Node, name: &str, since_ms: u64) -> Result<NodeDetail, tonic::Status> {
    let request = GetNodeRequest { node: name.to_owned(), since_ms };
    node.client.get_node(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn readings_and_their_past_are_told() {
    let mut node = Node::start().await;
    let job = submitted(&mut node, SubmitRequest { name: "nap".into(), ..command(&["hold"]) }).await.job;
    let me: NodeId = node.handle.ask(|machine, _now| machine.me()).await.unwrap();
    let reading = reading(JobKey { owner: me.prefix(), epoch: Epoch(1), no: JobNo(1) });
    for read in 0..3 {
        node.past.put(me, node.handle.clock().now().mono, &Reading { read_unix_ms: read, ..reading.clone() });
    }
    node.handle.input(Input::Stats(reading.to_spec()));
    let line = with_usage(&mut node, false).await;
    let usage = line.usage.clone().unwrap();
    assert_eq!((usage.cpu_milli, usage.cpu_total_milli, usage.disks[0].mount.as_str()), (1_500, 2_000, "/data"));
    assert!(line.jobs.is_empty());
    let line = with_usage(&mut node, true).await;
    let jobs: Vec<_> = line.jobs.iter().map(|used| (used.job.as_str(), used.name.as_str(), used.cpu_milli)).collect();
    assert_eq!(jobs, [(job.as_str(), "nap", 990), ("abcdef01-1", "", 990)]);
    for name in ["", "wren", "wr", &me.to_hex(), &me.to_hex()[..5]] {
        let detail = get_node(&mut node, name, 60_000).await.unwrap();
        assert_eq!((detail.node.unwrap().jobs.len(), detail.history.len()), (2, 3), "{name}");
        let now = detail.view.unwrap().as_of_unix_ms;
        assert!(detail.history.iter().all(|sample| sample.cpu_milli == 1_500 && now - sample.at_unix_ms < 60_000));
    }
    assert!(get_node(&mut node, "wren", 0).await.unwrap().history.is_empty());
    let status = get_node(&mut node, "robin", 0).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no node is called `robin`"));
}

#[tokio::test]
async fn readings_are_told_over_http() {
    let mut node = Node::start().await;
    let reading = reading(JobKey { owner: 1, epoch: Epoch(1), no: JobNo(1) });
    node.handle.input(Input::Stats(reading.to_spec()));
    with_usage(&mut node, false).await;
    let (status, body) = get(&node, "/v1/nodes").await;
    assert!(status == 200 && body.contains(r#""cpu_milli":1500"#) && body.contains(r#""jobs":[]"#), "{body}");
    let (status, body) = get(&node, "/v1/nodes?jobs").await;
    assert!(status == 200 && body.contains(r#""cpu_ms":2000"#), "{body}");
    let (status, body) = get(&node, "/v1/nodes/wren?since_ms=1000").await;
    assert!(status == 200 && body.contains(r#""history":[]"#) && body.contains(r#""cpu_ms":2000"#), "{body}");
    for (path, expected) in [("/v1/nodes/robin", 404), ("/v1/nodes/wren?since=1h", 400), ("/v1/nodes?job=1", 400)] {
        let (status, body) = get(&node, path).await;
        assert!(status == expected && body.contains(r#""error":"#), "{path}: {body}");
    }
}
