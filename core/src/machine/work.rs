//! Work: carrying out what the owner decides and what the executor admits.
//!
//! Invariants: an offer goes out only after its grant is in the log; a task starts only after its acceptance is on disk. A grant to oneself needs no note of
//! acceptance: the grant in one's own log is one.

use super::Machine;
use super::io::{Assignment, Effect, Errand, Spawn, Work};
use super::note::Note;
use crate::event::Event;
use crate::facts::{Handler, Outcome, Run, Submit, Usage};
use crate::ids::{Dot, GrantId, JobId, NodeId, RunId, Seat};
use crate::limits;
use crate::namespace::{Voice, batch, is_submission, simulation, sys};
use crate::schedule::{Candidate, Decision, Ended, Health, Offer, RelaySlots, Verdict};
use crate::sync::Message;
use crate::time::{Mono, Now};

/// How long an offer waits for its job's submission. After that it is refused: the submission may be of a kind that this version does not know.
const PARK_MS: u64 = 5_000;

/// The answer to an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    Refused,
}

impl Machine {
    /// A fold changed a job: owner, executor and waiting clients look again.
    pub(super) fn on_job_touched(&mut self, now: Now, dot: Dot, id: JobId, event: &Event) {
        if is_submission(event) && self.has_misread(&id) {
            self.doubt_own_log(now, id.log);
        }
        self.heed_heir(now, &dot.log.node, &id, event);
        let Some(job) = self.facts.job(&id) else {
            return;
        };
        let is_mine = self.acts_for(&id.log);
        if id.log.node == self.me && job.submit.as_ref().is_some() {
            // Names on the screen do not tell epochs apart.
            self.next_job = self.next_job.max(id.no.0.saturating_add(1));
        }
        if is_mine {
            let mut decisions = Vec::new();
            let term = self.facts.owners().term_of(&id.log);
            self.owner.on_job(now.mono, (id, term), job, event.ctx.grant, &mut decisions);
            self.decide(now, decisions);
            self.place_due = true;
        } else {
            self.note_duty(now, id.log);
        }
        let grant = event.ctx.grant.map(|no| GrantId { job: id, no });
        if is_submission(event) {
            if dot.log.node == self.me {
                self.on_submission_durable(dot, id);
            }
            // One that came after its seals, as a log that others bring back may.
            self.keep_sealed(now.mono, id);
            self.unpark(now, &id);
        }
        match (event.ns.as_str(), event.kind.as_str(), grant) {
            (sys::NAME, sys::SEAL, _) => self.keep_sealed(now.mono, id),
            (sys::NAME, "Grant", Some(grant)) if is_mine => {
                self.owner.on_granted(now.mono, grant);
            }
            (sys::NAME, "Void", Some(grant)) => self.executor.on_void(grant),
            (sys::NAME, "Cancel", _) => {
                let (kills, dropped) = self.executor.on_cancel(&id);
                self.effects.extend(kills.into_iter().map(Effect::Kill));
                dropped.into_iter().for_each(|ended| self.report(ended));
            }
            _ => {}
        }
    }

    pub(super) fn decide(&mut self, now: Now, decisions: Vec<Decision>) {
        for decision in decisions {
            match decision {
                Decision::Grant { grant, seat, attempt, tasks } => {
                    let hlc = self.clock.tick(now.wall);
                    self.outbox.push(sys::grant(hlc, grant, &seat, attempt, tasks));
                }
                Decision::Void(grant) => {
                    let hlc = self.clock.tick(now.wall);
                    let term = self.term_for(&grant.job);
                    self.outbox.push(sys::void(hlc, grant, term));
                }
                Decision::Seal { job, tasks, outcome } => {
                    self.outbox.awaited |= self.is_single(&job);
                    self.outbox.push_seal(job, self.term_for(&job), &tasks, outcome);
                }
            }
        }
    }

