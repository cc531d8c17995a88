//! `relays`: who runs tasks for the answering node.
//!
//! Does not: know relays of other nodes; ask those.

use starling_proto::v1::{ListRelaysRequest, RelayLine};

use super::connect::call;
use super::error::{CliError, EXIT_OK};
use super::output::Format;
use super::table::{Cell, Flush, Table, Tone};
use super::{Session, units};

/// Lists relays.
pub(crate) async fn list(session: &Session<'_>) -> Result<u8, CliError> {
    let out = session.out;
    let mut client = session.open().await?;
    let reply = call(client.list_relays(ListRelaysRequest {})).await?;
    match out.format() {
        Format::Json => out.json(&reply.relays)?,
        Format::Human => out.table(&relays_table(&reply.relays))?,
    }
    out.footer(reply.view.as_ref());
    Ok(EXIT_OK)
}

pub(crate) fn relays_table(relays: &[RelayLine]) -> Table {
    let mut table = Table::new(&[
        ("RELAY", Flush::Left),
        ("NAMESPACE", Flush::Left),
        ("HELD/SLOTS", Flush::Right),
        ("WAITING", Flush::Right),
        ("SILENT(LEASE)", Flush::Right),
        ("REACHED BY", Flush::Left),
    ]);
    for relay in relays {
        table.push(vec![
            Cell::new(&relay.gid, Tone::Strong),
            Cell::plain(&relay.namespace),
            Cell::plain(format!("{}/{}", relay.held, relay.slots)),
            Cell::plain(relay.waiting.to_string()),
            Cell::plain(format!("{}({})", units::duration(relay.silent_ms), units::duration(relay.lease_ms))),
            Cell::plain(&relay.reach),
        ]);
    }
    table
}
