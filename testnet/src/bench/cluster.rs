//! Figures of whole clusters: discovery, one job, visibility, arrays, memory, idling.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use starling_proto::v1::{AckLevel, IndexRange};

use super::core::spawn_floor;
use super::figures::{Beside, Figure, percentile};
use super::{api, load};
use crate::local::{Cluster, Options, pause};

const ARRAY: u32 = 10_000;
const SINGLE_RUNS: usize = 60;
const QUEUED: usize = 9_984;

pub(super) fn figures(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let scratch = tempfile::tempdir()?;
    let start = Instant::now();
    let cluster = load::three(binary, scratch.path(), ["1", "1", "0"])?;
    let discovery = start.elapsed().as_secs_f64() * 1_000.0;
    let idle = idle(&cluster)?;
    let single = submit_wait(&cluster)?;
    let mut visible = visibility(&cluster)?;
    // Floors before and after, since machines drift.
    let floor_before = spawn_floor();
    let array = array_true(&cluster)?;
    let floor = f64::midpoint(floor_before, spawn_floor());
    Ok(vec![
        Figure::new("discovery_ms", discovery, "ms", Beside::Target(2_000.0)),
        Figure::new("submit_wait_ms_p50", single, "ms", Beside::Peer("HyperQueue 30-54, srun 42", 30.0)),
        Figure::new("visible_ms_p50", percentile(&mut visible, 0.5), "ms", Beside::Target(10.0)),
        Figure::new("visible_ms_p99", percentile(&mut visible, 0.99), "ms", Beside::Target(50.0)),
        Figure::new("spawn_floor_per_s", floor, "per s", Beside::Nothing),
        Figure::new("array_true_per_s", array, "tasks/s", Beside::Floor("spawn + wait, one loop per core", floor)),
        Figure::new("rss_idle_mib", idle.rss_mib, "MiB", Beside::Target(60.0)),
        Figure::new("cpu_idle_pct", idle.cpu_pct, "% of core", Beside::Target(1.0)),
        Figure::new("monitor_pct", idle.monitor_pct, "% of core", Beside::Target(1.0)),
    ])
}

/// The clients are gone when this returns, so that their streams do not weigh on what follows.
fn visibility(cluster: &Cluster) -> anyhow::Result<Vec<f64>> {
    load::runtime()?.block_on(async {
        let mut at = api::connect(cluster, 1).await?;
        let others = [api::connect(cluster, 2).await?, api::connect(cluster, 3).await?];
        api::visibility(&mut at, others, 300).await
    })
}

/// The whole command, on an idle cluster.
fn submit_wait(cluster: &Cluster) -> anyhow::Result<f64> {
    let mut samples = Vec::new();
    for _ in 0..SINGLE_RUNS {
        let start = Instant::now();
        let output = cluster.run(1, &["submit", "--wait", "--", "true"])?;
        ensure!(output.status.success(), "submit --wait: {}", String::from_utf8_lossy(&output.stderr));
        samples.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(percentile(&mut samples, 0.5))
}

fn array_true(cluster: &Cluster) -> anyhow::Result<f64> {
    let start = Instant::now();
    let range = format!("1-{ARRAY}");
    cluster.ok(1, &["submit", "--wait", "-a", &range, "--", "/bin/true"])?;
    Ok(f64::from(ARRAY) / start.elapsed().as_secs_f64())
}

struct Idle {
    rss_mib: f64,
    cpu_pct: f64,
    monitor_pct: f64,
}

/// The largest node after ten quiet seconds.
fn idle(cluster: &Cluster) -> anyhow::Result<Idle> {
    let window = Duration::from_secs(10);
    let pids: Vec<u32> = (1..=cluster.len()).filter_map(|number| cluster.pid(number)).collect();
    let before: Vec<f64> = pids.iter().map(|pid| cpu_seconds(*pid)).collect::<anyhow::Result<_>>()?;
    let monitor_before: Vec<f64> = pids.iter().map(|pid| monitor_seconds(*pid)).collect::<anyhow::Result<_>>()?;
    pause(window);
    let mut worst = Idle { rss_mib: 0.0, cpu_pct: 0.0, monitor_pct: 0.0 };
    for (pid, before) in pids.iter().zip(monitor_before) {
        let share = (monitor_seconds(*pid)? - before) / window.as_secs_f64() * 100.0;
        worst.monitor_pct = worst.monitor_pct.max(share);
    }
    for (pid, before) in pids.iter().zip(before) {
        let share = (cpu_seconds(*pid)? - before) / window.as_secs_f64() * 100.0;
        worst.cpu_pct = worst.cpu_pct.max(share);
        worst.rss_mib = worst.rss_mib.max(rss_bytes(*pid)? / f64::from(1 << 20));
    }
    Ok(worst)
}

/// What queued work adds to the owner's resident memory.
pub(super) fn memory(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let scratch = tempfile::tempdir()?;
    let cluster = load::three(binary, scratch.path(), ["1", "1", "0"])?;
    let runtime = load::runtime()?;
    let pid = cluster.pid(1).context("node 1 does not run")?;
    runtime.block_on(async {
        let mut client = api::connect(&cluster, 1).await?;
        // Warm up allocators and buffers with the same kind of work.
        api::submit_count(&client, 2_048, AckLevel::Remote1).await?;
        let before = rss_bytes(pid)?;
        let tasks = vec![IndexRange { start: 0, end: 99_999 }];
        client.submit(api::queued(AckLevel::Remote1, tasks)).await?;
        pause(Duration::from_secs(1));
        let array = (rss_bytes(pid)? - before).max(0.0);
        let before = rss_bytes(pid)?;
        api::submit_count(&client, QUEUED, AckLevel::Remote1).await?;
        pause(Duration::from_secs(1));
        let jobs = (rss_bytes(pid)? - before).max(0.0) / QUEUED as f64;
        Ok(vec![
            Figure::new("bytes_per_queued_job", jobs, "bytes", Beside::Peer("HyperQueue, separate jobs", 2_150.0)),
            Figure::new("array_100k_kib", array / 1_024.0, "KiB", Beside::Target(1_024.0)),
        ])
    })
}

pub(super) fn rss_bytes(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1_024.0)
}

/// User and system time so far; the kernel counts in hundredths.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    ticks_of(&Path::new("/proc").join(pid.to_string()))
}

/// The same of the thread that takes hardware readings.
fn monitor_seconds(pid: u32) -> anyhow::Result<f64> {
    let tasks = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))?;
    for task in tasks {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == "monitor" {
            return ticks_of(&task);
        }
    }
    anyhow::bail!("process {pid} has no thread called `monitor`")
}

fn ticks_of(dir: &Path) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(dir.join("stat"))?;
    let after = stat.rsplit(')').next().context("no fields")?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok()).context("no times");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// A cluster's options on loopback.
pub(super) fn options(binary: &Path, home: &Path, cpus: [&str; 3]) -> Options {
    let mut options = Options::uniform(binary, home, 3, &["--log-level", "warn"]);
    for (flags, cpus) in options.nodes.iter_mut().zip(cpus) {
        flags.extend(["--cpus".to_owned(), cpus.to_owned()]);
    }
    options
}
