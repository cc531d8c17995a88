//! Relays: programs outside that run a namespace's jobs, as users write and run them: the two examples, and wrong ones.
//!
//! Invariants: checks go to a server of the test's own on loopback.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use starling_testnet::local::until;

use crate::catch_up::api_of;
use crate::http::Http;
use crate::support::{BINARY, Flock, LONG, Running, SMALL, alone, skip, within};

const HEALTH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/health_check.toml");
const PYTHON_RELAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/health_relay.py");

/// A web server: `/ok` is well, everything else is not. From the `stall_at`th request on it says nothing, until it is let go on.
#[derive(Debug)]
struct Site {
    url: String,
    seen: Arc<AtomicUsize>,
    stall_at: Arc<AtomicUsize>,
}

impl Site {
    fn open(stall_at: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, stall_at) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(stall_at)));
        let (counted, gate) = (Arc::clone(&seen), Arc::clone(&stall_at));
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (counted, gate) = (Arc::clone(&counted), Arc::clone(&gate));
                std::thread::spawn(move || serve(stream, &counted, &gate));
            }
        });
        Self { url, seen, stall_at }
    }

    fn go_on(&self) {
        self.stall_at.store(usize::MAX, Ordering::SeqCst);
    }
}

/// Reads a request to the end of its headers: to close a connection with anything unread in it would reset it.
fn request_line(stream: &TcpStream) -> Option<String> {
    let head: Vec<String> =
        BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    head.into_iter().next()
}

fn serve(mut stream: TcpStream, seen: &AtomicUsize, stall_at: &AtomicUsize) {
    // A client that was killed takes its request along.
    let Some(line) = request_line(&stream) else {
        return;
    };
    let number = seen.fetch_add(1, Ordering::SeqCst);
    until(LONG, || number < stall_at.load(Ordering::SeqCst));
    let status = if line.starts_with("GET /ok ") { "200 OK" } else { "500 Broken" };
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
    let _gone = stream.write_all(answer.as_bytes());
}

/// Nodes that know the namespace.
fn flock(count: usize) -> Flock {
    let flock = Flock::of(count, SMALL);
    flock.at(1, &["ns", "put", HEALTH]).exits(0);
    for number in 2..=count {
        within(LONG, "the namespace to arrive", || {
            flock.at(number, &["ns", "describe", "health_check"]).code == Some(0)
        });
    }
    flock
}

/// The Python relay, if this machine has what it needs.
fn python_relay(flock: &Flock, number: usize, flags: &[&str]) -> Option<Running> {
    if Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err() {
        skip("relays: the example is a Python program, and there is no python3");
        return None;
    }
    Some(started(Command::new("python3").arg(PYTHON_RELAY), flock, number, flags))
}

/// The Rust relay, built beside the binary under test.
fn rust_relay(flock: &Flock, number: usize, flags: &[&str]) -> Running {
    let example: PathBuf = Path::new(BINARY).parent().unwrap().join("examples/health_relay");
    if !example.exists() {
        let build = ["build", "--offline", "-p", "starling-node", "--example", "health_relay"];
        assert!(
            Command::new(env!("CARGO")).args(build).current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success()
        );
    }
    started(&mut Command::new(example), flock, number, flags)
}

fn started(command: &mut Command, flock: &Flock, number: usize, flags: &[&str]) -> Running {
    let node = format!("http://{}", api_of(flock, number));
    let log = std::fs::OpenOptions::new().create(true).append(true).open(flock.file("relay.log")).unwrap();
    let relay = Running::start(command.args(["--node", &node]).args(flags).stderr(log));
    within(LONG, "the relay to register", || !flock.json(number, &["relays"]).is_empty());
    relay
}

fn check(flock: &Flock, number: usize, url: &str, more: &[&str]) -> String {
    let field = format!("url={url}");
    flock.submit(number, &[&["--ns", "health_check", "-f", &field], more].concat())
}

/// Whether the log, as a node has it, holds such an event of the job.
fn has_event(flock: &Flock, number: usize, job: &str, kind: &str) -> bool {
    flock.json(number, &["job", "events", job]).iter().any(|event| event["kind"] == kind)
}

/// One check that passes and one that does not, seen at every node.
#[track_caller]
fn checks_are_made(flock: &Flock, relay_at: usize) {
    let site = Site::open(usize::MAX);
    let passes = check(flock, 2, &format!("{}/ok", site.url), &[]);
    let fails = check(flock, 1, &format!("{}/broken", site.url), &[]);
    for (number, job, code) in [(1, &passes, 0), (2, &fails, 1)] {
        let done = flock.at(number, &["wait", "--timeout", "60s", job]);
        assert_eq!(done.code, Some(code), "{:?}", flock.json(number, &["job", "events", job]));
    }
    for number in 1..=2 {
        within(LONG, "the reports to arrive", || {
            has_event(flock, number, &passes, "CheckPassed") && has_event(flock, number, &fails, "CheckFailed")
        });
        let detail = flock.one(number, &["job", "info", &passes]);
        assert_eq!(detail["attempts"][0]["node"], flock.name(relay_at), "{detail}");
    }
}

