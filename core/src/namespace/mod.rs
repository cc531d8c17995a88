//! Namespaces: what events mean. A namespace is a schema for its specs and a pure delta function.
//!
//! Invariants: `delta` is total and reads nothing but the event and, in a declared namespace, the declaration whose hash the event names; `(ns, kind, ver)` folds to the same for ever (golden vectors pin it);
//! events of an unknown namespace or version are kept, never dropped.
//! Does not: run anything; executors do (`node::exec`).

pub mod batch;
pub mod declared;
pub mod monitor;
pub mod report;
mod schema;
pub mod simulation;
pub mod sys;
#[cfg(test)]
mod tests;
mod voice;

use core::fmt;
use std::collections::BTreeMap;

pub use declared::{Declaration, DeclarationError, EventError, Speaker};
pub use schema::{Durability, FieldReq, FieldType, NamespaceSpec, SchemaError, job_fields};
use smol_str::SmolStr;
pub use voice::Voice;

use crate::event::{Event, WorkSpec};
use crate::facts::{Delta, Outcome};
use crate::ids::Dot;

/// What events of one name mean.
pub trait Namespace: fmt::Debug + Send + Sync {
    /// Name, schema, durability.
    fn spec(&self) -> &NamespaceSpec;

    /// The kind of event that submits a job; `None` if the namespace has no jobs.
    fn submit_kind(&self) -> Option<&'static str> {
        None
    }

    /// Checks a relay's report before it is logged, and says how it ends the task, if it does. A namespace that relays do not serve knows none.
    ///
    /// # Errors
    /// If the kind is none of the namespace's reports, or its spec does not fit.
    fn check_event(&self, kind: &str, _spec: &WorkSpec) -> Result<Option<Outcome>, EventError> {
        let namespace = self.spec().name.clone();
        Err(EventError::Unknown { kind: SmolStr::new(kind), namespace, known: "none".to_owned() })
    }

    /// What `event`, found at `dot`, adds to Facts. Kinds and versions that it does not know are `Delta::Opaque`.
    fn delta(&self, dot: Dot, event: &Event) -> Delta;
}

/// The namespaces this binary knows.
#[derive(Debug)]
pub struct Registry {
    known: BTreeMap<SmolStr, Box<dyn Namespace>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::built_in()
    }
}

impl Registry {
    /// No namespace at all, not even `sys`: to build up one's own set.
    #[must_use]
    pub fn empty() -> Self {
        Self { known: BTreeMap::new() }
    }

    /// `sys`, `batch`, `simulation` and `monitor`.
    #[must_use]
    pub fn built_in() -> Self {
        let mut registry = Self::empty();
        registry.add(Box::new(sys::Sys::default()));
        registry.add(Box::new(batch::Batch::default()));
        registry.add(Box::new(simulation::Simulation::default()));
        registry.add(Box::new(monitor::Monitor::default()));
        registry
    }

    /// Adds a namespace; the name must be new.
    ///
    /// # Panics
    /// If the name is taken, which only a local bug can bring about.
    pub fn add(&mut self, namespace: Box<dyn Namespace>) {
        let name = namespace.spec().name.clone();
        let old = self.known.insert(name, namespace);
        assert!(old.is_none(), "namespace registered twice");
    }

    /// One namespace.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&dyn Namespace> {
        self.known.get(name).map(AsRef::as_ref)
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &SmolStr> {
        self.known.keys()
    }

    /// Checks a relay's report; see `Namespace::check_event`.
    ///
    /// # Errors
    /// As that, and if the namespace is not known.
    pub fn check_event(&self, ns: &str, kind: &str, spec: &WorkSpec) -> Result<Option<Outcome>, EventError> {
        match self.namespace(ns) {
            Some(namespace) => namespace.check_event(kind, spec),
            None => {
                let (kind, namespace) = (SmolStr::new(kind), SmolStr::new(ns));
                Err(EventError::Unknown { kind, namespace, known: "none".to_owned() })
            }
        }
    }

    /// What an event adds to Facts.
    #[must_use]
    pub fn delta(&self, dot: Dot, event: &Event) -> Delta {
        match self.known.get(&event.ns) {
            Some(namespace) => namespace.delta(dot, event),
            None => opaque(dot, event),
        }
    }
}

/// Keeps an event that nobody here understands.
#[must_use]
pub fn opaque(dot: Dot, event: &Event) -> Delta {
    Delta::Opaque(dot, event.to_bytes())
}

/// Whether an event submits a job: a statement about tasks under no grant. Only those of a job's owner count.
#[must_use]
pub fn is_submission(event: &Event) -> bool {
    let ctx = &event.ctx;
    event.ns != sys::NAME && ctx.job.is_some() && ctx.grant.is_none() && !ctx.tasks.is_empty()
}
