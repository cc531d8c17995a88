//! HTTP/JSON: the same operations with the same messages, and server-sent events for streams.
//!
//! Invariants: an error is `{"error","hint","violations"}` with a fitting status, also for paths and
//! bodies that are wrong; no page that a browser shows can change anything here: a changing request
//! with an `Origin` is refused.
//! Does not: authenticate; the listener's reach protects it.

mod gateway;
mod members;
mod relays;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_proto::Word;
use starling_proto::v1::starling_server::StarlingServer;
use starling_proto::v1::{
    CancelRequest, DownRequest, EventsRequest, GetNamespaceRequest, GetNodeRequest, JobRef, JobState, ListJobsRequest,
    ListNodesRequest, LogStream, LogsRequest, PullFactsRequest, PutNamespaceRequest, SubmitRequest, WaitRequest,
};
use tonic::Status;

use super::context::Api;
use super::status::{self, ApiError};
use super::{doctor, down, events, facts, hub, jobs, logs, namespaces, nodes, submit, wait};

/// Largest request, as for gRPC.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Time for a request's body to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Longest the health check waits for the driver.
const HEALTH_WITHIN: Duration = Duration::from_secs(2);
const GRPC_PATH: &str = "/starling.v1.Starling/{method}";

/// All routes.
pub(super) fn router(api: Api) -> Router {
    let grpc = StarlingServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX);
    Router::new()
        .route("/v1/submit", post(post_submit))
        .route("/v1/cancel", post(post_cancel))
        .route("/v1/jobs", get(get_jobs))
        .route("/v1/jobs/{id}", get(get_job))
        .route("/v1/jobs/{id}/explain", get(get_explain))
        .route("/v1/jobs/{id}/cancel", post(post_job_cancel))
        .route("/v1/jobs/{id}/wait", get(get_wait))
        .route("/v1/jobs/{id}/logs", get(get_logs))
        .route("/v1/nodes", get(get_nodes))
        .route("/v1/nodes/{node}", get(get_node))
        .route("/v1/namespaces", get(get_namespaces).put(put_namespace))
        .route("/v1/namespaces/{name}", get(get_namespace))
        .route("/v1/events", get(get_events))
        .route("/v1/facts", get(get_facts))
        .route("/v1/info", get(get_info))
        .route("/v1/doctor", get(get_doctor))
        .route("/v1/down", post(post_down))
        .route("/healthz", get(get_health))
        .merge(hub::routes())
        .merge(relays::routes())
        .merge(gateway::routes())
        .merge(members::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(api)
        .route_service(GRPC_PATH, grpc)
        .layer(middleware::from_fn(refuse_browsers))
}

/// A page from elsewhere must not submit jobs through its visitor's browser, which always tells the
/// page's origin with such a request.
async fn refuse_browsers(request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && request.headers().contains_key(header::ORIGIN) {
        return refused(StatusCode::FORBIDDEN, "requests from web pages are refused".to_owned()).into_response();
    }
    next.run(request).await
}

/// A request that never reached the API.
#[derive(Debug)]
pub(super) struct Refusal {
    code: StatusCode,
    error: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.code, Json(status::http_refusal(self.error))).into_response()
    }
}

pub(super) fn refused(code: StatusCode, error: String) -> Refusal {
    Refusal { code, error }
}

async fn unknown_path(uri: Uri) -> Refusal {
    refused(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let error = format!("{} does not take {method}", uri.path());
    refused(StatusCode::METHOD_NOT_ALLOWED, error)
}

pub(super) fn answer<T: Serialize>(result: Result<T, Status>) -> Response {
    match result {
        Ok(reply) => Json(reply).into_response(),
        Err(status) => failed(&status),
    }
}

pub(super) fn failed(status: &Status) -> Response {
    let (code, refusal) = status::http(status);
    (code, Json(refusal)).into_response()
}

/// Whether the request says that its body is of this type.
fn has_type(request: &Request, wanted: &str) -> bool {
    let said = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    said.is_some_and(|value| value.trim_start().starts_with(wanted))
}

/// The request's JSON body.
async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    body_within(request, BODY_BYTES_MAX).await
}

/// The request's JSON body of at most so many bytes.
async fn body_within<T: DeserializeOwned>(request: Request, bytes_max: usize) -> Result<T, Refusal> {
    if !has_type(&request, "application/json") {
        let error = "expected content-type application/json".to_owned();
        return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    let bytes = read(request, bytes_max).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| refused(StatusCode::BAD_REQUEST, format!("the body does not fit: {error}")))
}

/// The request's body, if it has at most `limit` bytes.
pub(super) async fn read(request: Request, limit: usize) -> Result<Bytes, Refusal> {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let too_large = || {
        let error = format!("the body is over the limit of {limit} bytes");
        refused(StatusCode::PAYLOAD_TOO_LARGE, error)
    };
    if length.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    // One byte more than allowed shows what is over the limit without a length.
    let body = to_bytes(request.into_body(), limit);
    match tokio::time::timeout(BODY_WITHIN, body).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) if length.is_none() => Err(too_large()),
        Ok(Err(error)) => Err(refused(StatusCode::BAD_REQUEST, format!("the body broke off: {error}"))),
        Err(_elapsed) => {
            let error = "the body did not arrive in time".to_owned();
            Err(refused(StatusCode::REQUEST_TIMEOUT, error))
        }
    }
}

