//! 1: nothing leaves a node before what it stands on is on that node's disk (DESIGN L1).

use starling_core::ids::GrantId;
use starling_core::machine::{Effect, Reply};
use starling_core::sync::Message;

use super::Violation;
use crate::sim::Disk;

/// Looks at one effect, with the disk of the node it comes from.
pub(crate) fn look(disk: &Disk, effect: &Effect) -> Option<Violation> {
    let durable = match effect {
        Effect::Gossip(batch) => disk.holds(batch),
        Effect::Spawn(spawn) => holds_acceptance(disk, &spawn.grant),
        Effect::Reply { reply: Reply::Submitted { job, .. }, .. } => disk.holds_job(job),
        Effect::Reply { reply: Reply::Declared { id, .. }, .. } => disk.holds_declaration(id),
        Effect::Send { message, .. } => match message {
            Message::Offer(offer) => disk.holds_grant(&offer.grant),
            Message::OfferReply { grant, accepted: true, .. } => holds_acceptance(disk, grant),
            Message::Have { log, len } => disk.len(log) >= *len,
            Message::Tips(frontier) | Message::TipsBack(frontier) => {
                frontier.tips().all(|(log, tip)| disk.len(log) >= tip.len)
            }
            Message::OfferReply { accepted: false, .. }
            | Message::Digest(_)
            | Message::Pull { .. }
            | Message::SnapshotAhead { .. }
            | Message::Ask { .. } => true,
        },
        Effect::Reply { reply: Reply::Cancelled | Reply::Noted | Reply::Imported(_) | Reply::Error(_), .. }
        | Effect::Write { .. }
        | Effect::Publish(_)
        | Effect::Serve { .. }
        | Effect::Retire(_)
        | Effect::Snapshot(_)
        | Effect::Fetch { .. }
        | Effect::Kill(_)
        | Effect::Notice(_) => true,
    };
    (!durable).then(|| Violation::new(1, format!("not durable yet: {effect:?}")))
}

/// A grant to oneself needs no note: the grant in one's own log is one. Nor does one whose tasks were found when this life began: what the journals of their
/// supervisors say outlives a log that lost its end.
fn holds_acceptance(disk: &Disk, grant: &GrantId) -> bool {
    disk.holds_note(grant) || disk.holds_grant(grant) || disk.journaled.contains(grant)
}
