//! Restarts: what the records on disk bring back, epochs, lost tasks, and a log that somebody else continued.

use super::*;
use crate::event::SignedBatch;
use crate::ids::JobNo;
use crate::testing::{Author, hlc, job_id, node};

/// A machine and the records it has on disk.
pub(super) struct Host {
    pub(super) machine: Machine,
    records: Vec<Record>,
    writes: u64,
}

impl Host {
    pub(super) fn new(seed: u8) -> Self {
        Self::with(seed, Vec::new())
    }

    fn with(seed: u8, records: Vec<Record>) -> Self {
        let mut recovery = recovery(seed);
        for record in &records {
            recovery.record(record.clone());
        }
        Self { machine: recovery.finish(now(0)), records, writes: 0 }
    }

    /// Down and up again, the edges having found this.
    pub(super) fn restart_with(self, seed: u8, survivors: Vec<Survivor>) -> Self {
        let mut recovery = recovery(seed);
        for record in &self.records {
            recovery.record(record.clone());
        }
        recovery.resume(survivors, Books::Complete);
        Self { machine: recovery.finish(now(0)), records: self.records, writes: 0 }
    }

    /// One step; every write it asks for is on disk at once. All that happened, as text.
    pub(super) fn step(&mut self, at: u64, input: Input) -> String {
        let mut text = String::new();
        let mut effects = self.machine.step(now(at), input);
        loop {
            text += &show(&effects);
            let mut writes = Vec::new();
            for effect in effects {
                if let Effect::Write { write, records } = effect {
                    self.records.extend(records);
                    writes.push(write);
                }
            }
            let Some(write) = writes.pop() else {
                return text;
            };
            self.writes += 1;
            effects = self.machine.step(now(at), Input::Durable(write));
        }
    }

    fn restart(self, seed: u8) -> Self {
        Self::with(seed, self.records)
    }
}

#[test]
fn the_end_of_a_task_that_the_shutdown_killed_is_not_its_outcome() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(submission(1, AckLevel::Local)));
    assert!(host.step(2, Input::Shutdown).contains("notice Stopped"));
    let on_disk = host.records.len();
    assert_eq!(
        host.step(3, Input::TaskEnded { run: RunId(1), outcome: Outcome::Signal(9), usage: Usage::default() }),
        ""
    );
    assert_eq!(host.records.len(), on_disk, "nothing follows the marker");
    let mut host = host.restart(1);
    let again: String = (1..4).map(|at| host.step(at, Input::Tick)).collect();
    assert!(again.contains("task 1 attempt 2"), "{again}");
}

#[test]
fn an_unclean_stop_opens_a_new_epoch_at_the_first_append_only() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(submission(1, AckLevel::Local)));
    host.step(2, Input::TaskEnded { run: RunId(1), outcome: Outcome::Exit(0), usage: Usage::default() });
    let events = host.machine.frontier().events();
    let mut host = host.restart(1);
    assert_eq!(host.machine.own_log().epoch, Epoch(2));
    for at in [1, 1_000, 60_000] {
        host.step(at, Input::Tick);
    }
    assert_eq!(host.writes, 0);
    assert_eq!(host.machine.frontier().events(), events);
    let text = host.step(60_001, command(submission(1, AckLevel::Local)));
    expect!["write 1: Admit , SubmitJob 1"].assert_eq(text.lines().next().unwrap());
    assert_eq!(host.machine.frontier().tips().count(), 2);
    // Names stay unique over the epochs.
    let numbers: Vec<u64> = host.machine.facts().jobs().map(|(id, _)| id.no.0).collect();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn a_crash_loop_mints_nothing() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(Command::Cancel(job_id(1, 1))));
    let mut author = Author::new(2);
    let from = author.log().node;
    let batch = author.open("finch");
    host.step(2, Input::Batch { from, batch });
    for _ in 0..5 {
        host = host.restart(1);
        host.step(1, Input::Tick);
        assert_eq!(host.machine.own_log().epoch, Epoch(1), "it never wrote");
    }
    host.step(2, command(submission(1, AckLevel::Local)));
    let records = host.records.clone();
    // What is left of its job may be said once, by the first of the restarts.
    for _ in 0..5 {
        host = Host::with(1, records.clone());
        assert_eq!(host.machine.own_log().epoch, Epoch(2));
    }
}

