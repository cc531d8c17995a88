//! The trace: one number that two runs of a seed must share, and the last lines before a failure.
//!
//! Invariants: every input and every effect goes into the number, with the moment and the node; lines are made only when somebody will read them.

use std::collections::VecDeque;

use starling_core::event::SignedBatch;
use starling_core::ids::{JobId, LogId};
use starling_core::machine::{Effect, Input, Notice, Record, Reply, SnapshotNews, snapshot};
use starling_core::sync::Message;
use starling_core::time::Mono;

/// Longest line kept.
const LINE_CHARS_MAX: usize = 240;

/// The trace of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    keep: usize,
}

impl Trace {
    pub(crate) fn new(keep: usize) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: VecDeque::new(), keep }
    }

    pub(crate) fn mix(&mut self, words: &[u64]) {
        for word in words {
            self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }

    pub(crate) fn line(&mut self, at: Mono, text: impl FnOnce() -> String) {
        if self.keep == 0 {
            return;
        }
        if self.lines.len() == self.keep {
            self.lines.pop_front();
        }
        let mut line = format!("{:>7} ms  {}", at.0, text());
        if let Some((cut, _)) = line.char_indices().nth(LINE_CHARS_MAX) {
            line.truncate(cut);
        }
        self.lines.push_back(line);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines).into()
    }
}

fn log(log: &LogId) -> u64 {
    log.node.prefix() ^ log.epoch.0
}

fn job(job: &JobId) -> u64 {
    log(&job.log).rotate_left(9) ^ job.no.0
}

fn batch(batch: &SignedBatch) -> u64 {
    batch.head().prefix()
}

/// What an input is, in a few words.
pub(crate) fn of_input(input: &Input) -> [u64; 3] {
    match input {
        Input::Tick => [1, 0, 0],
        Input::Batch { from, batch: signed } => [2, from.prefix(), batch(signed)],
        Input::Pulled { log: of, batches, more, .. } => {
            [3, log(of) ^ u64::from(*more), batches.iter().fold(0, |sum, signed| sum ^ batch(signed))]
        }
        Input::Message { from, message } => [4, from.prefix(), of_message(message)],
        Input::Presence(presence) => {
            [5, presence.node.prefix() ^ presence.boot, presence.seq ^ presence.free.cpu_milli << 32]
        }
        Input::LinkUp(peer) => [6, peer.prefix(), 0],
        Input::LinkDown(peer) => [7, peer.prefix(), 0],
        Input::Durable(write) => [8, write.0, 0],
        Input::WriteFailed { write, .. } => [9, write.0, 0],
        Input::Command { request, .. } => [10, request.0, 0],
        Input::TaskEnded { run, outcome, usage } => {
            [11, run.0, u64::from(outcome.code().unsigned_abs()) ^ usage.wall_ms << 32]
        }
        Input::PortOpened { run, port, .. } => [15, run.0, u64::from(*port)],
        Input::Relays(relays) => [16, relays.iter().map(|relay| u64::from(relay.slots)).sum(), relays.len() as u64],
        Input::Workers(workers) => {
            [17, workers.iter().map(|worker| u64::from(worker.slots)).sum(), workers.len() as u64]
        }
        Input::Snapshotted(result) => [18, u64::from(result.is_ok()), 0],
        Input::Fetched { from, result } => [19, from.prefix(), u64::from(result.is_ok())],
        Input::Stats(_) => [12, 0, 0],
        Input::Addresses { .. } => [13, 0, 0],
        Input::Shutdown => [14, 0, 0],
        Input::GiveUp => [18, 0, 0],
    }
}

fn of_message(message: &Message) -> u64 {
    match message {
        Message::Digest(digest) => 1 ^ digest,
        Message::Tips(frontier) => 2 ^ frontier.digest(),
        Message::TipsBack(frontier) => 3 ^ frontier.digest(),
        Message::Pull { log: of, from, .. } => 4 ^ log(of) ^ from.0 << 8,
        Message::Have { log: of, len } => 5 ^ log(of) ^ len.0 << 8,
        Message::Offer(offer) => 6 ^ job(&offer.grant.job) ^ u64::from(offer.grant.no.no) << 8,
        Message::OfferReply { grant, accepted, .. } => {
            7 ^ job(&grant.job) ^ u64::from(grant.no.no) << 8 ^ u64::from(*accepted) << 4
        }
        Message::SnapshotAhead { log: of, id, .. } => 9 ^ log(of) ^ id.prefix(),
        Message::Ask { free, .. } => 8 ^ free.cpu_milli << 8,
    }
}

/// What an effect is, in a few words.
pub(crate) fn of_effect(effect: &Effect) -> [u64; 3] {
    match effect {
        Effect::Write { write, records } => {
            let sum = records.iter().fold(0_u64, |sum, record| match record {
                Record::Batch(signed) => sum.rotate_left(1) ^ batch(signed),
                Record::Note(_) => sum.rotate_left(1) ^ 1,
                Record::CleanShutdown => sum.rotate_left(1) ^ 2,
            });
            [21, write.0, sum]
        }
        Effect::Gossip(signed) => [22, batch(signed), 0],
        Effect::Publish(presence) => [23, presence.seq, presence.free.cpu_milli],
        Effect::Send { to, message } => [24, to.prefix(), of_message(message)],
        Effect::Serve { to, log: of, from, .. } => [25, to.prefix() ^ log(of), from.0],
        Effect::Spawn(spawn) => [26, job(&spawn.grant.job), u64::from(spawn.task) ^ spawn.run.0 << 32],
        Effect::Retire(past) => [51, past.len() as u64, past.iter().fold(0, |sum, past| sum ^ job(&past.id))],
        Effect::Snapshot(bytes) => [52, snapshot::name(&bytes.shared).prefix(), bytes.local.len() as u64],
        Effect::Fetch { from, id, bytes } => [53, from.prefix() ^ id.prefix(), *bytes],
        Effect::Kill(run) => [27, run.0, 0],
        Effect::Reply { request, reply } => {
            let what = match reply {
                Reply::Submitted { job: id, .. } => job(id),
                Reply::Cancelled => 1,
                Reply::Declared { id, fresh } => 3 ^ id.prefix() ^ u64::from(*fresh),
                Reply::Noted => 4,
                Reply::Imported(taken) => 5 ^ (taken.len() as u64) << 8,
                Reply::Error(_) => 2,
            };
            [28, request.0, what]
        }
        Effect::Notice(notice) => {
            let what = match notice {
                Notice::Folded(signed) => batch(signed),
                Notice::NodeDead(node) => node.prefix(),
                Notice::Forked(of) => log(of),
                Notice::RootMismatch(node) => node.prefix() ^ 1,
                Notice::DiskRefuses(_) => 1,
                Notice::DiskAccepts => 2,
                Notice::Stopped => 3,
                Notice::Gateway(standing) => 4 ^ standing.acting().map_or(0, |term| term.0 << 8),
                Notice::GatewayFacts => 5,
                Notice::Snapshot(news) => match news {
                    SnapshotNews::Written => 6,
                    SnapshotNews::Failed(_) => 7,
                    SnapshotNews::Joined(node) => 8 ^ node.prefix(),
                    SnapshotNews::Refused { from, .. } => 9 ^ from.prefix(),
                },
                Notice::Twin => 10,
                Notice::Adopted { log: of, by } => log(of) ^ by.prefix() << 1,
            };
            [29, what, 0]
        }
    }
}
