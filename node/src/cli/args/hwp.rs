//! Flags of `up` for the port of workers and their clients.
//!
//! Does not: read the files or bind the port (`daemon` does).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// Where workers may attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HwpAt {
    /// At an address, and nowhere else.
    Addr(SocketAddr),
    /// Nowhere.
    Off,
}

impl FromStr for HwpAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let addr = text.parse();
        addr.map(Self::Addr).map_err(|_parse| "expected IP:PORT, for example 0.0.0.0:50051, or off".to_owned())
    }
}

/// The workers' port.
#[derive(Debug, Clone, Default, Args)]
pub struct HwpArgs {
    /// Serve workers and their clients (HWP) at IP:PORT, or `off` [default: the first free port of
    /// loopback from 50051]
    #[arg(long, value_name = "IP:PORT|off")]
    pub hwp: Option<HwpAt>,
    /// TLS for workers: this node's certificate chain (PEM)
    #[arg(long, value_name = "FILE")]
    pub hwp_cert: Option<PathBuf>,
    /// TLS for workers: the certificate's private key (PEM)
    #[arg(long, value_name = "FILE")]
    pub hwp_key: Option<PathBuf>,
    /// TLS for workers: callers must show a certificate of this authority (PEM), besides their token
    #[arg(long, value_name = "FILE")]
    pub hwp_client_ca: Option<PathBuf>,
}