#[test]
fn the_python_relay_makes_checks_and_leaves_cleanly() {
    let flock = flock(2);
    let url = "http://127.0.0.1:9/";
    let waits = check(&flock, 1, url, &[]);
    let why = flock.one(2, &["job", "explain", &waits]);
    assert!(why["summary"].as_str().unwrap().contains("no relay serves namespace health_check"), "{why}");
    flock.at(1, &["cancel", &waits]).exits(0);
    let Some(mut relay) = python_relay(&flock, 1, &["--gid", "py", "--slots", "4"]) else {
        return;
    };
    checks_are_made(&flock, 1);
    rustix::process::kill_process(relay.pid(), rustix::process::Signal::TERM).unwrap();
    within(LONG, "the relay to end", || relay.ended() == Some(0));
    assert!(flock.json(1, &["relays"]).is_empty());
}

#[test]
fn the_rust_relay_makes_checks_over_its_stream_and_survives_a_restart_of_its_node() {
    let mut flock = flock(2);
    // A port that stays.
    let api = api_of(&flock, 2);
    flock.cluster.set_flags(2, &["--cpus", "1", "--listen", "127.0.0.1:0", "--api", &api]);
    let mut relay = rust_relay(&flock, 2, &["--gid", "rs"]);
    checks_are_made(&flock, 2);
    assert_eq!(flock.one(2, &["relays"])["reach"], "stream");
    flock.cluster.kill(2).unwrap();
    flock.cluster.boot(2).unwrap();
    flock.cluster.await_ready(2).unwrap();
    within(LONG, "the relay to return", || !flock.json(2, &["relays"]).is_empty());
    checks_are_made(&flock, 2);
    rustix::process::kill_process(relay.pid(), rustix::process::Signal::TERM).unwrap();
    within(LONG, "the relay to end", || relay.ended() == Some(0));
    within(LONG, "the node to forget it", || flock.json(2, &["relays"]).is_empty());
}

#[test]
fn a_relay_killed_amid_a_hundred_checks_and_started_at_another_node_loses_none() {
    let _alone = alone();
    let flock = flock(2);
    let site = Site::open(30);
    let flags = ["--gid", "py", "--slots", "8", "--lease-ms", "1000"];
    let Some(relay) = python_relay(&flock, 1, &flags) else {
        return;
    };
    let job = check(&flock, 1, &format!("{}/ok", site.url), &["-a", "0-99"]);
    within(LONG, "some checks to be made and some to hang", || site.seen.load(Ordering::SeqCst) >= 38);
    rustix::process::kill_process(relay.pid(), rustix::process::Signal::KILL).unwrap();
    site.go_on();
    let _other = python_relay(&flock, 2, &flags);
    flock.at(2, &["wait", "--timeout", "60s", &job]).exits(0);
    for number in 1..=2 {
        within(LONG, "all ends to arrive", || flock.one(number, &["jobs", &job])["counts"]["done"] == 100);
    }
    let detail = flock.one(2, &["job", "info", &job]);
    let attempts = detail["attempts"].as_array().unwrap();
    assert!(attempts.iter().any(|attempt| attempt["attempt"] == 2), "{detail}");
    flock.await_equal(&[1, 2]);
}

/// A relay of the test's own, in raw HTTP.
struct Raw {
    http: Http,
    gid: &'static str,
}

impl Raw {
    fn enter(flock: &Flock, gid: &'static str, more: &Value) -> Self {
        let mut http = Http::open(&api_of(flock, 1));
        let mut hello = json!({"gid": gid, "namespace": "health_check", "slots": 2});
        hello.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, reply) = http.post("/v1/relays", &hello);
        assert_eq!((status, &reply["gid"]), (200, &json!(gid)), "{reply}");
        Self { http, gid }
    }

    fn task(&mut self) -> Value {
        let (status, work) = self.http.get(&format!("/v1/relays/{}/work?max=1&wait_ms=20000", self.gid));
        assert_eq!(status, 200, "{work}");
        work["tasks"][0].clone()
    }

    fn report(&mut self, task: &Value, kind: &str, spec: &Value) -> (u16, String) {
        let report = json!({"task": task["task"], "kind": kind, "spec": spec});
        let (status, reply) = self.http.post(&format!("/v1/relays/{}/report", self.gid), &report);
        (status, reply.to_string())
    }
}

