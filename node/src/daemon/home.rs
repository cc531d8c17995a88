//! A node's home: its data directory, its key and its name.
//!
//! Invariants: one process per directory (the store's lock); the key is written once, before anything is signed with it.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, bail};

use starling_core::machine::snapshot;

use super::rendezvous::Rendezvous;
use super::site::Site;
use crate::config::{Config, names, secret};
use crate::storage::snapshots::{Snapshots, Stored};
use crate::storage::{Completion, Error as StoreError, Options, Recovery, Store};

/// Directories tried for a node without `--dir`.
const NODES_MAX: u32 = 1_000;
/// No segment of the log is shorter when it is followed by another.
const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
/// Names tried for a node without `--name`.
const CANDIDATES_MAX: usize = 10_000;

/// An open home.
#[derive(Debug)]
pub(super) struct Home {
    /// The data directory.
    pub(super) dir: PathBuf,
    /// Where that lies, and whether it did before.
    pub(super) site: Site,
    /// The secret half of the node's key.
    pub(super) seed: [u8; 32],
    /// The durable log.
    pub(super) store: Store,
    /// What the log holds.
    pub(super) recovery: Recovery,
    /// Snapshots beside the log.
    pub(super) snapshots: Snapshots,
    /// Those that were stored.
    pub(super) stored: Stored,
}

/// Where finished writes are told.
pub(super) type OnDone = Box<dyn Fn(Completion) + Send>;

/// Opens the configured data directory, or the first free one under the base directory.
///
/// # Errors
/// If the configured one is in use, none is free, or the log cannot be opened.
pub(super) fn open(config: &Config, on_done: impl Fn() -> OnDone) -> anyhow::Result<Home> {
    if let Some(dir) = &config.dir.value {
        return match open_dir(dir, config, on_done()) {
            Err(StoreError::InUse { pid, .. }) => {
                let by = pid.map_or_else(String::new, |pid| format!(" by process {pid}"));
                bail!("the data directory {} is in use{by}; stop that node, or choose another --dir", dir.display())
            }
            other => finish(dir, other?),
        };
    }
    for number in 1..=NODES_MAX {
        let dir = config.base.join(format!("node-{number}"));
        match open_dir(&dir, config, on_done()) {
            Err(StoreError::InUse { .. }) => {}
            other => return finish(&dir, other?),
        }
    }
    bail!("{NODES_MAX} nodes run under {} already", config.base.display())
}

type Parts = (Store, Recovery, Snapshots, Stored);

fn open_dir(dir: &Path, config: &Config, on_done: OnDone) -> Result<Parts, StoreError> {
    let naming = |shared: &[u8]| snapshot::name(shared).0;
    // A segment goes as a whole, so that several must fit between two snapshots.
    let segment_bytes =
        (config.keep.snapshot_bytes.value / 4).clamp(SEGMENT_BYTES_MIN, Options::default().segment_bytes);
    let options = Options { segment_bytes, ..Options::default() };
    Store::open_beside(&dir.join("log"), &dir.join("snapshots"), naming, options, on_done)
}

fn finish(dir: &Path, (store, recovery, snapshots, stored): Parts) -> anyhow::Result<Home> {
    let key = dir.join("key");
    let seed = read_or_create_key(&key)?;
    let site = Site::find(dir, &key).with_context(|| format!("looking where {} lies", dir.display()))?;
    Ok(Home { dir: dir.to_owned(), site, seed, store, recovery, snapshots, stored })
}

fn read_or_create_key(path: &Path) -> anyhow::Result<[u8; 32]> {
    match fs::read_to_string(path) {
        Ok(text) => secret::parse_hex(text.trim()).with_context(|| {
            format!("the node's key {} does not hold 64 hex digits; start with an empty data directory", path.display())
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seed: [u8; 32] = rand::random();
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .with_context(|| format!("writing the node's key {}", path.display()))?;
            io::Write::write_all(&mut file, secret::to_hex(&seed).as_bytes())?;
            file.sync_all()?;
            Ok(seed)
        }
        Err(error) => Err(error).with_context(|| format!("reading the node's key {}", path.display())),
    }
}

impl Home {
    /// The node's name: as configured, else as before, else a bird that no other node of this host has claimed.
    ///
    /// # Errors
    /// If the name cannot be kept.
    pub(super) fn name(&self, config: &Config, rendezvous: &Rendezvous) -> anyhow::Result<String> {
        let path = self.dir.join("name");
        let before =
            fs::read_to_string(&path).ok().map(|text| text.trim().to_owned()).filter(|name| names::is_valid(name));
        let name = match config.name.value.clone().or_else(|| before.clone()) {
            Some(name) => {
                // A person may want one name twice.
                let _theirs = rendezvous.claim(&name);
                name
            }
            None => {
                let reach = if config.loopback_only() { names::Reach::Host } else { names::Reach::Network };
                let mut candidates = names::candidates(rand::random(), reach).take(CANDIDATES_MAX);
                candidates.find(|name| rendezvous.claim(name)).context("every name is taken; choose one with --name")?
            }
        };
        if before.as_ref() != Some(&name) {
            fs::write(&path, format!("{name}\n")).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(name)
    }
}
