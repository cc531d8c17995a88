//! Where chaos takes place: the nodes, their hosts, disks and clocks, and the directory that holds everything.
//!
//! Invariants: what was mounted is unmounted on drop, after the nodes have ended; the directory is removed unless it is kept.
//! Does not: decide what goes wrong.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::plan::Tools;
use crate::local::{Cluster, Namespaces, Options, can_make_namespaces, share_secret};

/// Enough for what half an hour's load leaves on a disk, and soon full.
const DISK_MIB: u32 = 64;
/// Tasks take a quarter of a CPU by their reservation and next to none in fact.
const FLAGS: &[&str] = &["--cpus", "2"];
/// On loopback the system chooses the ports.
const LOOPBACK_FLAGS: &[&str] = &["--cpus", "2", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
const BALLAST: &str = "ballast";
/// Where Debian's libfaketime lies below `/usr/lib`, by machine.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";

/// Small file systems, one a node, or none where nobody may mount.
#[derive(Debug, Default)]
struct Disks {
    mounted: Vec<PathBuf>,
}

/// The label of every second node, so that a job can be sent to others than the node that owns it.
pub(super) fn label(number: usize) -> &'static str {
    if number.is_multiple_of(2) { "even" } else { "odd" }
}

/// The nodes and what they stand on. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) cluster: Cluster,
    disks: Disks,
    scratch: TempDir,
}

/// What can be done here, and one sentence for each thing that cannot. `faketime` is the library that steps clocks.
pub(super) fn probe(network: Network, faketime: Option<&Path>) -> (Tools, Vec<String>) {
    let mut tools = Tools::default();
    let mut lacks = Vec::new();
    match network {
        Network::Loopback => lacks.push("on loopback as asked: no partitions, no loss, no flapping links".to_owned()),
        Network::Namespaces => match probe_network() {
            Ok(()) => tools.network = true,
            Err(why) => lacks.push(format!("no partitions, no loss, no flapping links, nodes on loopback: {why:#}")),
        },
    }
    match probe_mount() {
        Ok(()) => tools.small_disks = true,
        Err(why) => lacks.push(format!("no full disks: {why:#}")),
    }
    match faketime {
        Some(_) => tools.clocks = true,
        // Time namespaces move the monotonic clock only.
        None => lacks.push("no clock steps: Linux has one wall clock for all, and libfaketime is not here".to_owned()),
    }
    (tools, lacks)
}

/// Where nodes are to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// One network namespace each, where that is possible.
    Namespaces,
    /// All on loopback.
    Loopback,
}

/// The library that gives a process a wall clock of its own, where its package puts it.
pub(super) fn find_faketime() -> Option<PathBuf> {
    let machines = std::fs::read_dir("/usr/lib").ok()?.flatten();
    machines.map(|machine| machine.path().join(FAKETIME)).find(|library| library.exists())
}

fn probe_network() -> anyhow::Result<()> {
    ensure!(can_make_namespaces(), "no right to make network namespaces, or no iproute2");
    Namespaces::make("chaos-probe", 1)?.set_losses(1, &[(2, 500)].into())
}

fn probe_mount() -> anyhow::Result<()> {
    let dir = tempfile::tempdir().context("making a directory")?;
    let mut disks = Disks::default();
    disks.mount(dir.path(), 1)
}

impl Disks {
    fn mount(&mut self, at: &Path, mib: u32) -> anyhow::Result<()> {
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "starling-chaos"]).arg(at).stdin(Stdio::null());
        let output = mount.output().context("running mount")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        self.mounted.push(at.to_owned());
        Ok(())
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for at in &self.mounted {
            // Lazily: a task that was left behind keeps it busy.
            let _left = Command::new("umount").arg("--lazy").arg(at).stderr(Stdio::null()).status();
        }
    }
}

