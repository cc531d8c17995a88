//! Doctor: is this node healthy, and does it agree with the others?
//!
//! Invariants: each check says what was found, and what to do unless it is fine; agreement is judged
//! only between equal logs, so a node that lags is never called wrong.
//! Does not: repair anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use starling_core::election::{Vacancy, Why};
use starling_core::ids::NodeId;
use starling_core::machine::Machine;
use starling_core::schedule::{Health, Peer};
use starling_core::time::Now;
use starling_proto::v1::{Check, CheckState, DoctorReply};
use tokio::time::Instant;

use super::context::{About, Api, StorageStats};
use super::convert::seen;
use super::gateway;
use super::nodes::{name, read_storage};
use super::status::ApiError;

/// How long to wait until the others' roots are of our log: they take one every few presences.
const AGREE_WITHIN: Duration = Duration::from_secs(8);
const AGREE_POLL: Duration = Duration::from_millis(250);
/// Clocks further apart than this confuse people who read times.
const SKEW_MS_MAX: u64 = 2_000;
/// Less free space than this is worth a word.
const FREE_BYTES_LOW: u64 = 1 << 30;
/// With less than this the log takes a small event here and there, and no job.
const FREE_BYTES_LEAST: u64 = 1 << 20;
/// Names listed in one check.
const NAMES_MAX: usize = 10;

/// Runs all checks.
///
/// Cancel safety: cancel safe.
pub(super) async fn doctor(api: &Api) -> Result<DoctorReply, ApiError> {
    let storage = read_storage(api).await;
    let agreement = agreement(api).await?;
    let orphans = orphans(api).await;
    let about = api.ctx.about.clone();
    let ask = move |machine: &mut Machine, now: Now| {
        let checks = vec![
            disk(machine, &storage),
            roster(machine, now),
            links(machine, now),
            agreement,
            forks(machine),
            clocks(machine, now),
            opaque(machine),
            secret(&about),
            orphans,
            serving(machine, now),
        ];
        DoctorReply { checks, view: Some(seen(machine, now)) }
    };
    api.ask(ask).await
}

fn check(name: &str, state: CheckState, detail: String, hint: &str) -> Check {
    Check { name: name.to_owned(), state: state.into(), detail, hint: hint.to_owned() }
}

fn ok(name: &str, detail: impl Into<String>) -> Check {
    check(name, CheckState::Ok, detail.into(), "")
}

/// At most so many names, in a row.
fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

fn disk(machine: &Machine, storage: &StorageStats) -> Check {
    if let Some(reason) = machine.disk_refusal() {
        let detail = format!("refuses writes: {reason}");
        return check("disk", CheckState::Fail, detail, "make room or mend it; submissions are refused until then");
    }
    let Some(free) = storage.free_disk_bytes else {
        return ok("disk", format!("accepts writes, free space not known ({})", storage.state));
    };
    if free < FREE_BYTES_LEAST {
        let detail = format!("{} KiB free, hardly enough for a write", free >> 10);
        return check("disk", CheckState::Fail, detail, "make room; submissions are refused until then");
    }
    let shown = format!("{} MiB free", free >> 20);
    if free < FREE_BYTES_LOW {
        return check("disk", CheckState::Warn, shown, "make room before the log cannot be written");
    }
    ok("disk", format!("accepts writes, {shown} ({})", storage.state))
}

fn others<'a>(
    machine: &'a Machine,
    now: Now,
    health: impl Fn(Health) -> bool + 'a,
) -> impl Iterator<Item = (&'a NodeId, &'a Peer)> {
    let me = machine.me();
    let fleet = machine.fleet();
    fleet.peers().filter(move |(node, _)| **node != me && health(fleet.health(now.mono, node)))
}

