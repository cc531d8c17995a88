//! Our own worker, with real processes, over its stream and called.

use std::collections::BTreeMap;

use starling_core::event::{Value, WorkSpec};
use starling_core::facts::Outcome;
use starling_core::facts::view::attempts;
use starling_core::ids::{GrantId, JobId};
use starling_core::machine::Machine;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::world::*;
use crate::exec::output::Stream;
use crate::hwp::gateway::Options;
use crate::output::{Place, Which};
use crate::worker;

/// A worker that runs in this process.
struct Own {
    stop: watch::Sender<bool>,
    task: JoinSet<Result<(), worker::Error>>,
    _home: TempDir,
}

impl Own {
    fn start(node: &Node, listen: Option<&str>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let options = worker::Options {
            servers: worker::Servers::new(&[node.url().to_owned()], "own", None, None).unwrap(),
            id: "own".to_owned(),
            capabilities: vec!["w".to_owned()],
            slots: 4,
            image_program: None,
            listen: listen.map(|addr| addr.parse().unwrap()),
            token: None,
            tell: Box::new(|_| {}),
            limits: worker::Limits::default(),
        };
        let (stop, stopping) = watch::channel(false);
        let dir = worker::Home::open(home.path()).unwrap();
        let mut task = JoinSet::new();
        task.spawn(worker::run(options, dir, stopping));
        Self { stop, task, _home: home }
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        soon(self.task.join_next()).await.unwrap().unwrap().unwrap();
    }
}

/// A single task's output.
async fn output(node: &Node, job: JobId) -> String {
    let look = move |machine: &mut Machine, _now| attempts(machine.facts().job(&job).unwrap())[0].grant;
    let no = node.driver.ask(look).await.unwrap();
    let place = Place { grant: GrantId { job, no }, task: 0 };
    let (bytes, _) = node.files.read(Which::Full, &place, Stream::Out, 0, 1 << 16).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A job that fits into a slot, on however small a machine.
fn small(spec: WorkSpec) -> WorkSpec {
    spec.with("cpu", Value::int(1))
}

async fn runs_jobs(listen: Option<&str>) {
    let node = Node::with(Options::default()).await;
    let own = Own::start(&node, listen);
    node.list(|workers| workers.first().is_some_and(|worker| worker.attached)).await;
    let sh = |script: &'static str| ["sh", "-c", script];
    let limit = || WorkSpec::new().with("timeout_ms", Value::int(700));
    let env = Value::Map(BTreeMap::from([("A".into(), Value::text("x y"))]));
    let wishes = WorkSpec::new().with("env", env).with("cwd", Value::text("/"));
    let mut jobs = Vec::new();
    for (script, more, outcome, out) in [
        ("echo $A in $PWD at $STARLING_ATTEMPT; echo no >&2", wishes, Outcome::Exit(0), "x y in / at 1\n"),
        ("echo a; exit 3", WorkSpec::new(), Outcome::Exit(3), "a\n"),
        ("echo b; kill -11 $$", WorkSpec::new(), Outcome::Signal(11), "b\n"),
        ("echo c; sleep 100", limit(), Outcome::TimedOut, "c\n"),
    ] {
        jobs.push((node.submit("w", &sh(script), 1, small(more)).await, outcome, out));
    }
    for (job, outcome, out) in jobs {
        node.ended(job, outcome, 1).await;
        let found = output(&node, job).await;
        assert_eq!(found.lines().filter(|line| *line != "no").map(|line| format!("{line}\n")).collect::<String>(), out);
    }
    let many = node.submit("w", &["true"], 50, small(WorkSpec::new())).await;
    node.ended(many, Outcome::Exit(0), 50).await;
    let cancelled = node.submit("w", &sh("echo d; sleep 100"), 1, small(WorkSpec::new())).await;
    node.list(|workers| workers[0].tasks.len() == 1).await;
    node.cancel(cancelled).await;
    node.ended(cancelled, Outcome::Cancelled, 1).await;
    own.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_worker_runs_jobs_over_its_stream() {
    runs_jobs(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_worker_runs_jobs_when_it_is_called() {
    runs_jobs(Some("127.0.0.1:0")).await;
}
