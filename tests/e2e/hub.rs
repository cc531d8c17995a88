//! Programs written against a hub: any node is one, and they may go on at another.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Answer, Http};
use crate::support::{Flock, LONG, PAIR, within};

/// A connection to a node's API.
fn http(flock: &Flock, number: usize) -> Http {
    let info = flock.one(number, &["cluster", "info"]);
    Http::open(info["api_addresses"][0].as_str().unwrap())
}

#[track_caller]
fn ingest(http: &mut Http, kind: &str, job: &str, ns: &str, spec: &Value) -> String {
    let event = json!({"kind": kind, "payload": {"ctx": {"job_id": job, "ns_id": ns, "node_id": "n", "priority": 0}, "spec": spec}});
    let Answer { status, headers, body } = http.ask("POST", "/ingest", &event.to_string());
    assert_eq!(status, 200, "{body}");
    headers["x-job"].clone()
}

/// The jobs that a pull tells, and its two cursors.
#[track_caller]
fn pull(http: &mut Http, cursor: &str) -> (Vec<String>, String, String) {
    let Answer { status, headers, body } = http.ask("GET", &format!("/pull?gid=g&cursor={cursor}"), "");
    assert_eq!(status, 200, "{body}");
    let jobs = body["jobs"].as_object().unwrap().keys().cloned().collect();
    (jobs, headers["x-cursor"].clone(), headers["x-cursor-token"].clone())
}

/// The aliases of jobs since a cursor, by the command line, and the cursor behind them.
#[track_caller]
fn facts(flock: &Flock, number: usize, since: &str) -> (Vec<String>, String) {
    let done = flock.at(number, &["facts", "--since", since]).exits(0);
    let jobs = done.out.lines().map(|line| {
        let job: Value = serde_json::from_str(line).unwrap();
        job["alias"].as_str().unwrap().to_owned()
    });
    let cursor = done.err.lines().find_map(|line| line.strip_prefix("cursor ")).unwrap();
    (jobs.collect(), cursor.to_owned())
}

#[test]
fn a_program_for_a_hub_is_served_at_every_node() {
    let flock = Flock::of(2, PAIR);
    let (mut one, mut two) = (http(&flock, 1), http(&flock, 2));
    let spec = json!({"preemptible": false, "handler_type": "checker", "durability": "Durable",
        "schema": [{"key": "url", "required": true, "type": "string"}]});
    let register = json!({"RegisterNamespace": ["check", spec]});
    assert_eq!(one.post("/control", &register).0, 200);
    within(LONG, "the namespace at the other node", || {
        let (status, reply) = two.post("/control", &register);
        status == 200 && reply["fresh"] == false
    });
    ingest(&mut two, "SubmitCheck", "check-1", "check", &json!({"url": "http://x"}));

    let spec = json!({"command": "sh -c 'echo hello from a hub'", "cpu": "0.5", "memory": "16M"});
    let job = ingest(&mut one, "SubmitJob", "batch-001", "batch", &spec);
    within(LONG, "the job at the other node", || flock.at(2, &["jobs", "batch-001"]).code == Some(0));
    assert_eq!(ingest(&mut two, "SubmitJob", "batch-001", "batch", &spec), job);
    flock.at(2, &["wait", "--timeout", "60s", "batch-001"]).exits(0);
    assert_eq!(flock.at(2, &["logs", "batch-001"]).exits(0).out, "hello from a hub\n");
    assert_eq!(flock.one(2, &["job", "info", "batch-001"])["summary"]["state"], "done");

    let sim = json!({
        "env_cmd": "python3 -c 'import os, socket, time; s = socket.create_server((\"127.0.0.1\", 0)); print(\"PORT=%d\" % s.getsockname()[1], flush=True); time.sleep(60)'",
        "policy_cmd": "sh -c 'exit 7' {port}",
    });
    if std::process::Command::new("python3").arg("--version").output().is_ok() {
        ingest(&mut one, "SubmitSimulation", "sim-001", "simulation", &sim);
        flock.at(1, &["wait", "--timeout", "60s", "sim-001"]).exits(7);
    }
}

/// Runs a job to its end, known at both nodes.
fn run(flock: &Flock, one: &mut Http, job: &str) {
    ingest(one, "SubmitJob", job, "batch", &json!({"command": "true"}));
    flock.at(1, &["wait", "--timeout", "60s", job]).exits(0);
    flock.await_equal(&[1, 2]);
}

