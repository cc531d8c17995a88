//! What is kept, and for how long: sealed jobs, the raw log, snapshots.
//!
//! Does not: say what these settings do to the protocol (`starling_core::config` does).

use starling_core::config::Config as Core;
use starling_core::resources::Resources;

use super::{ConfigError, Set, Source, flag, named, pick, variable};
use crate::cli::{MemBytes, Millis};

/// Its part of `starling.toml`.
#[derive(Debug, Default)]
pub(super) struct KeepFile {
    pub(super) archive: Option<bool>,
    pub(super) retain: Option<String>,
    pub(super) retain_jobs: Option<usize>,
    pub(super) snapshot_every: Option<String>,
    pub(super) snapshot_log: Option<String>,
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
        Ok(Self {
            archive: pick(archive.then_some(true), variable("STARLING_ARCHIVE", flag)?, file.archive, false),
            retain_ms: pick(None, variable("STARLING_RETAIN", millis)?, retain, usual.retain_ms),
            retain_jobs: pick(None, variable("STARLING_RETAIN_JOBS", jobs)?, file.retain_jobs, usual.retain_jobs),
            snapshot_ms: pick(None, variable("STARLING_SNAPSHOT_EVERY", millis)?, every, usual.snapshot_ms),
            snapshot_bytes: pick(None, variable("STARLING_SNAPSHOT_LOG", bytes)?, log, usual.snapshot_bytes),
        })
    }

    /// Each value and where it came from.
    pub(super) fn lines(&self) -> [(&'static str, String, Source); 5] {
        let ms = |ms: u64| crate::cli::duration(ms);
        [
            ("archive", self.archive.value.to_string(), self.archive.source),
            ("retain", ms(self.retain_ms.value), self.retain_ms.source),
            ("retain-jobs", self.retain_jobs.value.to_string(), self.retain_jobs.source),
            ("snapshot-every", ms(self.snapshot_ms.value), self.snapshot_ms.source),
            ("snapshot-log", format!("{}M", self.snapshot_bytes.value >> 20), self.snapshot_bytes.source),
        ]
    }
}
