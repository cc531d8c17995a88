//! Figures of nodes that die, and of nodes that do not: how long work stands still, what is run twice, and who is taken for dead.
//!
//! Everything at default settings. `STARLING_BENCH_CALM_S` says for how long nodes are watched on a machine that jobs saturate; the default is ten minutes.
//! Source: the tasks' own lines in a file, written by their shells; nothing here believes what the cluster says of itself but the last sentence of each job.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::figures::{Beside, Figure, count, percentile};
use super::load;
use crate::local::traces::{self, SCRIPT, Start};
use crate::local::{Cluster, SUSPICION, pause, until};

/// Tasks that are queued at the owner when it dies.
const QUEUED: usize = 1_000;
/// Of more than these some run before it dies.
const BEFORE: usize = 60;
const PATIENCE: Duration = Duration::from_secs(180);
/// Rounds of one executor's death, and the tasks of each round.
const ROUNDS: usize = 8;
const TASKS: usize = 6;
const CALM_S: usize = 600;
/// How often every node is asked what it thinks of the others.
const LOOK: Duration = Duration::from_millis(500);

pub(super) fn figures(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut figures = owner(binary)?;
    figures.extend(executors(binary)?);
    figures.extend(calm(binary)?);
    Ok(figures)
}

/// A file that all tasks write to, and who the nodes are.
struct Witness {
    file: PathBuf,
    began_ms: u64,
    nodes: BTreeMap<String, usize>,
}

impl Witness {
    fn of(cluster: &Cluster, home: &Path) -> anyhow::Result<Self> {
        let id = |number: usize| {
            let info = cluster.ok(number, &["cluster", "info", "--json"])?;
            let id = info.split("\"node_id\":\"").nth(1).and_then(|rest| rest.split('"').next());
            Ok((id.with_context(|| format!("no node id in {info}"))?.to_owned(), number))
        };
        let nodes = (1..=cluster.len()).map(id).collect::<anyhow::Result<_>>()?;
        Ok(Self { file: home.join("traces"), began_ms: traces::uptime_ms()?, nodes })
    }

    fn now_ms(&self) -> anyhow::Result<u64> {
        Ok(traces::uptime_ms()? - self.began_ms)
    }

    /// Submits an array whose tasks tell of their starts under `tag`; returns the job's name.
    fn submit(&self, cluster: &Cluster, tag: &str, tasks: usize, seconds: &str) -> anyhow::Result<String> {
        let file = self.file.to_str().context("a path that is not UTF-8")?;
        let array = format!("1-{tasks}");
        let args = ["submit", "--parsable", "-a", &array, "--", "sh", "-c", SCRIPT, "sh", file, tag, seconds];
        Ok(cluster.ok(1, &args)?.trim().to_owned())
    }

    fn starts(&self, tag: &str) -> anyhow::Result<Vec<Start>> {
        Ok(traces::read(&self.file, self.began_ms, &self.nodes)?.starts.remove(tag).unwrap_or_default())
    }

    fn await_starts(&self, tag: &str, count: usize) -> anyhow::Result<()> {
        let come = until(PATIENCE, || self.starts(tag).is_ok_and(|starts| starts.len() >= count));
        ensure!(come, "{} of {count} tasks started within {PATIENCE:?}", self.starts(tag)?.len());
        Ok(())
    }
}

/// The owner of a queue is killed for ever.
fn owner(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let scratch = tempfile::tempdir()?;
    let mut cluster = load::three(binary, scratch.path(), ["2", "2", "2"])?;
    let witness = Witness::of(&cluster, scratch.path())?;
    let tasks = QUEUED + BEFORE;
    let job = witness.submit(&cluster, "owner", tasks, "0.1")?;
    witness.await_starts("owner", BEFORE)?;
    let (killed, queued) = (witness.now_ms()?, tasks - witness.starts("owner")?.len());
    cluster.kill(1)?;
    cluster.ok(2, &["wait", "--timeout", "180s", &job])?;
    let starts = witness.starts("owner")?;
    let started: BTreeSet<u32> = starts.iter().map(|start| start.task).collect();
    let mut after: Vec<u64> = starts.iter().map(|start| start.at_ms).filter(|at| *at > killed).collect();
    after.push(killed);
    after.sort_unstable();
    let still = after.windows(2).map(|pair| pair[1] - pair[0]).max().context("nothing started after the kill")?;
    let extra = (starts.len() - started.len()) as f64;
    Ok(vec![
        Figure::new("owner_dead_queued", queued as f64, "tasks", Beside::Nothing),
        Figure::new("owner_dead_lost", (tasks - started.len()) as f64, "tasks", Beside::Most(0.0)),
        Figure::new("owner_dead_rerun", extra * 100.0 / tasks as f64, "% of tasks", Beside::Target(1.0)),
        Figure::new("owner_dead_still_s", still as f64 / 1_000.0, "s", Beside::Target(15.0)),
    ])
}

