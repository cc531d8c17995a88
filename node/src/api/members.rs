//! Members: saying that a node is gone for good, or takes no new work.
//!
//! Invariants: a word is answered once it is durable here; the others hear of it from the log.
//! Does not: judge whether a node is alive (`schedule::Fleet` does).

use starling_core::ids::NodeId;
use starling_core::machine::{Command, Machine, Reply};
use starling_core::time::Now;
use starling_proto::v1::{DrainNodeRequest, ForgetNodeRequest, MemberReply};

use super::context::Api;
use super::convert::seen;
use super::nodes;
use super::status::ApiError;

/// Says that a node is gone for good.
///
/// Cancel safety: once the driver has the command, it is said even if the caller leaves.
pub(super) async fn forget(api: &Api, request: ForgetNodeRequest) -> Result<MemberReply, ApiError> {
    if request.node.is_empty() {
        return Err(ApiError::field("node", "the name or id of a node that is gone", ""));
    }
    let node = find(api, request.node).await?;
    say(api, node, Command::Forget(node)).await
}

/// Says whether a node takes new work.
///
/// Cancel safety: once the driver has the command, it is said even if the caller leaves.
pub(super) async fn drain(api: &Api, request: DrainNodeRequest) -> Result<MemberReply, ApiError> {
    let node = find(api, request.node).await?;
    say(api, node, Command::Drain { node, on: request.on, reason: request.reason.into() }).await
}

async fn find(api: &Api, text: String) -> Result<NodeId, ApiError> {
    api.ask(move |machine: &mut Machine, _now: Now| nodes::find(machine, &text)).await?.map_err(nodes::of_find)
}

async fn say(api: &Api, node: NodeId, command: Command) -> Result<MemberReply, ApiError> {
    match api.ctx.handle.command(command).await? {
        Reply::Noted => {}
        Reply::Error(error) => return Err(error.into()),
        Reply::Submitted { .. } | Reply::Cancelled | Reply::Declared { .. } | Reply::Imported(_) => {
            return Err(crate::driver::Stopped::Gone.into());
        }
    }
    let told = move |machine: &mut Machine, now: Now| MemberReply {
        node: Some(nodes::line(machine, now, &node, nodes::Jobs::Left)),
        view: Some(seen(machine, now)),
    };
    api.ask(told).await
}
