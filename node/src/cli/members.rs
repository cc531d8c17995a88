//! `node drain`, `node resume` and `cluster forget`: what an operator says of a node.
//!
//! Does not: wait until a drained node is idle; `nodes` shows what runs there.

use starling_proto::v1::{DrainNodeRequest, ForgetNodeRequest, MemberReply};

use super::Session;
use super::args::{DrainArgs, ForgetArgs, MemberArg};
use super::connect::call;
use super::error::{CliError, EXIT_OK};
use super::output::Format;

/// Lets a node take no new work.
pub(crate) async fn drain(session: &Session<'_>, args: &DrainArgs) -> Result<u8, CliError> {
    let (node, reason) = (args.node.clone().unwrap_or_default(), args.reason.clone().unwrap_or_default());
    let reply = call(session.open().await?.drain_node(DrainNodeRequest { node, on: true, reason })).await?;
    let running = reply.node.as_ref().map_or(0, |node| node.running);
    show(session, &reply, &format!("takes no new work; {running} tasks run there"))
}

/// Lets a node take work again.
pub(crate) async fn resume(session: &Session<'_>, args: &MemberArg) -> Result<u8, CliError> {
    let request = DrainNodeRequest { node: args.node.clone().unwrap_or_default(), on: false, reason: String::new() };
    let reply = call(session.open().await?.drain_node(request)).await?;
    show(session, &reply, "takes work again")
}

/// Says that a node is gone for good.
pub(crate) async fn forget(session: &Session<'_>, args: &ForgetArgs) -> Result<u8, CliError> {
    let reply = call(session.open().await?.forget_node(ForgetNodeRequest { node: args.node.clone() })).await?;
    show(session, &reply, "counts no more, until it is heard again")
}

fn show(session: &Session<'_>, reply: &MemberReply, what: &str) -> Result<u8, CliError> {
    let out = session.out;
    let node = reply.node.clone().unwrap_or_default();
    match out.format() {
        Format::Json => out.json(std::slice::from_ref(&node))?,
        Format::Human => out.line(&format!("{} {what}", super::table::clean(&node.name)))?,
    }
    out.footer(reply.view.as_ref());
    Ok(EXIT_OK)
}
