//! The manager beside a real driver and Machine, with a disk that is always done.
//!
//! Invariants: every wait has a deadline.

use std::net::TcpListener;
use std::sync::OnceLock;
use std::time::Duration;

use starling_core::config::Config;
use starling_core::event::{Signer, Value};
use starling_core::facts::Outcome;
use starling_core::lattice::IntervalSet;
use starling_core::machine::{AckLevel, Command, Effect, Identity, Input, Machine, Recovery, Reply, Submission, Work};
use starling_core::namespace::Registry;
use starling_core::resources::Resources;

use super::*;
use crate::driver::{self, Clock, Edges};

const DEADLINE: Duration = Duration::from_secs(20);
const NAMESPACE: &str = include_str!("../../examples/health_check.toml");

/// Edges that write at once and hand tasks to the manager.
struct World {
    driver: driver::Handle,
    relays: std::sync::Arc<OnceLock<Handle>>,
}

impl Edges for World {
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Write { write, .. } => assert!(self.driver.input(Input::Durable(write))),
            Effect::Spawn(spawn) => {
                assert!(matches!(spawn.work, Work::Relay(_)));
                assert!(self.relays.get().unwrap().assign(*spawn));
            }
            Effect::Kill(run) => self.relays.get().unwrap().kill(run),
            Effect::Gossip(_)
            | Effect::Publish(_)
            | Effect::Send { .. }
            | Effect::Serve { .. }
            | Effect::Reply { .. }
            | Effect::Retire(_)
            | Effect::Snapshot(_)
            | Effect::Fetch { .. }
            | Effect::Notice(_) => {}
        }
    }
}

struct Node {
    driver: driver::Handle,
    relays: Handle,
}

impl Node {
    async fn start() -> Self {
        let clock = Clock::start();
        let (driver, queue) = driver::channel(clock);
        let total = Resources { cpu_milli: 2_000, mem_bytes: 1 << 30 };
        let identity = Identity { signer: Signer::from_seed(&[1; 32]), secret: [7; 32], boot: 1 };
        let machine = Recovery::new(Config::new("wren", total), Registry::built_in(), identity).finish(clock.now());
        let cell = std::sync::Arc::new(OnceLock::new());
        let world = World { driver: driver.clone(), relays: std::sync::Arc::clone(&cell) };
        let relays = start(driver.clone(), &tokio::runtime::Handle::current()).unwrap();
        cell.set(relays.clone()).unwrap();
        std::thread::spawn(move || driver::run(machine, queue, world));
        let declaration = crate::declare::from_toml(NAMESPACE).unwrap();
        let node = Self { driver, relays };
        let reply = node.driver.command(Command::Declare(Box::new(declaration))).await.unwrap();
        assert!(matches!(reply, Reply::Declared { .. }), "{reply:?}");
        node
    }

    async fn submit(&self, tasks: u32) {
        let submission = Submission {
            ns: "health_check".into(),
            kind: "".into(),
            tasks: IntervalSet::from_range(0, tasks - 1),
            priority: 0,
            spec: WorkSpec::new().with("url", Value::text("http://127.0.0.1/")),
            ack: AckLevel::Local,
        };
        let reply = self.driver.command(Command::Submit(Box::new(submission))).await.unwrap();
        assert!(matches!(reply, Reply::Submitted { .. }), "{reply:?}");
    }

    async fn enter(&self, gid: &str, slots: u32) {
        self.relays.register(registration(gid, slots)).await.unwrap();
    }

    /// Waits for this many tasks.
    async fn tasks(&self, gid: &str, count: usize) -> Vec<Task> {
        let mut all = Vec::new();
        let collect = async {
            while all.len() < count {
                all.extend(self.relays.poll(gid, Wants::Work, 100, 1_000).await.unwrap().tasks);
            }
        };
        tokio::time::timeout(DEADLINE, collect).await.unwrap();
        all
    }

    /// Waits until so many tasks ended so.
    async fn ended(&self, outcome: Outcome, count: u64) {
        let mut news = self.driver.subscribe();
        let all = async {
            loop {
                let outcome = outcome.clone();
                let look = move |machine: &mut Machine, _now| -> u64 {
                    let outcomes = machine.facts().jobs().flat_map(|(_, job)| job.outcomes());
                    outcomes.filter(|(found, _)| *found == outcome).map(|(_, tasks)| tasks.len()).sum()
                };
                if self.driver.ask(look).await.unwrap() >= count {
                    return;
                }
                let _news = tokio::time::timeout(Duration::from_millis(50), news.recv()).await;
            }
        };
        tokio::time::timeout(DEADLINE, all).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.driver.try_input(Input::Shutdown);
    }
}

fn registration(gid: &str, slots: u32) -> Registration {
    let (gid, ns) = (gid.to_owned(), "health_check".to_owned());
    Registration { gid, ns, slots, lease_ms: 1_000, callback: None }
}

