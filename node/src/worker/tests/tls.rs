//! Servers that prove who they are, and ask the worker to.
//!
//! Invariants: certificates and keys in `tls/` are for these tests alone; they are good until 2126.

use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::super::Tls;
use super::*;

const CA: &[u8] = include_bytes!("tls/ca.pem");
const SERVER: (&[u8], &[u8]) = (include_bytes!("tls/server.pem"), include_bytes!("tls/server.key"));
const WORKER: (&[u8], &[u8]) = (include_bytes!("tls/worker.pem"), include_bytes!("tls/worker.key"));

/// A server that asks for a certificate, and a worker with what it was given.
async fn rig(tls: Tls) -> Rig {
    let config = ServerTlsConfig::new().identity(Identity::from_pem(SERVER.0, SERVER.1));
    let config = config.client_ca_root(Certificate::from_pem(CA));
    let builder = tonic::transport::Server::builder().tls_config(config).unwrap();
    let server = Server::with(Some(TOKEN), Way::Reads, builder).await;
    let url = server.url.replace("http://", "https://");
    let home = tempfile::tempdir().unwrap();
    let servers = Servers::new(&[url], "w1", Some(TOKEN), Some(&tls)).unwrap();
    let worker = Running::at(servers, &home, Choice::default());
    Rig::with(server, worker, home)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_know_each_other_by_their_authority() {
    let identity = Some((WORKER.0.to_vec(), WORKER.1.to_vec()));
    let mut rig = rig(Tls { ca: CA.to_vec(), identity }).await;
    rig.attached().await;
    assert_eq!(rig.run("j", "exit 3").await.exit_code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_not_spoken_to() {
    let identity = || Some((WORKER.0.to_vec(), WORKER.1.to_vec()));
    // The server's own certificate vouches for nobody, and a worker without one is unknown.
    for tls in [Tls { ca: WORKER.0.to_vec(), identity: identity() }, Tls { ca: CA.to_vec(), identity: None }] {
        let mut rig = rig(tls).await;
        until("it is said", || rig.worker.told("no link to") == 1).await;
        assert!(rig.server.heard.try_recv().is_err(), "no call came through");
    }
}
