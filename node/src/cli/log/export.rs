//! `log export`: the signed log as one file, from a running node or from the directory of a stopped one.
//!
//! Invariants: the file gets its name once it is whole and on disk; what was there by that name stays until then; mode 0600, because jobs' commands and variables are in it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use starling_core::event::SignedBatch;
use starling_core::ids::{ClusterId, LogId};
use starling_core::log::Survey;

use super::super::args::LogExportArgs;
use super::super::error::{CliError, EXIT_OK};
use super::super::output::{Format, now_unix_ms};
use super::super::{Session, Target, units};
use super::{is_meant, missing, of_dir, pull, survey};
use crate::export::dir::{self, Claim, DirError};
use crate::export::form::{Counts, Writer};

/// Runs the verb.
pub(super) async fn export(session: &Session<'_>, args: LogExportArgs) -> Result<u8, CliError> {
    let LogExportArgs { output, data_dir, log } = args;
    if data_dir.is_some() && session.target != Target::AnyLocal {
        return Err(CliError::Usage {
            message: "--data-dir and --via exclude each other".to_owned(),
            hint: "ask a running node with --via, or read a stopped node's directory with --data-dir".to_owned(),
        });
    }
    let is_piped = output.as_os_str() == "-";
    let done = if is_piped {
        let out = session.out.raw();
        write(session, out, data_dir.as_deref(), log).await?
    } else {
        to_file(session, &output, data_dir.as_deref(), log).await?
    };
    let Done { cluster, counts, missing } = done;
    for what in &missing {
        session.out.warn(&format!(
            "{what} are not in it: a snapshot took their place; a node that runs with --archive exports all"
        ));
    }
    let to = if is_piped { "standard output".to_owned() } else { output.display().to_string() };
    // What is piped must not be mixed with words about it.
    match session.out.format() {
        Format::Json if !is_piped => {
            let Counts { batches, events } = counts;
            session.out.json(&[Exported { file: to, cluster: cluster.to_string(), batches, events, missing }])?;
        }
        Format::Json | Format::Human => session.out.note(&format!(
            "wrote {} batches with {} events of cluster {cluster} to {to}",
            units::count(counts.batches),
            units::count(counts.events)
        )),
    }
    Ok(EXIT_OK)
}

#[derive(Serialize)]
struct Exported {
    file: String,
    cluster: String,
    batches: u64,
    events: u64,
    missing: Vec<String>,
}

struct Done {
    cluster: ClusterId,
    counts: Counts,
    missing: Vec<String>,
}

async fn to_file(
    session: &Session<'_>,
    output: &Path,
    data_dir: Option<&Path>,
    log: Option<String>,
) -> Result<Done, CliError> {
    let mut draft = output.as_os_str().to_owned();
    draft.push(".part");
    let draft = PathBuf::from(draft);
    let failed = |source| CliError::WriteFile { path: output.to_owned(), source };
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed)?;
    let written = async {
        let done = write(session, &file, data_dir, log).await?;
        file.sync_all().and_then(|()| fs::rename(&draft, output)).map_err(failed)?;
        Ok(done)
    };
    let written = written.await;
    if written.is_err() {
        // What stays behind has no name that counts.
        let _left = fs::remove_file(&draft);
    }
    written
}

/// Writes an export; begins once the cluster is known.
struct Sink<W: Write> {
    to: Option<BufWriter<W>>,
    writer: Option<Writer<BufWriter<W>>>,
    survey: Survey,
}

impl<W: Write> Sink<W> {
    fn put(&mut self, cluster: ClusterId, batch: &SignedBatch) -> Result<(), CliError> {
        survey(&mut self.survey, batch)?;
        self.begin(cluster)?;
        match &mut self.writer {
            Some(writer) => writer.batch(batch.bytes(), batch.header().count).map_err(CliError::Output),
            None => Ok(()),
        }
    }

    fn begin(&mut self, cluster: ClusterId) -> Result<(), CliError> {
        if let Some(to) = self.to.take() {
            self.writer = Some(Writer::begin(to, &cluster, now_unix_ms()).map_err(CliError::Output)?);
        }
        Ok(())
    }

    fn finish(self, cluster: ClusterId) -> Result<Done, CliError> {
        let counts = match self.writer {
            Some(writer) => writer.finish().map_err(CliError::Output)?.1,
            None => Counts::default(),
        };
        Ok(Done { cluster, counts, missing: missing(&self.survey) })
    }
}

async fn write<W: Write>(
    session: &Session<'_>,
    to: W,
    data_dir: Option<&Path>,
    log: Option<String>,
) -> Result<Done, CliError> {
    let mut sink = Sink { to: Some(BufWriter::new(to)), writer: None, survey: Survey::default() };
    let Some(dir) = data_dir else {
        let mut client = session.open().await?;
        let author = log.unwrap_or_default();
        let (cluster, _) = pull(&mut client, author, |cluster, batch| sink.put(cluster, &batch)).await?;
        sink.begin(cluster)?;
        return sink.finish(cluster);
    };
    // So that nobody writes it meanwhile.
    let _claim: Claim = dir::claim(dir).map_err(of_dir)?;
    let wanted = log.map(|text| find(dir, &text)).transpose()?;
    let mut of = None;
    let read = dir::each_batch(dir, |cluster, batch| {
        let is_wanted = wanted.as_ref().is_none_or(|wanted| wanted.contains(&batch.header().log));
        if of.is_some_and(|of| of != cluster) {
            return Err(Stopped(CliError::Failed {
                message: format!("{} holds batches of more than one cluster", dir.display()),
                hint: "look at it with `starling log verify`".to_owned(),
            }));
        }
        of = Some(cluster);
        if is_wanted { sink.put(cluster, &batch).map_err(Stopped) } else { Ok(()) }
    });
    read.map_err(|Stopped(error)| error)?;
    let cluster = of.ok_or_else(|| CliError::Failed {
        message: format!("the log in {} is empty: there is nothing to export", dir.display()),
        hint: String::new(),
    })?;
    sink.begin(cluster)?;
    sink.finish(cluster)
}

/// Why reading a directory ended.
struct Stopped(CliError);

impl From<DirError> for Stopped {
    fn from(error: DirError) -> Self {
        Self(of_dir(error))
    }
}

/// The logs of the one author that a text means.
fn find(dir: &Path, text: &str) -> Result<Vec<LogId>, CliError> {
    let mut all = Survey::default();
    let read = dir::each_batch(dir, |_cluster, batch| survey(&mut all, &batch).map_err(Stopped));
    read.map_err(|Stopped(error)| error)?;
    let authors = |meant: &dyn Fn(&LogId, &str) -> bool| {
        let mut nodes: Vec<_> =
            all.logs().filter(|(log, span)| meant(log, span.name())).map(|(log, _)| log.node).collect();
        nodes.dedup();
        nodes
    };
    let exact = authors(&|log, name| name == text || log.node.to_hex() == text);
    let nodes = if exact.is_empty() { authors(&|log, name| is_meant(log, name, text)) } else { exact };
    match nodes.as_slice() {
        [node] => Ok(all.logs().map(|(log, _)| *log).filter(|log| log.node == *node).collect()),
        [] => Err(CliError::Usage {
            message: format!("no node called {text} has a log in {}", dir.display()),
            hint: "see whose logs there are with `starling log verify`".to_owned(),
        }),
        [_, ..] => Err(CliError::Usage {
            message: format!("{text} could be any of {} nodes", nodes.len()),
            hint: "write more of its name or id".to_owned(),
        }),
    }
}
