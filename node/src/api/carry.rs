//! Carrying logs by hand: all signed batches of this node's disk as a stream, and batches of others taken in (ADR 19).
//!
//! Invariants: only what is durable is exported (DESIGN L1); what is imported is judged like batches of a peer that nobody trusts, piece by piece, and the next piece is
//! read once what is new in the last one is on disk; memory is a few pieces of at most `limits::SYNC_RESPONSE_BYTES_MAX`.
//! Does not: know files (`cli` does).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use starling_core::event::SignedBatch;
use starling_core::facts::view::{self, FindError};
use starling_core::ids::{ClusterId, Epoch, LogId, NodeId, Seq};
use starling_core::limits::SYNC_RESPONSE_BYTES_MAX as PIECE_BYTES_MAX;
use starling_core::machine::{Command, CommandError, Machine, Reply, Taken};
use starling_core::time::Now;
use starling_proto::v1::{ExportEnd, ExportLogRequest, ImportLogReply, ImportRefusal, LogPiece, LogTip};
use tokio::sync::mpsc;
use tonic::Status;

use super::context::{Api, ReadLog};
use super::convert::seen;
use super::status::ApiError;
use super::stream::{Produced, send};
use crate::driver::Stopped;

/// A client that imports must send its next piece within this time.
const PIECE_WITHIN: Duration = Duration::from_secs(30);
/// A node that is busy is asked again after this long, so often.
const BUSY_REST: Duration = Duration::from_millis(100);
const BUSY_TRIES: u32 = 100;
/// Kinds of refusals told in one reply.
const REFUSALS_MAX: usize = 1_000;

/// What is to be exported.
struct Plan {
    author: Option<NodeId>,
    /// Where each log ends durably.
    tips: BTreeMap<LogId, Seq>,
    /// Logs with branches, which may be longer than what counts as the log itself.
    forked: BTreeSet<LogId>,
}

impl Plan {
    fn takes(&self, batch: &SignedBatch) -> bool {
        let header = batch.header();
        let is_durable = self.tips.get(&header.log).is_some_and(|tip| header.last_seq() <= *tip);
        self.author.is_none_or(|author| author == header.log.node) && (is_durable || self.forked.contains(&header.log))
    }
}

/// Streams what lies on disk.
///
/// Cancel safety: cancel safe.
pub(super) async fn export(api: &Api, request: ExportLogRequest) -> Result<Produced<LogPiece>, Status> {
    let find = move |machine: &mut Machine, _now: Now| -> Result<(ClusterId, Plan), FindError> {
        let author = match request.author.as_str() {
            "" => None,
            name => Some(view::find_node(machine.facts(), name)?),
        };
        let tips = machine.frontier().tips().map(|(log, tip)| (*log, tip.len)).collect();
        let forked = machine.logs().forked().copied().collect();
        Ok((machine.cluster(), Plan { author, tips, forked }))
    };
    let (cluster, plan) = api.call(async { Ok(api.ask(find).await??) }).await?;
    let own = api.clone();
    api.stream(|tx| async move {
        // The semaphore is never closed.
        let _turn = own.readers.acquire().await.map_err(|_closed| ApiError::Overloaded)?;
        send(&tx, LogPiece { cluster: cluster.0.to_vec(), ..LogPiece::default() }).await?;
        let (log, to) = (Arc::clone(&own.ctx.log), tx.clone());
        let read = tokio::task::spawn_blocking(move || read_out(&*log, &plan, &to)).await;
        let end = read.map_err(|panicked| ApiError::History(panicked.to_string()))??;
        send(&tx, LogPiece { end: Some(end), ..LogPiece::default() }).await
    })
}

