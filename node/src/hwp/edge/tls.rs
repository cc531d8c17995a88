//! TLS on the workers' port: the node's certificate, and perhaps an authority whose certificates callers must show.
//!
//! Invariants: files are read once, at the start; what is wrong with them is said with the file's name.
//! Does not: replace tokens: a certificate says who speaks, a token lets in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Certificate files, as they were configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The node's certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authority whose certificates callers must show, PEM; if absent, callers need none.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no TLS. Nothing was opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path} for the workers' port: {reason}", path = .path.display())]
pub struct TlsError {
    path: PathBuf,
    reason: String,
}

/// What accepts TLS. Cheap to clone.
#[derive(Clone)]
pub struct Tls(tokio_rustls::TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// The first file that cannot be read or is not what it should be.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let chain = certificates(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, error.to_string()))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&files.cert, error.to_string()))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path)? {
                    roots.add(authority).map_err(|error| wrong(path, error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| wrong(path, error.to_string()))?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let reason = format!("it and {} do not go together: {error}", files.cert.display());
            wrong(&files.key, reason)
        })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config).into()))
    }

    /// Cancel safety: the connection is lost if the future is dropped.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = read.map_err(|error| wrong(path, error.to_string()))?;
    if all.is_empty() {
        return Err(wrong(path, "expected a certificate (-----BEGIN CERTIFICATE-----)".to_owned()));
    }
    Ok(all)
}

fn wrong(path: &Path, reason: String) -> TlsError {
    TlsError { path: path.to_owned(), reason }
}
