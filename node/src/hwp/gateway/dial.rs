//! Dial-back: calling workers that run a `WorkerService` of their own.
//!
//! Invariants: each call is over in time; only what was not delivered is tried again, a few times; a worker is shown no other token than the one it came with.

use std::time::Duration;

use http::Uri;
use starling_core::ids::WorkerName;
use starling_proto::hwp;
use starling_proto::hwp::worker_service_client::WorkerServiceClient;
use tonic::codegen::http;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use super::Refusal;
use crate::hwp::id::AssignmentId;

/// Longest wait for a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// Longest call.
const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// How often a call is tried.
const TRIES: u32 = 3;
/// Before the second try; doubled before the third.
const BACK_OFF: Duration = Duration::from_millis(200);
/// Where systems keep the certificates that they trust.
const TRUSTED: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How to call one worker. Cheap to clone: the connection is shared, and made when it is first needed.
#[derive(Clone, Debug)]
pub(super) struct Dialler {
    channel: Channel,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Dialler {
    /// Calls go to `endpoint`, with what the worker itself showed when it registered.
    ///
    /// # Errors
    /// If the endpoint cannot be called.
    pub(super) fn new(endpoint: &Uri, authorization: Option<MetadataValue<Ascii>>) -> Result<Self, Refusal> {
        let wrong = |error: &dyn std::fmt::Display| {
            Refusal::Invalid(format!("capability `endpoint={endpoint}`: expected a URL that can be called: {error}"))
        };
        let mut config =
            Endpoint::from(endpoint.clone()).connect_timeout(CONNECT_DEADLINE).timeout(CALL_DEADLINE).tcp_nodelay(true);
        if endpoint.scheme_str() == Some("https") {
            config = config.tls_config(trusted()).map_err(|error| wrong(&error))?;
        }
        let authorization = authorization.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Ok(Self { channel: config.connect_lazy(), authorization })
    }

    /// Whether both show the worker the same.
    pub(super) fn shows_as(&self, other: &Self) -> bool {
        self.authorization == other.authorization
    }

    fn client(&self) -> WorkerServiceClient<Channel> {
        WorkerServiceClient::new(self.channel.clone())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request
    }
}

/// The system's trusted certificates: those of `SSL_CERT_FILE`, or of the first place that has any.
fn trusted() -> ClientTlsConfig {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let places = named.into_iter().chain(TRUSTED.iter().map(std::path::PathBuf::from));
    let pem = places.filter_map(|path| std::fs::read(path).ok()).next();
    pem.into_iter().fold(ClientTlsConfig::new(), |config, pem| config.ca_certificate(Certificate::from_pem(pem)))
}

/// What a call is about.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// A task to run.
    Assign(AssignmentId, Box<hwp::AssignJobRequest>),
    /// A task to stop.
    Cancel(AssignmentId),
    /// Whether it is there. Any answer will do.
    Probe,
}

/// A call to make.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) worker: WorkerName,
    pub(super) dialler: Dialler,
    pub(super) what: What,
}

/// What came of a call.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) worker: WorkerName,
    pub(super) dialler: Dialler,
    /// The task, if it was about one to run.
    pub(super) assigned: Option<AssignmentId>,
    pub(super) result: Result<(), Status>,
}

impl Called {
    /// Whether the worker answered, whatever it said.
    pub(super) fn is_reached(&self) -> bool {
        self.result.as_ref().err().is_none_or(|status| !is_unreached(status))
    }
}

impl Call {
    pub(super) fn probe(worker: &WorkerName, dialler: &Dialler) -> Self {
        Self { worker: worker.clone(), dialler: dialler.clone(), what: What::Probe }
    }

    /// Makes the call.
    ///
    /// Cancel safety: the worker may have heard of it.
    pub(super) async fn make(self) -> Called {
        let Self { worker, dialler, what } = self;
        let tries = if matches!(what, What::Probe) { 1 } else { TRIES };
        let assigned = if let What::Assign(id, _) = &what { Some(*id) } else { None };
        let mut pause = BACK_OFF;
        let mut left = tries;
        let result = loop {
            left -= 1;
            let result = once(&dialler, &worker, &what).await;
            match &result {
                Err(status) if left > 0 && is_unreached(status) => {
                    tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
                    pause *= 2;
                }
                Ok(()) | Err(_) => break result,
            }
        };
        Called { worker, dialler, assigned, result }
    }
}

async fn once(dialler: &Dialler, worker: &WorkerName, what: &What) -> Result<(), Status> {
    let mut client = dialler.client();
    match what {
        What::Assign(_, request) => client.assign_job(dialler.request((**request).clone())).await.map(|_accepted| ()),
        What::Cancel(id) => {
            let request = hwp::CancelJobRequest { job_id: id.to_string() };
            client.cancel_job(dialler.request(request)).await.map(|_empty| ())
        }
        What::Probe => {
            let request = hwp::GetWorkerStatusRequest { worker_id: worker.to_string() };
            client.get_worker_status(dialler.request(request)).await.map(|_status| ())
        }
    }
}

/// Whether the call did not get through, or no answer came.
fn is_unreached(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}
