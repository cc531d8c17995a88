//! Namespaces that users declare: a document that travels in the log, and what its rules make of events.
//!
//! Invariants: a declaration has one encoding, and its hash is its name: an event carries the hash of the declaration that gives it meaning (ADR 9), so
//! `delta` stays a function of the event alone. What `check` passes it passes for ever: it may be loosened, never tightened.
//! Does not: register declarations or choose among them (`facts` and `machine` do), read the forms that people write (`node::declare`).

mod check;
mod codec;
mod delta;
#[cfg(test)]
pub(crate) mod tests;

use smol_str::SmolStr;

use super::{FieldReq, NamespaceSpec, SchemaError, report, schema};
use crate::event::{Value, WorkSpec};
use crate::facts::{Handler, Outcome};
use crate::ids::Hash;

/// Runs of jobs by a relay, a program outside.
pub const RELAY: &str = "relay";
/// Runs of jobs by the executor itself, a process a task.
pub const PROCESS: &str = "process";

/// A namespace as a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Name, schema of submissions (keys ascending), handler, durability.
    pub spec: NamespaceSpec,
    /// From 1. A changed declaration is a new version.
    pub version: u32,
    /// The phases that tasks go through, earliest first.
    pub phases: Vec<SmolStr>,
    /// Which kinds submit jobs.
    pub submit: SubmitKinds,
    /// What other kinds mean; kinds ascending.
    pub rules: Vec<Rule>,
}

/// Which kinds submit jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitKinds {
    /// This one.
    One(SmolStr),
    /// Any kind that begins with `Submit`: programs written against a hub name no kinds in their specs.
    Any,
}

/// Whose word a rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaker {
    /// The executor's, under its grant.
    #[default]
    Executor,
    /// Any member's, about the job.
    Anyone,
}

/// How an event ends its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// With exit code 0.
    Success,
    /// With exit code 1.
    Failure,
    /// With the exit code in this field.
    ExitFrom(SmolStr),
}

/// Which of two values of a register stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// The greater integer.
    Max,
    /// The one written last.
    Last,
    /// Both.
    Set,
    /// Their sum.
    Counter,
}

impl Policy {
    /// The word for it in declarations that people write.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::Last => "last-writer",
            Self::Set => "set",
            Self::Counter => "counter",
        }
    }
}

/// A field that goes into a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterRule {
    /// The register's name.
    pub register: SmolStr,
    /// The field of the event.
    pub field: SmolStr,
    /// How the register merges; the same in every rule that writes it.
    pub policy: Policy,
}

/// What events of one kind mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The kind.
    pub kind: SmolStr,
    /// Whose word counts.
    pub by: Speaker,
    /// The phase that the event's tasks reach.
    pub phase: Option<SmolStr>,
    /// How the event's tasks end, if they do.
    pub outcome: Option<Ends>,
    /// Fields that go into registers; registers ascending.
    pub registers: Vec<RegisterRule>,
    /// Labels that the job gets, key and value; keys ascending.
    pub labels: Vec<(SmolStr, SmolStr)>,
    /// The fields of the kind's spec; keys ascending.
    pub fields: Vec<FieldReq>,
}

impl Rule {
    /// A rule by which events of `kind` fold to nothing yet.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        Self {
            kind: SmolStr::new(kind),
            by: Speaker::Executor,
            phase: None,
            outcome: None,
            registers: Vec::new(),
            labels: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// One of the kind's fields.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&FieldReq> {
        self.fields.iter().find(|field| field.key == key)
    }

    /// What a spec says in one of the kind's fields.
    fn value<'a>(&'a self, key: &str, spec: &'a WorkSpec) -> Option<&'a Value> {
        self.field(key).and_then(|field| field.value(spec))
    }

    /// Checks a spec of this kind and reads the outcome it gives.
    ///
    /// # Errors
    /// The first field that is missing, unfit or unknown, or an exit code beyond 32 bits.
    fn read(&self, spec: &WorkSpec) -> Result<Option<Outcome>, EventError> {
        schema::fits(&self.fields, spec)?;
        schema::all_known(&[&self.fields], spec, || format!("a field of kind `{}`", self.kind))?;
        let code = match &self.outcome {
            None => return Ok(None),
            Some(Ends::Success) => 0,
            Some(Ends::Failure) => 1,
            Some(Ends::ExitFrom(key)) => self.exit_code(key, spec)?,
        };
        Ok(Some(Outcome::Exit(code)))
    }

    fn exit_code(&self, key: &SmolStr, spec: &WorkSpec) -> Result<i32, SchemaError> {
        let found = match self.value(key, spec) {
            Some(Value::Int(code)) => match i32::try_from(*code) {
                Ok(code) => return Ok(code),
                Err(_beyond) => schema::describe(&Value::Int(*code)),
            },
            Some(value @ (Value::Bool(_) | Value::Text(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))) => {
                schema::describe(value)
            }
            None => "nothing".into(),
        };
        Err(SchemaError { field: key.clone(), expected: "an exit code of 32 bits".into(), found })
    }
}