#[test]
fn a_cursor_goes_on_at_another_node_and_after_a_restart() {
    let mut flock = Flock::of(2, PAIR);
    let mut one = http(&flock, 1);
    run(&flock, &mut one, "a");
    run(&flock, &mut one, "b");
    let (jobs, number, token) = pull(&mut one, "0");
    assert_eq!(jobs, ["a", "b"]);
    let (all, cursor) = facts(&flock, 1, "");
    assert_eq!(all.len(), 2);
    run(&flock, &mut one, "c");

    assert_eq!(pull(&mut one, &number).0, ["c"]);
    let mut two = http(&flock, 2);
    assert_eq!(pull(&mut two, &number).0, ["a", "b", "c"], "a number that this node never gave");
    assert_eq!(pull(&mut two, &token).0, ["c"]);
    assert_eq!(facts(&flock, 2, &cursor).0, ["c"]);

    drop((one, two));
    flock.cluster.kill(2).unwrap();
    flock.cluster.boot(2).unwrap();
    flock.cluster.await_ready(2).unwrap();
    let (jobs, newer) = facts(&flock, 2, &cursor);
    assert_eq!(jobs, ["c"]);
    assert_eq!(facts(&flock, 1, &newer).0, Vec::<String>::new());
    let mut two = http(&flock, 2);
    assert_eq!(pull(&mut two, &token).0, ["c"]);
    let refused = flock.at(1, &["facts", "--since", "nonsense"]).says("cursor");
    assert_ne!(refused.code, Some(0));
}

#[test]
fn an_ingest_of_a_mebibyte_is_refused_with_the_limit() {
    let flock = Flock::of(1, PAIR);
    let mut one = http(&flock, 1);
    let large = json!({"kind": "SubmitJob", "payload": {"ctx": {"job_id": "j", "ns_id": "batch"}, "spec": {"command": "x".repeat(1 << 20)}}});
    let (status, reply) = one.post("/ingest", &large);
    assert_eq!(status, 413);
    assert!(reply["error"].as_str().unwrap().contains("1048576"), "{reply}");
    assert!(flock.json(1, &["jobs", "--all"]).is_empty());
}

/// A program that is poked at its callback: one request at a time, each answered with 200.
fn callback(listener: &TcpListener) -> Option<String> {
    let (mut stream, _) = listener.accept().ok()?;
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut reader = BufReader::new(&stream);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        let header = line.to_lowercase();
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    Some(String::from_utf8(body).unwrap())
}

#[test]
fn a_hubs_executor_is_poked_pulls_acts_and_reports() {
    let flock = Flock::of(2, PAIR);
    let (mut one, mut two) = (http(&flock, 1), http(&flock, 2));
    let spec = json!({"preemptible": false, "handler_type": "prober", "schema": [{"key": "url", "required": true, "type": "string"}]});
    assert_eq!(one.post("/control", &json!({"RegisterNamespace": ["probe", spec]})).0, 200);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // By the handler's kind, as hubs have it.
    let generator = json!({"RegisterGenerator": ["g", {"kind": "prober", "callback_url": url}]});
    let (status, reply) = one.post("/control", &generator);
    assert_eq!(status, 200, "{reply}");
    let poked = || callback(&listener).is_some_and(|body| body == r#"{"gid":"g"}"#);
    within(LONG, "a poke on entry", poked);

    within(LONG, "the namespace at the other node", || flock.at(2, &["ns", "describe", "probe"]).code == Some(0));
    ingest(&mut two, "SubmitProbe", "probe-1", "probe", &json!({"url": "http://x"}));
    within(LONG, "a poke for the job", poked);
    let (jobs, cursor, _) = pull(&mut one, "0");
    assert_eq!(jobs, ["probe-1"]);
    let report = |http: &mut Http, kind: &str, job: &str, spec: &Value| {
        let event = json!({"kind": kind, "payload": {"ctx": {"job_id": job, "ns_id": "probe"}, "spec": spec}});
        http.ask("POST", "/ingest", &event.to_string())
    };
    let refused = report(&mut two, "JobFinished", "probe-1", &json!({"exit": "0"}));
    assert_eq!(refused.status, 409, "no relay at node 2 holds it: {}", refused.body);
    let refused = report(&mut one, "JobFinished", "probe-9", &json!({"exit": "0"}));
    assert_eq!(refused.status, 404, "{}", refused.body);
    within(LONG, "the task to be there for its generator", || {
        report(&mut one, "JobFinished", "probe-1", &json!({"exit": "4"})).status == 200
    });
    flock.at(2, &["wait", "--timeout", "60s", "probe-1"]).exits(4);
    let again = report(&mut one, "JobFinished", "probe-1", &json!({"exit": "0"}));
    assert_eq!(again.status, 409, "it was reported: {}", again.body);
    flock.await_equal(&[1, 2]);
    let (jobs, _, _) = pull(&mut one, &cursor);
    assert_eq!(jobs, ["probe-1"], "only what changed");
}