fn read_out(log: &dyn ReadLog, plan: &Plan, to: &mpsc::Sender<LogPiece>) -> Result<ExportEnd, ApiError> {
    let (mut end, mut piece, mut bytes) = (ExportEnd::default(), LogPiece::default(), 0);
    let mut is_gone = false;
    let take = &mut |batch: SignedBatch| {
        if !plan.takes(&batch) {
            return if to.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        }
        if bytes + batch.bytes().len() > PIECE_BYTES_MAX {
            is_gone = to.blocking_send(std::mem::take(&mut piece)).is_err();
            bytes = 0;
        }
        bytes += batch.bytes().len();
        end.batches += 1;
        end.events += u64::from(batch.header().count);
        piece.batches.push(batch.bytes().to_vec());
        if is_gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    log.batches(take).map_err(ApiError::History)?;
    if is_gone || to.blocking_send(piece).is_err() {
        return Err(ApiError::ReaderGone);
    }
    let tips = plan.tips.iter().filter(|(log, _)| plan.author.is_none_or(|author| author == log.node));
    let tip = |(log, seq): (&LogId, &Seq)| LogTip { author: log.node.to_hex(), epoch: log.epoch.0, events: seq.0 };
    end.tips = tips.map(tip).collect();
    Ok(end)
}

/// Takes in what a client brings.
///
/// Cancel safety: what was handed over before stays taken in.
pub(super) async fn import<S>(api: &Api, mut pieces: S) -> Result<ImportLogReply, ApiError>
where
    S: Stream<Item = Result<LogPiece, Status>> + Send + Unpin,
{
    let cluster = api.ask(|machine: &mut Machine, _now: Now| machine.cluster()).await?;
    let (mut tally, mut is_first) = (Tally::default(), true);
    loop {
        let next = tokio::time::timeout(PIECE_WITHIN, pieces.next()).await;
        let Some(piece) = next.map_err(|_elapsed| ApiError::Deadline(PIECE_WITHIN))? else {
            break;
        };
        // The client went away: nobody is left to be told.
        let piece = piece.map_err(|_broken| ApiError::ReaderGone)?;
        if std::mem::take(&mut is_first) {
            check_cluster(&piece.cluster, &cluster)?;
        }
        let bytes: usize = piece.batches.iter().map(Vec::len).sum();
        if bytes > PIECE_BYTES_MAX || piece.batches.len() > PIECE_BYTES_MAX / 64 {
            let expected = format!("at most {PIECE_BYTES_MAX} bytes in one piece");
            return Err(ApiError::field("batches", &expected, &bytes.to_string()));
        }
        tally.take_in(api, cluster, piece.batches).await?;
    }
    if is_first {
        return Err(ApiError::field("cluster", "the id of the log's cluster in the first piece", "nothing"));
    }
    let told = move |machine: &mut Machine, now: Now| ImportLogReply {
        events: machine.frontier().events(),
        facts_root: machine.root().to_hex(),
        view: Some(seen(machine, now)),
        ..ImportLogReply::default()
    };
    Ok(tally.reply(api.ask(told).await?))
}

fn check_cluster(theirs: &[u8], ours: &ClusterId) -> Result<(), ApiError> {
    let Ok(theirs) = <[u8; 32]>::try_from(theirs).map(ClusterId) else {
        return Err(ApiError::field("cluster", "32 bytes", &format!("{} bytes", theirs.len())));
    };
    if theirs == *ours {
        Ok(())
    } else {
        Err(ApiError::OtherCluster { theirs: theirs.to_string(), ours: ours.to_string() })
    }
}

/// Why a batch was refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Missing(Seq),
    NoMember,
    Full,
    Broken(String),
}

/// What became of the batches so far.
#[derive(Debug, Default)]
struct Tally {
    new_batches: u64,
    new_events: u64,
    known_batches: u64,
    refused_batches: u64,
    /// The first position and the number of those that were refused alike.
    refused: BTreeMap<(Option<LogId>, Why), (Seq, u64)>,
}

impl Tally {
    async fn take_in(&mut self, api: &Api, cluster: ClusterId, batches: Vec<Vec<u8>>) -> Result<(), ApiError> {
        let open = move || -> Vec<_> { batches.iter().map(|bytes| SignedBatch::open(bytes, &cluster)).collect() };
        let opened = tokio::task::spawn_blocking(open).await;
        let mut left = Vec::new();
        for batch in opened.map_err(|panicked| ApiError::History(panicked.to_string()))? {
            match batch {
                Ok(batch) => left.push(batch),
                Err(error) => self.refuse(None, Seq(0), Why::Broken(error.to_string())),
            }
        }
        for attempt in 1.. {
            let taken = hand_over(api, &left).await?;
            let is_last = attempt >= BUSY_TRIES || !taken.contains(&Taken::Full);
            left = self.count(left, &taken, is_last);
            if left.is_empty() {
                break;
            }
            tokio::time::sleep(BUSY_REST).await;
        }
        Ok(())
    }

