//! From the records on disk to a Machine.

use anyhow::{Context as _, bail};
use starling_core::config::Config;
use starling_core::event::{SignedBatch, cluster_id};
use starling_core::machine::snapshot::{Local, Shared};
use starling_core::machine::{Identity, Machine, Record, Recovery};
use starling_core::namespace::Registry;
use tracing::warn;

use crate::driver::Clock;
use crate::storage;
use crate::storage::snapshots::Stored;
use crate::supervise::Found;

/// Reads the snapshot and all records beyond it, and finishes the recovery.
///
/// # Errors
/// If one of them cannot be read, or belongs to another cluster.
pub(super) fn recover(
    config: Config,
    identity: Identity,
    stored: Stored,
    records: storage::Recovery,
    clock: &Clock,
    found: &Found,
    moved: bool,
) -> anyhow::Result<Machine> {
    if let Some(torn) = &records.torn {
        warn!(file = %torn.file.display(), offset = torn.offset, bytes = torn.bytes_cut, "the log had a torn tail; it was cut after the last whole record");
    }
    let cluster = cluster_id(&identity.secret);
    let mut recovery = Recovery::new(config, Registry::built_in(), identity);
    for file in &stored.damaged {
        warn!(file = %file.display(), "a snapshot is damaged; the one before it and the log beyond that are used");
    }
    for (loaded, is_own) in
        stored.own.into_iter().map(|own| (own, true)).chain(stored.joined.into_iter().map(|one| (one, false)))
    {
        let shared = Shared::from_bytes(&loaded.shared, &cluster).context(
            "reading a snapshot; use the program and the secret that it was written with, or start with an empty --dir: \
             the node gets the shared history back from its peers",
        )?;
        let local = is_own.then(|| Local::from_bytes(&loaded.local)).transpose().context("reading a snapshot")?;
        recovery.snapshot(shared, local);
    }
    let mut foreign = 0_u64;
    for record in records {
        match record.context("reading the log")? {
            storage::Record::Batch { bytes, .. } => match SignedBatch::open_own(&bytes, &cluster) {
                Ok(batch) => recovery.record(Record::Batch(batch)),
                Err(_) => foreign += 1,
            },
            storage::Record::Local(bytes) => {
                let note = minicbor::decode(&bytes).context("reading a note in the log")?;
                recovery.record(Record::Note(note));
            }
            storage::Record::Clean => recovery.record(Record::CleanShutdown),
        }
    }
    if foreign > 0 {
        bail!("the data directory holds {foreign} batches of another cluster; use its secret, or an empty --dir");
    }
    if moved {
        warn!("the data directory was copied or restored from elsewhere; if its original runs still, stop one of them");
        recovery.moved();
    }
    recovery.resume(found.survivors(), found.books());
    Ok(recovery.finish(clock.now()))
}
