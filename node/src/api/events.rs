//! Events: the shared log as lines, past and new.
//!
//! Invariants: events of one author come in their order; those of several are merged by their hybrid
//! clocks; memory is bounded whatever the length of the log; environment values and standard input
//! are never shown.
//! Does not: keep events (storage does) or wait on them (`stream` does).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use starling_core::event::{Entry, Event, SignedBatch, Value, WorkSpec};
use starling_core::facts::view;
use starling_core::ids::{ClusterId, JobId, LogId, NodeId, Seq};
use starling_core::machine::{Machine, Notice};
use starling_core::time::{Hlc, Now};
use starling_proto::v1::{EventLine, EventsRequest};
use tokio::sync::mpsc;
use tonic::Status;

use super::context::Api;
use super::convert::ranges;
use super::nodes::name;
use super::status::ApiError;
use super::stream::{News, Produced, send};

/// Bytes read ahead over all logs.
const READ_AHEAD_BYTES: usize = 8 << 20;
/// Bytes read ahead of one log, at most and at least.
const CHUNK_BYTES_MAX: usize = 1 << 20;
const CHUNK_BYTES_MIN: usize = 64 << 10;
/// Most past events that a tail may ask for: they are held in memory.
const TAIL_MAX: u32 = 100_000;
/// Lines made in one question, for their names.
const SLICE: usize = 256;
/// Longest text of one value, characters.
const VALUE_CHARS_MAX: usize = 200;

/// Reads the log.
///
/// Cancel safety: cancel safe.
pub(super) async fn events(api: &Api, request: EventsRequest) -> Result<Produced<EventLine>, Status> {
    let news = News::of(&api.ctx.handle);
    let (since_ms, tail, follow) = (request.since_unix_ms, request.tail, request.follow);
    let (job, cluster) = api.call(resolve(api, request)).await?;
    let own = api.clone();
    api.stream(|tx| async move {
        let told = BTreeMap::new();
        let mut source = Source { api: own, cluster, job, since_ms, told, tx };
        source.past(tail).await?;
        if follow { source.follow(news).await } else { Ok(()) }
    })
}

async fn resolve(api: &Api, request: EventsRequest) -> Result<(Option<JobId>, ClusterId), ApiError> {
    if request.tail > TAIL_MAX {
        let expected = format!("at most {TAIL_MAX}");
        return Err(ApiError::field("tail", &expected, &request.tail.to_string()));
    }
    let find = move |machine: &mut Machine, _now: Now| -> Result<_, ApiError> {
        let job = match request.job.as_str() {
            "" => None,
            text => Some(view::find_job(machine.facts(), text)?),
        };
        Ok((job, machine.cluster()))
    };
    api.ask(find).await?
}

/// An event and where it stands. `None` for bytes that this version does not read.
#[derive(Clone, Debug)]
struct Found {
    hlc: Hlc,
    log: LogId,
    seq: Seq,
    event: Option<Event>,
}

struct Source {
    api: Api,
    cluster: ClusterId,
    job: Option<JobId>,
    since_ms: u64,
    /// The last position told of each log.
    told: BTreeMap<LogId, Seq>,
    tx: mpsc::Sender<EventLine>,
}

impl Source {
    /// Tells everything on disk that was not told yet; of it only the last `tail` events if not 0.
    async fn past(&mut self, tail: u32) -> Result<(), ApiError> {
        let tips = |machine: &mut Machine, _now: Now| -> Vec<(LogId, Seq)> {
            machine.frontier().tips().map(|(log, tip)| (*log, tip.len)).collect()
        };
        let tips = self.api.ask(tips).await?;
        let chunk = (READ_AHEAD_BYTES / tips.len().max(1)).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let mut logs = Vec::new();
        for (log, last) in tips {
            let mut next = self.told.get(&log).map_or(1, |told| told.0 + 1);
            if tail > 0 && self.job.is_none() {
                // The last N of all logs are among the last N of each.
                next = next.max((last.0 + 1).saturating_sub(tail.into()));
            }
            let mut reader = LogReader { log, next, last: last.0, chunk, ready: VecDeque::new() };
            reader.fill(&self.api, &self.cluster).await?;
            logs.push(reader);
        }
        let tail = usize::try_from(tail).unwrap_or(usize::MAX);
        let mut kept = VecDeque::new();
        while let Some(found) = next_of(&mut logs, &self.api, &self.cluster).await? {
            self.told.insert(found.log, found.seq);
            if self.matches(&found) {
                kept.push_back(found);
            }
            if tail > 0 && kept.len() > tail {
                kept.pop_front();
            } else if tail == 0 && kept.len() >= SLICE {
                self.tell(kept.drain(..).collect()).await?;
            }
        }
        while !kept.is_empty() {
            let slice = kept.drain(..kept.len().min(SLICE)).collect();
            self.tell(slice).await?;
        }
        Ok(())
    }

    async fn follow(&mut self, mut news: News) -> Result<(), ApiError> {
        loop {
            match news.next().await? {
                Some(Notice::Folded(batch)) => self.on_batch(&batch).await?,
                Some(_) => {}
                // Some were missed: the disk has them.
                None => self.past(0).await?,
            }
        }
    }

    async fn on_batch(&mut self, batch: &SignedBatch) -> Result<(), ApiError> {
        let told = self.told.get(&batch.header().log).copied().unwrap_or_default();
        if batch.header().first_seq.0 > told.0 + 1 {
            // Between what was read from disk and this one lies something: read it all from there.
            return self.past(0).await;
        }
        let fresh: Vec<Found> = entries(batch).filter(|found| found.seq > told).collect();
        self.told.insert(batch.header().log, batch.header().last_seq().max(told));
        let matching = fresh.into_iter().filter(|found| self.matches(found)).collect();
        self.tell(matching).await
    }

