//! One run: faults and work, then healing, then progress, then rest, then a crash loop.
//!
//! Source: TigerBeetle's VOPR: safety first under faults, then liveness once the network heals.

use std::collections::BTreeSet;

use starling_core::ids::{JobId, LogId, NodeId};
use starling_core::log::Frontier;
use starling_core::machine::{AckLevel, Command, Input, Outlook};
use starling_core::time::Mono;

use super::keeping::{self, Held};
use super::marks::Mark;
use super::node::name_of;
use super::options::{Options, PerMille, Sabotage, Watch};
use super::world::{Event, Seat, Totals, World};
use crate::invariant::{
    Rules, Violation, any_order, branches, convergence, crash_loop, equal_facts, facts_contain_log, live_only,
    one_gateway, sealed, survives,
};

/// Everything acknowledged must be sealed this long after healing: the longest tasks, a few retries and their back-off.
const SEAL_MS_MAX: u64 = 240_000;
/// Links must be up again this long after healing: silence, then redialling.
const RELINK_MS_MAX: u64 = 12_000;
/// Two nodes are compared this often.
const COMPARE_MS: u64 = 1_500;
/// Branches of a fork are found within this long: some rounds of anti-entropy, each looking further back.
const SEARCH_MS_MAX: u64 = 20_000;
/// Nothing may move for this long at rest.
const REST_MS: u64 = 3_000;

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The hash of everything that happened.
    pub trace: u64,
    /// What happened, counted.
    pub totals: Totals,
    /// The first broken rule.
    pub failure: Option<Failure>,
}

/// A broken rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which, and what was seen.
    pub violation: Violation,
    /// In virtual time.
    pub at_ms: u64,
    /// The last lines of the trace, if they were asked for.
    pub lines: Vec<String>,
}

/// Runs it to its end, or to the first broken rule.
#[must_use]
pub fn run(options: Options) -> Outcome {
    let mut world = World::new(options);
    world.safety();
    if world.options.watch == Watch::Close {
        world.liveness();
    }
    let extra: Vec<u32> = world.processes.starts().map(|(_, starts)| starts.extra(1)).collect();
    extra.iter().filter(|extra| **extra > 0).for_each(|_| world.mark(Mark::ExtraStart));
    world.totals.extra_starts = world.processes.starts().map(|(_, starts)| u64::from(starts.extra(1))).sum();
    let claims = world.machines().filter_map(|(_, machine)| machine.facts().gateway().claim());
    world.totals.terms = claims.map(|claim| claim.term.0).max().unwrap_or(0);
    let at_ms = world.now.0;
    let lines = world.trace.take_lines();
    let failure = world.violation.take().map(|violation| Failure { violation, at_ms, lines });
    Outcome { trace: world.trace.hash(), totals: world.totals, failure }
}

impl World {
    fn safety(&mut self) {
        let end = Mono(self.options.safety_ms);
        while self.now < end && self.violation.is_none() {
            self.run_until(end.min(self.now.after_ms(COMPARE_MS)));
            if self.options.watch == Watch::Close {
                self.compare();
            }
        }
    }

    /// Looks closely at one node, and at all pairs with equal frontiers.
    fn compare(&mut self) {
        let seat = self.pick();
        self.look_inside(seat);
        self.look_across();
        self.look_at_gateways();
        self.look_at_owners();
    }

    /// Logs that were adopted, two nodes that act for one, and whether these hear each other.
    fn look_at_owners(&mut self) {
        // Where packets are lost or held back, and where a disk takes no writes, news may take longer.
        if self.faults.loss > PerMille(0) || self.faults.reorder > PerMille(0) {
            return;
        }
        let acts = |world: &Self, seat: Seat, log: &LogId| {
            let node = world.node(seat);
            let awake = node.paused_until <= world.now && node.disk.full_until <= world.now;
            awake && node.machine.as_ref().is_some_and(|machine| machine.acts_for(log))
        };
        let owners = self.machines().flat_map(|(_, machine)| machine.facts().owners().iter());
        let logs: BTreeSet<LogId> = owners.map(|(log, _)| *log).collect();
        let mut pairs = BTreeSet::new();
        for log in logs {
            let acting: Vec<Seat> = self.seats().filter(|seat| acts(self, *seat, &log)).collect();
            for (index, a) in acting.iter().enumerate() {
                let heard = acting[index + 1..].iter().filter(|b| self.is_linked(*a, **b));
                pairs.extend(heard.map(|b| (log, *a, *b)));
            }
        }
        let found = self.rules.one_owner.look_at_pairs(self.now, &pairs);
        self.broken(found);
    }