/// What is wrong with a declaration: where in it, what was expected, what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: expected {expected}, got {found}", if place.is_empty() { "declaration".to_owned() } else { place.join(".") })]
pub struct DeclarationError {
    /// The way there, outermost first, in the words of `starling ns put`: `rules`, `CheckPassed`, `phase`. Empty for the whole.
    pub place: Vec<SmolStr>,
    /// What belongs there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// Why an event is not one that a declaration knows. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// No rule is about the kind.
    #[error("kind `{kind}`: expected one of {known}, got one that namespace `{namespace}` has no rule for")]
    Unknown {
        /// The kind.
        kind: SmolStr,
        /// The namespace.
        namespace: SmolStr,
        /// The kinds that it has rules for.
        known: String,
    },
    /// The kind submits jobs.
    #[error("kind `{0}` submits jobs: it is not reported")]
    Submission(SmolStr),
    /// A `JobFinished` that does not say how.
    #[error(
        "kind `JobFinished`: expected an outcome (`exit`, `signal`, `not_started`, `timed_out`, `cancelled` or `lost`), got none"
    )]
    NoOutcome,
    /// The spec does not fit.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

impl Declaration {
    /// The declaration's name for machines: the blake3 hash of its bytes.
    #[must_use]
    pub fn id(&self) -> Hash {
        Hash(*blake3::hash(&self.to_bytes()).as_bytes())
    }

    /// The rule about a kind.
    #[must_use]
    pub fn rule(&self, kind: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.kind == kind)
    }

    /// Whether events of this kind submit jobs.
    #[must_use]
    pub fn is_submit(&self, kind: &str) -> bool {
        match &self.submit {
            SubmitKinds::One(own) => own == kind,
            SubmitKinds::Any => kind.starts_with("Submit"),
        }
    }

    /// The kind that a submission gets if it names none.
    #[must_use]
    pub fn usual_submit_kind(&self) -> SmolStr {
        match &self.submit {
            SubmitKinds::One(own) => own.clone(),
            SubmitKinds::Any => SmolStr::new_static(super::batch::SUBMIT),
        }
    }

    /// Who runs its jobs.
    #[must_use]
    pub fn handler(&self) -> Handler {
        if self.spec.handler_type == PROCESS { Handler::Process } else { Handler::Relay }
    }

    /// Writes defaults into the spec of a submission and checks it: the namespace's own fields, and those that every job may have (`job_fields`).
    ///
    /// # Errors
    /// The first field that is missing, unfit or unknown.
    pub fn complete(&self, mut spec: WorkSpec) -> Result<WorkSpec, SchemaError> {
        for field in &self.spec.schema {
            if let Some(value) = &field.default
                && spec.field(&field.key).is_none()
            {
                spec = spec.with(&field.key, value.clone());
            }
        }
        let common = schema::job_fields();
        schema::fits(&self.spec.schema, &spec)?;
        schema::fits(&common, &spec)?;
        let expected = || format!("a field of namespace `{}`", self.spec.name);
        schema::all_known(&[&self.spec.schema, &common], &spec, expected)?;
        Ok(spec)
    }

    /// Checks a report before it is logged, and says how it ends its tasks, if it does.
    ///
    /// # Errors
    /// If no rule is about the kind, or its spec does not fit.
    pub fn check_event(&self, kind: &str, spec: &WorkSpec) -> Result<Option<Outcome>, EventError> {
        if report::is_standard(kind) {
            return self.check_standard(kind, spec);
        }
        if self.is_submit(kind) {
            return Err(EventError::Submission(SmolStr::new(kind)));
        }
        match self.rule(kind) {
            Some(rule) => rule.read(spec),
            None => Err(EventError::Unknown {
                kind: SmolStr::new(kind),
                namespace: self.spec.name.clone(),
                known: self.known_kinds(),
            }),
        }
    }

    /// A standard report has its own fields beside those of the rule about it.
    fn check_standard(&self, kind: &str, spec: &WorkSpec) -> Result<Option<Outcome>, EventError> {
        let fields = self.rule(kind).map(|rule| rule.fields.as_slice()).unwrap_or_default();
        schema::fits(fields, spec)?;
        let mut rest = spec.clone();
        rest.0.retain(|key, _| kind != report::FINISHED || !report::FIELDS.contains(&key.as_str()));
        schema::all_known(&[fields], &rest, || format!("a field of kind `{kind}`"))?;
        if kind == report::STARTED {
            return Ok(None);
        }
        report::outcome_of(spec).map(Some).ok_or(EventError::NoOutcome)
    }

    fn known_kinds(&self) -> String {
        let own = self.rules.iter().map(|rule| rule.kind.as_str()).filter(|kind| !report::is_standard(kind));
        let all = own.chain([report::STARTED, report::FINISHED]);
        all.map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ")
    }
}
