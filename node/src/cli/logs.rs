//! `logs`: prints what tasks wrote, from whichever node holds it.
//!
//! Invariants: a task's stdout goes to stdout and its stderr to stderr, byte for byte; what a simulation's
//! env says goes to stderr with a mark before each line, unless it is all that was asked for; a byte that
//! was printed is not printed again after a change of node.
//! Does not: know whether the job succeeded (`wait`).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use starling_proto::Word as _;
use starling_proto::v1::{LogChunk, LogStream, LogsRequest};

use super::args::{LogsArgs, Stream};
use super::connect::Client;
use super::error::{CliError, EXIT_OK};
use super::output::Format;
use super::{Patience, Session};

/// Tasks whose position is remembered; beyond it a change of node may repeat output.
const POSITIONS_MAX: usize = 100_000;

/// Whether each line begins with its task's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    Task,
    None,
}

/// How the output of a simulation's env is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Env {
    /// Beside the policy's: on stderr, its lines marked.
    Beside,
    /// On the streams of the same names.
    Alone,
}

/// One output stream of one attempt of one task.
type Source = (u32, u32, i32);

/// Prints chunks, and remembers what it has printed.
#[derive(Debug)]
pub(crate) struct Printer<'a> {
    session: &'a Session<'a>,
    prefix: Prefix,
    env: Env,
    printed: BTreeMap<Source, Position>,
    last_note: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct Position {
    next_offset: u64,
    mid_line: bool,
}

#[derive(Serialize)]
struct JsonChunk<'a> {
    task: u32,
    attempt: u32,
    stream: &'static str,
    node: &'a str,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// Base64, when the bytes are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    note: &'a str,
}

/// Runs the verb.
pub(crate) async fn logs(session: &Session<'_>, args: LogsArgs) -> Result<u8, CliError> {
    let streams = match args.stream {
        None => vec![],
        Some(Stream::Out) => vec![LogStream::Out.into()],
        Some(Stream::Err) => vec![LogStream::Err.into()],
        Some(Stream::EnvOut) => vec![LogStream::EnvOut.into()],
        Some(Stream::EnvErr) => vec![LogStream::EnvErr.into()],
        Some(Stream::Pushed) => vec![LogStream::Pushed.into()],
    };
    let request = LogsRequest { job: args.job, task: args.task, streams, follow: args.follow, offset: args.offset };
    let client = session.open().await?;
    let prefix = if args.prefix { Prefix::Task } else { Prefix::None };
    let env = if args.stream.is_some() { Env::Alone } else { Env::Beside };
    let mut printer = Printer { env, ..Printer::new(session, prefix) };
    printer.print_all(client, request).await?;
    Ok(EXIT_OK)
}

impl<'a> Printer<'a> {
    pub(crate) fn new(session: &'a Session<'a>, prefix: Prefix) -> Self {
        Self { session, prefix, env: Env::Beside, printed: BTreeMap::new(), last_note: String::new() }
    }

    /// Prints until the stream ends; a followed one goes on at another node when the link breaks.
    pub(crate) async fn print_all(&mut self, mut client: Client, request: LogsRequest) -> Result<(), CliError> {
        let mut patience = Patience::default();
        loop {
            match self.print_once(&mut client, &request, &mut patience).await {
                Err(error) if request.follow => {
                    client = self.session.reopen(error, &mut patience).await?;
                }
                ended => return ended,
            }
        }
    }

    async fn print_once(
        &mut self,
        client: &mut Client,
        request: &LogsRequest,
        patience: &mut Patience,
    ) -> Result<(), CliError> {
        let mut stream = client.logs(request.clone()).await?.into_inner();
        while let Some(chunk) = stream.message().await? {
            patience.renew();
            self.print(&chunk)?;
        }
        Ok(())
    }

    fn print(&mut self, chunk: &LogChunk) -> Result<(), CliError> {
        let out = self.session.out;
        let source = (chunk.task, chunk.attempt, chunk.stream);
        let position = self.printed.get(&source).copied().unwrap_or_default();
        let known = position.next_offset.saturating_sub(chunk.offset);
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(chunk.data.len());
        let data = &chunk.data[known..];
        if out.format() == Format::Json {
            if !data.is_empty() || !chunk.note.is_empty() {
                out.json(&[json_chunk(chunk, known)])?;
            }
        } else {
            if !chunk.note.is_empty() && chunk.note != self.last_note {
                out.warn(&format!("task {}: {}", chunk.task, chunk.note));
                self.last_note.clone_from(&chunk.note);
            }
            let is_env = matches!(chunk.stream(), LogStream::EnvOut | LogStream::EnvErr);
            let beside = is_env && self.env == Env::Beside;
            let text = match mark(chunk.task, self.prefix, beside) {
                Some(mark) => &marked(&mark, data, position.mid_line),
                None => data,
            };
            if beside {
                out.env_output(text)?;
            } else {
                out.task_output(chunk.stream(), text)?;
            }
        }
        if self.printed.len() < POSITIONS_MAX || self.printed.contains_key(&source) {
            let length = u64::try_from(chunk.data.len()).unwrap_or(u64::MAX);
            let next_offset = position.next_offset.max(chunk.offset.saturating_add(length));
            let mid_line = data.last().map_or(position.mid_line, |last| *last != b'\n');
            self.printed.insert(source, Position { next_offset, mid_line });
        }
        Ok(())
    }
}

fn json_chunk(chunk: &LogChunk, known: usize) -> JsonChunk<'_> {
    let data = &chunk.data[known..];
    let text = std::str::from_utf8(data).ok();
    JsonChunk {
        task: chunk.task,
        attempt: chunk.attempt,
        stream: chunk.stream().word(),
        node: &chunk.node,
        offset: chunk.offset.saturating_add(u64::try_from(known).unwrap_or(u64::MAX)),
        data: if text.is_some() { None } else { Some(STANDARD.encode(data)) },
        text,
        note: &chunk.note,
    }
}

/// What each line begins with.
fn mark(task: u32, prefix: Prefix, beside: bool) -> Option<String> {
    match (prefix, beside) {
        (Prefix::None, false) => None,
        (Prefix::None, true) => Some("env| ".to_owned()),
        (Prefix::Task, false) => Some(format!("{task}| ")),
        (Prefix::Task, true) => Some(format!("{task} env| ")),
    }
}

/// `data` with `mark` at the start of each line.
fn marked(mark: &str, data: &[u8], mid_line: bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(data.len() + 16);
    let mut mid_line = mid_line;
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        if !mid_line {
            text.extend_from_slice(mark.as_bytes());
        }
        text.extend_from_slice(line);
        mid_line = line.last() != Some(&b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_an_env_beside_its_policy_are_marked() {
        let shown = |prefix, beside, data: &str, mid_line| match mark(3, prefix, beside) {
            Some(mark) => String::from_utf8(marked(&mark, data.as_bytes(), mid_line)).unwrap(),
            None => data.to_owned(),
        };
        assert_eq!(shown(Prefix::None, false, "a\nb", false), "a\nb");
        assert_eq!(shown(Prefix::None, true, "a\nb", false), "env| a\nenv| b");
        assert_eq!(shown(Prefix::None, true, "c\nd\n", true), "c\nenv| d\n");
        assert_eq!(shown(Prefix::Task, false, "a\n", false), "3| a\n");
        assert_eq!(shown(Prefix::Task, true, "a\n", false), "3 env| a\n");
    }
}
