//! `simulation`: an environment that listens on a port and a policy that is told which, run side by side, once per task.
//!
//! Kinds: `SubmitSimulation` by the owner; `SimulationStarted`, `PortAllocated` and `SimulationFinished` by executors. The outcome is the policy's.
//! Invariants: each kind and version folds to the same for ever.

use smol_str::SmolStr;

use super::batch::{self, Launch};
use super::report::{self, Reading};
use super::{Durability, FieldReq, FieldType, Namespace, NamespaceSpec, job_fields, opaque};
use crate::event::{Event, SysContext, WorkSpec};
use crate::facts::{Delta, Extra, Handler, Job, Port, Run, Submit, Usage};
use crate::ids::{Dot, JobId, NodeId};
use crate::lattice::{IntervalSet, Max, VecMap};
use crate::limits;
use crate::time::Hlc;

/// The namespace's name.
pub const NAME: &str = "simulation";
/// A submission.
pub const SUBMIT: &str = "SubmitSimulation";
pub(crate) const STARTED: &str = "SimulationStarted";
/// An environment listens.
pub const PORT_ALLOCATED: &str = "PortAllocated";
pub(crate) const FINISHED: &str = "SimulationFinished";

/// How long an environment may take to listen unless the submission says otherwise. Low: slow starters fail; high: a broken one holds its slot.
const PORT_WAIT_MS: u64 = 30_000;

/// The namespace.
#[derive(Debug)]
pub struct Simulation {
    spec: NamespaceSpec,
}

impl Default for Simulation {
    fn default() -> Self {
        let words = FieldType::Texts { min: 1, max: limits::COMMAND_WORDS_MAX };
        let mut schema = vec![
            FieldReq::required("env_cmd", words),
            FieldReq::required("policy_cmd", words),
            FieldReq::optional("port_wait_ms", FieldType::Int { min: 1, max: 86_400_000 }),
            FieldReq::optional("env", FieldType::TextMap),
            FieldReq::optional("cwd", FieldType::Text { bytes_max: 4_096 }),
            FieldReq::optional("lines", FieldType::Texts { min: 1, max: 4_096 }),
        ];
        schema.extend(job_fields());
        let spec = NamespaceSpec {
            name: SmolStr::new_static(NAME),
            preemptible: false,
            handler_type: SmolStr::new_static("process"),
            schema,
            durability: Durability::Logged,
        };
        Self { spec }
    }
}

impl Namespace for Simulation {
    fn spec(&self) -> &NamespaceSpec {
        &self.spec
    }

    fn submit_kind(&self) -> Option<&'static str> {
        Some(SUBMIT)
    }

    fn delta(&self, dot: Dot, event: &Event) -> Delta {
        let Some(id) = event.ctx.job else {
            return if event.ver == 1 { Delta::Nothing } else { opaque(dot, event) };
        };
        match (event.kind.as_str(), event.ver) {
            (SUBMIT, 1) if id.log == dot.log => {
                Delta::Job(id, Box::new(Job::submitted(Submit::new(event, Handler::Pair))))
            }
            (SUBMIT, 1) => Delta::Nothing,
            (STARTED, 1) => report::told(dot, event, Reading::Run(report::run(event, None))),
            (PORT_ALLOCATED, 1) => allocated(id, dot, event),
            (FINISHED, 1) => report::told(dot, event, report::ended(event, Usage::default())),
            (FINISHED, 2) => report::told(dot, event, report::ended(event, report::usage_of(&event.spec))),
            _ => opaque(dot, event),
        }
    }
}

fn allocated(id: JobId, dot: Dot, event: &Event) -> Delta {
    let port = event.spec.uint("port").and_then(|port| u16::try_from(port).ok());
    let (Some(no), Some(port), Some(task)) = (event.ctx.grant, port, event.ctx.tasks.first()) else {
        return Delta::Nothing;
    };
    let host = event.spec.text("host").cloned().unwrap_or_default();
    let ports = VecMap::one(task, Max::new(Port { port, host }));
    let run = Run::default().with(Extra { ports, ..Extra::default() });
    Delta::Job(id, Box::new(Job::reported(no, dot.log.node, run)))
}

/// A submission under `id`, which must lie in the author's own log.
#[must_use]
pub fn submit_simulation(hlc: Hlc, id: JobId, tasks: IntervalSet, priority: i32, spec: WorkSpec) -> Event {
    let ctx = SysContext { job: Some(id), tasks, priority, ..SysContext::default() };
    Event { hlc, ns: SmolStr::new_static(NAME), kind: SmolStr::new_static(SUBMIT), ver: 1, ctx, spec }
}

/// What an executor needs to run one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The environment's program and arguments.
    pub env_command: Vec<String>,
    /// The policy; `{port}` and `{host}` in its arguments stand for where the environment listens. Variables and working directory are for both.
    pub policy: Launch,
    /// How long the environment may take to listen, milliseconds.
    pub port_wait_ms: u64,
}

/// Reads a simulation's spec for one task.
#[must_use]
pub fn pair(spec: &WorkSpec, task: u32, by: &NodeId) -> Pair {
    let words = |key| spec.texts(key).map(ToString::to_string).collect();
    Pair {
        env_command: words("env_cmd"),
        policy: Launch { command: words("policy_cmd"), ..batch::launch(spec, task, by) },
        port_wait_ms: spec.uint("port_wait_ms").unwrap_or(PORT_WAIT_MS),
    }
}
