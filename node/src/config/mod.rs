//! Configuration of a node: flag > environment `STARLING_*` > `starling.toml` > default, and where each value came from.
//!
//! Invariants: resolved once, before anything is opened; a node without a secret listens on loopback only.
//! Does not: choose ports or directories that depend on who else runs here (`daemon` does).

pub mod hwp;
pub mod keep;
pub mod liveness;
pub mod names;
pub mod secret;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use starling_core::limits;
use starling_core::schedule::Label;

use crate::cli::{UpArgs, base_dir};

/// The first ports tried for links and for the API.
pub const LINK_PORT: u16 = 7400;
/// The first port tried for the API.
pub const API_PORT: u16 = 7450;
/// How many ports are tried.
pub const PORTS: u16 = 50;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag of `up`.
    Flag,
    /// An environment variable.
    Environment,
    /// `starling.toml`.
    File,
    /// Nobody set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "starling.toml",
            Self::Default => "default",
        })
    }
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub struct Set<T> {
    /// The value.
    pub value: T,
    /// Its source.
    pub source: Source,
}

/// Why there is no configuration. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there but cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected.
        source: Box<toml::de::Error>,
    },
    /// A value that does not parse.
    #[error("{what} `{value}`: {reason}")]
    Value {
        /// Which.
        what: &'static str,
        /// What was given.
        value: String,
        /// What was expected.
        reason: String,
    },
    /// The secret.
    #[error(transparent)]
    Secret(#[from] secret::SecretError),
    /// A node without a secret was told to listen to the world.
    #[error("without a cluster secret a node listens on loopback only, not on {0}; run `starling cluster init` first")]
    NeedsSecret(SocketAddr),
}

/// `starling.toml`; every key is optional and named like its flag.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    name: Option<String>,
    dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    api: Option<SocketAddr>,
    join: Option<Vec<String>>,
    cpus: Option<f64>,
    mem: Option<String>,
    mdns: Option<bool>,
    labels: Option<Vec<String>>,
    gateway: Option<bool>,
    secret_file: Option<PathBuf>,
    rendezvous: Option<PathBuf>,
    log_level: Option<String>,
    archive: Option<bool>,
    retain: Option<String>,
    retain_jobs: Option<usize>,
    snapshot_every: Option<String>,
    snapshot_log: Option<String>,
    log_keep: Option<String>,
    log_keep_for: Option<String>,
    heartbeat: Option<String>,
    grace: Option<String>,
    hwp: Option<String>,
    hwp_cert: Option<PathBuf>,
    hwp_key: Option<PathBuf>,
    hwp_client_ca: Option<PathBuf>,
}

/// Everything `up` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where nodes of this user keep their state.
    pub base: PathBuf,
    /// The node's name; chosen at first start if not set.
    pub name: Set<Option<String>>,
    /// The data directory; the first free one under `base` if not set.
    pub dir: Set<Option<PathBuf>>,
    /// Where to listen for links; the first free port if not set.
    pub listen: Set<Option<SocketAddr>>,
    /// Where to serve the API; the first free port on loopback if not set.
    pub api: Set<Option<SocketAddr>>,
    /// How workers are served.
    pub hwp: hwp::Hwp,
    /// How often it speaks, and how long others may be silent.
    pub liveness: liveness::Liveness,
    /// Addresses of nodes to join.
    pub join: Set<Vec<SocketAddr>>,
    /// Thousandths of a core to offer; all cores if not set.
    pub cpus_milli: Set<Option<u64>>,
    /// Bytes of memory to offer; nine tenths if not set.
    pub mem_bytes: Set<Option<u64>>,
    /// Whether to look for nodes by multicast DNS.
    pub mdns: Set<bool>,
    /// What the node is and has, sorted; at most `limits::LABELS_MAX`.
    pub labels: Set<Vec<Label>>,
    /// Whether the node would be the gateway to workers from outside.
    pub gateway: Set<bool>,
    /// What is kept, and for how long.
    pub keep: keep::Keep,
    /// The secret's file.
    pub secret_file: Set<PathBuf>,
    /// The secret, if there is one.
    pub secret: Option<[u8; 32]>,
    /// Where nodes of one host or file system find each other.
    pub rendezvous: Set<PathBuf>,
    /// The log filter.
    pub log_level: Set<String>,
}

