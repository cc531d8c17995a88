//! Local clusters: real `starling` processes on loopback or in network namespaces, for demos, end-to-end tests and chaos.
//!
//! Invariants: everything lives under one directory of its own; mDNS is off on loopback; every process and namespace started here is ended here, and whatever nodes left
//! running, when the `Cluster` is dropped at the latest.
//! Does not: know the protocol; it uses the binary and its command line as people do.

mod filter;
mod netns;
mod remains;
pub(crate) mod traces;
mod up;
mod wait;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
pub use filter::{EVERYTHING, PerMille};
pub use netns::{Namespaces, Port, can_make_namespaces};
use rustix::process::{Pid, Signal, kill_process};
pub use up::{UpArgs, find_binary, share_secret, up};
pub use wait::{pause, until};

/// What a node's log says when an executor of its jobs is silent for too long.
pub(crate) const SUSPICION: &str = "node is silent";
/// How long a cluster may take to become ready.
const READY: Duration = Duration::from_secs(30);
/// How long a node may take to stop when asked.
const STOP: Duration = Duration::from_secs(12);

/// What kind of cluster to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `starling` binary.
    pub binary: PathBuf,
    /// Where the nodes keep their state; must exist.
    pub home: PathBuf,
    /// Flags of `up`, one list a node.
    pub nodes: Vec<Vec<String>>,
    /// Environment variables beside the inherited ones, one list a node.
    pub env: Vec<Vec<(String, String)>>,
    /// Where to write what the nodes say, `node-K.log` each; `None` is `stderr` in each data directory. Must exist.
    pub logs: Option<PathBuf>,
}

impl Options {
    /// `count` nodes with the same flags.
    #[must_use]
    pub fn uniform(binary: &Path, home: &Path, count: usize, flags: &[&str]) -> Self {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        Self {
            binary: binary.to_owned(),
            home: home.to_owned(),
            nodes: vec![flags; count],
            env: vec![Vec::new(); count],
            logs: None,
        }
    }
}

/// One node of a local cluster.
#[derive(Debug)]
struct Node {
    flags: Vec<String>,
    child: Option<Child>,
}

/// Running nodes, numbered from 1 as their directories are.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    nodes: Vec<Node>,
    namespaces: Option<Namespaces>,
}

