//! Submissions: AssignJob and CancelJob, answered by whichever node is asked.
//!
//! Invariants: one job id is one job, however often it is assigned and wherever, as soon as the nodes have heard of each other; at this node at once. An assignment is
//! accepted when the job is durable here and, where there is another node, there. A refused one changed nothing.
//! Does not: need a gateway, or wait for the job.

use smol_str::SmolStr;
use starling_core::event::{Value, WorkSpec};
use starling_core::facts::view;
use starling_core::ids::JobId;
use starling_core::lattice::IntervalSet;
use starling_core::limits;
use starling_core::machine::{AckLevel, Command, CommandError, Machine, Reply, Submission};
use starling_core::namespace::batch;
use starling_core::time::Now;
use starling_proto::hwp::AssignJobRequest;
use tonic::Status;

use super::{Edge, refusal};
use crate::driver::{Handle, Stopped};
use crate::hwp::id::AssignmentId;

/// What the schema allows for an alias and a name.
const NAME_BYTES_MAX: usize = 128;
/// Longest id that is looked up: an assignment's, with room.
const ID_BYTES_MAX: usize = 256;

/// Submits a job under the id that the caller chose, or finds that it was submitted.
///
/// Cancel safety: it is submitted even if the caller leaves.
pub(super) async fn assign(edge: &Edge, request: AssignJobRequest) -> Result<(), Status> {
    check(&request)?;
    let alias = SmolStr::from(request.job_id.as_str());
    let turn = edge.turns.take(&alias).await;
    let (handle, spec) = (edge.handle.clone(), spec(request));
    // The turn must last until the driver has answered, whether or not anybody waits for it.
    let submitting = edge.runtime.spawn(async move {
        let _turn = turn;
        submit(&handle, alias, spec).await
    });
    submitting.await.map_err(|_panicked| Status::internal("the submission failed; see the node's log"))?
}

/// Cancels a job of any node. One that has finished stays as it is.
///
/// Cancel safety: once the driver has the command, it is carried out.
pub(super) async fn cancel(edge: &Edge, job_id: String) -> Result<(), Status> {
    let job = find(&edge.handle, job_id).await?;
    match edge.handle.command(Command::Cancel(job)).await.map_err(refusal::stopped)? {
        Reply::Error(CommandError::AlreadyFinished) => Ok(()),
        Reply::Error(error) => Err(refusal::command(&error)),
        Reply::Cancelled | Reply::Submitted { .. } | Reply::Declared { .. } | Reply::Noted | Reply::Imported(_) => {
            Ok(())
        }
    }
}

/// The job that an id chosen by a client, or one that people see, stands for.
///
/// Cancel safety: cancel safe.
pub(super) async fn find(handle: &Handle, job_id: String) -> Result<JobId, Status> {
    if job_id.is_empty() || job_id.len() > ID_BYTES_MAX {
        return Err(refusal::field("job_id", &format!("an id of 1 to {ID_BYTES_MAX} bytes"), &job_id));
    }
    let find = move |machine: &mut Machine, _now: Now| view::find_job(machine.facts(), &job_id);
    handle.ask(find).await.map_err(refusal::stopped)?.map_err(|error| refusal::unknown(&error))
}

fn check(request: &AssignJobRequest) -> Result<(), Status> {
    let AssignJobRequest { job_id, name, command, .. } = request;
    let is_name = !job_id.trim().is_empty() && !job_id.contains(char::is_control);
    if !is_name || job_id.len() > NAME_BYTES_MAX {
        let expected = format!("an id of your own choice for the job, of 1 to {NAME_BYTES_MAX} bytes");
        return Err(refusal::field("job_id", &expected, job_id));
    }
    if AssignmentId::parse(job_id).is_some() {
        let expected = "an id of your own choice, not one by which Starling assigns tasks to workers";
        return Err(refusal::field("job_id", expected, job_id));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(refusal::field("name", &format!("at most {NAME_BYTES_MAX} bytes"), name));
    }
    if command.first().is_none_or(String::is_empty) {
        return Err(refusal::field("command", "a program and its arguments", &command.join(" ")));
    }
    if let Some(word) = command.iter().find(|word| word.contains('\0')) {
        return Err(refusal::field("command", "words without NUL", word));
    }
    if command.len() > limits::COMMAND_WORDS_MAX {
        let expected = format!("at most {} words", limits::COMMAND_WORDS_MAX);
        return Err(refusal::field("command", &expected, &command.len().to_string()));
    }
    Ok(())
}

/// The spec that an assignment stands for: equal assignments have equal specs.
fn spec(request: AssignJobRequest) -> WorkSpec {
    let AssignJobRequest { job_id, name, image, command } = request;
    let name = if name.is_empty() { program(&command) } else { name };
    let command = Value::List(command.into_iter().map(Value::text).collect());
    let spec = WorkSpec::new().with("alias", Value::text(job_id)).with("name", Value::text(name));
    let spec = spec.with("command", command);
    if image.is_empty() { spec } else { spec.with("image", Value::text(image)) }
}

/// The file name of the program.
fn program(command: &[String]) -> String {
    let program = command.first().map_or("", String::as_str);
    let name = program.rsplit('/').find(|part| !part.is_empty()).unwrap_or(program);
    name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

async fn submit(handle: &Handle, alias: SmolStr, spec: WorkSpec) -> Result<(), Status> {
    let submission = Submission {
        ns: SmolStr::new_static(batch::NAME),
        kind: SmolStr::new_static(batch::SUBMIT),
        tasks: IntervalSet::one(0),
        priority: 0,
        spec: spec.clone(),
        ack: AckLevel::Remote1,
    };
    match handle.command(Command::Submit(Box::new(submission))).await.map_err(refusal::stopped)? {
        Reply::Submitted { fresh: true, .. } => Ok(()),
        Reply::Submitted { job, fresh: false, .. } => same(handle, job, alias, spec).await,
        Reply::Error(error) => Err(refusal::command(&error)),
        Reply::Cancelled | Reply::Declared { .. } | Reply::Noted | Reply::Imported(_) => {
            Err(refusal::stopped(Stopped::Gone))
        }
    }
}

/// Whether the job that has the id is the one that is assigned.
async fn same(handle: &Handle, job: JobId, alias: SmolStr, spec: WorkSpec) -> Result<(), Status> {
    let differs = move |machine: &mut Machine, _now: Now| {
        let facts = machine.facts();
        let submit = facts.job(&job).and_then(|job| job.submit.as_ref());
        let is_same = submit.is_some_and(|submit| submit.ns == batch::NAME && submit.spec() == spec);
        (!is_same).then(|| view::job_name(facts, &job))
    };
    match handle.ask(differs).await.map_err(refusal::stopped)? {
        None => Ok(()),
        Some(other) => Err(Status::already_exists(format!(
            "job_id: `{alias}` is the id of another job, {other}, with another name, image or command; choose another id"
        ))),
    }
}