/// The first of flag, environment and file that is set, else the default.
fn pick<T>(flag: Option<T>, environment: Option<T>, file: Option<T>, default: T) -> Set<T> {
    let sources = [(flag, Source::Flag), (environment, Source::Environment), (file, Source::File)];
    for (value, source) in sources {
        if let Some(value) = value {
            return Set { value, source };
        }
    }
    Set { value: default, source: Source::Default }
}

fn variable<T>(what: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, ConfigError> {
    match std::env::var(what) {
        Ok(value) if !value.is_empty() => match parse(&value) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(reason) => Err(ConfigError::Value { what, value, reason }),
        },
        Ok(_) | Err(_) => Ok(None),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_parse| "expected IP:PORT, for example 10.0.0.7:7400".to_owned())
}

fn cpus(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(count) if (0.0..1e6).contains(&count) => Ok(milli(count)),
        Ok(_) | Err(_) => Err("expected a number of CPUs, for example 4 or 0.5".to_owned()),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the callers bound the value to 0..1e6")]
fn milli(count: f64) -> u64 {
    (count * 1_000.0).round() as u64
}

fn addresses(texts: Option<Vec<String>>) -> Result<Option<Vec<SocketAddr>>, ConfigError> {
    let parse = |text: String| {
        let parsed = address(&text);
        parsed.map_err(|reason| ConfigError::Value { what: "join", value: text, reason })
    };
    texts.map(|texts| texts.into_iter().map(parse).collect()).transpose()
}

/// Labels, each once, in order.
fn labels<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Label>, String> {
    let mut labels = texts.into_iter().map(|text| Label::parse(text.trim())).collect::<Result<Vec<_>, _>>()?;
    labels.sort_unstable();
    labels.dedup();
    if labels.len() > limits::LABELS_MAX {
        return Err(format!("expected at most {} labels", limits::LABELS_MAX));
    }
    Ok(labels)
}

/// Labels as a flag or the file has them, each for itself.
fn listed(what: &'static str, texts: Option<&[String]>) -> Result<Option<Vec<Label>>, ConfigError> {
    let read = |texts: &[String]| {
        let parsed = labels(texts.iter().map(String::as_str));
        parsed.map_err(|reason| ConfigError::Value { what, value: texts.join(","), reason })
    };
    texts.map(read).transpose()
}

fn memory(text: &str) -> Result<u64, String> {
    text.parse::<crate::cli::MemBytes>().map(|bytes| bytes.0)
}

/// A path as a string parses without fail.
#[expect(clippy::unnecessary_wraps, reason = "the shape that `variable` wants")]
fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that `variable` wants")]
fn words(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

impl Config {
    /// Resolves the flags of `up` against environment, file and defaults.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn resolve(args: &UpArgs) -> Result<Self, ConfigError> {
        let base = base_dir();
        let file = read_file(&base.join("starling.toml"))?;
        let secret_file = pick(
            args.secret_file.clone(),
            variable("STARLING_SECRET_FILE", path)?,
            file.secret_file,
            base.join("cluster.secret"),
        );
        let secret = match secret_file.source {
            Source::Default if !secret_file.value.exists() => None,
            Source::Default | Source::Flag | Source::Environment | Source::File => {
                Some(secret::read(&secret_file.value)?)
            }
        };
        let mem_file = file.mem.as_deref().map(|text| named("mem", text, memory)).transpose()?;
        let joins = variable("STARLING_JOIN", |text| text.split(',').map(address).collect::<Result<Vec<_>, _>>())?;
        let flag_joins = (!args.join.is_empty()).then(|| args.join.clone());
        let flag_cpus = args.cpus.map(|cpus| u64::from(cpus.0));
        let mdns_file = file.mdns;
        let hwp_file =
            hwp::HwpFile { at: file.hwp, cert: file.hwp_cert, key: file.hwp_key, client_ca: file.hwp_client_ca };
        let keep_file = keep::KeepFile {
            archive: file.archive,
            retain: file.retain,
            retain_jobs: file.retain_jobs,
            snapshot_every: file.snapshot_every,
            snapshot_log: file.snapshot_log,
            log_keep: file.log_keep,
            log_keep_for: file.log_keep_for,
        };
        let flag_labels = (!args.labels.is_empty()).then_some(args.labels.as_slice());
        let labels = pick(
            listed("label", flag_labels)?,
            variable("STARLING_LABELS", |text| labels(text.split(',')))?,
            listed("labels", file.labels.as_deref())?,
            Vec::new(),
        );
        let config = Self {
            name: optional(args.name.clone(), variable("STARLING_NAME", words)?, file.name),
            dir: optional(args.dir.clone(), variable("STARLING_DIR", path)?, file.dir),
            listen: optional(args.listen, variable("STARLING_LISTEN", address)?, file.listen),
            api: optional(args.api, variable("STARLING_API", address)?, file.api),
            hwp: hwp::Hwp::resolve(&args.hwp, hwp_file)?,
            keep: keep::Keep::resolve(args.archive, &keep_file)?,
            liveness: liveness::Liveness::resolve(&args.liveness, file.heartbeat.as_deref(), file.grace.as_deref())?,
            join: pick(addresses(flag_joins)?, joins, addresses(file.join)?, Vec::new()),
            cpus_milli: optional(flag_cpus, variable("STARLING_CPUS", cpus)?, file.cpus.map(milli)),
            mem_bytes: optional(args.mem.map(|mem| mem.0), variable("STARLING_MEM", memory)?, mem_file),
            mdns: pick(args.no_mdns.then_some(false), variable("STARLING_MDNS", flag)?, mdns_file, true),
            labels,
            gateway: pick(args.no_gateway.then_some(false), variable("STARLING_GATEWAY", flag)?, file.gateway, true),
            rendezvous: pick(
                args.rendezvous.clone(),
                variable("STARLING_RENDEZVOUS", path)?,
                file.rendezvous,
                base.join("rendezvous"),
            ),
            log_level: pick(
                args.log_level.clone(),
                variable("STARLING_LOG_LEVEL", words)?,
                file.log_level,
                "info".to_owned(),
            ),
            secret_file,
            secret,
            base,
        };
        config.check()
    }

    fn check(self) -> Result<Self, ConfigError> {
        if let Some(listen) = self.listen.value
            && self.secret.is_none()
            && !listen.ip().is_loopback()
        {
            return Err(ConfigError::NeedsSecret(listen));
        }
        if let Some(name) = self.name.value.as_deref()
            && !names::is_valid(name)
        {
            let reason = "expected a letter, then letters, digits, dots, dashes, 32 at most".to_owned();
            return Err(ConfigError::Value { what: "name", value: name.to_owned(), reason });
        }
        Ok(self)
    }

    /// Whether links stay on this host.
    #[must_use]
    pub fn loopback_only(&self) -> bool {
        self.listen_ip().is_loopback()
    }

    /// Where links listen: the given address, else everywhere with a secret and on loopback without.
    #[must_use]
    pub fn listen_ip(&self) -> IpAddr {
        match (self.listen.value, self.secret) {
            (Some(listen), _) => listen.ip(),
            (None, Some(_)) => Ipv4Addr::UNSPECIFIED.into(),
            (None, None) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Each value and where it came from, for `config show`.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String, Source)> {
        fn text<T: fmt::Display>(value: &Option<T>, unset: &str) -> String {
            value.as_ref().map_or_else(|| unset.to_owned(), ToString::to_string)
        }
        let dir = self.dir.value.as_ref().map(|dir| dir.display());
        let joins: Vec<String> = self.join.value.iter().map(ToString::to_string).collect();
        let labels: Vec<&str> = self.labels.value.iter().map(|label| label.0.as_str()).collect();
        let secret = match self.secret {
            Some(_) => self.secret_file.value.display().to_string(),
            None => format!("{} (absent: loopback only)", self.secret_file.value.display()),
        };
        let mdns = self.mdns.value && !self.loopback_only();
        let mut lines = vec![
            ("name", text(&self.name.value, "(chosen at first start)"), self.name.source),
            ("dir", text(&dir, "(first free node-K under the base directory)"), self.dir.source),
            ("listen", text(&self.listen.value, &format!("{}:{LINK_PORT}+", self.listen_ip())), self.listen.source),
            ("api", text(&self.api.value, &format!("127.0.0.1:{API_PORT}+")), self.api.source),
            ("join", joins.join(","), self.join.source),
            ("cpus-milli", text(&self.cpus_milli.value, "(all)"), self.cpus_milli.source),
            ("mem-bytes", text(&self.mem_bytes.value, "(nine tenths)"), self.mem_bytes.source),
            ("mdns", mdns.to_string(), self.mdns.source),
            ("labels", labels.join(","), self.labels.source),
            ("gateway", self.gateway.value.to_string(), self.gateway.source),
            ("secret-file", secret, self.secret_file.source),
            ("rendezvous", self.rendezvous.value.display().to_string(), self.rendezvous.source),
            ("log-level", self.log_level.value.clone(), self.log_level.source),
        ];
        lines.extend(self.hwp.lines());
        lines.extend(self.keep.lines());
        lines.extend(self.liveness.lines());
        lines
    }
}

fn optional<T>(flag: Option<T>, environment: Option<T>, file: Option<T>) -> Set<Option<T>> {
    pick(flag.map(Some), environment.map(Some), file.map(Some), None)
}

fn flag(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

fn named<T>(what: &'static str, text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
    parse(text).map_err(|reason| ConfigError::Value { what, value: text.to_owned(), reason })
}

fn read_file(path: &Path) -> Result<File, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
        Err(source) => {
            return Err(ConfigError::Read { path: path.to_owned(), source });
        }
    };
    toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(labels: &[Label]) -> String {
        let texts: Vec<&str> = labels.iter().map(|label| label.0.as_str()).collect();
        texts.join(" ")
    }

    #[test]
    fn labels_are_kept_once_and_in_order_and_wrong_ones_are_named() {
        assert_eq!(texts(&labels("gpu=2, docker,gpu=2".split(',')).unwrap()), "docker gpu=2");
        let longest = "x".repeat(limits::LABEL_TEXT_BYTES_MAX);
        assert_eq!(labels([longest.as_str()]).unwrap().len(), 1);
        let (too_long, many) = (format!("{longest}x"), (0..=limits::LABELS_MAX).map(|n| n.to_string()));
        for wrong in ["", " ", "a b", "a,b", "é", "a\nb", too_long.as_str()] {
            assert!(labels([wrong]).unwrap_err().contains("expected a label"), "{wrong:?}");
        }
        let many: Vec<String> = many.collect();
        let error = listed("labels", Some(&many)).unwrap_err().to_string();
        assert!(error.starts_with("labels `0,1,") && error.ends_with("expected at most 32 labels"), "{error}");
        assert!(listed("label", None).unwrap().is_none());
    }

    #[test]
    fn the_file_has_labels_and_the_gateway_and_nothing_misspelt() {
        let file: File = toml::from_str("labels = [\"gpu\", \"zone=a\"]\ngateway = false\n").unwrap();
        assert_eq!((file.labels.unwrap().join(" ").as_str(), file.gateway), ("gpu zone=a", Some(false)));
        assert!(toml::from_str::<File>("label = [\"gpu\"]\n").is_err());
    }

    #[test]
    fn a_flag_goes_before_the_environment_and_that_before_the_file() {
        let picked = |flag, environment, file| {
            let set = pick(flag, environment, file, 0);
            (set.value, set.source)
        };
        assert_eq!(picked(Some(1), Some(2), Some(3)), (1, Source::Flag));
        assert_eq!(picked(None, Some(2), Some(3)), (2, Source::Environment));
        assert_eq!(picked(None, None, Some(3)), (3, Source::File));
        assert_eq!(picked(None, None, None), (0, Source::Default));
    }
}
