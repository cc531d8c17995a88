//! The hub contract over HTTP, at every node, for programs written against a hub.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /control` | `{"RegisterNamespace": [name, spec]}` or `{"RegisterGenerator": [gid, {"kind", "callback_url"}]}` | what is there now |
//! | `POST /ingest` | `{"kind", "payload": {"ctx": {"job_id", "ns_id", "node_id", "priority"}, "spec": {name: text}}}` | the pokes, `[{"gid"}]` |
//! | `GET /pull?gid=…&cursor=…` | | `{"nodes": {name: …}, "jobs": {id: {"phase", "namespace_id", "priority", "resources", …}}}` |
//!
//! `fields` says how the texts of a spec are read. The next cursor is in the header `x-cursor`, as a number that this node gave this `gid`: at another node, after a
//! restart or after many pulls it means everything, which is safe, because Facts only add up. The header `x-cursor-token` has the same place as a text that every node
//! takes at any time. The answer to a submission has the job's id in the header `x-job`.
//! Invariants: a job submitted so is like any other; a body over `BODY_BYTES_MAX` is refused with the limit named; what is no JSON, or not of this shape, is
//! refused with line and column.
//! Does not: serve generators (`Generators` does), or keep anything but the last cursors of its clients and names that are being submitted, for a while.

mod control;
mod fields;
mod generators;
mod ingest;
mod numbers;
mod pull;
mod submitting;
mod words;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
pub use generators::{Generator, Generators};
use numbers::Numbers;
use pull::PullQuery;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use submitting::Submitting;
use tonic::Status;

use super::context::Api;
use super::http::{Refusal, answer, failed, query, read, refused};

/// Largest body.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Words for handlers that are remembered.
const HANDLERS_MAX: usize = 1_024;

/// What is remembered of clients for a while. Leaves: no lock is held while anything else is waited for.
#[derive(Debug)]
pub(super) struct Hub {
    numbers: Mutex<Numbers>,
    submitting: Mutex<Submitting>,
    /// The namespace that was last registered here under a `handler_type`.
    handlers: Mutex<BTreeMap<String, SmolStr>>,
}

impl Default for Hub {
    fn default() -> Self {
        let (submitting, handlers) = (Mutex::default(), Mutex::default());
        Self { numbers: Mutex::new(Numbers::new(rand::random())), submitting, handlers }
    }
}

impl Hub {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submitting(&self) -> MutexGuard<'_, Submitting> {
        self.submitting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember_handler(&self, handler: String, namespace: &str) {
        let mut handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        if !handler.is_empty() && (handlers.len() < HANDLERS_MAX || handlers.contains_key(&handler)) {
            handlers.insert(handler, namespace.into());
        }
    }

    fn namespace_of(&self, handler: &str) -> Option<SmolStr> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner).get(handler).cloned()
    }
}

/// A generator that has been poked, or will be in a moment.
#[derive(Debug, Serialize)]
struct Poke {
    gid: String,
}

/// The contract's routes.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/control", post(post_control))
        .route("/ingest", post(post_ingest))
        .route("/pull", get(get_pull))
}

/// A JSON body of any content type: programs do not always say.
async fn body<T: DeserializeOwned>(request: Request, what: &str) -> Result<T, Refusal> {
    let bytes = read(request, BODY_BYTES_MAX).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let error = format!("the body does not fit: expected {what}; {error}");
        refused(StatusCode::BAD_REQUEST, error)
    })
}

async fn post_control(State(api): State<Api>, request: Request) -> Response {
    let expected = r#"{"RegisterNamespace": [name, spec]} or {"RegisterGenerator": [gid, spec]}"#;
    match body(request, expected).await {
        Ok(asked) => answer(api.call(control::control(&api, asked)).await),
        Err(refusal) => refusal.into_response(),
    }
}

async fn post_ingest(State(api): State<Api>, request: Request) -> Response {
    let expected = r#"{"kind", "payload": {"ctx": {"job_id", "ns_id", "node_id", "priority"}, "spec": {name: text}}}"#;
    let event = match body(request, expected).await {
        Ok(event) => event,
        Err(refusal) => return refusal.into_response(),
    };
    let work = async {
        let ingested = ingest::ingest(&api, event).await?;
        Ok((pokes(&api, &ingested.namespace).await, ingested.job))
    };
    match api.call(work).await {
        Ok((pokes, job)) => ([("x-job", job)], Json(pokes)).into_response(),
        Err(status) => failed(&status),
    }
}

async fn pokes(api: &Api, namespace: &str) -> Vec<Poke> {
    match &api.ctx.generators {
        Some(generators) => generators.serving(namespace).await.into_iter().map(|gid| Poke { gid }).collect(),
        None => Vec::new(),
    }
}

async fn get_pull(State(api): State<Api>, uri: Uri) -> Response {
    match query::<PullQuery>(&uri) {
        Ok(asked) => pull::pull(&api, asked).await.unwrap_or_else(|status: Status| failed(&status)),
        Err(refusal) => refusal.into_response(),
    }
}