    /// Everything that may have become possible: retries, deaths, placement, offers, starts.
    pub(super) fn settle(&mut self, now: Now) {
        self.give_up_parked(now);
        self.owner.on_time(now.mono);
        let dead: Vec<NodeId> =
            self.owner.executors().filter(|node| self.fleet.health(now.mono, node) == Health::Dead).copied().collect();
        for node in dead {
            // This node itself is alive whatever its own presence says.
            if node != self.me {
                let mut decisions = Vec::new();
                self.owner.on_dead(now.mono, &node, &mut decisions);
                self.decide(now, decisions);
                self.effects.push(Effect::Notice(super::Notice::NodeDead(node)));
                self.place_due = true;
            }
        }
        if self.place_due && self.owner.has_waiting() && !self.stopping {
            self.place(now);
        }
        self.place_due = false;
        for pending in self.owner.offers_due(now.mono, self.config.offer_retry_ms) {
            let Seat { node, pool } = pending.seat;
            let offer = Offer { grant: pending.grant, attempt: pending.attempt, tasks: pending.tasks, pool };
            if node == self.me {
                self.on_offer(now, self.me, offer);
            } else if self.sync.is_linked(&node) {
                self.effects.push(Effect::Send { to: node, message: Message::Offer(offer) });
            }
        }
        self.effects.extend(self.executor.overdue(now.mono).into_iter().map(Effect::Kill));
        if !self.stopping {
            self.start_tasks(now);
        }
    }

    fn place(&mut self, now: Now) {
        self.owner.on_room(Seat::machine(self.me), self.executor.total(), self.executor.free());
        self.owner.on_pools(self.me, &self.executor.pools());
        let usable = |node: &NodeId| *node == self.me || self.sync.is_linked(node);
        let claim = self.facts.gateway().claim();
        let mut candidates: Vec<Candidate> = Vec::new();
        for (node, peer) in self
            .fleet
            .live(now.mono)
            .filter(|(node, peer)| usable(node) && peer.presence.accepts && !self.is_drained(node))
        {
            candidates.push(Candidate::machine(*node, &peer.presence));
            // Only the node whose claim counts: one that was superseded and does not know it yet gets nothing.
            let acting =
                if *node == self.me { self.election.standing().acting() } else { peer.presence.gateway.acting };
            if claim.is_some_and(|claim| claim.node == *node && Some(claim.term) == acting) {
                let pools = &peer.presence.gateway.pools;
                candidates.extend(pools.iter().map(|pool| Candidate::pool(*node, pool)));
            }
        }
        let mut decisions = Vec::new();
        self.owner.place(now.mono, &self.me, &candidates, &mut decisions);
        self.decide(now, decisions);
    }

    fn start_tasks(&mut self, now: Now) {
        for start in self.executor.pump(now.mono) {
            let submit = &start.submit;
            self.outbox.push_started(start.grant, Voice::of(submit), start.task, start.worker.as_ref());
            let spec = submit.spec();
            let launch = || batch::launch(&spec, start.task, &self.me);
            let work = match (submit.handler(), start.worker) {
                (Handler::Process, None) => Work::Process(launch().in_container()),
                (Handler::Process, Some(worker)) => {
                    let (name, need) = (submit.name.clone(), submit.need);
                    Work::Worker(Box::new(Errand { worker, name, launch: launch(), need }))
                }
                (Handler::Pair, _) => Work::Pair(Box::new(simulation::pair(&spec, start.task, &self.me))),
                (Handler::Relay, _) => {
                    let (ns, priority) = (submit.ns.clone(), submit.priority);
                    Work::Relay(Box::new(Assignment { ns, priority, spec }))
                }
            };
            self.effects.push(Effect::Spawn(Box::new(Spawn {
                run: start.run,
                grant: start.grant,
                task: start.task,
                attempt: start.attempt.0,
                work,
            })));
        }
    }

    pub(super) fn on_task_ended(&mut self, run: RunId, outcome: Outcome, usage: Usage) {
        if let Some(ended) = self.executor.on_ended(run, outcome, usage) {
            self.report(ended);
            self.place_due = true;
        }
    }

