//! `log import`: gives an export to a node.
//!
//! Invariants: the file is read to its end and checked before the first byte of it is sent, so that a damaged one changes nothing; the node checks every batch again.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use futures::stream;
use starling_core::limits::SYNC_RESPONSE_BYTES_MAX as PIECE_BYTES_MAX;
use starling_proto::v1::{ImportLogReply, LogPiece};
use tokio::sync::mpsc;

use super::super::args::LogImportArgs;
use super::super::error::{CliError, EXIT_FAILURE, EXIT_OK};
use super::super::output::Format;
use super::super::{Session, units};
use super::unreadable;
use crate::export::check;
use crate::export::form::Reader;

/// Pieces read ahead.
const AHEAD: usize = 2;

/// Runs the verb.
pub(super) async fn import(session: &Session<'_>, args: LogImportArgs) -> Result<u8, CliError> {
    let path = args.file;
    check_whole(session, &path)?;
    let mut client = session.open().await?;
    let (tx, rx) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || send_pieces(&path, &tx));
    let pieces = stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|piece| (piece, rx)) });
    let reply = client.import_log(pieces).await;
    // Whatever the node says counts more than that it stopped listening.
    let read = reading.await;
    let reply = reply?.into_inner();
    read.map_err(|panicked| CliError::Output(std::io::Error::other(panicked)))??;
    show(session, &reply)?;
    Ok(if reply.refused_batches == 0 { EXIT_OK } else { EXIT_FAILURE })
}

/// Refuses a file that is not what was written.
fn check_whole(session: &Session<'_>, path: &Path) -> Result<(), CliError> {
    let examined = check::file(path).map_err(unreadable(path))?;
    let Some(fault) = examined.verdict.faults.first() else {
        return Ok(());
    };
    for more in &examined.verdict.faults[1..] {
        session.out.fault(&more.sentence);
    }
    Err(CliError::Failed { message: fault.sentence.clone(), hint: "nothing was imported".to_owned() })
}

fn send_pieces(path: &PathBuf, tx: &mpsc::Sender<LogPiece>) -> Result<(), CliError> {
    let changed = |error: crate::export::form::FormError| CliError::Failed {
        message: format!("{}: {error}", path.display()),
        hint: "it changed while it was read; what was taken in until then is good".to_owned(),
    };
    let file = File::open(path).map_err(unreadable(path))?;
    let mut reader = Reader::open(BufReader::new(file)).map_err(changed)?;
    let mut piece = LogPiece { cluster: reader.cluster().0.to_vec(), ..LogPiece::default() };
    let mut bytes = 0;
    while let Some(placed) = reader.next_batch().map_err(changed)? {
        let batch = placed.batch.bytes();
        if bytes + batch.len() > PIECE_BYTES_MAX {
            // The node stopped listening: it says why.
            if tx.blocking_send(std::mem::take(&mut piece)).is_err() {
                return Ok(());
            }
            bytes = 0;
        }
        bytes += batch.len();
        piece.batches.push(batch.to_vec());
    }
    // As above.
    let _gone = tx.blocking_send(piece);
    Ok(())
}

fn show(session: &Session<'_>, reply: &ImportLogReply) -> Result<(), CliError> {
    let out = session.out;
    if out.format() == Format::Json {
        return out.json(std::slice::from_ref(reply));
    }
    out.line(&format!(
        "{} batches with {} events were new, {} were known, {} were refused",
        units::count(reply.new_batches),
        units::count(reply.new_events),
        units::count(reply.known_batches),
        units::count(reply.refused_batches)
    ))?;
    for refusal in &reply.refusals {
        let mut author = refusal.author.clone();
        author.truncate(12);
        let whose = match (author.as_str(), refusal.epoch) {
            ("", _) => String::new(),
            (author, 0 | 1) => format!(" of {author}"),
            (author, epoch) => format!(" of {author}, epoch {epoch}"),
        };
        let noun = if refusal.batches == 1 { "batch" } else { "batches" };
        out.fault(&format!("{} {noun}{whose}: {}", units::count(refusal.batches), refusal.reason));
    }
    out.footer(reply.view.as_ref());
    Ok(())
}
