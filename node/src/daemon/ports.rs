//! Ports: where configured, else the first free ones.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use starling_core::machine::Machine;
use tokio::net::TcpListener;

use super::node::Workers;
use crate::config::{API_PORT, Config, LINK_PORT, PORTS};
use crate::hwp::edge::{self, Tls};

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

/// Binds the workers' port: where configured, else at the first free port of loopback; none if it is switched off.
///
/// # Errors
/// If none can be had, or a certificate cannot be used.
pub(super) fn bind_workers(
    config: &Config,
    machine: &Machine,
    runtime: &tokio::runtime::Handle,
) -> anyhow::Result<Option<Workers>> {
    let tls = config.hwp.tls().as_ref().map(Tls::read).transpose()?;
    let candidates = config.hwp.candidates();
    let Some(first) = candidates.first() else {
        return Ok(None);
    };
    let bound = runtime.block_on(edge::bind(&candidates));
    let listener = bound.with_context(|| {
        format!("serving workers on {first}; choose another address with --hwp, or switch it off with --hwp off")
    })?;
    let addr = listener.local_addr().context("reading the workers' address")?;
    let has_token = machine.facts().gateway().valid_tokens().next().is_some();
    Ok(Some(Workers { listener, addr, tls, has_token }))
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