#[test]
fn wrong_reports_are_refused_with_the_reason_and_change_nothing() {
    let flock = flock(1);
    let job = check(&flock, 1, "http://127.0.0.1:9/", &["-a", "0-1"]);
    let mut first = Raw::enter(&flock, "first", &json!({}));
    let mut other = Raw::enter(&flock, "other", &json!({}));
    let task = first.task();
    assert_eq!((&task["job"], &task["attempt"]), (&json!(job), &json!(1)), "{task}");
    assert_eq!(task["spec"]["expect_status"], 200, "{task}");
    let good = json!({"latency_ms": "7"});
    let cases = [
        (other.report(&task, "CheckPassed", &good), 409, "in the hands of relay `first`"),
        (first.report(&json!({"task": "0-1"}), "CheckPassed", &good), 409, "not handed out by this start"),
        (first.report(&task, "CheckMaybe", &good), 400, "CheckMaybe"),
        (first.report(&task, "CheckPassed", &json!({})), 400, "latency_ms"),
        (first.report(&task, "CheckPassed", &json!({"latency_ms": 1.5})), 400, "latency_ms"),
        (first.report(&task, "CheckPassed", &json!({"latency_ms": -1})), 400, "at least 0"),
        (first.report(&task, "CheckPassed", &good), 200, "id"),
        (first.report(&task, "CheckFailed", &json!({})), 409, "reported already"),
    ];
    for ((status, reply), expected, words) in cases {
        assert!(status == expected && reply.contains(words), "expected {expected} and `{words}`: {status} {reply}");
    }
    let (status, reply) = Http::open(&api_of(&flock, 1)).get("/v1/relays/nobody/work");
    assert!(status == 404 && reply["error"].to_string().contains("register first: POST /v1/relays"), "{reply}");
    let big = format!(
        "POST /v1/relays/first/report HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        (1 << 20) + 1
    );
    let (status, reply) = Http::open(&api_of(&flock, 1)).send(big.as_bytes());
    assert!(status == 413 && reply["error"].to_string().contains("1048576 bytes"), "{reply}");
    let second = first.task();
    assert_eq!(first.report(&second, "CheckFailed", &json!({"code": 3, "reason": "down"})).0, 200);
    flock.at(1, &["wait", "--timeout", "60s", &job]).exits(3);
    assert_eq!(flock.one(1, &["jobs", &job])["counts"]["done"], 1);
}

#[test]
fn pokes_come_as_server_sent_events_too() {
    let flock = flock(1);
    let _relay = Raw::enter(&flock, "first", &json!({}));
    let mut stream = TcpStream::connect(api_of(&flock, 1)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(b"GET /v1/relays/first/pokes HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut events = BufReader::new(stream);
    let mut next = || {
        let mut line = String::new();
        while !line.starts_with("data:") {
            line.clear();
            assert!(events.read_line(&mut line).unwrap() > 0, "the stream ended");
        }
        line
    };
    // On entry, since anything may have changed before.
    assert_eq!(next().trim_end(), "data: {}");
    check(&flock, 1, "http://127.0.0.1:9/", &[]);
    assert_eq!(next().trim_end(), "data: {}");
}

#[test]
fn a_callback_that_hangs_does_not_hold_up_another_relay() {
    let flock = flock(1);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let live = TcpListener::bind("127.0.0.1:0").unwrap();
    let url =
        |listener: &TcpListener| json!({"callback_url": format!("http://{}/poke", listener.local_addr().unwrap())});
    let _hung = Raw::enter(&flock, "hung", &url(&silent));
    let mut relay = Raw::enter(&flock, "live", &url(&live));
    live.set_nonblocking(true).unwrap();
    let mut poked = || {
        let Ok((mut stream, _)) = live.accept() else {
            return false;
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let line = request_line(&stream).unwrap();
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        line.starts_with("POST /poke ")
    };
    within(LONG, "a poke on entry", &mut poked);
    let job = check(&flock, 1, "http://127.0.0.1:9/", &[]);
    within(Duration::from_secs(10), "a poke for the job", &mut poked);
    let task = relay.task();
    assert_eq!(relay.report(&task, "CheckPassed", &json!({"latency_ms": 1})).0, 200);
    flock.at(1, &["wait", "--timeout", "60s", &job]).exits(0);
    let (status, _) = relay.http.send(b"DELETE /v1/relays/live HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(status, 200);
    let left = flock.json(1, &["relays"]);
    assert_eq!((left.len(), &left[0]["gid"]), (1, &json!("hung")));
}