fn roster(machine: &Machine, now: Now) -> Check {
    let silent = others(machine, now, |health| health != Health::Live).map(|(node, _)| *node);
    let unheard = machine.facts().nodes().map(|(node, _)| *node);
    let unheard = unheard.filter(|node| *node != machine.me() && machine.fleet().peer(node).is_none());
    let down: Vec<String> = silent.chain(unheard).map(|node| name(machine, &node)).collect();
    let live = 1 + others(machine, now, |health| health == Health::Live).count();
    if down.is_empty() {
        return ok("roster", format!("{live} of {live} nodes alive"));
    }
    let detail = format!("{live} of {} nodes alive; silent: {}", live + down.len(), listed(&down));
    check("roster", CheckState::Warn, detail, "start them again, or see why they cannot be reached")
}

fn links(machine: &Machine, now: Now) -> Check {
    let live: Vec<NodeId> = others(machine, now, |health| health == Health::Live).map(|(node, _)| *node).collect();
    let apart: Vec<String> =
        live.iter().filter(|node| !machine.sync().is_linked(node)).map(|node| name(machine, node)).collect();
    if apart.is_empty() {
        let detail = match live.len() {
            0 => "no other node is alive".to_owned(),
            1 => "linked to the other live node".to_owned(),
            many => format!("linked to all {many} other live nodes"),
        };
        return ok("links", detail);
    }
    let detail = format!("no link to {}, which others hear", listed(&apart));
    check("links", CheckState::Warn, detail, "is a firewall between? tasks are not placed there from here")
}

fn forks(machine: &Machine) -> Check {
    let forked: Vec<String> =
        machine.logs().forked().map(|log| format!("{}/{}", name(machine, &log.node), log.epoch)).collect();
    if forked.is_empty() {
        return ok("forks", "no author contradicts itself");
    }
    let detail = format!("two histories of {}", listed(&forked));
    check("forks", CheckState::Fail, detail, "does a copy of its data directory run somewhere? stop one of them")
}

fn clocks(machine: &Machine, now: Now) -> Check {
    let skew = |peer: &Peer| {
        let ours = now.wall.0.saturating_sub(now.mono.since_ms(peer.heard));
        peer.presence.wall.0.abs_diff(ours)
    };
    let live = others(machine, now, |health| health == Health::Live);
    let apart: Vec<String> = live
        .map(|(node, peer)| (name(machine, node), skew(peer)))
        .filter(|(_, skew)| *skew > SKEW_MS_MAX)
        .map(|(name, skew)| format!("{name} by {}.{} s", skew / 1_000, skew % 1_000 / 100))
        .collect();
    if apart.is_empty() {
        return ok("clocks", "all within 2 s of this node's");
    }
    let detail = format!("off from this node's: {}", listed(&apart));
    check("clocks", CheckState::Warn, detail, "set the time there or here; only shown times suffer")
}

fn opaque(machine: &Machine) -> Check {
    match machine.facts().opaque_count() {
        0 => ok("events", "all understood"),
        count => {
            let detail = format!("{count} events of kinds that this version does not know are kept unread");
            check("events", CheckState::Warn, detail, "upgrade this node")
        }
    }
}

fn secret(about: &About) -> Check {
    if about.loopback_only {
        let detail = "no cluster secret: this node stays on loopback".to_owned();
        return check("secret", CheckState::Warn, detail, "`starling cluster init` makes one for several machines");
    }
    ok("secret", "set; only nodes that know it can join")
}

/// Tasks that run on though the books of this data directory know nothing of them.
async fn orphans(api: &Api) -> Check {
    const NAME: &str = "orphans";
    let read = Arc::clone(&api.ctx.orphans);
    let found = tokio::task::spawn_blocking(move || read()).await.unwrap_or_default();
    if found.is_empty() {
        return ok(NAME, "no task runs that this node does not know");
    }
    let pids: Vec<String> = found.iter().map(ToString::to_string).collect();
    let detail = format!("processes of a data directory that was here before: {}", listed(&pids));
    let hint = format!("look at them, then end them: kill {}", pids.join(" "));
    check(NAME, CheckState::Warn, detail, &hint)
}