    pub(super) fn on_port_opened(&mut self, now: Now, run: RunId, port: u16, host: &str) {
        // A run that is over by now has said all that counts.
        if let Some((grant, task, voice)) = self.executor.run(&run)
            && !self.knows_port(&grant, task)
        {
            let hlc = self.clock.tick(now.wall);
            self.outbox.push(voice.port_allocated(hlc, grant, task, port, host));
        }
    }

    /// Whether this node has told where the task's environment listens: after a restart it hears of it again.
    fn knows_port(&self, grant: &GrantId, task: u32) -> bool {
        let job = self.facts.job(&grant.job);
        let run = job.and_then(|job| job.grants.lookup(&grant.no)).and_then(|grant| grant.run_by(&self.me));
        run.is_some_and(|run| run.port(task).is_some())
    }

    /// What relays here serve has changed. Tasks that wait for one that is gone go back to their owners.
    pub(super) fn on_relays(&mut self, relays: Vec<RelaySlots>) {
        for ended in self.executor.set_relays(relays) {
            self.report(ended);
        }
        // Owners should hear of it before the next second.
        self.about.next_presence = Mono::default();
        self.place_due = true;
    }

    pub(super) fn is_single(&self, job: &JobId) -> bool {
        let submit = self.facts.job(job).and_then(|job| job.submit.as_ref());
        submit.is_some_and(|submit| submit.tasks.len() == 1)
    }

    pub(super) fn report(&mut self, ended: Ended) {
        self.outbox.awaited |= self.is_single(&ended.grant.job);
        self.outbox.push_finished(ended);
    }

    /// An owner asks this node to run tasks.
    pub(super) fn on_offer(&mut self, now: Now, from: NodeId, offer: Offer) {
        // Only the owner may grant. One whose adoption has not been heard of here asks again.
        if self.facts.owner_of(&offer.grant.job) != from {
            return;
        }
        let Some(job) = self.facts.job(&offer.grant.job) else {
            if self.facts.is_retired(&offer.grant.job) {
                return self.answer_offer(now, from, offer.grant, Answer::Refused);
            }
            return self.park(now, from, offer);
        };
        // A snapshot of a newer version may tell of jobs of which this one could report nothing.
        let Some(submit) = job.submit.as_ref().filter(|submit| self.speaks_of(submit)) else {
            return self.park(now, from, offer);
        };
        let is_over = self.executor.is_over(&offer.grant);
        match self.executor.knows(&offer.grant) {
            Some(true) if !is_over => return self.answer_offer(now, from, offer.grant, Answer::Accepted),
            Some(false) => return,
            Some(true) | None => {}
        }
        // Only what this node has told is known by now. The owner asks again.
        if self.outbox.reports_on(&offer.grant) {
            return;
        }
        let known = job.grants.lookup(&offer.grant.no);
        let is_void = known.is_some_and(|grant| grant.void);
        let withdrawn = is_void || job.cancel.0.is_some();
        let run = known.and_then(|grant| grant.run_by(&self.me));
        if is_over || run.is_some() {
            // It was accepted before, perhaps in another life of this node, which may remember some of its tasks only. What has not ended by now never will.
            let mut lost = offer.tasks.difference(&run.map(Run::all_ended).unwrap_or_default());
            lost.subtract(&job.sealed_tasks());
            if !lost.is_empty() && !is_void {
                let (grant, voice, usage) = (offer.grant, Voice::of(submit), Usage::default());
                self.report(Ended { grant, voice, tasks: lost, outcome: Outcome::Lost, usage });
            }
            return self.answer_offer(now, from, offer.grant, Answer::Accepted);
        }
        if withdrawn || self.stopping || self.disk_refusal().is_some() || self.is_drained(&self.me) {
            self.executor.refuse(offer.grant);
            return self.answer_offer(now, from, offer.grant, Answer::Refused);
        }
        // Unless this node's log has lost it, and another owner has it still.
        let is_in_log = known.is_some_and(|grant| grant.placed.as_ref().is_some());
        match self.executor.consider(&offer, submit) {
            Verdict::Accept if is_in_log && offer.grant.no.term.is_of(&offer.grant.job.log.node, &self.me) => {
                if let Some(lost) = self.executor.on_durable(&offer.grant) {
                    self.report(lost);
                }
                self.answer_offer(now, from, offer.grant, Answer::Accepted);
            }
            Verdict::Accept => {
                self.accepting.insert(offer.grant, from);
                let Offer { grant, attempt, tasks, pool } = offer;
                self.outbox.notes.push(Note::Accepted { grant, tasks, attempt: Some(attempt), pool });
            }
            Verdict::Held(true) => self.answer_offer(now, from, offer.grant, Answer::Accepted),
            Verdict::Held(false) => {}
            Verdict::Refuse => self.answer_offer(now, from, offer.grant, Answer::Refused),
        }
    }

