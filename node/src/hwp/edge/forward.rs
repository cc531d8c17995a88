//! Forwarding: what workers say, to the gateway that the claim which counts here names.
//!
//! Invariants: a call goes to one claim's holder; when another claim counts, calls that may be repeated are made again for at most `PATIENCE`, and streams end with
//! UNAVAILABLE, so that workers attach anew. A stream ends, too, when its token no longer lets in.
//! Does not: repeat what a worker streams; that would be the worker's to judge.

use std::error::Error as _;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use starling_core::ids::{GatewayTerm, NodeId};
use starling_proto::hwp::worker_service_client::WorkerServiceClient;
use starling_proto::hwp::{AgentMessage, ServerMessage};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request, Response, Status, Streaming};

use super::Edge;
use super::door::Access;
use super::seat::{Line, Route, Seat};
use crate::hwp::gateway::MESSAGE_BYTES_MAX;

/// How long a call waits for a gateway. Longer than an election takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time that a gateway may take to answer a call that is no stream.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A worker's messages on their way to the gateway. Full: the worker waits.
const SAID_MAX: usize = 16;
/// Rest between two tries.
const RETRY_REST: Duration = Duration::from_millis(100);
/// Rest before a stream that could not be opened is refused: workers come back at once.
const REFUSED_AFTER: Duration = Duration::from_secs(1);

/// A client of one gateway, and the claim that it stands for.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) client: WorkerServiceClient<Line>,
    claim: (NodeId, GatewayTerm),
}

impl Edge {
    /// The way to the gateway; waits until `deadline` for there to be one.
    ///
    /// Cancel safety: cancel safe.
    pub(super) async fn way(&self, deadline: Instant) -> Result<Way, Status> {
        let mut seats = self.seats.clone();
        let there_is = seats.wait_for(|seat| seat.as_ref().is_some_and(|seat| seat.route.claim().is_some()));
        // The borrow must not outlive this statement: the seat could not be renewed.
        let route = match tokio::time::timeout_at(deadline, there_is).await {
            Ok(Ok(seat)) => seat.as_ref().map(|seat| seat.route.clone()),
            Ok(Err(_)) | Err(_) => None,
        };
        match route {
            Some(Route::To { node, term, line }) => {
                let client = WorkerServiceClient::new(line);
                Ok(Way { client: client.max_decoding_message_size(MESSAGE_BYTES_MAX), claim: (node, term) })
            }
            Some(Route::Nowhere(_)) | None => {
                let reason = match self.seats.borrow().as_ref().map(|seat| &seat.route) {
                    Some(Route::Nowhere(reason)) => reason,
                    Some(Route::To { .. }) | None => "this node is starting or stopping; try again in a moment",
                };
                Err(Status::unavailable(reason))
            }
        }
    }

    /// Returns once `way` is no longer the one to the gateway.
    ///
    /// Cancel safety: cancel safe.
    pub(super) async fn moved(&self, way: &Way) -> Status {
        let other = |seat: &Option<Seat>| seat.as_ref().is_none_or(|seat| seat.route.claim() != Some(way.claim));
        // An error means that the node stops, which is as good a reason.
        let mut seats = self.seats.clone();
        let _either = seats.wait_for(other).await;
        Status::unavailable("the gateway has moved to another node; connect again, to any node")
    }

    /// Returns once `access` is no longer given.
    ///
    /// Cancel safety: cancel safe.
    pub(super) async fn revoked(&self, access: Access) -> Status {
        let gone = |seat: &Option<Seat>| seat.as_ref().is_some_and(|seat| !access.holds(seat));
        let mut seats = self.seats.clone();
        match seats.wait_for(gone).await {
            Ok(_) => Status::unauthenticated("the token that let you in was revoked, or one is needed now"),
            Err(_closed) => Status::unavailable("this node is shutting down; connect to another"),
        }
    }

