//! `log verify`: what a place holds, and what is wrong with it.
//!
//! Invariants: data on stdout, one sentence for each fault on stderr; exits with 1 if there is one.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::args::LogVerifyArgs;
use super::super::connect::{base_dir, local_nodes};
use super::super::error::{CliError, EXIT_FAILURE, EXIT_OK};
use super::super::output::Format;
use super::super::table::{Cell, Flush, Table, Tone};
use super::super::{Session, units};
use super::{of_dir, unreadable};
use crate::export::check::{self, Examined, short, spans};
use crate::export::{LogLine, Verdict};

/// Hex digits of a head in a table.
const HEAD_CHARS: usize = 12;

/// Runs the verb.
pub(super) fn verify(session: &Session<'_>, args: LogVerifyArgs) -> Result<u8, CliError> {
    let places = match args.place.or(args.data_dir) {
        Some(place) => vec![place],
        None => homes()?,
    };
    let mut sound = true;
    for place in places {
        let Examined { verdict, .. } = examine(&place)?;
        sound &= verdict.is_sound();
        show(session, &place, &verdict)?;
    }
    Ok(if sound { EXIT_OK } else { EXIT_FAILURE })
}

/// Looks through a directory or a file.
pub(super) fn examine(place: &Path) -> Result<Examined, CliError> {
    let kind = std::fs::metadata(place).map_err(unreadable(place))?;
    if kind.is_dir() { check::directory(place).map_err(of_dir) } else { check::file(place).map_err(unreadable(place)) }
}

/// The data directories of all nodes of this host.
fn homes() -> Result<Vec<PathBuf>, CliError> {
    let base = base_dir();
    let homes: Vec<PathBuf> = local_nodes(&base).into_iter().filter(|dir| dir.join("log").is_dir()).collect();
    if homes.is_empty() {
        return Err(CliError::Usage {
            message: format!("no node has kept a log under {}", base.display()),
            hint: "name an export file, or a data directory with --data-dir".to_owned(),
        });
    }
    Ok(homes)
}

#[derive(Serialize)]
struct JsonLog<'a> {
    place: String,
    author: String,
    name: &'a str,
    epoch: u64,
    events: u64,
    events_here: u64,
    bytes: u64,
    head: String,
    forks: usize,
    missing: Vec<(u64, u64)>,
}

#[derive(Serialize)]
struct JsonFault<'a> {
    place: String,
    fault: &'a str,
    file: String,
    offset: Option<u64>,
}

#[derive(Serialize)]
struct JsonPlace<'a> {
    place: String,
    cluster: String,
    sound: bool,
    logs: usize,
    batches: u64,
    events: u64,
    faults: u64,
    notes: &'a [String],
}

fn show(session: &Session<'_>, place: &Path, verdict: &Verdict) -> Result<(), CliError> {
    let out = session.out;
    let shown = place.display().to_string();
    let faults = verdict.faults.len() as u64 + verdict.more_faults;
    let cluster = verdict.cluster.map(|cluster| cluster.to_string()).unwrap_or_default();
    if out.format() == Format::Json {
        out.json(&verdict.logs.iter().map(|line| json(&shown, line)).collect::<Vec<_>>())?;
        let fault = |fault: &'_ check::Fault| (fault.sentence.clone(), fault.file.display().to_string(), fault.offset);
        for (sentence, file, offset) in verdict.faults.iter().map(fault) {
            out.json(&[JsonFault { place: shown.clone(), fault: &sentence, file, offset }])?;
        }
        return out.json(&[JsonPlace {
            place: shown,
            cluster,
            sound: verdict.is_sound(),
            logs: verdict.logs.len(),
            batches: verdict.counts.batches,
            events: verdict.counts.events,
            faults,
            notes: &verdict.notes,
        }]);
    }
    if !verdict.logs.is_empty() {
        out.table(&table(&verdict.logs))?;
    }
    verdict.notes.iter().for_each(|note| out.note(note));
    verdict.faults.iter().for_each(|fault| out.fault(&fault.sentence));
    if verdict.more_faults > 0 {
        out.fault(&format!("and {} more", units::count(verdict.more_faults)));
    }
    let of = if cluster.is_empty() { String::new() } else { format!(" of cluster {cluster}") };
    let holds = format!(
        "{shown}: {} logs{of}, {} batches, {} events",
        verdict.logs.len(),
        units::count(verdict.counts.batches),
        units::count(verdict.counts.events)
    );
    out.line(&match faults {
        0 => format!("{holds}: sound"),
        1 => format!("{holds}: 1 fault"),
        more => format!("{holds}: {} faults", units::count(more)),
    })
}

fn json<'a>(place: &str, line: &'a LogLine) -> JsonLog<'a> {
    JsonLog {
        place: place.to_owned(),
        author: line.log.node.to_hex(),
        name: &line.name,
        epoch: line.log.epoch.0,
        events: line.len.0,
        events_here: line.events,
        bytes: line.bytes,
        head: line.head.to_hex(),
        forks: line.forks,
        missing: line.missing.iter().map(|(from, to)| (from.0, to.0)).collect(),
    }
}

fn table(logs: &[LogLine]) -> Table {
    let is_whole = logs.iter().all(|line| line.missing.is_empty());
    let mut columns = vec![
        ("AUTHOR", Flush::Left),
        ("NAME", Flush::Left),
        ("EPOCH", Flush::Right),
        ("EVENTS", Flush::Right),
        ("BYTES", Flush::Right),
        ("HEAD", Flush::Left),
        ("FORKS", Flush::Right),
    ];
    columns.extend((!is_whole).then_some(("MISSING", Flush::Left)));
    let mut table = Table::new(&columns);
    for line in logs {
        let mut head = line.head.to_hex();
        head.truncate(HEAD_CHARS);
        let mut row = vec![
            Cell::new(short(&line.log.node), Tone::Strong),
            Cell::plain(&line.name),
            Cell::plain(line.log.epoch.to_string()),
            Cell::plain(units::count(line.len.0)),
            Cell::plain(units::size(line.bytes)),
            Cell::plain(head),
            Cell::new(line.forks.to_string(), if line.forks > 0 { Tone::Bad } else { Tone::Plain }),
        ];
        row.extend((!is_whole).then(|| Cell::plain(spans(&line.missing))));
        table.push(row);
    }
    table
}
