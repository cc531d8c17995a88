//! Clients that others made of the published file, in Python and in Rust: they submit, push lines and cancel at a node that is not the gateway.
//!
//! Invariants: both are made of `proto/tests/hwp/hwp.proto`, the published file byte for byte, and of nothing else that is ours.
//! Does not: hold up a machine without Python or without a package registry; the test says so there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use starling_testnet::local::until;
use starling_testnet::published::worker_service_client::WorkerServiceClient;
use starling_testnet::published::{AssignJobRequest, CancelJobRequest, LogEntry, WorkerRegistration};
use tonic::Code;
use tonic::transport::Channel;

use crate::hwp::{HOST, await_gateway, others, url};
use crate::support::{Done, Flock, LONG, alone, scratch, skip, within};

/// The published file, of which both clients are made.
const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/tests/hwp");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/e2e/hwp_client.py");
/// What the Python client is made with and runs on; wheels of these exist for Python 3.9 and later.
const PACKAGES: &[&str] = &["grpcio==1.85.3", "grpcio-tools==1.85.1"];
/// How long packages may take to come from the registry.
const INSTALL: Duration = Duration::from_secs(240);

/// A cluster, and where two of its nodes that are not the gateway listen for workers.
fn flock() -> (Flock, [String; 2]) {
    let flock = Flock::of(3, HOST);
    let seat = await_gateway(&flock, &[1, 2, 3]);
    let others = others(&flock, &seat);
    let urls = [url(&flock, &seat, others[0]), url(&flock, &seat, others[1])];
    (flock, urls)
}

/// What every node must tell of what a client with this prefix did.
#[track_caller]
fn assert_seen_everywhere(flock: &Flock, client: &str) {
    let [echo, long] = ["echo", "long"].map(|job| format!("{client}-{job}"));
    for number in 1..=3 {
        let workers: Vec<_> =
            flock.json(number, &["nodes"]).into_iter().filter(|line| line["kind"] == "worker").collect();
        assert_eq!(workers.len(), 1, "{workers:?}");
        assert_eq!(workers[0]["name"], format!("{client}-worker"), "{workers:?}");
    }
    for number in 1..=3 {
        within(LONG, "the first job's end", || flock.state(number, &echo) == "failed");
        within(LONG, "the long job's cancellation", || flock.state(number, &long) == "cancelled");
        let summary = flock.one(number, &["jobs", &echo]);
        assert_eq!((&summary["name"], &summary["exit"]), (&"greeting".into(), &3.into()), "{summary}");
        let out = flock.at(number, &["logs", &echo]).exits(0).out;
        let mut lines: Vec<&str> = out.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["from a job", "pushed line 0", "pushed line 1", "pushed line 2"], "at node {number}");
        let pushed = flock.at(number, &["logs", "--stream", "pushed", &echo]).exits(0).out;
        assert_eq!(pushed, "pushed line 0\npushed line 1\npushed line 2\n", "in the order in which they were pushed");
    }
    let jobs = flock.json(1, &["jobs", "--all"]);
    assert_eq!(jobs.len(), 2, "one job for each id that was accepted: {jobs:?}");
}

/// Runs a command to its end, or kills it.
fn run(command: &mut Command, deadline: Duration) -> Result<Done, String> {
    let shown = format!("{command:?}");
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = piped.map_err(|error| format!("{shown}: {error}"))?;
    let ended = until(deadline, || matches!(child.try_wait(), Ok(Some(_))));
    if !ended {
        child.kill().unwrap();
    }
    let output: Output = child.wait_with_output().unwrap();
    if !ended {
        return Err(format!("{shown}: not within {deadline:?}"));
    }
    Ok(output.into())
}

/// A Python that has the packages; made once below the target directory.
fn python() -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hwp-python");
    let python = home.join("bin/python");
    let stamp = home.join("starling-packages");
    let wanted = PACKAGES.join(" ");
    let works =
        || run(Command::new(&python).args(["-c", "import grpc_tools"]), LONG).is_ok_and(|done| done.code == Some(0));
    if fs::read_to_string(&stamp).is_ok_and(|has| has == wanted) && works() {
        return Ok(python);
    }
    let succeed = |command: &mut Command| match run(command, INSTALL) {
        Ok(Done { code: Some(0), .. }) => Ok(()),
        Ok(done) => Err(format!("{command:?}: {}{}", done.out, done.err)),
        Err(why) => Err(why),
    };
    succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"];
    let patience = ["--retries", "1", "--timeout", "20"];
    succeed(Command::new(&python).args(pip).args(patience).args(PACKAGES))?;
    fs::write(&stamp, wanted).unwrap();
    Ok(python)
}

