//! `starling-testnet up N`: a cluster to play with.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::{Cluster, Namespaces, Options};

/// Flags of `up`.
#[derive(Clone, Debug, clap::Args)]
pub struct UpArgs {
    /// How many nodes
    #[arg(default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub count: u8,
    /// CPUs that each node offers
    #[arg(long, default_value = "1")]
    pub cpus: String,
    /// One network namespace each, found by mDNS alone; needs root
    #[arg(long)]
    pub netns: bool,
    /// Keep state here instead of in a temporary directory
    #[arg(long, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// The starling binary [default: the one beside this program]
    #[arg(long, value_name = "FILE", env = "STARLING_BIN")]
    pub binary: Option<PathBuf>,
}

/// Starts the cluster, says how to use it, and keeps it until standard input ends or Ctrl-C.
///
/// # Errors
/// If it does not come up.
pub fn up(args: &UpArgs) -> anyhow::Result<()> {
    let binary = find_binary(args.binary.as_deref())?;
    let scratch = tempfile::Builder::new().prefix("starling-testnet-").tempdir().context("making a directory")?;
    let home = args.home.clone().unwrap_or_else(|| scratch.path().to_owned());
    std::fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    let flags = ["--cpus", args.cpus.as_str()];
    let options = Options::uniform(&binary, &home, usize::from(args.count), &flags);
    let cluster = if args.netns {
        let namespaces = Namespaces::make("up", usize::from(args.count))?;
        share_secret(&binary, &home, usize::from(args.count))?;
        Cluster::start_in_namespaces(options, namespaces)?
    } else {
        Cluster::start(options)?
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} nodes are ready. In another terminal:", cluster.len())?;
    for number in 1..=cluster.len() {
        writeln!(out, "  export STARLING_VIA={}", cluster.dir(number).join("api.sock").display())?;
    }
    writeln!(out, "then: starling nodes; starling run -- hostname\nEnd with Ctrl-D.")?;
    drop(out);
    // Ctrl-C reaches the nodes too, which stop by themselves.
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).context("waiting for the end of input")?;
    Ok(())
}

/// Gives every host of a namespace cluster the same fresh secret.
///
/// # Errors
/// If it cannot be written.
pub fn share_secret(binary: &Path, home: &Path, count: usize) -> anyhow::Result<()> {
    let secret = home.join("host-1").join("cluster.secret");
    let output = std::process::Command::new(binary)
        .args(["cluster", "init", "--secret-file"])
        .arg(&secret)
        .output()
        .context("running starling cluster init")?;
    if !output.status.success() {
        bail!("starling cluster init: {}", String::from_utf8_lossy(&output.stderr));
    }
    for number in 2..=count {
        let host = home.join(format!("host-{number}"));
        std::fs::create_dir_all(&host)?;
        std::fs::copy(&secret, host.join("cluster.secret"))?;
    }
    Ok(())
}

/// The `starling` binary: the given one, or the one beside this program.
///
/// # Errors
/// If there is none.
pub fn find_binary(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let here = std::env::current_exe().context("finding this program")?;
    let beside = here.with_file_name("starling");
    if beside.exists() {
        return Ok(beside);
    }
    bail!("no starling binary at {}; run: cargo build -p starling-node, or name one with --binary", beside.display())
}
