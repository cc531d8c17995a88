//! From the records on disk to a Machine.

use anyhow::{Context as _, bail};
use starling_core::config::Config;
use starling_core::event::{SignedBatch, cluster_id};
use starling_core::machine::{Identity, Machine, Record, Recovery};
use starling_core::namespace::Registry;
use tracing::warn;

use crate::driver::Clock;
use crate::storage;
use crate::supervise::Found;

/// Reads all records and finishes the recovery.
///
/// # Errors
/// If the log cannot be read, or belongs to another cluster.
pub(super) fn recover(
    config: Config,
    identity: Identity,
    records: storage::Recovery,
    clock: &Clock,
    found: &Found,
) -> anyhow::Result<Machine> {
    if let Some(torn) = &records.torn {
        warn!(file = %torn.file.display(), offset = torn.offset, bytes = torn.bytes_cut, "the log had a torn tail; it was cut after the last whole record");
    }
    let cluster = cluster_id(&identity.secret);
    let mut recovery = Recovery::new(config, Registry::built_in(), identity);
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
    recovery.resume(found.survivors(), found.books());
    Ok(recovery.finish(clock.now()))
}
