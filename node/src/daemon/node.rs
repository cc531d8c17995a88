//! One running node: what it says at its start, and how it serves and stops.
//!
//! Invariants: on the way down no new work is taken, the clean-shutdown marker is written, then links and the API end, and tasks are let go of; each step has a deadline.
//! Does not: put the parts together (`start` does).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use starling_core::machine::{Input, Notice};
use starling_core::resources::Resources;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::api::{self, give_up};
use crate::driver::Handle;
use crate::hwp::edge::{self, Edge, Tls};
use crate::supervise::Keeper;

/// How long the marker may take on the way down.
const MARKER_DEADLINE: Duration = Duration::from_secs(5);
/// How long API clients may take to leave.
const API_DEADLINE: Duration = Duration::from_secs(4);
const TWIN: &str = "another process runs with this node's identity, and began before this one";
const TWIN_HINT: &str = "To run a node of its own here, start with an empty --dir; to go on from this directory, stop the other process first";

/// The workers' port.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) listener: TcpListener,
    pub(super) addr: SocketAddr,
    pub(super) tls: Option<Tls>,
    /// Whether the log that this node has names a token.
    pub(super) has_token: bool,
}

/// A node that runs.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(super) offers: Resources,
    pub(super) loopback_only: bool,
    pub(super) handle: Handle,
    pub(super) net: starling_net::Handle,
    pub(super) keeper: Keeper,
    /// Told when a user of this machine wants the node to stop.
    pub(super) stop_asked: Arc<Notify>,
    pub(super) api: api::Context,
    pub(super) api_listener: TcpListener,
    pub(super) edge: Edge,
    /// Absent if workers are not served.
    pub(super) workers: Option<Workers>,
    /// Dropped to end the helper threads.
    pub(super) stop: Vec<SyncSender<()>>,
    pub(super) threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn greeting(&self) -> String {
        let tls = if self.tls.is_some() { ", TLS" } else { "" };
        let reach = if !self.addr.ip().is_loopback() && !self.has_token {
            " (this host only until the cluster has a token: starling gateway token add NAME)"
        } else {
            ""
        };
        format!("{}{tls}{reach}", self.addr)
    }
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
            "starling {name} is up\n  links   {links}{reach}\n  api     {api} and {dir}/api.sock\n  workers {workers}\n  offers  {cpus} cpus, {gib} GiB\n  try     starling run -- hostname",
            name = self.name,
            links = links.join(", "),
            dir = self.dir.display(),
            workers = self.workers.as_ref().map_or_else(|| "not served (--hwp off)".to_owned(), Workers::greeting),
        )
    }

    /// Serves until a signal, then stops cleanly.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
        let (mut news, mut warnings) = (self.handle.subscribe(), self.handle.subscribe());
        let mut has_twin = false;
        let (stop_api, api_stopped) = tokio::sync::oneshot::channel::<()>();
        let socket = self.dir.join("api.sock");
        let shutdown = async move {
            // A dropped sender means the same.
            let _dropped = api_stopped.await;
        };
        // A set of one: dropping it ends the task.
        let mut server = JoinSet::new();
        server.spawn(api::serve(self.api, self.api_listener, socket, shutdown));
        let (stop_workers, workers_stopped) = tokio::sync::oneshot::channel::<()>();
        let mut workers = JoinSet::new();
        if let Some(Workers { listener, tls, .. }) = self.workers {
            workers.spawn(edge::serve(self.edge, listener, tls, async move { drop(workers_stopped.await) }));
        }
        tokio::select! {
            _ = interrupt.recv() => info!("interrupted; stopping"),
            _ = terminate.recv() => info!("asked to stop"),
            () = self.stop_asked.notified() => info!("asked to stop"),
            () = twin(&mut warnings) => has_twin = true,
            Some(ended) = server.join_next() => {
                ended.context("the API server panicked")?.context("serving the API")?;
            }
            Some(ended) = workers.join_next() => ended.context("the workers' server panicked")?,
        }
        if has_twin {
            // Its other half knows nothing of these tasks, and their owners will hear of them from nobody.
            let left = give_up(&self.handle).await.unwrap_or(0);
            info!(left, "the tasks that ran here were ended");
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
        let _ended = stop_workers.send(());
        drop(self.stop);
        // What runs goes on; the next start takes it up.
        self.keeper.leave();
        self.net.shutdown().await;
        let last = tokio::time::timeout(API_DEADLINE, server.join_next());
        if last.await.is_err() {
            warn!("some API clients did not leave in time");
        }
        // They were told when the API was, and get less time.
        workers.shutdown().await;
        drop(self.threads);
        ensure!(!has_twin, "{TWIN}: the data directory {} is a copy, or was copied. {TWIN_HINT}", self.dir.display());
        Ok(())
    }
}

/// Waits until it is certain that another process has this node's identity.
async fn twin(news: &mut broadcast::Receiver<Notice>) {
    loop {
        match news.recv().await {
            Ok(Notice::Twin) => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
