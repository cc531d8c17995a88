//! Succession: which logs' jobs this node owns, taking over those of nodes that are gone, and giving way where another did (DESIGN J7).
//!
//! Invariants: a node acts for a log only while Facts say that it owns it, and, having adopted it, only once the adoption has stood for a while; a node that comes
//! back acts for nothing before it knows what the others did meanwhile, or has listened in vain; one that sees less than half of the members takes over nothing.
//! Does not: judge who goes first (`election::steward`) or keep the owner's books (`schedule::Owner`).

use std::collections::{BTreeMap, BTreeSet};

use super::Machine;
use super::io::{CommandError, Effect, Notice, Reply};
use super::note::Note;
use crate::election::{Duty, Silence, duty};
use crate::event::Event;
use crate::facts::NodeInfo;
use crate::ids::{JobId, LogId, NodeId, RequestId, Term};
use crate::limits;
use crate::log::Frontier;
use crate::namespace::sys;
use crate::schedule::{Health, Peer};
use crate::time::{Mono, Now};

/// How often a node looks for owners that are gone.
const LOOK_MS: u64 = 500;
/// An adoption that does not appear in the log is made again after this long.
const ADOPT_RETRY_MS: u64 = 3_000;
/// Epochs count up to here: one must fit a signed value of an event's spec.
const EPOCH_MAX: u64 = i64::MAX.unsigned_abs();
/// A node that came back and has a link waits at most so long until it knows what its peer knows.
const REJOIN_MS_MAX: u64 = 30_000;

/// What a node that came back does not know yet.
#[derive(Clone, Debug)]
struct Rejoining {
    since: Mono,
    /// What the first peer had that was heard from.
    theirs: Option<Frontier>,
}

/// This node's duties as an owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Duties {
    /// Logs that are acted for, beside the one that this node writes.
    held: BTreeSet<LogId>,
    /// Logs to act for once that has stood for a while, and since when it does: adopted ones, and own ones of which others knew more.
    settling: BTreeMap<LogId, Mono>,
    /// Adoptions that were written lately.
    written: BTreeMap<LogId, (Term, Mono)>,
    rejoining: Option<Rejoining>,
    look_due: Mono,
    /// Nodes that this one has heard, in this life or an earlier one. Of others the log came by hand or by way of others: their silence says nothing.
    met: BTreeSet<NodeId>,
}

impl Duties {
    pub(super) fn new(now: Mono, met: BTreeSet<NodeId>) -> Self {
        Self { look_due: now, met, ..Self::default() }
    }

    /// Whom this node has heard, for its next life.
    pub(super) fn met(&self) -> impl Iterator<Item = &NodeId> {
        self.met.iter()
    }

    /// When `Machine::succeed` must look at the latest.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        (self.rejoining.is_some() || !self.settling.is_empty()).then_some(self.look_due)
    }
}

/// Why nobody takes over the jobs of a node, or when somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It lives: its jobs are its own business.
    Lives,
    /// Neither this node nor an earlier life of it ever heard it: its silence says nothing, an operator's word does.
    NeverHeard,
    /// It is silent; after so many more milliseconds another node may take over.
    Soon(u64),
    /// This node sees too few members, so it takes over nothing.
    TooFew {
        /// Members that seem alive.
        live: usize,
        /// All members.
        roster: usize,
    },
}

impl Machine {
    /// Whether this node acts as the owner of the jobs in `log`.
    #[must_use]
    pub fn acts_for(&self, log: &LogId) -> bool {
        self.duties.rejoining.is_none()
            && self.facts.owners().owner_of(log) == self.me
            && (*log == self.own_log() || self.duties.held.contains(log))
    }

    /// The adoptions that this node has decided on lately: of which log, in which term, and when.
    pub fn adoptions(&self) -> impl Iterator<Item = (&LogId, Term, Mono)> {
        self.duties.written.iter().map(|(log, (term, at))| (log, *term, *at))
    }

