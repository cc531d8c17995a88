//! Coverage marks: things that must happen sometimes, or the rules about them were never tried.
//!
//! Source: "sometimes" assertions, as in FoundationDB's and TigerBeetle's simulators: a campaign that never reaches a state proves nothing about it.
//! Invariants: counting draws nothing and changes nothing, so a run with marks is the run without them.

use std::collections::BTreeSet;

use starling_core::event::{Entry, Event as LogEntry, SignedBatch};
use starling_core::facts::{Job, Outcome};
use starling_core::ids::{Epoch, GrantId, JobId, RequestId};
use starling_core::machine::{AckLevel, CommandError, Effect, Input, Machine, Notice, Reply, SnapshotNews};
use starling_core::namespace::sys;
use starling_core::sync::Message;

use super::world::{Seat, World};

/// Campaigns of so many seeds must reach every mark.
pub const SEEDS_MIN: u64 = 200;

macro_rules! marks {
    ($($name:ident: $text:literal,)*) => {
        /// Something that must happen sometimes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark {
            $(#[doc = $text] $name,)*
        }

        impl Mark {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// For people.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

marks! {
    CrashAtWrite: "a crash around a write",
    TornWrite: "a write of which a prefix survived",
    LostWrite: "a write of which nothing survived",
    CleanEpoch: "a clean restart that went on in its epoch",
    NewEpoch: "an epoch opened after a crash",
    OneWay: "a partition that cut one direction",
    Flapping: "a partition that came and went",
    SubmitParted: "a submission amid a partition",
    CancelParted: "a cancellation amid a partition",
    GapPulled: "a gap pulled from the node that showed it",
    AntiEntropy: "a pull that anti-entropy brought about",
    OwnLogPulled: "an own log pulled from others (L3)",
    EpochFrozen: "an epoch frozen because others held more of it (L3)",
    Yielded: "a node that ended because an elder process has its identity",
    Forked: "a fork seen and folded (L6)",
    FalseDeath: "a node held for dead that lived",
    GrantVoided: "a grant withdrawn by its owner",
    Retried: "a second attempt",
    LateSuccess: "a late success that spared a retry",
    ExtraStart: "a second start of a task that had not failed",
    ReOffered: "an offer made again",
    OfferRefused: "an offer refused",
    AskedForWork: "an idle node that asked for work",
    TaskLost: "a task reported lost after a restart",
    Killed: "a task killed",
    AckLocal: "an acknowledgement of one disk",
    AckRemote: "an acknowledgement of two disks",
    Unanswered: "a client whose node went down before it answered",
    GatewaySuperseded: "a gateway that stopped acting",
    SecondTerm: "a second term of gateways",
    DiskRefused: "a full disk that refused a write",
    DiskRecovered: "a disk that took writes again",
    SubmitRefused: "a submission refused by a full disk",
    HostileRefused: "a damaged batch refused",
    StrangerRefused: "a stranger's batch refused",
    Forgery: "a member's forged statements folded",
    ClockStepped: "a clock that stepped by half an hour or more",
    SlowNode: "a node that stood still for over six seconds",
    OldUpgraded: "an old version upgraded",
    WorkerLost: "a worker whose session broke",
    RelayLost: "a relay that went away with tasks",
    Declared: "a namespace declared",
    DaemonCrashed: "a daemon that crashed alone while its tasks went on",
    Adopted: "the jobs of a silent node adopted by another",
    GaveWay: "an owner that came back and gave way",
    RolledBack: "a disk that lost its end",
    Rotted: "a disk with a record that could not be read",
    Gone: "a node lost for ever with its disk",
    Branched: "a member that contradicted itself",
    Retired: "sealed jobs retired",
    Snapshot: "a snapshot written",
    SnapshotOffered: "a snapshot offered for a log that was dropped",
    SnapshotSooner: "a snapshot offered in place of much log",
    SnapshotJoined: "a snapshot of another node joined",
    SnapshotFailed: "a snapshot that could not be written",
    SnapshotRefused: "a snapshot of another node that was no good, or did not come",
}

/// How often each mark was reached in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Default for Marks {
    fn default() -> Self {
        Self([0; Mark::ALL.len()])
    }
}

impl Marks {
    pub(crate) fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    /// How often.
    #[must_use]
    pub fn times(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }
}

/// Over many runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    seeds: Marks,
    times: Marks,
}

impl Tally {
    /// Adds one run.
    pub fn add(&mut self, marks: &Marks) {
        for (index, times) in marks.0.iter().enumerate() {
            self.seeds.0[index] += u64::from(*times > 0);
            self.times.0[index] += times;
        }
    }

    /// Runs that reached the mark, and how often they did in all.
    #[must_use]
    pub fn of(&self, mark: Mark) -> (u64, u64) {
        (self.seeds.times(mark), self.times.times(mark))
    }

    /// What no run reached.
    pub fn missed(&self) -> impl Iterator<Item = Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.seeds.times(*mark) == 0)
    }
}

