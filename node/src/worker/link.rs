//! The way to the servers: addresses, credentials, TLS.
//!
//! Invariants: every call carries the token and the worker's id; a connection attempt has a deadline; the token is in no error and no debug output.
//! Does not: reconnect by itself, or choose when to go on to the next server.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use starling_proto::hwp::worker_service_client::WorkerServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::Error;

const CONNECT_MAX: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(15);
/// A call that is answered at once, or not at all.
pub(super) const CALL_MAX: Duration = Duration::from_secs(10);

pub(super) type Client = WorkerServiceClient<InterceptedService<Channel, Credentials>>;

/// PEM texts for TLS.
#[derive(Clone, Default)]
pub struct Tls {
    /// The authorities that may vouch for servers.
    pub ca: Vec<u8>,
    /// This worker's certificate and its key, for servers that ask for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

/// The servers, in the order in which they are tried.
#[derive(Debug)]
pub struct Servers {
    endpoints: Vec<Endpoint>,
    credentials: Credentials,
    at: AtomicUsize,
    /// A client that is used again, and whose turn it was then.
    shared: Mutex<Option<(usize, Client)>>,
}

/// What every call carries.
#[derive(Clone)]
pub(super) struct Credentials {
    authorization: Option<MetadataValue<Ascii>>,
    worker_id: MetadataValue<Ascii>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("worker_id", &self.worker_id).finish_non_exhaustive()
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request.metadata_mut().insert("worker-id", self.worker_id.clone());
        Ok(request)
    }
}

