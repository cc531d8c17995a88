//! Facts for programs: what changed since a cursor, and the cursor to go on from (ADR 11).
//!
//! A cursor is a place in all logs. It is a text that any node of the cluster takes, before and after restarts: what events beyond it speak of is told, whole
//! and as it is now. Telling a job twice does no harm, leaving one out would, so in doubt it is told. Nodes are always told, all of them: what is known of them
//! is mostly belief, of which there is no log.
//! Invariants: memory for a pull is a list of ids and one page; the driver is held for one slice at a time.
//! Does not: wait for news; a reader that wants to be woken is a relay, or follows the events.

mod changed;
mod cursor;
mod page;

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
pub(super) use changed::{Asked, Changed, since};
pub(super) use cursor::Cursor;
pub(super) use page::{SLICE, labels, of_facts, registers, slice};
use serde::Serialize;
use starling_core::machine::Machine;
use starling_core::time::Now;
use starling_proto::v1::{FactsPage, JobFacts, ListNodesRequest, NodeLine, PullFactsRequest, View};
use tonic::Status;

use super::context::Api;
use super::status::ApiError;
use super::stream::{Produced, send};
use super::{nodes, past};

/// Bytes of one page: clients take 4 MiB, and a job takes at most about 17 KiB.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// What was asked, found, and is told at the end.
struct Pull {
    namespace: String,
    changed: Changed,
    last: FactsPage,
}

/// Streams what changed.
///
/// Cancel safety: cancel safe.
pub(super) async fn pull(api: &Api, request: PullFactsRequest) -> Result<Produced<FactsPage>, Status> {
    if past::is_meant(&request) {
        return past::pull(api, request).await;
    }
    let pull = api.call(find(api, request)).await?;
    let own = api.clone();
    api.stream(|tx| async move {
        let Pull { namespace, changed, last } = pull;
        for ids in changed.jobs.chunks(SLICE) {
            let mut jobs = slice(&own, ids.to_vec(), &namespace).await?;
            while !jobs.is_empty() {
                let rest = jobs.split_off(fitting(&jobs));
                send(&tx, FactsPage { jobs, ..FactsPage::default() }).await?;
                jobs = rest;
            }
        }
        send(&tx, last).await
    })
}

/// How many of the jobs, at least one, fit into a page.
pub(super) fn fitting(jobs: &[JobFacts]) -> usize {
    use prost::Message as _;
    let mut bytes = 0;
    let fit = jobs.iter().take_while(|job| {
        bytes += job.encoded_len();
        bytes <= PAGE_BYTES_MAX
    });
    fit.count().max(1).min(jobs.len())
}

/// Reads the logs; the last page has all but jobs.
async fn find(api: &Api, request: PullFactsRequest) -> Result<Pull, ApiError> {
    let cursor = read_cursor(api, &request.cursor).await?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let asked = Asked { namespace: request.namespace.as_str().into(), cursor, limit };
    let changed = since(api, &asked).await?;
    let nodes = nodes::list(api, ListNodesRequest::default()).await?;
    let cursor = write_cursor(api, changed.cursor.clone()).await?;
    let last = FactsPage { jobs: vec![], nodes: nodes.nodes, cursor, more: changed.more, view: nodes.view };
    Ok(Pull { namespace: request.namespace, changed, last })
}

/// The cursor that a text stands for.
///
/// # Errors
/// If it is none of this cluster's.
pub(super) async fn read_cursor(api: &Api, text: &str) -> Result<Cursor, ApiError> {
    let cluster = api.ask(|machine: &mut Machine, _now: Now| machine.cluster()).await?;
    Cursor::from_text(text, &cluster).map_err(|error| ApiError::field("cursor", &error.to_string(), text))
}

/// The text that stands for a cursor.
pub(super) async fn write_cursor(api: &Api, cursor: Cursor) -> Result<String, ApiError> {
    api.ask(move |machine: &mut Machine, _now: Now| cursor.to_text(&machine.cluster())).await
}

/// All in one JSON object, whose jobs come last, as they are found.
pub(super) async fn answer(api: &Api, request: PullFactsRequest) -> Result<Response, Status> {
    let Pull { namespace, changed, last } = api.call(find(api, request)).await?;
    let FactsPage { cursor, more, nodes, view, .. } = last;
    let rest = text(&Rest { cursor, more, nodes, view })?;
    let head = open(rest, r#","jobs":["#);
    let stream = listed(api, changed, namespace, Frame { head, tail: "]}" }, |job| text(&job))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response())
}

/// A page without its jobs.
#[derive(Debug, Serialize)]
struct Rest {
    cursor: String,
    more: bool,
    nodes: Vec<NodeLine>,
    view: Option<View>,
}

/// An object's text with more to come before the brace that ended it.
pub(super) fn open(mut object: String, more: &str) -> String {
    object.pop();
    object + more
}

/// What stands around a list.
pub(super) struct Frame {
    pub(super) head: String,
    pub(super) tail: &'static str,
}

/// Jobs that changed as JSON between `frame`, each written by `write`.
pub(super) fn listed<W>(
    api: &Api,
    changed: Changed,
    namespace: String,
    frame: Frame,
    mut write: W,
) -> Result<Produced<Bytes>, Status>
where
    W: FnMut(JobFacts) -> Result<String, ApiError> + Send + 'static,
{
    let own = api.clone();
    api.stream(|tx| async move {
        let (mut out, mut is_first) = (frame.head, true);
        for ids in changed.jobs.chunks(SLICE) {
            for job in slice(&own, ids.to_vec(), &namespace).await? {
                if !std::mem::take(&mut is_first) {
                    out.push(',');
                }
                out.push_str(&write(job)?);
            }
            send(&tx, Bytes::from(std::mem::take(&mut out))).await?;
        }
        // Writing to a text cannot fail.
        let _written = write!(out, "{}", frame.tail);
        send(&tx, Bytes::from(out)).await
    })
}

/// As JSON.
pub(super) fn text<T: Serialize>(value: &T) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|error| ApiError::Json(error.to_string()))
}
