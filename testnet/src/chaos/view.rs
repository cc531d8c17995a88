//! What the nodes say of themselves, over the API at their Unix sockets, which lie outside of every network fault.
//!
//! Invariants: no question waits longer than `DOCTOR`.
//! Does not: change anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use starling_proto::v1::starling_client::StarlingClient;
use starling_proto::v1::{
    CheckState, DoctorRequest, InfoReply, InfoRequest, JobDetail, JobRef, JobState, ListJobsRequest,
};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use super::judge::{Seen, State};
use crate::local::Cluster;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// A doctor tries things out, each with a limit of its own.
const DOCTOR: Duration = Duration::from_secs(15);

/// Questions on their way at a time.
const IN_FLIGHT: usize = 64;

pub(super) type Client = StarlingClient<Channel>;

/// How far each log is held: its length by author and epoch.
pub(super) type Frontier = BTreeMap<(String, u64), u64>;

/// One client a node.
#[derive(Debug)]
pub(super) struct View {
    runtime: Runtime,
    clients: Vec<Client>,
    /// Nodes by name.
    names: BTreeMap<String, usize>,
    /// Nodes by public key.
    keys: BTreeMap<String, usize>,
}

/// What nodes answered about jobs.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// By job.
    pub(super) said: Vec<(String, Seen)>,
    /// What they could not answer, in words.
    pub(super) refusals: Vec<String>,
    /// Nodes that did not answer in time.
    pub(super) silent: BTreeSet<usize>,
}

/// A client that connects when it is used, and again after each break. Must be called inside of a runtime.
pub(super) fn client(data_dir: &Path) -> anyhow::Result<Client> {
    let socket = data_dir.join("api.sock");
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    Ok(StarlingClient::new(endpoint.connect_lazy()))
}

pub(super) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")
}

impl View {
    /// Asks every node who it is.
    ///
    /// # Errors
    /// If one does not answer.
    pub(super) fn open(cluster: &Cluster) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let entered = runtime.enter();
        let clients = (1..=cluster.len()).map(|number| client(&cluster.dir(number))).collect::<anyhow::Result<_>>()?;
        drop(entered);
        let mut view = Self { runtime, clients, names: BTreeMap::new(), keys: BTreeMap::new() };
        for number in 1..=cluster.len() {
            let info = view.info(number)?;
            view.names.insert(info.node_name, number);
            view.keys.insert(info.node_id, number);
        }
        Ok(view)
    }

    /// Nodes by their public keys in hex.
    pub(super) fn keys(&self) -> &BTreeMap<String, usize> {
        &self.keys
    }

    fn ask<Reply, Asked>(&self, number: usize, ask: impl FnOnce(Client) -> Asked) -> anyhow::Result<Reply>
    where
        Asked: Future<Output = Result<tonic::Response<Reply>, tonic::Status>>,
    {
        self.ask_within(PATIENCE, number, ask)
    }

    fn ask_within<Reply, Asked>(
        &self,
        patience: Duration,
        number: usize,
        ask: impl FnOnce(Client) -> Asked,
    ) -> anyhow::Result<Reply>
    where
        Asked: Future<Output = Result<tonic::Response<Reply>, tonic::Status>>,
    {
        let asked = ask(self.clients[number - 1].clone());
        let reply = self.runtime.block_on(async { tokio::time::timeout(patience, asked).await });
        let reply = reply.with_context(|| format!("node {number} says nothing"))?;
        Ok(reply.with_context(|| format!("asking node {number}"))?.into_inner())
    }

    pub(super) fn info(&self, number: usize) -> anyhow::Result<InfoReply> {
        self.ask(number, |mut client| async move { client.info(InfoRequest {}).await })
    }

    /// How far a node holds each log.
    pub(super) fn frontier(&self, number: usize) -> anyhow::Result<Frontier> {
        let entries = self.info(number)?.frontier;
        Ok(entries.into_iter().map(|entry| ((entry.author, entry.epoch), entry.len)).collect())
    }

    /// How many jobs have not ended as a node sees it.
    pub(super) fn open_jobs(&self, number: usize) -> anyhow::Result<u32> {
        let states = vec![JobState::Pending.into(), JobState::Running.into()];
        let request = ListJobsRequest { states, limit: 1, ..ListJobsRequest::default() };
        Ok(self.ask(number, |mut client| async move { client.list_jobs(request).await })?.total)
    }

    /// Checks of a node's doctor that do not pass.
    pub(super) fn complaints(&self, number: usize) -> anyhow::Result<Vec<String>> {
        let reply =
            self.ask_within(DOCTOR, number, |mut client| async move { client.doctor(DoctorRequest {}).await })?;
        let bad = reply.checks.into_iter().filter(|check| match check.state() {
            CheckState::Unknown | CheckState::Fail => true,
            CheckState::Ok | CheckState::Warn => false,
        });
        Ok(bad.map(|check| format!("{}: {}", check.name, check.detail)).collect())
    }

    /// What these nodes say of these jobs, many asked at a time; a node that does not know a job says nothing of it. A node that does not answer at all is
    /// asked no more.
    pub(super) fn jobs(&self, nodes: &[usize], jobs: &[&str]) -> Answers {
        let mut answers = Answers::default();
        let asked: Vec<(usize, &str)> = jobs.iter().flat_map(|job| nodes.iter().map(|node| (*node, *job))).collect();
        for some in asked.chunks(IN_FLIGHT) {
            for (node, job, detail) in self.runtime.block_on(self.details(some, &mut answers)) {
                match self.seen(node, detail) {
                    Ok(seen) => answers.said.push((job, seen)),
                    Err(error) => answers.refusals.push(format!("node {node} of {job}: {error:#}")),
                }
            }
        }
        answers
    }

    async fn details(&self, asked: &[(usize, &str)], answers: &mut Answers) -> Vec<(usize, String, JobDetail)> {
        let mut asking = JoinSet::new();
        for (node, job) in asked.iter().filter(|(node, _)| !answers.silent.contains(node)) {
            let (node, job, mut client) = (*node, (*job).to_owned(), self.clients[*node - 1].clone());
            asking.spawn(async move {
                let asked = client.get_job(JobRef { job: job.clone() });
                (node, job, tokio::time::timeout(PATIENCE, asked).await)
            });
        }
        let mut details = Vec::new();
        // A task that only asks neither panics nor is aborted.
        while let Some(Ok((node, job, answer))) = asking.join_next().await {
            match answer {
                Ok(Ok(detail)) => details.push((node, job, detail.into_inner())),
                Ok(Err(status)) if status.code() == tonic::Code::NotFound => {}
                Ok(Err(status)) => answers.refusals.push(format!("node {node} of {job}: {}", status.message())),
                Err(_elapsed) => _ = answers.silent.insert(node),
            }
        }
        details
    }

    fn seen(&self, node: usize, detail: JobDetail) -> anyhow::Result<Seen> {
        let summary = detail.summary.context("a job without a summary")?;
        let state = match summary.state() {
            JobState::Unknown | JobState::Pending | JobState::Running => State::Open,
            JobState::Done => State::Done,
            JobState::Failed | JobState::Lost => State::Failed,
            JobState::Cancelled => State::Cancelled,
        };
        // A node that lost its identity is another one now.
        let owner = self.names.get(&summary.owner).copied();
        let sealed = detail.seal.map_or(0, |seal| seal.tasks);
        Ok(Seen { node, state, sealed, owner, reason: summary.reason })
    }
}
