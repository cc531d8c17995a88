//! `gateway`: who serves workers from outside and why, and the tokens that let them in.
//!
//! Invariants: a new token is printed once, alone on stdout, and only its hash leaves this process; it is printed when the cluster has the hash, never before.
//! Does not: keep tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use starling_proto::v1::{
    AddTokenRequest, GatewayReply, GetGatewayRequest, ListTokensRequest, ListWorkersReply, RevokeTokenRequest, Token,
    WorkerState, WorkerSummary,
};

use super::args::{GatewayVerb, TokenVerb};
use super::connect::call;
use super::error::{CliError, EXIT_OK};
use super::output::{Format, now_unix_ms};
use super::table::{Block, Cell, Flush, Table, Tone};
use super::{Session, units};

/// Bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Digits of a hash where people tell tokens apart.
const HASH_DIGITS: usize = 12;

/// Runs the verb.
pub(crate) async fn gateway(session: &Session<'_>, verb: GatewayVerb) -> Result<u8, CliError> {
    match verb {
        GatewayVerb::Status => status(session).await,
        GatewayVerb::Token(TokenVerb::Add(args)) => add(session, args.name).await,
        GatewayVerb::Token(TokenVerb::List) => list(session).await,
        GatewayVerb::Token(TokenVerb::Revoke(args)) => revoke(session, args.token).await,
    }
}

async fn status(session: &Session<'_>) -> Result<u8, CliError> {
    let out = session.out;
    let mut client = session.open().await?;
    let reply = call(client.get_gateway(GetGatewayRequest {})).await?;
    match out.format() {
        Format::Json => out.json(std::slice::from_ref(&reply))?,
        Format::Human => out.block(&status_block(&reply, now_unix_ms()))?,
    }
    out.footer(reply.view.as_ref());
    Ok(EXIT_OK)
}

pub(crate) fn status_block(reply: &GatewayReply, now_unix_ms: u64) -> Block {
    let mut block = Block::default();
    if reply.term == 0 {
        block.add_toned("gateway", "none", Tone::Busy);
    } else {
        let since = units::time(reply.since_unix_ms);
        let ago = units::duration(now_unix_ms.saturating_sub(reply.since_unix_ms));
        let (acts, tone) = if reply.acting { ("yes", Tone::Good) } else { ("no", Tone::Busy) };
        block
            .add_toned("gateway", &reply.holder, Tone::Strong)
            .add("term", reply.term.to_string())
            .add("since", format!("{since} ({ago} ago)"))
            .add_toned("acts", acts, tone);
    }
    if reply.acting {
        let (free, slots) = (reply.slots_free, reply.slots);
        let workers = match reply.workers {
            0 => "none attached".to_owned(),
            workers => format!("{workers}, {free} of {slots} slots free"),
        };
        block.add("workers", workers);
    }
    block.add("why", &reply.why);
    for at in &reply.addresses {
        block.add("attach at", format!("{} ({})", at.address, at.node));
    }
    block
}

/// One line of `--json`.
#[derive(Serialize)]
struct Added<'a> {
    token: &'a str,
    name: &'a str,
    hash: &'a str,
}

async fn add(session: &Session<'_>, name: String) -> Result<u8, CliError> {
    let out = session.out;
    let (token, hash) = fresh_token();
    let mut client = session.open().await?;
    let request = AddTokenRequest { name: name.clone(), hash: hash.clone() };
    let reply = call(client.add_token(request)).await?;
    match out.format() {
        Format::Json => out.json(&[Added { token: &token, name: &name, hash: &hash }])?,
        Format::Human => out.line(&token)?,
    }
    out.note("keep it: it is shown once, and the cluster knows its hash only");
    out.footer(reply.view.as_ref());
    Ok(EXIT_OK)
}

/// A token nobody has, and the hash by which the cluster knows it: blake3 of the token's text.
pub(crate) fn fresh_token() -> (String, String) {
    let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; TOKEN_BYTES]>());
    let hash = blake3::hash(token.as_bytes()).to_hex().to_string();
    (token, hash)
}

async fn list(session: &Session<'_>) -> Result<u8, CliError> {
    let out = session.out;
    let mut client = session.open().await?;
    let reply = call(client.list_tokens(ListTokensRequest {})).await?;
    match out.format() {
        Format::Json => out.json(&reply.tokens)?,
        Format::Human => out.table(&tokens_table(&reply.tokens))?,
    }
    if !reply.tokens.iter().any(is_valid) {
        out.note("no token is valid: only workers and clients on the nodes' own hosts come in");
    }
    out.footer(reply.view.as_ref());
    Ok(EXIT_OK)
}

