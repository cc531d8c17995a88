//! The gateway: this node's part in its election, its workers, and their tokens.
//!
//! Invariants: only a node that acts has workers; one that stops acting has none at once, and its workers' tasks are lost to it, so that their owners place them
//! anew; every node takes the same claim for the one that counts, whatever it believes of its holder.

use super::Machine;
use super::io::{CommandError, Effect, Notice, Reply};
use crate::election::{self, Holder, Step, View, Why};
use crate::facts::Claim;
use crate::ids::{Hash, NodeId, RequestId};
use crate::limits;
use crate::namespace::sys;
use crate::schedule::{Gatewayship, Health, Peer, Worker};
use crate::time::{Mono, Now};

/// A node that does not act looks this often.
const ELECT_MS: u64 = 100;

/// What this node sees of the election at one moment.
struct Sight {
    me: NodeId,
    willing: bool,
    claim: Option<Claim>,
    holder_gone: bool,
    candidates: Vec<NodeId>,
    live: usize,
    roster: usize,
    percent: usize,
}

impl Sight {
    fn view(&self) -> View<'_> {
        View {
            me: self.me,
            willing: self.willing,
            claim: self.claim.as_ref(),
            holder_gone: self.holder_gone,
            candidates: &self.candidates,
            live: self.live,
            roster: self.roster,
            percent: self.percent,
        }
    }
}

impl Machine {
    /// Why the gateway is where it is, or why there is none, as far as this node sees.
    #[must_use]
    pub fn explain_gateway(&self, now: Now) -> Why {
        let sight = self.sight(now);
        let peer = |claim: Claim| self.fleet.peer(&claim.node);
        let holder = match sight.claim {
            Some(claim) if claim.node == self.me => Holder::Me(self.election.standing()),
            Some(claim) => peer(claim).map_or(Holder::Unheard, |Peer { presence, heard, .. }| Holder::Heard {
                silent_ms: now.mono.since_ms(*heard),
                willing: presence.gateway.willing,
                acting: presence.gateway.acting,
            }),
            None => Holder::Unheard,
        };
        election::explain(&sight.view(), holder)
    }

    /// Moves this node's part in the election on.
    pub(super) fn elect(&mut self, now: Now) {
        let before = self.election.standing();
        let is_due = self.election.next_deadline().is_some_and(|due| due <= now.mono) || now.mono >= self.elect_due;
        // Looking costs a walk over the fleet. Who acts looks at every step: it must not be the last to know.
        if !is_due && before.acting().is_none() {
            return;
        }
        self.elect_due = now.mono.after_ms(ELECT_MS);
        let sight = self.sight(now);
        match self.election.step(now.mono, &sight.view()) {
            Some(Step::Claim(term)) => {
                let hlc = self.clock.tick(now.wall);
                self.outbox.push(sys::claim_gateway(hlc, term));
            }
            Some(Step::StandDown) => self.on_workers(Vec::new()),
            Some(Step::Act(_)) | None => {}
        }
        let standing = self.election.standing();
        if standing != before {
            // Others should hear of it before the next second.
            self.about.next_presence = Mono::default();
            self.effects.push(Effect::Notice(Notice::Gateway(standing)));
        }
    }

    fn sight(&self, now: Now) -> Sight {
        let willing = self.is_willing();
        let would = |(node, peer): &(&NodeId, &Peer)| {
            if **node == self.me { willing } else { peer.presence.gateway.willing }
        };
        let (live, roster) = self.seen(now);
        Sight {
            me: self.me,
            willing,
            claim: self.facts.gateway().claim().copied(),
            holder_gone: self.holder_gone(now.mono),
            candidates: self.fleet.live(now.mono).filter(would).map(|(node, _)| *node).collect(),
            live,
            roster,
            percent: self.config.view_percent,
        }
    }

