//! The relays' manager as the hub contract needs it.
//!
//! Does not: anything of its own.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use smol_str::SmolStr;
use starling_core::event::WorkSpec;
use starling_core::ids::JobId;
use starling_core::machine::{CommandError, Reply};

use crate::api::{Generator, Generators};
use crate::driver::Stopped;
use crate::relay::{Callback, Handle, Registration, RelayError};

/// Relays at this node.
#[derive(Debug)]
pub(super) struct Relays(pub(super) Handle);

impl Generators for Relays {
    fn register(&self, generator: Generator) -> BoxFuture<'_, Result<(), String>> {
        let register = async move {
            let Generator { gid, namespace, slots, lease_ms, callback_url } = generator;
            let callback = callback_url.as_deref().map(Callback::parse).transpose()?;
            let (slots, lease_ms) = (slots.unwrap_or(0), lease_ms.unwrap_or(0));
            let registration = Registration { gid, ns: namespace.to_string(), slots, lease_ms, callback };
            self.0.register(registration).await
        };
        register.map(|result| result.map(|_agreed| ()).map_err(|error| error.to_string())).boxed()
    }

    fn contact(&self, gid: &str) -> BoxFuture<'_, ()> {
        let gid = gid.to_owned();
        // Whoever is not registered here is nobody's concern.
        async move { drop(self.0.contact(&gid).await) }.boxed()
    }

    fn serving(&self, namespace: &str) -> BoxFuture<'_, Vec<String>> {
        let namespace = namespace.to_owned();
        let list = async move {
            let all = self.0.list().await.unwrap_or_default();
            all.into_iter().filter(|one| one.ns == namespace).map(|one| one.gid).collect()
        };
        list.boxed()
    }

    fn report(
        &self,
        job: JobId,
        task: u32,
        kind: SmolStr,
        spec: WorkSpec,
    ) -> BoxFuture<'_, Option<Result<Reply, Stopped>>> {
        let report = async move {
            let held = self.0.task_of(job, task).await?;
            self.0.report(&held.gid, &held.token, &kind, spec).await
        };
        report.map(answer).boxed()
    }
}

/// The Machine's answer, or none if no relay here has the task.
fn answer(result: Result<(), RelayError>) -> Option<Result<Reply, Stopped>> {
    match result {
        Ok(()) => Some(Ok(Reply::Noted)),
        Err(RelayError::Stopped(stopped)) => Some(Err(stopped)),
        Err(
            RelayError::Command(CommandError::NotHeld)
            | RelayError::Unknown(_)
            | RelayError::TooMany
            | RelayError::TakenOver(_)
            | RelayError::Foreign(_)
            | RelayError::NotYours(_)
            | RelayError::Field { .. },
        ) => None,
        Err(RelayError::Command(error)) => Some(Ok(Reply::Error(error))),
    }
}
