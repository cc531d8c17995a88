//! Two machines that are linked, and how what one says reaches the other.

use super::*;
use crate::event::SignedBatch;
use crate::testing::node;

/// An owner without a processor, and a worker; they are linked and have heard each other.
pub(super) fn pair() -> (Machine, Machine) {
    let mut owner = recovery_with(1, 0).finish(now(0));
    let mut worker = machine(2);
    let introductions = [owner.step(now(0), Input::Tick), worker.step(now(0), Input::Tick)];
    for (effects, hearer) in introductions.iter().zip([&mut worker, &mut owner]) {
        for effect in effects {
            if let Effect::Publish(presence) = effect {
                hearer.step(now(0), Input::Presence(presence.clone()));
            }
        }
    }
    owner.step(now(0), Input::LinkUp(node(2)));
    worker.step(now(0), Input::LinkUp(node(1)));
    (owner, worker)
}

/// The batches that were gossiped.
pub(super) fn gossiped(effects: &[Effect]) -> Vec<SignedBatch> {
    let mut batches = Vec::new();
    for effect in effects {
        if let Effect::Gossip(batch) = effect {
            batches.push(batch.clone());
        }
    }
    batches
}

pub(super) fn sent(effects: &[Effect]) -> Vec<Message> {
    let mut messages = Vec::new();
    for effect in effects {
        if let Effect::Send { message, .. } = effect {
            messages.push(message.clone());
        }
    }
    messages
}

/// The only batch that was gossiped, as the other node receives it.
pub(super) fn heard(from: u8, effects: &[Effect]) -> Input {
    Input::Batch { from: node(from), batch: gossiped(effects).pop().unwrap() }
}

/// The last message, as the other node receives it.
pub(super) fn told(from: u8, effects: &[Effect]) -> Input {
    Input::Message { from: node(from), message: sent(effects).pop().unwrap() }
}

pub(super) fn durable(write: u64) -> Input {
    Input::Durable(WriteId(write))
}
