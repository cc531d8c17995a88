//! `sys`: the kernel's own kinds: admit and forget a member; grant, void, seal, cancel; adopt the jobs of a log, retire jobs; register a namespace; claim to be the
//! gateway, add and revoke its tokens.
//!
//! Invariants: a grant, void, seal or retirement counts only in the log of the job's owner, by its term; a claim and an adoption count for their author only; a cancel or a token counts from any member; each kind and version folds to the same for ever.

use smol_str::SmolStr;

use super::{Declaration, Durability, Namespace, NamespaceSpec, opaque, report};
use crate::event::{Event, SysContext, Value, WorkSpec};
use crate::facts::{
    Adoption, Cancel, Claim, Declarations, Delta, Drain, Gateway, Job, NodeInfo, Outcome, Placed, Registration, Retired,
};
use crate::ids::{Attempt, Dot, Epoch, GatewayTerm, GrantId, Hash, JobId, LogId, NodeId, PoolName, Seat, Term};
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
/// The author owns the jobs of a log from now on.
pub const ADOPT: &str = "Adopt";
const FORGET: &str = "Forget";
const DRAIN: &str = "Drain";
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
        let speaks_in = |term: Term| event.ctx.job.filter(|job| term.is_of(&job.log.node, &author));
        let granted_in = || speaks_in(event.ctx.grant?.term);
        let delta = match (event.kind.as_str(), event.ver) {
            (ADMIT, 1) => {
                let name = event.spec.text("name").cloned().unwrap_or_default();
                return Delta::Node(author, NodeInfo::named(event.hlc, name));
            }
            // Version 2 names the pool of workers.
            (GRANT, 1 | 2) => granted_in().and_then(|id| granted(id, event)),
            (VOID, 1) => speaks_in(Term::FIRST).and_then(|id| Some((id, Job::voided(event.ctx.grant?)))),
            // By an adopter, who may withdraw what was granted before its term.
            (VOID, 2) => term_of(event).and_then(speaks_in).and_then(|id| Some((id, Job::voided(event.ctx.grant?)))),
            (SEAL, 1 | 2) => term_of(event).and_then(speaks_in).and_then(|id| sealed(id, event)),
            (ADOPT, 1) => return adopted(author, event).map_or(Delta::Nothing, |(log, one)| Delta::Adoption(log, one)),
            (DRAIN, 1) => {
                let on = event.spec.field("on") != Some(&Value::Bool(false));
                let reason = event.spec.text("reason").cloned().unwrap_or_default();
                let drained = |node| Delta::Node(node, NodeInfo::drained(Drain { hlc: event.hlc, on, reason }));
                return event.ctx.node.map_or(Delta::Nothing, drained);
            }
            (FORGET, 1) => {
                let forgotten = |node| Delta::Node(node, NodeInfo::forgotten(event.hlc));
                return event.ctx.node.map_or(Delta::Nothing, forgotten);
            }
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

/// Counts for whoever owns the log's jobs in the term that it names, whether or not another adopts them later: nothing is ever taken back.
fn retired(dot: Dot, event: &Event) -> Delta {
    let jobs = || {
        let log = LogId { node: event.ctx.node?, epoch: Epoch(event.spec.uint("epoch")?) };
        term_of(event).filter(|term| term.is_of(&log.node, &dot.log.node))?;
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

fn term_of(event: &Event) -> Option<Term> {
    event.spec.uint("term").map(Term)
}

/// The term in which the owner of a job speaks, if it grants, withdraws or seals something.
#[must_use]
pub fn owner_term(event: &Event) -> Option<Term> {
    match event.kind.as_str() {
        GRANT if event.ns == NAME => event.ctx.grant.map(|no| no.term),
        VOID | SEAL if event.ns == NAME => term_of(event),
        _ => None,
    }
}

/// An adoption says in its term who adopts; one that names another says nothing.
fn adopted(author: NodeId, event: &Event) -> Option<(LogId, Adoption)> {
    let log = LogId { node: event.ctx.node?, epoch: Epoch(event.spec.uint("epoch")?) };
    let term = term_of(event).filter(|term| term.is_adopted() && term.is_of(&log.node, &author))?;
    Some((log, Adoption { term, node: author, hlc: event.hlc }))
}

fn sealed(id: JobId, event: &Event) -> Option<(JobId, Job)> {
    let term = term_of(event)?;
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

/// The name that a member gave itself in its `Admit`, if the event is one.
#[must_use]
pub fn admitted_name(event: &Event) -> Option<&SmolStr> {
    if event.ns == NAME && event.kind == ADMIT { event.spec.text("name") } else { None }
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

/// The owner in `term` withdraws a grant of its own or an earlier term.
#[must_use]
pub fn void(hlc: Hlc, grant: GrantId, term: Term) -> Event {
    let ctx = SysContext { job: Some(grant.job), grant: Some(grant.no), ..SysContext::default() };
    if term.is_adopted() {
        return Event { ver: 2, ..event(hlc, VOID, ctx, WorkSpec::new().with("term", term_value(term))) };
    }
    event(hlc, VOID, ctx, WorkSpec::new())
}

/// The author of `term` owns the jobs of `log` from now on.
#[must_use]
pub fn adopt(hlc: Hlc, log: LogId, term: Term) -> Event {
    let ctx = SysContext { node: Some(log.node), ..SysContext::default() };
    let epoch = Value::Int(i64::try_from(log.epoch.0).unwrap_or(i64::MAX));
    event(hlc, ADOPT, ctx, WorkSpec::new().with("epoch", epoch).with("term", term_value(term)))
}

/// The log that an event adopts, if it is an adoption.
#[must_use]
pub fn adopted_log(author: NodeId, event: &Event) -> Option<LogId> {
    let is_adoption = event.ns == NAME && event.kind == ADOPT;
    adopted(author, event).filter(|_| is_adoption).map(|(log, _)| log)
}

/// A member is gone for good: it no longer counts where half of the members must be seen, until it comes back.
#[must_use]
pub fn forget(hlc: Hlc, node: NodeId) -> Event {
    event(hlc, FORGET, SysContext { node: Some(node), ..SysContext::default() }, WorkSpec::new())
}

/// A member takes no new work from now on, or takes it again.
#[must_use]
pub fn drain(hlc: Hlc, node: NodeId, on: bool, reason: &str) -> Event {
    let spec = WorkSpec::new().with("on", Value::Bool(on)).with("reason", Value::text(reason));
    event(hlc, DRAIN, SysContext { node: Some(node), ..SysContext::default() }, spec)
}

fn term_value(term: Term) -> Value {
    Value::Int(i64::try_from(term.0).unwrap_or(i64::MAX))
}

/// The owner makes outcomes final.
#[must_use]
pub fn seal(hlc: Hlc, job: JobId, term: Term, tasks: IntervalSet, outcome: &Outcome) -> Event {
    let spec = report::outcome_spec(outcome).with("term", term_value(term));
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

/// The owner in `term` retires jobs of a log: `limits::RETIRE_RANGES_MAX` ranges of numbers at most.
#[must_use]
pub fn retire(hlc: Hlc, log: LogId, term: Term, jobs: &Numbers) -> Event {
    let ends = jobs.ranges().flat_map(|(start, end)| [Value::int(start), Value::int(end)]).collect();
    let spec = WorkSpec::new().with("epoch", Value::int(log.epoch.0)).with("jobs", Value::List(ends));
    let spec = spec.with("term", Value::int(term.0));
    event(hlc, RETIRE, SysContext { node: Some(log.node), ..SysContext::default() }, spec)
}

/// A user wants a job stopped.
#[must_use]
pub fn cancel(hlc: Hlc, job: JobId) -> Event {
    event(hlc, CANCEL, SysContext { job: Some(job), ..SysContext::default() }, WorkSpec::new())
}