    /// Who acts, whom they can reach, and whether two of them hear each other.
    pub(crate) fn look_at_gateways(&mut self) {
        if self.options.sabotage.is_of_succession() || self.options.watch != Watch::Close {
            return;
        }
        let acts = |world: &Self, seat: Seat| {
            let node = world.node(seat);
            let awake = node.paused_until <= world.now;
            awake && node.machine.as_ref().is_some_and(|machine| machine.election().standing().acting().is_some())
        };
        let (acting, idle): (Vec<Seat>, Vec<Seat>) = self.seats().partition(|seat| acts(self, *seat));
        for seat in idle {
            self.rules.one_gateway.forgive(seat);
        }
        for (index, seat) in acting.iter().enumerate() {
            let others: Vec<(Seat, bool)> =
                self.seats().filter(|other| other != seat).map(|other| (other, self.is_linked(*seat, other))).collect();
            let roster = self.node(*seat).machine.as_ref().map_or(0, one_gateway::members);
            let found = self.rules.one_gateway.look_at_reach(self.now, *seat, others.into_iter(), roster);
            self.broken(found);
            for other in &acting[index + 1..] {
                // Where packets are lost or held back a claim may take longer.
                let prompt = self.faults.loss == PerMille(0) && self.faults.reorder == PerMille(0);
                let hear = prompt && self.is_linked(*seat, *other);
                let found = self.rules.one_gateway.look_at_two(self.now, *seat, *other, hear);
                self.broken(found);
            }
        }
    }

    fn look_inside(&mut self, seat: Seat) {
        let node = &self.nodes[seat.0];
        // An old version's Facts lack what it does not understand.
        let Some(machine) = node.machine.as_ref().filter(|_| !node.old) else {
            return;
        };
        let found = facts_contain_log::look(seat, machine.facts(), machine.frontier(), &self.rules.library);
        let Rules { one_writer, extra_starts, stable_seals, stays_retired, .. } = &mut self.rules;
        let excused = |job: &JobId| extra_starts.involves(job, |node| one_writer.may_fork(node));
        let found = found.or_else(|| stable_seals.look(machine.facts(), excused));
        let found = found.or_else(|| stays_retired.look(seat, machine.facts()));
        self.broken(found);
    }

    fn look_across(&mut self) {
        let machines = self.nodes.iter_mut().filter(|node| !node.old).filter_map(|node| node.machine.as_mut());
        let found = equal_facts::look(machines);
        self.broken(found);
    }

    fn liveness(&mut self) {
        if self.violation.is_some() {
            return;
        }
        self.quieten();
        self.heal();
        let end = self.now.after_ms(RELINK_MS_MAX);
        while !self.all_linked() && self.now < end && self.violation.is_none() {
            self.run_until(self.now.after_ms(100));
        }
        // Of what is acknowledged later only the seals are looked at: it may be on its way still.
        let (held, acknowledged) = (self.held_somewhere(), self.must_survive());
        let end = self.now.after_ms(convergence::MS_MAX + self.search_ms());
        while !self.all_hold(&held) && self.now < end && self.violation.is_none() {
            self.run_until(self.now.after_ms(100));
        }
        let found = convergence::look(self.machines(), &held);
        let found = found.or_else(|| survives::look(self.current(), &acknowledged));
        self.broken(found);
        let end = self.now.after_ms(SEAL_MS_MAX);
        while !self.is_done() && self.now < end && self.violation.is_none() {
            self.run_until(self.now.after_ms(500));
            self.tell_of_the_gone();
        }
        let found = sealed::look(self.current(), &self.promised());
        self.broken(found);
        self.rest();
        self.look_at_size();
        self.crash_loop();
    }

    /// Of a node that is gone for ever, all who ever heard it may have lost their notes of that: then the operator says so.
    fn tell_of_the_gone(&mut self) {
        let gone: Vec<NodeId> = self.nodes.iter().filter(|node| node.gone).map(|node| node.id).collect();
        for id in gone {
            let unheard = |(seat, machine): (Seat, &starling_core::machine::Machine)| {
                machine.outlook(self.node(seat).clock(self.now), &id) == Outlook::NeverHeard
            };
            if self.current().all(unheard) {
                let request = self.clients.request(Seat(0));
                self.step(Seat(0), Input::Command { request, command: Command::Forget(id) });
            }
        }
    }

