//! `POST /ingest`: an event by a program written against a hub.
//!
//! A kind that submits jobs of its namespace submits one task under the name `job_id`; any other is a report about that job.
//! Invariants: one `job_id` is one job, however often it is submitted and wherever, as soon as the nodes have heard of each other; at this node at once. A report
//! counts by the relay here that holds the task, or as anybody's remark where the namespace's rules allow that; else it is refused, and nothing changed.

use serde::Deserialize;
use smol_str::SmolStr;
use starling_core::event::{Value, WorkSpec};
use starling_core::facts::view;
use starling_core::ids::JobId;
use starling_core::lattice::IntervalSet;
use starling_core::machine::{AckLevel, Command, CommandError, Machine, Reply, Submission};
use starling_core::namespace::{
    Declaration, EventError, FieldReq, FieldType, Speaker, batch, job_fields, report, simulation,
};
use starling_core::time::Now;

use super::fields::{self, Texts};
use super::submitting::Turn;
use crate::api::context::Api;
use crate::api::status::ApiError;
use crate::driver::Stopped;

/// What the schema allows for an alias.
const JOB_ID_BYTES_MAX: usize = 128;

/// An event. Other keys are left unread, here and below.
#[derive(Debug, Deserialize)]
pub(super) struct HubEvent {
    kind: String,
    payload: Payload,
}

#[derive(Debug, Deserialize)]
struct Payload {
    ctx: Ctx,
    #[serde(default)]
    spec: Texts,
}

/// The node that a program names is left unread too: who speaks is the node that signs.
#[derive(Debug, Deserialize)]
struct Ctx {
    job_id: String,
    /// Absent where the kind says it: `SubmitJob`, `SubmitSimulation`, and reports.
    #[serde(default)]
    ns_id: String,
    #[serde(default)]
    priority: i32,
    /// Beyond the contract: which task a report is about.
    #[serde(default)]
    task: Option<u32>,
}

/// What an event came to.
#[derive(Debug)]
pub(super) struct Ingested {
    /// The job's namespace.
    pub(super) namespace: SmolStr,
    /// The job's id.
    pub(super) job: String,
}

/// What the namespace makes of a kind.
enum Role {
    /// It submits; the fields that it may have.
    Submission(SmolStr, Vec<FieldReq>),
    /// It reports of a job.
    Report(Box<Said>),
}

struct Said {
    namespace: SmolStr,
    job: JobId,
    task: u32,
    by: Speaker,
    fields: Vec<FieldReq>,
}

/// Carries an event out.
///
/// Cancel safety: it may come to pass even if the caller leaves.
pub(super) async fn ingest(api: &Api, event: HubEvent) -> Result<Ingested, ApiError> {
    let HubEvent { kind, payload: Payload { ctx, spec } } = event;
    let is_name = !ctx.job_id.trim().is_empty() && !ctx.job_id.contains(char::is_control);
    if !is_name || ctx.job_id.len() > JOB_ID_BYTES_MAX {
        let expected = format!("a name for the job of 1 to {JOB_ID_BYTES_MAX} bytes");
        return Err(ApiError::field("payload.ctx.job_id", &expected, &ctx.job_id));
    }
    if kind.is_empty() {
        return Err(ApiError::field("kind", "the kind of event, such as SubmitJob", ""));
    }
    let (asked, ns, job_id, task) = (kind.clone(), ctx.ns_id.clone(), ctx.job_id.clone(), ctx.task);
    let role = move |machine: &mut Machine, _now: Now| role(machine, &asked, &ns, &job_id, task);
    match api.ask(role).await?? {
        Role::Submission(namespace, fields) => {
            let of = format!("namespace `{namespace}`");
            let spec = fields::spec(&spec, &fields, &of).map_err(CommandError::Schema)?;
            submit(api, namespace, kind.into(), ctx, spec).await
        }
        Role::Report(said) => {
            let spec = fields::spec(&spec, &said.fields, &format!("kind `{kind}`")).map_err(CommandError::Schema)?;
            say(api, *said, kind.into(), spec).await
        }
    }
}

fn role(machine: &Machine, kind: &str, ns: &str, job_id: &str, task: Option<u32>) -> Result<Role, ApiError> {
    let usual = match kind {
        batch::SUBMIT => batch::NAME,
        simulation::SUBMIT => simulation::NAME,
        _ => "",
    };
    let ns = if ns.is_empty() { usual } else { ns };
    if ns.is_empty() {
        return told(machine, kind, ns, job_id, task);
    }
    if let Some(namespace) = machine.registry().namespace(ns) {
        let submits = namespace.submit_kind().ok_or_else(|| CommandError::NoJobs(ns.into()))?;
        // A misspelt kind of submission is refused by the Machine, which names the right one.
        return if kind == submits || kind.starts_with("Submit") {
            Ok(Role::Submission(ns.into(), namespace.spec().schema.clone()))
        } else {
            told(machine, kind, ns, job_id, task)
        };
    }
    let Some((_, declaration)) = machine.facts().declarations().current(ns) else {
        return Err(CommandError::UnknownNamespace(ns.into(), machine.namespaces().join(", ")).into());
    };
    let is_known = report::is_standard(kind) || declaration.rule(kind).is_some();
    if declaration.is_submit(kind) || kind.starts_with("Submit") && !is_known {
        let common = job_fields().into_iter();
        let common = common.filter(|field| declaration.spec.schema.iter().all(|own| own.key != field.key));
        return Ok(Role::Submission(ns.into(), declaration.spec.schema.iter().cloned().chain(common).collect()));
    }
    told(machine, kind, ns, job_id, task)
}

