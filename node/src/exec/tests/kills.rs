//! Kills of whole groups, gentle and hard, before, during and after; shutdown; orphans of a dead daemon.
//!
//! Invariants: members of the group are known by pid from the task's own output.
//! Does not: wait for the whole grace more than once.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use super::super::orphans::kill_orphans;
use super::*;

const KEY: TaskKey = TaskKey { run: 1 };

/// Starts a task whose script prints one pid a line, and waits for `count` of them.
fn start(rig: &Rig, script: &str, count: usize) -> Vec<u32> {
    rig.executor.launch(rig.sh(1, script));
    rig.started();
    let pids = || -> Vec<u32> { rig.text(1, Stream::Out).lines().map_while(|line| line.parse().ok()).collect() };
    rig.until("the pids", || pids().len() == count);
    pids()
}

#[test]
fn gentle_kill_ends_the_whole_group_with_sigterm() {
    let rig = Rig::new();
    let pids = start(&rig, "sleep 100 & echo $!; echo $$; sleep 100", 2);
    let begin = Instant::now();
    rig.executor.kill(KEY, Kill::Gentle);
    assert_eq!(rig.ended().end, End::Signal(15));
    assert!(begin.elapsed() < Duration::from_secs(4), "no need to wait for the grace");
    assert!(pids.iter().all(|pid| !lives(*pid)));
}

#[test]
fn hard_kill_ends_a_group_that_ignores_sigterm() {
    let rig = Rig::new();
    let pids =
        start(&rig, "trap '' TERM; sh -c 'echo $$; while :; do sleep 1; done' & echo $$; while :; do sleep 1; done", 2);
    rig.executor.kill(KEY, Kill::Hard);
    assert_eq!(rig.ended().end, End::Signal(9));
    assert!(pids.iter().all(|pid| !lives(*pid)));
}

#[test]
fn what_a_task_leaves_running_is_gone_when_its_end_is_told() {
    let rig = Rig::new();
    let script = "for i in $(seq 60); do sleep 100 >/dev/null 2>&1 & echo $!; done";
    assert_eq!(rig.run(rig.sh(1, script)).end, End::Exit(0));
    let living = rig.text(1, Stream::Out).lines().filter(|pid| lives(pid.parse().unwrap())).count();
    assert_eq!(living, 0);
}

#[test]
fn gentle_kill_becomes_hard_after_the_grace() {
    let rig = Rig::new();
    let pids = start(&rig, "trap '' TERM; echo $$; while :; do sleep 1; done", 1);
    let begin = Instant::now();
    rig.executor.kill(KEY, Kill::Gentle);
    assert_eq!(rig.ended().end, End::Signal(9));
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(4900) && took < Duration::from_secs(20), "{took:?}");
    assert!(!lives(pids[0]));
}

#[test]
fn gentle_kill_lets_a_grandchild_finish_its_last_words() {
    let rig = Rig::new();
    let script = "sh -c 'trap \"sleep 0.4; echo saved; exit\" TERM; echo $$; while :; do sleep 0.05; done' & wait";
    start(&rig, script, 1);
    rig.executor.kill(KEY, Kill::Gentle);
    assert_eq!(rig.ended().end, End::Signal(15));
    assert!(rig.text(1, Stream::Out).ends_with("saved\n"), "{}", rig.text(1, Stream::Out));
}

#[test]
fn task_may_answer_sigterm_with_an_exit_code() {
    let rig = Rig::new();
    start(&rig, "trap 'exit 42' TERM; echo $$; while :; do sleep 0.05; done", 1);
    rig.executor.kill(KEY, Kill::Gentle);
    assert_eq!(rig.ended().end, End::Exit(42));
}

#[test]
fn task_killed_while_it_waits_never_starts() {
    let rig = Rig::with_threads(1);
    rig.executor.launch(rig.task(0, &["sleep", "100"]));
    rig.executor.launch(rig.task(1, &["true"]));
    rig.started();
    rig.executor.kill(KEY, Kill::Gentle);
    let ended = rig.ended();
    assert_eq!(ended.key, KEY);
    assert!(matches!(ended.end, End::NotStarted { code: 143, .. }), "{}", ended.end);
    rig.executor.kill(TaskKey { run: 0 }, Kill::Hard);
    assert_eq!(rig.ended().end, End::Signal(9));
}

#[test]
fn kill_races_the_start_and_always_wins() {
    let rig = Rig::new();
    for run in 0..50 {
        rig.executor.launch(rig.task(run, &["sleep", "100"]));
        rig.executor.kill(TaskKey { run }, Kill::Hard);
        let end = match rig.event() {
            ExecEvent::Started { .. } => rig.ended().end,
            ExecEvent::Ended { end, .. } => end,
            other @ ExecEvent::Port { .. } => panic!("{other:?}"),
        };
        assert!(matches!(end, End::Signal(9) | End::NotStarted { code: 137, .. }), "{end}");
    }
    rig.executor.kill(KEY, Kill::Hard);
    assert_eq!(rig.executor.running(), 0);
}

#[test]
fn shutdown_ends_everything_and_refuses_more() {
    let rig = Rig::with_threads(2);
    for run in 0..4 {
        rig.executor.launch(rig.task(run, &["sleep", "100"]));
    }
    let pids = [rig.started(), rig.started()];
    rig.executor.shutdown();
    assert!(pids.iter().all(|pid| !lives(*pid)));
    let mut ends: Vec<_> = (0..4).map(|_| rig.ended()).map(|ended| (ended.key.run, ended.end.to_string())).collect();
    ends.sort();
    let waited = "not started (137): it was killed before it started";
    assert_eq!(ends.iter().map(|(_, end)| end.as_str()).collect::<Vec<_>>(), ["signal 9", "signal 9", waited, waited]);
    assert!(rig.refused(rig.task(9, &["true"])).1.contains("shutting down"));
}

#[test]
fn orphans_with_the_exact_mark_are_killed_with_their_groups() {
    let owner = |value: &str| format!("{value}-{}", std::process::id());
    let mark = |value: &str| format!("STARLING_RUN_OWNER={}", owner(value));
    let spawn = |value: &str, script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("STARLING_RUN_OWNER", owner(value)).process_group(0).spawn().unwrap()
    };
    // The second process of the group has dropped the mark: it goes with its group.
    let mut orphan = spawn("dead", "env -u STARLING_RUN_OWNER sleep 100 & sleep 100");
    let mut other = spawn("dead-or-alive", "sleep 100");
    let killed = kill_orphans(&mark("dead"));
    assert!(killed.contains(&orphan.id()) && !killed.contains(&other.id()), "{killed:?}");
    assert_eq!(orphan.wait().unwrap().signal(), Some(9));
    assert_eq!(other.try_wait().unwrap(), None);
    assert_eq!(kill_orphans(&mark("dead")), [0_u32; 0]);
    assert!(!kill_orphans(&mark("dead-or-alive")).is_empty());
    other.wait().unwrap();
}