/// What must be remembered to tell whether something happened again.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    offered: BTreeSet<(Seat, GrantId)>,
    acting: BTreeSet<Seat>,
}

/// Of an input, what its effects are judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause {
    Gossip,
    Tips,
    Other,
}

/// Before the machine takes an input in.
pub(crate) fn cause(input: &Input) -> Cause {
    match input {
        Input::Batch { .. } => Cause::Gossip,
        Input::Message { message: Message::Tips(_) | Message::TipsBack(_), .. } => Cause::Tips,
        Input::Message { .. }
        | Input::Tick
        | Input::Pulled { .. }
        | Input::Presence(_)
        | Input::LinkUp(_)
        | Input::LinkDown(_)
        | Input::Durable(_)
        | Input::WriteFailed { .. }
        | Input::Command { .. }
        | Input::TaskEnded { .. }
        | Input::PortOpened { .. }
        | Input::Relays(_)
        | Input::Workers(_)
        | Input::Stats(_)
        | Input::Snapshotted(_)
        | Input::Fetched { .. }
        | Input::GiveUp
        | Input::Addresses { .. }
        | Input::Shutdown => Cause::Other,
    }
}

impl Memory {
    /// The node is gone, and what it was.
    pub(crate) fn on_crash(&mut self, seat: Seat) {
        self.acting.remove(&seat);
    }
}