/// A report: by whom it counts, and its fields.
fn told(machine: &Machine, kind: &str, ns: &str, job_id: &str, task: Option<u32>) -> Result<Role, ApiError> {
    let facts = machine.facts();
    let job = view::find_job(facts, job_id)?;
    let submit = facts.job(&job).and_then(|job| job.submit.as_ref()).ok_or(CommandError::UnknownJob)?;
    if !ns.is_empty() && submit.ns != ns {
        return Err(ApiError::field("payload.ctx.ns_id", &format!("`{}`, the job's namespace", submit.ns), ns));
    }
    let declaration = submit.schema().and_then(|hash| facts.declarations().by_hash(&hash));
    let declaration = declaration.ok_or_else(|| CommandError::NotForAnyone(kind.into()))?;
    let (by, fields) = words(declaration, kind)?;
    let task = task.or_else(|| submit.tasks.first()).unwrap_or_default();
    Ok(Role::Report(Box::new(Said { namespace: submit.ns.clone(), job, task, by, fields })))
}

/// Who may use a kind, and its fields.
fn words(declaration: &Declaration, kind: &str) -> Result<(Speaker, Vec<FieldReq>), CommandError> {
    let rule = declaration.rule(kind);
    if rule.is_none() && !report::is_standard(kind) {
        // Whatever it says: the kind is unknown.
        return match declaration.check_event(kind, &WorkSpec::new()) {
            Err(error) => Err(error.into()),
            Ok(_) => Err(CommandError::Event(EventError::Submission(kind.into()))),
        };
    }
    let mut fields = rule.map(|rule| rule.fields.clone()).unwrap_or_default();
    if kind == report::FINISHED {
        fields.extend(report::FIELDS.iter().map(|key| {
            let field_type = match *key {
                "reason" | "broke" => FieldType::Text { bytes_max: 4_096 },
                "timed_out" | "cancelled" | "lost" => FieldType::Bool,
                _ => FieldType::Int { min: i64::MIN, max: i64::MAX },
            };
            FieldReq::optional(key, field_type)
        }));
    }
    Ok((rule.map(|rule| rule.by).unwrap_or_default(), fields))
}

async fn submit(api: &Api, namespace: SmolStr, kind: SmolStr, ctx: Ctx, spec: WorkSpec) -> Result<Ingested, ApiError> {
    let alias = SmolStr::from(ctx.job_id);
    let turn = Turn::take(api, &alias).await?;
    let submission = Submission {
        ns: namespace.clone(),
        kind,
        tasks: IntervalSet::one(0),
        priority: ctx.priority,
        spec,
        ack: AckLevel::Remote1,
    };
    let submitted = submit_as(api, alias, submission).await;
    turn.finish();
    told_of(api, namespace, submitted?).await
}

/// The job of that name: the one there is, or a new one.
async fn submit_as(api: &Api, alias: SmolStr, mut submission: Submission) -> Result<JobId, ApiError> {
    let asked = alias.clone();
    let known = move |machine: &mut Machine, _now: Now| {
        let job = machine.facts().job_called(&asked)?;
        let of = machine.facts().job(&job)?.submit.as_ref()?.ns.clone();
        Some((job, of))
    };
    match api.ask(known).await? {
        Some((job, of)) if of == submission.ns => Ok(job),
        Some((_, of)) => {
            let reason = format!("it is of namespace `{of}`");
            Err(ApiError::Taken { what: "job", name: alias.to_string(), reason })
        }
        None => {
            submission.spec = submission.spec.with("alias", Value::Text(alias));
            match api.ctx.handle.command(Command::Submit(Box::new(submission))).await? {
                Reply::Submitted { job, .. } => Ok(job),
                Reply::Error(error) => Err(error.into()),
                Reply::Cancelled | Reply::Declared { .. } | Reply::Noted | Reply::Imported(_) => {
                    Err(Stopped::Gone.into())
                }
            }
        }
    }
}

async fn say(api: &Api, said: Said, kind: SmolStr, spec: WorkSpec) -> Result<Ingested, ApiError> {
    let Said { namespace, job, task, by, .. } = said;
    let reply = match (by, &api.ctx.generators) {
        (Speaker::Anyone, _) => Some(api.ctx.handle.command(Command::Remark { job, kind, spec }).await),
        (Speaker::Executor, Some(generators)) => generators.report(job, task, kind, spec).await,
        (Speaker::Executor, None) => None,
    };
    match reply.ok_or(CommandError::NotHeld)?? {
        Reply::Noted => told_of(api, namespace, job).await,
        Reply::Error(error) => Err(error.into()),
        Reply::Cancelled | Reply::Declared { .. } | Reply::Submitted { .. } | Reply::Imported(_) => {
            Err(Stopped::Gone.into())
        }
    }
}

async fn told_of(api: &Api, namespace: SmolStr, job: JobId) -> Result<Ingested, ApiError> {
    let name = move |machine: &mut Machine, _now: Now| view::job_name(machine.facts(), &job);
    Ok(Ingested { namespace, job: api.ask(name).await? })
}