    /// How many members seem alive, and of how many.
    ///
    /// A node enters the roster with the first event that it writes. One that was heard and has written nothing is a member like others: were it left out, the two
    /// parts of three nodes of which two have written something would each see half, and if only the gateway had written, nobody could take its place.
    ///
    /// One that the operator said is gone for good counts again once it is heard.
    pub(super) fn seen(&self, now: Now) -> (usize, usize) {
        let live = self.fleet.live(now.mono).count();
        let is_live = |node: &NodeId| self.fleet.health(now.mono, node) == Health::Live;
        let listed = self.facts.nodes().filter(|(node, info)| !info.is_forgotten() || is_live(node)).count();
        let unlisted = self.fleet.peers().filter(|(node, _)| self.facts.node(node).is_none()).count();
        (live, listed + unlisted)
    }

    fn is_willing(&self) -> bool {
        self.config.gateway && !self.stopping && self.disk_refusal().is_none()
    }

    /// Whether nobody serves, as far as this node can tell. One that has only just begun to listen cannot.
    fn holder_gone(&self, now: Mono) -> bool {
        if !self.fleet.has_listened(now) {
            return false;
        }
        let Some(claim) = self.facts.gateway().claim() else {
            return true;
        };
        if claim.node == self.me {
            return !self.is_willing();
        }
        let silent_for = |peer: &Peer| now.since_ms(peer.heard);
        let Some(peer) = self.fleet.peer(&claim.node) else {
            // Links may take longer to come up than a live node is silent.
            return self.fleet.health(now, &claim.node) == Health::Dead;
        };
        let cut_off = !self.sync.is_linked(&claim.node) && silent_for(peer) >= self.config.gateway_gone_ms;
        cut_off || self.fleet.health(now, &claim.node) != Health::Live || !peer.presence.gateway.willing
    }

    /// The workers are these now. Tasks of those that are gone go back to their owners.
    pub(super) fn on_workers(&mut self, mut workers: Vec<Worker>) {
        if self.election.standing().acting().is_none() {
            workers.clear();
        }
        workers.truncate(limits::WORKERS_MAX);
        let before = self.executor.pools();
        let (lost, ended) = self.executor.set_workers(workers);
        self.effects.extend(lost.into_iter().map(Effect::Kill));
        ended.into_iter().for_each(|ended| self.report(ended));
        if self.executor.pools() != before {
            self.about.next_presence = Mono::default();
        }
        self.place_due = true;
    }

    /// What presence tells of it.
    pub(super) fn gatewayship(&self) -> Gatewayship {
        Gatewayship {
            willing: self.is_willing(),
            acting: self.election.standing().acting(),
            pools: self.executor.pools(),
            workers: u32::try_from(self.executor.worker_count()).unwrap_or(u32::MAX),
            listens: self.about.workers.clone(),
        }
    }

    pub(super) fn add_token(
        &mut self,
        now: Now,
        request: RequestId,
        hash: Hash,
        name: &str,
    ) -> Result<Option<Reply>, CommandError> {
        let tokens = &self.facts.gateway().tokens;
        if tokens.get(&hash).is_some_and(|token| token.added.0.is_some()) {
            return Ok(Some(Reply::Noted));
        }
        if tokens.len() >= limits::TOKENS_MAX {
            return Err(CommandError::TooManyTokens(tokens.len()));
        }
        self.takes_writes()?;
        let hlc = self.clock.tick(now.wall);
        self.outbox.push_for(sys::add_token(hlc, hash, name), request, Reply::Noted);
        Ok(None)
    }

    pub(super) fn revoke_token(
        &mut self,
        now: Now,
        request: RequestId,
        hash: Hash,
    ) -> Result<Option<Reply>, CommandError> {
        let token = self.facts.gateway().tokens.get(&hash).ok_or(CommandError::UnknownToken)?;
        if token.revoked.0.is_some() {
            return Ok(Some(Reply::Noted));
        }
        self.takes_writes()?;
        let hlc = self.clock.tick(now.wall);
        self.outbox.push_for(sys::revoke_token(hlc, hash), request, Reply::Noted);
        Ok(None)
    }
}
