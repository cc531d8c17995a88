//! TLS and certificates of callers, made with the `openssl` program where there is one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use starling_proto::hwp::worker_service_client::WorkerServiceClient;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Channel, Endpoint, Uri};

use super::world::{Made, Node, assignment, within};
use crate::hwp::edge::{Tls, TlsFiles};

fn openssl(dir: &Path, args: &str) -> bool {
    let mut openssl = Command::new("openssl");
    openssl.args(args.split(' ')).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    openssl.status().is_ok_and(|status| status.success())
}

#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
fn skipped() {
    eprintln!("skipped: no openssl program to make certificates with");
}

/// An authority, and certificates that it gave to a node and to a client; `None` without `openssl`.
fn certificates() -> Option<TempDir> {
    let dir = tempfile::tempdir().unwrap();
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let made = openssl(dir.path(), &format!("req -x509 {new} -keyout ca.key -out ca.pem -subj /CN=authority"))
        && ["node", "client"].iter().all(|name| {
            let by = "-CA ca.pem -CAkey ca.key -addext subjectAltName=DNS:localhost -addext basicConstraints=CA:FALSE";
            openssl(dir.path(), &format!("req -x509 {new} -keyout {name}.key -out {name}.pem -subj /CN={name} {by}"))
        });
    made.then_some(dir)
}

fn files(dir: &Path, client_ca: bool) -> TlsFiles {
    let client_ca = client_ca.then(|| dir.join("ca.pem"));
    TlsFiles { cert: dir.join("node.pem"), key: dir.join("node.key"), client_ca }
}

async fn connect(node: &Node, dir: &Path, identity: Option<&str>) -> Option<WorkerServiceClient<Channel>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let path = |end: &str| -> PathBuf { dir.join(format!("{name}.{end}")) };
            let chain = vec![CertificateDer::from_pem_file(path("pem")).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(path("key")).unwrap()).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (connector, addr) = (TlsConnector::from(Arc::new(config)), node.addr);
    let connect = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let name = ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(name, TcpStream::connect(addr).await?).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let channel = within(Endpoint::from_static("http://localhost").connect_with_connector(connect)).await;
    channel.ok().map(WorkerServiceClient::new)
}

async fn node(files: &TlsFiles) -> Node {
    Node::made(Made { tls: Some(Tls::read(files).unwrap()), ..Made::default() }).await
}

#[tokio::test]
async fn callers_use_tls_and_show_a_certificate_where_one_is_asked_for() {
    let Some(dir) = certificates() else {
        return skipped();
    };
    let plain = node(&files(dir.path(), false)).await;
    let mut client = connect(&plain, dir.path(), None).await.expect("TLS");
    within(client.assign_job(assignment("a", &["hold"]))).await.unwrap();
    // Without TLS nothing is said.
    let mut bare = plain.client().await;
    assert!(within(bare.assign_job(assignment("b", &["hold"]))).await.is_err());
    let mutual = node(&files(dir.path(), true)).await;
    let mut client = connect(&mutual, dir.path(), Some("client")).await.expect("mutual TLS");
    within(client.assign_job(assignment("c", &["hold"]))).await.unwrap();
    if let Some(mut stranger) = connect(&mutual, dir.path(), None).await {
        // In TLS 1.3 the client learns of it with its first call.
        assert!(within(stranger.assign_job(assignment("d", &["hold"]))).await.is_err());
    }
    assert_eq!(mutual.ask(|machine| machine.facts().job_count()).await, 1);
}

#[test]
fn a_wrong_file_is_named_with_the_reason() {
    let Some(dir) = certificates() else {
        return skipped();
    };
    let good = files(dir.path(), true);
    std::fs::write(dir.path().join("empty.pem"), "nothing here\n").unwrap();
    for (files, named) in [
        (TlsFiles { cert: dir.path().join("absent.pem"), ..good.clone() }, "absent.pem"),
        (TlsFiles { cert: dir.path().join("empty.pem"), ..good.clone() }, "empty.pem"),
        (TlsFiles { key: dir.path().join("empty.pem"), ..good.clone() }, "empty.pem"),
        (TlsFiles { key: dir.path().join("client.key"), ..good.clone() }, "client.key"),
        (TlsFiles { client_ca: Some(dir.path().join("empty.pem")), ..good.clone() }, "empty.pem"),
    ] {
        let error = Tls::read(&files).unwrap_err().to_string();
        assert!(error.starts_with("cannot use ") && error.contains(named), "{error}");
    }
    Tls::read(&good).unwrap();
}