    pub(crate) fn machines(&self) -> impl Iterator<Item = (Seat, &starling_core::machine::Machine)> {
        self.nodes.iter().enumerate().filter_map(|(seat, node)| Some((Seat(seat), node.machine.as_ref()?)))
    }

    /// Those of the newest version, which is all of them once upgrades are done.
    fn current(&self) -> impl Iterator<Item = (Seat, &starling_core::machine::Machine)> {
        self.machines().filter(|(seat, _)| !self.node(*seat).old)
    }

    /// Everything that any node holds durably.
    fn held_somewhere(&self) -> Vec<Frontier> {
        self.machines().map(|(_, machine)| machine.frontier().clone()).collect()
    }

    fn all_hold(&self, held: &[Frontier]) -> bool {
        convergence::look(self.machines(), held).is_none() && self.branches().is_none() && self.agree_on_forks()
    }

    /// Whether all frontiers show the same of logs with several histories, also of what snapshots took the place of.
    fn agree_on_forks(&self) -> bool {
        let tips = |log: &LogId| self.machines().map(|(_, machine)| machine.frontier().tip(log)).collect::<Vec<_>>();
        self.rules.library.forked().all(|log| tips(log).windows(2).all(|pair| pair[0] == pair[1]))
    }

    /// How much longer it may take where authors contradicted themselves.
    fn search_ms(&self) -> u64 {
        if self.rules.library.forked().next().is_some() { SEARCH_MS_MAX } else { 0 }
    }

    fn is_done(&self) -> bool {
        let sealed = sealed::look(self.current(), &self.promised()).is_none() && self.processes.is_idle();
        let honest = |node: &NodeId| self.by_id.contains_key(node);
        let is_small = |(seat, machine): (Seat, &starling_core::machine::Machine)| {
            machine.retained() == 0 && live_only::look(seat, machine.facts(), honest).is_none()
        };
        // Whoever took over jobs that were sealed already retires them too.
        sealed && self.all_inherited() && (self.options.keep.retain_ms.is_none() || self.current().all(is_small))
    }

    /// Whether the jobs of nodes that are lost for ever belong to others everywhere, and those act for them and have said what follows: until then somebody has yet
    /// to take them over, and may seal what nobody waits for.
    fn all_inherited(&self) -> bool {
        let gone: Vec<NodeId> = self.nodes.iter().filter(|node| node.gone).map(|node| node.id).collect();
        self.current().all(|(seat, machine)| {
            let (facts, me) = (machine.facts(), self.node(seat).id);
            let mut jobs = facts.jobs().filter(|(_, job)| job.submit.as_ref().is_some());
            let is_settled = |log: &LogId| match facts.owners().owner_of(log) {
                owner if owner == me => machine.acts_for(log),
                owner => !gone.contains(&owner),
            };
            machine.has_told_all() && jobs.all(|(id, _)| is_settled(&id.log))
        })
    }

    /// Jobs that were acknowledged, and those that became durable although nobody could be told.
    fn promised(&self) -> BTreeSet<JobId> {
        let honest = |id: &JobId| self.by_id.contains_key(&id.log.node);
        let durable = self.machines().flat_map(|(_, machine)| machine.facts().jobs());
        let durable = durable.filter(|(id, job)| honest(id) && job.submit.as_ref().is_some()).map(|(id, _)| id);
        // What asks for a node that is gone for ever waits for ever.
        let names: Vec<String> = self.seats().filter(|seat| self.node(*seat).gone).map(name_of).collect();
        let waits = |id: &JobId| {
            let submit = self.machines().find_map(|(_, machine)| machine.facts().job(id)?.submit.as_ref());
            submit.and_then(|submit| submit.wishes().node).is_some_and(|name| names.contains(&name.to_string()))
        };
        let all = durable.chain(self.must_survive().into_iter().map(|(job, _)| job));
        all.filter(|id| names.is_empty() || !waits(id)).collect()
    }

    /// Jobs that were acknowledged, but for those of which disks have lost too many copies.
    fn must_survive(&self) -> Vec<(JobId, AckLevel)> {
        let acked = self.clients.acked.iter().map(|(job, level)| (*job, *level));
        acked.filter(|(job, level)| self.rules.survives.must(job, *level)).collect()
    }

    /// No log has several histories, or all disks hold them all.
    fn branches(&self) -> Option<Violation> {
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes.filter_map(|(seat, node)| Some((Seat(seat), node.machine.as_ref()?, &node.disk)));
        branches::look(nodes, &self.rules.library)
    }

