//! The daemon: from the command line to a running node, and back down.
//!
//! Invariants: nothing is announced before the log is open and the ports are bound; on the way down no new work is taken, the clean-shutdown marker is written, and
//! the whole takes 10 s at most; `kill -9` is just as safe.

mod archivist;
mod discovery;
mod edges;
mod fetch;
mod gateways;
mod generators;
mod home;
mod ingress;
mod node;
mod ports;
mod recover;
mod rendezvous;
mod serve;
mod site;
mod start;
mod stats;
mod tell;
mod voices;
mod whole;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::{self, ClusterInitArgs, Parsed, SuperviseArgs, UpArgs};
use crate::config::{Config, secret};
use crate::supervise::{self, Spool};
use crate::telemetry;

/// Runs the command line, program name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match cli::parse(arguments) {
        Err(code) => code,
        Ok(Parsed::Client(command)) => cli::execute(command),
        Ok(Parsed::Up(args)) => report(up(&args)),
        Ok(Parsed::HwpWorker(args)) => report(worker::run(*args)),
        Ok(Parsed::Supervise(args)) => report(supervise(&args)),
        Ok(Parsed::ClusterInit(args)) => report(cluster_init(&args)),
        Ok(Parsed::ConfigShow(args)) => report(config_show(&args)),
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn up(args: &UpArgs) -> anyhow::Result<()> {
    let config = Config::resolve(args)?;
    telemetry::init(&config.log_level.value)?;
    // Links and the API are light; a node must leave the cores to its tasks.
    let workers = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let node = start::start(&config, runtime.handle())?;
    cli::say(&node.greeting());
    let result = runtime.block_on(node.run());
    // Blocking threads may still read files for clients that are gone.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

/// Hosts tasks for a node, which started this process and may go away.
fn supervise(args: &SuperviseArgs) -> anyhow::Result<()> {
    telemetry::init("warn")?;
    let spool = Spool::at(&args.spool)?;
    Ok(supervise::host(&spool, &args.name)?)
}

fn cluster_init(args: &ClusterInitArgs) -> anyhow::Result<()> {
    let path = args.secret_file.clone().unwrap_or_else(|| cli::base_dir().join("cluster.secret"));
    let existing = if args.force { secret::Existing::Replace } else { secret::Existing::Keep };
    let fresh: [u8; 32] = rand::random();
    secret::write(&path, &fresh, existing)?;
    let cluster = starling_core::event::cluster_id(&fresh);
    let path = path.display();
    cli::say(&format!("cluster {cluster}: wrote its secret to {path} (mode 0600). Whoever has it is a member."));
    cli::say("On every other machine paste this line, then run `starling up` everywhere:");
    let hex = secret::to_hex(&fresh);
    cli::print(&format!(
        "f=\"${{STARLING_HOME:-${{XDG_STATE_HOME:-$HOME/.local/state}}/starling}}/cluster.secret\"; mkdir -p \"$(dirname \"$f\")\" && (umask 077; echo {hex} > \"$f\")"
    ));
    Ok(())
}

fn config_show(args: &UpArgs) -> anyhow::Result<()> {
    for (name, value, source) in Config::resolve(args)?.lines() {
        cli::print(&format!("{name:<14} {value:<56} {source}"));
    }
    Ok(())
}