/// Whether workers from outside are served, and whether those of other hosts could come in.
fn serving(machine: &Machine, now: Now) -> Check {
    const NAME: &str = "gateway";
    let why = gateway::why(machine, now);
    let own = machine.fleet().peer(&machine.me()).map_or("", |own| own.presence.gateway.listens.as_str());
    if is_far(own) && machine.facts().gateway().valid_tokens().next().is_none() {
        let detail = format!("{why}; workers may attach at {own}, and no token is valid");
        let hint = "other hosts are refused until there is one: `starling gateway token add NAME`";
        return check(NAME, CheckState::Warn, detail, hint);
    }
    match machine.explain_gateway(now) {
        // Nobody wants one.
        Why::Acts | Why::NoClaim(Vacancy::NobodyWilling) => ok(NAME, why),
        Why::NoClaim(Vacancy::Listening | Vacancy::TooFew { .. } | Vacancy::Soon { .. })
        | Why::Settling
        | Why::NotYet
        | Why::HeldBack { .. }
        | Why::Unwilling(_)
        | Why::Silent { .. } => check(
            NAME,
            CheckState::Warn,
            why,
            "workers from outside wait until a gateway acts; see `starling gateway status`",
        ),
    }
}

/// Whether other hosts can reach an address.
fn is_far(listens: &str) -> bool {
    let address = listens.rsplit_once("://").map_or(listens, |(_, address)| address);
    address.parse::<SocketAddr>().is_ok_and(|address| !address.ip().is_loopback())
}

/// What the others' Facts look like from here.
#[derive(Debug)]
struct Compared {
    equal: usize,
    differ: Vec<String>,
    behind: Vec<String>,
}

/// Compares Facts roots with every live node, waiting a while for those whose log is not ours yet.
async fn agreement(api: &Api) -> Result<Check, ApiError> {
    let until = Instant::now() + AGREE_WITHIN;
    // The root that belongs to each state of our log that was seen meanwhile.
    let mut roots = BTreeMap::new();
    loop {
        let ask = move |machine: &mut Machine, now: Now| {
            roots.insert(machine.frontier().digest(), machine.root().prefix());
            let compared = compare(machine, now, &roots);
            (compared, roots)
        };
        let (compared, seen) = api.ask(ask).await?;
        roots = seen;
        let is_settled = compared.behind.is_empty() || !compared.differ.is_empty();
        if is_settled || Instant::now() >= until {
            return Ok(judged(&compared));
        }
        tokio::time::sleep(AGREE_POLL).await;
    }
}

fn compare(machine: &Machine, now: Now, roots: &BTreeMap<u64, u64>) -> Compared {
    let mut compared = Compared { equal: 0, differ: Vec::new(), behind: Vec::new() };
    for (node, peer) in others(machine, now, |health| health == Health::Live) {
        match roots.get(&peer.presence.digest) {
            Some(root) if *root == peer.presence.root => compared.equal += 1,
            Some(_) => compared.differ.push(name(machine, node)),
            None => compared.behind.push(name(machine, node)),
        }
    }
    compared
}

fn judged(compared: &Compared) -> Check {
    const NAME: &str = "agreement";
    if !compared.differ.is_empty() {
        let detail = format!("node {} differs: equal logs, unequal facts", listed(&compared.differ));
        return check(NAME, CheckState::Fail, detail, "this is a bug; please report it with both logs");
    }
    if !compared.behind.is_empty() {
        let detail = format!("still catching up: {}", listed(&compared.behind));
        return check(NAME, CheckState::Warn, detail, "ask again when the cluster is quieter");
    }
    match compared.equal {
        0 => ok(NAME, "no other node is alive to compare with"),
        others => ok(NAME, format!("all {} facts roots are equal", others + 1)),
    }
}
