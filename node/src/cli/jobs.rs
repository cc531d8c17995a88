//! `jobs`, `job info`, `job explain` and `cancel`.
//!
//! Invariants: state words are Slurm-like capitals; a waiting job shows its reason where a running
//! one shows its nodes.
//! Does not: watch jobs (`wait`, `logs`).

use std::collections::BTreeMap;

use starling_proto::Word as _;
use starling_proto::v1::{
    Attempt, CancelRequest, Ending, IndexRange, JobDetail, JobRef, JobState, JobSummary, ListJobsRequest, TaskPort,
    Usage,
};

use super::args::{CancelArgs, JobsArgs};
use super::connect::call;
use super::error::{CliError, EXIT_FAILURE, EXIT_OK};
use super::output::Format;
use super::table::{Block, Cell, Flush, Table, Tone};
use super::{Session, units};

/// Node names shown in one cell.
const NODES_SHOWN: usize = 3;

/// Ports shown in one cell.
const PORTS_SHOWN: usize = 2;

/// Attempts shown by `job info`; the failed ones come first.
const ATTEMPTS_SHOWN: usize = 50;

/// The capitals a Slurm user knows.
pub(crate) fn state_word(state: JobState) -> &'static str {
    match state {
        JobState::Unknown => "UNKNOWN",
        JobState::Pending => "PENDING",
        JobState::Running => "RUNNING",
        JobState::Done => "DONE",
        JobState::Failed => "FAILED",
        JobState::Cancelled => "CANCELLED",
        JobState::Lost => "LOST",
    }
}

pub(crate) fn state_tone(state: JobState) -> Tone {
    match state {
        JobState::Unknown | JobState::Pending => Tone::Plain,
        JobState::Running => Tone::Busy,
        JobState::Done => Tone::Good,
        JobState::Failed | JobState::Lost => Tone::Bad,
        JobState::Cancelled => Tone::Faint,
    }
}

/// Lists jobs.
pub(crate) async fn list(session: &Session<'_>, args: JobsArgs) -> Result<u8, CliError> {
    let out = session.out;
    let request = ListJobsRequest {
        states: args.states.into_iter().map(Into::into).collect(),
        name: args.name.unwrap_or_default(),
        limit: if args.all { u32::MAX } else { args.limit },
        node: args.node.unwrap_or_default(),
        jobs: args.jobs,
        at_unix_ms: args.at.map_or(0, |at| at.0.max(1)),
    };
    let mut client = session.open().await?;
    let reply = call(client.list_jobs(request)).await?;
    match out.format() {
        Format::Json => out.json(&reply.jobs)?,
        Format::Human => out.table(&jobs_table(&reply.jobs))?,
    }
    let shown = reply.jobs.len();
    if usize::try_from(reply.total).is_ok_and(|total| total > shown) {
        out.note(&format!(
            "{} of {} jobs; --all shows the rest",
            units::count(u64::try_from(shown).unwrap_or(u64::MAX)),
            units::count(reply.total.into())
        ));
    }
    out.footer(reply.view.as_ref());
    Ok(EXIT_OK)
}

pub(crate) fn jobs_table(jobs: &[JobSummary]) -> Table {
    // Most clusters run commands under their own names only.
    let has_ns = jobs.iter().any(|job| !matches!(job.ns.as_str(), "" | "batch"));
    let has_alias = jobs.iter().any(|job| !job.alias.is_empty());
    let mut columns = vec![("JOBID", Flush::Left), ("NAME", Flush::Left)];
    columns.extend(has_ns.then_some(("NAMESPACE", Flush::Left)));
    columns.extend(has_alias.then_some(("ALIAS", Flush::Left)));
    columns.extend([
        ("STATE", Flush::Left),
        ("TASKS", Flush::Right),
        ("EXIT", Flush::Right),
        ("ELAPSED", Flush::Right),
        ("NODES(REASON)", Flush::Left),
    ]);
    let mut table = Table::new(&columns);
    for job in jobs {
        let done = job.counts.unwrap_or_default().done;
        let mut row = vec![Cell::new(&job.id, Tone::Strong), Cell::plain(&job.name)];
        row.extend(has_ns.then(|| Cell::plain(&job.ns)));
        row.extend(has_alias.then(|| Cell::plain(&job.alias)));
        row.extend([
            Cell::new(state_word(job.state()), state_tone(job.state())),
            Cell::plain(format!("{done}/{}", job.tasks)),
            Cell::plain(exit_text(job.exit, job.ending())),
            Cell::plain(units::duration(job.elapsed_ms)),
            Cell::plain(places(job)),
        ]);
        table.push(row);
    }
    table
}