/// The request's query.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    match Query::try_from_uri(uri) {
        Ok(Query(query)) => Ok(query),
        Err(error) => Err(refused(StatusCode::BAD_REQUEST, error.body_text())),
    }
}

/// Whether a flag such as `?follow` or `?follow=true` is set.
fn is_set(flag: Option<&String>) -> bool {
    flag.is_some_and(|value| !matches!(value.as_str(), "0" | "false" | "no"))
}

/// Words of a comma-separated list, as numbers.
fn words<E>(field: &str, text: &str) -> Result<Vec<i32>, Status>
where
    E: Word + Into<i32>,
{
    let all = text.split(',').filter(|word| !word.is_empty());
    all.map(|word| {
        let known: Vec<&str> = E::WORDS.iter().map(|(_, word)| *word).collect();
        let wrong = || ApiError::field(field, &format!("some of {}", known.join(", ")), word);
        Ok(E::from_word(word).ok_or_else(wrong)?.into())
    })
    .collect()
}

/// A stream as server-sent events; an error becomes an event `error` and ends it.
fn sse<T, S>(stream: Result<S, Status>) -> Response
where
    T: Serialize,
    S: Stream<Item = Result<T, Status>> + Send + 'static,
{
    let event = |item: Result<T, Status>| {
        let event = match &item {
            Ok(item) => Event::default().json_data(item),
            Err(status) => Event::default().event("error").json_data(status::http(status).1),
        };
        Ok::<Event, Infallible>(event.unwrap_or_default())
    };
    match stream {
        Ok(stream) => Sse::new(stream.map(event)).keep_alive(KeepAlive::default()).into_response(),
        Err(status) => failed(&status),
    }
}

async fn post_submit(State(api): State<Api>, request: Request) -> Response {
    match body::<SubmitRequest>(request).await {
        Ok(request) => answer(api.call(submit::submit(&api, request)).await),
        Err(refusal) => refusal.into_response(),
    }
}

async fn post_cancel(State(api): State<Api>, request: Request) -> Response {
    match body::<CancelRequest>(request).await {
        Ok(request) => answer(api.call(jobs::cancel(&api, request)).await),
        Err(refusal) => refusal.into_response(),
    }
}

async fn post_down(State(api): State<Api>, request: Request) -> Response {
    match body::<DownRequest>(request).await {
        Ok(request) => answer(api.call(down::down(&api, request)).await),
        Err(refusal) => refusal.into_response(),
    }
}