#[test]
fn a_python_client_of_the_published_file_is_served_by_a_node_that_is_not_the_gateway() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return skip(&format!("a Python client: no python3 with venv, or no packages: {why}")),
    };
    let _alone = alone();
    let made = scratch();
    let out = ["--python_out", "--grpc_python_out"].map(|flag| format!("{flag}={}", made.path().display()));
    let mut protoc = Command::new(&python);
    protoc.args(["-m", "grpc_tools.protoc", "-I", PUBLISHED]).args(out).arg("hwp.proto");
    run(&mut protoc, LONG).unwrap().exits(0);
    let (flock, urls) = flock();
    let addresses = urls.map(|url| url.trim_start_matches("http://").to_owned());
    let mut client = Command::new(&python);
    client.arg(SCRIPT).args(&addresses).env("PYTHONPATH", made.path());
    run(&mut client, LONG * 2).unwrap().exits(0);
    assert_seen_everywhere(&flock, "python");
}

#[test]
fn a_rust_client_of_the_published_file_is_served_by_a_node_that_is_not_the_gateway() {
    let _alone = alone();
    let (flock, urls) = flock();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let [mut node, mut other] = [connected(&urls[0]).await, connected(&urls[1]).await];
        register(&mut node).await;
        submit(&mut node, &mut other).await;

        let line = |number| LogEntry { job_id: "rust-echo".to_owned(), data: format!("pushed line {number}") };
        node.stream_logs(tokio_stream::iter((0..3).map(line).collect::<Vec<_>>())).await.unwrap();
        node.cancel_job(CancelJobRequest { job_id: "rust-long".to_owned() }).await.unwrap();
        let unknown = node.cancel_job(CancelJobRequest { job_id: "rust-nobody".to_owned() }).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
        let stray = LogEntry { job_id: "rust-nobody".to_owned(), data: "lost".to_owned() };
        let stray = node.stream_logs(tokio_stream::iter([stray])).await.unwrap_err();
        assert_eq!(stray.code(), Code::NotFound, "{stray}");
        // Workers may say it as often as they like.
        register(&mut node).await;
    });
    assert_seen_everywhere(&flock, "rust");
}

async fn connected(url: &str) -> WorkerServiceClient<Channel> {
    WorkerServiceClient::connect(url.to_owned()).await.unwrap()
}

async fn register(node: &mut WorkerServiceClient<Channel>) {
    let capabilities = ["linux", "rust", "slots=2"].map(str::to_owned).to_vec();
    let registration = WorkerRegistration { worker_id: "rust-worker".to_owned(), capabilities };
    let status = node.register_worker(registration).await.unwrap().into_inner();
    assert_eq!((status.worker_id.as_str(), status.state.as_str()), ("rust-worker", "ready"));
}

/// Assigns jobs, twice, otherwise, and none.
async fn submit(node: &mut WorkerServiceClient<Channel>, other: &mut WorkerServiceClient<Channel>) {
    let assign = |job: &str, name: &str, command: &[&str]| AssignJobRequest {
        job_id: job.to_owned(),
        name: name.to_owned(),
        image: String::new(),
        command: command.iter().map(ToString::to_string).collect(),
    };
    let echo = assign("rust-echo", "greeting", &["sh", "-c", "echo from a job; exit 3"]);
    for _ in 0..2 {
        assert_eq!(node.assign_job(echo.clone()).await.unwrap().into_inner().job_id, "rust-echo");
    }
    let changed = node.assign_job(assign("rust-echo", "greeting", &["true"])).await.unwrap_err();
    assert_eq!(changed.code(), Code::AlreadyExists, "{changed}");
    for at in [&mut *node, other] {
        let nothing = at.assign_job(assign("rust-nothing", "nothing", &[])).await.unwrap_err();
        assert_eq!(nothing.code(), Code::InvalidArgument, "{nothing}");
    }
    let long = node.assign_job(assign("rust-long", "", &["sleep", "600"])).await.unwrap();
    assert_eq!(long.into_inner().job_id, "rust-long");
}