/// Nodes that run tasks are killed, one after another, and started again for the next round. What they ran goes on running, unheard.
fn executors(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let scratch = tempfile::tempdir()?;
    let mut cluster = load::three(binary, scratch.path(), ["0", "8", "8"])?;
    let witness = Witness::of(&cluster, scratch.path())?;
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let (tag, victim) = (format!("round-{round}"), 2 + round % 2);
        let job = witness.submit(&cluster, &tag, TASKS, "600")?;
        witness.await_starts(&tag, TASKS)?;
        let hit: Vec<u32> =
            witness.starts(&tag)?.iter().filter(|start| start.node == victim).map(|start| start.task).collect();
        let killed = witness.now_ms()?;
        cluster.kill(victim)?;
        witness.await_starts(&tag, TASKS + hit.len())?;
        let starts = witness.starts(&tag)?;
        let again = starts.iter().filter(|start| start.attempt > 1 && hit.contains(&start.task));
        took.extend(again.map(|start| start.at_ms.saturating_sub(killed) as f64 / 1_000.0));
        cluster.ok(1, &["cancel", &job])?;
        cluster.boot(victim)?;
        cluster.await_ready(3)?;
    }
    ensure!(!took.is_empty(), "no task ran where a node was killed");
    Ok(vec![
        Figure::new("executor_dead_samples", took.len() as f64, "tasks", Beside::Nothing),
        Figure::new("executor_dead_s_p50", percentile(&mut took, 0.5), "s", Beside::Target(8.0)),
        Figure::new("executor_dead_s_p99", percentile(&mut took, 0.99), "s", Beside::Target(15.0)),
    ])
}

/// Twice as many busy tasks as processors, and nobody dies.
fn calm(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let seconds = count("STARLING_BENCH_CALM_S", CALM_S)?;
    let scratch = tempfile::tempdir()?;
    let cores = std::thread::available_parallelism()?.get();
    let each = (cores * 2).div_ceil(3).to_string();
    let cluster = load::three(binary, scratch.path(), [&each, &each, &each])?;
    // Short ones, so that offers, reports and seals are under way all the time.
    let busy = "end=$(($(date +%s) + 2)); while [ $(date +%s) -lt $end ]; do i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; done";
    let job = cluster.ok(1, &["submit", "--parsable", "-a", "1-100000", "--", "sh", "-c", busy])?;
    let end = Instant::now() + Duration::from_secs(seconds as u64);
    let mut unready = 0_usize;
    while Instant::now() < end {
        for number in 1..=cluster.len() {
            let nodes = cluster.ok(number, &["nodes", "--json"])?;
            let bad = nodes.lines().filter(|line| !line.contains(r#""state":"ready""#));
            unready += bad.count();
        }
        pause(LOOK);
    }
    let suspicions: usize = (1..=cluster.len())
        .map(|number| {
            let text = std::fs::read(cluster.log(number)).unwrap_or_default();
            String::from_utf8_lossy(&text).lines().filter(|line| line.contains(SUSPICION)).count()
        })
        .sum();
    cluster.ok(1, &["cancel", job.trim()])?;
    Ok(vec![
        Figure::new("calm_watched_s", seconds as f64, "s", Beside::Nothing),
        Figure::new("calm_taken_for_dead", suspicions as f64, "times", Beside::Most(0.0)),
        Figure::new("calm_seen_unready", unready as f64, "times", Beside::Most(0.0)),
    ])
}
