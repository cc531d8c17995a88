//! `submit`, and `sim submit` after it: turns the command line into a submission and reports its id.
//!
//! Invariants: nothing is sent unless every value is readable and checked; the request carries a
//! random id, so that a node can recognise a repeated call.
//! Does not: follow output (`run`).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use starling_proto::Word as _;
use starling_proto::v1::{AckLevel, SubmitReply, SubmitRequest};

use super::args::{Ack, DemandArgs, ManyArgs, SubmitArgs, TaskArgs};
use super::connect::{Client, call};
use super::error::{CliError, EXIT_OK};
use super::output::Format;
use super::units::{ArraySpec, EnvEntry};
use super::{Session, units, wait};

/// Bytes of stdin or lines that fit into one request, with room for the rest of it.
const INPUT_BYTES_MAX: u64 = 3 << 20;

/// One line of `--json`.
#[derive(Serialize)]
struct Submitted<'a> {
    job: &'a str,
    tasks: u32,
    acked: &'static str,
    warning: &'a str,
    known: bool,
}

/// Runs the verb; with `--wait` returns the job's exit code.
pub(crate) async fn submit(session: &Session<'_>, args: SubmitArgs) -> Result<u8, CliError> {
    let SubmitArgs { many, task } = args;
    let request = request_of(task, &many)?;
    hand_in(session, request, many).await
}

/// Submits as many tasks of a request as were asked for, and reports; with `--wait` returns the job's exit code.
pub(crate) async fn hand_in(session: &Session<'_>, request: SubmitRequest, many: ManyArgs) -> Result<u8, CliError> {
    let out = session.out;
    let (wait_for_end, parsable) = (many.wait, many.parsable);
    if let Some(index) = many.array.as_ref().and_then(ArraySpec::only_index) {
        out.note(&lone_index_note(index));
    }
    let request = multiply(request, many)?;
    let mut client = session.open().await?;
    let reply = send(&mut client, request).await?;
    if !reply.warning.is_empty() {
        out.warn(&reply.warning);
    }
    match (out.format(), parsable) {
        (Format::Json, _) => out.json(&[Submitted {
            job: &reply.job,
            tasks: reply.tasks,
            acked: reply.acked().word(),
            warning: &reply.warning,
            known: reply.known,
        }])?,
        (Format::Human, true) => out.line(&reply.job)?,
        (Format::Human, false) => out.line(&sentence(&reply))?,
    }
    if !wait_for_end {
        return Ok(EXIT_OK);
    }
    let job = wait::one(session, client, reply.job, wait::Report::Quiet).await?;
    out.note(&wait::sentence(&job));
    Ok(super::error::job_exit_code(&job))
}

/// Sends a submission.
pub(crate) async fn send(client: &mut Client, request: SubmitRequest) -> Result<SubmitReply, CliError> {
    call(client.submit(request)).await
}

fn sentence(reply: &SubmitReply) -> String {
    if reply.known {
        return format!("{} has this alias already: nothing was submitted", reply.job);
    }
    let tasks =
        if reply.tasks == 1 { "1 task".to_owned() } else { format!("{} tasks", units::count(reply.tasks.into())) };
    let safety = match reply.acked() {
        AckLevel::Remote1 => "safe on two nodes",
        AckLevel::Local => "safe on this node alone",
        AckLevel::Default => "accepted",
    };
    format!("submitted {}: {tasks}, {safety}", reply.job)
}

/// The request of `submit` for one task. What clap cannot see is checked here: these flags have other verbs too.
pub(crate) fn request_of(task: TaskArgs, many: &ManyArgs) -> Result<SubmitRequest, CliError> {
    if many.each_line.is_some() && task.ns.is_some() {
        return Err(CliError::Usage {
            message: "--each-line cannot be used with --ns".to_owned(),
            hint: "lines are for commands; give the namespace an array and its fields".to_owned(),
        });
    }
    let reads_stdin = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
    if reads_stdin(&many.each_line) && reads_stdin(&task.stdin) {
        return Err(CliError::Usage {
            message: "--each-line - and --stdin - both read standard input".to_owned(),
            hint: "put one of them into a file".to_owned(),
        });
    }
    task_request(task)
}

