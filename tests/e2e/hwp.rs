//! What the tests of the worker protocol share: who is the gateway, where workers attach, workers as processes.
//!
//! Invariants: a worker lives in a directory of its own below the flock's; what it says is in a file beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{BINARY, Flock, LONG, Running, lines, within};

/// As `SMALL`, and workers attach at a port that the system chose.
pub(crate) const HOST: &[&str] =
    &["--cpus", "1", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--hwp", "127.0.0.1:0"];
/// For tests whose tasks all run on workers: what they do in a minute takes a loaded machine some.
pub(crate) const WORKED: Duration = Duration::from_secs(120);

/// What a node says of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) term: u64,
    pub(crate) holder: String,
    pub(crate) acting: bool,
    pub(crate) workers: u64,
    pub(crate) slots_free: u64,
    /// Where workers attach, by the names of nodes.
    pub(crate) addresses: BTreeMap<String, String>,
    pub(crate) why: String,
}

/// What one node says of the gateway.
#[track_caller]
pub(crate) fn seat(flock: &Flock, number: usize) -> Seat {
    let said = flock.one(number, &["gateway", "status"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |field: &str| said[field].as_u64().unwrap_or_default();
    let addresses = said["addresses"].as_array().cloned().unwrap_or_default();
    Seat {
        term: number("term"),
        holder: text(&said["holder"]),
        acting: said["acting"].as_bool().unwrap_or_default(),
        workers: number("workers"),
        slots_free: number("slots_free"),
        addresses: addresses.iter().map(|at| (text(&at["node"]), text(&at["address"]))).collect(),
        why: text(&said["why"]),
    }
}

/// Waits until these nodes know one gateway that acts, and where all of them are attached to.
#[track_caller]
pub(crate) fn await_gateway(flock: &Flock, numbers: &[usize]) -> Seat {
    let mut agreed = None;
    within(LONG, "one gateway that acts", || {
        let seats: Vec<Seat> = numbers.iter().map(|number| seat(flock, *number)).collect();
        let first = &seats[0];
        let same = seats.iter().all(|seat| (seat.term, &seat.holder) == (first.term, &first.holder) && seat.acting);
        let listens = numbers.iter().all(|number| first.addresses.contains_key(&flock.name(*number)));
        agreed = (same && listens).then(|| first.clone());
        agreed.is_some()
    });
    agreed.unwrap()
}

/// The number of the node of this name.
#[track_caller]
pub(crate) fn number_of(flock: &Flock, name: &str) -> usize {
    (1..=flock.cluster.len()).find(|number| flock.name(*number) == name).unwrap()
}

/// The numbers of the nodes that are not the gateway.
#[track_caller]
pub(crate) fn others(flock: &Flock, seat: &Seat) -> Vec<usize> {
    (1..=flock.cluster.len()).filter(|number| flock.name(*number) != seat.holder).collect()
}

/// Where workers attach at a node.
#[track_caller]
pub(crate) fn url(flock: &Flock, seat: &Seat, number: usize) -> String {
    format!("http://{}", seat.addresses[&flock.name(number)])
}

/// A worker's command line; `program` is how the binary is run.
pub(crate) fn worker(mut program: Command, dir: &Path, id: &str, servers: &[&str], flags: &[&str]) -> Command {
    program.args(["hwp-worker", "--id", id, "--capability", &format!("only={id}"), "--dir"]).arg(dir);
    program.args(servers.iter().flat_map(|server| ["--server", server])).args(flags);
    program.env_remove("STARLING_HWP_TOKEN").stdin(Stdio::null());
    program
}

/// Starts a worker on loopback that has the label `only=ID`.
#[track_caller]
pub(crate) fn start_worker(flock: &Flock, id: &str, servers: &[&str], flags: &[&str]) -> Running {
    let log = File::create(said_by(flock, id)).unwrap();
    let mut command = worker(Command::new(BINARY), &flock.file(id), id, servers, flags);
    Running::start(command.stderr(log))
}

/// Where a worker says what happens to it.
pub(crate) fn said_by(flock: &Flock, id: &str) -> PathBuf {
    flock.file(&format!("{id}.log"))
}

/// Waits until a node counts so many workers.
#[track_caller]
pub(crate) fn await_workers(flock: &Flock, number: usize, count: u64) {
    within(LONG, "the workers to attach", || seat(flock, number).workers == count);
}

/// How many of a job's tasks ended in each way, by the attempts that `job info` shows: `exited 3`, `signalled 137`.
#[track_caller]
pub(crate) fn endings(flock: &Flock, number: usize, job: &str) -> BTreeMap<String, u64> {
    let detail = flock.one(number, &["job", "info", job]);
    let mut endings = BTreeMap::new();
    for attempt in detail["attempts"].as_array().unwrap() {
        let ending = format!("{} {}", attempt["ending"].as_str().unwrap(), attempt["exit"]);
        *endings.entry(ending).or_default() += tasks(attempt);
    }
    endings
}

/// How many tasks an attempt is of.
pub(crate) fn tasks(attempt: &Value) -> u64 {
    let ranges = attempt["tasks"].as_array().unwrap();
    let edge = |range: &Value, name: &str| range[name].as_u64().unwrap_or_default();
    ranges.iter().map(|range| edge(range, "end") - edge(range, "start") + 1).sum()
}

/// How often each task began, of lines such as `TASK ATTEMPT`.
pub(crate) fn starts(file: &Path) -> BTreeMap<u32, usize> {
    let mut starts = BTreeMap::new();
    for line in lines(file) {
        let task = line.split_once(' ').unwrap().0.parse().unwrap();
        *starts.entry(task).or_default() += 1;
    }
    starts
}
