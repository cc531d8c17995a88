//! Telling the driver: of finished writes and of ended processes; and the owner of the last output.

use std::sync::Arc;

use starling_core::ids::{NodeId, WriteId};
use starling_core::machine::{Input, Machine};
use starling_net::{Lane, PeerKey};

use super::home;
use crate::driver::Handle;
use crate::exec::output::Stream;
use crate::hwp::gateway;
use crate::output::{Files, Place, TAIL_BYTES, Which};
use crate::supervise::{Happened, OnHappened, Told};
use crate::wire::{self, Bulk};

/// For the store: every write's end becomes an input.
pub(super) fn writes(handle: Handle) -> home::OnDone {
    Box::new(move |completion| {
        let write = WriteId(completion.id);
        handle.input(match completion.result {
            Ok(()) => Input::Durable(write),
            Err(error) => Input::WriteFailed { write, reason: error.to_string() },
        });
    })
}

/// Tells a job's owner of the last output of a task, if that is another node.
pub(super) fn tails(me: NodeId, files: Files, net: starling_net::Handle) -> gateway::Tails {
    Arc::new(move |place, output| {
        if place.grant.job.log.node == me {
            return;
        }
        for stream in Stream::ALL {
            let len = output.of(stream).len;
            if len > 0 {
                send_tail(&files, place, stream, len, &net);
            }
        }
    })
}

/// Tells the driver of ports and ends, and the job's owner of the last output.
pub(super) fn happened(handle: Handle, tails: gateway::Tails) -> OnHappened {
    Box::new(move |happened| {
        let input = match happened {
            Happened::Port { run, host, port } => Input::PortOpened { run, port, host },
            Happened::Ended { run, place, outcome, usage, output } => {
                tails(&place, &output);
                Input::TaskEnded { run, outcome, usage }
            }
        };
        handle.input(input);
    })
}

/// Asks the driver which ends are in the log.
pub(super) fn told(handle: Handle, runtime: tokio::runtime::Handle) -> Told {
    Box::new(move |asked| {
        let look = move |machine: &mut Machine, _now| {
            let told = asked.into_iter().map(|(grant, tasks)| (grant, machine.told(&grant, &tasks)));
            told.filter(|(_, tasks)| !tasks.is_empty()).collect()
        };
        // A driver that is busy, or stops, has more important things to do; the journals keep it.
        runtime.block_on(handle.ask(look)).unwrap_or_default()
    })
}

fn send_tail(files: &Files, place: &Place, stream: Stream, len: u64, net: &starling_net::Handle) {
    let from = len.saturating_sub(TAIL_BYTES);
    let size = usize::try_from(TAIL_BYTES).unwrap_or(usize::MAX);
    if let Ok((data, _)) = files.read(Which::Full, place, stream, from, size) {
        let frame = wire::encode(&Bulk::Tail { place: *place, stream, data: data.as_ref().into() });
        // Without a link the owner has no copy, which `logs` says.
        let _unsent = net.send(PeerKey(place.grant.job.log.node.0), Lane::Bulk, frame);
    }
}
