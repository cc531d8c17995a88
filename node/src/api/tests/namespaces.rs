//! Namespaces over gRPC and HTTP, and submissions in their words.
//!
//! Invariants: as in `tests`. Does not: test what declarations may say (`declare` does).

use prost::Message as _;
use serde_json::{Value, json};
use starling_proto::v1::{
    ErrorDetail, GetNamespaceRequest, JobRef, ListNamespacesRequest, PutNamespaceReply, PutNamespaceRequest,
    SubmitRequest,
};
use tonic::{Code, Status};

use super::http::{ask, get, post};
use super::world::Node;

const RENDER: &str = r#"
name = "render"
version = 1
handler = "process"
submit = "SubmitRender"
fields.command = { type = "texts", min_items = 1, required = true }
fields.frames = { type = "int", min = 1, max = 100, default = 24 }
fields.draft = { type = "bool" }
fields.look = { type = "map" }
fields.seed = { type = "bytes" }
"#;

async fn put(node: &mut Node, toml: &str) -> Result<PutNamespaceReply, Status> {
    let request = PutNamespaceRequest { toml: toml.to_owned() };
    node.client.put_namespace(request).await.map(tonic::Response::into_inner)
}

fn render(fields: &[&str]) -> SubmitRequest {
    let fields = fields.iter().map(ToString::to_string).collect();
    SubmitRequest { ns: "render".to_owned(), fields, ..SubmitRequest::default() }
}

