//! How an executor speaks of a job: the same words in every namespace with jobs, under that namespace's name.
//!
//! Invariants: `batch` and declared namespaces say `JobStarted` and `JobFinished`, `simulation` says `SimulationStarted` and `SimulationFinished`;
//! a start that names a worker is version 2, one that does not is version 1;
//! an end that tells what was used is version 2, one that does not is version 1.
//! Does not: say what the words mean (each namespace's `delta` does).

use smol_str::SmolStr;

use super::{batch, report, simulation};
use crate::event::{Event, SysContext, Value, WorkSpec};
use crate::facts::{Outcome, Submit, Usage};
use crate::ids::{GrantId, Hash, WorkerName};
use crate::lattice::IntervalSet;
use crate::time::Hlc;

/// A namespace, as an executor speaks in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voice {
    ns: SmolStr,
    schema: Option<Hash>,
}

impl Default for Voice {
    /// Speaks as `batch`: for grants whose job is not known.
    fn default() -> Self {
        Self { ns: SmolStr::new_static(batch::NAME), schema: None }
    }
}

impl Voice {
    /// As a job's reports must be written.
    #[must_use]
    pub fn of(submit: &Submit) -> Self {
        Self { ns: submit.ns.clone(), schema: submit.schema() }
    }

    /// The namespace whose words these are.
    #[must_use]
    pub fn ns(&self) -> &str {
        &self.ns
    }

    /// The declaration of the namespace, if it was declared.
    #[must_use]
    pub fn schema(&self) -> Option<Hash> {
        self.schema
    }

    /// Tasks of a grant started.
    #[must_use]
    pub fn started(&self, hlc: Hlc, grant: GrantId, tasks: IntervalSet) -> Event {
        let kind = if self.ns == simulation::NAME { simulation::STARTED } else { report::STARTED };
        self.say(hlc, kind, 1, grant, tasks, WorkSpec::new())
    }

    /// A worker started tasks of a grant.
    #[must_use]
    pub fn started_by(&self, hlc: Hlc, grant: GrantId, tasks: IntervalSet, worker: &WorkerName) -> Event {
        let spec = WorkSpec::new().with("worker", Value::text(worker.0.clone()));
        self.say(hlc, report::STARTED, 2, grant, tasks, spec)
    }

    /// Tasks of a grant ended alike; `usage` is what all tasks of the grant used so far.
    #[must_use]
    pub fn finished(&self, hlc: Hlc, grant: GrantId, tasks: IntervalSet, outcome: &Outcome, usage: &Usage) -> Event {
        let kind = if self.ns == simulation::NAME { simulation::FINISHED } else { report::FINISHED };
        let spec = report::outcome_spec(outcome);
        if *usage == Usage::default() {
            return self.say(hlc, kind, 1, grant, tasks, spec);
        }
        self.say(hlc, kind, 2, grant, tasks, report::with_usage(spec, usage))
    }

    /// An environment listens, `simulation` only.
    #[must_use]
    pub fn port_allocated(&self, hlc: Hlc, grant: GrantId, task: u32, port: u16, host: &str) -> Event {
        let spec = WorkSpec::new().with("port", Value::int(port)).with("host", Value::text(host));
        self.say(hlc, simulation::PORT_ALLOCATED, 1, grant, IntervalSet::one(task), spec)
    }

    /// A word of the namespace's own about tasks of a grant.
    #[must_use]
    pub fn report(&self, hlc: Hlc, kind: &str, grant: GrantId, task: u32, spec: WorkSpec) -> Event {
        self.say(hlc, kind, 1, grant, IntervalSet::one(task), spec)
    }

    fn say(&self, hlc: Hlc, kind: &str, ver: u16, grant: GrantId, tasks: IntervalSet, spec: WorkSpec) -> Event {
        let ctx = SysContext {
            job: Some(grant.job),
            tasks,
            grant: Some(grant.no),
            schema: self.schema,
            ..SysContext::default()
        };
        Event { hlc, ns: self.ns.clone(), kind: SmolStr::new(kind), ver, ctx, spec }
    }
}
