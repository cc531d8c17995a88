//! Faults: when they happen and what they do, and healing.
//!
//! Invariants: every fault plans its own successor, so intensities stay as drawn; after `heal` nothing goes wrong any more.

use std::ops::Range;

use starling_core::machine::Input;
use starling_core::time::Mono;

use super::marks::Mark;
use super::options::EveryMs;
use super::process::Crash;
use super::world::{Event, Seat, World};

/// Things that go wrong from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Crash,
    DaemonCrash,
    CleanStop,
    Partition,
    Pause,
    FullDisk,
    ClockStep,
    RelayLoss,
    WorkerLoss,
    Gone,
    Twin,
    Rollback,
    Rot,
    /// A partition changes or ends.
    Cut {
        from: Seat,
        to: Seat,
        cut: bool,
    },
}

impl World {
    pub(crate) fn plan_faults(&mut self) {
        let all = [Fault::Crash, Fault::CleanStop, Fault::Partition, Fault::Pause, Fault::FullDisk, Fault::ClockStep];
        let rarer = [
            Fault::RelayLoss,
            Fault::WorkerLoss,
            Fault::DaemonCrash,
            Fault::Gone,
            Fault::Rollback,
            Fault::Rot,
            Fault::Twin,
        ];
        for fault in all.into_iter().chain(rarer) {
            self.plan(fault);
        }
        if let Some(every) = self.faults.hostile {
            let wait = 1_000 + self.rng.below(every);
            self.after(wait, Event::Hostile);
        }
    }

    fn plan(&mut self, fault: Fault) {
        let every: EveryMs = match fault {
            Fault::Crash => self.faults.crash,
            Fault::DaemonCrash => self.faults.daemon_crash,
            Fault::CleanStop => self.faults.clean_stop,
            Fault::Partition => self.faults.partition,
            Fault::Pause => self.faults.pause,
            Fault::FullDisk => self.faults.full_disk,
            Fault::ClockStep => self.faults.clock_step,
            Fault::RelayLoss => self.faults.relay_loss,
            Fault::WorkerLoss => self.faults.worker_loss,
            Fault::Gone => self.faults.gone,
            Fault::Twin => self.faults.twin,
            Fault::Rollback => self.faults.rollback,
            Fault::Rot => self.faults.rot,
            Fault::Cut { .. } => None,
        };
        if let Some(every) = every {
            let wait = self.rng.below(every * 2) + 1;
            self.after(wait, Event::Fault(fault));
        }
    }

    pub(crate) fn pick(&mut self) -> Seat {
        Seat(usize::try_from(self.rng.below(self.nodes.len() as u64)).unwrap_or(0))
    }

    pub(crate) fn on_fault(&mut self, fault: Fault) {
        if self.faults == self.faults.healed() {
            return;
        }
        let seat = self.pick();
        self.trace.line(self.now, || format!("fault {fault:?} at {seat:?}"));
        match fault {
            Fault::Crash => self.crash_for_a_while(seat),
            // Once is enough.
            Fault::Gone => return self.lose_for_ever(seat),
            Fault::Twin => self.beget(seat),
            Fault::Rollback => {
                self.disturb_disk(seat);
                self.roll_back(seat);
            }
            Fault::Rot => {
                self.disturb_disk(seat);
                self.rot(seat);
            }
            Fault::DaemonCrash => {
                self.totals.crashes += 1;
                self.mark(Mark::DaemonCrashed);
                self.crash(seat, Crash::Daemon);
                // Mostly before anybody finds it dead.
                let down_ms = 50 + self.rng.below(4_000);
                self.after(down_ms, Event::Restart(seat));
            }
            Fault::CleanStop => {
                if self.node(seat).machine.is_some() && self.stopping.insert(seat) {
                    self.step(seat, Input::Shutdown);
                }
            }
            Fault::Partition => self.partition(),
            Fault::Pause => {
                let lasts_ms = 100 + self.rng.below(10_000);
                let until = self.now.after_ms(lasts_ms);
                let node = self.node_mut(seat);
                node.paused_until = node.paused_until.max(until);
                self.after(lasts_ms, Event::Resume(seat));
                if lasts_ms > 6_000 {
                    self.mark(Mark::SlowNode);
                }
            }
            Fault::FullDisk => {
                let until = self.now.after_ms(100 + self.rng.below(8_000));
                self.node_mut(seat).disk.full_until = until;
            }
            Fault::ClockStep => {
                let step = i64::try_from(self.rng.below(7_200_000)).unwrap_or(0) - 3_600_000;
                self.node_mut(seat).wall_ms = step;
                if step.abs() > 1_800_000 {
                    self.mark(Mark::ClockStepped);
                }
            }
            Fault::RelayLoss => self.lose_relay(seat),
            Fault::WorkerLoss => self.lose_worker(),
            Fault::Cut { from, to, cut } => {
                self.network.set_cut(from, to, cut);
                self.refresh_pair(from, to);
            }
        }
        self.plan(fault);
    }

