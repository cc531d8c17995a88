//! The hub contract over HTTP, and Facts since a cursor.
//!
//! Invariants: as in `tests`. Does not: cross nodes (the end-to-end tests do).

use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use smol_str::SmolStr;
use starling_core::event::WorkSpec;
use starling_core::ids::JobId;
use starling_core::machine::Reply;

use super::http::{Answered, get, request};
use super::world::Node;
use crate::api::{Generator, Generators};
use crate::driver::Stopped;

/// Holds task 0 of every job of the namespaces that it was registered for, and remembers what it was told.
#[derive(Debug, Default)]
struct Fake {
    told: Mutex<Vec<String>>,
    registered: Mutex<Vec<Generator>>,
}

impl Fake {
    fn tell(&self, text: String) {
        self.told.lock().unwrap().push(text);
    }
}

impl Generators for Fake {
    fn register(&self, generator: Generator) -> BoxFuture<'_, Result<(), String>> {
        let refused = generator.callback_url.as_ref().is_some_and(|url| !url.starts_with("http://"));
        if !refused {
            self.registered.lock().unwrap().push(generator);
        }
        let answer = if refused { Err("callback_url: expected http://".to_owned()) } else { Ok(()) };
        async move { answer }.boxed()
    }

    fn contact(&self, gid: &str) -> BoxFuture<'_, ()> {
        self.tell(format!("contact {gid}"));
        async {}.boxed()
    }

    fn serving(&self, namespace: &str) -> BoxFuture<'_, Vec<String>> {
        let all = self.registered.lock().unwrap();
        let of = all.iter().filter(|one| one.namespace == namespace).map(|one| one.gid.clone()).collect();
        async move { of }.boxed()
    }

    fn report(
        &self,
        _job: JobId,
        task: u32,
        kind: SmolStr,
        spec: WorkSpec,
    ) -> BoxFuture<'_, Option<Result<Reply, Stopped>>> {
        let is_held = task == 0 && !self.registered.lock().unwrap().is_empty();
        self.tell(format!("report {kind} {spec:?}"));
        async move { is_held.then_some(Ok(Reply::Noted)) }.boxed()
    }
}

async fn node() -> (Node, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    (Node::with_generators(Arc::clone(&fake) as Arc<dyn Generators>).await, fake)
}

async fn post(node: &Node, path: &str, body: &Value) -> Answered {
    request(node, &format!("POST {path}"), "", &body.to_string()).await
}

fn event(kind: &str, job: &str, ns: &str, spec: &Value) -> Value {
    json!({"kind": kind, "payload": {"ctx": {"job_id": job, "ns_id": ns, "node_id": "n1", "priority": 3}, "spec": spec}})
}

async fn ingest(node: &Node, kind: &str, job: &str, ns: &str, spec: Value) -> (u16, Value) {
    let answer = post(node, "/ingest", &event(kind, job, ns, &spec)).await;
    (answer.status, answer.json())
}

async fn check_namespace(node: &Node) {
    let spec = json!({"preemptible": false, "handler_type": "checker", "durability": "Durable",
        "schema": [{"key": "url", "required": true, "type": "string"}, {"key": "tries", "required": false, "type": "int"}]});
    let answer = post(node, "/control", &json!({"RegisterNamespace": ["check", spec]})).await;
    assert_eq!((answer.status, answer.json()["fresh"].clone()), (200, json!(true)), "{answer:?}");
    let answer = post(node, "/control", &json!({"RegisterNamespace": ["check", spec]})).await;
    assert_eq!((answer.status, answer.json()["fresh"].clone()), (200, json!(false)), "the same again is fine");
}

