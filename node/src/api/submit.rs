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
use starling_core::namespace::{batch, simulation};
use starling_core::resources::Resources;
use starling_core::schedule::Label;
use starling_core::time::Now;
use starling_proto::v1::{AckLevel, FieldViolation, Simulation, SubmitReply, SubmitRequest};

use super::context::Api;
use super::convert::{clamp, seen};
use super::reason;
use super::spec::{self, CPU_MILLI, Schema};
use super::status::{ApiError, violation};

/// What the schema allows for a wait.
const PORT_WAIT_MS_MAX: u64 = 86_400_000;
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
    let ns = match (request.ns.as_str(), &request.simulation) {
        ("", Some(_)) => simulation::NAME.to_owned(),
        ("", None) => batch::NAME.to_owned(),
        (named, _) => named.to_owned(),
    };
    let (priority, own_words) = (request.priority, spec::has_own_words(&request));
    let (spec, cpu_milli) = if own_words {
        let schema = Schema::ask(api, &ns).await?;
        (schema.read(request)?, schema.cpu_milli())
    } else {
        (process_spec(request), CPU_MILLI)
    };
    let need = Resources {
        cpu_milli: spec.uint("cpu").unwrap_or(cpu_milli),
        mem_bytes: spec.uint("memory").unwrap_or_default(),
    };
    let node = spec.text("node").map(ToString::to_string).unwrap_or_default();
    let labels = wanted_labels(&spec);
    let submission = Submission { ns: ns.as_str().into(), kind: "".into(), tasks, priority, spec, ack };
    let command = Command::Submit(Box::new(submission));
    let (job, level, fresh) = match api.ctx.handle.command(command).await? {
        Reply::Submitted { job, level, fresh } => (job, level, fresh),
        // In the namespace's own words, as the request has them.
        Reply::Error(CommandError::Schema(error)) if own_words => {
            return Err(ApiError::field(&error.field, &error.expected, &error.found));
        }
        Reply::Error(error) => return Err(error.into()),
        Reply::Cancelled | Reply::Declared { .. } | Reply::Noted | Reply::Imported(_) => {
            return Err(crate::driver::Stopped::Gone.into());
        }
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
        warning: if fresh { warning(machine, now, need, &node, &labels) } else { String::new() },
        known: !fresh,
        view: Some(seen(machine, now)),
    };
    api.ask(told).await
}

