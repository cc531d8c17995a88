//! `batch`: a command line, run once per task.
//!
//! Kinds: `SubmitJob` by the owner, `JobStarted` and `JobFinished` by executors.
//! Invariants: each kind and version folds to the same for ever.

use smol_str::SmolStr;

use super::voice::usage_of;
use super::{Durability, FieldReq, FieldType, Namespace, NamespaceSpec, opaque};
use crate::event::{Event, SysContext, Value, WorkSpec};
use crate::facts::{Delta, Extra, Handler, Job, Outcome, Run, Submit, Usage};
use crate::ids::{Dot, JobId, NodeId};
use crate::lattice::{IntervalSet, Max, Min, VecMap};
use crate::limits;
use crate::time::Hlc;

/// The namespace's name.
pub const NAME: &str = "batch";
/// A submission.
pub const SUBMIT: &str = "SubmitJob";
pub(crate) const STARTED: &str = "JobStarted";
pub(crate) const FINISHED: &str = "JobFinished";

/// The namespace.
#[derive(Debug)]
pub struct Batch {
    spec: NamespaceSpec,
}

impl Default for Batch {
    fn default() -> Self {
        let mut schema = vec![
            FieldReq::required("command", FieldType::Texts { min: 1, max: limits::COMMAND_WORDS_MAX }),
            FieldReq::optional("env", FieldType::TextMap),
            FieldReq::optional("cwd", FieldType::Text { bytes_max: 4_096 }),
            FieldReq::optional("stdin", FieldType::Bytes { bytes_max: 8_192 }),
            FieldReq::optional("lines", FieldType::Texts { min: 1, max: 4_096 }),
        ];
        schema.extend(common_fields());
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

/// Fields that every namespace with jobs has: the owner and the executors read them.
pub(crate) fn common_fields() -> Vec<FieldReq> {
    let text = |bytes_max| FieldType::Text { bytes_max };
    let at_least_0 = FieldType::Int { min: 0, max: i64::MAX };
    vec![
        FieldReq::optional("name", text(128)),
        // The client's own id for the job, instead of the one that the owner gives.
        FieldReq::optional("alias", text(128)),
        // Thousandths of a core, and bytes.
        FieldReq::optional("cpu", FieldType::Int { min: 0, max: 1_000_000_000 }),
        FieldReq::optional("memory", at_least_0),
        FieldReq::optional("retries", FieldType::Int { min: 0, max: i64::from(limits::ATTEMPTS_MAX) - 1 }),
        FieldReq::optional("timeout_ms", at_least_0),
        FieldReq::optional("node", text(128)),
        FieldReq::optional("request", FieldType::Bytes { bytes_max: 64 }),
    ]
}

impl Namespace for Batch {
    fn spec(&self) -> &NamespaceSpec {
        &self.spec
    }

    fn delta(&self, dot: Dot, event: &Event) -> Delta {
        let Some(id) = event.ctx.job else {
            return if event.ver == 1 { Delta::Nothing } else { opaque(dot, event) };
        };
        match (event.kind.as_str(), event.ver) {
            // A job lies in its owner's log; nobody else can submit under that id.
            (SUBMIT, 1) if id.log == dot.log => {
                Delta::Job(id, Box::new(Job::submitted(Submit::new(event, Handler::Process))))
            }
            (SUBMIT, 1) => Delta::Nothing,
            (STARTED, 1) => started(id, dot, event),
            (FINISHED, 1) => ended(id, dot, event, None),
            (FINISHED, 2) => ended(id, dot, event, Some(usage_of(&event.spec))),
            _ => opaque(dot, event),
        }
    }
}

/// An executor's word that tasks of a grant started.
pub(super) fn started(id: JobId, dot: Dot, event: &Event) -> Delta {
    report(id, dot, event, VecMap::default(), None)
}

/// An executor's word that tasks of a grant ended.
pub(super) fn ended(id: JobId, dot: Dot, event: &Event, usage: Option<Usage>) -> Delta {
    match outcome_of(&event.spec) {
        Some(outcome) => report(id, dot, event, VecMap::one(outcome, event.ctx.tasks.clone()), usage),
        None => Delta::Nothing,
    }
}

fn report(id: JobId, dot: Dot, event: &Event, ended: VecMap<Outcome, IntervalSet>, usage: Option<Usage>) -> Delta {
    let Some(no) = event.ctx.grant else {
        return Delta::Nothing;
    };
    let last_end = if ended.is_empty() { Max::default() } else { Max::new(event.hlc) };
    // Whatever ended had started, unless it says that it could not.
    let started = match ended.iter().next() {
        Some((Outcome::NotStarted(..) | Outcome::Cancelled | Outcome::Lost, _)) => IntervalSet::new(),
        Some((Outcome::Exit(_) | Outcome::Signal(_) | Outcome::TimedOut, _)) | None => event.ctx.tasks.clone(),
    };
    let first_start = if started.is_empty() { Min::default() } else { Min::new(event.hlc) };
    let run = Run { started, ended, first_start, last_end, extra: None };
    let run = run.with(Extra { usage: usage.unwrap_or_default(), ..Extra::default() });
    Delta::Job(id, Box::new(Job::reported(no, dot.log.node, run)))
}

/// How an outcome is written into a spec.
#[must_use]
pub fn outcome_spec(outcome: &Outcome) -> WorkSpec {
    let spec = WorkSpec::new();
    match outcome {
        Outcome::Exit(code) => spec.with("exit", Value::int(*code)),
        Outcome::Signal(signal) => spec.with("signal", Value::int(*signal)),
        Outcome::NotStarted(code, reason) => {
            spec.with("not_started", Value::int(*code)).with("reason", Value::text(reason.clone()))
        }
        Outcome::TimedOut => spec.with("timed_out", Value::Bool(true)),
        Outcome::Cancelled => spec.with("cancelled", Value::Bool(true)),
        Outcome::Lost => spec.with("lost", Value::Bool(true)),
    }
}

/// Reads what `outcome_spec` wrote.
#[must_use]
pub fn outcome_of(spec: &WorkSpec) -> Option<Outcome> {
    let number = |key| spec.int(key).and_then(|number| i32::try_from(number).ok());
    let says = |key| spec.field(key) == Some(&Value::Bool(true));
    if let Some(code) = number("exit") {
        Some(Outcome::Exit(code))
    } else if let Some(signal) = number("signal") {
        Some(Outcome::Signal(signal))
    } else if let Some(code) = number("not_started") {
        Some(Outcome::NotStarted(code, spec.text("reason").cloned().unwrap_or_default()))
    } else if says("timed_out") {
        Some(Outcome::TimedOut)
    } else if says("cancelled") {
        Some(Outcome::Cancelled)
    } else if says("lost") {
        Some(Outcome::Lost)
    } else {
        None
    }
}

/// A submission under `id`, which must lie in the author's own log.
#[must_use]
pub fn submit_job(hlc: Hlc, id: JobId, tasks: IntervalSet, priority: i32, spec: WorkSpec) -> Event {
    let ctx = SysContext { job: Some(id), tasks, priority, ..SysContext::default() };
    Event { hlc, ns: SmolStr::new_static(NAME), kind: SmolStr::new_static(SUBMIT), ver: 1, ctx, spec }
}

/// The command line, environment and the rest that an executor needs for one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Added to the executor's own minimal environment.
    pub env: Vec<(String, String)>,
    /// Working directory; the executor's home if absent.
    pub cwd: Option<String>,
    /// Fed to standard input; empty input if absent.
    pub stdin: Option<Vec<u8>>,
}

/// Reads a batch spec for one task.
#[must_use]
pub fn launch(spec: &WorkSpec, task: u32, by: &NodeId) -> Launch {
    let mut env: Vec<(String, String)> =
        spec.entries("env").map(|(key, value)| (key.to_string(), value.to_string())).collect();
    env.push(("STARLING_TASK".into(), task.to_string()));
    env.push(("STARLING_NODE_ID".into(), by.to_hex()));
    // `--each-line` gives task n the n-th line; its array starts at 0.
    if let Some(line) = usize::try_from(task).ok().and_then(|task| spec.texts("lines").nth(task)) {
        env.push(("STARLING_LINE".into(), line.to_string()));
    }
    Launch {
        command: spec.texts("command").map(ToString::to_string).collect(),
        env,
        cwd: spec.text("cwd").map(ToString::to_string),
        stdin: spec.bytes("stdin").map(<[u8]>::to_vec),
    }
}
