//! Puts a node together: log, keys, network, processes, driver, API.
//!
//! Invariants: parts start in the order log, ports, processes, threads, driver; nothing is announced before the log is open and the ports are bound.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use starling_core::config::Config as CoreConfig;
use starling_core::event::{Signer, cluster_id};
use starling_core::ids::{ClusterId, NodeId};
use starling_core::machine::{Identity, Input, Machine};
use starling_core::resources::Resources;
use starling_core::time::Wall;
use starling_net::{Lane, PeerKey, SendError};
use tokio::sync::Semaphore;
use tracing::warn;

use super::archivist::{Archive, Archivist, Keep};
use super::edges::RealEdges;
use super::fetch::{self, Fetcher, Fetches};
use super::generators::Relays;
use super::home::{self, Home};
use super::ingress::{self, Ingress};
use super::node::Node;
use super::rendezvous::Rendezvous;
use super::serve::{Serve, Server};
use super::site::Site;
use super::stats::Monitor;
use super::voices::Voices;
use super::whole::Whole;
use super::{discovery, gateways, ports, recover, stats, tell};
use crate::api;
use crate::config::{Config, secret};
use crate::driver::{self, Clock, Handle, Queue};
use crate::exec;
use crate::history::History;
use crate::hwp::edge::Edge;
use crate::hwp::gateway;
use crate::monitor;
use crate::output::{Files, Outputs, Place, Pushes, Remote, Sent};
use crate::relay;
use crate::storage::snapshots::Snapshots;
use crate::storage::{Reader, Store};
use crate::supervise::{self, Found, Keeper, Spool};
use crate::tunnel::Tunnels;
use crate::wire::{self, Bulk, Control};

/// Pulls that wait to be served from disk.
const SERVES: usize = 64;
/// What waits to be brought to disk beside the log.
const KEEPS: usize = 64;
/// Pieces of pushed lines that are written at once for other nodes' clients.
const KEEPING_MAX: usize = 64;

/// What is known once the log has been read.
struct Opened {
    dir: PathBuf,
    site: Site,
    name: String,
    seed: [u8; 32],
    signer: Signer,
    cluster: ClusterId,
    cluster_secret: [u8; 32],
    rendezvous: Rendezvous,
    store: Store,
    snapshots: Snapshots,
    history: History,
    archive: Archive,
    machine: Machine,
    spool: Arc<Spool>,
    found: Option<Found>,
    offers: Resources,
    handle: Handle,
    queue: Queue,
}

/// Starts everything but the API.
///
/// # Errors
/// If the data directory, the log, or a port cannot be had.
pub(super) fn start(config: &Config, runtime: &tokio::runtime::Handle) -> anyhow::Result<Node> {
    let _entered = runtime.enter();
    let started = Instant::now();
    let mut opened = open(config)?;
    let (net, events, incoming) = ports::listen(config, opened.seed, opened.cluster.0, opened.cluster_secret)?;
    let api_listener = ports::bind_api(config, runtime)?;
    let api_addr = api_listener.local_addr().context("reading the API's address")?.to_string();
    let workers = ports::bind_workers(config, &opened.machine, runtime)?;
    let workers_addr = workers.as_ref().map_or_else(String::new, |workers| workers.addr.to_string());
    let parts = parts(&mut opened, &net, runtime)?;
    let (handle, keeper) = (parts.handle.clone(), parts.keeper.clone());
    let reader = opened.store.reader();
    let past = monitor::History::default();
    let api = api(&parts, &opened, about(&opened, config, started), &reader, &past);
    let ((serve, serves), (keep, keeping)) = (sync_channel(SERVES), sync_channel(KEEPS));
    let (fetches, fetching) = fetch::channel();
    let ingress = ingress(&parts, &opened, &net, [&api_addr, &workers_addr], (serve.clone(), fetches.clone()), runtime);
    let monitor = Monitor {
        me: parts.me,
        data_dir: opened.dir.clone(),
        handle: handle.clone(),
        keeper: keeper.clone(),
        history: past,
        runtime: runtime.clone(),
    };
    let mut stop = Vec::new();
    let mut threads = vec![
        spawn("ingress", move || ingress.run(events))?,
        serving(serves, reader, &opened, &net)?,
        archiving(keeping, &opened, &parts.files)?,
        fetcher(fetching, &opened, &net)?,
        tunnelling(parts.tunnels, incoming, runtime)?,
        discovering(opened.rendezvous, &opened.name, &net, &mut stop)?,
        monitoring(monitor, &mut stop)?,
    ];
    let links = net.listening().iter().map(ToString::to_string).collect();
    handle.input(Input::Addresses { api: api_addr, links, workers: workers_addr });
    let edges = RealEdges {
        store: opened.store,
        net: net.clone(),
        keeper: keeper.clone(),
        relays: parts.relays,
        gateway: parts.gateway,
        serve,
        keep,
        history: opened.history,
        fetches,
        signer: opened.signer,
        voices: parts.voices,
        files: parts.files,
        handle: handle.clone(),
        made: BTreeSet::new(),
    };
    let (machine, queue) = (opened.machine, opened.queue);
    threads.push(spawn("driver", move || driver::run(machine, queue, edges))?);
    Ok(Node {
        name: opened.name,
        dir: opened.dir,
        offers: opened.offers,
        loopback_only: config.loopback_only(),
        handle,
        net,
        keeper,
        stop_asked: Arc::clone(&api.stop),
        api,
        api_listener,
        edge: parts.edge,
        workers,
        stop,
        threads,
    })
}

