//! One generator: its lease, its hands, and the pokes it is owed.
//!
//! Invariants: one callback at a time; a poke that could not be delivered stays owed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

use starling_core::ids::RunId;

use super::polls::Poll;
use super::{Callback, Millis};
use crate::relay::Batch;

/// Pause after the first failed callback; doubles with each further one, up to half the lease.
const RETRY_MS: u64 = 200;
/// Polls of one generator that wait at once; the oldest is answered when one more comes.
const POLLS_MAX: usize = 16;

/// What keeps a generator alive beside its calls.
#[derive(Clone, Debug)]
pub(in crate::relay) enum Link {
    /// Nothing.
    Calls,
    /// A stream, as long as somebody has the other end.
    Stream(Weak<()>),
}

#[derive(Debug)]
pub(in crate::relay) struct Generator {
    /// Tells registrations under one name apart.
    pub(super) session: u64,
    pub(super) ns: String,
    pub(super) slots: u32,
    pub(super) lease_ms: u64,
    pub(super) callback: Option<Callback>,
    link: Link,
    /// When it was last in touch.
    pub(super) contact: Millis,
    /// Its tasks, also those whose end is being logged.
    pub(super) hands: BTreeSet<RunId>,
    /// Tasks that it is to be told to stop.
    pub(super) cancelled: Vec<RunId>,
    pub(super) polls: VecDeque<Poll>,
    /// Owed to whoever polls for pokes.
    pub(super) is_poked: bool,
    /// Owed to the callback URL.
    call: Call,
    /// When it was last poked for no other reason than to renew its lease.
    renewed: Millis,
}

#[derive(Debug)]
struct Call {
    is_owed: bool,
    is_on: bool,
    failures: u32,
    not_before: Millis,
}

impl Generator {
    /// A generator that has just been in touch, and is poked: it cannot know what it missed.
    pub(super) fn new(
        session: u64,
        ns: String,
        slots: u32,
        lease_ms: u64,
        callback: Option<Callback>,
        link: Link,
        now: Millis,
    ) -> Self {
        Self {
            session,
            ns,
            slots,
            lease_ms,
            callback,
            link,
            contact: now,
            hands: BTreeSet::new(),
            cancelled: Vec::new(),
            polls: VecDeque::new(),
            is_poked: true,
            call: Call { is_owed: true, is_on: false, failures: 0, not_before: now },
            renewed: now,
        }
    }

    pub(super) fn is_streaming(&self) -> bool {
        match &self.link {
            Link::Calls => false,
            Link::Stream(end) => end.strong_count() > 0,
        }
    }

    /// Whether it is in touch right now.
    pub(super) fn is_live(&self) -> bool {
        self.is_streaming() || self.polls.iter().any(Poll::is_open)
    }

    /// When its lease ends, or when to look again whether it is still in touch.
    pub(super) fn ends_at(&self) -> Option<Millis> {
        if self.is_live() { None } else { Some(self.contact + self.lease_ms) }
    }

    fn renew_every(&self) -> u64 {
        self.lease_ms / 3
    }

    /// When to look after its lease.
    pub(super) fn renew_at(&self) -> Option<Millis> {
        Some(self.renewed.max(self.contact) + self.renew_every())
    }

    /// Notes that it is in touch if it is; if not, pokes it every third of its lease, so that one that lives calls.
    pub(super) fn renew(&mut self, now: Millis) {
        self.polls.retain(Poll::is_open);
        if self.is_live() {
            self.contact = now;
        }
        if self.renewed.max(self.contact) + self.renew_every() <= now {
            self.renewed = now;
            if self.callback.is_some() || !self.hands.is_empty() {
                self.poke();
            }
        }
    }

    pub(super) fn poke(&mut self) {
        self.is_poked = true;
        self.call.is_owed = true;
    }

    /// When a callback is due.
    pub(super) fn call_at(&self) -> Option<Millis> {
        let is_due = self.callback.is_some() && self.call.is_owed && !self.call.is_on;
        is_due.then_some(self.call.not_before)
    }

    pub(super) fn failures(&self) -> u32 {
        self.call.failures
    }

    /// A callback begins; what is owed from now on is another one.
    pub(super) fn start_call(&mut self) -> Option<Callback> {
        let callback = self.callback.clone()?;
        self.call.is_owed = false;
        self.call.is_on = true;
        Some(callback)
    }

    pub(super) fn called(&mut self, now: Millis, is_ok: bool) {
        self.call.is_on = false;
        if is_ok {
            self.call.failures = 0;
            self.call.not_before = now;
            self.contact = now;
            return;
        }
        let pause = RETRY_MS.saturating_mul(1 << self.call.failures.min(16)).min(self.lease_ms / 2);
        self.call.failures = self.call.failures.saturating_add(1);
        self.call.not_before = now + pause;
        self.call.is_owed = true;
    }

    /// Lets a poll wait.
    pub(super) fn park(&mut self, poll: Poll) {
        if self.polls.len() >= POLLS_MAX
            && let Some(oldest) = self.polls.pop_front()
        {
            // It may have gone.
            let _gone = oldest.answer.send(Batch::default());
        }
        self.polls.push_back(poll);
    }

    pub(super) fn poll_ends_at(&self) -> Option<Millis> {
        self.polls.iter().map(|poll| poll.until).min()
    }
}

/// The other end of a stream's link.
pub(in crate::relay) fn link() -> (Arc<()>, Link) {
    let end = Arc::new(());
    let link = Link::Stream(Arc::downgrade(&end));
    (end, link)
}