#[test]
fn a_clean_stop_keeps_the_epoch() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(submission(1, AckLevel::Local)));
    host.step(2, Input::TaskEnded { run: RunId(1), outcome: Outcome::Exit(0), usage: Usage::default() });
    expect![[r#"
        write 6: clean
        notice Stopped
    "#]]
    .assert_eq(&host.step(3, Input::Shutdown));
    let refused = host.step(4, command(submission(1, AckLevel::Local)));
    assert!(refused.contains("ShuttingDown"), "{refused}");
    let mut host = host.restart(1);
    assert_eq!(host.machine.own_log().epoch, Epoch(1));
    host.step(5, Input::Tick);
    let text = host.step(6, command(submission(1, AckLevel::Local)));
    expect!["write 1: SubmitJob 1"].assert_eq(text.lines().next().unwrap());
    assert_eq!(host.machine.frontier().tips().count(), 1);
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(submission(9, AckLevel::Local)));
    let (frontier, facts) = (host.machine.frontier().clone(), host.machine.facts().to_bytes());
    let root = host.machine.root();
    let mut host = host.restart(1);
    assert_eq!(*host.machine.frontier(), frontier);
    assert_eq!(host.machine.facts().to_bytes(), facts);
    assert_eq!(host.machine.root(), root);
}

#[test]
fn tasks_that_ran_when_the_node_went_down_are_told_lost_once_and_run_again() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(submission(1, AckLevel::Local)));
    let mut host = host.restart(1);
    let text = host.step(1, Input::Tick);
    expect![[r#"
        presence 1 free 2000
        write 1: Admit , JobFinished 1
        gossip 1
        folded 1+2
        write 2: Grant 1
        gossip 3
        folded 3+1
        spawn 1.65537 task 1 attempt 2
        write 3: JobStarted 1
        gossip 4
        folded 4+1
    "#]]
    .assert_eq(&text);
    host.step(2, Input::TaskEnded { run: RunId(1), outcome: Outcome::Exit(0), usage: Usage::default() });
    let mut host = host.restart(1);
    let text = host.step(1, Input::Tick);
    assert!(!text.contains("write"), "{text}");
    let job = host.machine.facts().job(&job_id(1, 1)).unwrap();
    assert_eq!(job.outcome(1), Some(Outcome::Exit(0)));
}

#[test]
fn an_accepted_grant_of_another_owner_is_told_lost_once() {
    let mut owner = Author::new(2);
    let job = job_id(2, 1);
    let spec = crate::testing::command();
    let submit = crate::namespace::batch::submit_job(hlc(1), job, IntervalSet::one(1), 0, spec);
    let opening = owner.append(vec![owner.admit("finch"), submit]);
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, Input::LinkUp(node(2)));
    host.step(1, Input::Batch { from: node(2), batch: opening });
    let offer = Message::Offer(Offer {
        grant: crate::testing::grant_id(job, 1),
        attempt: crate::ids::Attempt(1),
        tasks: IntervalSet::one(1),
        pool: None,
    });
    let offered = || Input::Message { from: node(2), message: offer.clone() };
    expect![[r#"
        write 2: note
        send reply to 1.1 accepted=true
        spawn 1.1 task 1 attempt 1
        write 3: Admit , JobStarted 1
        gossip 1
        folded 1+2
    "#]]
    .assert_eq(&host.step(2, offered()));
    let mut host = host.restart(1);
    host.step(1, Input::LinkUp(node(2)));
    let lost = |host: &Host| {
        let job = host.machine.facts().job(&job).unwrap();
        let run = job.grants.values().next().and_then(|grant| grant.run_by(&node(1)).cloned());
        run.is_some_and(|run| run.ended.lookup(&Outcome::Lost).is_some())
    };
    assert!(lost(&host), "told with the first step");
    // A late repetition of the offer must not start it again.
    let text = host.step(3, offered());
    assert!(!text.contains("spawn"), "{text}");
    let mut host = host.restart(1);
    let text = host.step(1, Input::Tick);
    assert!(!text.contains("write"), "{text}");
}

/// A batch that a clone of node 1 wrote after the same records.
fn cloned(records: &[Record]) -> SignedBatch {
    let mut clone = Author::new(1);
    let mut last = clone.open("wren");
    for record in records {
        if let Record::Batch(batch) = record
            && batch.header().log == clone.log()
        {
            clone.resume(batch);
        }
    }
    if !records.is_empty() {
        last = clone.say(77, 1);
    }
    last
}

#[test]
fn a_log_continued_by_a_clone_is_frozen_and_the_node_goes_on_in_a_new_epoch() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(submission(1, AckLevel::Local)));
    let batch = cloned(&host.records);
    let from = node(2);
    host.step(2, Input::Batch { from, batch });
    assert_eq!(host.machine.own_log().epoch, Epoch(2));
    let text = host.step(3, command(submission(1, AckLevel::Local)));
    assert!(text.contains("Admit"), "{text}");
    let epochs: Vec<u64> = host.machine.frontier().tips().map(|(log, _)| log.epoch.0).collect();
    assert_eq!(epochs, [1, 2]);
}