/// What the API stands on.
fn api(parts: &Parts, opened: &Opened, about: api::About, reader: &Reader, past: &monitor::History) -> api::Context {
    let outputs = Outputs::new(parts.me, parts.files.clone(), parts.remote.clone());
    let listed = Arc::new(gateways::Listed(parts.edge.clone()));
    let spool = Arc::clone(&opened.spool);
    let orphans: api::ReadOrphans = Arc::new(move || spool.orphans());
    let retired = Some(opened.history.clone());
    let context = context(&parts.handle, about, outputs, &parts.relays, (reader, opened.cluster), past);
    api::Context { workers: Some(listed), orphans, retired, ..context }
}

/// What runs before anything arrives from the network.
struct Parts {
    me: NodeId,
    handle: Handle,
    files: Files,
    remote: Remote,
    pushes: Pushes,
    keeper: Keeper,
    relays: relay::Handle,
    gateway: gateway::Handle,
    tunnels: Tunnels,
    edge: Edge,
    voices: Arc<Voices>,
}

fn parts(opened: &mut Opened, net: &starling_net::Handle, runtime: &tokio::runtime::Handle) -> anyhow::Result<Parts> {
    let (me, files) = (opened.signer.node(), Files::under(&opened.dir));
    let handle = opened.handle.clone();
    if opened.site.moved {
        runtime.spawn(opened.site.clone().settle_later(me, handle.subscribe()));
    }
    let (remote, pushes) = (remote(net), pushes(me, files.clone(), net));
    let tails = tell::tails(me, files.clone(), net.clone());
    let keeper = keeper(opened, Arc::clone(&tails), runtime)?;
    let relays = relay::start(handle.clone(), runtime).context("starting the relay thread")?;
    let gateway = gateway::start(handle.clone(), files.clone(), me, tails, runtime).context("starting the gateway")?;
    let tunnels = Tunnels::new(net.clone());
    let edge = gateways::start(handle.clone(), &gateway, &tunnels, pushes.clone(), runtime);
    let voices = Arc::default();
    Ok(Parts { me, handle, files, remote, pushes, keeper, relays, gateway, tunnels, edge, voices })
}

/// Takes charge of the supervisors that were found.
fn keeper(opened: &mut Opened, tails: gateway::Tails, runtime: &tokio::runtime::Handle) -> anyhow::Result<Keeper> {
    let runs = opened.machine.executor().run_ids();
    let start = supervise::Start {
        spool: Arc::clone(&opened.spool),
        found: opened.found.take().unwrap_or_default(),
        runs: runs.map(|(run, grant, task)| (run, Place { grant, task })).collect(),
        launcher: Keeper::processes(),
        tell: tell::happened(opened.handle.clone(), tails),
        told: tell::told(opened.handle.clone(), runtime.clone()),
    };
    let (keeper, _thread) = Keeper::start(start).context("starting the keeper thread")?;
    Ok(keeper)
}

