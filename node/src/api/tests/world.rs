//! A node whose disk answers at once and keeps batches in memory, and whose tasks end as their command
//! says: `hold` runs until it is killed, `exit N` ends with N, anything else writes its words and ends. The
//! environment of a pair listens at port 40,000 + its task, or breaks as the policy runs if its command is `break`.
//!
//! Invariants: as for the real edges, each write and each spawn is answered exactly once.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use starling_core::config::Config;
use starling_core::event::{SignedBatch, Signer};
use starling_core::facts::{Outcome, Usage};
use starling_core::ids::{NodeId, RunId};
use starling_core::machine::{Effect, Identity, Input, Record, Recovery, Spawn, Work};
use starling_core::namespace::Registry;
use starling_core::resources::Resources;
use starling_proto::v1::starling_client::StarlingClient;
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::api::{About, Base, Context, Generators, ReadLog, ReadWorkers, StorageStats, serve};
use crate::driver::{self, Clock, Edges, Handle};
use crate::exec::output::{Stream, path};
use crate::history::History as Jobs;
use crate::monitor::History;
use crate::output::{Files, Outputs, Place, Remote, TAIL_BYTES, Which};
use crate::relay;

/// Longest wait of any test.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// What every task uses.
pub(super) const USED: Usage = Usage { cpu_user_ms: 40, cpu_sys_ms: 20, wall_ms: 100, max_rss_bytes: 5 << 20 };

type Log = Arc<Mutex<Vec<SignedBatch>>>;

/// The log in memory, and the snapshots that a test put beside it.
#[derive(Clone, Debug, Default)]
pub(super) struct Whole {
    log: Log,
    pub(super) bases: Arc<Mutex<Vec<Base>>>,
}

impl Whole {
    /// Forgets the first so many batches, as if a snapshot had taken their place.
    pub(super) fn drop_first(&self, count: usize) {
        self.log.lock().unwrap().drain(..count);
    }

    pub(super) fn batches(&self) -> Vec<SignedBatch> {
        self.log.lock().unwrap().clone()
    }
}

impl ReadLog for Whole {
    fn batches(&self, take: &mut dyn FnMut(SignedBatch) -> ControlFlow<()>) -> Result<(), String> {
        for batch in self.batches() {
            if take(batch).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn bases(&self) -> Result<Vec<Base>, String> {
        Ok(self.bases.lock().unwrap().clone())
    }
}

struct World {
    handle: Handle,
    files: Files,
    log: Log,
    held: BTreeSet<RunId>,
    retired: Jobs,
}

impl Edges for World {
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Write { write, records } => {
                let batches = records.into_iter().filter_map(|record| match record {
                    Record::Batch(batch) => Some(batch),
                    Record::Note(_) | Record::CleanShutdown => None,
                });
                self.log.lock().unwrap().extend(batches);
                self.handle.input(Input::Durable(write));
            }
            Effect::Spawn(spawn) => self.spawn(&spawn),
            Effect::Kill(run) => {
                if self.held.remove(&run) {
                    self.end(run, Outcome::Signal(15));
                }
            }
            Effect::Retire(past) => self.retired.append(past),
            Effect::Gossip(_)
            | Effect::Publish(_)
            | Effect::Send { .. }
            | Effect::Serve { .. }
            | Effect::Snapshot(_)
            | Effect::Fetch { .. }
            | Effect::Reply { .. }
            | Effect::Notice(_) => {}
        }
    }
}