    fn matches(&self, found: &Found) -> bool {
        let job = found.event.as_ref().and_then(|event| event.ctx.job);
        found.hlc.wall_ms >= self.since_ms && (self.job.is_none() || job == self.job)
    }

    async fn tell(&self, found: Vec<Found>) -> Result<(), ApiError> {
        if found.is_empty() {
            return Ok(());
        }
        let lines = move |machine: &mut Machine, _now: Now| -> Vec<EventLine> {
            found.iter().map(|found| line(machine, found)).collect()
        };
        for line in self.api.ask(lines).await? {
            send(&self.tx, line).await?;
        }
        Ok(())
    }
}

fn entries(batch: &SignedBatch) -> impl Iterator<Item = Found> + '_ {
    let log = batch.header().log;
    batch.entries().map(move |(seq, entry)| match entry {
        Entry::Event(event) => Found { hlc: event.hlc, log, seq, event: Some(event.clone()) },
        Entry::Unread(_) => Found { hlc: Hlc::default(), log, seq, event: None },
    })
}

/// Reads one log forward, a chunk at a time.
struct LogReader {
    log: LogId,
    next: u64,
    last: u64,
    chunk: usize,
    ready: VecDeque<Found>,
}

impl LogReader {
    async fn fill(&mut self, api: &Api, cluster: &ClusterId) -> Result<(), ApiError> {
        if !self.ready.is_empty() || self.next > self.last {
            return Ok(());
        }
        let (history, log, next, chunk) = (Arc::clone(&api.ctx.history), self.log, self.next, self.chunk);
        let read = tokio::task::spawn_blocking(move || history(log, Seq(next), chunk)).await;
        let batches = read.map_err(|error| ApiError::History(error.to_string()))?.map_err(ApiError::History)?;
        for bytes in batches {
            let batch = SignedBatch::open_own(&bytes, cluster).map_err(|error| ApiError::History(error.to_string()))?;
            for found in entries(&batch) {
                if found.seq.0 >= self.next && found.seq.0 <= self.last {
                    self.next = found.seq.0 + 1;
                    self.ready.push_back(found);
                }
            }
        }
        if self.ready.is_empty() {
            // Nothing more on disk, whatever the frontier says: do not ask for ever.
            self.next = self.last + 1;
        }
        Ok(())
    }
}

/// The earliest event at the front of any log.
async fn next_of(logs: &mut Vec<LogReader>, api: &Api, cluster: &ClusterId) -> Result<Option<Found>, ApiError> {
    let key = |log: &LogReader| log.ready.front().map(|found| (found.hlc, found.log));
    let fronts = logs.iter().enumerate().filter_map(|(at, log)| Some((key(log)?, at)));
    let Some((_, at)) = fronts.min() else {
        return Ok(None);
    };
    let found = logs[at].ready.pop_front();
    logs[at].fill(api, cluster).await?;
    if logs[at].ready.is_empty() {
        logs.swap_remove(at);
    }
    Ok(found)
}

fn line(machine: &Machine, found: &Found) -> EventLine {
    let stands = EventLine {
        at_unix_ms: found.hlc.wall_ms,
        author: name(machine, &found.log.node),
        epoch: found.log.epoch.0,
        seq: found.seq.0,
        ..EventLine::default()
    };
    let Some(event) = &found.event else {
        let text = "written by a newer version; kept, not read".to_owned();
        return EventLine { ns: "?".to_owned(), kind: "?".to_owned(), text, ..stands };
    };
    let ctx = &event.ctx;
    EventLine {
        ns: event.ns.to_string(),
        kind: event.kind.to_string(),
        ver: event.ver.into(),
        job: ctx.job.map(|job| view::job_name(machine.facts(), &job)).unwrap_or_default(),
        tasks: ranges(&ctx.tasks),
        node: ctx.node.as_ref().map(|node: &NodeId| name(machine, node)).unwrap_or_default(),
        text: text(event),
        ..stands
    }
}

/// The content in one line: `key=value`, names only where values may be private.
fn text(event: &Event) -> String {
    let ctx = &event.ctx;
    let mut parts = Vec::new();
    if let Some(grant) = ctx.grant {
        parts.push(format!("grant={grant:?}"));
    }
    if ctx.attempt > 0 {
        parts.push(format!("attempt={}", ctx.attempt));
    }
    if ctx.priority != 0 {
        parts.push(format!("priority={}", ctx.priority));
    }
    let WorkSpec(fields) = &event.spec;
    parts.extend(fields.iter().map(|(key, value)| format!("{key}={}", value_text(value))));
    parts.join(" ")
}

fn value_text(value: &Value) -> String {
    let shown = match value {
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Text(text) => word(text),
        Value::Bytes(bytes) => format!("<{} bytes>", bytes.len()),
        Value::List(items) => {
            let shown = items.iter().take(VALUE_CHARS_MAX).map(value_text);
            format!("[{}]", shown.collect::<Vec<_>>().join(" "))
        }
        Value::Map(map) => {
            let keys: Vec<String> = map.keys().map(|key| word(key)).collect();
            format!("{{{}}}", keys.join(" "))
        }
    };
    let mut cut: String = shown.chars().take(VALUE_CHARS_MAX).collect();
    if cut.len() < shown.len() {
        cut.push('…');
    }
    cut
}

/// Text as it is, or quoted if it would not read as one word.
fn word(text: &str) -> String {
    let plain = |symbol: char| !symbol.is_whitespace() && !symbol.is_control() && symbol != '"';
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("{text:?}") }
}