/// What is said of each wrong field.
async fn refused(node: &mut Node, request: SubmitRequest) -> Vec<(String, String, String)> {
    let status = node.client.submit(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let wrong = ErrorDetail::decode(status.details()).unwrap().violations;
    wrong.into_iter().map(|wrong| (wrong.field, wrong.expected, wrong.got)).collect()
}

fn said(field: &str, expected: &str, got: &str) -> (String, String, String) {
    (field.to_owned(), expected.to_owned(), got.to_owned())
}

#[tokio::test]
async fn a_namespace_is_put_once_and_told_whole() {
    let mut node = Node::start().await;
    let first = put(&mut node, RENDER).await.unwrap();
    assert_eq!((first.name.as_str(), first.version, first.fresh), ("render", 1, true));
    let again = put(&mut node, &format!("# the same\n{RENDER}")).await.unwrap();
    assert_eq!((again.id, again.fresh), (first.id.clone(), false));
    let changed = put(&mut node, &RENDER.replace("100", "99")).await.unwrap_err();
    assert_eq!(changed.code(), Code::FailedPrecondition);
    assert!(changed.message().contains("raise `version`"), "{changed}");
    put(&mut node, &RENDER.replace("100", "99").replace("version = 1", "version = 2")).await.unwrap();
    let list = node.client.list_namespaces(ListNamespacesRequest {}).await.unwrap().into_inner().namespaces;
    let names: Vec<&str> = list.iter().map(|namespace| namespace.name.as_str()).collect();
    assert_eq!(names, ["batch", "monitor", "render", "simulation", "sys"]);
    let versions: Vec<(u32, bool)> =
        list[2].versions.iter().map(|version| (version.version, version.current)).collect();
    assert_eq!((list[2].version, versions, list[2].conflict), (2, vec![(2, true), (1, false)], false));
    let request = GetNamespaceRequest { name: "render".into(), version: 1, ..GetNamespaceRequest::default() };
    let detail = node.client.get_namespace(request).await.unwrap().into_inner();
    assert_eq!((detail.version, &detail.id), (1, &first.id));
    let frames = detail.fields.iter().find(|field| field.name == "frames").unwrap();
    assert_eq!((frames.r#type.as_str(), frames.default_value.as_str()), ("int", "24"));
    assert_eq!((frames.bounds.as_str(), frames.required), ("1 to 100", false));
    assert!(!put(&mut node, &detail.toml).await.unwrap().fresh, "what is told is what was put");
    let request = GetNamespaceRequest { name: "render".into(), version: 3, ..GetNamespaceRequest::default() };
    assert_eq!(node.client.get_namespace(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_wrong_declaration_is_shown_where_it_is_wrong() {
    let mut node = Node::start().await;
    let status = put(&mut node, &RENDER.replace("\"int\"", "\"integer\"")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("line 7, column 26: fields.frames.type: expected"), "{status}");
    let wrong = ErrorDetail::decode(status.details()).unwrap().violations.remove(0);
    assert_eq!((wrong.field.as_str(), wrong.line, wrong.column), ("toml", 7, 26));
    assert!(wrong.got.starts_with("fields.frames = "), "{wrong:?}");
    let status = put(&mut node, &format!("{RENDER}#{}", "x".repeat(64 << 10))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("the limit is 65536"), "{status}");
}

#[tokio::test]
async fn fields_are_read_by_the_schema() {
    let mut node = Node::start().await;
    put(&mut node, RENDER).await.unwrap();
    let request = SubmitRequest {
        alias: "film-1".to_owned(),
        spec: r#"{"seed":"AP8="}"#.to_owned(),
        ..render(&["command=echo", "command=hi", "draft=true", "look.sky=blue", "look.sea=green"])
    };
    let reply = node.client.submit(request.clone()).await.unwrap().into_inner();
    assert_eq!((reply.job.as_str(), reply.known), ("wren-1", false));
    let again = node.client.submit(request).await.unwrap().into_inner();
    assert_eq!((again.job.as_str(), again.known), ("wren-1", true));
    let detail = node.client.get_job(JobRef { job: "film-1".into() }).await.unwrap().into_inner();
    assert_eq!(detail.command, ["echo", "hi"]);
    let spec: Value = serde_json::from_str(&detail.spec).unwrap();
    let look = json!({"sky": "blue", "sea": "green"});
    let expected = json!({"command": ["echo", "hi"], "draft": true, "frames": 24, "look": look, "seed": "AP8="});
    assert_eq!(spec, expected);
    let summary = detail.summary.unwrap();
    assert_eq!((summary.ns.as_str(), summary.alias.as_str(), summary.name.as_str()), ("render", "film-1", "render"));
}

#[tokio::test]
async fn a_wrong_field_is_named_with_what_fits() {
    let mut node = Node::start().await;
    put(&mut node, RENDER).await.unwrap();
    let all = "a field of namespace `render` (command, draft, frames, look, seed)";
    let cases: [(&[&str], Vec<_>); 6] = [
        (&[], vec![said("command", "list of 1 to 1024 texts", "nothing")]),
        (&["command=x", "frames=0"], vec![said("frames", "integer from 1 to 100", "integer 0")]),
        (&["command=x", "frames=many"], vec![said("frames", "integer from 1 to 100", "text \"many\"")]),
        (&["command=x", "frames=1", "frames=2"], vec![said("frames", "integer from 1 to 100", "2 values")]),
        (&["frame=1", "draft.x=1"], vec![said("frame", all, "an unknown one"), said("draft.x", all, "an unknown one")]),
        (&["command=x", "look.a=1", "look.a=2"], vec![said("look", "each entry once", "one twice")]),
    ];
    for (fields, expected) in cases {
        assert_eq!(refused(&mut node, render(fields)).await, expected, "{fields:?}");
    }
    let twice = SubmitRequest { spec: r#"{"frames":1}"#.to_owned(), ..render(&["frames=1"]) };
    assert_eq!(refused(&mut node, twice).await, [said("frames", "one value", "two")]);
    let both = SubmitRequest { command: vec!["x".to_owned()], ..render(&["frames=1"]) };
    assert_eq!(refused(&mut node, both).await, [said("command", "nothing beside `spec` or `fields`", "both")]);
    let unknown = SubmitRequest { ns: "poetry".to_owned(), ..render(&["frames=1"]) };
    assert_eq!(refused(&mut node, unknown).await[0].0, "ns");
    let no_jobs = SubmitRequest { ns: "monitor".to_owned(), ..render(&["frames=1"]) };
    assert_eq!(refused(&mut node, no_jobs).await[0].0, "ns");
}

#[tokio::test]
async fn http_takes_declarations_and_specs() {
    let node = Node::start().await;
    let toml = "content-type: application/toml\r\n";
    let (status, body) = ask(&node, "PUT /v1/namespaces", toml, RENDER).await;
    assert!(status == 200 && body.contains(r#""fresh":true"#), "{status} {body}");
    let json = "content-type: application/json\r\n";
    let wrapped = json!({"toml": RENDER}).to_string();
    let (status, body) = ask(&node, "PUT /v1/namespaces", json, &wrapped).await;
    assert!(status == 200 && body.contains(r#""fresh":false"#), "{status} {body}");
    let (status, body) = ask(&node, "PUT /v1/namespaces", toml, "name = \"x\"\nversion = one").await;
    assert!(status == 400 && body.contains("line 2, column 11") && body.contains(r#""line":2"#), "{status} {body}");
    assert_eq!(ask(&node, "PUT /v1/namespaces", "content-type: image/png\r\n", RENDER).await.0, 415);
    assert_eq!(get(&node, "/v1/namespaces/poetry").await.0, 404);
    let (status, body) = get(&node, "/v1/namespaces").await;
    assert!(status == 200 && body.contains(r#""name":"render""#), "{body}");
    let (status, body) = get(&node, "/v1/namespaces/render?version=1").await;
    assert!(status == 200 && body.contains("handler = "), "{body}");
    let spec = json!({"command": ["echo", "x"], "frames": 3});
    let (status, reply) = post(&node, "/v1/submit", &json!({"namespace": "render", "spec": spec})).await;
    assert_eq!((status, &reply["job"]), (200, &json!("wren-1")), "{reply}");
    let (status, body) = get(&node, "/v1/jobs/wren-1/wait").await;
    assert!(status == 200 && body.contains(r#""state":"done""#), "{body}");
    for (spec, field) in [
        (json!({"command": ["x"], "frames": 1.5}), "frames"),
        (json!({"command": "x"}), "command"),
        (json!({"command": ["x"], "frames": "3"}), "frames"),
        (json!([1]), "spec"),
    ] {
        let (status, reply) = post(&node, "/v1/submit", &json!({"namespace": "render", "spec": spec})).await;
        assert_eq!((status, &reply["violations"][0]["field"]), (400, &json!(field)), "{reply}");
    }
}
