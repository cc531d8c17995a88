//! The gateway to workers from outside: who it is and why, and the tokens that let workers in.
//!
//! Invariants: what is told of the holder is what it said of itself, as old as presence is; a token is known here by its hash only, and no answer holds more.
//! Does not: decide who the gateway is (`core::election` does), or check tokens (`hwp::edge` does).

use starling_core::election::{Vacancy, Why};
use starling_core::facts::{self, Registration};
use starling_core::ids::{Hash, NodeId};
use starling_core::machine::{Command, Machine, Reply};
use starling_core::schedule::Gatewayship;
use starling_core::time::Now;
use starling_proto::v1::{
    AddTokenReply, AddTokenRequest, GatewayReply, ListTokensReply, RevokeTokenReply, RevokeTokenRequest, Token,
    WorkerAddress,
};

use super::context::Api;
use super::convert::{clamp, seen};
use super::nodes::name;
use super::status::ApiError;

/// Bytes of a token's name.
const NAME_BYTES_MAX: usize = 64;
/// Digits of a hash where one is told apart from others.
const HASH_DIGITS: usize = 12;

/// How it stands with the gateway.
///
/// Cancel safety: cancel safe.
pub(super) async fn status(api: &Api) -> Result<GatewayReply, ApiError> {
    api.ask(|machine, now| status_of(machine, now)).await
}

fn status_of(machine: &Machine, now: Now) -> GatewayReply {
    let live = machine.fleet().live(now.mono);
    let mut addresses: Vec<WorkerAddress> = live
        .filter(|(_, peer)| !peer.presence.gateway.listens.is_empty())
        .map(|(node, peer)| WorkerAddress { node: name(machine, node), address: peer.presence.gateway.listens.clone() })
        .collect();
    addresses.sort_by(|a, b| (&a.node, &a.address).cmp(&(&b.node, &b.address)));
    let vacant =
        GatewayReply { why: why(machine, now), addresses, view: Some(seen(machine, now)), ..Default::default() };
    let Some(claim) = machine.facts().gateway().claim() else {
        return vacant;
    };
    let acts = acting(machine, now) == Some(claim.node);
    let said = machine.fleet().peer(&claim.node).map(|peer| &peer.presence.gateway).filter(|_| acts);
    let sum = |of: fn(&Gatewayship) -> u64| clamp(said.map_or(0, of));
    GatewayReply {
        term: claim.term.0,
        holder: name(machine, &claim.node),
        holder_id: claim.node.to_hex(),
        since_unix_ms: claim.hlc.wall_ms,
        acting: acts,
        workers: sum(|said| said.workers.into()),
        slots: sum(|said| said.pools.iter().map(|pool| u64::from(pool.slots)).sum()),
        slots_free: sum(|said| said.pools.iter().map(|pool| u64::from(pool.free)).sum()),
        ..vacant
    }
}

/// The node that is the gateway and says that it acts.
pub(super) fn acting(machine: &Machine, now: Now) -> Option<NodeId> {
    let holder = machine.facts().gateway().claim()?.node;
    match machine.explain_gateway(now) {
        Why::Acts => Some(holder),
        Why::NoClaim(_)
        | Why::Settling
        | Why::NotYet
        | Why::HeldBack { .. }
        | Why::Unwilling(_)
        | Why::Silent { .. } => None,
    }
}

/// One sentence: who holds the seat, since when, whether it acts, and why not.
pub(super) fn why(machine: &Machine, now: Now) -> String {
    let gateway = machine.facts().gateway();
    let claim = gateway.claim().map(|claim| Held {
        holder: name(machine, &claim.node),
        term: claim.term.0,
        for_ms: now.wall.0.saturating_sub(claim.hlc.wall_ms),
    });
    sentence(claim.as_ref(), &machine.explain_gateway(now))
}

/// A claim as people hear of it.
struct Held {
    holder: String,
    term: u64,
    for_ms: u64,
}

fn sentence(held: Option<&Held>, why: &Why) -> String {
    let Some(Held { holder, term, for_ms }) = held else {
        return match why {
            Why::NoClaim(vacancy) => format!("no claim yet: {}", vacant(vacancy)),
            Why::Acts | Why::Settling | Why::NotYet | Why::HeldBack { .. } | Why::Unwilling(_) | Why::Silent { .. } => {
                "no claim yet".to_owned()
            }
        };
    };
    let since = ago(*for_ms);
    match why {
        Why::Acts => format!("{holder} has held term {term} for {since}, and acts"),
        Why::Settling => format!(
            "{holder} claimed term {term} {since} ago, and is settling: a claim stands for a while before its node acts"
        ),
        Why::NotYet => format!(
            "{holder} claimed term {term} {since} ago, and does not act yet: it is settling, or sees less than half of the members"
        ),
        Why::HeldBack { live, roster } => {
            format!("{holder} holds term {term} but does not act: it sees {live} of {roster} members, less than half")
        }
        Why::Unwilling(vacancy) => {
            format!("{holder} holds term {term} but does not serve any more; {}", untaken(vacancy))
        }
        Why::Silent { for_ms: Some(silent), vacancy } => {
            format!("{holder} holds term {term} but has been silent for {}; {}", ago(*silent), untaken(vacancy))
        }
        Why::Silent { for_ms: None, vacancy } => {
            format!("{holder} holds term {term} but was not heard since this node started; {}", untaken(vacancy))
        }
        Why::NoClaim(vacancy) => format!("no claim yet: {}", vacant(vacancy)),
    }
}

