//! The workers' port: where it listens and which certificates it shows.
//!
//! Invariants: an address that somebody chose is not moved; a certificate has a key, and the other way round.
//! Does not: read the certificates (`hwp::edge` does).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::{ConfigError, Set, Source, named, optional, path, variable};
use crate::cli::{HwpArgs, HwpAt};
use crate::hwp::edge::TlsFiles;

/// The first port tried.
pub const HWP_PORT: u16 = 50_051;
/// How many ports are tried.
pub const HWP_PORTS: u16 = 100;

/// Its part of `starling.toml`.
#[derive(Debug, Default)]
pub(super) struct HwpFile {
    pub(super) at: Option<String>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) client_ca: Option<PathBuf>,
}

/// How workers are served.
#[derive(Clone, Debug)]
pub struct Hwp {
    /// Where; the first free port of loopback if not set.
    pub at: Set<Option<HwpAt>>,
    /// The certificate chain.
    pub cert: Set<Option<PathBuf>>,
    /// Its key.
    pub key: Set<Option<PathBuf>>,
    /// Whose certificates callers must show.
    pub client_ca: Set<Option<PathBuf>>,
}

impl Hwp {
    /// Resolves the flags against environment, file and defaults.
    pub(super) fn resolve(args: &HwpArgs, file: HwpFile) -> Result<Self, ConfigError> {
        let at_file = file.at.as_deref().map(|text| named("hwp", text, str::parse)).transpose()?;
        let resolved = Self {
            at: optional(args.hwp, variable("STARLING_HWP", str::parse)?, at_file),
            cert: optional(args.hwp_cert.clone(), variable("STARLING_HWP_CERT", path)?, file.cert),
            key: optional(args.hwp_key.clone(), variable("STARLING_HWP_KEY", path)?, file.key),
            client_ca: optional(args.hwp_client_ca.clone(), variable("STARLING_HWP_CLIENT_CA", path)?, file.client_ca),
        };
        resolved.check()
    }

    fn check(self) -> Result<Self, ConfigError> {
        let shown = |value: &Option<PathBuf>| value.as_ref().map(|path| path.display().to_string());
        let (cert, key, client_ca) = (shown(&self.cert.value), shown(&self.key.value), shown(&self.client_ca.value));
        let alone = |what, value, reason: &str| Err(ConfigError::Value { what, value, reason: reason.to_owned() });
        match (cert, key, client_ca) {
            (Some(cert), None, _) => alone("hwp-cert", cert, "expected its private key too, with --hwp-key"),
            (None, Some(key), _) => alone("hwp-key", key, "expected its certificate too, with --hwp-cert"),
            (None, None, Some(ca)) => {
                alone("hwp-client-ca", ca, "expected this node's own certificate too, with --hwp-cert and --hwp-key")
            }
            (Some(_), Some(_), _) | (None, None, None) => Ok(self),
        }
    }

    /// The certificate files, if workers are to use TLS.
    #[must_use]
    pub fn tls(&self) -> Option<TlsFiles> {
        let (cert, key) = (self.cert.value.clone()?, self.key.value.clone()?);
        Some(TlsFiles { cert, key, client_ca: self.client_ca.value.clone() })
    }

    /// Addresses to try in turn; none if workers are not served.
    #[must_use]
    pub fn candidates(&self) -> Vec<SocketAddr> {
        match self.at.value {
            Some(HwpAt::Addr(addr)) => vec![addr],
            Some(HwpAt::Off) => Vec::new(),
            None => {
                (HWP_PORT..HWP_PORT + HWP_PORTS).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect()
            }
        }
    }

    pub(super) fn lines(&self) -> Vec<(&'static str, String, Source)> {
        let at = match self.at.value {
            Some(HwpAt::Addr(addr)) => addr.to_string(),
            Some(HwpAt::Off) => "off".to_owned(),
            None => format!("127.0.0.1:{HWP_PORT}+"),
        };
        let file = |name, file: &Set<Option<PathBuf>>| {
            let shown = file.value.as_ref().map_or_else(|| "(none)".to_owned(), |path| path.display().to_string());
            (name, shown, file.source)
        };
        vec![
            ("hwp", at, self.at.source),
            file("hwp-cert", &self.cert),
            file("hwp-key", &self.key),
            file("hwp-client-ca", &self.client_ca),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(args: HwpArgs) -> Result<Hwp, ConfigError> {
        Hwp::resolve(&args, HwpFile::default())
    }

    #[test]
    fn an_address_that_was_chosen_is_the_only_one() {
        let addr: SocketAddr = "10.0.0.7:6000".parse().unwrap();
        let chosen = at(HwpArgs { hwp: Some(HwpAt::Addr(addr)), ..HwpArgs::default() }).unwrap();
        assert_eq!(chosen.candidates(), [addr]);
        let off = at(HwpArgs { hwp: Some("off".parse().unwrap()), ..HwpArgs::default() }).unwrap();
        assert!(off.candidates().is_empty());
        let usual = at(HwpArgs::default()).unwrap().candidates();
        assert_eq!((usual.len(), usual[0]), (100, "127.0.0.1:50051".parse().unwrap()));
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let cert = HwpArgs { hwp_cert: Some("a.pem".into()), ..HwpArgs::default() };
        assert!(at(cert.clone()).unwrap_err().to_string().contains("--hwp-key"));
        let ca = HwpArgs { hwp_client_ca: Some("ca.pem".into()), ..HwpArgs::default() };
        assert!(at(ca).unwrap_err().to_string().contains("--hwp-cert"));
        let both = at(HwpArgs { hwp_key: Some("k.pem".into()), ..cert }).unwrap();
        assert_eq!(both.tls().unwrap().key, PathBuf::from("k.pem"));
    }
}