fn ingress(
    parts: &Parts,
    opened: &Opened,
    net: &starling_net::Handle,
    [api, workers]: [&String; 2],
    (serve, fetches): (SyncSender<Serve>, Fetches),
    runtime: &tokio::runtime::Handle,
) -> Ingress {
    Ingress {
        handle: parts.handle.clone(),
        net: net.clone(),
        cluster: opened.cluster,
        files: parts.files.clone(),
        remote: parts.remote.clone(),
        api: api.clone(),
        workers: workers.clone(),
        serve,
        fetches,
        pushes: parts.pushes.clone(),
        keeping: Arc::new(Semaphore::new(KEEPING_MAX)),
        runtime: runtime.clone(),
        voices: Arc::clone(&parts.voices),
        me: parts.me,
    }
}

fn about(opened: &Opened, config: &Config, started: Instant) -> api::About {
    api::About {
        name: opened.name.clone(),
        data_dir: opened.dir.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        loopback_only: config.loopback_only(),
        started,
    }
}

/// A number for this start of the process that is greater at each later one: milliseconds, and chance behind them.
fn boot(wall: Wall) -> u64 {
    (wall.0 << 20) | u64::from(rand::random::<u32>() >> 12)
}

/// Opens the data directory and reads the log.
fn open(config: &Config) -> anyhow::Result<Opened> {
    let clock = Clock::start();
    let (handle, queue) = driver::channel(clock);
    let home = home::open(config, || tell::writes(handle.clone()))?;
    let signer = Signer::from_seed(&home.seed);
    let me = signer.node();
    let meeting = &config.rendezvous.value;
    let at = || format!("opening the rendezvous directory {}", meeting.display());
    // The open cluster is named after the directory, so it must exist first.
    std::fs::create_dir_all(meeting).with_context(at)?;
    let cluster_secret = config.secret.unwrap_or_else(|| secret::open(meeting));
    let cluster = cluster_id(&cluster_secret);
    let rendezvous = Rendezvous::open(meeting, &cluster, &me).with_context(at)?;
    let name = home.name(config, &rendezvous)?;
    let offers = offers(config)?;
    let Home { dir, site, seed, store, recovery, snapshots, stored } = home;
    let history = History::open(&dir).context("opening the history of retired jobs")?;
    let archive = if config.keep.archive.value { Archive::Whole } else { Archive::Recent(config.keep.recent()) };
    let clean = recovery.clean;
    let identity = Identity { signer: signer.clone(), secret: cluster_secret, boot: boot(clock.now().wall) };
    let mut core = CoreConfig {
        version: env!("CARGO_PKG_VERSION").into(),
        labels: config.labels.value.clone(),
        gateway: config.gateway.value,
        retain_ms: config.keep.retain_ms.value,
        retain_jobs: config.keep.retain_jobs.value,
        snapshot_bytes: config.keep.snapshot_bytes.value,
        snapshot_ms: config.keep.snapshot_ms.value,
        archive: config.keep.archive.value,
        ..CoreConfig::new(&name, offers)
    };
    let spool = Arc::new(Spool::open(&dir)?);
    let muster = supervise::muster(&spool).context("reading the journals of the previous run's tasks")?;
    if !clean && muster.is_blank() {
        stop_orphans(&me);
    }
    config.liveness.apply(&mut core);
    let machine = recover::recover(core, identity, stored, recovery, &clock, &muster, site.moved)?;
    Ok(Opened {
        site,
        spool,
        found: Some(muster),
        dir,
        name,
        seed,
        signer,
        cluster,
        cluster_secret,
        rendezvous,
        store,
        snapshots,
        history,
        archive,
        machine,
        offers,
        handle,
        queue,
    })
}

/// After a crash of a version without supervisors: tasks of that run will be granted again, so their processes must not go on.
fn stop_orphans(me: &NodeId) {
    let killed = exec::orphans::kill_orphans(&format!("STARLING_RUN_OWNER={}", me.to_hex()));
    if !killed.is_empty() {
        warn!(processes = killed.len(), "stopped tasks that a previous run of this node had left behind");
    }
}

fn remote(net: &starling_net::Handle) -> Remote {
    let net = net.clone();
    Remote::new(Box::new(move |to, id, fetch| {
        let frame = wire::encode(&Control::Fetch { id, fetch });
        net.send(PeerKey(to.0), Lane::Control, frame).is_ok()
    }))
}

/// Lines that clients push: those of other nodes' jobs go to their owners.
fn pushes(me: NodeId, files: Files, net: &starling_net::Handle) -> Pushes {
    let net = net.clone();
    let send = move |to: NodeId, id, job, piece: &Bytes| {
        let frame = wire::encode(&Bulk::Push { id, job, data: piece.as_ref().into() });
        match net.send(PeerKey(to.0), Lane::Bulk, frame) {
            Ok(()) => Sent::Yes,
            Err(SendError::Full) => Sent::Full,
            Err(SendError::NotLinked | SendError::TooLarge { .. }) => Sent::NotLinked,
        }
    };
    Pushes::new(me, files, Box::new(send))
}