fn untaken(vacancy: &Vacancy) -> String {
    format!("nobody has claimed yet: {}", vacant(vacancy))
}

fn vacant(vacancy: &Vacancy) -> String {
    match vacancy {
        Vacancy::Listening => "this node has only just begun to listen".to_owned(),
        Vacancy::TooFew { live, roster } => {
            format!("this node sees {live} of {roster} members, less than half")
        }
        Vacancy::NobodyWilling => "no live node would be the gateway".to_owned(),
        Vacancy::Soon { candidates: 1 } => "the one node that would be the gateway claims in a moment".to_owned(),
        Vacancy::Soon { candidates } => {
            format!("one of the {candidates} nodes that would be the gateway claims in a moment")
        }
    }
}

/// `8 s`, `4 min`, `3 h`, `2 days`.
fn ago(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Adds a token.
///
/// Cancel safety: once the driver has the command, the token is added even if the caller leaves.
pub(super) async fn add_token(api: &Api, request: AddTokenRequest) -> Result<AddTokenReply, ApiError> {
    let AddTokenRequest { name: called, hash } = request;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if called.is_empty() || called.len() > NAME_BYTES_MAX || !called.bytes().all(plain) {
        let expected = format!("1 to {NAME_BYTES_MAX} letters, digits and signs of -_.");
        return Err(ApiError::field("name", &expected, &called));
    }
    // What was given instead may be a token, which no answer and no log line should hold.
    let hash = read_hash(&hash).ok_or_else(|| ApiError::field("hash", "64 hex digits", "something else"))?;
    let wanted = called.clone();
    let taken = move |machine: &mut Machine, _now: Now| {
        let mut valid = machine.facts().gateway().valid_tokens();
        valid.find(|(other, token)| token.name == wanted && **other != hash).map(|(other, _)| digits(other))
    };
    if let Some(other) = api.ask(taken).await? {
        let reason = format!("its hash begins with {other}");
        return Err(ApiError::Taken { what: "a token called", name: called, reason });
    }
    write(api, Command::AddToken { hash, name: called.as_str().into() }).await?;
    let told = move |machine: &mut Machine, now: Now| AddTokenReply {
        token: token(machine, &hash),
        view: Some(seen(machine, now)),
    };
    api.ask(told).await
}

/// Lists tokens.
///
/// Cancel safety: cancel safe.
pub(super) async fn list_tokens(api: &Api) -> Result<ListTokensReply, ApiError> {
    let list = |machine: &mut Machine, now: Now| {
        let known = machine.facts().gateway().tokens.keys();
        let mut tokens: Vec<Token> = known.filter_map(|hash| token(machine, hash)).collect();
        tokens
            .sort_by(|a, b| (a.revoked_unix_ms > 0, &a.name, &a.hash).cmp(&(b.revoked_unix_ms > 0, &b.name, &b.hash)));
        ListTokensReply { tokens, view: Some(seen(machine, now)) }
    };
    api.ask(list).await
}

/// Revokes a token.
///
/// Cancel safety: once the driver has the command, the token is revoked even if the caller leaves.
pub(super) async fn revoke_token(api: &Api, request: RevokeTokenRequest) -> Result<RevokeTokenReply, ApiError> {
    let find = move |machine: &mut Machine, _now: Now| find(&machine.facts().gateway().tokens, &request.token);
    let (hash, fresh) = api.ask(find).await??;
    write(api, Command::RevokeToken(hash)).await?;
    let told = move |machine: &mut Machine, now: Now| RevokeTokenReply {
        token: token(machine, &hash),
        fresh,
        view: Some(seen(machine, now)),
    };
    api.ask(told).await
}

async fn write(api: &Api, command: Command) -> Result<(), ApiError> {
    match api.ctx.handle.command(command).await? {
        Reply::Noted => Ok(()),
        Reply::Error(error) => Err(error.into()),
        Reply::Submitted { .. } | Reply::Cancelled | Reply::Declared { .. } | Reply::Imported(_) => {
            Err(crate::driver::Stopped::Gone.into())
        }
    }
}

type Tokens = std::collections::BTreeMap<Hash, facts::Token>;

/// The token that a user means, and whether it is valid still: a valid one of this name, else the only one whose hash begins so, else a revoked one of this name.
fn find(tokens: &Tokens, text: &str) -> Result<(Hash, bool), ApiError> {
    let called = |valid: bool| {
        let of_name = tokens.iter().filter(|(_, token)| token.name == text && token.is_valid() == valid);
        of_name.collect::<Vec<_>>()
    };
    let begins = || {
        let lower = text.to_ascii_lowercase();
        let begin = tokens.iter().filter(|(hash, _)| !lower.is_empty() && hash.to_hex().starts_with(&lower));
        begin.collect::<Vec<_>>()
    };
    let found = [called(true), begins(), called(false)].into_iter().find(|found| !found.is_empty());
    match found.unwrap_or_default().as_slice() {
        [] => Err(ApiError::UnknownToken(text.to_owned())),
        [(hash, token)] => Ok((**hash, token.is_valid())),
        many => {
            let each: Vec<String> =
                many.iter().map(|(hash, token)| format!("{} ({})", digits(hash), token.name)).collect();
            Err(ApiError::field("token", &format!("one of {}", each.join(", ")), text))
        }
    }
}

fn digits(hash: &Hash) -> String {
    hash.to_hex()[..HASH_DIGITS].to_owned()
}

fn read_hash(text: &str) -> Option<Hash> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Hash(bytes))
}