    /// Whether this node understands its own reports of such a job.
    fn speaks_of(&self, submit: &Submit) -> bool {
        let declared = |hash| self.facts.declarations().by_hash(&hash).is_some();
        self.registry.namespace(&submit.ns).is_some() || submit.schema().is_some_and(declared)
    }

    fn park(&mut self, now: Now, from: NodeId, offer: Offer) {
        if self.parked.iter().any(|(_, _, parked)| parked.grant == offer.grant) {
            return;
        }
        while self.parked.len() >= limits::PARKED_OFFERS_MAX {
            self.parked.pop_front();
        }
        let log = offer.grant.job.log;
        self.parked.push_back((now.mono, from, offer));
        self.pull_missing(now, from, log);
    }

    /// Refuses offers whose submission did not come.
    fn give_up_parked(&mut self, now: Now) {
        while let Some((_, from, offer)) =
            self.parked.pop_front_if(|(since, _, _)| now.mono.since_ms(*since) >= PARK_MS)
        {
            self.executor.refuse(offer.grant);
            self.answer_offer(now, from, offer.grant, Answer::Refused);
        }
    }

    fn unpark(&mut self, now: Now, job: &JobId) {
        if self.parked.is_empty() {
            return;
        }
        let (ready, rest): (Vec<_>, Vec<_>) =
            core::mem::take(&mut self.parked).into_iter().partition(|(_, _, offer)| offer.grant.job == *job);
        self.parked = rest.into();
        for (_, from, offer) in ready {
            self.on_offer(now, from, offer);
        }
    }

    pub(super) fn answer_offer(&mut self, now: Now, owner: NodeId, grant: GrantId, answer: Answer) {
        let accepted = answer == Answer::Accepted;
        if owner != self.me {
            let message = Message::OfferReply { grant, accepted, free: self.executor.free() };
            self.effects.push(Effect::Send { to: owner, message });
            return;
        }
        if accepted {
            self.owner.on_accepted(&owner, &grant);
        } else {
            self.refused_by(now, self.me, grant);
        }
    }

    /// The executor `by` answered an offer.
    pub(super) fn on_offer_reply(
        &mut self,
        now: Now,
        by: NodeId,
        grant: GrantId,
        accepted: bool,
        free: crate::resources::Resources,
    ) {
        if !self.acts_for(&grant.job.log) {
            return;
        }
        if accepted {
            self.owner.on_accepted(&by, &grant);
        } else {
            self.refused_by(now, by, grant);
        }
        if let Some(peer) = self.fleet.peer(&by) {
            let total = peer.presence.total;
            self.owner.on_room(Seat::machine(by), total, free);
        }
        self.place_due = true;
    }

    fn refused_by(&mut self, now: Now, by: NodeId, grant: GrantId) {
        let mut decisions = Vec::new();
        self.owner.on_refused(&by, grant, &mut decisions);
        self.decide(now, decisions);
        self.place_due = true;
    }
}
