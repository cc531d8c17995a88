//! Generators: the programs outside that run jobs, as the hub contract sees them.
//!
//! Does not: serve them: the relays' manager does, handed in by `Context::generators`.

use std::fmt;

use futures::future::BoxFuture;
use smol_str::SmolStr;
use starling_core::event::WorkSpec;
use starling_core::ids::JobId;
use starling_core::machine::Reply;

use crate::driver::Stopped;
use crate::relay::{self, Callback, Registration, RelayError};

/// A program that registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generator {
    /// The name that it chose.
    pub gid: String,
    /// The namespace whose jobs it runs.
    pub namespace: SmolStr,
    /// How many tasks it takes at once, if it says.
    pub slots: Option<u32>,
    /// How long it may be silent, milliseconds, if it says.
    pub lease_ms: Option<u64>,
    /// Where it is poked by `POST`, if it says.
    pub callback_url: Option<String>,
}

/// What serves generators at this node.
pub trait Generators: fmt::Debug + Send + Sync {
    /// Takes a generator, or renews what it said before; refused with the reason.
    fn register(&self, generator: Generator) -> BoxFuture<'_, Result<(), String>>;

    /// A sign of life. One that is not registered here is none.
    fn contact(&self, gid: &str) -> BoxFuture<'_, ()>;

    /// The generators here that run jobs of a namespace, by name.
    fn serving(&self, namespace: &str) -> BoxFuture<'_, Vec<String>>;

    /// Hands on a report about a task to the generator here that holds it; `None` if none does. The answer is the Machine's.
    fn report(
        &self,
        job: JobId,
        task: u32,
        kind: SmolStr,
        spec: WorkSpec,
    ) -> BoxFuture<'_, Option<Result<Reply, Stopped>>>;
}

/// A hub's generators are relays that are called, or call.
impl Generators for relay::Handle {
    fn register(&self, generator: Generator) -> BoxFuture<'_, Result<(), String>> {
        let Generator { gid, namespace, slots, lease_ms, callback_url } = generator;
        Box::pin(async move {
            let callback =
                callback_url.as_deref().map(Callback::parse).transpose().map_err(|error| error.to_string())?;
            let (slots, lease_ms) = (slots.unwrap_or(0), lease_ms.unwrap_or(0));
            let registration = Registration { gid, ns: namespace.to_string(), slots, lease_ms, callback };
            self.register(registration).await.map(|_agreed| ()).map_err(|error| error.to_string())
        })
    }

    fn contact(&self, gid: &str) -> BoxFuture<'_, ()> {
        let gid = gid.to_owned();
        Box::pin(async move {
            // A hub's program may pull without ever having registered.
            let _unknown = self.contact(&gid).await;
        })
    }

    fn serving(&self, namespace: &str) -> BoxFuture<'_, Vec<String>> {
        let namespace = namespace.to_owned();
        Box::pin(async move {
            let all = self.list().await.unwrap_or_default();
            all.into_iter().filter(|one| one.ns == namespace).map(|one| one.gid).collect()
        })
    }

    fn report(
        &self,
        job: JobId,
        task: u32,
        kind: SmolStr,
        spec: WorkSpec,
    ) -> BoxFuture<'_, Option<Result<Reply, Stopped>>> {
        Box::pin(async move {
            for one in self.list().await.unwrap_or_default() {
                let Ok(token) = self.task_of(&one.gid, job, task).await else {
                    continue;
                };
                return match self.report(&one.gid, &token, &kind, spec).await {
                    Ok(()) => Some(Ok(Reply::Noted)),
                    Err(RelayError::Command(error)) => Some(Ok(Reply::Error(error))),
                    Err(RelayError::Stopped(error)) => Some(Err(error)),
                    // Between the two questions it was taken away.
                    Err(
                        RelayError::Unknown(_)
                        | RelayError::Field { .. }
                        | RelayError::TooMany
                        | RelayError::TakenOver(_)
                        | RelayError::Foreign(_)
                        | RelayError::NotYours(_),
                    ) => None,
                };
            }
            None
        })
    }
}
