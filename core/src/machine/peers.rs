//! Peers: batches, messages and presence from other nodes, and this node's own presence.
//!
//! Invariants: whatever a peer sends is either used or dropped, never a panic; a gap is pulled at once from the peer that showed it (DESIGN L5).

use super::Machine;
use super::import::Taken;
use super::io::{AckLevel, Effect, Instead, Notice};
use super::pace::Urgency;
use crate::event::{Entry, Event, SignedBatch};
use crate::ids::{Epoch, LogId, NodeId, Seat, Seq};
use crate::limits;
use crate::log::Ingest;
use crate::namespace::{monitor, sys};
use crate::schedule::Presence;
use crate::sync::Message;
use crate::time::{Hlc, Now};

/// A node is asked for work at most this often.
const ASK_MS: u64 = 100;
/// Presence follows a new link after this long.
const GREET_MS: u64 = 50;
/// Facts roots are taken every so many presences.
const ROOT_EVERY: u64 = 5;

impl Machine {
    pub(super) fn on_batch(&mut self, now: Now, from: NodeId, batch: SignedBatch) {
        let log = batch.header().log;
        match self.take_in(now, batch) {
            Taken::Gap { .. } => self.pull_missing(now, from, log),
            // What there is no room for, anti-entropy brings again.
            Taken::New | Taken::Known | Taken::NotAdmitted | Taken::Full => {}
        }
    }

    /// Takes in a batch that somebody else brought, whoever that is: what is new goes to the disk.
    pub(super) fn take_in(&mut self, now: Now, batch: SignedBatch) -> Taken {
        let log = batch.header().log;
        if self.outbox.remote_bytes + batch.bytes().len() > limits::OUT_OF_ORDER_BYTES_MAX {
            return Taken::Full;
        }
        let known = self.logs.is_forked(&log);
        let taken = match self.logs.ingest(batch) {
            Ingest::Ready(batches) => {
                for batch in batches {
                    let urgency = self.urgency_of(&batch);
                    self.outbox.push_remote(batch, urgency);
                }
                self.learn_own_log(now, log);
                Taken::New
            }
            Ingest::Gap { missing_from } => {
                self.note_own_log(now, log);
                Taken::Gap { missing_from }
            }
            Ingest::Fork(batches) => {
                batches.into_iter().for_each(|batch| self.outbox.push_remote(batch, Urgency::Urgent));
                self.learn_own_log(now, log);
                Taken::New
            }
            Ingest::Duplicate => Taken::Known,
            Ingest::NotAdmitted => Taken::NotAdmitted,
            Ingest::Overfull => Taken::Full,
        };
        if !known && self.logs.is_forked(&log) {
            self.effects.push(Effect::Notice(Notice::Forked(log)));
        }
        taken
    }

    /// Reports and seals of arrays may gather before they are written; whatever else a batch says, somebody waits for.
    pub(super) fn urgency_of(&self, batch: &SignedBatch) -> Urgency {
        let may_gather = |event: &Event| {
            let is_report = event.ctx.grant.is_some() && event.ns != sys::NAME;
            let is_seal = event.ns == sys::NAME && event.kind == sys::SEAL;
            (is_report || is_seal) && event.ctx.job.is_none_or(|job| !self.is_single(&job))
        };
        let all_gather = batch.entries().all(|(_, entry)| match entry {
            Entry::Event(event) => may_gather(event),
            Entry::Unread(_) => true,
        });
        if all_gather { Urgency::Background } else { Urgency::Urgent }
    }

    /// A peer showed new events under this node's own name: a restored backup or a cloned disk. That epoch is frozen; the next event opens another (DESIGN L3).
    pub(super) fn note_own_log(&mut self, now: Now, log: LogId) {
        let written = self.own_log();
        if self.freeze_own_log(log) {
            self.doubt_own_log(now, written);
            self.doubt_own_log(now, log);
        }
    }

    /// The same, and they are such as can be folded.
    pub(super) fn learn_own_log(&mut self, now: Now, log: LogId) {
        self.note_own_log(now, log);
        if log.node == self.me {
            self.doubt_own_books(now);
        }
    }

    /// Whatever this node writes from now on lies in another log than `log`; false if it does already.
    pub(super) fn freeze_own_log(&mut self, log: LogId) -> bool {
        if log.node != self.me || log.epoch < self.epoch {
            return false;
        }
        self.epoch = Epoch(log.epoch.0.saturating_add(1));
        self.owner.on_epoch(self.epoch);
        self.frozen = true;
        // A job lies in the log that holds its submission, and those that still wait will be written to the new one.
        let home = self.own_log();
        for old in self.outbox.rehome_submissions(home) {
            if let Some(mut owed) = self.owed_local.remove(&old) {
                owed.job.log = home;
                self.owed_local.insert(owed.job, owed);
            }
        }
        true
    }

