//! The gateway over HTTP/JSON: its status, its workers, its tokens.
//!
//! Invariants: as in `http`.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get};
use starling_proto::v1::{AddTokenRequest, RevokeTokenRequest};

use super::{Api, answer, body};
use crate::api::{gateway, workers};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/gateway", get(get_gateway))
        .route("/v1/gateway/tokens", get(get_tokens).post(post_token))
        .route("/v1/gateway/tokens/{token}", delete(delete_token))
        .route("/v1/workers", get(get_workers))
}

async fn get_gateway(State(api): State<Api>) -> Response {
    answer(api.call(gateway::status(&api)).await)
}

async fn get_workers(State(api): State<Api>) -> Response {
    answer(api.call(workers::list(&api)).await)
}

async fn get_tokens(State(api): State<Api>) -> Response {
    answer(api.call(gateway::list_tokens(&api)).await)
}

async fn post_token(State(api): State<Api>, request: Request) -> Response {
    match body::<AddTokenRequest>(request).await {
        Ok(request) => answer(api.call(gateway::add_token(&api, request)).await),
        Err(refusal) => refusal.into_response(),
    }
}

async fn delete_token(State(api): State<Api>, Path(token): Path<String>) -> Response {
    answer(api.call(gateway::revoke_token(&api, RevokeTokenRequest { token })).await)
}
