//! A worker against a server of the protocol that runs in the test and is told how to behave.
//!
//! Invariants: real processes, real gRPC on loopback, ports chosen by the system; every wait has a deadline; nothing waits by the clock.
//! Does not: use any server of ours.

mod dial;
mod ends;
mod links;
mod server;
mod tls;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use starling_proto::hwp::agent_message::Payload;
use starling_proto::hwp::{JobSpec, StreamedAssignment, StreamedCancel, StreamedResult, server_message};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Error, Home, Limits, Options, Servers, run};
use server::{Heard, Server, Way};

/// Long enough for anything that ends at all on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);
const TOKEN: &str = "sesame";

/// What a test chooses.
struct Choice {
    slots: usize,
    token: Option<&'static str>,
    image_program: Option<String>,
    limits: Limits,
    listens: bool,
}

impl Default for Choice {
    fn default() -> Self {
        let quick =
            Limits { refused: Duration::from_millis(300), register: Duration::from_millis(300), ..Limits::default() };
        Self { slots: 2, token: Some(TOKEN), image_program: None, limits: quick, listens: false }
    }
}

/// A running worker.
struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), Error>>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Running {
    fn start(urls: &[&str], home: &TempDir, choice: Choice) -> Self {
        let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        Self::at(Servers::new(&urls, "w1", choice.token, None).unwrap(), home, choice)
    }

    fn at(servers: Servers, home: &TempDir, choice: Choice) -> Self {
        let told = Arc::<Mutex<Vec<String>>>::default();
        let keep = Arc::clone(&told);
        let options = Options {
            servers,
            id: "w1".to_owned(),
            capabilities: vec!["gpu=2".to_owned()],
            slots: choice.slots,
            image_program: choice.image_program,
            listen: choice.listens.then(|| "127.0.0.1:0".parse().unwrap()),
            token: choice.token.map(str::to_owned),
            tell: Box::new(move |text| keep.lock().unwrap().push(text.to_owned())),
            limits: choice.limits,
        };
        let (stop, stopping) = watch::channel(false);
        let home = Home::open(home.path()).unwrap();
        Self { stop, task: tokio::runtime::Handle::current().spawn(run(options, home, stopping)), told }
    }

    /// Stops it; returns how long that took.
    async fn stop(self) -> Duration {
        let begin = Instant::now();
        self.stop.send_replace(true);
        within("the worker's end", self.task).await.unwrap().unwrap();
        begin.elapsed()
    }

    fn told(&self, part: &str) -> usize {
        self.told.lock().unwrap().iter().filter(|text| text.contains(part)).count()
    }
}

/// A worker, its server, and what the server heard.
struct Rig {
    server: Server,
    worker: Running,
    home: TempDir,
    /// Lines by job, as they came.
    lines: BTreeMap<String, Vec<String>>,
    accepted: Vec<String>,
    results: BTreeMap<String, Vec<StreamedResult>>,
}

impl Rig {
    async fn start(choice: Choice) -> Self {
        let server = Server::start(Some(TOKEN), Way::Reads).await;
        let home = tempfile::tempdir().unwrap();
        let worker = Running::start(&[&server.url], &home, choice);
        let mut rig = Self::with(server, worker, home);
        rig.attached().await;
        rig
    }

    fn with(server: Server, worker: Running, home: TempDir) -> Self {
        Self { server, worker, home, lines: BTreeMap::new(), accepted: Vec::new(), results: BTreeMap::new() }
    }

    /// Waits for the (next) stream of the worker.
    async fn attached(&mut self) {
        self.hear("a stream", |heard| matches!(heard, Heard::Opened)).await;
    }

    /// Listens until something is heard; takes note of the rest.
    async fn hear(&mut self, what: &str, mut is_it: impl FnMut(&Heard) -> bool) -> Heard {
        loop {
            let heard = within(what, self.server.heard.recv()).await.expect("the server lives");
            self.note(&heard);
            if is_it(&heard) {
                return heard;
            }
        }
    }

    fn note(&mut self, heard: &Heard) {
        match heard {
            Heard::Said(Payload::JobAccepted(accepted)) => self.accepted.push(accepted.job_id.clone()),
            Heard::Said(Payload::LogEntry(entry)) | Heard::Logged(entry) => {
                self.lines.entry(entry.job_id.clone()).or_default().push(entry.data.clone());
            }
            Heard::Said(Payload::JobResult(result)) => {
                self.results.entry(result.job_id.clone()).or_default().push(result.clone());
            }
            Heard::Reported(result) => {
                let result =
                    StreamedResult { job_id: result.job_id.clone(), exit_code: result.exit_code, ..Default::default() };
                self.results.entry(result.job_id.clone()).or_default().push(result);
            }
            Heard::Registered(_) | Heard::Opened | Heard::Closed | Heard::Beat(_) => {}
        }
    }

    fn assign(&self, job_id: &str, spec: JobSpec) {
        let assignment =
            StreamedAssignment { worker_id: "w1".to_owned(), job_id: job_id.to_owned(), job_spec: Some(spec) };
        self.server.send(server_message::Payload::AssignJob(assignment));
    }

    fn cancel(&self, job_id: &str) {
        let cancel = StreamedCancel { worker_id: "w1".to_owned(), job_id: job_id.to_owned() };
        self.server.send(server_message::Payload::CancelJob(cancel));
    }

    /// Waits for a line of a job.
    async fn line(&mut self, job_id: &str, line: &str) {
        if !self.said(job_id, line) {
            let is_it = |heard: &Heard| match heard {
                Heard::Said(Payload::LogEntry(entry)) | Heard::Logged(entry) => {
                    entry.job_id == job_id && entry.data == line
                }
                _ => false,
            };
            self.hear(line, is_it).await;
        }
    }

    fn said(&self, job_id: &str, line: &str) -> bool {
        self.lines.get(job_id).is_some_and(|lines| lines.iter().any(|said| said == line))
    }

    /// Waits for a job's first result that was not asked for yet.
    async fn result(&mut self, job_id: &str) -> StreamedResult {
        loop {
            let unread = self.results.get_mut(job_id).filter(|results| !results.is_empty());
            if let Some(results) = unread {
                return results.remove(0);
            }
            self.hear(job_id, |heard| matches!(heard, Heard::Said(Payload::JobResult(_)) | Heard::Reported(_))).await;
        }
    }

    /// Runs a script to its result.
    async fn run(&mut self, job_id: &str, script: &str) -> StreamedResult {
        self.assign(job_id, sh(script));
        self.result(job_id).await
    }

    fn lines(&self, job_id: &str) -> Vec<&str> {
        self.lines.get(job_id).map(|lines| lines.iter().map(String::as_str).collect()).unwrap_or_default()
    }
}

fn sh(script: &str) -> JobSpec {
    argv(&["sh", "-c", script])
}

fn argv(words: &[&str]) -> JobSpec {
    JobSpec { command: words.iter().map(ToString::to_string).collect(), ..JobSpec::default() }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Waits for what no message tells.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    within(what, async {
        while !done() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Whether a process runs; a zombie is dead.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
