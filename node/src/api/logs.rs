//! Logs: what tasks wrote, in order of their index, from whichever node holds it.
//!
//! Invariants: a chunk's offset is the position of its data in its stream; what cannot be reached is
//! said once per attempt; following ends when the job is sealed and everything was read.
//! Does not: keep output, or more than one chunk of it in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use starling_core::event::Event;
use starling_core::facts::view::{self, AttemptView};
use starling_core::facts::{Job, Past};
use starling_core::ids::{GrantNo, JobId, NodeId};
use starling_core::lattice::IntervalSet;
use starling_core::machine::{CommandError, Machine};
use starling_core::schedule::Health;
use starling_core::time::Now;
use starling_proto::v1::{LogChunk, LogStream, LogsRequest};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use super::context::Api;
use super::retired;
use super::status::ApiError;
use super::stream::{News, Produced, send};
use super::wait::RECHECK;
use crate::exec::output::{Stream, Streams};
use crate::output::{Chunk, Origin, TAIL_BYTES};

/// Time between two looks at a running task's output.
const GROWTH_POLL: Duration = Duration::from_millis(100);
/// The namespace whose tasks are pairs.
const SIMULATION: &str = "simulation";
/// Shortest time between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(2);

/// Reads a job's output.
///
/// Cancel safety: cancel safe.
pub(super) async fn logs(api: &Api, request: LogsRequest) -> Result<Produced<LogChunk>, Status> {
    let news = News::of(&api.ctx.handle);
    let follow = if request.follow { Follow::UntilSealed } else { Follow::No };
    let (only, skip) = (request.task, request.offset);
    let (job, streams, pushed) = api.call(resolve(api, request)).await?;
    let own = api.clone();
    api.stream(|tx| async move {
        let (cursors, pushed) = (BTreeMap::new(), PushedCursor { wanted: pushed, offset: skip, noted: false });
        let reader = Reader { api: own, job, only, streams, skip, cursors, pushed, tx };
        run(reader, follow, news).await
    })
}

async fn resolve(api: &Api, request: LogsRequest) -> Result<(JobId, Vec<Stream>, Pushed), ApiError> {
    let asked = streams(&request.streams)?;
    let find = move |machine: &mut Machine, _now: Now| -> Result<(JobId, Vec<Stream>, Pushed), ApiError> {
        let id = view::find_job(machine.facts(), &request.job)?;
        let job = machine.facts().job(&id);
        let submit = job.and_then(|job| job.submit.as_ref());
        if job.is_none() && !machine.facts().is_retired(&id) {
            return Err(CommandError::UnknownJob.into());
        }
        let (streams, pushed) = if asked.is_empty() {
            // What is pushed is the job's, not a task's.
            let pushed = if request.task.is_none() { Pushed::IfReached } else { Pushed::No };
            (of_namespace(submit.map(|submit| &*submit.ns)), pushed)
        } else {
            let pushed = if asked.contains(&Stream::Pushed) { Pushed::Yes } else { Pushed::No };
            (asked.into_iter().filter(|stream| *stream != Stream::Pushed).collect(), pushed)
        };
        match (request.task, submit) {
            (Some(task), Some(submit)) if !submit.tasks.contains(task) => {
                let expected = format!("a task of {}: {}", request.job, submit.tasks);
                Err(ApiError::field("task", &expected, &task.to_string()))
            }
            (Some(_) | None, Some(_) | None) => Ok((id, streams, pushed)),
        }
    };
    api.ask(find).await?
}

/// The streams that a job's tasks have. One that is asked for in vain costs a round trip for each task.
fn of_namespace(ns: Option<&str>) -> Vec<Stream> {
    if ns == Some(SIMULATION) { Stream::ALL.to_vec() } else { Stream::PLAIN.to_vec() }
}