    /// Something was learnt of a log that this node owns and does not act for: it will, once it has heard the rest.
    pub(super) fn note_duty(&mut self, now: Now, log: LogId) {
        let is_known = self.duties.settling.contains_key(&log) || self.duties.held.contains(&log);
        if !is_known && log != self.own_log() && self.facts.owners().owner_of(&log) == self.me {
            self.settle_later(now, log);
        }
    }

    /// Others knew more of this node's own log than it did: it acts for it again once it has heard that.
    pub(super) fn doubt_own_log(&mut self, now: Now, log: LogId) {
        self.owner.hand_over(&log);
        self.duties.held.remove(&log);
        if self.facts.owners().owner_of(&log) == self.me {
            self.settle_later(now, log);
        }
    }

    /// Whether the books of a job are those of another submission than the one that counts. An author that forked may have submitted two under one id: once the
    /// other one counts, books of the first grant what the job does not have.
    pub(super) fn has_misread(&self, id: &JobId) -> bool {
        self.acts_for(&id.log) && self.facts.job(id).is_some_and(|job| !self.owner.fits(id, job))
    }

    /// Whoever speaks of a job in a later term than is known has adopted it: the adoption lies in another log of its own, and is on the way. This node gives way at
    /// once, or it would grant again what the heir has withdrawn and granted elsewhere. It goes on if nothing comes.
    pub(super) fn heed_heir(&mut self, now: Now, author: &NodeId, id: &JobId, event: &Event) {
        let known = self.facts.owners().term_of(&id.log);
        let is_heir = |term: Term| term > known && term.is_of(&id.log.node, author);
        if self.acts_for(&id.log) && sys::owner_term(event).is_some_and(is_heir) {
            let _frozen = self.freeze_own_log(id.log);
            self.doubt_own_log(now, id.log);
        }
    }

    /// This node heard words of its own that its disk has lost. They may grant or seal tasks of any job that it owns: it opens its books anew once it knows them.
    pub(super) fn doubt_own_books(&mut self, now: Now) {
        let own = self.own_log();
        let owners = self.facts.owners();
        let owned = self.facts.logs().filter(|log| **log != own && owners.owner_of(log) == self.me);
        for log in owned.copied().collect::<Vec<_>>() {
            self.doubt_own_log(now, log);
        }
    }

    fn settle_later(&mut self, now: Now, log: LogId) {
        self.duties.settling.insert(log, now.mono);
        self.duties.look_due = self.duties.look_due.min(now.mono.after_ms(self.config.settle_ms));
    }

    /// Whether this node has come back and does not know yet what happened meanwhile.
    #[must_use]
    pub fn is_rejoining(&self) -> bool {
        self.duties.rejoining.is_some()
    }

    /// A node was heard.
    pub(super) fn meet(&mut self, node: NodeId) {
        if self.duties.met.len() < limits::FLEET_MAX && self.duties.met.insert(node) {
            self.outbox.notes.push(Note::Met { node });
        }
    }

    /// Whether the silence of `node` may mean that it is gone: it was met once, or an operator says so.
    fn may_be_gone(&self, node: &NodeId) -> bool {
        self.duties.met.contains(node) || self.facts.node(node).is_some_and(NodeInfo::is_forgotten)
    }

    /// What is to be expected of the jobs of `owner`.
    #[must_use]
    pub fn outlook(&self, now: Now, owner: &NodeId) -> Outlook {
        if *owner == self.me || self.fleet.health(now.mono, owner) != Health::Dead {
            return Outlook::Lives;
        }
        if !self.may_be_gone(owner) {
            return Outlook::NeverHeard;
        }
        let (live, roster) = self.seen(now);
        if live * 100 < roster * self.config.view_percent {
            return Outlook::TooFew { live, roster };
        }
        Outlook::Soon(self.config.adopt_ms.saturating_sub(self.fleet.silent_ms(now.mono, owner)))
    }