impl Field {
    /// Starts `count` nodes with these tools and waits until they see each other.
    ///
    /// # Errors
    /// If anything of it fails.
    pub(super) fn start(binary: &Path, count: usize, tools: Tools, faketime: Option<&Path>) -> anyhow::Result<Self> {
        let scratch = tempfile::Builder::new().prefix("starling-chaos-").tempdir().context("making a directory")?;
        let (home, logs) = (scratch.path().join("home"), scratch.path().join("logs"));
        std::fs::create_dir(&home).context("making a directory")?;
        std::fs::create_dir(&logs).context("making a directory")?;
        let mut disks = Disks::default();
        for number in 1..=count {
            let host = if tools.network { home.join(format!("host-{number}")) } else { home.clone() };
            let dir = host.join(format!("node-{number}"));
            std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            if tools.small_disks {
                disks.mount(&dir, DISK_MIB)?;
            }
        }
        let flags = if tools.network { FLAGS } else { LOOPBACK_FLAGS };
        let mut options = Options { logs: Some(logs), ..Options::uniform(binary, &home, count, flags) };
        for (place, flags) in options.nodes.iter_mut().enumerate() {
            flags.extend(["--label".to_owned(), label(place + 1).to_owned()]);
        }
        if let Some(library) = faketime {
            for (place, env) in options.env.iter_mut().enumerate() {
                let clock = clock(scratch.path(), place + 1);
                set_clock(&clock, 0)?;
                *env = own_clock(library, &clock);
            }
        }
        let cluster = if tools.network {
            let namespaces = Namespaces::make("chaos", count)?;
            share_secret(binary, &home, count)?;
            Cluster::start_in_namespaces(options, namespaces)
        } else {
            Cluster::start(options)
        };
        match cluster {
            Ok(cluster) => Ok(Self { cluster, disks, scratch }),
            Err(error) => {
                Err(error.context(format!("starting nodes; their logs were kept in {}", scratch.keep().display())))
            }
        }
    }

    /// A file that this program, its clients and all tasks share.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Leaves no room for another page on a node's disk.
    pub(super) fn fill_disk(&self, number: usize) -> anyhow::Result<()> {
        let mut file = File::create(self.cluster.dir(number).join(BALLAST)).context("making the ballast")?;
        while file.write_all(&[1; 65_536]).is_ok() {}
        while file.write_all(&[1; 4_096]).is_ok() {}
        Ok(())
    }

    /// Makes room again.
    pub(super) fn free_disk(&self, number: usize) -> anyhow::Result<()> {
        std::fs::remove_file(self.cluster.dir(number).join(BALLAST)).context("removing the ballast")
    }

    /// Sets a node's wall clock so many seconds before or after that of the machine. The node sees it within a second.
    pub(super) fn set_clock(&self, number: usize, by_s: i64) -> anyhow::Result<()> {
        set_clock(&clock(self.scratch.path(), number), by_s)
    }

    /// Ends the nodes and keeps everything for whoever looks into a failure: returns where.
    pub(super) fn keep(self) -> PathBuf {
        let Self { cluster, disks, scratch } = self;
        drop(cluster);
        for at in &disks.mounted {
            // What lies on the small file system goes with it, so it is copied beside.
            let mut beside = at.clone().into_os_string();
            beside.push(".kept");
            let _partly = Command::new("cp").arg("-a").arg(at).arg(beside).stderr(Stdio::null()).status();
        }
        drop(disks);
        scratch.keep()
    }
}

/// The file that says how far a node's clock is off.
fn clock(scratch: &Path, number: usize) -> PathBuf {
    scratch.join(format!("clock-{number}"))
}

/// Whole at any moment, since the node may read it at any.
fn set_clock(file: &Path, by_s: i64) -> anyhow::Result<()> {
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, format!("{by_s:+}s")).context("setting a clock")?;
    std::fs::rename(&fresh, file).context("setting a clock")
}

/// What libfaketime reads: the wall clock alone is off, and the file is looked at once a second.
fn own_clock(library: &Path, clock: &Path) -> Vec<(String, String)> {
    let text = |path: &Path| path.display().to_string();
    let pairs = [
        ("LD_PRELOAD", text(library)),
        ("FAKETIME_TIMESTAMP_FILE", text(clock)),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_CACHE_DURATION", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
}
