//! `sys`: the kernel's own kinds: admit, grant, void, seal, cancel, retire jobs, register a namespace; claim to be the gateway, add and revoke its tokens.
//!
//! Invariants: a grant, void, seal or retirement counts only in the log of the job's owner; a claim counts for its author only; a cancel or a token counts from any member; each kind and version folds to the same for ever.

use smol_str::SmolStr;

use super::{Declaration, Durability, Namespace, NamespaceSpec, opaque, report};
use crate::event::{Event, SysContext, Value, WorkSpec};
use crate::facts::{
    Cancel, Claim, Declarations, Delta, Gateway, Job, NodeInfo, Outcome, Placed, Registration, Retired,
};
use crate::ids::{Attempt, Dot, Epoch, GatewayTerm, GrantId, Hash, JobId, LogId, PoolName, Seat, Term};
use crate::lattice::{IntervalSet, Numbers};
use crate::time::Hlc;

/// The namespace's name.
pub const NAME: &str = "sys";
const ADMIT: &str = "Admit";
const GRANT: &str = "Grant";
const VOID: &str = "Void";
/// Final outcomes.
pub const SEAL: &str = "Seal";
const CANCEL: &str = "Cancel";
const REGISTER: &str = "RegisterNamespace";
const CLAIM: &str = "ClaimGateway";
const ADD_TOKEN: &str = "AddToken";
const REVOKE_TOKEN: &str = "RevokeToken";
const RETIRE: &str = "Retire";

/// The namespace.
#[derive(Debug)]
pub struct Sys {
    spec: NamespaceSpec,
}

impl Default for Sys {
    fn default() -> Self {
        let spec = NamespaceSpec {
            name: SmolStr::new_static(NAME),
            preemptible: false,
            handler_type: SmolStr::default(),
            schema: Vec::new(),
            durability: Durability::Logged,
        };
        Self { spec }
    }
}

impl Namespace for Sys {
    fn spec(&self) -> &NamespaceSpec {
        &self.spec
    }

    fn delta(&self, dot: Dot, event: &Event) -> Delta {
        let author = dot.log.node;
        let owned = event.ctx.job.filter(|job| job.log.node == author);
        let delta = match (event.kind.as_str(), event.ver) {
            (ADMIT, 1) => {
                let name = event.spec.text("name").cloned().unwrap_or_default();
                return Delta::Node(author, NodeInfo::named(event.hlc, name));
            }
            // Version 2 names the pool of workers.
            (GRANT, 1 | 2) => owned.and_then(|id| granted(id, event)),
            (VOID, 1) => owned.and_then(|id| Some((id, Job::voided(event.ctx.grant?)))),
            (SEAL, 1 | 2) => owned.and_then(|id| sealed(id, event)),
            (CANCEL, 1) => event.ctx.job.map(|id| (id, Job::cancelled(Cancel { hlc: event.hlc, by: author }))),
            (REGISTER, 1) => return registered(dot, event),
            (RETIRE, 1) => return retired(dot, event),
            (CLAIM | ADD_TOKEN | REVOKE_TOKEN, 1) => {
                return gateway(dot, event).map_or(Delta::Nothing, |gateway| Delta::Gateway(Box::new(gateway)));
            }
            _ => return opaque(dot, event),
        };
        delta.map_or(Delta::Nothing, |(id, job)| Delta::Job(id, Box::new(job)))
    }
}

/// A document of a form that this version does not read is kept for one that does.
fn registered(dot: Dot, event: &Event) -> Delta {
    match event.spec.bytes("declaration").map(Declaration::from_bytes) {
        Some(Ok(declaration)) => {
            let registration = Registration { hlc: event.hlc, by: dot.log.node };
            Delta::Declaration(Box::new(Declarations::one(declaration, registration)))
        }
        Some(Err(_)) => opaque(dot, event),
        None => Delta::Nothing,
    }
}

/// Whether the author may say so is told by the key under which it folds.
fn retired(dot: Dot, event: &Event) -> Delta {
    let jobs = || {
        let log = LogId { node: event.ctx.node?, epoch: Epoch(event.spec.uint("epoch")?) };
        let mut jobs = Numbers::new();
        for range in event.spec.list("jobs")?.chunks(2) {
            let [Value::Int(start), Value::Int(end)] = range else {
                return None;
            };
            let _ = jobs.insert_range(u64::try_from(*start).ok()?, u64::try_from(*end).ok()?);
        }
        (!jobs.is_empty()).then(|| Retired::one(log, dot.log.node, jobs))
    };
    jobs().map_or(Delta::Nothing, |retired| Delta::Retired(Box::new(retired)))
}

fn gateway(dot: Dot, event: &Event) -> Option<Gateway> {
    let hash = || Some(Hash(event.spec.bytes("hash")?.try_into().ok()?));
    let at = Registration { hlc: event.hlc, by: dot.log.node };
    match event.kind.as_str() {
        CLAIM => {
            let term = GatewayTerm(event.spec.uint("term")?);
            Some(Gateway::claimed(Claim { term, node: dot.log.node, hlc: event.hlc }))
        }
        ADD_TOKEN => Some(Gateway::added(hash()?, event.spec.text("name").cloned().unwrap_or_default(), at)),
        _ => Some(Gateway::revoked(hash()?, at)),
    }
}

fn granted(id: JobId, event: &Event) -> Option<(JobId, Job)> {
    let placed = Placed {
        node: event.ctx.node?,
        attempt: Attempt(event.ctx.attempt),
        tasks: event.ctx.tasks.clone(),
        hlc: event.hlc,
        pool: event.spec.text("pool").cloned().map(PoolName),
    };
    Some((id, Job::granted(event.ctx.grant?, placed)))
}