fn context(
    handle: &Handle,
    about: api::About,
    outputs: Outputs,
    relays: &relay::Handle,
    (reader, cluster): (&Reader, ClusterId),
    past: &monitor::History,
) -> api::Context {
    let log = Arc::new(Whole { dir: about.data_dir.clone(), cluster });
    let storage = storage_stats(&about.data_dir);
    let reader = reader.clone();
    let history: api::ReadHistory =
        Arc::new(move |log, from, max_bytes| ingress::history(&reader, &log, from.0, max_bytes));
    api::Context {
        handle: handle.clone(),
        outputs,
        relays: relays.clone(),
        about,
        storage,
        history,
        log,
        past: past.clone(),
        generators: Some(Arc::new(Relays(relays.clone()))),
        workers: None,
        retired: None,
        stop: Arc::default(),
        orphans: Arc::new(Vec::new),
    }
}

fn storage_stats(dir: &Path) -> api::ReadStorage {
    let dir = dir.to_owned();
    Arc::new(move || {
        let stats = rustix::fs::statvfs(&dir).ok();
        let free = stats.map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        api::StorageStats { free_disk_bytes: free, state: "ok".to_owned() }
    })
}

fn serving(
    serves: Receiver<Serve>,
    reader: Reader,
    opened: &Opened,
    net: &starling_net::Handle,
) -> anyhow::Result<JoinHandle<()>> {
    let server = Server { reader, snapshots: opened.snapshots.clone(), net: net.clone() };
    spawn("serve", move || server.run(&serves))
}

fn archiving(keeping: Receiver<Keep>, opened: &Opened, files: &Files) -> anyhow::Result<JoinHandle<()>> {
    let archivist = Archivist {
        handle: opened.handle.clone(),
        history: opened.history.clone(),
        snapshots: opened.snapshots.clone(),
        compactor: opened.store.compactor(),
        archive: opened.archive,
        files: files.clone(),
    };
    spawn("archivist", move || archivist.run(&keeping))
}

fn fetcher(queue: fetch::Queue, opened: &Opened, net: &starling_net::Handle) -> anyhow::Result<JoinHandle<()>> {
    let fetcher = Fetcher {
        handle: opened.handle.clone(),
        net: net.clone(),
        snapshots: opened.snapshots.clone(),
        cluster: opened.cluster,
    };
    spawn("fetch", move || fetcher.run(&queue))
}

fn tunnelling(
    tunnels: Tunnels,
    incoming: starling_net::Tunnels,
    runtime: &tokio::runtime::Handle,
) -> anyhow::Result<JoinHandle<()>> {
    let runtime = runtime.clone();
    spawn("tunnels", move || runtime.block_on(tunnels.run(incoming)))
}

fn discovering(
    rendezvous: Rendezvous,
    name: &str,
    net: &starling_net::Handle,
    stop: &mut Vec<SyncSender<()>>,
) -> anyhow::Result<JoinHandle<()>> {
    let (net, name, stopped) = (net.clone(), name.to_owned(), stopper(stop));
    spawn("discovery", move || {
        discovery::run(&rendezvous, &name, &net, &stopped);
    })
}

fn monitoring(monitor: Monitor, stop: &mut Vec<SyncSender<()>>) -> anyhow::Result<JoinHandle<()>> {
    let stopped = stopper(stop);
    spawn("monitor", move || monitor.run(&stopped))
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(body).with_context(|| format!("starting the {name} thread"))
}

/// Something to drop when a helper thread should end.
fn stopper(stop: &mut Vec<SyncSender<()>>) -> Receiver<()> {
    let (tx, rx) = sync_channel(1);
    stop.push(tx);
    rx
}

fn offers(config: &Config) -> anyhow::Result<Resources> {
    let hardware = stats::hardware().context("looking at this machine's memory; set --cpus and --mem")?;
    let (cpus, mem) = (config.cpus_milli.value, config.mem_bytes.value);
    Ok(Resources {
        cpu_milli: cpus.unwrap_or(hardware.cpu_milli),
        mem_bytes: mem.unwrap_or(hardware.mem_bytes / 10 * 9),
    })
}