/// The request's tasks, if all its fields are well formed.
fn check(request: &SubmitRequest) -> Result<IntervalSet, ApiError> {
    let mut wrong = Vec::new();
    match &request.simulation {
        Some(simulation) => wrong.extend(check_simulation(request, simulation)),
        None if spec::has_own_words(request) => {}
        None => wrong.extend(check_command("command", &request.command)),
    }
    let nul = |text: &str| text.contains('\0');
    for (key, value) in &request.env {
        if key.is_empty() || key.contains('=') || nul(key) || nul(value) {
            let expected = "a name without `=`, and neither name nor value with NUL";
            wrong.push(violation(&format!("env.{key}"), expected, key));
        }
    }
    if let Some(line) = request.each_line.iter().find(|line| nul(line)) {
        wrong.push(violation("each_line", "lines without NUL", &line.escape_debug().to_string()));
    }
    wrong.extend(check_labels(&request.constraint));
    if nul(&request.image) || request.image.starts_with('-') {
        wrong.push(violation("image", "the name of a container image", &request.image.escape_debug().to_string()));
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

/// A command that cannot be run.
fn check_command(field: &str, command: &[String]) -> Option<FieldViolation> {
    let program = command.first();
    if program.is_none_or(String::is_empty) {
        let got = if program.is_none() { "nothing" } else { "an empty program" };
        return Some(violation(field, "a program and its arguments", got));
    }
    let word = command.iter().find(|word| word.contains('\0'))?;
    Some(violation(field, "words without NUL", &word.escape_debug().to_string()))
}

/// Labels that are none, or too many.
fn check_labels(labels: &[String]) -> Vec<FieldViolation> {
    if labels.len() > limits::LABELS_MAX {
        let expected = format!("at most {} labels", limits::LABELS_MAX);
        return vec![violation("constraint", &expected, &labels.len().to_string())];
    }
    let read = |label: &String| Label::parse(label).err().map(|expected| violation("constraint", &expected, label));
    labels.iter().filter_map(read).collect()
}

/// What is wrong with a simulation, and with what it excludes.
fn check_simulation(request: &SubmitRequest, simulation: &Simulation) -> Vec<FieldViolation> {
    let mut wrong = Vec::new();
    if !request.ns.is_empty() && request.ns != simulation::NAME {
        wrong.push(violation("ns", "`simulation`, or nothing, beside simulation", &request.ns));
    }
    if !request.command.is_empty() {
        wrong.push(violation("command", "nothing beside simulation", &request.command.join(" ")));
    }
    if !request.stdin.is_empty() {
        wrong.push(violation("stdin", "nothing beside simulation", &format!("{} bytes", request.stdin.len())));
    }
    let own = [
        ("spec", request.spec.clone()),
        ("fields", request.fields.join(" ")),
        ("constraint", request.constraint.join(" ")),
        ("image", request.image.clone()),
    ];
    let given = own.into_iter().filter(|(_, words)| !words.is_empty());
    wrong.extend(given.map(|(field, words)| violation(field, "nothing beside simulation", &words)));
    wrong.extend(check_command("simulation.env_command", &simulation.env_command));
    wrong.extend(check_command("simulation.policy_command", &simulation.policy_command));
    if simulation.port_wait_ms > PORT_WAIT_MS_MAX {
        let expected = format!("at most {PORT_WAIT_MS_MAX}, or 0 for the default");
        wrong.push(violation("simulation.port_wait_ms", &expected, &simulation.port_wait_ms.to_string()));
    }
    wrong
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

/// The fields of namespaces `batch` and `simulation`, whose tasks are processes. What was not given is left out.
fn process_spec(request: SubmitRequest) -> WorkSpec {
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
    match request.simulation {
        None => add("command", Some(texts(request.command))),
        Some(simulation) => {
            add("env_cmd", Some(texts(simulation.env_command)));
            add("policy_cmd", Some(texts(simulation.policy_command)));
            let wait = simulation.port_wait_ms;
            add("port_wait_ms", (wait > 0).then(|| Value::int(wait)));
        }
    }
    let env = request.env.into_iter();
    let env: std::collections::BTreeMap<_, _> = env.map(|(key, value)| (key.into(), Value::text(value))).collect();
    add("env", (!env.is_empty()).then_some(Value::Map(env)));
    add("cwd", text(request.cwd));
    add("image", text(request.image));
    add("constraint", (!request.constraint.is_empty()).then(|| texts(request.constraint)));
    add("stdin", bytes(request.stdin));
    add("lines", (!request.each_line.is_empty()).then(|| texts(request.each_line)));
    spec
}

/// The name asked for, or the file name of the program, of a simulation the policy's.
fn name(request: &SubmitRequest) -> String {
    if !request.name.is_empty() {
        return request.name.clone();
    }
    let command = request.simulation.as_ref().map_or(&request.command, |simulation| &simulation.policy_command);
    let program = command.first().map_or("", String::as_str);
    let name = program.rsplit('/').find(|part| !part.is_empty()).unwrap_or(program);
    name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

/// The labels that a spec asks for.
fn wanted_labels(spec: &WorkSpec) -> Vec<String> {
    let image = spec.text("image").filter(|image| !image.is_empty()).map(|_image| "docker".to_owned());
    spec.texts("constraint").map(ToString::to_string).chain(image).collect()
}

/// What the user should know although the job was accepted.
fn warning(machine: &Machine, now: Now, need: Resources, node: &str, labels: &[String]) -> String {
    let live = || machine.fleet().live(now.mono).map(|(_, peer)| &peer.presence);
    if !node.is_empty() {
        let known = machine.fleet().peers().map(|(_, peer)| &peer.presence);
        let roster = machine.facts().nodes().any(|(_, info)| info.name() == node);
        if !roster && !known.into_iter().any(|presence| presence.name == node) {
            return format!("no node is called {node}; the job waits for one");
        }
    }
    let wanted = |name: &str| node.is_empty() || name == node;
    let has = |there: &[Label]| labels.iter().all(|wanted| there.iter().any(|label| label.satisfies(wanted)));
    let nodes = || live().filter(|presence| wanted(&presence.name));
    // Pools have no name that a job could ask for.
    let pools = || live().filter(|_| node.is_empty()).flat_map(|presence| &presence.gateway.pools);
    if nodes().next().is_none() {
        return if node.is_empty() { String::new() } else { format!("node {node} is not alive; the job waits for it") };
    }
    let mut labelled = nodes().filter(|presence| has(&presence.labels)).map(|presence| presence.total).peekable();
    let mut in_pools = pools().filter(|pool| has(&pool.labels)).map(|pool| pool.room).peekable();
    if labelled.peek().is_none() && in_pools.peek().is_none() {
        let missing = if labels.len() == 1 { "label" } else { "all of labels" };
        let whose = if node.is_empty() {
            "no live node and no worker".to_owned()
        } else {
            format!("node {node} does not have")
        };
        let verb = if node.is_empty() { " has" } else { "" };
        return format!("{whose}{verb} {missing} {}; the job waits", labels.join(", "));
    }
    if labelled.chain(in_pools).any(|room| room.covers(&need)) {
        return String::new();
    }
    if node.is_empty() {
        format!("no live node has {}; the job waits", reason::resources(need))
    } else {
        format!("node {node} has less than {}; the job waits", reason::resources(need))
    }
}
