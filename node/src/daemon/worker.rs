//! `hwp-worker`: from its flags to a running worker, and back down at SIGTERM or Ctrl-C.
//!
//! Invariants: nothing is asked of a server before the directory is this worker's alone.
//! Does not: run or deliver jobs (`crate::worker`).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::{self, HwpWorkerArgs};
use crate::telemetry;
use crate::worker::{self, Home, Limits, Options, Servers, Tls};

/// The capabilities that are also programs which run images.
const IMAGE_PROGRAMS: [&str; 2] = ["docker", "podman"];

/// Works until it is told to stop.
///
/// # Errors
/// If a flag's value, a file it names, or the directory cannot be used.
pub(super) fn run(args: HwpWorkerArgs) -> anyhow::Result<()> {
    telemetry::init(&args.log_level)?;
    let token = match &args.token_file {
        Some(path) => Some(text(path, "the token file")?),
        // An empty variable is how some unset one.
        None => args.token.clone().filter(|token| !token.is_empty()),
    };
    let tls = tls(&args)?;
    let home = match &args.dir {
        Some(dir) => Home::open(dir)?,
        None => Home::open_free(&cli::base_dir())?,
    };
    let id = args.id.clone().unwrap_or_else(|| home.name().to_owned());
    let servers = Servers::new(&args.servers, &id, token.as_deref(), tls.as_ref())?;
    let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
    let slots = args.slots.map_or_else(cpus, usize::from);
    let image_program = IMAGE_PROGRAMS.iter().find(|program| args.capabilities.iter().any(|label| label == *program));
    let options = Options {
        servers,
        id,
        capabilities: args.capabilities,
        slots,
        image_program: image_program.map(|program| (*program).to_owned()),
        listen: args.listen,
        token,
        // Servers have a say in it, and are not to move the terminal's cursor.
        tell: Box::new(|text| cli::say(&text.replace(char::is_control, " "))),
        limits: Limits::default(),
    };
    cli::say(&format!("worker {}: {slots} jobs at once; Ctrl-C stops it", options.id));
    // Little happens here; the cores are for the jobs.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(until_signalled(options, home))
}

async fn until_signalled(options: Options, home: Home) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let (stop, stopping) = watch::channel(false);
    let mut work = std::pin::pin!(worker::run(options, home, stopping));
    tokio::select! {
        result = &mut work => return Ok(result?),
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    cli::say("stopping: ending the jobs that run and sending their results");
    stop.send_replace(true);
    Ok(work.await?)
}

fn tls(args: &HwpWorkerArgs) -> anyhow::Result<Option<Tls>> {
    let Some(ca) = &args.ca else { return Ok(None) };
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let identity = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
        (_, _) => None,
    };
    Ok(Some(Tls { ca: read(ca)?, identity }))
}

/// The text of a small file without blanks around it.
fn text(path: &Path, what: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {what} {}", path.display()))?;
    match text.trim() {
        "" => bail!("{what} {} is empty", path.display()),
        token => Ok(token.to_owned()),
    }
}
