//! One running node: its parts, put together and taken apart.
//!
//! Invariants: parts start in the order log, processes, network, driver, API, and stop in the reverse one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use starling_core::config::Config as CoreConfig;
use starling_core::event::{SignedBatch, Signer, cluster_id};
use starling_core::ids::NodeId;
use starling_core::machine::{Identity, Input, Machine, Notice, Record, Recovery};
use starling_core::namespace::Registry;
use starling_core::resources::Resources;
use starling_net::{Lane, PeerKey};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::edges::{self, RealEdges, Runs};
use super::home::{self, Home};
use super::ingress::{self, Ingress};
use super::rendezvous::Rendezvous;
use super::{discovery, stats};
use crate::api;
use crate::config::{API_PORT, Config, LINK_PORT, PORTS, secret};
use crate::driver::{self, Clock, Handle};
use crate::exec::output::Stream;
use crate::exec::{self, ExecEvent, Executor};
use crate::output::{Files, Outputs, Place, Remote, TAIL_BYTES};
use crate::storage;
use crate::wire::{self, Bulk, Control};

/// Pulls that wait to be served from disk.
const SERVES: usize = 64;
/// How long the marker may take on the way down.
const MARKER_DEADLINE: Duration = Duration::from_secs(5);

/// A node that runs.
#[derive(Debug)]
pub(super) struct Node {
    name: String,
    dir: PathBuf,
    offers: Resources,
    loopback_only: bool,
    handle: Handle,
    net: starling_net::Handle,
    exec: Arc<Executor>,
    api: api::Context,
    api_listener: TcpListener,
    /// Dropped to end the helper threads.
    stop: Vec<SyncSender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts everything but the API.
///
/// # Errors
/// If the data directory, the log, or a port cannot be had.
pub(super) fn start(config: &Config, runtime: &tokio::runtime::Handle) -> anyhow::Result<Node> {
    let _entered = runtime.enter();
    let started = Instant::now();
    let clock = Clock::start();
    let (handle, queue) = driver::channel(clock);
    let home = home::open(config, || tell_writes(handle.clone()))?;
    let signer = Signer::from_seed(&home.seed);
    let me = signer.node();
    // The open cluster is named after the directory, so it must exist first.
    std::fs::create_dir_all(&config.rendezvous.value)
        .with_context(|| format!("making the rendezvous directory {}", config.rendezvous.value.display()))?;
    let cluster_secret = config.secret.unwrap_or_else(|| secret::open(&config.rendezvous.value));
    let cluster = cluster_id(&cluster_secret);
    let rendezvous = Rendezvous::open(&config.rendezvous.value, &cluster, &me)
        .with_context(|| format!("opening the rendezvous directory {}", config.rendezvous.value.display()))?;
    let name = home.name(config, &rendezvous)?;
    let offers = offers(config)?;
    let Home { dir, seed, store, recovery } = home;

    let clean = recovery.clean;
    let identity = Identity { signer: signer.clone(), secret: cluster_secret, boot: rand::random() };
    let core = CoreConfig { version: env!("CARGO_PKG_VERSION").into(), ..CoreConfig::new(&name, offers) };
    let machine = recover(core, identity, recovery, &clock)?;
    if !clean {
        let killed = exec::orphans::kill_orphans(&format!("STARLING_RUN_OWNER={}", me.to_hex()));
        if !killed.is_empty() {
            warn!(processes = killed.len(), "stopped tasks that a previous run of this node had left behind");
        }
    }

    let (net, events) = listen(config, seed, cluster.0, cluster_secret)?;
    let api_listener = bind_api(config, runtime)?;
    let files = Files::under(&dir);
    let remote = Remote::new(Box::new({
        let net = net.clone();
        move |to, id, fetch| net.send(PeerKey(to.0), Lane::Control, wire::encode(&Control::Fetch { id, fetch })).is_ok()
    }));
    let runs = Runs::default();
    let exec = Arc::new(Executor::start(
        tell_ends(handle.clone(), me, files.clone(), runs.clone(), net.clone()),
        exec::Options::default(),
    ));
    let (serve, serves) = sync_channel(SERVES);
    let reader = store.reader();
    let api = api::Context {
        handle: handle.clone(),
        outputs: Outputs::new(me, files.clone(), remote.clone()),
        about: api::About {
            name: name.clone(),
            data_dir: dir.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            loopback_only: config.loopback_only(),
            started,
        },
        storage: storage_stats(dir.clone()),
        history: Arc::new({
            let reader = reader.clone();
            move |log, from, max_bytes| ingress::history(&reader, &log, from.0, max_bytes)
        }),
    };

    let mut threads = Vec::new();
    let mut stop = Vec::new();
    let api_addr = api_listener.local_addr().context("reading the API's address")?.to_string();
    let ingress = Ingress {
        handle: handle.clone(),
        net: net.clone(),
        cluster,
        files: files.clone(),
        remote,
        api: api_addr.clone(),
        runtime: runtime.clone(),
    };
    threads.push(spawn("ingress", move || ingress.run(events))?);
    threads.push(spawn("serve", {
        let net = net.clone();
        move || ingress::serve(&serves, &reader, &net)
    })?);
    threads.push(spawn("discovery", {
        let (net, name, stopped) = (net.clone(), name.clone(), stopper(&mut stop));
        move || discovery::run(&rendezvous, &name, &net, &stopped)
    })?);
    threads.push(spawn("monitor", {
        let (handle, stopped) = (handle.clone(), stopper(&mut stop));
        move || stats::run(&handle, &stopped)
    })?);
    let links: Vec<String> = net.listening().iter().map(ToString::to_string).collect();
    handle.input(Input::Addresses { api: api_addr, links });
    let real = RealEdges {
        store,
        net: net.clone(),
        exec: Arc::clone(&exec),
        serve,
        signer,
        files,
        runs,
        handle: handle.clone(),
        made: std::collections::BTreeSet::new(),
    };
    threads.push(spawn("driver", move || driver::run(machine, queue, real))?);
    let loopback_only = config.loopback_only();
    Ok(Node { name, dir, offers, loopback_only, handle, net, exec, api, api_listener, stop, threads })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body).with_context(|| format!("starting the {name} thread"))
}