    /// Nothing is left to do: all frontiers become and stay equal, all Facts are equal, and they are the fold of the log.
    fn rest(&mut self) {
        let end = self.now.after_ms(convergence::MS_MAX + self.search_ms());
        let mut still_since = self.now;
        let mut last = None;
        while self.violation.is_none() && self.now < end.after_ms(REST_MS) {
            let digests: Vec<u64> = self.machines().map(|(_, machine)| machine.frontier().digest()).collect();
            let equal = digests.windows(2).all(|pair| pair[0] == pair[1]);
            if !equal || last != digests.first().copied() {
                still_since = self.now;
            }
            last = digests.first().copied();
            // A node that has just begun to listen takes no empty seat yet.
            if self.now.since_ms(still_since) >= REST_MS && self.gateway_settled().is_none() {
                break;
            }
            self.run_until(self.now.after_ms(100));
        }
        let held = self.held_somewhere();
        let found = convergence::look(self.machines(), &held).or_else(|| self.branches());
        self.broken(found);
        for seat in self.seats().collect::<Vec<_>>() {
            self.look_inside(seat);
        }
        self.look_across();
        let found = self.gateway_settled();
        self.broken(found);
        let found = equal_facts::all_equal(self.machines(), if self.was_mixed { 20 } else { 4 });
        self.broken(found);
        for seat in self.seats().collect::<Vec<_>>() {
            self.replay(seat);
        }
    }

    fn gateway_settled(&self) -> Option<Violation> {
        let disturbed = self.options.faults.disturb() || self.options.sabotage == Sabotage::NoFence;
        one_gateway::settled(self.current(), disturbed)
    }

    /// Everything is sealed, and was long ago.
    fn look_at_size(&mut self) {
        if self.options.keep.retain_ms.is_none() {
            return;
        }
        let honest = |node: &NodeId| self.by_id.contains_key(node);
        let found = self.current().find_map(|(seat, machine)| live_only::look(seat, machine.facts(), honest));
        self.broken(found);
    }

    /// The log in any order, folded in two parts that are joined, gives the same Facts.
    fn replay(&mut self, seat: Seat) {
        let registry = match self.options.sabotage {
            Sabotage::OldReplay => super::relays::old_registry(),
            _ => self.registry(seat),
        };
        let held = self.replay_held(seat);
        let (early, late) = held.split_at(held.len() / 2);
        let facts = |held: &[Held]| keeping::facts_of(held.iter(), &self.cluster, &registry);
        let parts = (facts(early), facts(late));
        let node = &mut self.nodes[seat.0];
        let Some(machine) = node.machine.as_mut() else {
            return;
        };
        let (root, frontier) = (machine.root(), machine.frontier());
        let found = any_order::look(seat, (root, frontier), node.disk.records(), parts, &registry, &mut self.rng);
        self.broken(found);
    }

    /// A node that is not the gateway, which has something to do, and another may claim its seat; nor one whose disk lost records, and which may have tasks
    /// to report lost still.
    fn pick_idle(&mut self) -> Option<Seat> {
        let claim = self.machines().find_map(|(_, machine)| machine.facts().gateway().claim().copied());
        let (first, count) = (self.pick(), self.nodes.len());
        let idle = |seat: &Seat| {
            let id = self.node(*seat).id;
            self.node(*seat).machine.is_some()
                && claim.is_none_or(|claim| claim.node != id)
                && !self.rules.one_writer.may_fork(&id)
        };
        (0..count).map(|step| Seat((first.0 + step) % count)).find(idle)
    }

    /// One node crashes and starts again, three times, with nothing to do.
    fn crash_loop(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let Some(seat) = self.pick_idle() else {
            return;
        };
        let id = self.node(seat).id;
        let before = (self.node(seat).disk.own_events(&id), self.held_somewhere());
        for round in 0..3 {
            self.crash(seat, super::process::Crash::Machine);
            self.after(200, Event::Restart(seat));
            self.run_until(self.now.after_ms(2_000));
            if self.options.sabotage == Sabotage::WorkInCrashLoop && round == 1 {
                self.submit_at(seat);
            }
        }
        self.run_until(self.now.after_ms(5_000));
        let after = (self.node(seat).disk.own_events(&id), self.held_somewhere());
        let found = crash_loop::look(seat, &before, &after);
        self.broken(found);
    }
}
