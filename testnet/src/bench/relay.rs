//! Figures of relays: how soon they are poked, how many tasks they get through, and how long a pull of many Facts takes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use starling_proto::v1::relay_hear::Hear;
use starling_proto::v1::relay_say::Say;
use starling_proto::v1::{
    AckLevel, EventsRequest, PullFactsRequest, PutNamespaceRequest, RelayHear, RelayHello, RelayReport, RelaySay,
    SubmitRequest, WaitRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::figures::{Beside, Figure, percentile};
use super::{api, load};

/// A namespace whose tasks do nothing.
const NAMESPACE: &str = r#"
name = "nothing"
version = 1
handler = "relay"
durability = "logged"
preemptible = false
phases = ["waiting", "over"]
submit = "SubmitNothing"

[rules.NothingDone]
phase = "over"
outcome = "success"
"#;
const SLOTS: u32 = 256;
/// With the pokes' own fewer than a node keeps of what is over: all of it is still there to be pulled.
const TASKS: usize = 9_600;
const POKES: usize = 200;
const FACTS: usize = 100_032;
/// No more comes after so long a silence.
const QUIET: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay on its stream.
struct Relay {
    say: mpsc::Sender<RelaySay>,
    hear: Streaming<RelayHear>,
}

impl Relay {
    async fn open(client: &mut api::Client, slots: u32) -> anyhow::Result<Self> {
        let (say, says) = mpsc::channel(1_024);
        let hello =
            RelayHello { gid: "bench".to_owned(), namespace: "nothing".to_owned(), slots, ..RelayHello::default() };
        say.send(RelaySay { say: Some(Say::Hello(hello)) }).await.context("saying hello")?;
        let hear = client.relay(ReceiverStream::new(says)).await?.into_inner();
        let mut relay = Self { say, hear };
        match relay.next().await? {
            Hear::Welcome(_) => Ok(relay),
            other => bail!("expected a welcome, got {other:?}"),
        }
    }

    async fn next(&mut self) -> anyhow::Result<Hear> {
        let heard = tokio::time::timeout(PATIENCE, self.hear.message()).await.context("nothing was heard")??;
        heard.and_then(|heard| heard.hear).context("the relay's stream ended")
    }

    /// Hears out what is left of earlier work, so that the next poke is news.
    async fn settle(&mut self) -> anyhow::Result<()> {
        while let Ok(heard) = tokio::time::timeout(QUIET, self.next()).await {
            heard?;
        }
        Ok(())
    }

    /// When the next poke came; does the one task that comes along.
    async fn poked_and_done(&mut self) -> anyhow::Result<Instant> {
        let (mut poked, mut done) = (None, false);
        loop {
            match self.next().await? {
                Hear::Poke(_) => poked = poked.or_else(|| Some(Instant::now())),
                Hear::Assigned(task) => {
                    self.report(task.task).await?;
                    done = true;
                }
                Hear::Welcome(_) | Hear::Cancelled(_) | Hear::Noted(_) | Hear::Refused(_) => {}
            }
            if let (Some(at), true) = (poked, done) {
                return Ok(at);
            }
        }
    }

    async fn report(&self, task: String) -> anyhow::Result<()> {
        let report = RelayReport { task, kind: "NothingDone".to_owned(), ..RelayReport::default() };
        self.say.send(RelaySay { say: Some(Say::Report(report)) }).await.context("reporting")
    }

    /// Does everything it is handed until so many reports are in the log.
    async fn work(&mut self, tasks: usize) -> anyhow::Result<()> {
        let mut noted = 0;
        while noted < tasks {
            match self.next().await? {
                Hear::Assigned(task) => self.report(task.task).await?,
                Hear::Noted(_) => noted += 1,
                Hear::Refused(refused) => bail!("a report was refused: {}", refused.reason),
                Hear::Welcome(_) | Hear::Poke(_) | Hear::Cancelled(_) => {}
            }
        }
        Ok(())
    }
}

fn nothing() -> SubmitRequest {
    SubmitRequest { ns: "nothing".to_owned(), ack: AckLevel::Local.into(), ..SubmitRequest::default() }
}

pub(super) fn figures(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let scratch = tempfile::tempdir()?;
    let cluster = load::three(binary, scratch.path(), ["1", "1", "0"])?;
    load::runtime()?.block_on(async {
        let mut client = api::connect(&cluster, 1).await?;
        let put = PutNamespaceRequest { toml: NAMESPACE.to_owned() };
        client.put_namespace(put).await?;
        let mut relay = Relay::open(&mut client, SLOTS).await?;
        let mut pokes = pokes(&mut client, &mut relay).await?;
        let rate = rate(&mut client, &mut relay).await?;
        drop(relay);
        let pull = pull(&mut client).await?;
        Ok(vec![
            Figure::new("relay_poke_ms_p99", percentile(&mut pokes, 0.99), "ms", Beside::Target(20.0)),
            Figure::new("relay_jobs_per_s", rate, "jobs/s", Beside::Target(1_000.0)),
            Figure::new("pull_100k_ms", pull, "ms", Beside::Target(1_000.0)),
        ])
    })
}

/// From when a client sees the event of a submission in the log to when the relay is poked; a poke that comes first counts as zero.
async fn pokes(client: &mut api::Client, relay: &mut Relay) -> anyhow::Result<Vec<f64>> {
    let follow = EventsRequest { follow: true, tail: 1, ..EventsRequest::default() };
    let mut events = client.events(follow).await?.into_inner();
    let mut latencies = Vec::new();
    for _ in 0..POKES {
        relay.settle().await?;
        let job = client.submit(nothing()).await?.into_inner().job;
        let folded = async {
            loop {
                let line = events.message().await?.context("the event stream ended")?;
                if line.kind == "SubmitNothing" && line.job == job {
                    return anyhow::Ok(Instant::now());
                }
            }
        };
        let (folded, poked) = tokio::try_join!(folded, relay.poked_and_done())?;
        latencies.push(poked.saturating_duration_since(folded).as_secs_f64() * 1_000.0);
        wait(client, job).await?;
    }
    Ok(latencies)
}

async fn wait(client: &mut api::Client, job: String) -> anyhow::Result<()> {
    let request = WaitRequest { jobs: vec![job], ..WaitRequest::default() };
    let mut replies = client.wait(request).await?.into_inner();
    while tokio::time::timeout(PATIENCE, replies.message()).await.context("a job did not end")??.is_some() {}
    Ok(())
}

/// Single jobs through one relay at one node, from the first submission to the last report in the log.
async fn rate(client: &mut api::Client, relay: &mut Relay) -> anyhow::Result<f64> {
    const IN_FLIGHT: usize = 64;
    let start = Instant::now();
    let submitter = |mut client: api::Client| async move {
        for _ in 0..TASKS / IN_FLIGHT {
            client.submit(nothing()).await?;
        }
        anyhow::Ok(())
    };
    let submitters: Vec<_> = (0..IN_FLIGHT).map(|_| tokio::spawn(submitter(client.clone()))).collect();
    // Reports of the pokes' own jobs may still be on their way, one at most.
    relay.work(TASKS).await?;
    let rate = TASKS as f64 / start.elapsed().as_secs_f64();
    for submitter in submitters {
        submitter.await.context("a client panicked")??;
    }
    Ok(rate)
}

/// Everything about many jobs, to the last page.
async fn pull(client: &mut api::Client) -> anyhow::Result<f64> {
    api::submit_count(client, FACTS - TASKS, AckLevel::Local).await?;
    let start = Instant::now();
    let mut pages = client.pull_facts(PullFactsRequest::default()).await?.into_inner();
    let mut jobs = 0;
    while let Some(page) = pages.message().await? {
        jobs += page.jobs.len();
    }
    let took = start.elapsed().as_secs_f64() * 1_000.0;
    ensure!(jobs >= FACTS, "pulled {jobs} jobs only");
    Ok(took)
}