    fn crash_for_a_while(&mut self, seat: Seat) {
        self.totals.crashes += 1;
        self.crash(seat, Crash::Machine);
        // Some stay away for so long that others take over what they owned.
        let down_ms =
            50 + if self.rng.below(4) == 0 { 11_000 + self.rng.below(12_000) } else { self.rng.below(12_000) };
        self.after(down_ms, Event::Restart(seat));
    }

    /// The node is gone, and its disk with it. The first one stays, so that every kind of job can be done, and so do as many as adopters must see.
    fn lose_for_ever(&mut self, seat: Seat) {
        let (nodes, strangers) = (self.nodes.len(), usize::from(self.faults.hostile.is_some()));
        if seat == Seat(0) || (nodes - 1) * 2 < nodes + strangers {
            return;
        }
        self.totals.crashes += 1;
        self.mark(Mark::Gone);
        self.crash(seat, Crash::Machine);
        let (jobs, declaration) = self.node_mut(seat).disk.burn();
        self.rules.survives.on_loss(&jobs, declaration);
        self.node_mut(seat).gone = true;
    }

    /// A disk is about to lose something: its machine goes down. One that is down already may come to have lost what it had told, and then do that work again.
    fn disturb_disk(&mut self, seat: Seat) {
        let node = self.node(seat);
        if node.machine.is_none() {
            let id = node.id;
            self.rules.extra_starts.on_crash(&id);
        }
        self.crash_for_a_while(seat);
    }

    /// The end of the disk is gone: the last few records, or as much as lies behind an old backup.
    fn roll_back(&mut self, seat: Seat) {
        let len = self.node(seat).disk.records().len();
        let most = if self.rng.below(4) == 0 { len } else { len.min(40) };
        let lost = usize::try_from(self.rng.below(most as u64 + 1)).unwrap_or(0);
        if lost > 0 {
            self.mark(Mark::RolledBack);
            self.lose_records(seat, len - lost..len);
        }
    }

    /// One record cannot be read any more.
    fn rot(&mut self, seat: Seat) {
        let len = self.node(seat).disk.records().len();
        if len > 0 {
            let place = usize::try_from(self.rng.below(len as u64)).unwrap_or(0);
            self.mark(Mark::Rotted);
            self.lose_records(seat, place..place + 1);
        }
    }

    fn lose_records(&mut self, seat: Seat, lost: Range<usize>) {
        let id = self.node(seat).id;
        self.trace.line(self.now, || format!("{seat:?} loses records {lost:?}"));
        let (jobs, declaration) = self.node_mut(seat).disk.lose(lost);
        self.rules.survives.on_loss(&jobs, declaration);
        self.rules.one_writer.excuse(id);
        self.rules.frontier_grows.forget(seat);
        self.rules.stays_retired.forget(seat);
    }

    /// A clean stop is complete: the process ends, and starts again later.
    pub(crate) fn stop(&mut self, seat: Seat) {
        self.crash(seat, Crash::Daemon);
        let down_ms = 50 + self.rng.below(5_000);
        self.after(down_ms, Event::Restart(seat));
    }

    /// Splits the nodes in two: both ways, one way, or on and off.
    fn partition(&mut self) {
        self.totals.partitions += 1;
        let sides = 1 + self.rng.below((1 << self.nodes.len()) - 2);
        let one_way = self.rng.below(3) == 0;
        let flaps = if self.rng.below(3) == 0 { 1 + self.rng.below(5) } else { 0 };
        let lasts_ms = 500 + self.rng.below(15_000);
        if one_way {
            self.mark(Mark::OneWay);
        }
        if flaps > 0 {
            self.mark(Mark::Flapping);
        }
        let side = |seat: Seat| sides >> seat.0 & 1;
        let pairs: Vec<(Seat, Seat)> = self
            .seats()
            .flat_map(|from| self.seats().map(move |to| (from, to)))
            .filter(|(from, to)| side(*from) != side(*to) && (!one_way || side(*from) == 1))
            .collect();
        for (from, to) in pairs {
            for flap in 0..=flaps {
                let start = flap * (lasts_ms + 500);
                self.after(start, Event::Fault(Fault::Cut { from, to, cut: true }));
                self.after(start + lasts_ms, Event::Fault(Fault::Cut { from, to, cut: false }));
            }
        }
    }

    /// Everything works again: faults end, paths open, disks have room, nodes are up.
    pub(crate) fn heal(&mut self) {
        self.faults = self.faults.healed();
        self.trace.line(self.now, || "everything heals".into());
        for seat in self.seats().collect::<Vec<_>>() {
            let node = self.node_mut(seat);
            node.paused_until = Mono(0);
            node.disk.full_until = Mono(0);
            node.relay_away = Mono(0);
            for other in self.seats().collect::<Vec<_>>() {
                self.network.set_cut(seat, other, false);
            }
        }
        self.heal_workers();
        for seat in self.seats().collect::<Vec<_>>() {
            self.resume(seat);
            self.upgrade(seat);
            self.start(seat);
            self.tell_of_relay(seat);
            self.refresh_pairs_of(seat);
        }
    }
}