impl World {
    fn spawn(&mut self, spawn: &Spawn) {
        let launch = match &spawn.work {
            Work::Process(launch) => launch,
            Work::Pair(pair) => {
                let port = 40_000 + u16::try_from(spawn.task).unwrap();
                self.handle.input(Input::PortOpened { run: spawn.run, port, host: "127.0.0.1".into() });
                if pair.env_command == ["break"] {
                    return self.end(spawn.run, Outcome::Broke("the env broke".into()));
                }
                &pair.policy
            }
            Work::Relay(_) | Work::Worker(_) => return,
        };
        let words: Vec<&str> = launch.command.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["hold", ..] => {
                self.held.insert(spawn.run);
            }
            ["exit", code] => self.end(spawn.run, Outcome::Exit(code.parse().unwrap())),
            words => {
                let place = Place { grant: spawn.grant, task: spawn.task };
                let prefix = self.files.prefix(&place);
                std::fs::create_dir_all(prefix.parent().unwrap()).unwrap();
                std::fs::write(path(&prefix, Stream::Out), words.join(" ") + "\n").unwrap();
                self.end(spawn.run, Outcome::Exit(0));
            }
        }
    }

    fn end(&self, run: RunId, outcome: Outcome) {
        self.handle.input(Input::TaskEnded { run, outcome, usage: USED });
    }
}

/// Whose output the node can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// What lies here.
    Here,
    /// As if tasks ran elsewhere, silent now: only the owner's copy of standard output, 64 KiB of `x`.
    Tails,
    /// As if both executor and owner were silent.
    Nothing,
}

/// Output as far as `reach` says; `me` is the node that runs the tasks.
fn outputs(me: NodeId, files: Files, reach: Reach) -> Outputs {
    let here = if reach == Reach::Here { me } else { NodeId([9; 32]) };
    let answering: Arc<OnceLock<Remote>> = Arc::default();
    let remote = Remote::new(Box::new({
        let answering = Arc::clone(&answering);
        move |_, id, fetch| {
            let has_tail = reach == Reach::Tails && fetch.which == Which::Tail && fetch.stream == Stream::Out;
            if has_tail {
                let from = usize::try_from(fetch.offset.min(TAIL_BYTES)).unwrap();
                let tail = vec![b'x'; usize::try_from(TAIL_BYTES).unwrap()];
                let data = tail[from..].to_vec().into();
                answering.get().unwrap().answered(id, data, TAIL_BYTES);
            }
            has_tail
        }
    }));
    answering.set(remote.clone()).unwrap();
    Outputs::new(here, files, remote)
}

/// Which member, of which cluster.
#[derive(Clone, Copy, Debug)]
struct Who {
    name: &'static str,
    seed: u8,
    secret: [u8; 32],
}

/// A serving node.
pub(super) struct Node {
    pub(super) files: Files,
    pub(super) client: StarlingClient<Channel>,
    pub(super) http: std::net::SocketAddr,
    pub(super) socket: std::path::PathBuf,
    pub(super) handle: Handle,
    pub(super) past: History,
    pub(super) whole: Whole,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinSet<()>,
    driver: Option<JoinHandle<()>>,
    _dir: TempDir,
}

impl Node {
    pub(super) async fn start() -> Self {
        Self::with_output(Reach::Here).await
    }

    pub(super) async fn with_output(reach: Reach) -> Self {
        Self::with(reach, None, None, |config| config).await
    }

    /// One that retires jobs as soon as they are sealed.
    pub(super) async fn forgetful() -> Self {
        Self::with(Reach::Here, None, None, |config| Config { retain_ms: 1, ..config }).await
    }

    pub(super) async fn with_generators(generators: Arc<dyn Generators>) -> Self {
        Self::with(Reach::Here, Some(generators), None, |config| config).await
    }

    pub(super) async fn with_workers(workers: Arc<dyn ReadWorkers>) -> Self {
        Self::with(Reach::Here, None, Some(workers), |config| config).await
    }

    /// Another member of the same cluster, or one of another.
    pub(super) async fn named(name: &'static str, seed: u8, secret: [u8; 32]) -> Self {
        let who = Who { name, seed, secret };
        Self::of(who, Reach::Here, None, None, |config| Config { gateway: false, ..config }).await
    }