    /// Asks `peer` for what follows this node's end of `log`.
    pub(super) fn pull_missing(&mut self, now: Now, peer: NodeId, log: LogId) {
        let from = Seq(self.logs.reach(&log).0 + 1);
        self.pull(now, peer, log, from);
    }

    fn pull(&mut self, now: Now, peer: NodeId, log: LogId, from: Seq) {
        if peer != self.me && self.sync.begin_pull(now.mono, log, from, peer) {
            // Branches are to be seen batch by batch, and a peer whose snapshot is no good may have a log that is.
            let in_turn = from.0 == self.logs.reach(&log).0 + 1 && !self.logs.is_forked(&log);
            let would_do = (in_turn && !self.config.archive) || self.logs.is_searched(&log);
            let or_snapshot = would_do && !self.shuns(now, &peer);
            // What the peer heard of since lies in its log alone, perhaps beside what gave way to that snapshot.
            let joined = self.joined_of(&peer);
            self.effects.push(Effect::Send { to: peer, message: Message::Pull { log, from, or_snapshot, joined } });
        }
    }

    pub(super) fn on_pulled(&mut self, now: Now, from: NodeId, log: LogId, batches: Vec<SignedBatch>, more: bool) {
        let asked = self.sync.end_pull(&log);
        let (before, held) = (self.logs.reach(&log), self.logs.batches(&log));
        let next = next_of(&batches).filter(|next| asked.is_some_and(|asked| asked < *next));
        for batch in batches {
            if batch.header().log == log {
                // A gap in an answer is one on the peer's disk: asking it again at once would bring the same.
                let _gap = self.take_in(now, batch);
            }
        }
        let progress = self.logs.reach(&log) > before;
        let disputed = next.filter(|_| self.logs.is_disputed(&log));
        if let Some(next) = disputed.filter(|_| more) {
            // Every branch has to be seen, whether or not the log grows by it.
            self.pull(now, from, log, next);
        } else if more && progress {
            self.pull_missing(now, from, log);
        } else if self.logs.batches(&log) == held {
            // Nothing new: looking again waits for the next round, or two nodes that cannot agree would ask each other without a pause.
            if let Some(asked) = asked.filter(|_| !more) {
                self.logs.found_nothing(&log, asked);
            }
        } else if !self.sync.is_pulling() && self.sync.is_linked(&from) {
            // Perhaps there is more in other logs than the pulls allowed at once.
            let digest = self.logs.frontier().digest();
            self.effects.push(Effect::Send { to: from, message: Message::Digest(digest) });
        }
    }

    pub(super) fn on_message(&mut self, now: Now, from: NodeId, message: Message) {
        match message {
            Message::Digest(digest) => {
                if digest != self.logs.frontier().digest() {
                    let tips = self.logs.frontier().clone();
                    self.effects.push(Effect::Send { to: from, message: Message::Tips(tips) });
                }
            }
            Message::Tips(theirs) => {
                self.on_their_tips(&theirs);
                if !theirs.covers(self.logs.frontier()) || self.logs.forks_differ(&theirs) {
                    let tips = self.logs.frontier().clone();
                    self.effects.push(Effect::Send { to: from, message: Message::TipsBack(tips) });
                }
                self.pull_all(now, from, &theirs);
            }
            Message::TipsBack(theirs) => {
                self.on_their_tips(&theirs);
                self.pull_all(now, from, &theirs);
            }
            Message::Pull { log, from: seq, or_snapshot, joined } => {
                let known = self.logs.frontier().tip(&log).map_or(Seq(0), |tip| tip.len);
                let instead = match (or_snapshot, self.logs.is_forked(&log)) {
                    (false, _) => Instead::OfGone,
                    (true, false) => Instead::OfMuch,
                    (true, true) => Instead::OfAny,
                };
                self.effects.push(Effect::Serve { to: from, log, from: seq, known, instead, joined });
            }
            Message::SnapshotAhead { log, id, bytes } => self.on_snapshot_ahead(now, from, log, id, bytes),
            Message::Have { log, len } => {
                if log.node == self.me {
                    self.on_have(log, len);
                }
            }
            Message::Offer(offer) => self.on_offer(now, from, offer),
            Message::OfferReply { grant, accepted, free } => self.on_offer_reply(now, from, grant, accepted, free),
            Message::Ask { total, free } => {
                self.owner.on_room(Seat::machine(from), total, free);
                self.place_due = true;
            }
        }
    }

    fn pull_all(&mut self, now: Now, from: NodeId, theirs: &crate::log::Frontier) {
        for (log, seq) in self.logs.missing(theirs) {
            self.pull(now, from, log, seq);
        }
    }