fn exit_text(exit: Option<i32>, ending: Ending) -> String {
    match ending {
        Ending::TimedOut => "time".to_owned(),
        Ending::None
        | Ending::Exited
        | Ending::Signalled
        | Ending::Cancelled
        | Ending::NotStarted
        | Ending::Lost
        | Ending::Broke => exit.map(|exit| exit.to_string()).unwrap_or_default(),
    }
}

fn places(job: &JobSummary) -> String {
    let waits = job.nodes.is_empty() || job.state() == JobState::Pending;
    if waits && !job.reason.is_empty() {
        return format!("({})", job.reason);
    }
    let more = job.nodes.len().saturating_sub(NODES_SHOWN);
    let mut text = job.nodes[..job.nodes.len() - more].join(",");
    if more > 0 {
        text.push_str(&format!("+{more}"));
    }
    if !job.reason.is_empty() {
        text.push_str(&format!(" ({})", job.reason));
    }
    text
}

/// Shows everything known of one job.
pub(crate) async fn info(session: &Session<'_>, job: String) -> Result<u8, CliError> {
    let out = session.out;
    let mut client = session.open().await?;
    let detail = call(client.get_job(JobRef { job })).await?;
    match out.format() {
        Format::Json => out.json(std::slice::from_ref(&detail))?,
        Format::Human => {
            out.block(&info_block(&detail))?;
            if !detail.attempts.is_empty() {
                out.line("")?;
                out.table(&attempts_table(&detail.attempts))?;
                let more = detail.attempts.len().saturating_sub(ATTEMPTS_SHOWN);
                if more > 0 {
                    out.note(&format!("{more} more; --json shows all"));
                }
            }
        }
    }
    out.footer(detail.view.as_ref());
    Ok(EXIT_OK)
}

fn info_block(detail: &JobDetail) -> Block {
    let job = detail.summary.clone().unwrap_or_default();
    let counts = job.counts.unwrap_or_default();
    let mut block = Block::default();
    block
        .add("job", &job.id)
        .add("name", &job.name)
        .add("alias", &job.alias)
        .add("namespace", &job.ns)
        .add_toned("state", state_word(job.state()), state_tone(job.state()))
        .add("reason", &job.reason)
        .add("exit", exit_text(job.exit, job.ending()))
        .add(
            "tasks",
            format!(
                "{} ({} pending, {} running, {} done, {} failed, {} cancelled)",
                units::count(job.tasks.into()),
                units::count(counts.pending.into()),
                units::count(counts.running.into()),
                units::count(counts.done.into()),
                units::count(counts.failed.into()),
                units::count(counts.cancelled.into())
            ),
        )
        .add("indices", units::tasks(&detail.array))
        .add("fields", fields(&detail.spec))
        .add("phase", phase(detail))
        .add("registers", fields(&detail.registers))
        .add("labels", pairs(&detail.labels))
        .add("command", quote(&detail.command));
    if let Some(simulation) = &detail.simulation {
        block
            .add("env", quote(&simulation.env_command))
            .add("policy", quote(&simulation.policy_command))
            .add("port wait", limit(simulation.port_wait_ms));
    }
    block
        .add("directory", &detail.cwd)
        .add("variables", detail.env_names.join(" "))
        .add("cpus", units::cpus(detail.cpus_milli))
        .add("memory", units::size(detail.mem_bytes))
        .add("priority", nonzero(detail.priority.into()))
        .add("retries", nonzero(detail.retries.into()))
        .add("time limit", limit(detail.timeout_ms))
        .add("only on", &detail.node)
        .add("only where", detail.constraint.join(" "))
        .add("image", &detail.image)
        .add("owner", owner(detail, &job))
        .add("submitted", units::time(job.submitted_unix_ms))
        .add("started", units::time(job.started_unix_ms))
        .add("ended", units::time(job.ended_unix_ms))
        .add("elapsed", units::duration(job.elapsed_ms))
        .add("extra starts", nonzero(i64::try_from(detail.extra_starts).unwrap_or(i64::MAX)))
        .add("used", detail.usage.as_ref().map(used).unwrap_or_default());
    if let Some(seal) = &detail.seal {
        block.add(
            "sealed",
            format!(
                "{} of {} tasks by {}, term {}",
                units::count(seal.tasks.into()),
                units::count(job.tasks.into()),
                seal.by,
                seal.term
            ),
        );
    }
    for placement in &detail.placements {
        block.add("placed", format!("{} on {}", units::tasks(&placement.tasks), placement.node));
    }
    block
}