    /// Counts; unless it is the last try, what found no room, and what came behind it, is given back.
    fn count(&mut self, batches: Vec<SignedBatch>, taken: &[Taken], is_last: bool) -> Vec<SignedBatch> {
        let mut again = Vec::new();
        for (batch, taken) in batches.into_iter().zip(taken) {
            let (log, first) = (batch.header().log, batch.header().first_seq);
            match taken {
                Taken::New => {
                    self.new_batches += 1;
                    self.new_events += u64::from(batch.header().count);
                }
                Taken::Known => self.known_batches += 1,
                Taken::Full | Taken::Gap { .. } if !is_last => again.push(batch),
                Taken::Full => self.refuse(Some(log), first, Why::Full),
                Taken::Gap { missing_from } => self.refuse(Some(log), first, Why::Missing(*missing_from)),
                Taken::NotAdmitted => self.refuse(Some(log), first, Why::NoMember),
            }
        }
        again
    }

    fn refuse(&mut self, log: Option<LogId>, first: Seq, why: Why) {
        self.refused_batches += 1;
        if self.refused.len() < REFUSALS_MAX || self.refused.contains_key(&(log, why.clone())) {
            let (_, batches) = self.refused.entry((log, why)).or_insert((first, 0));
            *batches += 1;
        }
    }

    fn reply(self, named: ImportLogReply) -> ImportLogReply {
        let refusals = self.refused.into_iter().map(|((log, why), (first, batches))| ImportRefusal {
            author: log.map(|log| log.node.to_hex()).unwrap_or_default(),
            epoch: log.map_or(0, |LogId { epoch: Epoch(epoch), .. }| epoch),
            first_event: first.0,
            batches,
            reason: sentence(&why, first),
        });
        ImportLogReply {
            new_batches: self.new_batches,
            new_events: self.new_events,
            known_batches: self.known_batches,
            refused_batches: self.refused_batches,
            refusals: refusals.collect(),
            ..named
        }
    }
}

fn sentence(why: &Why, first: Seq) -> String {
    match why {
        Why::Missing(from) => format!(
            "events {from} to {} are missing at this node and in what was imported; import what has them first: a node that runs with --archive exports all",
            first.0.saturating_sub(1)
        ),
        Why::NoMember => {
            "its log does not open with a proof that its author knows this cluster's secret; it is no member, and nobody here will take it".to_owned()
        }
        Why::Full => "this node has no room for it at the moment; import the file again, what is known by then is passed over".to_owned(),
        Why::Broken(error) => format!("{error}; it was changed on its way: export it again"),
    }
}

/// Hands batches to the Machine, again while it is busy.
async fn hand_over(api: &Api, batches: &[SignedBatch]) -> Result<Vec<Taken>, ApiError> {
    if batches.is_empty() {
        return Ok(Vec::new());
    }
    let mut tries = 0;
    loop {
        let busy: ApiError = match api.ctx.handle.command(Command::Import(batches.to_vec())).await {
            Ok(Reply::Imported(taken)) => return Ok(taken),
            Ok(Reply::Error(error @ CommandError::Busy(_))) => error.into(),
            Ok(Reply::Error(error)) => return Err(error.into()),
            Ok(Reply::Submitted { .. } | Reply::Cancelled | Reply::Declared { .. } | Reply::Noted) => {
                return Err(Stopped::Gone.into());
            }
            Err(error @ Stopped::Busy) => error.into(),
            Err(error @ Stopped::Gone) => return Err(error.into()),
        };
        tries += 1;
        if tries >= BUSY_TRIES {
            return Err(busy);
        }
        tokio::time::sleep(BUSY_REST).await;
    }
}