fn stopper(stop: &mut Vec<SyncSender<()>>) -> Receiver<()> {
    let (tx, rx) = sync_channel(1);
    stop.push(tx);
    rx
}

fn offers(config: &Config) -> anyhow::Result<Resources> {
    let hardware = stats::hardware().context("looking at this machine's memory; set --cpus and --mem")?;
    Ok(Resources {
        cpu_milli: config.cpus_milli.value.unwrap_or(hardware.cpu_milli),
        mem_bytes: config.mem_bytes.value.unwrap_or(hardware.mem_bytes / 10 * 9),
    })
}

fn recover(config: CoreConfig, identity: Identity, records: storage::Recovery, clock: &Clock) -> anyhow::Result<Machine> {
    if let Some(torn) = &records.torn {
        warn!(file = %torn.file.display(), offset = torn.offset, bytes = torn.bytes_cut, "the log had a torn tail; it was cut after the last whole record");
    }
    let cluster = cluster_id(&identity.secret);
    let mut recovery = Recovery::new(config, Registry::built_in(), identity);
    let mut foreign = 0_u64;
    for record in records {
        match record.context("reading the log")? {
            storage::Record::Batch { bytes, .. } => match SignedBatch::open_own(&bytes, &cluster) {
                Ok(batch) => recovery.record(Record::Batch(batch)),
                Err(_) => foreign += 1,
            },
            storage::Record::Local(bytes) => {
                let note = minicbor::decode(&bytes).context("reading a note in the log")?;
                recovery.record(Record::Note(note));
            }
            storage::Record::Clean => recovery.record(Record::CleanShutdown),
        }
    }
    if foreign > 0 {
        bail!("the data directory holds {foreign} batches of another cluster; use its secret, or an empty --dir");
    }
    Ok(recovery.finish(clock.now()))
}

/// Binds links: where configured, else at the first free port.
fn listen(
    config: &Config,
    seed: [u8; 32],
    cluster: [u8; 32],
    cluster_secret: [u8; 32],
) -> anyhow::Result<(starling_net::Handle, starling_net::Events)> {
    let candidates: Vec<SocketAddr> = match config.listen.value {
        Some(addr) => vec![addr],
        None => (LINK_PORT..LINK_PORT + PORTS).map(|port| SocketAddr::new(config.listen_ip(), port)).collect(),
    };
    let last = candidates.len() - 1;
    for (number, addr) in candidates.into_iter().enumerate() {
        let mut net = starling_net::Config::new(seed, cluster, cluster_secret);
        net.listen = vec![addr];
        net.join.clone_from(&config.join.value);
        net.mdns = config.mdns.value && !config.loopback_only();
        match starling_net::start(net) {
            Ok(started) => return Ok(started),
            Err(starling_net::Error::AddrInUse { .. }) if number < last => {}
            Err(error) => {
                return Err(error).with_context(|| format!("listening for links on {addr}; choose another with --listen"));
            }
        }
    }
    bail!("no port for links")
}