#[tokio::test]
async fn a_batch_job_under_a_chosen_name_is_one_job_and_like_any_other() {
    let (node, _) = node().await;
    let spec = json!({"command": "echo 'a b' c", "cpu": "0.5", "memory": "1M", "env": "A=1"});
    let answer = post(&node, "/ingest", &event("SubmitJob", "batch-001", "batch", &spec)).await;
    assert_eq!((answer.status, answer.json()), (200, json!([])));
    assert_eq!(answer.header("x-job"), Some("wren-1"));
    let (status, body) = get(&node, "/v1/jobs/batch-001/wait").await;
    assert!(status == 200 && body.contains(r#""state":"done""#), "{body}");
    let (_, body) = get(&node, "/v1/jobs/batch-001/logs?format=text").await;
    assert!(body.contains("echo a b c"), "{body}");
    let again = post(&node, "/ingest", &event("SubmitJob", "batch-001", "", &json!({"command": "false"}))).await;
    assert_eq!((again.status, again.header("x-job")), (200, Some("wren-1")));
    let (status, body) = get(&node, "/pull?gid=g&cursor=0").await;
    let facts: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    let job = &facts["jobs"]["batch-001"];
    assert_eq!(job["phase"], "done", "{facts}");
    assert_eq!(job["resources"], json!({"cpu": 0.5, "memory": 1 << 20}));
    assert_eq!((&job["namespace_id"], &job["priority"], &job["exit"]), (&json!("batch"), &json!(3), &json!(0)));
    assert_eq!(job["spec"]["env"], Value::Null, "may be private");
    assert_eq!(facts["nodes"]["wren"]["name"], "wren", "{facts}");
}

#[tokio::test]
async fn submissions_of_one_name_at_once_are_one_job() {
    let (node, _) = node().await;
    let body = event("SubmitJob", "same", "batch", &json!({"command": "hold"}));
    let all = futures::future::join_all((0..20).map(|_| post(&node, "/ingest", &body))).await;
    for answer in all {
        assert_eq!((answer.status, answer.header("x-job")), (200, Some("wren-1")), "{answer:?}");
    }
}

#[tokio::test]
async fn events_that_do_not_fit_are_refused_with_the_reason() {
    let (node, _) = node().await;
    check_namespace(&node).await;
    let cases = [
        (("SubmitJob", "j", "batch", json!({"comand": "true"})), 400, "comand"),
        (("SubmitJob", "j", "batch", json!({})), 400, "command"),
        (("SubmitJob", "j", "batch", json!({"command": "true", "cpu": "some"})), 400, "cpu"),
        (("SubmitOther", "j", "batch", json!({"command": "true"})), 400, "SubmitJob"),
        (("SubmitJob", "", "batch", json!({"command": "true"})), 400, "job_id"),
        (("SubmitJob", "j", "nowhere", json!({"command": "true"})), 400, "nowhere"),
        (("SubmitX", "j", "check", json!({"tries": "3"})), 400, "url"),
        (("SubmitX", "j", "check", json!({"url": "u", "tries": "few"})), 400, "tries"),
        (("JobFinished", "j", "check", json!({"exit": "0"})), 404, "no job is called"),
        (("HardwareStats", "j", "monitor", json!({})), 400, "takes no jobs"),
    ];
    for ((kind, job, ns, spec), code, words) in cases {
        let (status, reply) = ingest(&node, kind, job, ns, spec).await;
        assert!(status == code && reply.to_string().contains(words), "{kind} {job} {ns}: {status} {reply}");
    }
    let (_, listed) = get(&node, "/v1/jobs").await;
    assert!(listed.contains(r#""total":0"#), "{listed}");
    let (status, _) = ingest(&node, "SubmitX", "c-1", "check", json!({"url": "u"})).await;
    assert_eq!(status, 200);
    for (kind, ns, code, words) in [
        ("JobFinished", "", 409, "not in a relay's hands"),
        ("JobFinished", "batch", 400, "ns_id"),
        ("Passed", "check", 400, "JobFinished"),
        ("SubmitJob", "batch", 409, "of namespace `check`"),
    ] {
        let spec = if kind == "SubmitJob" { json!({"command": "true"}) } else { json!({"exit": "0"}) };
        let (status, reply) = ingest(&node, kind, "c-1", ns, spec).await;
        assert!(status == code && reply.to_string().contains(words), "{kind}: {status} {reply}");
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_or_too_large_are_refused() {
    let (node, _) = node().await;
    let answer = request(&node, "POST /ingest", "", "{\"kind\": \"SubmitJob\",\n \"payload\": }").await;
    assert!(answer.status == 400 && answer.body.contains("line 2 column 13"), "{answer:?}");
    let answer = request(&node, "POST /control", "", r#"{"Register": ["x", {}]}"#).await;
    assert!(answer.status == 400 && answer.body.contains("RegisterNamespace"), "{answer:?}");
    let large = json!({"command": "x".repeat(1 << 20)});
    let answer = post(&node, "/ingest", &event("SubmitJob", "j", "batch", &large)).await;
    assert!(answer.status == 413 && answer.body.contains("1048576"), "{answer:?}");
    let answer = request(&node, "POST /ingest", "origin: http://evil\r\n", "{}").await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn built_in_namespaces_are_there_already_unless_they_would_differ() {
    let (node, _) = node().await;
    let register = async |name: &str, handler: &str, fields: Value| {
        let spec = json!({"preemptible": false, "handler_type": handler, "schema": fields, "durability": "Durable"});
        let answer = post(&node, "/control", &json!({"RegisterNamespace": [name, spec]})).await;
        (answer.status, answer.json())
    };
    let command = json!([{"key": "command", "required": true, "type": "string"}, {"key": "cpu", "required": false, "type": "float"}]);
    assert_eq!(register("batch", "process", command.clone()).await.0, 200);
    assert_eq!(
        register("simulation", "", json!([{"key": "env_cmd", "required": true, "type": "string"}])).await.0,
        200
    );
    let (status, reply) =
        register("batch", "process", json!([{"key": "colour", "required": true, "type": "string"}])).await;
    assert!(status == 409 && reply.to_string().contains("no field `colour`"), "{reply}");
    let (status, reply) =
        register("batch", "process", json!([{"key": "command", "required": true, "type": "int"}])).await;
    assert!(status == 409 && reply.to_string().contains("`command` is `int`"), "{reply}");
    let (status, reply) = register("batch", "relay", command).await;
    assert!(status == 409 && reply.to_string().contains("no relay"), "{reply}");
    let (status, reply) = register("Bad Name", "", json!([])).await;
    assert!(status == 400 && reply.to_string().contains("lower-case"), "{reply}");
}

#[tokio::test]
async fn a_generator_is_registered_poked_contacted_and_reported_through() {
    let (node, fake) = node().await;
    check_namespace(&node).await;
    let register = async |gid: &str, spec: Value| {
        let answer = post(&node, "/control", &json!({"RegisterGenerator": [gid, spec]})).await;
        (answer.status, answer.json())
    };
    let url = "http://127.0.0.1:1/poke";
    let (status, reply) = register("g1", json!({"kind": "check", "callback_url": url})).await;
    assert_eq!((status, &reply["namespace"]), (200, &json!("check")));
    assert_eq!(fake.registered.lock().unwrap()[0].callback_url.as_deref(), Some(url));
    let (status, reply) = register("g2", json!({"kind": "checker"})).await;
    assert_eq!((status, &reply["namespace"]), (200, &json!("check")), "by the handler's word");
    let (status, reply) = register("g3", json!({"kind": "odd"})).await;
    assert!(status == 400 && reply.to_string().contains("check"), "{reply}");
    let (status, reply) = register("g4", json!({"kind": "check", "callback_url": "ftp://x"})).await;
    assert!(status == 409 && reply.to_string().contains("callback_url"), "{reply}");
    let submitted = ingest(&node, "SubmitCheck", "c-1", "check", json!({"url": "u"})).await;
    assert_eq!(submitted, (200, json!([{"gid": "g1"}, {"gid": "g2"}])));
    let reported = ingest(&node, "JobFinished", "c-1", "check", json!({"exit": "3"})).await;
    assert_eq!(reported.0, 200);
    assert_eq!(get(&node, "/pull?gid=g1").await.0, 200);
    let told = fake.told.lock().unwrap().join("; ");
    assert!(told.contains("report JobFinished") && told.contains("Int(3)") && told.contains("contact g1"), "{told}");
}

/// The aliases of the jobs that a pull tells, and the cursor behind it.
async fn facts(node: &Node, query: &str) -> (Vec<String>, String) {
    let (status, body) = get(node, &format!("/v1/facts?{query}")).await;
    assert_eq!(status, 200, "{body}");
    let facts: Value = serde_json::from_str(&body).unwrap();
    let aliases = facts["jobs"].as_array().unwrap().iter().map(|job| job["alias"].as_str().unwrap().to_owned());
    let mut aliases: Vec<String> = aliases.collect();
    aliases.sort();
    (aliases, facts["cursor"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_cursor_brings_what_changed_behind_it_and_nothing_else() {
    let (node, _) = node().await;
    for job in ["a", "b"] {
        assert_eq!(ingest(&node, "SubmitJob", job, "batch", json!({"command": "exit 0"})).await.0, 200);
        get(&node, &format!("/v1/jobs/{job}/wait")).await;
    }
    let (jobs, cursor) = facts(&node, "").await;
    assert_eq!(jobs, ["a", "b"]);
    assert_eq!(facts(&node, &format!("cursor={cursor}")).await, (vec![], cursor.clone()));
    assert_eq!(ingest(&node, "SubmitJob", "c", "batch", json!({"command": "hold"})).await.0, 200);
    let (jobs, newer) = facts(&node, &format!("cursor={cursor}")).await;
    assert_eq!(jobs, ["c"]);
    check_namespace(&node).await;
    assert_eq!(facts(&node, &format!("cursor={newer}&namespace=check")).await.0, Vec::<String>::new());
    assert_eq!(ingest(&node, "SubmitX", "d", "check", json!({"url": "u"})).await.0, 200);
    assert_eq!(facts(&node, "namespace=check").await.0, ["d"]);
    assert_eq!(facts(&node, &format!("cursor={cursor}&namespace=check")).await.0, ["d"]);
    let (status, body) = get(&node, "/v1/facts?cursor=nonsense!").await;
    assert!(status == 400 && body.contains("base64url") && body.contains("cursor"), "{body}");
    let (status, body) = get(&node, "/v1/facts?namespace=chekc").await;
    assert!(status == 400 && body.contains("check"), "{body}");
}

#[tokio::test]
async fn a_limit_is_gone_through_to_the_end() {
    let (node, _) = node().await;
    for job in 0..30 {
        let job = format!("j{job:02}");
        assert_eq!(ingest(&node, "SubmitJob", &job, "batch", json!({"command": "hold"})).await.0, 200);
    }
    let (mut all, mut cursor, mut rounds) = (vec![], String::new(), 0);
    loop {
        let (jobs, next) = facts(&node, &format!("limit=4&cursor={cursor}")).await;
        rounds += 1;
        if next == cursor {
            break;
        }
        all.extend(jobs);
        cursor = next;
    }
    all.sort();
    all.dedup();
    assert!(all.len() == 30 && rounds > 3, "{rounds} rounds: {all:?}");
}

#[tokio::test]
async fn numbers_go_on_where_they_were_given_and_mean_everything_elsewhere() {
    let (node, _) = node().await;
    assert_eq!(ingest(&node, "SubmitJob", "a", "batch", json!({"command": "hold"})).await.0, 200);
    let pull = async |query: &str| {
        let answer = request(&node, &format!("GET /pull?{query}"), "", "").await;
        let jobs: Vec<String> = answer.json()["jobs"].as_object().unwrap().keys().cloned().collect();
        (jobs, answer.header("x-cursor").unwrap().to_owned(), answer.header("x-cursor-token").unwrap().to_owned())
    };
    // The job is started in a moment, which is news too.
    let mut last = pull("gid=g").await;
    while !last.0.is_empty() {
        last = pull(&format!("gid=g&cursor={}", last.1)).await;
    }
    let (_, number, token) = last;
    assert!(number.parse::<u64>().unwrap() > 0);
    assert_eq!(pull(&format!("gid=g&cursor={number}")).await.0, Vec::<String>::new());
    assert_eq!(pull(&format!("gid=other&cursor={number}")).await.0, ["a"], "not its number");
    assert_eq!(pull("gid=g&cursor=12345").await.0, ["a"], "nobody's number");
    assert_eq!(pull(&format!("gid=other&cursor={token}")).await.0, Vec::<String>::new());
}
