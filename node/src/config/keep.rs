//! What is kept, and for how long: sealed jobs, the raw log, snapshots.
//!
//! Does not: say what these settings do to the protocol (`starling_core::config` does).

use std::time::Duration;

use starling_core::config::Config as Core;
use starling_core::resources::Resources;

use super::{ConfigError, Set, Source, flag, named, pick, variable};
use crate::cli::{MemBytes, Millis};
use crate::storage::Recent;

/// Log that stays beside snapshots, and for how long (DESIGN section 12).
const LOG_BYTES: u64 = 64 << 20;
const LOG_MS: u64 = 3_600_000;
/// An hour under full load would be tens of GiB, each batch of which costs 24 bytes of memory.
const LOG_BYTES_MAX: u64 = 512 << 20;

/// Its part of `starling.toml`.
#[derive(Debug, Default)]
pub(super) struct KeepFile {
    pub(super) archive: Option<bool>,
    pub(super) retain: Option<String>,
    pub(super) retain_jobs: Option<usize>,
    pub(super) snapshot_every: Option<String>,
    pub(super) snapshot_log: Option<String>,
    pub(super) log_keep: Option<String>,
    pub(super) log_keep_for: Option<String>,
}

/// What is kept.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Whether the raw log is kept for ever. Needed on some node for looking at Facts as they were long ago.
    pub archive: Set<bool>,
    /// How long a sealed job is kept with all its details, in milliseconds.
    pub retain_ms: Set<u64>,
    /// How many of them at most.
    pub retain_jobs: Set<usize>,
    /// Shortest time between two snapshots, in milliseconds.
    pub snapshot_ms: Set<u64>,
    /// Bytes of log between two snapshots, at least.
    pub snapshot_bytes: Set<u64>,
    /// Bytes of log that are kept at least, whatever snapshots contain.
    pub log_bytes: Set<u64>,
    /// For how long log is kept besides, in milliseconds, up to 512 MiB of it.
    pub log_ms: Set<u64>,
}

fn millis(text: &str) -> Result<u64, String> {
    text.parse::<Millis>().map(|millis| millis.0)
}

fn bytes(text: &str) -> Result<u64, String> {
    text.parse::<MemBytes>().map(|bytes| bytes.0)
}

fn jobs(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_parse| "expected a number of jobs, for example 10000".to_owned())
}

impl Keep {
    /// Resolves the flag against environment, file and defaults.
    pub(super) fn resolve(archive: bool, file: &KeepFile) -> Result<Self, ConfigError> {
        let usual = Core::new("", Resources::default());
        let read = |what, text: &Option<String>, parse: fn(&str) -> Result<u64, String>| {
            text.as_deref().map(|text| named(what, text, parse)).transpose()
        };
        let (retain, every) =
            (read("retain", &file.retain, millis)?, read("snapshot-every", &file.snapshot_every, millis)?);
        let log = read("snapshot-log", &file.snapshot_log, bytes)?;
        let log_keep = read("log-keep", &file.log_keep, bytes)?;
        let log_keep_for = read("log-keep-for", &file.log_keep_for, millis)?;
        Ok(Self {
            archive: pick(archive.then_some(true), variable("STARLING_ARCHIVE", flag)?, file.archive, false),
            retain_ms: pick(None, variable("STARLING_RETAIN", millis)?, retain, usual.retain_ms),
            retain_jobs: pick(None, variable("STARLING_RETAIN_JOBS", jobs)?, file.retain_jobs, usual.retain_jobs),
            snapshot_ms: pick(None, variable("STARLING_SNAPSHOT_EVERY", millis)?, every, usual.snapshot_ms),
            snapshot_bytes: pick(None, variable("STARLING_SNAPSHOT_LOG", bytes)?, log, usual.snapshot_bytes),
            log_bytes: pick(None, variable("STARLING_LOG_KEEP", bytes)?, log_keep, LOG_BYTES),
            log_ms: pick(None, variable("STARLING_LOG_KEEP_FOR", millis)?, log_keep_for, LOG_MS),
        })
    }

    /// Which log stays beside snapshots.
    #[must_use]
    pub fn recent(&self) -> Recent {
        let (bytes, age) = (self.log_bytes.value, Duration::from_millis(self.log_ms.value));
        Recent { bytes, age, bytes_max: LOG_BYTES_MAX.max(bytes) }
    }

    /// Each value and where it came from.
    pub(super) fn lines(&self) -> [(&'static str, String, Source); 7] {
        let ms = |ms: u64| crate::cli::duration(ms);
        let mib = |bytes: u64| format!("{}M", bytes >> 20);
        [
            ("archive", self.archive.value.to_string(), self.archive.source),
            ("retain", ms(self.retain_ms.value), self.retain_ms.source),
            ("retain-jobs", self.retain_jobs.value.to_string(), self.retain_jobs.source),
            ("snapshot-every", ms(self.snapshot_ms.value), self.snapshot_ms.source),
            ("snapshot-log", mib(self.snapshot_bytes.value), self.snapshot_bytes.source),
            ("log-keep", mib(self.log_bytes.value), self.log_bytes.source),
            ("log-keep-for", ms(self.log_ms.value), self.log_ms.source),
        ]
    }
}
