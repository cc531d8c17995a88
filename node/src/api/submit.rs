//! Submit: from a request to a submission, and the acknowledgement back.
//!
//! Invariants: a refused request changed nothing; all its wrong fields are named at once, except
//! those that only the namespace's schema knows; the level told is the level reached.
//! Does not: know when a submission is durable (the Machine does).

use starling_core::event::{Value, WorkSpec};
use starling_core::facts::view;
use starling_core::lattice::{IntervalSet, Range};
use starling_core::limits;
use starling_core::machine::{self, Command, CommandError, Machine, Reply, Submission};
use starling_core::resources::Resources;
use starling_core::time::Now;
use starling_proto::v1::{AckLevel, FieldViolation, SubmitReply, SubmitRequest};

use super::context::Api;
use super::convert::{clamp, seen};
use super::reason;
use super::spec::{self, CPU_MILLI, Schema};
use super::status::{ApiError, violation};

const DEFAULT_NAMESPACE: &str = "batch";
/// What the schema allows for a name; a longer one that nobody chose is cut.
const NAME_BYTES_MAX: usize = 128;

/// Accepts one job.
///
/// Cancel safety: once the driver has the command, the job is submitted even if the caller leaves.
pub(super) async fn submit(api: &Api, request: SubmitRequest) -> Result<SubmitReply, ApiError> {
    let ack = match request.ack() {
        AckLevel::Local => machine::AckLevel::Local,
        // Falls back to local where there is no other node.
        AckLevel::Default | AckLevel::Remote1 => machine::AckLevel::Remote1,
    };
    let tasks = check(&request)?;
    let count = clamp(tasks.len());
    let ns = if request.ns.is_empty() { DEFAULT_NAMESPACE.to_owned() } else { request.ns.clone() };
    let (priority, own_words) = (request.priority, spec::has_own_words(&request));
    let (spec, cpu_milli) = if own_words {
        let schema = Schema::ask(api, &ns).await?;
        (schema.read(request)?, schema.cpu_milli())
    } else {
        (batch_spec(request), CPU_MILLI)
    };
    let need = Resources {
        cpu_milli: spec.uint("cpu").unwrap_or(cpu_milli),
        mem_bytes: spec.uint("memory").unwrap_or_default(),
    };
    let node = spec.text("node").map(ToString::to_string).unwrap_or_default();
    let submission = Submission { ns: ns.as_str().into(), kind: "".into(), tasks, priority, spec, ack };
    let command = Command::Submit(Box::new(submission));
    let (job, level, fresh) = match api.ctx.handle.command(command).await? {
        Reply::Submitted { job, level, fresh } => (job, level, fresh),
        // In the namespace's own words, as the request has them.
        Reply::Error(CommandError::Schema(error)) if own_words => {
            return Err(ApiError::field(&error.field, &error.expected, &error.found));
        }
        Reply::Error(error) => return Err(error.into()),
        Reply::Cancelled | Reply::Declared { .. } | Reply::Noted => return Err(crate::driver::Stopped::Gone.into()),
    };
    let told = move |machine: &mut Machine, now: Now| SubmitReply {
        job: view::job_name(machine.facts(), &job),
        acked: match level {
            machine::AckLevel::Local => AckLevel::Local,
            machine::AckLevel::Remote1 => AckLevel::Remote1,
        }
        .into(),
        tasks: match machine.facts().job(&job).and_then(|job| job.submit.as_ref()) {
            Some(submit) if !fresh => clamp(submit.tasks.len()),
            Some(_) | None => count,
        },
        warning: if fresh { warning(machine, now, need, &node) } else { String::new() },
        known: !fresh,
        view: Some(seen(machine, now)),
    };
    api.ask(told).await
}

/// The request's tasks, if all its fields are well formed.
fn check(request: &SubmitRequest) -> Result<IntervalSet, ApiError> {
    let mut wrong = Vec::new();
    let program = request.command.first();
    if program.is_none_or(String::is_empty) && !spec::has_own_words(request) {
        let got = if program.is_none() { "nothing" } else { "an empty program" };
        wrong.push(violation("command", "a program and its arguments", got));
    }
    let nul = |text: &str| text.contains('\0');
    if let Some(word) = request.command.iter().find(|word| nul(word)) {
        wrong.push(violation("command", "words without NUL", &word.escape_debug().to_string()));
    }
    for (key, value) in &request.env {
        if key.is_empty() || key.contains('=') || nul(key) || nul(value) {
            let expected = "a name without `=`, and neither name nor value with NUL";
            wrong.push(violation(&format!("env.{key}"), expected, key));
        }
    }
    if let Some(line) = request.each_line.iter().find(|line| nul(line)) {
        wrong.push(violation("each_line", "lines without NUL", &line.escape_debug().to_string()));
    }
    if !request.cwd.is_empty() && !request.cwd.starts_with('/') {
        // Relative to what, on a node that the caller does not know?
        wrong.push(violation("cwd", "an absolute path", &request.cwd));
    }
    if AckLevel::try_from(request.ack).is_err() {
        wrong.push(violation("ack", "default, local or remote1", &request.ack.to_string()));
    }
    let tasks = tasks(request).map_err(|error| wrong.push(error)).unwrap_or_default();
    if !wrong.is_empty() {
        return Err(ApiError::Fields(wrong));
    }
    // Together they must fit one event, so the clearest answer names the larger one.
    let lines: usize = request.each_line.iter().map(String::len).sum();
    for (what, bytes) in [("stdin", request.stdin.len()), ("each_line", lines)] {
        if bytes > limits::EVENT_BYTES_MAX {
            return Err(ApiError::TooLarge { what, bytes });
        }
    }
    Ok(tasks)
}

