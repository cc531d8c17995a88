//! Figures of HWP: assignments at a node that is not the gateway, 200 workers attached through all nodes, and the gateway's death.
//!
//! Invariants: no node has a CPU, so whatever has run has run on a worker; the loads are in this process, on the same cores as the nodes.

mod worker;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use starling_proto::hwp::{AssignJobRequest, LogEntry};
use starling_proto::v1::{
    AckLevel, GatewayReply, GetGatewayRequest, IndexRange, JobState, ListWorkersRequest, LogStream, LogsRequest,
    SubmitRequest, WaitRequest, WorkerState,
};
use tokio_stream::wrappers::ReceiverStream;

use self::worker::{Client, Flock, HOLD};
use super::figures::{Beside, Figure, percentile};
use super::{api, cluster, load};
use crate::local::Cluster;

const NODES: usize = 3;
const WORKERS: usize = 200;
const ASSIGN_FOR: Duration = Duration::from_secs(5);
const IN_FLIGHT: usize = 64;
const TASKS: u32 = 10_000;
/// As users write: 10 bytes to a word, ten words to a line, with the newline that the gateway adds.
const LINE_BYTES: usize = 99;
const LINES: usize = 1_000_000;
/// What is kept of a task's output (DESIGN section 12); the rest is counted.
const KEPT_BYTES: u64 = 64 << 20;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at something that changes.
const LOOK: Duration = Duration::from_millis(20);
const MIB: f64 = 1_048_576.0;

pub(super) fn figures(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut figures = assigning(binary)?;
    figures.extend(working(binary)?);
    Ok(figures)
}

/// A cluster whose gateway acts.
struct Site {
    cluster: Cluster,
    /// The number of the node that is the gateway.
    gateway: usize,
    /// Where each node listens for workers, by its number less one.
    addresses: Vec<String>,
}

impl Site {
    async fn start(binary: &Path, home: &Path) -> anyhow::Result<Self> {
        let cluster = load::three(binary, home, ["0"; NODES])?;
        let names: Vec<String> = (1..=NODES)
            .map(|number| Ok(std::fs::read_to_string(cluster.dir(number).join("name"))?.trim().to_owned()))
            .collect::<anyhow::Result<_>>()?;
        let mut client = api::connect(&cluster, 1).await?;
        let all = |reply: &GatewayReply| reply.acting && reply.addresses.len() == NODES;
        let reply = gateway(&mut client, all).await?;
        let place = names.iter().position(|name| *name == reply.holder).context("the gateway is none of the nodes")?;
        let address = |name: &String| reply.addresses.iter().find(|at| at.node == *name).map(|at| at.address.clone());
        let addresses = names.iter().map(address).collect::<Option<_>>().context("a node has no address")?;
        Ok(Self { cluster, gateway: place + 1, addresses })
    }

    /// A node that is not the gateway.
    fn other(&self) -> usize {
        if self.gateway == 1 { 2 } else { 1 }
    }

    async fn edge(&self) -> anyhow::Result<Client> {
        worker::connect(&self.addresses[self.other() - 1]).await
    }

    fn rss_mib(&self) -> anyhow::Result<f64> {
        Ok(cluster::rss_bytes(self.cluster.pid(self.gateway).context("the gateway does not run")?)? / MIB)
    }
}

