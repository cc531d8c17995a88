//! A client of the API for loads.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use starling_proto::v1::starling_client::StarlingClient;
use starling_proto::v1::{AckLevel, EventsRequest, IndexRange, InfoRequest, SubmitRequest};
use tonic::transport::{Channel, Endpoint};

use crate::local::Cluster;

/// A client of one node over TCP.
pub(super) type Client = StarlingClient<Channel>;

/// Connects to the API port of a node.
pub(super) async fn connect(cluster: &Cluster, number: usize) -> anyhow::Result<Client> {
    let info = cluster.ok(number, &["cluster", "info", "--json"])?;
    let address = info.split("\"api_addresses\":[\"").nth(1).and_then(|rest| rest.split('"').next());
    let address = address.with_context(|| format!("no API address in {info}"))?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    Ok(StarlingClient::new(endpoint.connect().await.with_context(|| format!("connecting to {address}"))?))
}

/// A job that no node can run, so that submissions alone are measured.
pub(super) fn queued(ack: AckLevel, array: Vec<IndexRange>) -> SubmitRequest {
    SubmitRequest {
        name: "bench".to_owned(),
        command: vec!["true".to_owned()],
        mem_bytes: 1 << 60,
        ack: ack.into(),
        array,
        ..SubmitRequest::default()
    }
}

/// Submits with so many in flight on one connection until `until`; returns the count and each latency in ms.
pub(super) async fn submit_for(client: &Client, in_flight: usize, until: Instant) -> anyhow::Result<Vec<f64>> {
    let worker = |mut client: Client| async move {
        let mut latencies = Vec::new();
        while Instant::now() < until {
            let start = Instant::now();
            let reply = client.submit(queued(AckLevel::Remote1, Vec::new())).await?.into_inner();
            if reply.acked() != AckLevel::Remote1 {
                bail!("acknowledged as {:?}, not remote1", reply.acked());
            }
            latencies.push(start.elapsed().as_secs_f64() * 1_000.0);
        }
        Ok(latencies)
    };
    let workers: Vec<_> = (0..in_flight).map(|_| tokio::spawn(worker(client.clone()))).collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.context("a client panicked")??);
    }
    Ok(all)
}

/// Submits `count` jobs, many in flight.
pub(super) async fn submit_count(client: &Client, count: usize, ack: AckLevel) -> anyhow::Result<()> {
    const IN_FLIGHT: usize = 64;
    let worker = |mut client: Client, share: usize| async move {
        for _ in 0..share {
            client.submit(queued(ack, Vec::new())).await?;
        }
        anyhow::Ok(())
    };
    let workers: Vec<_> = (0..IN_FLIGHT).map(|_| tokio::spawn(worker(client.clone(), count / IN_FLIGHT))).collect();
    for worker in workers {
        worker.await.context("a client panicked")??;
    }
    Ok(())
}

/// Events that a node holds.
pub(super) async fn events(client: &mut Client) -> anyhow::Result<u64> {
    Ok(client.info(InfoRequest {}).await?.into_inner().events)
}

/// How long submissions at one node take until two others show them, ms.
pub(super) async fn visibility(at: &mut Client, others: [Client; 2], count: usize) -> anyhow::Result<Vec<f64>> {
    let follow = EventsRequest { follow: true, tail: 1, ..EventsRequest::default() };
    let mut streams = Vec::new();
    for mut other in others {
        streams.push(other.events(follow.clone()).await?.into_inner());
    }
    let mut latencies = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let job = at.submit(queued(AckLevel::Local, Vec::new())).await?.into_inner().job;
        for stream in &mut streams {
            loop {
                let next = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
                let line = next.context("no event within 10 s")??.context("the event stream ended")?;
                if line.kind == "SubmitJob" && line.job == job {
                    break;
                }
            }
        }
        latencies.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(latencies)
}
