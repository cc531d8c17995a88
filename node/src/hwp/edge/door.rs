//! The door: who is let in.
//!
//! Where the cluster has a valid token, everybody must show one; where it has none, only this host may call. A refusal comes late, because callers that are refused
//! call again at once.
//! Invariants: a refusal waits `REFUSED_AFTER` without holding a thread or the caller's bytes; at most `REFUSALS_MAX` wait, further ones are told at once and lose their
//! connection; a token is compared by its hash only, so that no comparison tells how much of it was right; it is never logged.
//! Does not: know what is asked for.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use starling_core::ids::Hash;
use tokio::sync::{Notify, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::Service;

use super::Edge;
use super::seat::Seat;

/// A refusal's delay. Low: a bad token becomes a hot loop. High: a person who mistypes one waits.
const REFUSED_AFTER: Duration = Duration::from_secs(1);
/// Refusals that wait at once.
const REFUSALS_MAX: usize = 1_024;
/// How long a caller waits for a node that has only just started.
const SEAT_WITHIN: Duration = Duration::from_secs(5);
const SCHEME: &str = "bearer ";

/// Who was let in, and by what. Part of every request that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// `None`: the cluster had no token, and the caller is on this host.
    token: Option<Hash>,
}

impl Access {
    /// Whether it would be given again.
    pub(super) fn holds(&self, seat: &Seat) -> bool {
        match &self.token {
            Some(hash) => seat.tokens.contains(hash),
            None => seat.tokens.is_empty(),
        }
    }
}

/// The door of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Door {
    edge: Edge,
    refusals: Arc<Semaphore>,
}

/// A connection at the door.
#[derive(Clone, Debug)]
pub(super) struct Guest(Arc<Known>);

#[derive(Debug)]
struct Known {
    peer: IpAddr,
    /// Whether any of its calls was let in.
    let_in: AtomicBool,
    /// Told when the connection is to be closed.
    close: Notify,
}

impl Guest {
    pub(super) fn at(peer: IpAddr) -> Self {
        Self(Arc::new(Known { peer: peer.to_canonical(), let_in: AtomicBool::new(false), close: Notify::new() }))
    }

    /// Whether any of its calls was let in.
    pub(super) fn was_let_in(&self) -> bool {
        self.0.let_in.load(Ordering::Relaxed)
    }

    /// Returns when the connection is to be closed.
    ///
    /// Cancel safety: cancel safe.
    pub(super) async fn turned_away(&self) {
        self.0.close.notified().await;
    }
}

impl Door {
    pub(super) fn of(edge: Edge) -> Self {
        Self { edge, refusals: Arc::new(Semaphore::new(REFUSALS_MAX)) }
    }

    /// What stands behind the door, for one guest.
    pub(super) fn guard<S>(&self, guest: Guest, inner: S) -> Guarded<S> {
        Guarded { door: self.clone(), guest, inner }
    }

    /// Judges one call.
    ///
    /// Cancel safety: cancel safe.
    async fn judge(&self, peer: IpAddr, headers: &HeaderMap) -> Result<Access, Status> {
        let mut seats = self.edge.seats.clone();
        let told = tokio::time::timeout(SEAT_WITHIN, seats.wait_for(Option::is_some));
        let told =
            told.await.map_err(|_elapsed| Status::unavailable("this node is starting; try again in a moment"))?;
        let seat = told.map_err(|_closed| Status::unavailable("this node is shutting down; connect to another"))?;
        seat.as_ref().map_or_else(|| Err(Status::internal("the seat is empty")), |seat| judge(seat, peer, headers))
    }
}

/// Waits out a refusal.
///
/// Cancel safety: cancel safe.
async fn refuse(refusals: &Semaphore, guest: &Guest) {
    match refusals.try_acquire() {
        Ok(_permit) => tokio::time::sleep(REFUSED_AFTER).await,
        Err(_full) => guest.0.close.notify_one(),
    }
}

fn judge(seat: &Seat, peer: IpAddr, headers: &HeaderMap) -> Result<Access, Status> {
    let shown = shown(headers);
    if seat.tokens.is_empty() {
        if peer.is_loopback() {
            return Ok(Access { token: None });
        }
        return Err(Status::permission_denied(format!(
            "the cluster has no token yet, so only callers on this node's own host are served, and you are {peer}; \
             run `starling gateway token add NAME` there and send `authorization: Bearer TOKEN`"
        )));
    }
    let how = "send `authorization: Bearer TOKEN`; `starling gateway token add NAME` at any node makes a token";
    let Some(token) = shown else {
        return Err(Status::unauthenticated(format!("no token was shown; {how}")));
    };
    let hash = Hash(*blake3::hash(token).as_bytes());
    if seat.tokens.contains(&hash) {
        return Ok(Access { token: Some(hash) });
    }
    Err(Status::unauthenticated(format!("the token is not a valid one, or was revoked; {how}")))
}

