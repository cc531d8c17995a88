//! Ports: where configured, else the first free ones.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;

use crate::config::{API_PORT, Config, LINK_PORT, PORTS};

/// Binds links: where configured, else at the first free port.
///
/// # Errors
/// If none can be had.
pub(super) fn listen(
    config: &Config,
    seed: [u8; 32],
    cluster: [u8; 32],
    cluster_secret: [u8; 32],
) -> anyhow::Result<(starling_net::Handle, starling_net::Events, starling_net::Tunnels)> {
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
                return Err(error)
                    .with_context(|| format!("listening for links on {addr}; choose another with --listen"));
            }
        }
    }
    bail!("no port for links")
}

/// Binds the API: where configured, else at the first free port of loopback.
///
/// # Errors
/// If none can be had.
pub(super) fn bind_api(config: &Config, runtime: &tokio::runtime::Handle) -> anyhow::Result<TcpListener> {
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