fn sealed(id: JobId, event: &Event) -> Option<(JobId, Job)> {
    let term = Term(u32::try_from(event.spec.uint("term")?).ok()?);
    let outcome = report::outcome_of(&event.spec)?;
    Some((id, Job::sealed(term, outcome, event.ctx.tasks.clone(), event.hlc)))
}

fn event(hlc: Hlc, kind: &'static str, ctx: SysContext, spec: WorkSpec) -> Event {
    Event { hlc, ns: SmolStr::new_static(NAME), kind: SmolStr::new_static(kind), ver: 1, ctx, spec }
}

/// The first event of every log: proof of membership, and a name.
#[must_use]
pub fn admit(hlc: Hlc, mac: Hash, name: &str) -> Event {
    let spec = WorkSpec::new().with("mac", Value::Bytes(mac.0.to_vec())).with("name", Value::text(name));
    event(hlc, ADMIT, SysContext::default(), spec)
}

/// The proof in an `Admit`, if the event is one.
#[must_use]
pub fn admission_mac(event: &Event) -> Option<&[u8]> {
    if event.ns == NAME && event.kind == ADMIT { event.spec.bytes("mac") } else { None }
}

/// The owner grants tasks to an executor: to its own machine, or to a pool of the workers that it sponsors.
#[must_use]
pub fn grant(hlc: Hlc, grant: GrantId, seat: &Seat, attempt: Attempt, tasks: IntervalSet) -> Event {
    let ctx = SysContext {
        job: Some(grant.job),
        tasks,
        grant: Some(grant.no),
        attempt: attempt.0,
        node: Some(seat.node),
        ..SysContext::default()
    };
    match &seat.pool {
        None => event(hlc, GRANT, ctx, WorkSpec::new()),
        Some(pool) => {
            Event { ver: 2, ..event(hlc, GRANT, ctx, WorkSpec::new().with("pool", Value::text(pool.0.clone()))) }
        }
    }
}

/// The owner withdraws a grant.
#[must_use]
pub fn void(hlc: Hlc, grant: GrantId) -> Event {
    let ctx = SysContext { job: Some(grant.job), grant: Some(grant.no), ..SysContext::default() };
    event(hlc, VOID, ctx, WorkSpec::new())
}

/// The owner makes outcomes final.
#[must_use]
pub fn seal(hlc: Hlc, job: JobId, term: Term, tasks: IntervalSet, outcome: &Outcome) -> Event {
    let spec = report::outcome_spec(outcome).with("term", Value::int(term.0));
    let sealed = event(hlc, SEAL, SysContext { job: Some(job), tasks, ..SysContext::default() }, spec);
    // An outcome that version 1 does not have.
    let ver = if matches!(outcome, Outcome::Broke(_)) { 2 } else { 1 };
    Event { ver, ..sealed }
}

/// A member registers a namespace.
#[must_use]
pub fn register_namespace(hlc: Hlc, declaration: &Declaration) -> Event {
    let spec = WorkSpec::new().with("declaration", Value::Bytes(declaration.to_bytes()));
    event(hlc, REGISTER, SysContext::default(), spec)
}

/// The name of the namespace that an event registers, if it is a registration that this version reads.
#[must_use]
pub fn registered_name(event: &Event) -> Option<SmolStr> {
    if event.ns != NAME || event.kind != REGISTER {
        return None;
    }
    let declaration = event.spec.bytes("declaration").map(Declaration::from_bytes)?.ok()?;
    Some(declaration.spec.name)
}

/// The author claims to be the gateway.
#[must_use]
pub fn claim_gateway(hlc: Hlc, term: GatewayTerm) -> Event {
    let term = i64::try_from(term.0).unwrap_or(i64::MAX);
    event(hlc, CLAIM, SysContext::default(), WorkSpec::new().with("term", Value::Int(term)))
}

/// A token lets workers in from now on; only its hash is told.
#[must_use]
pub fn add_token(hlc: Hlc, hash: Hash, name: &str) -> Event {
    let spec = WorkSpec::new().with("hash", Value::Bytes(hash.0.to_vec())).with("name", Value::text(name));
    event(hlc, ADD_TOKEN, SysContext::default(), spec)
}

/// A token lets nobody in any more.
#[must_use]
pub fn revoke_token(hlc: Hlc, hash: Hash) -> Event {
    let spec = WorkSpec::new().with("hash", Value::Bytes(hash.0.to_vec()));
    event(hlc, REVOKE_TOKEN, SysContext::default(), spec)
}

/// The owner retires jobs of a log: `limits::RETIRE_RANGES_MAX` ranges of numbers at most.
#[must_use]
pub fn retire(hlc: Hlc, log: LogId, jobs: &Numbers) -> Event {
    let ends = jobs.ranges().flat_map(|(start, end)| [Value::int(start), Value::int(end)]).collect();
    let spec = WorkSpec::new().with("epoch", Value::int(log.epoch.0)).with("jobs", Value::List(ends));
    event(hlc, RETIRE, SysContext { node: Some(log.node), ..SysContext::default() }, spec)
}

/// A user wants a job stopped.
#[must_use]
pub fn cancel(hlc: Hlc, job: JobId) -> Event {
    event(hlc, CANCEL, SysContext { job: Some(job), ..SysContext::default() }, WorkSpec::new())
}
