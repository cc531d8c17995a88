//! Figures after many finished jobs: how long a start takes, and how much memory and disk they cost.
//!
//! The aims: 1,000,000 finished jobs later a start takes under 3 s, 150 MiB, 200 bytes of disk per retired job, and a new node joins in 10 s.
//! `STARLING_BENCH_JOBS` and `STARLING_BENCH_TASKS` say how many separate jobs, and tasks of one array; the defaults take a quarter of an hour, longer on a busy machine.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use starling_proto::v1::{AckLevel, ListJobsRequest, SubmitRequest};

use super::figures::{Beside, Figure, count};
use super::{api, cluster, load};
use crate::local::{Cluster, pause};

const JOBS: usize = 100_000;
const TASKS: usize = 1_000_000;
const IN_FLIGHT: usize = 64;
/// Longest time without any job being finished.
const STALL: Duration = Duration::from_secs(120);
const JOIN_DEADLINE: Duration = Duration::from_secs(120);

pub(super) fn figures(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let (jobs, tasks) = (count("STARLING_BENCH_JOBS", JOBS)?, count("STARLING_BENCH_TASKS", TASKS)?);
    let scratch = tempfile::tempdir()?;
    let mut options = cluster::options(binary, scratch.path(), ["2", "0", "0"]);
    for env in &mut options.env {
        // Otherwise nothing would be retired before the last job had ended for five minutes.
        env.push(("STARLING_RETAIN".to_owned(), "5s".to_owned()));
    }
    let mut cluster = Cluster::start(options)?;
    cluster.kill(3)?;
    std::fs::remove_dir_all(cluster.dir(3)).context("emptying node 3")?;
    let runtime = load::runtime()?;
    let started = Instant::now();
    if tasks > 0 {
        cluster.ok(1, &["submit", "--wait", "-a", &format!("1-{tasks}"), "--", "/bin/true"])?;
    }
    runtime.block_on(async {
        let client = api::connect(&cluster, 1).await?;
        submit(&client, jobs).await?;
        settle(client, jobs + usize::from(tasks > 0)).await
    })?;
    let took = started.elapsed().as_secs_f64();
    let disk = disk_of(&cluster.dir(1))?;
    let history = disk_of(&cluster.dir(1).join("history"))?;
    let per_job = |bytes: u64| bytes as f64 / jobs.max(1) as f64;
    let start = restart(&mut cluster)?;
    let rss = cluster::rss_bytes(cluster.pid(1).context("node 1 does not run")?)? / f64::from(1 << 20);
    let join = join(&mut cluster, &runtime)?;
    Ok(vec![
        Figure::new("history_jobs", jobs as f64, "jobs", Beside::Nothing),
        Figure::new("history_tasks", tasks as f64, "tasks", Beside::Nothing),
        Figure::new("history_made_s", took, "s", Beside::Nothing),
        Figure::new("history_start_ms", start, "ms", Beside::Target(3_000.0)),
        Figure::new("history_rss_mib", rss, "MiB", Beside::Target(150.0)),
        Figure::new("history_bytes_per_job", per_job(history), "bytes", Beside::Target(200.0)),
        Figure::new("disk_mib_in_all", disk as f64 / f64::from(1 << 20), "MiB", Beside::Nothing),
        Figure::new("history_join_s", join, "s", Beside::Target(10.0)),
    ])
}

/// Jobs of one task that does nothing.
async fn submit(client: &api::Client, jobs: usize) -> anyhow::Result<()> {
    let job = || SubmitRequest {
        command: vec!["/bin/true".to_owned()],
        ack: AckLevel::Local.into(),
        ..SubmitRequest::default()
    };
    let worker = |mut client: api::Client, share: usize| async move {
        for _ in 0..share {
            // A node under load refuses for a moment.
            while client.submit(job()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let share = |number: usize| jobs / IN_FLIGHT + usize::from(number < jobs % IN_FLIGHT);
    let workers: Vec<_> = (0..IN_FLIGHT).map(|number| tokio::spawn(worker(client.clone(), share(number)))).collect();
    for worker in workers {
        worker.await.context("a client panicked")?;
    }
    Ok(())
}

/// Waits until all jobs are done, and retired.
async fn settle(mut client: api::Client, jobs: usize) -> anyhow::Result<()> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let request = ListJobsRequest { limit: 1, ..ListJobsRequest::default() };
        let all = client.list_jobs(request.clone()).await?.into_inner().total;
        let states = vec![starling_proto::v1::JobState::Pending.into(), starling_proto::v1::JobState::Running.into()];
        let open = client.list_jobs(ListJobsRequest { states, ..request }).await?.into_inner().total;
        let done = usize::try_from(all - open)?;
        if done >= jobs && open == 0 {
            break;
        }
        if done > last {
            (last, moved) = (done, Instant::now());
        }
        ensure!(moved.elapsed() < STALL, "{done} of {jobs} jobs done, and no more");
        pause(Duration::from_millis(500));
    }
    // Retention, and the writing of what is kept.
    pause(Duration::from_secs(10));
    Ok(())
}

/// Ends node 1 without warning, and measures how long it takes until it answers again.
fn restart(cluster: &mut Cluster) -> anyhow::Result<f64> {
    cluster.kill(1)?;
    let start = Instant::now();
    cluster.boot(1)?;
    load::runtime()?.block_on(load::connect_soon(cluster, 1))?;
    Ok(start.elapsed().as_secs_f64() * 1_000.0)
}

/// Starts node 3 with an empty directory, and measures how long it takes until it holds what node 1 does.
fn join(cluster: &mut Cluster, runtime: &tokio::runtime::Runtime) -> anyhow::Result<f64> {
    let start = Instant::now();
    cluster.boot(3)?;
    runtime.block_on(async {
        let mut first = load::connect_soon(cluster, 1).await?;
        let mut late = load::connect_soon(cluster, 3).await?;
        loop {
            let (goal, held) = (api::events(&mut first).await?, api::events(&mut late).await?);
            if held >= goal {
                return Ok(start.elapsed().as_secs_f64());
            }
            ensure!(start.elapsed() < JOIN_DEADLINE, "joined with {held} of {goal} events only");
            pause(Duration::from_millis(20));
        }
    })
}

/// Bytes of all files under a directory, as long as they are.
fn disk_of(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { disk_of(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}
