//! The load: clients that submit to whatever node comes to mind, now and then cancel, and keep a ledger.
//!
//! Invariants: a client says nothing to a node that is not in its ledger first, and does nothing after an answer before that is there too.
//! Does not: judge what it is told, or know of the faults.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use starling_core::rng::Rng;
use starling_proto::v1::{AckLevel, CancelRequest, IndexRange, SubmitReply, SubmitRequest};

use super::field::label;
use super::ledger::{Entry, Ledger, Level};
use super::view::{Client, client, runtime};
use crate::local::traces::SCRIPT;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A client that was told nothing says the same again so often, at the same node.
const TRIES: usize = 3;
const TASKS_MAX: u64 = 8;
const CANCEL_ONE_IN: u64 = 10;
/// A quarter of a CPU.
const CPUS_MILLI: u32 = 250;

/// What all clients share.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) seed: u64,
    /// Data directories of the nodes.
    pub(super) nodes: Vec<PathBuf>,
    /// Where tasks leave their lines.
    pub(super) traces: PathBuf,
    pub(super) began: Instant,
}

/// Clients at work.
#[derive(Debug)]
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<anyhow::Result<()>>>,
}

struct Customer {
    plot: Plot,
    number: usize,
    rng: Rng,
    ledger: Ledger,
    nodes: Vec<Client>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// Starts one client for each ledger.
    ///
    /// # Errors
    /// If a ledger or a thread cannot be made.
    pub(super) fn start(plot: &Plot, ledgers: &[PathBuf]) -> anyhow::Result<Self> {
        let mut load = Self { stop: Arc::new(AtomicBool::new(false)), clients: Vec::new() };
        for (place, path) in ledgers.iter().enumerate() {
            let number = place + 1;
            let mut seeds = Rng::new(plot.seed ^ number as u64);
            let mut customer = Customer {
                plot: plot.clone(),
                number,
                rng: Rng::new(seeds.number()),
                ledger: Ledger::create(path)?,
                nodes: Vec::new(),
                stop: Arc::clone(&load.stop),
            };
            let work = move || runtime()?.block_on(customer.work());
            let thread = std::thread::Builder::new().name(format!("client-{number}"));
            load.clients.push(thread.spawn(work).context("starting a client")?);
        }
        Ok(load)
    }

    /// Has the clients finish what they are at; within `TRIES` times `PATIENCE`.
    ///
    /// # Errors
    /// If a client could not keep its ledger.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.clients) {
            if client.join().is_err() {
                bail!("a client panicked");
            }
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Customer {
    async fn work(&mut self) -> anyhow::Result<()> {
        self.nodes = self.plot.nodes.iter().map(|dir| client(dir)).collect::<anyhow::Result<_>>()?;
        let mut count = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            count += 1;
            let tag = format!("{}-{count}", self.number);
            let job = self.submit(&tag).await?;
            if let Some(job) = job.filter(|_| self.rng.below(CANCEL_ONE_IN) == 0) {
                self.rest(0, 2_000).await;
                self.cancel(&tag, job).await?;
            }
            self.rest(200, 1_000).await;
        }
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.plot.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn rest(&mut self, least_ms: u64, most_ms: u64) {
        let rest = least_ms + self.rng.below(most_ms - least_ms);
        tokio::time::sleep(Duration::from_millis(rest)).await;
    }

    /// A node's number and a client of it.
    fn pick(&mut self) -> (usize, Client) {
        let place = usize::try_from(self.rng.below(self.nodes.len() as u64)).unwrap_or(0);
        (place + 1, self.nodes[place].clone())
    }

    /// A job for that node to own. Nodes like to run their own jobs themselves, so two thirds are for others to run.
    fn draw(&mut self, tag: &str, node: usize) -> (u32, SubmitRequest) {
        let last = if self.rng.below(5) < 3 { 0 } else { self.rng.below(TASKS_MAX) };
        let last = u32::try_from(last).unwrap_or(0);
        // Most are short; one in sixteen is longer than it takes to call a node dead.
        let sleep_ms = if self.rng.below(16) == 0 { 8_000 } else { 20 + self.rng.below(2_000) };
        let ack = match self.rng.below(5) {
            0 => AckLevel::Local,
            1 => AckLevel::Remote1,
            _ => AckLevel::Default,
        };
        let elsewhere = self.rng.below(3) > 0;
        let constraint = elsewhere.then(|| label(node + 1).to_owned()).into_iter().collect();
        let seconds = format!("{}.{:03}", sleep_ms / 1_000, sleep_ms % 1_000);
        let traces = self.plot.traces.display().to_string();
        let command = ["sh", "-c", SCRIPT, "sh", &traces, tag, &seconds];
        let request = SubmitRequest {
            name: tag.to_owned(),
            command: command.map(str::to_owned).to_vec(),
            array: vec![IndexRange { start: 0, end: last }],
            cpus_milli: Some(CPUS_MILLI),
            request_id: tag.as_bytes().to_vec(),
            ack: ack.into(),
            constraint,
            ..SubmitRequest::default()
        };
        (last + 1, request)
    }

    /// Submits until acknowledged; the job, or `None` if no try was.
    async fn submit(&mut self, tag: &str) -> anyhow::Result<Option<String>> {
        let (node, at) = self.pick();
        let (tasks, request) = self.draw(tag, node);
        for _ in 0..TRIES {
            let tag = tag.to_owned();
            self.ledger.note(&Entry::Tried { at_ms: self.now_ms(), tag: tag.clone(), node, tasks })?;
            let (mut at, request) = (at.clone(), request.clone());
            let answer = tokio::time::timeout(PATIENCE, async move { at.submit(request).await }).await;
            let at_ms = self.now_ms();
            let why = match answer {
                Ok(Ok(reply)) => return self.acked(tag, reply.into_inner()).map(Some),
                Ok(Err(status)) => status.message().to_owned(),
                Err(_elapsed) => "no answer".to_owned(),
            };
            self.ledger.note(&Entry::Unknown { at_ms, tag, why })?;
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.rest(100, 1_000).await;
        }
        Ok(None)
    }

    fn acked(&mut self, tag: String, reply: SubmitReply) -> anyhow::Result<String> {
        let level = match reply.acked() {
            AckLevel::Local => Level::Local,
            AckLevel::Remote1 => Level::Remote1,
            AckLevel::Default => bail!("{} is acknowledged without a level", reply.job),
        };
        let at_ms = self.now_ms();
        self.ledger.note(&Entry::Acked { at_ms, tag, job: reply.job.clone(), level })?;
        Ok(reply.job)
    }

    /// At any node; one that does not know the job yet refuses.
    async fn cancel(&mut self, tag: &str, job: String) -> anyhow::Result<()> {
        let (node, mut at) = self.pick();
        self.ledger.note(&Entry::Cancelling { at_ms: self.now_ms(), tag: tag.to_owned(), node })?;
        let request = CancelRequest { jobs: vec![job], ..CancelRequest::default() };
        let answer = tokio::time::timeout(PATIENCE, async move { at.cancel(request).await }).await;
        if matches!(answer, Ok(Ok(_))) {
            self.ledger.note(&Entry::Cancelled { at_ms: self.now_ms(), tag: tag.to_owned() })?;
        }
        Ok(())
    }
}