impl Cluster {
    /// Starts nodes on loopback and waits until each sees all others.
    ///
    /// # Errors
    /// If a node does not start or they do not find each other in time.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        Self::start_in(options, None)
    }

    /// Starts one node in each namespace. They share nothing but what `home/node-K` holds for each.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_in_namespaces(options: Options, namespaces: Namespaces) -> anyhow::Result<Self> {
        Self::start_in(options, Some(namespaces))
    }

    fn start_in(options: Options, namespaces: Option<Namespaces>) -> anyhow::Result<Self> {
        let nodes = options.nodes.iter().map(|flags| Node { flags: flags.clone(), child: None }).collect();
        let mut cluster = Self { options, nodes, namespaces };
        for number in 1..=cluster.len() {
            cluster.boot(number)?;
        }
        cluster.await_ready(cluster.len())?;
        Ok(cluster)
    }

    /// How many nodes it has, running or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The hosts it runs on, if it has some of its own.
    #[must_use]
    pub fn namespaces(&self) -> Option<&Namespaces> {
        self.namespaces.as_ref()
    }

    /// Changes the flags of a node, from its next start on.
    pub fn set_flags(&mut self, number: usize, flags: &[&str]) {
        self.nodes[number - 1].flags = flags.iter().map(ToString::to_string).collect();
    }

    /// The data directory of a node.
    #[must_use]
    pub fn dir(&self, number: usize) -> PathBuf {
        self.home(number).join(format!("node-{number}"))
    }

    /// The file with what a node says.
    #[must_use]
    pub fn log(&self, number: usize) -> PathBuf {
        match &self.options.logs {
            Some(logs) => logs.join(format!("node-{number}.log")),
            None => self.dir(number).join("stderr"),
        }
    }

    /// `STARLING_HOME` of a node: shared on loopback, one each in namespaces.
    fn home(&self, number: usize) -> PathBuf {
        match self.namespaces {
            Some(_) => self.options.home.join(format!("host-{number}")),
            None => self.options.home.clone(),
        }
    }

    /// Starts a node that is not running.
    ///
    /// # Errors
    /// If its process cannot be started.
    pub fn boot(&mut self, number: usize) -> anyhow::Result<()> {
        let home = self.home(number);
        let dir = self.dir(number);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let log = self.log(number);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&log).context("opening the node's log")?;
        let mut command = self.command_in(number);
        command.env("STARLING_HOME", &home).arg("up").arg("--dir").arg(&dir);
        if self.namespaces.is_none() {
            command.arg("--no-mdns");
        }
        command.envs(self.options.env[number - 1].iter().cloned());
        command.args(&self.nodes[number - 1].flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {}", self.options.binary.display()))?;
        self.nodes[number - 1].child = Some(child);
        Ok(())
    }

    /// Starts one more node on loopback and returns its number.
    ///
    /// # Errors
    /// If its process cannot be started, or each node has a network namespace of its own.
    pub fn grow(&mut self, flags: &[&str]) -> anyhow::Result<usize> {
        ensure!(self.namespaces.is_none(), "a cluster in network namespaces has as many nodes as these");
        self.options.env.push(Vec::new());
        self.nodes.push(Node { flags: flags.iter().map(ToString::to_string).collect(), child: None });
        let number = self.len();
        self.boot(number)?;
        Ok(number)
    }

    fn command_in(&self, number: usize) -> Command {
        match &self.namespaces {
            Some(namespaces) => namespaces.command(number, &self.options.binary),
            None => Command::new(&self.options.binary),
        }
    }

    /// A client command at one node.
    #[must_use]
    pub fn cli(&self, number: usize, args: &[&str]) -> Command {
        let mut command = Command::new(&self.options.binary);
        command
            .env("STARLING_HOME", self.home(number))
            .env("STARLING_VIA", self.dir(number).join("api.sock"))
            .args(args);
        command
    }

    /// Runs a client command at one node, whatever its exit code.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&self, number: usize, args: &[&str]) -> anyhow::Result<Output> {
        self.cli(number, args).output().with_context(|| format!("running starling {}", args.join(" ")))
    }

    /// What a client command that must succeed prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn ok(&self, number: usize, args: &[&str]) -> anyhow::Result<String> {
        let output = self.run(number, args)?;
        let talk = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "starling {} at node {number}: {}\n{talk}", args.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until every running node counts `count` ready nodes.
    ///
    /// # Errors
    /// If that takes too long; says what the slowest sees and where its log is.
    pub fn await_ready(&self, count: usize) -> anyhow::Result<()> {
        for number in 1..=self.len() {
            if self.nodes[number - 1].child.is_none() {
                continue;
            }
            // Workers are listed too, and ready or not in the same words.
            let is_ready = |line: &&str| line.contains(r#""state":"ready""#) && !line.contains(r#""kind":"worker""#);
            let ready = || {
                let nodes = self.ok(number, &["nodes", "--json"]);
                nodes.is_ok_and(|text| text.lines().filter(is_ready).count() == count)
            };
            if !until(READY, ready) {
                let seen =
                    self.run(number, &["nodes"]).map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
                bail!(
                    "node {number} does not see {count} ready nodes; it sees:\n{}\nits log: {}",
                    seen.unwrap_or_default(),
                    self.log(number).display()
                );
            }
        }
        Ok(())
    }

    /// The process id of a running node.
    #[must_use]
    pub fn pid(&self, number: usize) -> Option<u32> {
        self.nodes[number - 1].child.as_ref().map(Child::id)
    }

    /// How a node's process ended that nobody here ended; the node counts as not running from then on.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn ended(&mut self, number: usize) -> anyhow::Result<Option<ExitStatus>> {
        let node = &mut self.nodes[number - 1];
        let Some(child) = &mut node.child else { return Ok(None) };
        let ended = child.try_wait().with_context(|| format!("looking after node {number}"))?;
        if ended.is_some() {
            node.child = None;
        }
        Ok(ended)
    }

    /// Stops a node's process where it stands (`SIGSTOP`), or lets it go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn set_pace(&self, number: usize, pace: Pace) -> anyhow::Result<()> {
        let child = self.nodes[number - 1].child.as_ref().context("the node does not run")?;
        let signal = match pace {
            Pace::Standing => Signal::STOP,
            Pace::Running => Signal::CONT,
        };
        kill_process(Pid::from_child(child), signal).with_context(|| format!("sending {signal:?} to node {number}"))
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If the node does not run.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let mut child = self.nodes[number - 1].child.take().context("the node does not run")?;
        child.kill().context("killing the node")?;
        child.wait().context("waiting for the node")?;
        Ok(())
    }

    /// Asks a node to stop, as `kill` does, and waits until it has.
    ///
    /// # Errors
    /// If it does not run or does not stop in time.
    pub fn stop(&mut self, number: usize) -> anyhow::Result<()> {
        let mut child = self.nodes[number - 1].child.take().context("the node does not run")?;
        terminate(&child);
        if !until(STOP, || matches!(child.try_wait(), Ok(Some(_)))) {
            child.kill().context("killing the node")?;
            child.wait().context("waiting for the node")?;
            bail!("node {number} did not stop within {STOP:?}");
        }
        Ok(())
    }
}

/// Whether a node's process gets any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It does.
    Running,
    /// It stands still.
    Standing,
}

fn terminate(child: &Child) {
    // It may have ended by itself.
    let _gone = kill_process(Pid::from_child(child), Signal::TERM);
    // One that stands still hears it only when it goes on.
    let _gone = kill_process(Pid::from_child(child), Signal::CONT);
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            if let Some(child) = &node.child {
                terminate(child);
            }
        }
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                if !until(STOP, || matches!(child.try_wait(), Ok(Some(_)))) {
                    let _gone = child.kill();
                }
                let _reaped = child.wait();
            }
        }
        remains::end(&self.options.home);
    }
}
