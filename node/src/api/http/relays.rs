//! Relays over HTTP/JSON: register, poll for work, report, leave; pokes as server-sent events.
//!
//! Invariants: as in `http`; a body is at most `RELAY_BODY_BYTES_MAX`.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use starling_proto::v1::{RelayHello, RelayReport};

use super::{Api, answer, body_within, is_set, query, sse};
use crate::api::relays;
use crate::relay::Wants;

/// Largest request of a relay.
const RELAY_BODY_BYTES_MAX: usize = 1 << 20;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/relays", post(post_relay).get(get_relays))
        .route("/v1/relays/{gid}", axum::routing::delete(delete_relay))
        .route("/v1/relays/{gid}/work", get(get_work))
        .route("/v1/relays/{gid}/report", post(post_report))
        .route("/v1/relays/{gid}/pokes", get(get_pokes))
}

async fn post_relay(State(api): State<Api>, request: Request) -> Response {
    match body_within::<RelayHello>(request, RELAY_BODY_BYTES_MAX).await {
        Ok(hello) => answer(api.call(relays::register(&api, hello)).await),
        Err(refusal) => refusal.into_response(),
    }
}

async fn get_relays(State(api): State<Api>) -> Response {
    answer(api.call(relays::list(&api)).await)
}

async fn delete_relay(State(api): State<Api>, Path(gid): Path<String>) -> Response {
    let left = async { relays::leave(&api, &gid).await.map(|()| serde_json::json!({ "gid": gid })) };
    answer(api.call(left).await)
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WorkQuery {
    max: u32,
    wait_ms: u64,
    pokes: Option<String>,
}

async fn get_work(State(api): State<Api>, Path(gid): Path<String>, uri: Uri) -> Response {
    let asked: WorkQuery = match query(&uri) {
        Ok(asked) => asked,
        Err(refusal) => return refusal.into_response(),
    };
    let wants = if is_set(asked.pokes.as_ref()) { Wants::Both } else { Wants::Work };
    let max = usize::try_from(asked.max).unwrap_or(usize::MAX);
    answer(api.long_call(relays::work(&api, &gid, relays::Ask { max, wait_ms: asked.wait_ms, wants })).await)
}

async fn post_report(State(api): State<Api>, Path(gid): Path<String>, request: Request) -> Response {
    match body_within::<RelayReport>(request, RELAY_BODY_BYTES_MAX).await {
        Ok(report) => answer(api.call(relays::report(&api, &gid, report)).await),
        Err(refusal) => refusal.into_response(),
    }
}

async fn get_pokes(State(api): State<Api>, Path(gid): Path<String>) -> Response {
    sse(relays::pokes(&api, gid).await)
}
