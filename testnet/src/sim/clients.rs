//! Users: what they submit and cancel, what they were told, and how their programs behave.
//!
//! Invariants: a job is in `acked` exactly if some node acknowledged it; whoever was not answered expects nothing.

use std::collections::BTreeMap;

use starling_core::event::{Value, WorkSpec};
use starling_core::facts::Outcome;
use starling_core::ids::{JobId, RequestId, RunId};
use starling_core::lattice::IntervalSet;
use starling_core::machine::{AckLevel, Command, CommandError, Input, Reply, Submission};
use starling_core::rng::Rng;

use super::marks::Mark;
use super::world::{Event, Seat, World};

/// The clients' ledger.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    next: u64,
    /// Requests and the node that was asked.
    waiting: BTreeMap<RequestId, Seat>,
    pub(crate) acked: BTreeMap<JobId, AckLevel>,
    quiet: bool,
    /// What relays said and nobody confirmed yet.
    pub(crate) reports: BTreeMap<RequestId, Report>,
}

/// A relay's word about a task.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) seat: Seat,
    pub(crate) life: u32,
    pub(crate) run: RunId,
    pub(crate) outcome: Outcome,
}

impl Clients {
    /// How a process goes: its outcome, and after how many milliseconds.
    pub(crate) fn fate(&self, rng: &mut Rng) -> (Outcome, u64) {
        let lasts_ms = match rng.below(4) {
            0 => 1 + rng.below(10),
            1 | 2 => 1 + rng.below(500),
            _ => 1 + rng.below(3_000),
        };
        match outcome(rng.number()) {
            missing @ Outcome::NotStarted(..) => (missing, 1),
            other => (other, lasts_ms),
        }
    }

    pub(crate) fn request(&mut self, seat: Seat) -> RequestId {
        self.next += 1;
        self.waiting.insert(RequestId(self.next), seat);
        RequestId(self.next)
    }

    /// The node is gone: whoever waits for its answer waits no more. Whether anybody did.
    pub(crate) fn hang_up(&mut self, seat: Seat) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|_, asked| *asked != seat);
        self.waiting.len() < before
    }
}

impl World {
    /// No more work is submitted.
    pub(crate) fn quieten(&mut self) {
        self.clients.quiet = true;
    }

    fn pick_up(&mut self) -> Option<Seat> {
        let up: Vec<Seat> = self.seats().filter(|seat| self.node(*seat).machine.is_some()).collect();
        let pick = usize::try_from(self.rng.below(up.len() as u64)).unwrap_or(0);
        up.get(pick).copied().filter(|seat| self.node(*seat).paused_until <= self.now)
    }

    pub(crate) fn on_submit(&mut self) {
        if self.clients.quiet {
            return;
        }
        if let Some(seat) = self.pick_up() {
            self.submit_at(seat);
        }
        let wait = 1 + self.rng.below(self.options.submit_every_ms * 2);
        self.after(wait, Event::Submit);
        if self.rng.below(8) == 0 {
            let wait = self.rng.below(3_000);
            self.after(wait, Event::Cancel);
        }
    }

    pub(crate) fn submit_at(&mut self, seat: Seat) {
        if self.rng.below(8) == 0 {
            let declaration = super::relays::declaration(self.rng.number());
            let request = self.clients.request(seat);
            self.step(seat, Input::Command { request, command: Command::Declare(Box::new(declaration)) });
        }
        let submission = self.submission();
        let request = self.clients.request(seat);
        if self.network.is_parted() {
            self.mark(Mark::SubmitParted);
        }
        self.step(seat, Input::Command { request, command: Command::Submit(Box::new(submission)) });
    }

    fn submission(&mut self) -> Submission {
        let rng = &mut self.rng;
        let work = || Value::List(vec![Value::text("work")]);
        // A declared namespace may not be known there yet, and an old version knows no simulations: then it is refused.
        let (ns, mut spec) = match rng.below(8) {
            0 => ("simulation", WorkSpec::new().with("env_cmd", work()).with("policy_cmd", work())),
            1 | 2 => (super::relays::CHECKS, WorkSpec::new().with("target", Value::text("here"))),
            _ => ("batch", WorkSpec::new().with("command", work())),
        };
        let cpu = [0, 250, 500, 1_000][usize::try_from(rng.below(4)).unwrap_or(0)];
        spec = spec.with("cpu", Value::int(cpu));
        if rng.below(4) == 0 {
            spec = spec.with("memory", Value::Int(1 << (20 + i64::try_from(rng.below(10)).unwrap_or(0))));
        }
        if rng.below(3) == 0 {
            spec = spec.with("retries", Value::int(u16::try_from(rng.below(4)).unwrap_or(0)));
        }
        if rng.below(5) == 0 {
            spec = spec.with("timeout_ms", Value::Int(1 + i64::try_from(rng.below(1_000)).unwrap_or(0)));
        }
        // Not every node has a relay.
        if ns != super::relays::CHECKS && rng.below(10) == 0 {
            let name = format!("bird{}", rng.below(self.options.nodes as u64));
            spec = spec.with("node", Value::text(name.as_str()));
        }
        // Somebody has the label, as long as there are workers.
        if ns == "batch" && self.options.workers > 0 && spec.text("node").is_none() && rng.below(4) == 0 {
            spec = spec.with("constraint", Value::List(vec![Value::text(super::workers::LABEL)]));
            spec = spec.with("memory", Value::Int(0));
        }
        let count = match rng.below(4) {
            0 => 1 + rng.below(u64::from(self.options.tasks_max)),
            _ => 1,
        };
        Submission {
            kind: "".into(),
            ns: ns.into(),
            tasks: IntervalSet::from_range(1, u32::try_from(count).unwrap_or(1)),
            priority: i32::try_from(rng.below(3)).unwrap_or(0),
            spec,
            ack: if rng.below(2) == 0 { AckLevel::Local } else { AckLevel::Remote1 },
        }
    }

    pub(crate) fn on_cancel(&mut self) {
        let count = self.clients.acked.len() as u64;
        // One of the last few, which are probably not finished.
        let back = usize::try_from(self.rng.below(4.min(count.max(1)))).unwrap_or(0);
        let job = self.clients.acked.keys().rev().nth(back).copied();
        if let (Some(job), Some(seat), false) = (job, self.pick_up(), self.clients.quiet) {
            let request = self.clients.request(seat);
            if self.network.is_parted() {
                self.mark(Mark::CancelParted);
            }
            self.step(seat, Input::Command { request, command: Command::Cancel(job) });
        }
    }

    pub(crate) fn on_reply(&mut self, request: RequestId, reply: Reply) {
        let known = self.clients.waiting.remove(&request).is_some();
        let report = self.clients.reports.remove(&request);
        match reply {
            // As a relay does: it says it again until the node takes it.
            Reply::Error(CommandError::DiskRefuses(_)) => {
                if let Some(report) = report {
                    self.after(300, Event::Report(Box::new(report)));
                }
            }
            Reply::Submitted { job, level, .. } if known => {
                self.totals.acknowledged += 1;
                self.clients.acked.insert(job, level);
            }
            Reply::Submitted { .. }
            | Reply::Cancelled
            | Reply::Declared { .. }
            | Reply::Noted
            | Reply::Imported(_)
            | Reply::Error(_) => {}
        }
    }
}

/// Outcomes that a process can have by itself.
fn outcome(draw: u64) -> Outcome {
    match draw % 20 {
        0 => Outcome::Exit(1),
        1 => Outcome::Signal(11),
        2 => Outcome::NotStarted(127, "no such file or directory".into()),
        _ => Outcome::Exit(0),
    }
}
