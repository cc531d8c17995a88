//! Generators: the programs outside that run jobs, as the hub contract sees them.
//!
//! Does not: serve them: the relays' manager does, by way of `daemon::generators`.

use std::fmt;

use futures::future::BoxFuture;
use smol_str::SmolStr;
use starling_core::event::WorkSpec;
use starling_core::ids::JobId;
use starling_core::machine::Reply;

use crate::driver::Stopped;

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
