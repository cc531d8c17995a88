//! What an operator says of nodes, over HTTP/JSON: drained, resumed, gone for good.
//!
//! Invariants: as in `http`.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use starling_proto::v1::{DrainNodeRequest, ForgetNodeRequest};

use super::{Api, answer, body};
use crate::api::members;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/nodes/{node}/drain", post(post_drain)).route("/v1/nodes/{node}/forget", post(post_forget))
}

/// The body says `on` and `reason`; the path says which node.
async fn post_drain(State(api): State<Api>, Path(node): Path<String>, request: Request) -> Response {
    match body::<DrainNodeRequest>(request).await {
        Ok(request) => answer(api.call(members::drain(&api, DrainNodeRequest { node, ..request })).await),
        Err(refusal) => refusal.into_response(),
    }
}

async fn post_forget(State(api): State<Api>, Path(node): Path<String>) -> Response {
    answer(api.call(members::forget(&api, ForgetNodeRequest { node })).await)
}