    /// Makes a call that may be made twice.
    ///
    /// Cancel safety: the call may come to pass even if the future is dropped.
    pub(super) async fn unary<M, R, F>(
        &self,
        request: Request<M>,
        call: impl Fn(WorkerServiceClient<Line>, Request<M>) -> F,
    ) -> Result<Response<R>, Status>
    where
        M: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let (metadata, _, message) = request.into_parts();
        loop {
            let way = self.way(deadline).await?;
            let request = Request::from_parts(metadata.clone(), Extensions::default(), message.clone());
            let tried = tokio::select! {
                biased;
                status = self.moved(&way) => Err(status),
                answer = tokio::time::timeout(ANSWER_WITHIN, call(way.client.clone(), request)) => {
                    answer.unwrap_or_else(|_elapsed| Err(Status::unavailable("the gateway does not answer; try again")))
                }
            };
            match tried {
                Err(status) if is_cut(&status) && Instant::now() + RETRY_REST < deadline => {
                    tokio::time::sleep(RETRY_REST).await;
                }
                done => return done.map_err(told),
            }
        }
    }

    /// Opens a worker's stream to the gateway.
    ///
    /// Cancel safety: the gateway sees the stream end if the future is dropped.
    pub(super) async fn job_stream(
        &self,
        access: Access,
        metadata: MetadataMap,
        said: Streaming<AgentMessage>,
    ) -> Result<Response<BoxStream<ServerMessage>>, Status> {
        let deadline = Instant::now() + PATIENCE;
        let (way, response, to_gateway) = loop {
            let way = self.way(deadline).await?;
            // Nothing is read of the worker's before the gateway has answered, so another try loses nothing.
            let (to_gateway, messages) = mpsc::channel(SAID_MAX);
            let request = Request::from_parts(metadata.clone(), Extensions::default(), ReceiverStream::new(messages));
            let mut client = way.client.clone();
            let opened = tokio::time::timeout(ANSWER_WITHIN, client.job_stream(request)).await;
            match opened.unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("the gateway does not answer"))) {
                Ok(response) => break (way, response, to_gateway),
                Err(status) if is_cut(&status) && Instant::now() + RETRY_REST < deadline => {
                    tokio::time::sleep(RETRY_REST).await;
                }
                Err(status) => {
                    tokio::time::sleep(REFUSED_AFTER).await;
                    return Err(told(status));
                }
            }
        };
        self.runtime.spawn(pass_on(said, to_gateway));
        let (metadata, heard, _) = response.into_parts();
        let edge = self.clone();
        let ended = async move {
            tokio::select! {
                biased;
                status = edge.revoked(access) => status,
                status = edge.moved(&way) => status,
            }
        };
        Ok(Response::from_parts(metadata, until(heard, ended), Extensions::default()))
    }

    /// A stream by which nothing will ever be said: of a worker that opens one before it has a name.
    pub(super) fn inert(&self, access: Access, said: Streaming<AgentMessage>) -> Response<BoxStream<ServerMessage>> {
        let edge = self.clone();
        let heard = said.filter_map(|message| async { message.err().map(Err) });
        Response::new(until(heard, async move { edge.revoked(access).await }))
    }
}

/// Passes on what a worker says, until it ends or the gateway does not listen any more.
async fn pass_on(mut said: Streaming<AgentMessage>, to_gateway: mpsc::Sender<AgentMessage>) {
    loop {
        let message = tokio::select! {
            biased;
            () = to_gateway.closed() => break,
            message = said.message() => message,
        };
        // An error means that the worker is gone: the gateway sees its half end.
        let Ok(Some(message)) = message else { break };
        if to_gateway.send(message).await.is_err() {
            break;
        }
    }
}

/// A stream until something ends it.
fn until<T: Send + 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ended: impl Future<Output = Status> + Send + 'static,
) -> BoxStream<T> {
    let going = Some((Box::pin(stream), Box::pin(ended)));
    Box::pin(futures::stream::unfold(going, |going| async {
        let (mut stream, mut ended) = going?;
        tokio::select! {
            biased;
            status = &mut ended => Some((Err(status), None)),
            item = stream.next() => match item? {
                Ok(message) => Some((Ok(message), Some((stream, ended)))),
                Err(status) => Some((Err(told(status)), None)),
            },
        }
    }))
}

/// Whether a call failed between here and the gateway, or at one that does not act.
fn is_cut(status: &Status) -> bool {
    status.code() == Code::Unavailable || status.source().is_some()
}

/// What a worker is told of a failure: the transport's own words help nobody.
pub(super) fn told(status: Status) -> Status {
    if status.source().is_none() {
        return status;
    }
    Status::unavailable("the gateway cannot be reached from this node; connect again, to any node")
}
