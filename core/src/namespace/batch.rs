//! `batch`: a command line, run once per task.
//!
//! Kinds: `SubmitJob` by the owner, and the executors' standard reports (`report`).
//! Invariants: each kind and version folds to the same for ever.

use smol_str::SmolStr;

use super::{Durability, FieldReq, FieldType, Namespace, NamespaceSpec, opaque, report, schema};
use crate::event::{Event, SysContext, WorkSpec};
use crate::facts::{Delta, Handler, Job, Submit};
use crate::ids::{Dot, JobId, NodeId};
use crate::lattice::IntervalSet;
use crate::limits;
use crate::time::Hlc;

/// The namespace's name.
pub const NAME: &str = "batch";
/// A submission.
pub const SUBMIT: &str = "SubmitJob";

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
            FieldReq::optional("image", FieldType::Text { bytes_max: 512 }),
            FieldReq::optional("constraint", FieldType::Texts { min: 1, max: limits::LABELS_MAX }),
            FieldReq::optional("lines", FieldType::Texts { min: 1, max: 4_096 }),
        ];
        schema.extend(schema::job_fields());
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

impl Namespace for Batch {
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
            // A job lies in its owner's log; nobody else can submit under that id.
            (SUBMIT, 1) if id.log == dot.log => {
                Delta::Job(id, Box::new(Job::submitted(Submit::new(event, Handler::Process))))
            }
            (SUBMIT, 1) => Delta::Nothing,
            _ => report::delta(dot, event),
        }
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
    /// The container image to run it in; none if absent.
    pub image: Option<String>,
    /// Longest run in milliseconds; 0 for no limit. The executor ends it then; who runs it does where the executor cannot.
    pub timeout_ms: u64,
}

impl Launch {
    /// The command line of a node that runs images itself.
    #[must_use]
    pub fn in_container(mut self) -> Self {
        let Some(image) = self.image.take() else {
            return self;
        };
        let mut command: Vec<String> = ["docker", "run", "--rm", "-i"].map(String::from).into();
        for (key, value) in &self.env {
            command.extend(["-e".to_owned(), format!("{key}={value}")]);
        }
        command.push(image);
        command.append(&mut self.command);
        self.command = command;
        self
    }
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
        image: spec.text("image").filter(|image| !image.is_empty()).map(ToString::to_string),
        timeout_ms: spec.uint("timeout_ms").unwrap_or(0),
    }
}
