//! What the tests share: clusters that clean up, results that are easy to look at, conditions with deadlines.
//!
//! Invariants: a failing test shows the tail of every node's log.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use starling_testnet::local::{Cluster, Options, until};
use tempfile::TempDir;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_starling");
/// Ports chosen by the system and one slot, so that clusters do not meet and slots are countable.
pub(crate) const SMALL: &[&str] = &["--cpus", "1", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
/// As `SMALL`, with two slots.
pub(crate) const PAIR: &[&str] = &["--cpus", "2", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
/// Long enough for anything that ends at all on a loaded machine with two cores.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Lines of each node's log shown when a test fails.
const LINES_SHOWN: usize = 15;

/// Held by tests that load the machine, so that they do not disturb each other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static LOAD: Mutex<()> = Mutex::new(());
    LOAD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that a test could not run here.
pub(crate) fn skip(why: &str) {
    say(&format!("SKIPPED: {why}"));
}

/// Says something past the test harness's capture.
pub(crate) fn say(text: &str) {
    // Without a stderr nobody reads it.
    let _lost = writeln!(std::io::stderr(), "{text}");
}

/// A finished command.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Done {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Checks that stderr speaks of something.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Self {
        assert!(self.err.contains(words), "no `{words}` in:\n{}", self.err);
        self
    }

    /// Standard output without the last line end.
    pub(crate) fn line(&self) -> String {
        self.out.trim_end().to_owned()
    }
}

/// A cluster in a temporary directory.
#[derive(Debug)]
pub(crate) struct Flock {
    pub(crate) cluster: Cluster,
    home: TempDir,
}

impl Flock {
    /// `count` nodes that see each other.
    #[track_caller]
    pub(crate) fn of(count: usize, flags: &[&str]) -> Self {
        let home = scratch();
        let options = Options::uniform(Path::new(BINARY), home.path(), count, flags);
        Self::with(home, Cluster::start(options).unwrap())
    }

    pub(crate) fn with(home: TempDir, cluster: Cluster) -> Self {
        Self { cluster, home }
    }

    /// A file that tasks on all nodes can write.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The name that a node chose.
    pub(crate) fn name(&self, number: usize) -> String {
        fs::read_to_string(self.cluster.dir(number).join("name")).unwrap().trim().to_owned()
    }

    /// A client command at one node.
    pub(crate) fn at(&self, number: usize, args: &[&str]) -> Done {
        self.cluster.run(number, args).unwrap().into()
    }

    /// Submits and returns the job's id.
    #[track_caller]
    pub(crate) fn submit(&self, number: usize, args: &[&str]) -> String {
        let all = [&["submit", "--parsable"], args].concat();
        self.at(number, &all).exits(0).line()
    }

    /// The objects that `--json` prints, each checked for its version.
    #[track_caller]
    pub(crate) fn json(&self, number: usize, args: &[&str]) -> Vec<Value> {
        let all = [args, &["--json"]].concat();
        let done = self.at(number, &all).exits(0);
        let lines: Vec<Value> = done.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().all(|line| line["v"] == 1), "{}", done.out);
        lines
    }

    /// What one object says.
    #[track_caller]
    pub(crate) fn one(&self, number: usize, args: &[&str]) -> Value {
        let mut lines = self.json(number, args);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    /// A job's state as one node sees it; empty while it does not know the job.
    pub(crate) fn state(&self, number: usize, job: &str) -> String {
        let done = self.at(number, &["jobs", "--json", job]);
        let line: Value = serde_json::from_str(done.out.lines().next().unwrap_or("null")).unwrap();
        line["state"].as_str().unwrap_or("").to_owned()
    }

    /// What a node wrote to its log so far.
    pub(crate) fn log(&self, number: usize) -> String {
        fs::read_to_string(self.cluster.dir(number).join("stderr")).unwrap_or_default()
    }

    /// Waits until these nodes have the same number of events and the same Facts root.
    #[track_caller]
    pub(crate) fn await_equal(&self, numbers: &[usize]) {
        let seen = || -> Vec<(Value, Value)> {
            let info = |number: &usize| self.one(*number, &["cluster", "info"]);
            numbers.iter().map(info).map(|info| (info["events"].clone(), info["facts_root"].clone())).collect()
        };
        within(LONG, "equal logs and roots", || {
            let all = seen();
            all.iter().all(|one| *one == all[0])
        });
    }
}

impl Drop for Flock {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for number in 1..=self.cluster.len() {
            let log = self.log(number);
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            // Nothing more can be done about it while panicking.
            let _lost = writeln!(std::io::stderr(), "--- node {number}:\n{}", tail.join("\n"));
        }
    }
}

/// A process that is killed when the test ends.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.0.try_wait().unwrap().and_then(|status| status.code())
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gently, so that a node takes its tasks along.
        let _gone = rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM);
        if !until(Duration::from_secs(12), || matches!(self.0.try_wait(), Ok(Some(_)))) {
            let _gone = self.0.kill();
            let _reaped = self.0.wait();
        }
    }
}

/// `starling up` with flags of its own, for starts that fail or that `Cluster` does not cover.
pub(crate) fn up(home: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.env("STARLING_HOME", home).arg("up").args(flags).stdin(Stdio::null());
    command
}

/// A node that must refuse to start: its exit code and what it said.
#[track_caller]
pub(crate) fn refused_start(home: &Path, flags: &[&str]) -> Done {
    let mut child = up(home, flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ended = until(LONG, || matches!(child.try_wait(), Ok(Some(_))));
    if !ended {
        child.kill().unwrap();
    }
    let done: Done = child.wait_with_output().unwrap().into();
    assert!(ended, "the node started: {}", done.err);
    assert_ne!(done.code, Some(0), "{}", done.err);
    done
}

/// A client command without any node in particular.
pub(crate) fn client(home: &Path, args: &[&str]) -> Done {
    Command::new(BINARY).env("STARLING_HOME", home).env_remove("STARLING_VIA").args(args).output().unwrap().into()
}

pub(crate) fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("starling-e2e-").tempdir().unwrap()
}

/// Waits for a condition, or fails with its name.
#[track_caller]
pub(crate) fn within(deadline: Duration, what: &str, condition: impl FnMut() -> bool) {
    assert!(until(deadline, condition), "{what}: not within {deadline:?}");
}

/// Lines of a file that tasks append to.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}