/// The owner, and whether it is the first.
fn owner(detail: &JobDetail, job: &JobSummary) -> String {
    if detail.owner_term > 1 {
        return format!("{}, term {}: it took over from one that was gone", job.owner, detail.owner_term);
    }
    job.owner.clone()
}

/// Of a declared namespace: the one phase that all tasks are in, or how many are in each.
fn phase(detail: &JobDetail) -> String {
    if detail.spec.is_empty() {
        return String::new();
    }
    match detail.phases.len() {
        1 => detail.phases.keys().cloned().collect(),
        _ => pairs(&detail.phases),
    }
}

fn pairs<T: std::fmt::Display>(map: &BTreeMap<String, T>) -> String {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(" ")
}

/// `2.1s cpu (2.0s user, 100ms system), 12M at most, 3.4s from start to end over 2 tasks`; what was not measured is left out.
fn used(usage: &Usage) -> String {
    let mut parts = Vec::new();
    let cpu_ms = usage.cpu_user_ms.saturating_add(usage.cpu_sys_ms);
    if cpu_ms > 0 {
        let [cpu, user, sys] = [cpu_ms, usage.cpu_user_ms, usage.cpu_sys_ms].map(units::duration);
        parts.push(format!("{cpu} cpu ({user} user, {sys} system)"));
    }
    if usage.max_rss_bytes > 0 {
        parts.push(format!("{} max rss", units::size(usage.max_rss_bytes)));
    }
    parts.push(format!("{} wall", units::duration(usage.wall_ms)));
    let over =
        if usage.tasks > 1 { format!(", {} tasks together", units::count(usage.tasks.into())) } else { String::new() };
    format!("{}{over}", parts.join(", "))
}

/// The fields of a declared namespace, as `-f` takes them.
fn fields(spec: &str) -> String {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(spec).unwrap_or_default();
    // Shown as the command line already.
    let shown = object.iter().filter(|(key, _)| *key != "command");
    let written = shown.map(|(key, value)| match value {
        serde_json::Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    });
    quote(&written.collect::<Vec<_>>())
}

fn nonzero(number: i64) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

fn limit(ms: u64) -> String {
    if ms == 0 { String::new() } else { units::duration(ms) }
}

/// The command as a shell would read it.
fn quote(command: &[String]) -> String {
    let plain = |symbol: char| symbol.is_ascii_alphanumeric() || "_-./=:,+@%".contains(symbol);
    let quoted: Vec<String> = command
        .iter()
        .map(|word| {
            if !word.is_empty() && word.chars().all(plain) {
                word.clone()
            } else {
                format!("'{}'", word.replace('\'', r"'\''"))
            }
        })
        .collect();
    quoted.join(" ")
}

pub(crate) fn attempts_table(attempts: &[Attempt]) -> Table {
    let mut columns = vec![
        ("TASKS", Flush::Left),
        ("ATTEMPT", Flush::Right),
        ("NODE", Flush::Left),
        ("STATE", Flush::Left),
        ("EXIT", Flush::Right),
        ("STARTED", Flush::Left),
        ("ELAPSED", Flush::Right),
        ("CPU", Flush::Right),
        ("MAXRSS", Flush::Right),
    ];
    let has_ports = attempts.iter().any(|attempt| !attempt.ports.is_empty());
    columns.extend(has_ports.then_some(("LISTENS", Flush::Left)));
    columns.push(("REASON", Flush::Left));
    let mut table = Table::new(&columns);
    let mut shown: Vec<&Attempt> = attempts.iter().collect();
    shown.sort_by_key(|attempt| match attempt.state() {
        JobState::Failed | JobState::Lost => 0,
        JobState::Cancelled => 1,
        JobState::Running | JobState::Pending | JobState::Unknown | JobState::Done => 2,
    });
    for attempt in shown.into_iter().take(ATTEMPTS_SHOWN) {
        let elapsed = if attempt.ended_unix_ms == 0 {
            String::new()
        } else {
            units::duration(attempt.ended_unix_ms.saturating_sub(attempt.started_unix_ms))
        };
        let (cpu, max_rss) = usage_texts(attempt);
        let mut row = vec![
            Cell::plain(units::tasks(&attempt.tasks)),
            Cell::plain(attempt.attempt.to_string()),
            Cell::plain(place(attempt)),
            Cell::new(state_word(attempt.state()), state_tone(attempt.state())),
            Cell::plain(exit_text(attempt.exit, attempt.ending())),
            Cell::plain(units::time(attempt.started_unix_ms)),
            Cell::plain(elapsed),
            Cell::plain(cpu),
            Cell::plain(max_rss),
        ];
        row.extend(has_ports.then(|| Cell::plain(ports_text(&attempt.ports))));
        row.push(Cell::plain(&attempt.reason));
        table.push(row);
    }
    table
}

