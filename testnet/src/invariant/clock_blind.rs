//! 17: whether a batch is taken in depends on its bytes and on membership, whatever the node's clock shows (DESIGN L4).

use starling_core::event::SignedBatch;
use starling_core::ids::LogId;
use starling_core::machine::Machine;

use super::Violation;
use crate::sim::Seat;

/// How many batches of a log a node will hold, or keep waiting, once it has heard another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreseen {
    log: LogId,
    batches: usize,
}

/// What the node's logs alone, which know no clock, make of a batch that comes to it; nothing for its own logs, to which it writes itself.
pub(crate) fn foresee(machine: &Machine, batch: &SignedBatch) -> Option<Foreseen> {
    let log = batch.header().log;
    if log.node == machine.me() {
        return None;
    }
    let mut logs = machine.logs().clone();
    let _ = logs.ingest(batch.clone());
    Some(Foreseen { log, batches: logs.batches(&log) })
}

/// Once the node has heard the batch.
pub(crate) fn look(seat: Seat, machine: &Machine, foreseen: &Foreseen) -> Option<Violation> {
    let Foreseen { log, batches } = foreseen;
    let now = machine.logs().batches(log);
    (now != *batches).then(|| {
        let detail = format!(
            "{seat:?}, whose clock is wrong, holds {now} batches of {log:?}; by their bytes it would be {batches}"
        );
        Violation::new(17, detail)
    })
}