async fn run(mut reader: Reader, follow: Follow, mut news: News) -> Result<(), ApiError> {
    let (api, job, only) = (reader.api.clone(), reader.job, reader.only);
    let mut read = Read::default();
    let mut past: Option<Arc<Past>> = None;
    loop {
        let began = Instant::now();
        let kept = past.clone();
        let ask = move |machine: &mut Machine, now: Now| next_round(machine, now, job, only, read, kept.as_deref());
        let round = api.ask(ask).await?;
        read = round.read;
        if round.look_back && past.is_none() {
            let found = retired::of(&api, job).await?;
            let found = found.ok_or_else(|| ApiError::Retired(retired::absence(&round.owner.node)))?;
            reader.streams_of(&found);
            past = Some(Arc::new(found));
            continue;
        }
        let mut grows = false;
        for (run, tasks) in ascending(&round.runs) {
            for task in tasks {
                let left = reader.read(run, task).await?;
                if run.is_final {
                    let _ = read.0.entry(run.attempt.grant).or_default().insert(task);
                    reader.cursors.remove(&(run.attempt.grant, task));
                } else {
                    grows |= left == Left::MayGrow;
                }
            }
        }
        reader.read_pushed(&round.owner).await?;
        if follow == Follow::No || round.sealed {
            return Ok(());
        }
        let within = if grows || reader.pushed.wanted != Pushed::No { GROWTH_POLL } else { RECHECK };
        let concerns = |event: &Event| event.ctx.job == Some(job);
        news.wait(within, concerns).await?;
        tokio::time::sleep_until(began + ROUND_PAUSE).await;
        news.drain();
    }
}

fn streams(asked: &[i32]) -> Result<Vec<Stream>, ApiError> {
    let one = |number: &i32| match LogStream::try_from(*number) {
        Ok(LogStream::Out) => Ok(Stream::Out),
        Ok(LogStream::Err) => Ok(Stream::Err),
        Ok(LogStream::EnvOut) => Ok(Stream::EnvOut),
        Ok(LogStream::EnvErr) => Ok(Stream::EnvErr),
        Ok(LogStream::Pushed) => Ok(Stream::Pushed),
        Ok(LogStream::Unknown) | Err(_) => {
            Err(ApiError::field("streams", "out, err, env_out, env_err or pushed", &number.to_string()))
        }
    };
    asked.iter().map(one).collect()
}

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follow {
    /// After what there is now.
    No,
    /// When the job, or the one task, is sealed.
    UntilSealed,
}

/// Whether to read what clients pushed to the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pushed {
    /// Not at all.
    No,
    /// If its owner can be asked.
    IfReached,
    /// It was asked for: say so if it cannot be had.
    Yes,
}

/// How far that was read.
#[derive(Clone, Copy, Debug)]
struct PushedCursor {
    wanted: Pushed,
    offset: u64,
    noted: bool,
}

/// The job's owner.
#[derive(Clone, Debug)]
struct Keeper {
    node: String,
    is_live: bool,
}

/// Tasks read to their end, by grant.
#[derive(Debug, Default)]
struct Read(BTreeMap<GrantNo, IntervalSet>);

/// An attempt at some tasks, as far as it has not been read.
#[derive(Clone, Debug)]
struct Run {
    attempt: AttemptView,
    node: String,
    /// Whether its node is believed to be alive.
    is_live: bool,
    /// Whether nothing more will be written.
    is_final: bool,
}

#[derive(Debug)]
struct Round {
    runs: Vec<Run>,
    sealed: bool,
    /// Whether only history knows where its tasks ran.
    look_back: bool,
    owner: Keeper,
    read: Read,
}

