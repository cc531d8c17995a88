//! `log`: checking, carrying and comparing the signed log.
//!
//! Read `crate::export` first: what a place holds, whether it is sound and how two differ is found there; here is where it comes from and how it is shown.
//! Invariants: a running node is asked over its API, a directory or a file is read and never changed; a file has its name only once it is whole.
//! Does not: judge members (nodes do).

mod diff;
mod export;
mod import;
mod verify;

use std::path::Path;

use starling_core::event::SignedBatch;
use starling_core::ids::{ClusterId, LogId};
use starling_core::log::{Survey, Surveyed};
use starling_proto::v1::{ExportEnd, ExportLogRequest};

use super::Session;
use super::args::LogVerb;
use super::connect::Client;
use super::error::CliError;
use crate::export::check::{named, spans};
use crate::export::dir::DirError;

/// Runs the verb.
pub(crate) async fn log(session: &Session<'_>, verb: LogVerb) -> Result<u8, CliError> {
    match verb {
        LogVerb::Verify(args) => verify::verify(session, args),
        LogVerb::Export(args) => export::export(session, args).await,
        LogVerb::Import(args) => import::import(session, args).await,
        LogVerb::Diff(args) => Ok(diff::diff(session, &args).await),
    }
}

/// What a node exports, batch by batch, each checked; the end is what the node says of the whole.
async fn pull(
    client: &mut Client,
    author: String,
    mut each: impl FnMut(ClusterId, SignedBatch) -> Result<(), CliError>,
) -> Result<(ClusterId, ExportEnd), CliError> {
    let mut stream = client.export_log(ExportLogRequest { author }).await?.into_inner();
    let mut of = None;
    let mut batches = 0;
    while let Some(piece) = stream.message().await? {
        let named = piece.cluster.try_into().ok().map(ClusterId);
        let cluster = of.or(named).ok_or(CliError::CutShort)?;
        of = Some(cluster);
        for bytes in piece.batches {
            let batch = SignedBatch::open(&bytes, &cluster).map_err(|error| CliError::Failed {
                message: format!("the node sent a batch that is none: {error}"),
                hint: "check its disk with `starling log verify`, or ask another node with --via".to_owned(),
            })?;
            batches += 1;
            each(cluster, batch)?;
        }
        if let Some(end) = piece.end {
            return if end.batches == batches { Ok((cluster, end)) } else { Err(CliError::CutShort) };
        }
    }
    Err(CliError::CutShort)
}

/// Takes a batch into account.
fn survey(survey: &mut Survey, batch: &SignedBatch) -> Result<(), CliError> {
    if survey.take(batch) == Surveyed::Full {
        return Err(CliError::Failed {
            message: "there are more batches than are looked at in one go".to_owned(),
            hint: "take the log of one node at a time with `starling log export --log NODE`".to_owned(),
        });
    }
    Ok(())
}

/// What is missing of each log, in words.
fn missing(survey: &Survey) -> Vec<String> {
    let holes = survey.logs().filter(|(_, span)| !span.holes().is_empty());
    holes.map(|(log, span)| format!("events {} of {}", spans(span.holes()), named(log, span.name()))).collect()
}

/// Whether a person means this log's author by a name or an id, or the beginning of either.
fn is_meant(log: &LogId, name: &str, text: &str) -> bool {
    name.starts_with(text) || log.node.to_hex().starts_with(text)
}

fn of_dir(error: DirError) -> CliError {
    match error {
        DirError::NoLog(_) => CliError::Usage { message: error.to_string(), hint: String::new() },
        DirError::InUse { .. } | DirError::Storage(_) => {
            CliError::Failed { message: of_source(&error), hint: String::new() }
        }
    }
}

/// An error with its causes.
fn of_source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let words = deeper.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = deeper.source();
    }
    text
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File { path, source }
}
