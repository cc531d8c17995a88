//! Callbacks: poking a relay at its own URL.
//!
//! Invariants: plain HTTP to the address that the relay gave; one request, no redirects, over in `CALL_DEADLINE`; nothing of the answer is read but its status.
//! Does not: decide when to poke, or try again (`table` does).

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Uri, header};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::RelayError;

/// Longest callback. Low: slow relays are not poked. High: hanging ones hold the few places for longer.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// Longest URL.
const URL_BYTES_MAX: usize = 2_048;

/// A URL to poke a relay at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback(Uri);

impl Callback {
    /// Reads an `http://` URL.
    ///
    /// # Errors
    /// If it is none, or not one of plain HTTP with a host.
    pub fn parse(text: &str) -> Result<Self, RelayError> {
        let wrong = || RelayError::Field {
            field: "callback_url",
            expected: "a URL such as http://127.0.0.1:9000/poke".to_owned(),
            got: text.chars().take(80).collect(),
        };
        if text.len() > URL_BYTES_MAX {
            return Err(wrong());
        }
        let uri: Uri = text.parse().map_err(|_not_a_url| wrong())?;
        let has_login = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let is_http = uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
        if is_http && !has_login { Ok(Self(uri)) } else { Err(wrong()) }
    }
}

/// Makes callbacks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    client: HttpClient<HttpConnector, Body>,
}

impl Caller {
    pub(super) fn new() -> Self {
        // A relay that is poked once a second must not cost a connection for ever.
        Self { client: HttpClient::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http() }
    }

    /// `POST`s `{"gid": …}`; whether the relay said that all is well.
    ///
    /// Cancel safety: the relay may have been poked.
    pub(super) async fn poke(&self, callback: &Callback, gid: &str) -> bool {
        let body = serde_json::json!({ "gid": gid }).to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(callback.0.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body));
        let Ok(request) = request else {
            return false;
        };
        match tokio::time::timeout(CALL_DEADLINE, self.client.request(request)).await {
            Ok(Ok(response)) => response.status().is_success(),
            Ok(Err(_)) | Err(_) => false,
        }
    }
}
