//! Nodes that can be killed, events waited for, and a wire that can be cut.
//!
//! Invariants: every wait has a deadline; a killed node's tasks are dropped, not asked to stop.
//! Does not: assert anything about the network beyond that.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use starling_net::{Config, Event, Events, Handle, PeerKey, Tunnels, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
const CLUSTER: [u8; 32] = [1; 32];
const SECRET: [u8; 32] = [2; 32];

/// A node on a runtime of its own.
pub(crate) struct Node {
    pub(crate) handle: Handle,
    pub(crate) events: Events,
    pub(crate) tunnels: Tunnels,
    pub(crate) key: PeerKey,
    pub(crate) addr: SocketAddr,
    runtime: Option<Runtime>,
}

/// Listens on a port of the system's choice, with quick heartbeats.
pub(crate) fn config(seed: u8) -> Config {
    let mut config = Config::new([seed; 32], CLUSTER, SECRET);
    config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.heartbeat = Duration::from_millis(200);
    config.silence = Duration::from_millis(1_000);
    config
}

pub(crate) fn joining(seed: u8, join: &[SocketAddr]) -> Config {
    let mut config = config(seed);
    config.join = join.to_vec();
    config
}

impl Node {
    pub(crate) fn start(config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let key = PeerKey::from_seed(config.seed);
        let (handle, events, tunnels) = {
            let _entered = runtime.enter();
            start(config).unwrap()
        };
        let addr = handle.listening()[0];
        Self { handle, events, tunnels, key, addr, runtime: Some(runtime) }
    }

    /// Drops everything at once, as `kill -9` would.
    pub(crate) fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// The first event that `pick` takes; others are dropped.
    pub(crate) async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        match tokio::time::timeout(DEADLINE, found).await {
            Ok(found) => found,
            Err(_elapsed) => panic!("{}: no {what} in {DEADLINE:?}", self.key),
        }
    }

    pub(crate) async fn wait_up(&mut self, with: PeerKey) {
        self.wait("link", |event| match event {
            Event::LinkUp { peer, .. } if peer == with => Some(()),
            _ => None,
        })
        .await;
    }

    pub(crate) async fn wait_frame(&mut self, bytes: &[u8]) {
        self.wait("frame", |event| match event {
            Event::Frame { bytes: got, .. } if got == bytes => Some(()),
            _ => None,
        })
        .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Two linked nodes, the second of which joined the first.
pub(crate) async fn pair(seeds: (u8, u8)) -> (Node, Node) {
    let mut first = Node::start(config(seeds.0));
    let mut second = Node::start(joining(seeds.1, &[first.addr]));
    first.wait_up(second.key).await;
    second.wait_up(first.key).await;
    (first, second)
}

/// Checks a condition until it holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "not in {DEADLINE:?}: {what}");
        tick.tick().await;
    }
}

/// A TCP forwarder that can stop forwarding without closing anything.
pub(crate) struct Wire {
    pub(crate) addr: SocketAddr,
    state: watch::Sender<Cut>,
    _forwarder: JoinSet<()>,
}

#[derive(Clone, Copy)]
enum Cut {
    /// Everything flows.
    Nothing,
    /// Nothing flows, until healed.
    Everything,
    /// Connections that were made before the cut stay cut; new ones flow.
    Old,
}

impl Wire {
    pub(crate) async fn new(target: impl Future<Output = SocketAddr> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (cut, state) = watch::channel(Cut::Nothing);
        let mut forwarder = JoinSet::new();
        forwarder.spawn(async move {
            let target = target.await;
            let mut halves = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(target).await else {
                    continue;
                };
                let born = *state.borrow();
                let (near, far) = (near.into_split(), far.into_split());
                halves.spawn(forward(near.0, far.1, state.clone(), born));
                halves.spawn(forward(far.0, near.1, state.clone(), born));
            }
        });
        Self { addr, state: cut, _forwarder: forwarder }
    }

    /// Stops everything.
    pub(crate) fn cut(&self) {
        self.state.send_replace(Cut::Everything);
    }

    /// Lets everything flow again.
    pub(crate) fn heal(&self) {
        self.state.send_replace(Cut::Nothing);
    }

    /// Strands what is connected, for good; what connects from now on flows.
    pub(crate) fn strand(&self) {
        self.state.send_replace(Cut::Old);
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<Cut>, born: Cut) {
    let flows = |cut: &Cut| match cut {
        Cut::Nothing => true,
        Cut::Everything => false,
        Cut::Old => matches!(born, Cut::Old),
    };
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if state.wait_for(flows).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