fn passed(latency: Value) -> WorkSpec {
    WorkSpec::new().with("latency_ms", latency)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relays_reports_end_its_tasks_once() {
    let node = Node::start().await;
    node.enter("a", 4).await;
    node.enter("b", 1).await;
    node.submit(3).await;
    let tasks = node.tasks("a", 3).await;
    let token = tasks[0].token.as_str();
    let refused = node.relays.report("b", token, "CheckPassed", passed(Value::Int(1))).await.unwrap_err();
    assert!(matches!(refused, RelayError::NotYours(_)), "{refused}");
    let refused = node.relays.report("a", token, "CheckPassed", passed(Value::text("soon"))).await.unwrap_err();
    assert!(refused.to_string().contains("latency_ms"), "{refused}");
    // Text is converted.
    node.relays.report("a", token, "CheckPassed", passed(Value::text("12"))).await.unwrap();
    let twice = node.relays.report("a", token, "CheckFailed", WorkSpec::new()).await.unwrap_err();
    assert!(twice.to_string().contains("reported already"), "{twice}");
    let foreign = node.relays.report("a", "0000000000000000-1", "CheckPassed", WorkSpec::new()).await.unwrap_err();
    assert!(matches!(foreign, RelayError::Foreign(_)), "{foreign}");
    node.relays.report("a", &tasks[1].token, "CheckFailed", WorkSpec::new()).await.unwrap();
    node.ended(Outcome::Exit(0), 1).await;
    node.ended(Outcome::Exit(1), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_a_relay_that_is_gone_are_tried_again() {
    let node = Node::start().await;
    node.enter("a", 2).await;
    node.submit(2).await;
    let first = node.tasks("a", 2).await;
    assert!(first.iter().all(|task| task.attempt == 1));
    // No word from it any more.
    let gone = async { while !node.relays.list().await.unwrap().is_empty() {} };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
    node.enter("b", 2).await;
    let second = node.tasks("b", 2).await;
    assert!(second.iter().all(|task| task.attempt == 2), "{second:?}");
    let late = node.relays.report("a", &first[0].token, "CheckPassed", passed(Value::Int(1))).await.unwrap_err();
    assert!(late.to_string().contains("register first"), "{late}");
    for task in second {
        node.relays.report("b", &task.token, "CheckPassed", passed(Value::Int(1))).await.unwrap();
    }
    node.ended(Outcome::Exit(0), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_reaches_the_relay_and_its_session_is_poked() {
    let node = Node::start().await;
    let session = node.relays.open(registration("a", 1)).await.unwrap();
    let first = tokio::time::timeout(DEADLINE, session.poll(10)).await.unwrap().unwrap();
    assert!(first.poked, "who enters cannot know what it missed");
    node.submit(1).await;
    let mut seen = Batch::default();
    let work = async {
        while seen.tasks.is_empty() || !seen.poked {
            let batch = session.poll(10).await.unwrap();
            seen.poked |= batch.poked;
            seen.tasks.extend(batch.tasks);
        }
        let job = seen.tasks[0].grant.job;
        node.driver.command(Command::Cancel(job)).await.unwrap();
        loop {
            if let Some(token) = session.poll(10).await.unwrap().cancelled.pop() {
                return token;
            }
        }
    };
    let token = tokio::time::timeout(DEADLINE, work).await.unwrap();
    let stopped = WorkSpec::new().with("cancelled", Value::text("true"));
    session.report(&token, "JobFinished", stopped).await.unwrap();
    node.ended(Outcome::Cancelled, 1).await;
    node.enter("a", 1).await;
    let taken = session.poll(10).await.unwrap_err();
    assert!(matches!(taken, RelayError::TakenOver(_)), "{taken}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fold_is_told_to_the_callback_though_another_hangs() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let node = Node::start().await;
    // Accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let live = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = |port: u16| Callback::parse(&format!("http://127.0.0.1:{port}/poke")).unwrap();
    let hung = Some(url(silent.local_addr().unwrap().port()));
    node.relays.register(Registration { callback: hung, ..registration("hung", 1) }).await.unwrap();
    let callback = Some(url(live.local_addr().unwrap().port()));
    node.relays.register(Registration { callback, ..registration("live", 1) }).await.unwrap();
    let mut pokes = 0;
    let told = async {
        while pokes < 3 {
            let (mut stream, _) = live.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(br#"{"gid":"live"}"#) {
                let mut some = [0; 1_024];
                let count = stream.read(&mut some).await.unwrap();
                assert!(count > 0, "{}", String::from_utf8_lossy(&request));
                request.extend(&some[..count]);
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            pokes += 1;
            node.submit(1).await;
        }
    };
    tokio::time::timeout(DEADLINE, told).await.unwrap();
    let views = node.relays.list().await.unwrap();
    assert!(views.iter().any(|one| one.gid == "live" && one.reach == Reach::Callback), "{views:?}");
}

#[test]
fn registrations_are_within_bounds() {
    let complete = registration("a", 0).complete().unwrap();
    assert_eq!((complete.slots, complete.lease_ms), (SLOTS_DEFAULT, 1_000));
    for wrong in [
        registration("", 1),
        registration("a/b", 1),
        registration(&"a".repeat(GID_BYTES_MAX + 1), 1),
        registration("a", SLOTS_MAX + 1),
        Registration { lease_ms: 1, ..registration("a", 1) },
        Registration { ns: String::new(), ..registration("a", 1) },
    ] {
        assert!(matches!(wrong.complete(), Err(RelayError::Field { .. })));
    }
    for url in ["https://127.0.0.1/", "127.0.0.1:80", "http:///x", "http://a:b@c/", "ftp://x/", "", "http://a b/"] {
        assert!(Callback::parse(url).is_err(), "{url}");
    }
}