/// Waits until a node says of the gateway what is wanted.
async fn gateway(client: &mut api::Client, wanted: impl Fn(&GatewayReply) -> bool) -> anyhow::Result<GatewayReply> {
    let looking = async {
        loop {
            let reply = client.get_gateway(GetGatewayRequest {}).await?.into_inner();
            if wanted(&reply) {
                return anyhow::Ok(reply);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.context("there is no gateway")?
}

/// AssignJob, until the job is on two disks.
fn assigning(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let scratch = tempfile::tempdir()?;
    load::runtime()?.block_on(async {
        let site = Site::start(binary, scratch.path()).await?;
        let client = site.edge().await?;
        let mut one = assign_for(&client, 1, "one", Instant::now() + ASSIGN_FOR / 2).await?;
        let start = Instant::now();
        let many = assign_for(&client, IN_FLIGHT, "many", start + ASSIGN_FOR).await?.len();
        let rate = many as f64 / start.elapsed().as_secs_f64();
        Ok(vec![
            Figure::new("hwp_assign_ms_p50", percentile(&mut one, 0.5), "ms", Beside::Target(15.0)),
            Figure::new("hwp_assign_per_s_64", rate, "per s", Beside::Target(2_000.0)),
        ])
    })
}

/// Assigns with so many in flight on one connection until `until`; each latency in ms.
async fn assign_for(client: &Client, in_flight: usize, stem: &str, until: Instant) -> anyhow::Result<Vec<f64>> {
    let caller = |mut client: Client, prefix: String| async move {
        let mut latencies = Vec::new();
        while Instant::now() < until {
            let start = Instant::now();
            let job_id = format!("{prefix}-{}", latencies.len());
            let command = vec!["true".to_owned()];
            let request = AssignJobRequest { job_id, command, ..AssignJobRequest::default() };
            client.assign_job(request).await?;
            latencies.push(start.elapsed().as_secs_f64() * 1_000.0);
        }
        anyhow::Ok(latencies)
    };
    let caller = |number| tokio::spawn(caller(client.clone(), format!("{stem}-{number}")));
    let callers: Vec<_> = (0..in_flight).map(caller).collect();
    let mut all = Vec::new();
    for caller in callers {
        all.extend(caller.await.context("a client panicked")??);
    }
    Ok(all)
}

/// What workers cost and do.
fn working(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let scratch = tempfile::tempdir()?;
    load::runtime()?.block_on(async {
        let mut site = Site::start(binary, scratch.path()).await?;
        let mut client = api::connect(&site.cluster, site.other()).await?;
        let before = site.rss_mib()?;
        let mut flock = Flock::start(WORKERS, &site.addresses);
        within(flock.attached(WORKERS)).await?;
        within(ready(&mut client)).await?;
        let attached = (site.rss_mib()? - before).max(0.0);
        let rate = within(rate(&mut client)).await?;
        let worked = (site.rss_mib()? - before).max(0.0);
        let log = within(log(&site, &mut client, &mut flock)).await?;
        let failover = within(failover(&mut site, &mut client, &mut flock)).await?;
        Ok(vec![
            Figure::new("hwp_workers_200_mib", attached, "MiB", Beside::Target(100.0)),
            Figure::new("hwp_workers_busy_mib", worked, "MiB", Beside::Target(100.0)),
            Figure::new("hwp_assignments_per_s", rate, "tasks/s", Beside::Target(1_000.0)),
            Figure::new("hwp_log_100mb_s", log.seconds, "s", Beside::Target(10.0)),
            Figure::new("hwp_log_growth_mib", log.growth_mib, "MiB", Beside::Target(64.0)),
            Figure::new("hwp_failover_s", failover, "s", Beside::Target(5.0)),
        ])
    })
}

async fn within<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, work).await.context("it takes too long")?
}

/// Waits until the gateway itself says that all workers take tasks.
async fn ready(client: &mut api::Client) -> anyhow::Result<()> {
    loop {
        // Unavailable while there is none.
        if let Ok(reply) = client.list_workers(ListWorkersRequest {}).await {
            let workers = reply.into_inner().workers;
            if workers.iter().filter(|worker| worker.state() == WorkerState::Ready).count() == WORKERS {
                return Ok(());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn job(program: &str, array: Vec<IndexRange>) -> SubmitRequest {
    let command = vec![program.to_owned()];
    SubmitRequest {
        name: "bench".to_owned(),
        command,
        array,
        ack: AckLevel::Remote1.into(),
        ..SubmitRequest::default()
    }
}

/// Waits until the outcome of a job is sealed; fails if it is not success.
async fn sealed(client: &mut api::Client, job: String) -> anyhow::Result<()> {
    let mut replies = client.wait(WaitRequest { jobs: vec![job], ..WaitRequest::default() }).await?.into_inner();
    while let Some(reply) = replies.message().await? {
        if reply.ended {
            let job = reply.job.context("an end without a job")?;
            ensure!(job.state() == JobState::Done, "job {} is {:?}", job.name, job.state());
            return Ok(());
        }
    }
    bail!("the job has not ended")
}

/// An array through all workers, from its submission to its sealed outcome.
async fn rate(client: &mut api::Client) -> anyhow::Result<f64> {
    let start = Instant::now();
    let tasks = vec![IndexRange { start: 0, end: TASKS - 1 }];
    let submitted = client.submit(job("true", tasks)).await?.into_inner().job;
    sealed(client, submitted).await?;
    Ok(f64::from(TASKS) / start.elapsed().as_secs_f64())
}

struct Log {
    seconds: f64,
    growth_mib: f64,
}

/// Lines about one running task, in one call at a node that is not the gateway, until the gateway has answered.
async fn log(site: &Site, client: &mut api::Client, flock: &mut Flock) -> anyhow::Result<Log> {
    let submitted = client.submit(job(HOLD, Vec::new())).await?.into_inner().job;
    let held = flock.held().await?;
    let before = site.rss_mib()?;
    let (lines, entries) = tokio::sync::mpsc::channel(1_024);
    let id = held.id.clone();
    let sender = tokio::spawn(async move {
        let line = "a-word-of-".repeat(LINE_BYTES.div_ceil(10));
        for _ in 0..LINES {
            let data = line[..LINE_BYTES].to_owned();
            if lines.send(LogEntry { job_id: id.clone(), data }).await.is_err() {
                // The call has ended, and its answer says why.
                break;
            }
        }
    });
    let start = Instant::now();
    let mut edge = site.edge().await?;
    let mut call = std::pin::pin!(edge.stream_logs(ReceiverStream::new(entries)));
    let mut peak = before;
    loop {
        tokio::select! {
            answer = &mut call => {
                answer?;
                break;
            }
            () = tokio::time::sleep(LOOK) => peak = peak.max(site.rss_mib()?),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    sender.await.context("the client panicked")?;
    held.finish().await?;
    sealed(client, submitted.clone()).await?;
    kept(client, submitted).await?;
    Ok(Log { seconds, growth_mib: peak - before })
}

/// Fails unless a job's output was kept to its last byte.
async fn kept(client: &mut api::Client, job: String) -> anyhow::Result<()> {
    let last =
        LogsRequest { job, streams: vec![LogStream::Out.into()], offset: KEPT_BYTES - 1, ..LogsRequest::default() };
    let mut chunks = client.logs(last).await?.into_inner();
    let mut bytes = 0;
    while let Some(chunk) = chunks.message().await? {
        bytes += chunk.data.len();
    }
    ensure!(bytes > 0, "lines were lost before the {KEPT_BYTES} bytes that are kept");
    Ok(())
}

/// From the gateway's death until every worker is attached to the next one and a job submitted then has run.
async fn failover(site: &mut Site, client: &mut api::Client, flock: &mut Flock) -> anyhow::Result<f64> {
    let start = Instant::now();
    site.cluster.kill(site.gateway)?;
    ready(client).await?;
    flock.attached(WORKERS).await?;
    let submitted = client.submit(job("true", Vec::new())).await?.into_inner().job;
    sealed(client, submitted).await?;
    Ok(start.elapsed().as_secs_f64())
}