/// Binds the API: where configured, else at the first free port of loopback.
fn bind_api(config: &Config, runtime: &tokio::runtime::Handle) -> anyhow::Result<TcpListener> {
    let candidates: Vec<SocketAddr> = match config.api.value {
        Some(addr) => vec![addr],
        None => (API_PORT..API_PORT + PORTS).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect(),
    };
    let last = candidates.len() - 1;
    for (number, addr) in candidates.into_iter().enumerate() {
        match runtime.block_on(TcpListener::bind(addr)) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && number < last => {}
            Err(error) => {
                return Err(error).with_context(|| format!("serving the API on {addr}; choose another with --api"));
            }
        }
    }
    bail!("no port for the API")
}

fn tell_writes(handle: Handle) -> home::OnDone {
    Box::new(move |completion| {
        let write = starling_core::ids::WriteId(completion.id);
        handle.input(match completion.result {
            Ok(()) => Input::Durable(write),
            Err(error) => Input::WriteFailed { write, reason: error.to_string() },
        });
    })
}

/// Tells the driver of ends, and the job's owner of the last output.
fn tell_ends(handle: Handle, me: NodeId, files: Files, runs: Runs, net: starling_net::Handle) -> exec::OnEvent {
    Box::new(move |event| {
        let Some((run, outcome)) = edges::ended(&event) else { return };
        if let ExecEvent::Ended { out_len, err_len, .. } = event
            && let Some(place) = runs.take(run.0)
            && place.grant.job.log.node != me
        {
            for (stream, len) in [(Stream::Out, out_len), (Stream::Err, err_len)] {
                if len > 0 {
                    send_tail(&files, &place, stream, len, &net);
                }
            }
        }
        handle.input(Input::TaskEnded { run, outcome });
    })
}

fn send_tail(files: &Files, place: &Place, stream: Stream, len: u64, net: &starling_net::Handle) {
    let from = len.saturating_sub(TAIL_BYTES);
    let size = usize::try_from(TAIL_BYTES).unwrap_or(usize::MAX);
    if let Ok((data, _)) = files.read(crate::output::Which::Full, place, stream, from, size) {
        let frame = wire::encode(&Bulk::Tail { place: *place, out: stream == Stream::Out, data: data.as_ref().into() });
        // Without a link the owner has no copy, which `logs` says.
        let _unsent = net.send(PeerKey(place.grant.job.log.node.0), Lane::Bulk, frame);
    }
}

fn storage_stats(dir: PathBuf) -> Arc<dyn Fn() -> api::StorageStats + Send + Sync> {
    Arc::new(move || {
        let free = rustix::fs::statvfs(&dir).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        api::StorageStats { free_disk_bytes: free.unwrap_or(0), state: "ok".to_owned() }
    })
}

impl Node {
    /// What a person who just started it wants to know.
    pub(super) fn greeting(&self) -> String {
        let links: Vec<String> = self.net.listening().iter().map(ToString::to_string).collect();
        let api = self.api_listener.local_addr().map_or_else(|_| String::new(), |addr| addr.to_string());
        let reach = if self.loopback_only { " (this host only; for more machines: starling cluster init)" } else { "" };
        let gib = self.offers.mem_bytes / (1 << 30);
        let cpus = self.offers.cpu_milli / 1_000;
        format!(
            "starling {name} is up\n  links   {links}{reach}\n  api     {api} and {dir}/api.sock\n  offers  {cpus} cpus, {gib} GiB\n  try     starling run -- hostname",
            name = self.name,
            links = links.join(", "),
            dir = self.dir.display(),
        )
    }

    /// Serves until a signal, then stops cleanly.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
        let mut news = self.handle.subscribe();
        let (stop_api, api_stopped) = tokio::sync::oneshot::channel::<()>();
        let socket = self.dir.join("api.sock");
        let shutdown = async move {
            // A dropped sender means the same.
            let _dropped = api_stopped.await;
        };
        let mut server = tokio::spawn(api::serve(self.api, self.api_listener, socket, shutdown));
        tokio::select! {
            _ = interrupt.recv() => info!("interrupted; stopping"),
            _ = terminate.recv() => info!("asked to stop"),
            ended = &mut server => {
                ended.context("the API server panicked")?.context("serving the API")?;
            }
        }
        self.handle.try_input(Input::Shutdown);
        let marker = async {
            while let Ok(notice) = news.recv().await {
                if notice == Notice::Stopped {
                    break;
                }
            }
        };
        if tokio::time::timeout(MARKER_DEADLINE, marker).await.is_err() {
            warn!("the disk did not take the clean-shutdown marker in time; the next start opens a new epoch");
        }
        // The API may have ended already.
        let _ended = stop_api.send(());
        drop(self.stop);
        self.exec.shutdown();
        self.net.shutdown().await;
        if tokio::time::timeout(Duration::from_secs(4), server).await.is_err() {
            warn!("some API clients did not leave in time");
        }
        drop(self.threads);
        Ok(())
    }
}
