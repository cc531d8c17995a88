//! `starling hwp-worker` as a process: its directory, its signals, and what it leaves when it is killed.
//!
//! Invariants: the server it is given is not there; what it needs to be told it is told by a call, as a server would.
//! Does not: play a server (the worker's own tests do).

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use starling_proto::hwp::AssignJobRequest;
use starling_proto::hwp::worker_service_client::WorkerServiceClient;
use tonic::Request;

use crate::support::{BINARY, Done, LONG, Running, lines, scratch, within};

/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:1";

fn worker(dir: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["hwp-worker", "--server", NOBODY, "--slots", "1", "--listen", "127.0.0.1:0", "--dir"]).arg(dir);
    command.args(flags).env_remove("STARLING_HWP_TOKEN").stdin(Stdio::null());
    command
}

/// Starts a worker; where it is called, once it says so.
fn started(dir: &Path, flags: &[&str]) -> (Running, String) {
    let log = dir.with_extension("log");
    let running = Running::start(worker(dir, flags).stderr(File::create(&log).unwrap()));
    let mut endpoint = None;
    within(LONG, "an address", || {
        let said = lines(&log);
        endpoint = said.iter().find_map(|line| line.strip_prefix("listening at ")).map(str::to_owned);
        endpoint.is_some()
    });
    (running, endpoint.unwrap())
}

fn assign(endpoint: &str, token: &str, script: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let assignment = AssignJobRequest { job_id: "j".to_owned(), command, ..AssignJobRequest::default() };
    let mut request = Request::new(assignment);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    runtime.block_on(async {
        let mut client = WorkerServiceClient::connect(endpoint.to_owned()).await.unwrap();
        client.assign_job(request).await.unwrap();
    });
}

/// A job with a child of its own; both ids, once they run.
fn family(endpoint: &str, token: &str, dir: &Path) -> [Pid; 2] {
    let ids = dir.with_extension("ids");
    assign(endpoint, token, &format!("sleep 600 & echo $$ $! > {0}.new; mv {0}.new {0}; wait", ids.display()));
    within(LONG, "the job's processes", || ids.exists());
    let text = std::fs::read_to_string(ids).unwrap();
    let ids: Vec<Pid> = text.split_whitespace().map(|id| Pid::from_raw(id.parse().unwrap()).unwrap()).collect();
    ids.try_into().unwrap()
}

fn lives(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !stat.contains(") Z ")
}

#[test]
fn sigterm_ends_a_worker_with_its_jobs() {
    let home = scratch();
    let dir = home.path().join("w");
    let token = home.path().join("token");
    std::fs::write(&token, "sesame\n").unwrap();
    let (mut running, endpoint) = started(&dir, &["--token-file", token.to_str().unwrap()]);
    let family = family(&endpoint, "sesame", &dir);
    assert!(family.iter().all(|pid| lives(*pid)));
    kill_process(running.pid(), Signal::TERM).unwrap();
    let mut code = None;
    within(LONG, "the worker's end", || {
        code = running.ended();
        code.is_some()
    });
    assert_eq!(code, Some(0));
    assert!(!family.iter().any(|pid| lives(*pid)));
    assert_eq!(std::fs::read_dir(dir.join("results")).unwrap().count(), 1, "the result waits for the next start");
}

#[test]
fn what_a_killed_worker_leaves_is_ended_by_the_next_in_its_directory() {
    let home = scratch();
    let dir = home.path().join("w");
    let (first, endpoint) = started(&dir, &[]);
    let family = family(&endpoint, "", &dir);
    let second: Done = worker(&dir, &[]).output().unwrap().into();
    second.exits(1).says("is in use by process").says("--dir");
    kill_process(first.pid(), Signal::KILL).unwrap();
    within(LONG, "the worker's death", || !lives(first.pid()));
    drop(first);
    assert!(family.iter().all(|pid| lives(*pid)), "nobody has ended them yet");
    let (_running, _endpoint) = started(&dir, &[]);
    assert!(!family.iter().any(|pid| lives(*pid)));
}

#[test]
fn wrong_flags_are_explained() {
    let home = scratch();
    let dir = home.path().join("w");
    let run = |flags: &[&str]| -> Done {
        Command::new(BINARY).arg("hwp-worker").args(flags).arg("--dir").arg(&dir).output().unwrap().into()
    };
    run(&[]).exits(2).says("--server <URL>");
    run(&["--server", "https://127.0.0.1:1"]).exits(1).says("--ca");
    run(&["--server", "ftp://x"]).exits(1).says("http://");
    run(&["--server", NOBODY, "--slots", "0"]).exits(2).says("--slots");
    run(&["--server", NOBODY, "--token-file", "/no/such/file"]).exits(1).says("/no/such/file");
    run(&["--server", NOBODY, "--listen", "0.0.0.0:0"]).exits(1).says("--listen");
    let help: Done = Command::new(BINARY).args(["hwp-worker", "--help"]).output().unwrap().into();
    assert!(help.exits(0).out.contains("Example: starling hwp-worker --server"));
}