#[test]
fn a_fork_is_kept_folded_and_told() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(submission(1, AckLevel::Local)));
    let batch = cloned(&host.records[..1]);
    let from = node(2);
    let text = host.step(2, Input::Batch { from, batch });
    assert!(text.contains("notice Forked"), "{text}");
    assert_eq!(host.machine.logs().forked().count(), 1);
    let ghost = host.machine.facts().job(&job_id(1, 77)).unwrap();
    assert!(ghost.cancel.0.is_some(), "the other branch is folded too");
    assert_eq!(host.machine.own_log().epoch, Epoch(2));
}

#[test]
fn submissions_that_wait_when_a_clone_is_seen_move_to_the_new_epoch() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    host.step(1, command(submission(1, AckLevel::Local)));
    let batch = cloned(&host.records);
    let ended = Input::TaskEnded { run: RunId(1), outcome: Outcome::Exit(0), usage: Usage::default() };
    // A write is in flight; one submission waits behind it, and then the clone shows itself.
    let in_flight = host.machine.step(now(2), ended);
    expect![[r#"
        write 4: JobFinished 1
    "#]]
    .assert_eq(&show(&in_flight));
    let waits = host.machine.step(now(3), command(submission(2, AckLevel::Local)));
    expect![[""]].assert_eq(&show(&waits));
    let from = node(2);
    host.machine.step(now(4), Input::Batch { from, batch });
    let text = host.step(5, Input::Durable(WriteId(4)));
    assert!(text.contains("reply 1: job 2 Local fresh=true"), "{text}");
    let moved = host.machine.facts().jobs().find(|(id, _)| id.no == JobNo(2));
    let (id, job) = moved.unwrap();
    assert_eq!(id.log.epoch, Epoch(2));
    assert!(job.submit.as_ref().is_some());
}

#[test]
fn words_of_others_about_jobs_never_submitted_do_not_number_new_ones() {
    let mut host = Host::new(1);
    host.step(1, Input::Tick);
    let mut stranger = Author::new(2);
    let ghost = crate::namespace::sys::cancel(hlc(1), job_id(1, u64::MAX));
    let batch = stranger.append(vec![stranger.admit("finch"), ghost]);
    let from = node(2);
    host.step(2, Input::Batch { from, batch });
    let mut host = host.restart(1);
    host.step(1, Input::Tick);
    let text = host.step(2, command(submission(1, AckLevel::Local)));
    assert!(text.contains("reply 1: job 1"), "{text}");
}

#[test]
fn a_copy_leaves_the_next_epochs_to_its_original_even_after_a_clean_stop() {
    let mut host = Host::new(1);
    host.step(1, command(submission(1, AckLevel::Local)));
    host.step(2, Input::Shutdown);
    let records = host.restart(1).records;
    assert_eq!(Host::with(1, records.clone()).machine.own_log().epoch, Epoch(1));
    let mut recovery = recovery(1);
    records.into_iter().for_each(|record| recovery.record(record));
    recovery.moved();
    assert!(recovery.finish(now(0)).own_log().epoch.0 > 16);
}