fn is_valid(token: &Token) -> bool {
    token.revoked_unix_ms == 0
}

pub(crate) fn tokens_table(tokens: &[Token]) -> Table {
    let mut table =
        Table::new(&[("NAME", Flush::Left), ("HASH", Flush::Left), ("ADDED", Flush::Left), ("STATE", Flush::Left)]);
    for token in tokens {
        let (state, tone) = if is_valid(token) {
            ("valid".to_owned(), Tone::Good)
        } else {
            let at = units::time(token.revoked_unix_ms);
            (format!("revoked {at} at {}", token.revoked_by), Tone::Faint)
        };
        // One that was revoked before its addition arrived here.
        let added = if token.added_unix_ms == 0 {
            String::new()
        } else {
            format!("{} at {}", units::time(token.added_unix_ms), token.added_by)
        };
        table.push(vec![
            Cell::new(&token.name, Tone::Strong),
            Cell::plain(begin(&token.hash)),
            Cell::plain(added),
            Cell::new(state, tone),
        ]);
    }
    table
}

/// The beginning of a hash.
fn begin(hash: &str) -> &str {
    &hash[..hash.floor_char_boundary(HASH_DIGITS)]
}

async fn revoke(session: &Session<'_>, token: String) -> Result<u8, CliError> {
    let out = session.out;
    let mut client = session.open().await?;
    let reply = call(client.revoke_token(RevokeTokenRequest { token })).await?;
    let token = reply.token.unwrap_or_default();
    match out.format() {
        Format::Json => out.json(std::slice::from_ref(&token))?,
        Format::Human => {
            let what = if reply.fresh { "revoked" } else { "revoked before" };
            out.line(&format!("{what}: {} ({})", token.name, begin(&token.hash)))?;
        }
    }
    out.footer(reply.view.as_ref());
    Ok(EXIT_OK)
}

/// One line of `--json` for a worker, told apart from a node's.
#[derive(Serialize)]
pub(crate) struct WorkerLine<'a> {
    kind: &'static str,
    gateway: &'a str,
    term: u64,
    #[serde(flatten)]
    worker: &'a WorkerSummary,
}

/// The lines of `--json`, one a worker.
pub(crate) fn worker_lines(reply: &ListWorkersReply) -> Vec<WorkerLine<'_>> {
    let line = |worker| WorkerLine { kind: "worker", gateway: &reply.gateway, term: reply.term, worker };
    reply.workers.iter().map(line).collect()
}

/// Who serves the workers below.
pub(crate) fn workers_title(reply: &ListWorkersReply) -> String {
    format!("workers of gateway {}, term {}", reply.gateway, reply.term)
}

pub(crate) fn workers_table(workers: &[WorkerSummary]) -> Table {
    let mut table = Table::new(&[
        ("WORKER", Flush::Left),
        ("STATE", Flush::Left),
        ("SLOTS", Flush::Right),
        ("BUSY", Flush::Right),
        ("CPU", Flush::Right),
        ("MEM", Flush::Right),
        ("HEARD", Flush::Right),
        ("LABELS", Flush::Left),
    ]);
    for worker in workers {
        let (state, tone) = match worker.state() {
            WorkerState::Unknown => ("UNKNOWN", Tone::Plain),
            WorkerState::Ready => ("READY", Tone::Good),
            WorkerState::Full => ("FULL", Tone::Busy),
            WorkerState::Away => ("AWAY", Tone::Bad),
        };
        let cpu = worker.cpu_milli.map(|milli| units::cpus(u32::try_from(milli).unwrap_or(u32::MAX)));
        table.push(vec![
            Cell::new(&worker.name, Tone::Strong),
            Cell::new(state, tone),
            Cell::plain(worker.slots.to_string()),
            Cell::plain(worker.busy.to_string()),
            Cell::plain(cpu.unwrap_or_default()),
            Cell::plain(worker.mem_bytes.map(units::size).unwrap_or_default()),
            Cell::plain(units::duration(worker.silent_ms)),
            Cell::plain(worker.labels.join(",")),
        ]);
    }
    table
}
