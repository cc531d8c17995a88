//! `log diff`: how the logs of two places differ.
//!
//! Invariants: exits with 0 if they are equal, 1 if not, 2 if that cannot be told.

use std::path::Path;

use serde::Serialize;
use starling_core::ids::{ClusterId, Epoch, LogId, NodeId, Seq};
use starling_core::log::Survey;

use super::super::args::LogDiffArgs;
use super::super::connect;
use super::super::error::{CliError, EXIT_FAILURE, EXIT_OK, EXIT_USAGE};
use super::super::output::Format;
use super::super::table::{Cell, Flush, Table, Tone};
use super::super::{Session, Target, units};
use super::verify::examine;
use super::{pull, survey};
use crate::config::secret::parse_hex;
use crate::export::check::short;
use crate::export::diff::{Line, Side, compare};

/// Runs the verb.
pub(super) async fn diff(session: &Session<'_>, args: &LogDiffArgs) -> u8 {
    match differ(session, args).await {
        Ok(true) => EXIT_FAILURE,
        Ok(false) => EXIT_OK,
        Err(error) => {
            session.out.error(&error);
            // A reader that went away is no trouble.
            if error.is_closed_pipe() { EXIT_OK } else { EXIT_USAGE }
        }
    }
}

async fn differ(session: &Session<'_>, args: &LogDiffArgs) -> Result<bool, CliError> {
    let (first_of, first) = side(&args.first).await?;
    let (second_of, second) = side(&args.second).await?;
    if let (Some(one), Some(two)) = (first_of, second_of)
        && one != two
    {
        return Err(CliError::Failed {
            message: format!("{} is of cluster {one}, {} of cluster {two}", args.first, args.second),
            hint: "logs of two clusters have nothing in common".to_owned(),
        });
    }
    let lines = compare(&first, &second);
    show(session, args, &lines)?;
    Ok(lines.iter().any(|line| !line.is_equal()))
}

/// What a file, a directory or a running node holds.
async fn side(place: &str) -> Result<(Option<ClusterId>, Side), CliError> {
    let path = Path::new(place);
    if path.is_file() || path.join("log").is_dir() {
        let examined = examine(path)?;
        if let Some(fault) = examined.verdict.faults.first() {
            return Err(CliError::Failed {
                message: fault.sentence.clone(),
                hint: format!("see all that is wrong with `starling log verify {place}`"),
            });
        }
        let held = examined.covered.iter().map(|(log, end)| (*log, end.len)).collect();
        return Ok((examined.verdict.cluster, Side { survey: examined.survey, held }));
    }
    let mut client = connect::open(&Target::parse(Some(place))).await?;
    let mut all = Survey::default();
    let (cluster, end) = pull(&mut client, String::new(), |_cluster, batch| survey(&mut all, &batch)).await?;
    let tip = |tip: &starling_proto::v1::LogTip| {
        let node = parse_hex(&tip.author).map(NodeId)?;
        Some((LogId { node, epoch: Epoch(tip.epoch) }, Seq(tip.events)))
    };
    // What is not on its disk it holds in a snapshot.
    let held =
        end.tips.iter().filter_map(tip).filter(|(log, _)| all.log(log).is_none_or(|span| !span.holes().is_empty()));
    let held = held.collect();
    Ok((Some(cluster), Side { survey: all, held }))
}

#[derive(Serialize)]
struct JsonLine<'a> {
    author: String,
    name: &'a str,
    epoch: u64,
    equal: bool,
    events: [u64; 2],
    only: [u64; 2],
    parts_at: Option<u64>,
    branches_differ: bool,
}

fn show(session: &Session<'_>, args: &LogDiffArgs, lines: &[Line]) -> Result<(), CliError> {
    let out = session.out;
    if out.format() == Format::Json {
        let json = |line: &'_ Line| JsonLine {
            author: line.log.node.to_hex(),
            name: "",
            epoch: line.log.epoch.0,
            equal: line.is_equal(),
            events: line.len.map(|len| len.0),
            only: line.only,
            parts_at: line.parts_at.map(|seq| seq.0),
            branches_differ: line.branches_differ,
        };
        let named = lines.iter().map(|line| JsonLine { name: &line.name, ..json(line) });
        return out.json(&named.collect::<Vec<_>>());
    }
    let mut table = Table::new(&[
        ("AUTHOR", Flush::Left),
        ("NAME", Flush::Left),
        ("EPOCH", Flush::Right),
        ("A", Flush::Right),
        ("B", Flush::Right),
        ("ONLY-A", Flush::Right),
        ("ONLY-B", Flush::Right),
        ("PARTS-AT", Flush::Left),
    ]);
    for line in lines {
        let count = |events: u64| if events == 0 { String::new() } else { units::count(events) };
        let parts = match line.parts_at {
            Some(seq) => format!("event {}", units::count(seq.0)),
            None if line.branches_differ => "other branches".to_owned(),
            None => String::new(),
        };
        table.push(vec![
            Cell::new(short(&line.log.node), Tone::Strong),
            Cell::plain(&line.name),
            Cell::plain(line.log.epoch.to_string()),
            Cell::plain(count(line.len[0].0)),
            Cell::plain(count(line.len[1].0)),
            Cell::plain(count(line.only[0])),
            Cell::plain(count(line.only[1])),
            Cell::new(parts, Tone::Bad),
        ]);
    }
    out.table(&table)?;
    out.note(&format!("A is {}, B is {}", args.first, args.second));
    let differing = lines.iter().filter(|line| !line.is_equal()).count();
    let all = lines.len();
    out.line(&if differing == 0 {
        format!("all {all} logs are equal")
    } else {
        format!("{differing} of {all} logs differ")
    })
}