/// What there is to read now.
fn next_round(machine: &Machine, now: Now, id: JobId, only: Option<u32>, read: Read, past: Option<&Past>) -> Round {
    let is_live = |node: &NodeId| *node == machine.me() || machine.fleet().health(now.mono, node) == Health::Live;
    let owner = Keeper { node: view::node_name(machine.facts(), &id.log.node), is_live: is_live(&id.log.node) };
    let look_back = machine.facts().is_retired(&id);
    let job = machine.facts().job(&id);
    let sealed = past.is_some() || job.is_some_and(Job::is_sealed);
    let tried = match (job, past) {
        (Some(job), _) => view::latest_runs(job),
        (None, Some(past)) => retired::runs(past),
        (None, None) => Vec::new(),
    };
    let mut runs = Vec::new();
    for mut attempt in tried {
        if let Some(tasks) = read.0.get(&attempt.grant) {
            attempt.tasks.subtract(tasks);
        }
        if let Some(task) = only {
            attempt.tasks = attempt.tasks.intersection(&IntervalSet::one(task));
        }
        if attempt.tasks.is_empty() {
            continue;
        }
        runs.push(Run {
            node: view::node_name(machine.facts(), &attempt.node),
            is_live: is_live(&attempt.node),
            is_final: sealed || attempt.void || attempt.outcome.is_some(),
            attempt,
        });
    }
    let done = match only {
        Some(task) => sealed || job.is_some_and(|job| job.sealed_tasks().contains(task)),
        None => sealed,
    };
    Round { runs, sealed: done, look_back, owner, read }
}

/// The runs' tasks by index.
fn ascending(runs: &[Run]) -> Vec<(&Run, std::ops::RangeInclusive<u32>)> {
    let of = |run| Run::ranges(run).map(move |range| (run, range));
    let mut all: Vec<_> = runs.iter().flat_map(of).collect();
    all.sort_unstable_by_key(|(_, range)| *range.start());
    all
}

impl Run {
    fn ranges(&self) -> impl Iterator<Item = std::ops::RangeInclusive<u32>> {
        self.attempt.tasks.ranges().iter().map(|range| range.start..=range.end)
    }
}

/// What a look at one task's output left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Read to its present end.
    MayGrow,
    /// The owner's copy, which does not grow, or nothing.
    Unreachable,
}

/// How far one task's output has been read.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    positions: Streams<Position>,
    noted: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Position {
    /// `None` before the first look.
    offset: Option<u64>,
    /// Whether the owner's copy was sent.
    tail: bool,
}

struct Reader {
    api: Api,
    job: JobId,
    only: Option<u32>,
    streams: Vec<Stream>,
    skip: u64,
    cursors: BTreeMap<(GrantNo, u32), Cursor>,
    pushed: PushedCursor,
    tx: mpsc::Sender<LogChunk>,
}

impl Reader {
    /// The streams of a retired job, where nobody asked for some.
    fn streams_of(&mut self, past: &Past) {
        if self.streams == Stream::PLAIN {
            self.streams = of_namespace(Some(&past.ns));
        }
    }

    /// Sends what is new in one task's output.
    async fn read(&mut self, run: &Run, task: u32) -> Result<Left, ApiError> {
        let key = (run.attempt.grant, task);
        let mut cursor = self.cursors.get(&key).copied().unwrap_or_default();
        let mut left = Left::MayGrow;
        for stream in self.streams.clone() {
            if self.read_stream(run, task, stream, &mut cursor).await? == Left::Unreachable {
                left = Left::Unreachable;
            }
        }
        self.cursors.insert(key, cursor);
        Ok(left)
    }

    async fn read_stream(&self, run: &Run, task: u32, stream: Stream, cursor: &mut Cursor) -> Result<Left, ApiError> {
        loop {
            let offset = cursor.positions.of_mut(stream).offset.unwrap_or(self.skip);
            let chunk = self.fetch(run, task, stream, offset).await;
            match chunk.origin {
                Origin::Executor(_) if chunk.data.is_empty() => return Ok(Left::MayGrow),
                Origin::Executor(_) => {
                    let next = offset + chunk.data.len() as u64;
                    let is_all = next >= chunk.len;
                    self.send(run, task, stream, Piece::data(chunk, offset)).await?;
                    cursor.positions.of_mut(stream).offset = Some(next);
                    if is_all {
                        return Ok(Left::MayGrow);
                    }
                }
                Origin::OwnersTail(_) => {
                    self.send_tail(run, task, stream, cursor, chunk).await?;
                    return Ok(Left::Unreachable);
                }
                Origin::Unreachable => {
                    // A stream that stayed silent has no copy at the owner; only the first such note helps.
                    if !cursor.noted {
                        let note = format!("log unreachable: {}", run.absence());
                        self.send(run, task, stream, Piece::note(note, offset)).await?;
                        cursor.noted = true;
                    }
                    return Ok(Left::Unreachable);
                }
            }
        }
    }

