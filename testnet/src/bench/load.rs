//! Figures under load: acknowledged submissions, and an empty node catching up.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use starling_proto::v1::AckLevel;

use super::figures::{Beside, Figure, percentile};
use super::{api, cluster};
use crate::local::{Cluster, pause};

const LOAD_FOR: Duration = Duration::from_secs(5);
const CATCH_UP_JOBS: usize = 100_032;
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")
}

/// Three nodes on loopback.
pub(super) fn three(binary: &Path, home: &Path, cpus: [&str; 3]) -> anyhow::Result<Cluster> {
    Cluster::start(cluster::options(binary, home, cpus))
}

pub(super) fn figures(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let scratch = tempfile::tempdir()?;
    let cluster = three(binary, scratch.path(), ["1", "1", "0"])?;
    runtime()?.block_on(async {
        let client = api::connect(&cluster, 1).await?;
        let mut one = api::submit_for(&client, 1, Instant::now() + LOAD_FOR / 2).await?;
        let start = Instant::now();
        let many = api::submit_for(&client, 64, start + LOAD_FOR).await?.len();
        let rate = many as f64 / start.elapsed().as_secs_f64();
        Ok(vec![
            Figure::new(
                "submit_acked_ms_p50_1",
                percentile(&mut one, 0.5),
                "ms",
                Beside::Peer("etcd, 3 members, 1 in flight", 1.01),
            ),
            Figure::new("submit_acked_per_s_64", rate, "per s", Beside::Peer("etcd, 3 members, 64 in flight", 4_530.0)),
        ])
    })
}

/// An empty node joins a cluster that holds many events: from the first it shows to the last.
pub(super) fn catch_up(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let scratch = tempfile::tempdir()?;
    let mut cluster = three(binary, scratch.path(), ["1", "1", "0"])?;
    let runtime = runtime()?;
    cluster.kill(3)?;
    std::fs::remove_dir_all(cluster.dir(3)).context("emptying node 3")?;
    runtime.block_on(async {
        let mut client = api::connect(&cluster, 1).await?;
        api::submit_count(&client, CATCH_UP_JOBS, AckLevel::Local).await?;
        let goal = api::events(&mut client).await?;
        cluster.boot(3)?;
        let mut late = connect_soon(&cluster, 3).await?;
        let deadline = Instant::now() + CATCH_UP_DEADLINE;
        let (mut first, mut at_first) = (Instant::now(), 0);
        loop {
            let held = api::events(&mut late).await?;
            if held < goal / 50 {
                (first, at_first) = (Instant::now(), held);
            }
            if held >= goal {
                break;
            }
            ensure!(Instant::now() < deadline, "caught up with {held} of {goal} events only");
            pause(Duration::from_millis(5));
        }
        let rate = (goal - at_first) as f64 / first.elapsed().as_secs_f64();
        Ok(vec![Figure::new("catch_up_events_per_s", rate, "events/s", Beside::Target(100_000.0))])
    })
}

pub(super) async fn connect_soon(cluster: &Cluster, number: usize) -> anyhow::Result<api::Client> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match api::connect(cluster, number).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => pause(Duration::from_millis(5)),
        }
    }
}
