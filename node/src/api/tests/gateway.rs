//! The gateway, its workers and tokens, and jobs that ask for labels, over both doors.
//!
//! Invariants: as in `tests`. Does not: attach a worker (`hwp` does).

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;
use starling_core::ids::{Epoch, GrantId, GrantNo, JobId, JobNo, LogId, NodeId, Term};
use starling_proto::v1::{
    AddTokenRequest, CheckState, DoctorRequest, GatewayReply, GetGatewayRequest, GetNodeRequest, JobRef,
    ListTokensRequest, ListWorkersRequest, RevokeTokenRequest, Simulation, SubmitRequest, WorkerState,
};
use tonic::Code;

use super::calls::{command, refused, submitted};
use super::http::{ask, get, post};
use super::world::{DEADLINE, Node};
use crate::api::ReadWorkers;
use crate::hwp::gateway::{Reach, WorkerLine};
use crate::hwp::id::AssignmentId;

/// Waits until the node acts as the gateway.
async fn acting(node: &mut Node) -> GatewayReply {
    let acts = async {
        loop {
            let reply = node.client.get_gateway(GetGatewayRequest {}).await.unwrap().into_inner();
            if reply.acting {
                return reply;
            }
            assert!(!reply.why.is_empty());
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, acts).await.unwrap()
}

#[tokio::test]
async fn a_lone_node_becomes_the_gateway_and_every_view_says_so() {
    let mut node = Node::start().await;
    let (status, body) = get(&node, "/v1/gateway").await;
    assert!(status == 200 && body.contains("no claim yet: this node has only just begun to listen"), "{body}");
    let reply = acting(&mut node).await;
    assert_eq!((reply.term, reply.holder.as_str(), reply.workers), (1, "wren", 0));
    assert!(reply.why.starts_with("wren has held term 1 for ") && reply.why.ends_with(", and acts"), "{}", reply.why);
    assert!(reply.since_unix_ms > 0);
    let wren = node.client.get_node(GetNodeRequest::default()).await.unwrap().into_inner().node.unwrap();
    assert!(wren.gateway && wren.gateway_willing);
    let checks = node.client.doctor(DoctorRequest {}).await.unwrap().into_inner().checks;
    let check = checks.iter().find(|check| check.name == "gateway").unwrap();
    assert_eq!((check.state(), check.hint.as_str()), (CheckState::Ok, ""));
    assert!(check.detail.contains("and acts"), "{}", check.detail);
}

fn hash(digit: char) -> String {
    digit.to_string().repeat(64)
}

#[tokio::test]
async fn a_token_lives_from_its_addition_to_its_revocation() {
    let mut node = Node::start().await;
    let add = |name: &str, hash: String| AddTokenRequest { name: name.into(), hash };
    let added = node.client.add_token(add("ci", hash('a'))).await.unwrap().into_inner().token.unwrap();
    assert_eq!((added.name.as_str(), added.added_by.as_str(), added.revoked_unix_ms), ("ci", "wren", 0));
    assert!(added.added_unix_ms > 0);
    // The same again is no error, so that a call may be repeated.
    node.client.add_token(add("ci", hash('A'))).await.unwrap();
    let taken = node.client.add_token(add("ci", hash('b'))).await.unwrap_err();
    assert_eq!(taken.code(), Code::FailedPrecondition);
    assert!(taken.message().contains("a token called `ci`"), "{}", taken.message());
    for (name, wrong) in [("", hash('b')), ("a b", hash('b')), ("x", "abc".to_owned()), ("x", hash('g'))] {
        let refused = node.client.add_token(add(name, wrong)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    node.client.add_token(add("lab", hash('b'))).await.unwrap();
    let revoke = |token: &str| RevokeTokenRequest { token: token.into() };
    let revoked = node.client.revoke_token(revoke("ci")).await.unwrap().into_inner();
    assert!(revoked.fresh && revoked.token.unwrap().revoked_by == "wren");
    assert!(!node.client.revoke_token(revoke("aaaa")).await.unwrap().into_inner().fresh);
    let unknown = node.client.revoke_token(revoke("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let tokens = node.client.list_tokens(ListTokensRequest {}).await.unwrap().into_inner().tokens;
    let shown: Vec<(&str, bool)> =
        tokens.iter().map(|token| (token.name.as_str(), token.revoked_unix_ms > 0)).collect();
    assert_eq!(shown, [("lab", false), ("ci", true)]);
}

#[tokio::test]
async fn tokens_live_over_http_too() {
    let node = Node::start().await;
    let (status, reply) = post(&node, "/v1/gateway/tokens", &json!({"name": "ci", "hash": hash('c')})).await;
    assert_eq!((status, &reply["token"]["name"]), (200, &json!("ci")));
    let (status, reply) = post(&node, "/v1/gateway/tokens", &json!({"name": "x", "hash": "secret"})).await;
    assert_eq!((status, &reply["violations"][0]["field"]), (400, &json!("hash")));
    assert!(!reply.to_string().contains("secret"), "{reply}");
    let (status, body) = get(&node, "/v1/gateway/tokens").await;
    assert!(status == 200 && body.contains(&hash('c')), "{body}");
    let (status, body) = ask(&node, "DELETE /v1/gateway/tokens/cccc", "", "").await;
    assert!(status == 200 && body.contains(r#""fresh":true"#), "{body}");
    assert_eq!(ask(&node, "DELETE /v1/gateway/tokens/dddd", "", "").await.0, 404);
    assert_eq!(get(&node, "/v1/workers").await.0, 200);
}

/// Workers that are there from the start.
#[derive(Debug)]
struct Fixed(Result<Vec<WorkerLine>, String>);

impl ReadWorkers for Fixed {
    fn list(&self) -> BoxFuture<'_, Result<Vec<WorkerLine>, String>> {
        let list = self.0.clone();
        async move { list }.boxed()
    }
}

fn worker(id: &str, tasks: &[&str]) -> WorkerLine {
    WorkerLine {
        id: id.into(),
        labels: vec!["docker".into()],
        slots: 2,
        tasks: tasks.iter().map(ToString::to_string).collect(),
        reach: Reach::Stream,
        attached: true,
        heard: Duration::from_millis(1_500),
        cpu_milli: Some(250),
        mem_bytes: None,
    }
}

#[tokio::test]
async fn workers_are_listed_with_state_and_tasks_once_a_gateway_acts() {
    let log = LogId { node: NodeId([9; 32]), epoch: Epoch(1) };
    let grant = GrantId { job: JobId { log, no: JobNo(7) }, no: GrantNo { term: Term(1), no: 1 } };
    let task = AssignmentId { grant, task: 4 }.to_string();
    let lines = vec![
        WorkerLine { attached: false, ..worker("w3", &[]) },
        worker("w1", &[task.as_str()]),
        WorkerLine { reach: Reach::DialBack, ..worker("w2", &["mine", "mine too"]) },
    ];
    let mut node = Node::with_workers(Arc::new(Fixed(Ok(lines)))).await;
    let before = node.client.list_workers(ListWorkersRequest {}).await.unwrap().into_inner();
    assert_eq!((before.gateway.as_str(), before.workers.len()), ("", 0));
    acting(&mut node).await;
    let reply = node.client.list_workers(ListWorkersRequest {}).await.unwrap().into_inner();
    assert_eq!((reply.gateway.as_str(), reply.term), ("wren", 1));
    let shown: Vec<(&str, WorkerState, u32, &str)> = reply
        .workers
        .iter()
        .map(|worker| (worker.name.as_str(), worker.state(), worker.busy, worker.reach.as_str()))
        .collect();
    let expected = [
        ("w1", WorkerState::Ready, 1, "stream"),
        ("w2", WorkerState::Full, 2, "dial-back"),
        ("w3", WorkerState::Away, 0, "stream"),
    ];
    assert_eq!(shown, expected);
    let first = &reply.workers[0];
    assert_eq!((first.silent_ms, first.cpu_milli, first.mem_bytes), (1_500, Some(250), None));
    assert_eq!((first.tasks[0].job.as_str(), first.tasks[0].task), ("09090909-7", 4));
    let (_, body) = get(&node, "/v1/workers").await;
    assert!(body.contains(r#""state":"away""#), "{body}");
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_is_told_as_such() {
    let mut node = Node::with_workers(Arc::new(Fixed(Err("wren is silent".into())))).await;
    acting(&mut node).await;
    let status = node.client.list_workers(ListWorkersRequest {}).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "cannot list the gateway's workers: wren is silent")
    );
}

fn wanting(labels: &[&str]) -> SubmitRequest {
    SubmitRequest { constraint: labels.iter().map(ToString::to_string).collect(), ..command(&["true"]) }
}

#[tokio::test]
async fn a_job_for_labels_that_nobody_has_waits_and_says_why() {
    let mut node = Node::start().await;
    let reply = submitted(&mut node, wanting(&["gpu"])).await;
    assert_eq!(reply.warning, "no live node and no worker has label gpu; the job waits");
    let detail = node.client.get_job(JobRef { job: reply.job.clone() }).await.unwrap().into_inner();
    assert_eq!(detail.constraint, ["gpu"]);
    let explained = node.client.explain(JobRef { job: reply.job }).await.unwrap().into_inner();
    let expected =
        "1 task waits: no node and no worker that could run it has label gpu; `starling nodes --wide` shows labels";
    assert_eq!(explained.summary, expected);
    assert_eq!(explained.nodes[0].reason, "has no label gpu");
    let reply = submitted(&mut node, SubmitRequest { image: "alpine".into(), ..wanting(&["gpu"]) }).await;
    assert_eq!(reply.warning, "no live node and no worker has all of labels gpu, docker; the job waits");
    let detail = node.client.get_job(JobRef { job: reply.job }).await.unwrap().into_inner();
    assert_eq!(detail.image, "alpine");
    let reply = submitted(&mut node, SubmitRequest { node: "wren".into(), ..wanting(&["gpu"]) }).await;
    assert_eq!(reply.warning, "node wren does not have label gpu; the job waits");
}

#[tokio::test]
async fn labels_and_images_that_are_none_are_refused() {
    let mut node = Node::start().await;
    let cases = [
        (wanting(&["gpu", "a b"]), "constraint"),
        (wanting(&[""]), "constraint"),
        (wanting(&["x"; 33]), "constraint"),
        (SubmitRequest { image: "--privileged".into(), ..command(&["true"]) }, "image"),
    ];
    for (request, field) in cases {
        let (status, detail) = refused(&mut node, request).await;
        assert_eq!((status.code(), detail.violations[0].field.as_str()), (Code::InvalidArgument, field));
    }
    let words = |words: &str| words.split(' ').map(ToOwned::to_owned).collect();
    let pair = Simulation { env_command: words("env"), policy_command: words("policy"), port_wait_ms: 0 };
    let request = SubmitRequest { simulation: Some(pair), command: Vec::new(), ..wanting(&["gpu"]) };
    let (_, detail) = refused(&mut node, request).await;
    assert_eq!(detail.violations[0].field, "constraint");
}