fn token(machine: &Machine, hash: &Hash) -> Option<Token> {
    let token = machine.facts().gateway().tokens.get(hash)?;
    let told = |at: &Option<Registration>| match at {
        Some(Registration { hlc, by }) => (hlc.wall_ms, name(machine, by)),
        None => (0, String::new()),
    };
    let (added_unix_ms, added_by) = told(&token.added.0);
    let (revoked_unix_ms, revoked_by) = told(&token.revoked.0);
    let (name, hash) = (token.name.to_string(), hash.to_hex());
    Some(Token { name, hash, added_unix_ms, added_by, revoked_unix_ms, revoked_by })
}

#[cfg(test)]
mod tests {
    use starling_core::lattice::Min;
    use starling_core::time::Hlc;

    use super::*;

    fn text(held: Option<(&str, u64, u64)>, why: Why) -> String {
        let held = held.map(|(holder, term, for_ms)| Held { holder: holder.to_owned(), term, for_ms });
        sentence(held.as_ref(), &why)
    }

    #[test]
    fn each_reason_is_one_sentence() {
        let finch = Some(("finch", 3, 250_000));
        let few = Vacancy::TooFew { live: 1, roster: 3 };
        let all = [
            text(None, Why::NoClaim(Vacancy::Soon { candidates: 3 })),
            text(None, Why::NoClaim(Vacancy::Listening)),
            text(finch, Why::Acts),
            text(Some(("finch", 3, 400)), Why::Settling),
            text(finch, Why::NotYet),
            text(finch, Why::HeldBack { live: 1, roster: 3 }),
            text(finch, Why::Unwilling(Vacancy::NobodyWilling)),
            text(finch, Why::Silent { for_ms: Some(9_000), vacancy: few }),
            text(finch, Why::Silent { for_ms: None, vacancy: Vacancy::Soon { candidates: 1 } }),
        ];
        expect_test::expect![[r#"
            no claim yet: one of the 3 nodes that would be the gateway claims in a moment
            no claim yet: this node has only just begun to listen
            finch has held term 3 for 4 min, and acts
            finch claimed term 3 0 s ago, and is settling: a claim stands for a while before its node acts
            finch claimed term 3 4 min ago, and does not act yet: it is settling, or sees less than half of the members
            finch holds term 3 but does not act: it sees 1 of 3 members, less than half
            finch holds term 3 but does not serve any more; nobody has claimed yet: no live node would be the gateway
            finch holds term 3 but has been silent for 9 s; nobody has claimed yet: this node sees 1 of 3 members, less than half
            finch holds term 3 but was not heard since this node started; nobody has claimed yet: the one node that would be the gateway claims in a moment"#]].assert_eq(&all.join("\n"));
    }

    fn tokens(all: &[(u8, &str, bool)]) -> Tokens {
        let at = Registration { hlc: Hlc { wall_ms: 5, count: 0 }, by: NodeId([1; 32]) };
        let token = |(first, name, valid): &(u8, &str, bool)| {
            let revoked = if *valid { Min::default() } else { Min::new(at) };
            (Hash([*first; 32]), facts::Token { name: (*name).into(), added: Min::new(at), revoked })
        };
        all.iter().map(token).collect()
    }

    #[test]
    fn a_token_is_found_by_name_before_hash_and_never_guessed() {
        let all = tokens(&[(0xab, "ci", false), (0xac, "ci", true), (0xc1, "c1", true), (0xc2, "two", true)]);
        let found =
            |text: &str| find(&all, text).map(|(hash, valid)| (hash.0[0], valid)).map_err(|error| error.to_string());
        assert_eq!(found("ci"), Ok((0xac, true)));
        assert_eq!(found("c1"), Ok((0xc1, true)));
        assert_eq!(found("C2"), Ok((0xc2, true)));
        assert_eq!(found("abab"), Ok((0xab, false)));
        assert!(found("c").is_err() && found("").is_err() && found("nobody").is_err());
        let twins = tokens(&[(1, "ci", true), (2, "ci", true)]);
        let Err(ApiError::Fields(wrong)) = find(&twins, "ci") else { panic!("it could be either") };
        assert_eq!(wrong[0].expected, "one of 010101010101 (ci), 020202020202 (ci)");
        let gone = tokens(&[(1, "ci", false)]);
        assert!(matches!(find(&gone, "ci"), Ok((_, false))));
    }
}