    /// After recovery: what this node owned when it went down. Others may have taken over meanwhile, so with others about it first listens.
    pub(super) fn resume_duties(&mut self, now: Now) {
        let alone = self.facts.nodes().all(|(node, _)| *node == self.me);
        let open =
            |log: &LogId| self.facts.jobs_in(log).any(|(_, job)| job.submit.as_ref().is_some() && !job.is_sealed());
        let has_work = self.facts.logs().any(|log| self.facts.owners().owner_of(log) == self.me && open(log));
        for (id, job) in self.facts.jobs_of(&self.me) {
            if let Some(submit) = job.submit.as_ref() {
                self.owner.remember_request(id, submit);
            }
        }
        if has_work && !alone {
            self.duties.rejoining = Some(Rejoining { since: now.mono, theirs: None });
        } else {
            self.take_up_all(now);
        }
    }

    /// A peer showed what it has.
    pub(super) fn on_their_tips(&mut self, theirs: &Frontier) {
        if let Some(rejoining) = &mut self.duties.rejoining {
            rejoining.theirs.get_or_insert_with(|| theirs.clone());
        }
    }

    /// Moves succession on.
    pub(super) fn succeed(&mut self, now: Now) {
        self.rejoin(now);
        if now.mono < self.duties.look_due {
            return;
        }
        self.duties.look_due = now.mono.after_ms(LOOK_MS);
        let is_pulling = self.sync.is_pulling();
        // Its own log is heard whole before it acts for it; of another's, what is missing comes when it comes. What it was about to say goes into the books too.
        let settled = |log: &LogId, since: &Mono| {
            let is_missing = (is_pulling && log.node == self.me) || self.outbox.speaks_of(log);
            // One that has just come back takes up all that it owns at once: books that are opened before it acts miss what it says meanwhile.
            self.duties.rejoining.is_none() && now.mono.since_ms(*since) >= self.config.settle_ms && !is_missing
        };
        let ready: Vec<LogId> =
            self.duties.settling.iter().filter(|(log, since)| settled(log, since)).map(|(log, _)| *log).collect();
        for log in ready {
            self.duties.settling.remove(&log);
            self.take_up(now, log);
        }
        if !self.stopping && self.disk_refusal().is_none() && self.duties.rejoining.is_none() {
            self.adopt_from_silent(now);
        }
    }

    fn rejoin(&mut self, now: Now) {
        let Some(rejoining) = &self.duties.rejoining else {
            return;
        };
        let caught_up = rejoining.theirs.as_ref().is_some_and(|theirs| self.logs.frontier().covers(theirs));
        let patience = if rejoining.theirs.is_some() { REJOIN_MS_MAX } else { self.config.suspect_ms };
        if caught_up || now.mono.since_ms(rejoining.since) >= patience {
            self.duties.rejoining = None;
            self.take_up_all(now);
        }
    }

    fn take_up_all(&mut self, now: Now) {
        let logs: Vec<LogId> =
            self.facts.logs().filter(|log| self.facts.owners().owner_of(log) == self.me).copied().collect();
        for log in logs {
            // What it adopted in an earlier life it holds still.
            self.duties.settling.remove(&log);
            self.take_up(now, log);
        }
    }

    /// Opens the books of a log's jobs.
    fn take_up(&mut self, now: Now, log: LogId) {
        self.duties.held.insert(log);
        let term = self.facts.owners().term_of(&log);
        let mut decisions = Vec::new();
        for (id, job) in self.facts.jobs_in(&log) {
            self.owner.on_job(now.mono, (id, term), job, None, &mut decisions);
        }
        self.decide(now, decisions);
        let known: Vec<JobId> = self.facts.jobs_in(&log).map(|(id, _)| id).collect();
        known.into_iter().for_each(|id| self.keep_sealed(now.mono, id));
        self.place_due = true;
    }

    /// Another node, or this one, owns the jobs of `log` now.
    pub(super) fn on_owner_changed(&mut self, now: Now, log: LogId) {
        let owner = self.facts.owners().owner_of(&log);
        self.owner.hand_over(&log);
        self.duties.held.remove(&log);
        self.duties.settling.remove(&log);
        self.duties.written.remove(&log);
        if owner == self.me {
            self.settle_later(now, log);
        } else {
            // What is submitted here from now on is this node's own again.
            let _frozen = self.freeze_own_log(log);
        }
        self.effects.push(Effect::Notice(Notice::Adopted { log, by: owner }));
    }