/// The token in a call's headers.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get("authorization")?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME.as_bytes()).then(|| token.trim_ascii())
}

/// A service behind the door.
#[derive(Clone, Debug)]
pub(super) struct Guarded<S> {
    door: Door,
    guest: Guest,
    inner: S,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _ctx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The service behind is ready whenever it is called.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Self { door, guest, mut inner } = self.clone();
        let judged = async move {
            match door.judge(guest.0.peer, request.headers()).await {
                Ok(access) => {
                    guest.0.let_in.store(true, Ordering::Relaxed);
                    request.extensions_mut().insert(access);
                    inner.call(request).await
                }
                Err(status) => {
                    drop(request);
                    refuse(&door.refusals, &guest).await;
                    Ok(status.into_http())
                }
            }
        };
        judged.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tonic::Code;

    use super::*;
    use crate::hwp::edge::seat::Route;

    fn seat(tokens: &[&str]) -> Seat {
        let tokens: BTreeSet<Hash> =
            tokens.iter().map(|token| Hash(*blake3::hash(token.as_bytes()).as_bytes())).collect();
        Seat { tokens: Arc::new(tokens), route: Route::Nowhere(""), acting: None }
    }

    fn code(tokens: &[&str], peer: &str, authorization: Option<&str>) -> Result<(), Code> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert("authorization", value.parse().unwrap());
        }
        let peer: IpAddr = peer.parse().unwrap();
        judge(&seat(tokens), peer.to_canonical(), &headers).map(|_access| ()).map_err(|status| status.code())
    }

    #[test]
    fn without_tokens_this_host_only_and_with_them_whoever_shows_one() {
        for (peer, expected) in [
            ("127.0.0.1", Ok(())),
            ("127.3.2.1", Ok(())),
            ("::1", Ok(())),
            ("::ffff:127.0.0.1", Ok(())),
            ("10.0.0.7", Err(Code::PermissionDenied)),
            ("::ffff:10.0.0.7", Err(Code::PermissionDenied)),
            ("fe80::1", Err(Code::PermissionDenied)),
        ] {
            assert_eq!(code(&[], peer, None), expected, "{peer}");
            assert_eq!(code(&[], peer, Some("Bearer anything")), expected, "{peer}");
        }
        for (shown, expected) in [
            (Some("Bearer red"), Ok(())),
            (Some("bearer  red "), Ok(())),
            (Some("Bearer blue"), Ok(())),
            (Some("Bearer Red"), Err(Code::Unauthenticated)),
            (Some("Bearer "), Err(Code::Unauthenticated)),
            (Some("Basic red"), Err(Code::Unauthenticated)),
            (Some("red"), Err(Code::Unauthenticated)),
            (Some(""), Err(Code::Unauthenticated)),
            (None, Err(Code::Unauthenticated)),
        ] {
            assert_eq!(code(&["red", "blue"], "127.0.0.1", shown), expected, "{shown:?}");
            assert_eq!(code(&["red", "blue"], "10.0.0.7", shown), expected, "{shown:?}");
        }
    }

    #[tokio::test]
    async fn so_many_refusals_wait_and_further_ones_lose_their_connection() {
        let refusals = Semaphore::new(2);
        let guests: Vec<Guest> = (0..3).map(|_| Guest::at([10, 0, 0, 7].into())).collect();
        let (first, second, third) = (&guests[0], &guests[1], &guests[2]);
        let mut waiting = [Box::pin(refuse(&refusals, first)), Box::pin(refuse(&refusals, second))];
        assert!(waiting.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
        assert!(refuse(&refusals, third).now_or_never().is_some());
        assert!(third.turned_away().now_or_never().is_some());
        assert!(first.turned_away().now_or_never().is_none());
        let [one, two] = waiting;
        tokio::join!(one, two);
        assert!(refuse(&refusals, third).now_or_never().is_none(), "there is room again");
    }

    #[test]
    fn access_lasts_as_long_as_it_would_be_given_again() {
        let red = Access { token: Some(Hash(*blake3::hash(b"red").as_bytes())) };
        assert!(red.holds(&seat(&["red", "blue"])) && !red.holds(&seat(&["blue"])));
        let host = Access { token: None };
        assert!(host.holds(&seat(&[])) && !host.holds(&seat(&["red"])));
    }
}