fn tasks(request: &SubmitRequest) -> Result<IntervalSet, FieldViolation> {
    if request.array.is_empty() {
        let last = request.each_line.len().saturating_sub(1);
        return Ok(IntervalSet::from_range(0, clamp(last)));
    }
    if !request.each_line.is_empty() {
        return Err(violation("array", "nothing beside each_line", "both"));
    }
    // Neighbours that touch are one range.
    let mut ranges: Vec<Range> = Vec::new();
    for range in &request.array {
        match ranges.last_mut() {
            Some(last) if last.end.checked_add(1) == Some(range.start) && range.end >= range.start => {
                last.end = range.end;
            }
            Some(_) | None => ranges.push(Range { start: range.start, end: range.end }),
        }
    }
    let wrong = |pair: &[Range]| pair[0].end >= pair[1].start;
    IntervalSet::from_ranges(ranges.clone()).map_err(|_not_canonical| {
        let got = ranges
            .iter()
            .find(|range| range.start > range.end)
            .map(|range| format!("{}-{}", range.start, range.end))
            .or_else(|| {
                let pair = ranges.windows(2).find(|pair| wrong(pair))?;
                Some(format!("{}-{} before {}-{}", pair[0].start, pair[0].end, pair[1].start, pair[1].end))
            });
        violation("array", "ascending, disjoint ranges", &got.unwrap_or_default())
    })
}

/// The fields of namespace `batch`. What was not given is left out.
fn batch_spec(request: SubmitRequest) -> WorkSpec {
    let texts = |texts: Vec<String>| Value::List(texts.into_iter().map(Value::text).collect());
    let mut spec = WorkSpec::new().with("name", Value::text(name(&request)));
    let mut add = |key: &str, is_given: Option<Value>| {
        if let Some(value) = is_given {
            spec.0.insert(key.into(), value);
        }
    };
    for (key, value) in spec::common(&request) {
        add(key, Some(value));
    }
    let text = |text: String| (!text.is_empty()).then(|| Value::text(text));
    let bytes = |bytes: Vec<u8>| (!bytes.is_empty()).then_some(Value::Bytes(bytes));
    add("command", Some(texts(request.command)));
    let env = request.env.into_iter();
    let env: std::collections::BTreeMap<_, _> = env.map(|(key, value)| (key.into(), Value::text(value))).collect();
    add("env", (!env.is_empty()).then_some(Value::Map(env)));
    add("cwd", text(request.cwd));
    add("stdin", bytes(request.stdin));
    add("lines", (!request.each_line.is_empty()).then(|| texts(request.each_line)));
    spec
}

/// The name asked for, or the program's file name.
fn name(request: &SubmitRequest) -> String {
    if !request.name.is_empty() {
        return request.name.clone();
    }
    let program = request.command.first().map_or("", String::as_str);
    let name = program.rsplit('/').find(|part| !part.is_empty()).unwrap_or(program);
    name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

/// What the user should know although the job was accepted.
fn warning(machine: &Machine, now: Now, need: Resources, node: &str) -> String {
    let live = || machine.fleet().live(now.mono).map(|(_, peer)| &peer.presence);
    if !node.is_empty() {
        let known = machine.fleet().peers().map(|(_, peer)| &peer.presence);
        let roster = machine.facts().nodes().any(|(_, info)| info.name() == node);
        if !roster && !known.into_iter().any(|presence| presence.name == node) {
            return format!("no node is called {node}; the job waits for one");
        }
    }
    let wanted = |name: &str| node.is_empty() || name == node;
    let mut candidates = live().filter(|presence| wanted(&presence.name)).peekable();
    if candidates.peek().is_none() {
        return if node.is_empty() { String::new() } else { format!("node {node} is not alive; the job waits for it") };
    }
    if candidates.any(|presence| presence.total.covers(&need)) {
        return String::new();
    }
    if node.is_empty() {
        format!("no live node has {}; the job waits", reason::resources(need))
    } else {
        format!("node {node} has less than {}; the job waits", reason::resources(need))
    }
}