async fn post_job_cancel(State(api): State<Api>, Path(job): Path<String>) -> Response {
    let request = CancelRequest { jobs: vec![job], ..CancelRequest::default() };
    answer(api.call(jobs::cancel(&api, request)).await)
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct JobsQuery {
    states: String,
    name: String,
    limit: u32,
    node: String,
    jobs: String,
    at_unix_ms: u64,
}

async fn get_jobs(State(api): State<Api>, uri: Uri) -> Response {
    let asked: JobsQuery = match query(&uri) {
        Ok(asked) => asked,
        Err(refusal) => return refusal.into_response(),
    };
    let states = match words::<JobState>("states", &asked.states) {
        Ok(states) => states,
        Err(status) => return failed(&status),
    };
    let jobs = asked.jobs.split(',').filter(|job| !job.is_empty());
    let request = ListJobsRequest {
        states,
        name: asked.name,
        limit: asked.limit,
        node: asked.node,
        jobs: jobs.map(ToOwned::to_owned).collect(),
        at_unix_ms: asked.at_unix_ms,
    };
    answer(api.call(jobs::list(&api, request)).await)
}

async fn get_job(State(api): State<Api>, Path(job): Path<String>) -> Response {
    answer(api.call(jobs::get(&api, JobRef { job })).await)
}

async fn get_explain(State(api): State<Api>, Path(job): Path<String>) -> Response {
    answer(api.call(jobs::explain(&api, JobRef { job })).await)
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WaitQuery {
    progress: Option<String>,
}

async fn get_wait(State(api): State<Api>, Path(job): Path<String>, uri: Uri) -> Response {
    match query::<WaitQuery>(&uri) {
        Ok(asked) => {
            let progress = is_set(asked.progress.as_ref());
            sse(wait::wait(&api, WaitRequest { jobs: vec![job], progress }).await)
        }
        Err(refusal) => refusal.into_response(),
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogsQuery {
    task: Option<u32>,
    streams: String,
    follow: Option<String>,
    offset: u64,
    format: String,
}

async fn get_logs(State(api): State<Api>, Path(job): Path<String>, uri: Uri) -> Response {
    let asked: LogsQuery = match query(&uri) {
        Ok(asked) => asked,
        Err(refusal) => return refusal.into_response(),
    };
    let streams = match words::<LogStream>("streams", &asked.streams) {
        Ok(streams) => streams,
        Err(status) => return failed(&status),
    };
    let request =
        LogsRequest { job, task: asked.task, streams, follow: is_set(asked.follow.as_ref()), offset: asked.offset };
    let stream = logs::logs(&api, request).await;
    match asked.format.as_str() {
        "" | "sse" => sse(stream),
        "text" => match stream {
            Ok(stream) => {
                let data = stream.map(|chunk| chunk.map(|chunk| chunk.data));
                let head = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
                (head, Body::from_stream(data)).into_response()
            }
            Err(status) => failed(&status),
        },
        other => failed(&ApiError::field("format", "sse or text", other).into()),
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NodesQuery {
    jobs: Option<String>,
}

async fn get_nodes(State(api): State<Api>, uri: Uri) -> Response {
    match query::<NodesQuery>(&uri) {
        Ok(asked) => {
            let request = ListNodesRequest { with_jobs: is_set(asked.jobs.as_ref()) };
            answer(api.call(nodes::list(&api, request)).await)
        }
        Err(refusal) => refusal.into_response(),
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NodeQuery {
    since_ms: u64,
}

async fn get_node(State(api): State<Api>, Path(node): Path<String>, uri: Uri) -> Response {
    match query::<NodeQuery>(&uri) {
        Ok(NodeQuery { since_ms }) => answer(api.call(nodes::get(&api, GetNodeRequest { node, since_ms })).await),
        Err(refusal) => refusal.into_response(),
    }
}

async fn get_namespaces(State(api): State<Api>) -> Response {
    answer(api.call(namespaces::list(&api)).await)
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NamespaceQuery {
    version: u32,
    id: String,
}

async fn get_namespace(State(api): State<Api>, Path(name): Path<String>, uri: Uri) -> Response {
    match query::<NamespaceQuery>(&uri) {
        Ok(NamespaceQuery { version, id }) => {
            answer(api.call(namespaces::get(&api, GetNamespaceRequest { name, version, id })).await)
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn put_namespace(State(api): State<Api>, request: Request) -> Response {
    match declaration(request).await {
        Ok(request) => answer(api.call(namespaces::put(&api, request)).await),
        Err(refusal) => refusal.into_response(),
    }
}

/// A declaration as TOML, or as JSON with the TOML in it.
async fn declaration(request: Request) -> Result<PutNamespaceRequest, Refusal> {
    if has_type(&request, "application/json") {
        return body(request).await;
    }
    if !["application/toml", "text/plain"].iter().any(|wanted| has_type(&request, wanted)) {
        let error = "expected content-type application/toml, text/plain or application/json".to_owned();
        return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    let toml = String::from_utf8(read(request, BODY_BYTES_MAX).await?.into());
    let toml = toml.map_err(|error| refused(StatusCode::BAD_REQUEST, format!("the body is no text: {error}")))?;
    Ok(PutNamespaceRequest { toml })
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EventsQuery {
    follow: Option<String>,
    job: String,
    since_unix_ms: u64,
    tail: u32,
}

async fn get_events(State(api): State<Api>, uri: Uri) -> Response {
    match query::<EventsQuery>(&uri) {
        Ok(asked) => {
            let request = EventsRequest {
                follow: is_set(asked.follow.as_ref()),
                job: asked.job,
                since_unix_ms: asked.since_unix_ms,
                tail: asked.tail,
            };
            sse(events::events(&api, request).await)
        }
        Err(refusal) => refusal.into_response(),
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FactsQuery {
    namespace: String,
    cursor: String,
    limit: u32,
    at_unix_ms: u64,
    at_cursor: String,
}

async fn get_facts(State(api): State<Api>, uri: Uri) -> Response {
    match query::<FactsQuery>(&uri) {
        Ok(FactsQuery { namespace, cursor, limit, at_unix_ms, at_cursor }) => {
            let request = PullFactsRequest { namespace, cursor, limit, at_unix_ms, at_cursor };
            facts::answer(&api, request).await.unwrap_or_else(|status| failed(&status))
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn get_info(State(api): State<Api>) -> Response {
    answer(api.call(nodes::info(&api)).await)
}

async fn get_doctor(State(api): State<Api>) -> Response {
    answer(api.call(doctor::doctor(&api)).await)
}

/// 200 when the node takes submissions, 503 with the reason when not.
async fn get_health(State(api): State<Api>) -> Response {
    let ask = api.ask(|machine, _now| machine.disk_refusal().map(ToOwned::to_owned));
    match tokio::time::timeout(HEALTH_WITHIN, ask).await {
        Ok(Ok(None)) => (StatusCode::OK, "ok\n").into_response(),
        Ok(Ok(Some(reason))) => refused(StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
        Ok(Err(error)) => failed(&error.into()),
        Err(_elapsed) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, "the driver does not answer".to_owned()).into_response()
        }
    }
}