impl Servers {
    /// Servers at `urls`, which are `http://HOST:PORT`, `https://HOST:PORT`, or `HOST:PORT` for the one that fits `tls`.
    ///
    /// # Errors
    /// `Link`, if there is no URL, one is none, TLS is wanted without an authority or the other way round, a PEM text holds nothing useful, or the token or the id
    /// hold what no header can.
    pub fn new(urls: &[String], id: &str, token: Option<&str>, tls: Option<&Tls>) -> Result<Self, Error> {
        if urls.is_empty() {
            return Err(Error::Link("no server was given; name one with --server http://HOST:PORT".to_owned()));
        }
        let header = |text: &str, what: &str| {
            let value: Result<MetadataValue<Ascii>, _> = text.parse();
            value.map_err(|_about_a_secret| {
                Error::Link(format!("{what} may consist of printable ASCII characters only"))
            })
        };
        let authorization = match token {
            Some(token) => {
                let mut value = header(&format!("Bearer {token}"), "the token")?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let credentials = Credentials { authorization, worker_id: header(id, "the worker's id")? };
        let endpoints = urls.iter().map(|url| endpoint(url, tls)).collect::<Result<_, _>>()?;
        Ok(Self { endpoints, credentials, at: AtomicUsize::new(0), shared: Mutex::new(None) })
    }

    /// Whose turn it is: a client whose connection is made by its first call, and the URL. Needs a runtime.
    pub(super) fn client(&self) -> (Client, String) {
        let endpoint = &self.endpoints[self.at.load(Ordering::Relaxed) % self.endpoints.len()];
        let client = WorkerServiceClient::with_interceptor(endpoint.connect_lazy(), self.credentials.clone());
        (client, endpoint.uri().to_string())
    }

    /// As `client`, over one connection for all who ask, as long as it is that server's turn.
    pub(super) fn shared(&self) -> Client {
        let at = self.at.load(Ordering::Relaxed);
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = shared.as_ref().filter(|(then, _)| *then == at) {
            return client.clone();
        }
        let (client, _) = self.client();
        *shared = Some((at, client.clone()));
        client
    }

    /// The next one has its turn.
    pub(super) fn rotate(&self) {
        self.at.fetch_add(1, Ordering::Relaxed);
    }
}

fn endpoint(url: &str, tls: Option<&Tls>) -> Result<Endpoint, Error> {
    let wrong = |why: &str| Error::Link(format!("{url} cannot be used as a server: {why}"));
    let full = match (url.contains("://"), tls) {
        (true, _) => url.to_owned(),
        (false, Some(_)) => format!("https://{url}"),
        (false, None) => format!("http://{url}"),
    };
    let endpoint =
        Endpoint::from_shared(full).map_err(|error| wrong(&format!("{error}; it is written http://HOST:PORT")))?;
    let uri = endpoint.uri();
    if uri.host().is_none_or(str::is_empty) {
        return Err(wrong("it has no host; it is written http://HOST:PORT"));
    }
    let endpoint = match (uri.scheme_str(), tls) {
        (Some("http"), None) => endpoint,
        (Some("https"), Some(tls)) => {
            let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
            let config = match &tls.identity {
                Some((cert, key)) => config.identity(Identity::from_pem(cert, key)),
                None => config,
            };
            endpoint.tls_config(config).map_err(|error| wrong(&format!("the certificates do not fit: {error:?}")))?
        }
        (Some("https"), None) => return Err(wrong("https needs the server's authority; give it with --ca FILE")),
        (Some("http"), Some(_)) => return Err(wrong("certificates are of no use without https://")),
        (_, _) => return Err(wrong("it begins with http:// or https://")),
    };
    Ok(endpoint.connect_timeout(CONNECT_MAX).tcp_keepalive(Some(KEEPALIVE)).tcp_nodelay(true))
}

/// Why a session is over.
#[derive(Debug)]
pub(super) enum Parting {
    /// The worker wanted it.
    Closed,
    /// The server does not want this worker as it is; for people. Trying again at once is of no use.
    Refused(String),
    /// The link, or the server, went away; for people.
    Lost(String),
}

impl From<Status> for Parting {
    fn from(status: Status) -> Self {
        let message = status.message();
        let with = |what: &str| if message.is_empty() { what.to_owned() } else { format!("{what}: {message}") };
        match status.code() {
            Code::Unauthenticated => Self::Refused(with("it does not accept the token")),
            Code::PermissionDenied => Self::Refused(with("it does not allow it")),
            Code::AlreadyExists | Code::Aborted => Self::Refused(with("another worker has the same id")),
            Code::Unimplemented => Self::Refused(with("it does not serve what this worker needs")),
            Code::InvalidArgument => Self::Refused(with("it does not take the registration")),
            _ => Self::Lost(with(status.code().description())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(urls: &[&str], token: Option<&str>, tls: Option<&Tls>) -> String {
        let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        Servers::new(&urls, "w", token, tls).unwrap_err().to_string()
    }

    #[test]
    fn wrong_addresses_and_tokens_are_explained_without_the_token() {
        let tls = Tls::default();
        for (urls, tls, part) in [
            (&[][..], None, "--server"),
            (&["https://a:1"][..], None, "--ca"),
            (&["http://a:1"][..], Some(&tls), "https://"),
            (&["ftp://a:1"][..], None, "http://"),
            (&["not a url"][..], None, "http://HOST:PORT"),
        ] {
            let text = refused(urls, None, tls);
            assert!(text.contains(part), "{urls:?}: {text}");
        }
        let text = refused(&["a:1"], Some("sec\nret"), None);
        assert!(text.contains("token") && !text.contains("sec"), "{text}");
        let servers = Servers::new(&["a:1".to_owned()], "w", Some("secret"), None).unwrap();
        assert!(!format!("{servers:?}").contains("secret"));
    }

    #[tokio::test]
    async fn servers_take_turns() {
        let servers = Servers::new(&["a:1".to_owned(), "http://b:2".to_owned()], "w", None, None).unwrap();
        let url = || servers.client().1;
        assert_eq!((url(), url()), ("http://a:1/".to_owned(), "http://a:1/".to_owned()));
        servers.rotate();
        assert_eq!(url(), "http://b:2/");
        servers.rotate();
        assert_eq!(url(), "http://a:1/");
    }
}