    fn adopt_from_silent(&mut self, now: Now) {
        let is_silent = |owner: &NodeId| {
            *owner != self.me
                && self.may_be_gone(owner)
                && self.fleet.silent_ms(now.mono, owner) >= self.config.adopt_ms
        };
        let owners = self.facts.owners();
        // Anyone may speak of jobs that nobody submitted, in logs that do not exist.
        let is_real = |log: &LogId| {
            log.epoch.0 <= EPOCH_MAX && self.facts.jobs_in(log).any(|(_, job)| job.submit.as_ref().is_some())
        };
        let orphaned: Vec<LogId> =
            self.facts.logs().filter(|log| is_silent(&owners.owner_of(log)) && is_real(log)).copied().collect();
        if orphaned.is_empty() {
            return;
        }
        let (live, roster) = self.seen(now);
        let accepts = |node: &NodeId, peer: &Peer| {
            if *node == self.me { !self.is_drained(node) } else { peer.presence.accepts }
        };
        let candidates: Vec<NodeId> =
            self.fleet.live(now.mono).filter(|(node, peer)| accepts(node, peer)).map(|(node, _)| *node).collect();
        for log in orphaned {
            let silence = Silence {
                log,
                term: self.facts.owners().term_of(&log),
                silent_ms: self.fleet.silent_ms(now.mono, &self.facts.owners().owner_of(&log)),
                adopt_ms: self.config.adopt_ms,
                candidates: &candidates,
                is_half: live * 100 >= roster * self.config.view_percent,
            };
            if let Duty::Adopt(term) = duty(&self.me, &silence) {
                self.adopt(now, log, term);
            }
        }
    }

    fn adopt(&mut self, now: Now, log: LogId, term: Term) {
        let again = |(last, at): &(Term, Mono)| *last == term && now.mono.since_ms(*at) < ADOPT_RETRY_MS;
        if self.duties.written.get(&log).is_some_and(again) {
            return;
        }
        self.duties.written.insert(log, (term, now.mono));
        let hlc = self.clock.tick(now.wall);
        self.outbox.push(sys::adopt(hlc, log, term));
    }

    /// The operator says that a node is gone for good.
    pub(super) fn forget(&mut self, now: Now, request: RequestId, node: NodeId) -> Result<Option<Reply>, CommandError> {
        let info = self.facts.node(&node).ok_or(CommandError::UnknownNode)?;
        if node == self.me || self.fleet.health(now.mono, &node) != Health::Dead {
            return Err(CommandError::NodeLives(info.name().into()));
        }
        if info.is_forgotten() {
            return Ok(Some(Reply::Noted));
        }
        self.takes_writes()?;
        let hlc = self.clock.tick(now.wall);
        self.outbox.push_for(sys::forget(hlc, node), request, Reply::Noted);
        Ok(None)
    }

    /// The operator says whether a node takes new work.
    pub(super) fn drain(
        &mut self,
        now: Now,
        request: RequestId,
        node: NodeId,
        on: bool,
        reason: &str,
    ) -> Result<Option<Reply>, CommandError> {
        let is_new = self.facts.node(&node).is_none();
        if is_new && self.fleet.peer(&node).is_none() {
            return Err(CommandError::UnknownNode);
        }
        self.takes_writes()?;
        let hlc = self.clock.tick(now.wall);
        self.outbox.push_for(sys::drain(hlc, node, on, reason), request, Reply::Noted);
        Ok(None)
    }

    /// Whether an operator said that `node` takes no new work.
    pub(super) fn is_drained(&self, node: &NodeId) -> bool {
        self.facts.node(node).is_some_and(|info| info.drain().is_some())
    }

    /// The term in which this node speaks as the owner of a job.
    pub(super) fn term_for(&self, job: &JobId) -> Term {
        self.facts.owners().term_of(&job.log)
    }
}
