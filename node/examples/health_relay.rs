//! A relay in Rust: checks web servers for jobs of namespace `health_check` (health_check.toml), over one gRPC stream.
//!
//! `cargo run --example health_relay -- --node http://127.0.0.1:7450 [--gid NAME] [--slots N] [--lease-ms N]`
//!
//! Does not: speak TLS or follow redirects; a check is one plain HTTP/1.1 request.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use serde_json::{Value, json};
use starling_proto::v1::relay_hear::Hear;
use starling_proto::v1::relay_say::Say;
use starling_proto::v1::starling_client::StarlingClient;
use starling_proto::v1::{RelayHello, RelayReport, RelaySay, RelayTask};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

/// Longest check.
const CHECK: Duration = Duration::from_secs(10);
/// Pause between tries while no node answers.
const PAUSE: Duration = Duration::from_millis(500);
/// Most of a body that is counted.
const BODY_BYTES_MAX: u64 = 16 << 20;

#[derive(Clone, Debug, Parser)]
struct Args {
    /// Any node's API
    #[arg(long, default_value = "http://127.0.0.1:7450")]
    node: String,
    /// This relay's name [default: health-PID]
    #[arg(long)]
    gid: Option<String>,
    /// Checks at once
    #[arg(long, default_value_t = 16)]
    slots: u32,
    /// When this relay is silent for so long, others redo its checks
    #[arg(long, default_value_t = 10_000)]
    lease_ms: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args = Args::parse();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let (stop, mut stopping) = watch::channel(false);
    let mut signals = JoinSet::new();
    signals.spawn(async move {
        terminate.recv().await;
        stop.send_replace(true);
    });
    while !*stopping.borrow() {
        match serve(&args, &mut stopping).await {
            Ok(()) => info!("the stream ended"),
            Err(error) => warn!("{error:#}; trying again"),
        }
        // Over at once when asked to stop.
        let _asked = tokio::time::timeout(PAUSE, stopping.wait_for(|stop| *stop)).await;
    }
    Ok(())
}

/// One stream, from hello to its end.
async fn serve(args: &Args, stopping: &mut watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut client = StarlingClient::connect(args.node.clone()).await.context("connecting")?;
    let (tx, rx) = mpsc::channel(64);
    let gid = args.gid.clone().unwrap_or_else(|| format!("health-{}", std::process::id()));
    let namespace = "health_check".to_owned();
    let hello = RelayHello { gid, namespace, slots: args.slots, lease_ms: args.lease_ms, ..RelayHello::default() };
    tx.send(RelaySay { say: Some(Say::Hello(hello)) }).await?;
    let mut heard = client.relay(ReceiverStream::new(rx)).await?.into_inner();
    let mut checks = JoinSet::new();
    let mut tx = Some(tx);
    loop {
        let message = tokio::select! {
            message = heard.message() => match message? {
                Some(message) => message,
                None => return Ok(()),
            },
            _asked = stopping.wait_for(|stop| *stop), if tx.is_some() => {
                // Closing this side is a clean leave: what is not reported is done by others.
                tx = None;
                continue;
            }
        };
        match message.hear {
            Some(Hear::Welcome(welcome)) => info!(gid = welcome.gid, slots = welcome.slots, "registered"),
            Some(Hear::Assigned(task)) => {
                let Some(tx) = tx.clone() else { continue };
                checks.spawn_blocking(move || {
                    // A stream that has ended meanwhile hands the task over again.
                    let _ended = tx.blocking_send(RelaySay { say: Some(Say::Report(check(&task))) });
                });
            }
            Some(Hear::Refused(refused)) => warn!(refused.reason, "a report was refused"),
            // A check is short: it is not worth stopping. Pokes are for relays that look at Facts.
            Some(Hear::Cancelled(_) | Hear::Noted(_) | Hear::Poke(_)) | None => {}
        }
        while checks.try_join_next().is_some() {}
    }
}

/// Does one task.
fn check(task: &RelayTask) -> RelayReport {
    let begun = Instant::now();
    let fields: Value = serde_json::from_str(&task.spec).unwrap_or_default();
    let expected = fields["expect_status"].as_i64().unwrap_or(200);
    let (kind, spec) = match get(fields["url"].as_str().unwrap_or_default()) {
        Ok((status, bytes)) if status == expected => {
            let latency_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            ("CheckPassed", json!({ "latency_ms": latency_ms, "body_bytes": bytes }))
        }
        Ok((status, _)) => {
            let reason = format!("expected status {expected}, got {status}");
            ("CheckFailed", json!({ "reason": reason, "status": status }))
        }
        Err(error) => {
            let reason: String = format!("{error:#}").chars().take(200).collect();
            ("CheckFailed", json!({ "reason": reason }))
        }
    };
    RelayReport { task: task.task.clone(), kind: kind.to_owned(), spec: spec.to_string(), id: 0 }
}

/// Status and length of the body at an `http://` URL.
fn get(url: &str) -> anyhow::Result<(i64, i64)> {
    let rest = url.strip_prefix("http://").context("not an http:// URL")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let target = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = target.to_socket_addrs()?.next().context("the host has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, CHECK).context("connecting")?;
    stream.set_read_timeout(Some(CHECK))?;
    stream.set_write_timeout(Some(CHECK))?;
    // At once: a server that answers the first line and closes resets what comes later, and its answer with it.
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("sending the request")?;
    let mut answer = Vec::new();
    stream.take(BODY_BYTES_MAX).read_to_end(&mut answer).context("reading the answer")?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").context("the answer is no HTTP")?;
    let line = String::from_utf8_lossy(&answer[..head]).into_owned();
    let Some(status) = line.split(' ').nth(1).and_then(|word| word.parse().ok()) else {
        bail!("the answer has no status");
    };
    Ok((status, i64::try_from(answer.len() - head - 4)?))
}