/// Makes it as many tasks as were asked for.
pub(crate) fn multiply(mut request: SubmitRequest, many: ManyArgs) -> Result<SubmitRequest, CliError> {
    if let Some(array) = many.array {
        request.array = array.ranges();
    }
    if let Some(path) = many.each_line {
        request.each_line = lines_of(&path, &read_input(&path)?)?;
    }
    Ok(request)
}

/// The part of the request that `submit` and `run` share.
pub(crate) fn task_request(args: TaskArgs) -> Result<SubmitRequest, CliError> {
    let stdin = match &args.stdin {
        Some(path) => read_input(path)?,
        None => Vec::new(),
    };
    let request = demand_request(args.demand, args.env)?;
    // Other namespaces say themselves whether they have a directory.
    let cwd = if args.ns.is_some() { String::new() } else { request.cwd };
    let (ns, fields, command) = (args.ns.unwrap_or_default(), args.fields, args.command);
    let (constraint, image) = (args.constraint, args.image.unwrap_or_default());
    Ok(SubmitRequest { ns, fields, command, cwd, stdin, constraint, image, ..request })
}

/// The part of the request that all tasks share.
pub(crate) fn demand_request(args: DemandArgs, variables: Vec<EnvEntry>) -> Result<SubmitRequest, CliError> {
    let ack = match args.ack {
        None => AckLevel::Default,
        Some(Ack::Local) => AckLevel::Local,
        Some(Ack::Remote1) => AckLevel::Remote1,
    };
    Ok(SubmitRequest {
        name: args.name.unwrap_or_default(),
        cpus_milli: args.cpus.map(|cpus| cpus.0),
        mem_bytes: args.mem.map_or(0, |mem| mem.0),
        env: variables.into_iter().map(|entry| (entry.key, entry.value)).collect(),
        cwd: directory(args.chdir)?,
        alias: args.alias.unwrap_or_default(),
        priority: args.priority,
        retries: args.retries,
        timeout_ms: args.timeout.map_or(0, |timeout| timeout.0),
        node: args.node.unwrap_or_default(),
        request_id: rand::random::<[u8; 16]>().to_vec(),
        ack: ack.into(),
        ..SubmitRequest::default()
    })
}

/// The absolute working directory: the caller's, or `chdir` as seen from it.
fn directory(chdir: Option<PathBuf>) -> Result<String, CliError> {
    let here = || std::env::current_dir().map_err(|source| CliError::File { path: PathBuf::from("."), source });
    let path = match chdir {
        Some(path) if path.is_absolute() => path,
        Some(path) => here()?.join(path),
        None => here()?,
    };
    path.into_os_string().into_string().map_err(|path| CliError::Usage {
        message: format!("the working directory {} is not UTF-8", Path::new(&path).display()),
        hint: "choose another one with -C".to_owned(),
    })
}

/// A file's bytes, or those of standard input for `-`.
pub(crate) fn read_input(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let limit = INPUT_BYTES_MAX + 1;
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|source| CliError::File { path: path.to_owned(), source })?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > INPUT_BYTES_MAX {
        return Err(CliError::Usage {
            message: format!("{} holds more than {}", path.display(), units::size(INPUT_BYTES_MAX)),
            hint: "put the data where every node can read it, and name it in the command".to_owned(),
        });
    }
    Ok(bytes)
}

/// The lines of a file, empty ones included; a final newline starts no line.
fn lines_of(path: &Path, bytes: &[u8]) -> Result<Vec<String>, CliError> {
    let mut lines = Vec::new();
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if body.is_empty() {
        return Err(CliError::Usage {
            message: format!("{} holds no line", path.display()),
            hint: "each line becomes one task".to_owned(),
        });
    }
    for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
        match std::str::from_utf8(line) {
            Ok(text) if !text.contains('\0') => lines.push(text.to_owned()),
            Ok(_) | Err(_) => {
                return Err(CliError::Usage {
                    message: format!("line {} of {} is not text", index + 1, path.display()),
                    hint: "a line is handed to its task in STARLING_LINE: it must be UTF-8 \
                           without NUL"
                        .to_owned(),
                });
            }
        }
    }
    Ok(lines)
}

/// What a lone array index probably was not meant to be.
fn lone_index_note(index: u32) -> String {
    match index {
        0 | 1 => format!("one task with index {index}"),
        _ => format!("one task with index {index}; for {index} tasks write 1-{index}"),
    }
}