    pub(super) fn on_link_up(&mut self, now: Now, peer: NodeId) {
        self.sync.link_up(peer);
        self.forgive(&peer);
        self.meet(peer);
        let tips = self.logs.frontier().clone();
        self.effects.push(Effect::Send { to: peer, message: Message::Tips(tips) });
        // The peer should not have to wait to hear of this node; a moment, so that several links are one presence.
        self.about.next_presence = self.about.next_presence.min(now.mono.after_ms(GREET_MS));
        self.place_due = true;
    }

    pub(super) fn on_presence(&mut self, now: Now, presence: Presence) {
        let node = presence.node;
        let (total, free, backlog) = (presence.total, presence.free, presence.backlog);
        let (digest, root) = (presence.digest, presence.root);
        let boot = self.fleet.peer(&node).map(|peer| peer.presence.boot);
        let is_reborn = boot.is_some_and(|boot| boot != presence.boot);
        if node == self.me {
            return self.on_own_presence(now, &presence);
        }
        if !self.fleet.hear(now.mono, presence) {
            return;
        }
        if is_reborn {
            self.owner.doubt(now.mono, &node);
        }
        self.meet(node);
        self.owner.on_room(Seat::machine(node), total, free);
        let pools = self.fleet.peer(&node).map(|peer| peer.presence.gateway.pools.clone()).unwrap_or_default();
        self.owner.on_pools(node, &pools);
        self.owner.on_word(&node);
        self.place_due = true;
        if backlog > 0
            && self.executor.is_idle()
            && self.sync.is_linked(&node)
            && !self.stopping
            && !self.is_drained(&self.me)
        {
            self.ask(now, node);
        }
        // Equal frontiers must mean equal Facts; anything else is a bug that the user should hear of.
        if digest == self.about.digest && root != self.about.root && root != 0 && self.about.root != 0 {
            self.effects.push(Effect::Notice(Notice::RootMismatch(node)));
        }
    }

    fn ask(&mut self, now: Now, node: NodeId) {
        if self.asked.get(&node).is_some_and(|last| now.mono.since_ms(*last) < ASK_MS) {
            return;
        }
        self.asked.insert(node, now.mono);
        let message = Message::Ask { total: self.executor.total(), free: self.executor.free() };
        self.effects.push(Effect::Send { to: node, message });
    }

    /// Whatever the clock alone brings about.
    pub(super) fn on_time(&mut self, now: Now) {
        if now.mono >= self.about.next_presence {
            self.about.next_presence = now.mono.after_ms(self.rng.jitter(self.config.presence_ms));
            self.publish_presence(now);
        }
        if let Some(peer) = self.sync.round(now.mono, &mut self.rng) {
            let digest = self.logs.frontier().digest();
            self.effects.push(Effect::Send { to: peer, message: Message::Digest(digest) });
        }
        // Nobody confirmed in time, or nobody is left: the client learns the level that was reached.
        let alone = self.sync.links().next().is_none();
        while let Some(entry) = self.owed_remote.first_entry() {
            if !alone && now.mono.since_ms(entry.get().since) < limits::REMOTE_ACK_MS_MAX {
                break;
            }
            let owed = entry.remove();
            self.acknowledge(owed, AckLevel::Local);
        }
    }

    fn publish_presence(&mut self, now: Now) {
        if self.about.seq >= self.about.root_due {
            self.about.root_due = self.about.seq + ROOT_EVERY;
            self.about.digest = self.logs.frontier().digest();
            self.about.root = self.facts.root().prefix();
        }
        self.about.seq += 1;
        let hlc = Hlc { wall_ms: now.wall.0, count: 0 };
        let presence = Presence {
            node: self.me,
            boot: self.identity.boot,
            seq: self.about.seq,
            name: self.config.name.clone(),
            wall: now.wall,
            total: self.executor.total(),
            free: self.executor.free(),
            backlog: self.owner.backlog(),
            running: u32::try_from(self.executor.running()).unwrap_or(u32::MAX),
            digest: self.about.digest,
            root: self.about.root,
            api: self.about.api.clone(),
            links: self.about.links.clone(),
            accepts: self.disk_refusal().is_none() && !self.stopping && !self.is_drained(&self.me),
            version: self.config.version.clone(),
            relays: self.executor.relays().to_vec(),
            labels: self.config.labels.clone(),
            gateway: self.gatewayship(),
            stats: self.about.stats.clone().map(|stats| monitor::hardware_stats(hlc, stats)),
        };
        self.fleet.hear(now.mono, presence.clone());
        self.owner.on_word(&self.me);
        self.effects.push(Effect::Publish(presence));
        self.place_due = true;
    }
}

/// Where an answer that was cut short goes on: with what lies beside its last batch, or after it.
fn next_of(batches: &[SignedBatch]) -> Option<Seq> {
    let (first, last) = (batches.first()?.header(), batches.last()?.header());
    Some(if first.first_seq < last.first_seq { last.first_seq } else { Seq(last.last_seq().0 + 1) })
}