/// `wren`, or `wren/w1` of a worker that node wren sponsors.
fn place(attempt: &Attempt) -> String {
    if attempt.worker.is_empty() { attempt.node.clone() } else { format!("{}/{}", attempt.node, attempt.worker) }
}

/// CPU time and highest memory; empty where not measured. `1.2s/8` is that of eight tasks, when it is not of these tasks alone.
fn usage_texts(attempt: &Attempt) -> (String, String) {
    let usage = attempt.usage.unwrap_or_default();
    let tasks: u64 =
        attempt.tasks.iter().map(|IndexRange { start, end }| u64::from(end.saturating_sub(*start)) + 1).sum();
    let over = if u64::from(usage.tasks) > tasks { format!("/{}", usage.tasks) } else { String::new() };
    let cpu_ms = usage.cpu_user_ms.saturating_add(usage.cpu_sys_ms);
    let some = |number: u64, text: String| if number == 0 { String::new() } else { text };
    (some(cpu_ms, units::duration(cpu_ms) + &over), some(usage.max_rss_bytes, units::size(usage.max_rss_bytes)))
}

/// `127.0.0.1:40001,127.0.0.1:40002+3`, in the order of the tasks.
fn ports_text(ports: &[TaskPort]) -> String {
    let address = |port: &TaskPort| {
        // The brackets keep an IPv6 address apart from its port.
        if port.host.contains(':') {
            format!("[{}]:{}", port.host, port.port)
        } else {
            format!("{}:{}", port.host, port.port)
        }
    };
    let shown: Vec<String> = ports.iter().take(PORTS_SHOWN).map(address).collect();
    let more = ports.len().saturating_sub(PORTS_SHOWN);
    let rest = if more > 0 { format!("+{more}") } else { String::new() };
    shown.join(",") + &rest
}

/// Says why a job waits, or what happened to it.
pub(crate) async fn explain(session: &Session<'_>, job: String) -> Result<u8, CliError> {
    let out = session.out;
    let mut client = session.open().await?;
    let reply = call(client.explain(JobRef { job })).await?;
    match out.format() {
        Format::Json => out.json(std::slice::from_ref(&reply))?,
        Format::Human => {
            let state = out.paint(state_word(reply.state()), state_tone(reply.state()));
            out.line(&format!("{} is {state}: {}", reply.job, reply.summary))?;
            for note in &reply.notes {
                out.line(&format!("  {note}"))?;
            }
            if !reply.nodes.is_empty() {
                let mut table = Table::new(&[("NODE", Flush::Left), ("TAKES IT", Flush::Left), ("WHY", Flush::Left)]);
                for node in &reply.nodes {
                    let (word, tone) = if node.eligible { ("yes", Tone::Good) } else { ("no", Tone::Bad) };
                    table.push(vec![Cell::plain(&node.node), Cell::new(word, tone), Cell::plain(&node.reason)]);
                }
                out.table(&table)?;
            }
        }
    }
    out.footer(reply.view.as_ref());
    Ok(EXIT_OK)
}

/// Asks for jobs to stop; fails when none of them was there to stop.
pub(crate) async fn cancel(session: &Session<'_>, args: CancelArgs) -> Result<u8, CliError> {
    let out = session.out;
    let request = CancelRequest { jobs: args.jobs, reason: args.reason.unwrap_or_default() };
    let mut client = session.open().await?;
    let reply = call(client.cancel(request)).await?;
    match out.format() {
        Format::Json => out.json(&reply.results)?,
        Format::Human => {
            for result in &reply.results {
                let text = if result.accepted {
                    format!("cancelling {}", result.job)
                } else {
                    format!("{} is {} already", result.job, result.state().word())
                };
                let note = if result.note.is_empty() { String::new() } else { format!(": {}", result.note) };
                out.line(&format!("{text}{note}"))?;
            }
        }
    }
    out.footer(reply.view.as_ref());
    let none = reply.results.iter().all(|result| !result.accepted);
    Ok(if none { EXIT_FAILURE } else { EXIT_OK })
}
