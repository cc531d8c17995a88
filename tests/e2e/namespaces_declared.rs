//! Namespaces that users declare: put at one node, known and used at all of them.

use std::fs;

use serde_json::json;

use crate::catch_up::api_of;
use crate::http::Http;
use crate::support::{Flock, LONG, SMALL, within};

const HEALTH: &str = include_str!("../../node/examples/health_check.toml");
const RENDER: &str = r#"
name = "render"
version = 1
handler = "process"
submit = "SubmitRender"
phases = ["queued", "rendering", "rendered"]

[fields.command]
type = "texts"
min_items = 1
required = true

[fields.env]
type = "map"

[fields.frames]
type = "int"
min = 1
max = 100
default = 24

[rules.JobStarted]
phase = "rendering"

[rules.JobFinished]
phase = "rendered"
"#;

/// Writes a declaration where `ns put` finds it.
fn file(flock: &Flock, name: &str, toml: &str) -> String {
    let path = flock.file(name);
    fs::write(&path, toml).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Waits until a node knows a version of a namespace.
#[track_caller]
fn await_version(flock: &Flock, number: usize, name: &str, version: u32) {
    within(LONG, "the namespace to arrive", || {
        let listed = flock.json(number, &["ns", "list"]);
        listed.iter().any(|namespace| namespace["name"] == name && namespace["version"] == version)
    });
}

#[test]
fn a_namespace_put_at_one_node_is_known_at_another() {
    let flock = Flock::of(2, SMALL);
    let first = file(&flock, "health.toml", HEALTH);
    assert!(flock.at(1, &["ns", "put", &first]).exits(0).out.starts_with("registered health_check version 1"));
    await_version(&flock, 2, "health_check", 1);
    let listed = flock.at(2, &["ns", "list"]).exits(0).out;
    assert!(listed.contains("health_check") && listed.contains("relay"), "{listed}");
    let told = flock.at(2, &["ns", "describe", "health_check"]).exits(0).out;
    for words in ["expect_status  int   no        200      100 to 599", "CheckPassed", "latency_ms_max=max(latency_ms)"]
    {
        assert!(told.contains(words), "no `{words}` in:\n{told}");
    }
    let copy = flock.at(2, &["ns", "get", "health_check"]).exits(0).out;
    let copy = file(&flock, "copy.toml", &copy);
    assert!(flock.at(2, &["ns", "put", &copy]).exits(0).out.starts_with("already registered"));
    assert!(flock.at(1, &["ns", "put", &first]).exits(0).out.starts_with("already registered"));

    let changed = HEALTH.replace("max = 599", "max = 499");
    let changed_file = file(&flock, "changed.toml", &changed);
    for number in [1, 2] {
        flock.at(number, &["ns", "put", &changed_file]).exits(1).says("raise `version`");
    }
    let second = file(&flock, "second.toml", &changed.replace("version = 1", "version = 2"));
    flock.at(2, &["ns", "put", &second]).exits(0);
    await_version(&flock, 1, "health_check", 2);
    let bounds = |args: &[&str]| {
        let detail = flock.one(1, args);
        detail["fields"].as_array().unwrap().iter().find(|field| field["name"] == "expect_status").unwrap()["bounds"]
            .clone()
    };
    assert_eq!(bounds(&["ns", "describe", "health_check"]), "100 to 499");
    assert_eq!(bounds(&["ns", "describe", "health_check", "--version", "1"]), "100 to 599");
    flock.at(1, &["ns", "get", "health_check", "--version", "3"]).exits(1).says("no namespace health_check version 3");
    flock.at(1, &["ns", "get", "batch"]).exits(2).says("built in");
}

#[test]
fn a_wrong_declaration_changes_nothing_and_is_shown_where_it_is_wrong() {
    let flock = Flock::of(1, SMALL);
    // The first claim to be the gateway is an event too.
    crate::hwp::await_gateway(&flock, &[1]);
    let before = flock.one(1, &["cluster", "info"])["events"].clone();
    let put = |toml: &str| flock.at(1, &["ns", "put", &file(&flock, "wrong.toml", toml)]);
    let no_number = HEALTH.replace("version = 1", "version = one");
    put(&no_number).exits(2).says("wrong.toml: line 6, column 11").says("version = one");
    put(&HEALTH.replace("merge = \"max\"", "merge = \"most\"")).exits(2).says("line 35, column 59").says("last-writer");
    put(&HEALTH.replace("handler =", "handle =")).exits(2).says("unknown field `handle`");
    put(&HEALTH.replace("[rules.CheckStarted]", "[rules.\"batch/JobFinished\"]")).exits(2).says("batch/JobFinished");
    put(&HEALTH.replace("phase = \"checking\"", "phase = \"chekcing\"")).exits(2).says("`chekcing`");
    put(&HEALTH.replace("name = \"health_check\"", "name = \"batch\"")).exits(2).says("not built in");
    flock.at(1, &["ns", "put", "/no/such/file"]).exits(2).says("/no/such/file");
    let mut http = Http::open(&api_of(&flock, 1));
    let head = format!(
        "PUT /v1/namespaces HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{no_number}",
        no_number.len()
    );
    let (status, reply) = http.send(head.as_bytes());
    assert_eq!((status, &reply["violations"][0]["line"]), (400, &json!(6)), "{reply}");
    assert_eq!(flock.one(1, &["cluster", "info"])["events"], before);
}

#[test]
fn jobs_of_a_declared_namespace_are_checked_run_and_known_to_a_node_that_joins_later() {
    let mut flock = Flock::of(2, SMALL);
    flock.at(1, &["ns", "put", &file(&flock, "render.toml", RENDER)]).exits(0);
    await_version(&flock, 2, "render", 1);
    let refused = |fields: &[&str]| {
        let args: Vec<&str> = fields.iter().flat_map(|field| ["-f", field]).collect();
        flock.at(2, &[&["submit", "--ns", "render"], args.as_slice()].concat()).exits(2)
    };
    refused(&["frames=3"]).says("command: expected list of 1 to 1024 texts, got nothing");
    refused(&["command=true", "frames=0"]).says("frames: expected integer from 1 to 100, got integer 0");
    refused(&["command=true", "frames=some"]).says("frames: expected integer from 1 to 100, got text \"some\"");
    refused(&["command=true", "speed=9"]).says("speed: expected a field of namespace `render` (command, env, frames)");
    flock.at(2, &["submit", "--ns", "prose", "-f", "a=b"]).exits(2).says("unknown namespace `prose`");
    flock.at(2, &["submit", "--ns", "render", "--", "true"]).exits(2);
    assert!(flock.json(2, &["jobs"]).is_empty());

    let args = ["--ns", "render", "-n", "film", "--alias", "film-1", "-a", "1-3"];
    let fields =
        ["-f", "command=sh", "-f", "command=-c", "-f", "command=echo $LOOK $STARLING_TASK", "-f", "env.LOOK=blue"];
    let job = flock.submit(2, &[args.as_slice(), fields.as_slice()].concat());
    flock.at(1, &["wait", "--timeout", "60s", "film-1"]).exits(0);
    let out = flock.at(1, &["logs", "film-1"]).exits(0).out;
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["blue 1", "blue 2", "blue 3"]);
    let again = flock.at(2, &[["submit"].as_slice(), &args, &fields].concat()).exits(0).out;
    assert!(again.contains(&job) && again.contains("nothing was submitted"), "{again}");
    let info = flock.at(1, &["job", "info", "film-1"]).exits(0).out;
    for words in [job.as_str(), "film-1", "render", "frames=24"] {
        assert!(info.contains(words), "no `{words}` in:\n{info}");
    }
    let listed = flock.at(1, &["jobs"]).exits(0).out;
    assert!(listed.contains("NAMESPACE") && listed.contains("film-1"), "{listed}");
    let failed = flock.at(1, &["run", "--ns", "render", "-f", r#"command=["sh", "-c", "echo so; exit 7"]"#]).exits(7);
    assert_eq!(failed.out, "so\n");

    let third = flock.cluster.grow(SMALL).unwrap();
    flock.cluster.await_ready(3).unwrap();
    flock.await_equal(&[1, 2, third]);
    for number in [1, 2, third] {
        within(LONG, "agreement of all three", || {
            flock.at(number, &["doctor"]).exits(0).out.contains("all 3 facts roots are equal")
        });
    }
    assert_eq!(flock.state(third, "film-1"), "done");
    flock.at(third, &["run", "--ns", "render", "-f", "command=true"]).exits(0);
}

#[test]
fn two_declarations_of_one_version_are_told_and_the_earlier_counts() {
    let mut flock = Flock::of(2, SMALL);
    flock.await_equal(&[1, 2]);
    flock.cluster.stop(2).unwrap();
    flock.at(1, &["ns", "put", &file(&flock, "one.toml", RENDER)]).exits(0);
    let one = flock.one(1, &["ns", "describe", "render"])["id"].as_str().unwrap().to_owned();
    flock.cluster.stop(1).unwrap();
    flock.cluster.boot(2).unwrap();
    let other = file(&flock, "other.toml", &RENDER.replace("max = 100", "max = 99"));
    within(LONG, "the other node to take it", || flock.at(2, &["ns", "put", &other]).code == Some(0));
    let two = flock.one(2, &["ns", "describe", "render"])["id"].as_str().unwrap().to_owned();
    // What is submitted under a declaration keeps it.
    let job = flock.submit(2, &["--ns", "render", "-f", "command=true", "-f", "frames=99"]);
    flock.at(2, &["wait", "--timeout", "60s", &job]).exits(0);
    flock.cluster.boot(1).unwrap();
    flock.cluster.await_ready(2).unwrap();
    flock.await_equal(&[1, 2]);
    for number in [1, 2] {
        let listed = flock.json(number, &["ns", "list"]);
        let render = listed.iter().find(|namespace| namespace["name"] == "render").unwrap();
        assert_eq!((&render["conflict"], &render["versions"][0]["id"]), (&json!(true), &json!(one)), "{render}");
        flock.at(number, &["ns", "list"]).exits(0).says("register a higher version");
        assert_eq!(flock.one(number, &["ns", "describe", "render"])["id"], one);
        assert_eq!(flock.one(number, &["ns", "describe", "render", "--id", &two[..8]])["id"], two);
        assert_eq!(flock.state(number, &job), "done");
    }
    flock.at(1, &["submit", "--ns", "render", "-f", "command=true", "-f", "frames=100"]).exits(0);
}