    /// Sends the owner's copy, once.
    async fn send_tail(
        &self,
        run: &Run,
        task: u32,
        stream: Stream,
        cursor: &mut Cursor,
        chunk: Chunk,
    ) -> Result<(), ApiError> {
        let position = *cursor.positions.of_mut(stream);
        if position.tail {
            return Ok(());
        }
        let offset = position.offset.unwrap_or(self.skip);
        let is_whole = chunk.len < TAIL_BYTES;
        let (chunk, note) = if is_whole {
            (chunk, format!("{}; this is the owner's copy", run.absence()))
        } else {
            // It ends the stream but where it begins is not known: all of it, rather than a hole.
            let whole = self.fetch(run, task, stream, 0).await;
            let note = format!("full log unreachable: {}; last 64 KiB from the owner", run.absence());
            (whole, note)
        };
        let mut piece = Piece::data(chunk, offset);
        if !cursor.noted {
            piece.note = note;
            cursor.noted = true;
        }
        let position = cursor.positions.of_mut(stream);
        position.tail = true;
        position.offset = Some(offset + piece.data.len() as u64);
        self.send(run, task, stream, piece).await
    }

    /// Sends what is new in what clients pushed to the job.
    async fn read_pushed(&mut self, owner: &Keeper) -> Result<(), ApiError> {
        if self.pushed.wanted == Pushed::No || self.pushed.wanted == Pushed::IfReached && !owner.is_live {
            return Ok(());
        }
        loop {
            let offset = self.pushed.offset;
            let piece = match self.api.ctx.outputs.pushed(&self.job, offset).await {
                Some(chunk) if chunk.data.is_empty() => return Ok(()),
                Some(chunk) => Piece::data(chunk, offset),
                None if self.pushed.noted || self.pushed.wanted == Pushed::IfReached => return Ok(()),
                None => {
                    self.pushed.noted = true;
                    Piece::note(format!("log unreachable: its owner, node {}, does not answer", owner.node), offset)
                }
            };
            self.pushed.offset += piece.data.len() as u64;
            let chunk = LogChunk {
                task: 0,
                attempt: 0,
                stream: LogStream::Pushed.into(),
                data: piece.data,
                node: owner.node.clone(),
                offset: piece.offset,
                note: piece.note,
            };
            send(&self.tx, chunk).await?;
        }
    }

    async fn fetch(&self, run: &Run, task: u32, stream: Stream, offset: u64) -> Chunk {
        let outputs = &self.api.ctx.outputs;
        outputs.read(&self.job, &run.attempt, task, stream, offset).await
    }

    async fn send(&self, run: &Run, task: u32, stream: Stream, piece: Piece) -> Result<(), ApiError> {
        let stream = match stream {
            Stream::Out => LogStream::Out,
            Stream::Err => LogStream::Err,
            Stream::EnvOut => LogStream::EnvOut,
            Stream::EnvErr => LogStream::EnvErr,
            Stream::Pushed => LogStream::Pushed,
        };
        let chunk = LogChunk {
            task,
            attempt: run.attempt.attempt.0.into(),
            stream: stream.into(),
            data: piece.data,
            node: run.node.clone(),
            offset: piece.offset,
            note: piece.note,
        };
        send(&self.tx, chunk).await
    }
}

impl Run {
    fn absence(&self) -> String {
        if self.is_live { format!("node {} does not answer", self.node) } else { format!("node {} is down", self.node) }
    }
}

struct Piece {
    data: Vec<u8>,
    offset: u64,
    note: String,
}

impl Piece {
    fn data(chunk: Chunk, offset: u64) -> Self {
        Self { data: chunk.data.into(), offset, note: String::new() }
    }

    fn note(note: String, offset: u64) -> Self {
        Self { data: Vec::new(), offset, note }
    }
}