impl World {
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.totals.marks.hit(mark);
    }

    /// Looks at an effect before it is carried out.
    pub(crate) fn note(&mut self, seat: Seat, cause: Cause, effect: &Effect) {
        match effect {
            Effect::Send { message, .. } => self.note_message(seat, cause, message),
            Effect::Reply { request, reply } => self.note_reply(*request, reply),
            Effect::Notice(notice) => self.note_notice(seat, notice),
            Effect::Kill(_) => self.mark(Mark::Killed),
            Effect::Retire(_) => self.mark(Mark::Retired),
            Effect::Write { .. }
            | Effect::Gossip(_)
            | Effect::Publish(_)
            | Effect::Serve { .. }
            | Effect::Snapshot(_)
            | Effect::Fetch { .. }
            | Effect::Spawn(_) => {}
        }
    }

    fn note_message(&mut self, seat: Seat, cause: Cause, message: &Message) {
        match message {
            Message::Pull { log, .. } => {
                if log.node == self.node(seat).id {
                    self.mark(Mark::OwnLogPulled);
                }
                match cause {
                    Cause::Gossip => self.mark(Mark::GapPulled),
                    Cause::Tips => self.mark(Mark::AntiEntropy),
                    Cause::Other => {}
                }
            }
            Message::Offer(offer) => {
                if !self.memory.offered.insert((seat, offer.grant)) {
                    self.mark(Mark::ReOffered);
                }
            }
            Message::OfferReply { accepted: false, .. } => self.mark(Mark::OfferRefused),
            Message::Ask { .. } => self.mark(Mark::AskedForWork),
            Message::OfferReply { accepted: true, .. }
            | Message::Digest(_)
            | Message::Tips(_)
            | Message::TipsBack(_)
            | Message::SnapshotAhead { .. }
            | Message::Have { .. } => {}
        }
    }

    fn note_reply(&mut self, request: RequestId, reply: &Reply) {
        match reply {
            Reply::Submitted { level: AckLevel::Local, .. } => self.mark(Mark::AckLocal),
            Reply::Submitted { level: AckLevel::Remote1, .. } => self.mark(Mark::AckRemote),
            Reply::Error(CommandError::DiskRefuses(_)) if !self.clients.reports.contains_key(&request) => {
                self.mark(Mark::SubmitRefused);
            }
            Reply::Declared { fresh: true, .. } => self.mark(Mark::Declared),
            Reply::Declared { fresh: false, .. }
            | Reply::Cancelled
            | Reply::Noted
            | Reply::Imported(_)
            | Reply::Error(_) => {}
        }
    }

    fn note_notice(&mut self, seat: Seat, notice: &Notice) {
        match notice {
            Notice::Folded(batch) => self.note_folded(seat, batch),
            Notice::NodeDead(node) => {
                let lives = self.by_id.get(node).is_some_and(|seat| self.node(*seat).machine.is_some());
                if lives {
                    self.mark(Mark::FalseDeath);
                }
            }
            Notice::Forked(_) => self.mark(Mark::Forked),
            Notice::DiskRefuses(_) => self.mark(Mark::DiskRefused),
            Notice::DiskAccepts => self.mark(Mark::DiskRecovered),
            Notice::Gateway(standing) => {
                if standing.acting().is_some() {
                    self.memory.acting.insert(seat);
                } else if self.memory.acting.remove(&seat) {
                    self.mark(Mark::GatewaySuperseded);
                }
            }
            Notice::Adopted { log, by } => {
                let id = self.node(seat).id;
                if *by == id {
                    self.mark(Mark::Adopted);
                } else if log.node == id {
                    self.mark(Mark::GaveWay);
                }
            }
            Notice::Snapshot(SnapshotNews::Written) => self.mark(Mark::Snapshot),
            Notice::Snapshot(SnapshotNews::Failed(_)) => self.mark(Mark::SnapshotFailed),
            Notice::Snapshot(SnapshotNews::Joined(_)) => self.mark(Mark::SnapshotJoined),
            Notice::Snapshot(SnapshotNews::Refused { .. }) => self.mark(Mark::SnapshotRefused),
            Notice::RootMismatch(_) | Notice::GatewayFacts | Notice::Twin | Notice::Stopped => {}
        }
    }

    /// A batch was folded: what its author says there, at its author's own node.
    fn note_folded(&mut self, seat: Seat, batch: &SignedBatch) {
        let log = batch.header().log;
        if log.node != self.node(seat).id {
            if !self.by_id.contains_key(&log.node) {
                self.mark(Mark::Forgery);
            }
            return;
        }
        if log.epoch > Epoch(1) && batch.header().first_seq.0 == 1 {
            self.mark(Mark::NewEpoch);
        }
        let mut found = Vec::new();
        for (_, entry) in batch.entries() {
            let Entry::Event(event) = entry else { continue };
            let job = event.ctx.job.and_then(|job| self.job_at(seat, &job));
            found.extend(mark_of(event, job));
        }
        found.into_iter().for_each(|mark| self.mark(mark));
    }

    fn job_at(&self, seat: Seat, job: &JobId) -> Option<&Job> {
        self.node(seat).machine.as_ref().and_then(|machine| machine.facts().job(job))
    }
}

/// What one event of an author means for coverage.
fn mark_of(event: &LogEntry, job: Option<&Job>) -> Option<Mark> {
    match event.kind.as_str() {
        "ClaimGateway" if event.spec.uint("term").is_some_and(|term| term > 1) => Some(Mark::SecondTerm),
        "Void" => Some(Mark::GrantVoided),
        "Grant" if event.ctx.attempt > 1 => Some(Mark::Retried),
        kind if event.ns == sys::NAME && kind == sys::SEAL => {
            let withdrawn = job?.grants.iter().map(|(_, grant)| grant).filter(|grant| grant.void);
            let mut done = withdrawn.filter_map(|grant| grant.run()?.ended.lookup(&Outcome::Exit(0)));
            done.any(|tasks| !tasks.intersection(&event.ctx.tasks).is_empty()).then_some(Mark::LateSuccess)
        }
        _ if event.ns != sys::NAME && event.ctx.grant.is_some() => event.spec.field("lost").map(|_| Mark::TaskLost),
        _ => None,
    }
}

/// Whether an input made the machine give up its epoch.
pub(crate) fn froze(machine: &Machine, before: Epoch) -> bool {
    machine.own_log().epoch > before
}