    async fn with(
        reach: Reach,
        generators: Option<Arc<dyn Generators>>,
        workers: Option<Arc<dyn ReadWorkers>>,
        adapt: impl FnOnce(Config) -> Config,
    ) -> Self {
        let who = Who { name: "wren", seed: 1, secret: [7; 32] };
        Self::of(who, reach, generators, workers, adapt).await
    }

    async fn of(
        who: Who,
        reach: Reach,
        generators: Option<Arc<dyn Generators>>,
        workers: Option<Arc<dyn ReadWorkers>>,
        adapt: impl FnOnce(Config) -> Config,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let (handle, queue) = driver::channel(clock);
        let total = Resources { cpu_milli: 2_000, mem_bytes: 1 << 30 };
        let signer = Signer::from_seed(&[who.seed; 32]);
        let identity = Identity { signer, secret: who.secret, boot: 1 };
        let recovery = Recovery::new(
            adapt(Config { version: "1.2.3".into(), ..Config::new(who.name, total) }),
            Registry::built_in(),
            identity,
        );
        let machine = recovery.finish(clock.now());
        let me = machine.me();
        let retired = Jobs::open(dir.path()).unwrap();
        let (files, whole) = (Files::under(dir.path()), Whole::default());
        let log = Arc::clone(&whole.log);
        let world = World {
            handle: handle.clone(),
            files: files.clone(),
            log: Arc::clone(&log),
            held: BTreeSet::new(),
            retired: retired.clone(),
        };
        let driver = std::thread::spawn(move || driver::run(machine, queue, world));
        let outputs = outputs(me, files.clone(), reach);
        let past = History::default();
        let ctx = Context {
            generators,
            workers,
            retired: Some(retired),
            ..context(handle.clone(), outputs, whole.clone(), dir.path(), past.clone())
        };
        let socket = dir.path().join("api.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = tcp.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut serving = JoinSet::new();
        let path = socket.clone();
        serving.spawn(async move {
            serve(ctx, tcp, path, async { drop(stopped.await) }).await.unwrap();
        });
        let bound = async {
            while !socket.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, bound).await.unwrap();
        let client = connect(&socket).await;
        let (stop, driver) = (Some(stop), Some(driver));
        Self { files, client, http, socket, handle, past, whole, stop, serving, driver, _dir: dir }
    }

    /// Stops serving; the driver goes on.
    pub(super) async fn stop_serving(&mut self) {
        drop(self.stop.take());
        tokio::time::timeout(DEADLINE, self.serving.join_next()).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.handle.input(Input::Shutdown);
        if let Some(driver) = self.driver.take() {
            driver.join().unwrap();
        }
    }
}

fn context(handle: Handle, outputs: Outputs, whole: Whole, dir: &Path, past: History) -> Context {
    Context {
        relays: relay::start(handle.clone(), &tokio::runtime::Handle::current()).unwrap(),
        handle,
        outputs,
        about: About {
            name: "wren".to_owned(),
            data_dir: dir.to_owned(),
            version: "1.2.3".to_owned(),
            loopback_only: true,
            started: Instant::now(),
        },
        storage: Arc::new(|| StorageStats { free_disk_bytes: Some(5 << 30), state: "ok".to_owned() }),
        log: Arc::new(whole.clone()),
        history: Arc::new(move |of, from, _max| {
            let log = whole.log.lock().unwrap();
            let wanted = |batch: &&SignedBatch| batch.header().log == of && batch.header().last_seq() >= from;
            // A few at a time, so that readers have to come back.
            let some = log.iter().filter(wanted).take(3);
            Ok(some.map(|batch| batch.bytes().to_vec().into()).collect())
        }),
        past,
        generators: None,
        workers: None,
        retired: None,
        stop: Arc::default(),
        orphans: Arc::new(Vec::new),
    }
}

async fn connect(socket: &Path) -> StarlingClient<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let endpoint = Endpoint::from_static("http://starling.local").timeout(DEADLINE);
    StarlingClient::new(endpoint.connect_with_connector(connector).await.unwrap())
}
