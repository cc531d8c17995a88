//! Follows a job's output as it is written, and sends it line by line.
//!
//! Invariants: a line goes out after those before it in its stream; memory holds one chunk, whatever is written and however slowly the server reads; what falls
//! behind by more than the limit is left out, and a line says so.
//! Does not: wait for ever: whoever calls it bounds it once the job is over.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use starling_proto::hwp::agent_message::Payload;
use starling_proto::hwp::{AgentMessage, LogEntry};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::lines::Lines;
use crate::exec::output::{self, Stream};

/// Read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Between two looks at a silent job: at first, and after a while.
const LOOK_FIRST: Duration = Duration::from_millis(10);
const LOOK_LAST: Duration = Duration::from_millis(160);

/// Where lines go while there is a session with a server; its bound holds up whoever sends.
pub(super) type Sender = mpsc::Sender<AgentMessage>;
/// The present session, if there is one.
pub(super) type Outlet = watch::Receiver<Option<Sender>>;

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Waiting,
    Running,
    /// Its files are complete.
    Over,
}

/// Follows one job.
#[derive(Debug)]
pub(super) struct Follower {
    job_id: String,
    prefix: PathBuf,
    backlog_bytes: u64,
    outlet: Outlet,
    offsets: [u64; 2],
    lines: [Lines; 2],
}

impl Follower {
    pub(super) fn new(job_id: String, prefix: PathBuf, backlog_bytes: u64, outlet: Outlet) -> Self {
        Self { job_id, prefix, backlog_bytes, outlet, offsets: [0; 2], lines: Default::default() }
    }

    /// Returns when the job is over and every line was handed to a session.
    pub(super) async fn run(&mut self, mut phase: watch::Receiver<Phase>) {
        let mut pause = LOOK_FIRST;
        if phase.wait_for(|phase| *phase != Phase::Waiting).await.is_err() {
            return;
        }
        loop {
            // Before the look: what is written until the end is then seen by it.
            let is_over = *phase.borrow_and_update() == Phase::Over;
            let moved = self.look().await;
            if moved {
                pause = LOOK_FIRST;
            } else if is_over {
                return self.finish().await;
            } else {
                tokio::select! {
                    changed = phase.changed() => if changed.is_err() { return },
                    () = sleep(pause) => pause = (pause * 2).min(LOOK_LAST),
                }
            }
        }
    }

    /// Sends what a chunk of each stream holds; true if there was anything.
    async fn look(&mut self) -> bool {
        let mut moved = false;
        for (at, stream) in Stream::PLAIN.into_iter().enumerate() {
            let (prefix, offset, backlog) = (self.prefix.clone(), self.offsets[at], self.backlog_bytes);
            let chunk = tokio::task::spawn_blocking(move || read(&prefix, stream, offset, backlog)).await;
            let chunk = match chunk {
                Ok(Ok(chunk)) => chunk,
                Ok(Err(error)) => {
                    tracing::warn!(%error, job = self.job_id, "the output of a job cannot be read");
                    continue;
                }
                // It does not panic; at the end of the process it may not run any more.
                Err(_) => continue,
            };
            if chunk.end == offset {
                continue;
            }
            moved = true;
            self.offsets[at] = chunk.end;
            let mut lines = Vec::new();
            if chunk.lines_dropped > 0 {
                // A line of which the beginning was read counts as one of those.
                self.lines[at] = Lines::default();
                lines.push(format!("[{} lines dropped]", chunk.lines_dropped));
            }
            self.lines[at].take(&chunk.bytes, &mut lines);
            self.send(lines).await;
        }
        moved
    }

    async fn finish(&mut self) {
        let mut lines = Vec::new();
        self.lines.iter_mut().for_each(|of_stream| of_stream.finish(&mut lines));
        self.send(lines).await;
    }

    async fn send(&mut self, lines: Vec<String>) {
        for data in lines {
            let entry = LogEntry { job_id: self.job_id.clone(), data };
            if !say(&mut self.outlet, AgentMessage { payload: Some(Payload::LogEntry(entry)) }).await {
                return;
            }
        }
    }
}

