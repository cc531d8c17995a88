//! Workers from outside, as the gateway knows them.
//!
//! Invariants: any node answers for the gateway; a worker's task is told by the job that users know, or not at all.
//! Does not: fetch anything from the gateway: whatever `Context::workers` stands for does.

use std::fmt;

use futures::future::BoxFuture;
use starling_core::facts::view;
use starling_core::machine::Machine;
use starling_core::time::Now;
use starling_proto::v1::{ListWorkersReply, WorkerState, WorkerSummary, WorkerTask};

use super::context::Api;
use super::convert::{clamp, seen};
use super::status::ApiError;
use super::{gateway, nodes};
use crate::hwp::gateway::{Reach, WorkerLine};
use crate::hwp::id::AssignmentId;

/// What knows the gateway's workers, here or by asking the node that is the gateway.
pub trait ReadWorkers: fmt::Debug + Send + Sync {
    /// All workers, in any order; refused with the reason, such as that the gateway does not answer.
    fn list(&self) -> BoxFuture<'_, Result<Vec<WorkerLine>, String>>;
}

/// Lists the gateway's workers; none where there is no gateway.
///
/// Cancel safety: cancel safe.
pub(super) async fn list(api: &Api) -> Result<ListWorkersReply, ApiError> {
    let acts = api.ask(|machine, now| gateway::acting(machine, now).is_some()).await?;
    let mut lines = match &api.ctx.workers {
        Some(workers) if acts => workers.list().await.map_err(ApiError::Workers)?,
        Some(_) | None => Vec::new(),
    };
    lines.sort_by(|a, b| a.id.cmp(&b.id));
    let tell = move |machine: &mut Machine, now: Now| {
        let holder = gateway::acting(machine, now);
        let claim = machine.facts().gateway().claim();
        ListWorkersReply {
            gateway: holder.map(|node| nodes::name(machine, &node)).unwrap_or_default(),
            term: claim.filter(|_| holder.is_some()).map_or(0, |claim| claim.term.0),
            workers: lines.into_iter().map(|line| summary(machine, line)).collect(),
            view: Some(seen(machine, now)),
        }
    };
    api.ask(tell).await
}

fn summary(machine: &Machine, line: WorkerLine) -> WorkerSummary {
    let task = |text: &String| {
        let AssignmentId { grant, task } = AssignmentId::parse(text)?;
        Some(WorkerTask { job: view::job_name(machine.facts(), &grant.job), task })
    };
    let busy = clamp(line.tasks.len());
    let state = if !line.attached {
        WorkerState::Away
    } else if busy >= line.slots {
        WorkerState::Full
    } else {
        WorkerState::Ready
    };
    WorkerSummary {
        state: state.into(),
        slots: line.slots,
        busy,
        cpu_milli: line.cpu_milli,
        mem_bytes: line.mem_bytes,
        silent_ms: u64::try_from(line.heard.as_millis()).unwrap_or(u64::MAX),
        labels: line.labels,
        reach: match line.reach {
            Reach::Stream => "stream",
            Reach::DialBack => "dial-back",
        }
        .to_owned(),
        tasks: line.tasks.iter().filter_map(task).collect(),
        name: line.id,
    }
}
