//! Wrong requests get a clear answer, change nothing, and hurt nobody.

use serde_json::json;
use starling_proto::v1::starling_client::StarlingClient;
use starling_proto::v1::{JobRef, SubmitRequest};
use tonic::Code;

use crate::catch_up::api_of;
use crate::http::Http;
use crate::support::{Flock, PAIR, SMALL, client, scratch};

#[test]
fn unknown_flags_and_values_are_usage_errors() {
    let home = scratch();
    client(home.path(), &["submit", "--frobnicate", "--", "true"]).exits(2).says("--frobnicate");
    client(home.path(), &["submit", "--array", "9-1", "--", "true"]).exits(2);
    client(home.path(), &["submit", "--mem", "lots", "--", "true"]).exits(2).says("lots");
    client(home.path(), &["submit"]).exits(2);
    client(home.path(), &["up", "--cpus", "many"]).exits(2);
    client(home.path(), &["jobs", "--state", "sleeping"]).exits(2).says("pending");
    client(home.path(), &["fly"]).exits(2);
    client(home.path(), &["submit", "--each-line", "/nonexistent/lines", "--", "true"])
        .exits(2)
        .says("/nonexistent/lines");
}

#[test]
fn a_spec_that_fails_its_schema_names_the_field() {
    let flock = Flock::of(1, SMALL);
    let mut http = Http::open(&api_of(&flock, 1));
    let (status, reply) = http.post("/v1/submit", &json!({"ns": "poetry", "command": ["true"]}));
    assert_eq!(status, 400, "{reply}");
    assert!(reply["error"].as_str().unwrap().contains("poetry"), "{reply}");
    let cases = [
        (json!({"command": []}), "command"),
        (json!({"command": ["true"], "env": {"A=B": "c"}}), "env"),
        (json!({"command": ["true"], "array": [{"start": 5, "end": 2}]}), "array"),
        (json!({"command": ["true"], "name": "n".repeat(4_000)}), "name"),
        (json!({"command": ["true"], "cwd": "relative/path"}), "cwd"),
    ];
    for (body, field) in cases {
        let (status, reply) = http.post("/v1/submit", &body);
        assert_eq!(status, 400, "{body}: {reply}");
        let named = reply["violations"][0]["field"].as_str().unwrap_or("");
        assert!(named.starts_with(field), "{field} is not named in {reply}");
        assert_ne!(reply["violations"][0]["expected"], "", "{reply}");
    }
    let (status, reply) = http.post("/v1/submit", &json!({"command": "true"}));
    assert!((400..500).contains(&status), "{status}: {reply}");
    assert!(reply["error"].as_str().unwrap().contains("expected a sequence at line 1"), "{reply}");
    let (status, reply) = http.post("/v1/submit", &json!({"comand": ["true"]}));
    assert!((400..500).contains(&status), "a misspelt field was taken: {status}: {reply}");
    let (status, _) = http.get("/v1/jobs/nobody-7");
    assert_eq!(status, 404);
    let (_, list) = http.get("/v1/jobs");
    assert_eq!(list["total"], 0, "nothing was submitted");
    let (status, _) = http.post("/v1/submit", &json!({"command": ["true"]}));
    assert_eq!(status, 200);
}

#[test]
fn grpc_refuses_as_http_does() {
    let flock = Flock::of(1, SMALL);
    let address = format!("http://{}", api_of(&flock, 1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = StarlingClient::connect(address).await.unwrap();
        let request = |ns: &str, words: &[&str]| SubmitRequest {
            ns: ns.to_owned(),
            command: words.iter().map(ToString::to_string).collect(),
            ..SubmitRequest::default()
        };
        let refused = client.submit(request("poetry", &["true"])).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("poetry"), "{refused}");
        let refused = client.submit(request("", &[])).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("command"), "{refused}");
        let refused = client.get_job(JobRef { job: "nobody-7".to_owned() }).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
        let reply = client.submit(request("batch", &["true"])).await.unwrap().into_inner();
        assert_eq!(reply.tasks, 1);
    });
}

#[test]
fn a_command_that_does_not_exist_fails_with_127_and_a_reason() {
    let flock = Flock::of(1, SMALL);
    flock.at(1, &["run", "--", "no-such-command"]).exits(127).says("command not found: no-such-command");
    flock.at(1, &["run", "--", "/no/such/file"]).exits(127).says("/no/such/file");
    flock.at(1, &["run", "--", "/etc/passwd"]).exits(126).says("/etc/passwd");
    let listed = flock.at(1, &["jobs"]).exits(0);
    assert!(listed.out.contains("command not found: no-such-command"), "{}", listed.out);
}

#[test]
fn a_directory_that_does_not_exist_is_named() {
    let flock = Flock::of(1, SMALL);
    let done = flock.at(1, &["run", "-C", "/no/such/directory", "--", "true"]).says("/no/such/directory");
    // 125 would mean cancelled.
    assert!(matches!(done.code, Some(126 | 127)), "{done:?}");
    let job = flock.json(1, &["jobs"])[0]["id"].as_str().unwrap().to_owned();
    let told = flock.at(1, &["job", "explain", &job]).exits(0);
    assert!(told.out.contains("/no/such/directory"), "{}", told.out);
}

#[test]
fn a_job_too_large_for_every_node_waits_and_explains_why() {
    let flock = Flock::of(2, SMALL);
    let done = flock.at(1, &["submit", "--parsable", "--mem", "100T", "--", "true"]).exits(0).says("waits");
    let job = done.line();
    let many = flock.submit(1, &["--cpus", "64", "--", "true"]);
    let nowhere = flock.submit(1, &["--node", "atlantis", "--", "true"]);
    // Those who wait in vain hold nobody up.
    flock.at(1, &["run", "--", "true"]).exits(0);
    for (job, reason) in [(&job, "102400 GiB"), (&many, "64 cpus"), (&nowhere, "atlantis")] {
        assert_eq!(flock.state(1, job), "pending");
        let told = flock.at(1, &["job", "explain", job]).exits(0);
        assert!(told.out.contains("PENDING") && told.out.contains(reason), "{}", told.out);
        assert!(!told.out.contains("placed already"), "{}", told.out);
        let listed = flock.at(1, &["jobs", job]).exits(0);
        assert!(listed.out.contains(reason), "{}", listed.out);
        flock.at(1, &["cancel", job]).exits(0);
        flock.at(1, &["wait", "--timeout", "20s", job]).exits(125);
    }
}

#[test]
fn a_job_too_large_starts_once_its_node_has_grown() {
    let mut flock = Flock::of(2, SMALL);
    let job = flock.submit(1, &["--cpus", "2", "--", "true"]);
    assert_eq!(flock.state(1, &job), "pending");
    // So fast that nobody takes it for dead.
    flock.cluster.stop(2).unwrap();
    flock.cluster.set_flags(2, PAIR);
    flock.cluster.boot(2).unwrap();
    flock.at(1, &["wait", "--timeout", "30s", &job]).exits(0);
    assert_eq!(flock.one(1, &["jobs", &job])["nodes"], json!([flock.name(2)]));
}