/// Hands a message to the present session, or the next one; false if there will be none.
async fn say(outlet: &mut Outlet, mut message: AgentMessage) -> bool {
    loop {
        let session = match outlet.wait_for(Option::is_some).await {
            Ok(session) => session.clone(),
            Err(_) => return false,
        };
        let Some(session) = session else { continue };
        message = match session.send(message).await {
            Ok(()) => return true,
            Err(unsent) => unsent.0,
        };
        // This one is over; it stays in the outlet until its end was noticed there, too.
        let is_same = |other: &Option<Sender>| other.as_ref().is_some_and(|other| other.same_channel(&session));
        if outlet.wait_for(|other| !is_same(other)).await.is_err() {
            return false;
        }
    }
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    /// Where the next one begins.
    end: u64,
    lines_dropped: u64,
}

/// The next chunk of a stream. When more than `backlog` bytes wait, all but the last half of that is skipped, to the beginning of a line.
fn read(prefix: &Path, stream: Stream, offset: u64, backlog: u64) -> io::Result<Chunk> {
    let (bytes, total) = output::read(prefix, stream, offset, CHUNK_BYTES)?;
    if total.saturating_sub(offset) <= backlog {
        return Ok(Chunk { end: offset + bytes.len() as u64, bytes, lines_dropped: 0 });
    }
    let (mut at, mut lines_dropped, until) = (offset, 0, total - backlog / 2);
    loop {
        let (bytes, _) = output::read(prefix, stream, at, CHUNK_BYTES)?;
        let mut breaks =
            (0..).zip(bytes.iter()).filter(|(_, byte)| **byte == b'\n').map(|(place, _): (u64, _)| at + place + 1);
        if let Some(start) = breaks.clone().find(|start| *start >= until) {
            lines_dropped += breaks.filter(|each| *each <= start).count() as u64;
            let (bytes, _) = output::read(prefix, stream, start, CHUNK_BYTES)?;
            return Ok(Chunk { end: start + bytes.len() as u64, bytes, lines_dropped });
        }
        lines_dropped += breaks.by_ref().count() as u64;
        if bytes.is_empty() {
            // No line ends there: what is skipped is the one that is being written.
            return Ok(Chunk { bytes, end: at, lines_dropped: lines_dropped.max(1) });
        }
        at += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn entries(received: &mut mpsc::Receiver<AgentMessage>) -> Vec<String> {
        let mut data = Vec::new();
        while let Ok(message) = received.try_recv() {
            match message.payload {
                Some(Payload::LogEntry(entry)) => data.push(entry.data),
                other => panic!("{other:?}"),
            }
        }
        data
    }

    #[tokio::test]
    async fn lines_of_both_streams_come_through_and_a_backlog_is_cut_at_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let numbered: String = (0..1_000).map(|at| format!("line {at:04}\n")).collect();
        fs::write(dir.path().join("1.out"), &numbered).unwrap();
        fs::write(dir.path().join("1.err"), "e1\ne2").unwrap();
        let (tx, mut rx) = mpsc::channel(2_000);
        let (_outlet, outlet) = watch::channel(Some(tx));
        let (_phase, phase) = watch::channel(Phase::Over);
        Follower::new("j".to_owned(), dir.path().join("1"), 10_000, outlet.clone()).run(phase.clone()).await;
        let all = entries(&mut rx);
        assert_eq!(all.len(), 1_002);
        assert_eq!((all[0].as_str(), all[999].as_str(), all[1_001].as_str()), ("line 0000", "line 0999", "e2"));
        Follower::new("j".to_owned(), dir.path().join("1"), 2_000, outlet).run(phase).await;
        let cut = entries(&mut rx);
        assert_eq!((cut[0].as_str(), cut[1].as_str()), ("[900 lines dropped]", "line 0900"));
        assert_eq!(cut.len(), 1 + 100 + 2);
    }

    #[tokio::test]
    async fn a_line_waits_for_the_next_session() {
        let message = AgentMessage { payload: None };
        let (first, gone) = mpsc::channel(1);
        drop(gone);
        let (sessions, mut outlet) = watch::channel(Some(first));
        let (second, mut rx) = mpsc::channel(1);
        let (said, ()) = tokio::join!(say(&mut outlet, message.clone()), async {
            sessions.send_replace(None);
            tokio::task::yield_now().await;
            sessions.send_replace(Some(second));
        });
        assert!(said && rx.try_recv() == Ok(message.clone()));
        drop(sessions);
        drop(rx);
        assert!(!say(&mut outlet, message).await);
    }
}
