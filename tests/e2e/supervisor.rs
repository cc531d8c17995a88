//! Tasks that outlive the daemon: killed, stopped, restarted in turn, its directory wiped, its supervisor killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Flock, LONG, PAIR, SMALL, alone, lines, within};

const TASKS: usize = 300;

/// A task that tells of its start, writes, waits for the gate, and writes again.
struct Waiting {
    mark: PathBuf,
    gate: PathBuf,
    script: String,
}

impl Waiting {
    fn new(flock: &Flock) -> Self {
        let (mark, gate) = (flock.file("mark"), flock.file("gate"));
        let script = format!(
            "echo before; echo $$ $STARLING_ATTEMPT >> {}; until [ -e {} ]; do sleep 0.05; done; echo after; exit 7",
            mark.display(),
            gate.display()
        );
        Self { mark, gate, script }
    }

    fn command(&self) -> [&str; 4] {
        ["--", "sh", "-c", &self.script]
    }

    /// Process id and attempt of each start.
    fn starts(&self) -> Vec<(i32, u32)> {
        let number = |text: &str| text.parse().unwrap();
        let start = |line: String| {
            let (pid, attempt) = line.split_once(' ').unwrap();
            (number(pid), u32::try_from(number(attempt)).unwrap())
        };
        lines(&self.mark).into_iter().map(start).collect()
    }

    /// Waits for the `count`th start and returns its process id.
    fn await_start(&self, count: usize) -> i32 {
        within(LONG, "the start", || lines(&self.mark).len() == count);
        self.starts()[count - 1].0
    }

    fn open(&self) {
        fs::write(&self.gate, "").unwrap();
    }
}

fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The supervisors of a node.
fn supervisors(dir: &Path) -> Vec<i32> {
    let spool = dir.join("spool").canonicalize().unwrap().display().to_string();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.get(1) == Some(&&b"supervise"[..]) && words.get(2) == Some(&spool.as_bytes())
    };
    pids.filter(is_one).collect()
}

#[test]
fn a_task_outlives_its_killed_daemon_and_ends_as_the_same_attempt() {
    let mut flock = Flock::of(1, SMALL);
    let task = Waiting::new(&flock);
    let job = flock.submit(1, &task.command());
    let pid = task.await_start(1);
    flock.cluster.kill(1).unwrap();
    flock.cluster.boot(1).unwrap();
    flock.cluster.await_ready(1).unwrap();
    assert_eq!(flock.state(1, &job), "running");
    assert!(lives(pid));
    // Its room is taken: what comes after it waits.
    let next = flock.submit(1, &["--", "true"]);
    assert_eq!(flock.state(1, &next), "pending");
    task.open();
    flock.at(1, &["wait", "--timeout", "60s", &job]).exits(7);
    flock.at(1, &["wait", "--timeout", "60s", &next]).exits(0);
    assert_eq!(task.starts(), [(pid, 1)]);
    assert_eq!(flock.at(1, &["logs", &job]).exits(0).out, "before\nafter\n");
    let spool = flock.cluster.dir(1).join("spool");
    let is_journal = |name: &str| name.ends_with(".journal");
    let journals = || {
        fs::read_dir(&spool)
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(is_journal))
            .count()
    };
    within(LONG, "the end of supervisors that nobody needs", || {
        journals() == 0 && supervisors(&flock.cluster.dir(1)).is_empty()
    });
}

#[test]
fn a_task_that_ends_while_the_daemon_is_away_is_told_as_what_it_was() {
    let mut flock = Flock::of(1, SMALL);
    let task = Waiting::new(&flock);
    let job = flock.submit(1, &task.command());
    let pid = task.await_start(1);
    flock.at(1, &["down"]).exits(0).says("what runs there goes on (1 task)");
    flock.cluster.stop(1).unwrap();
    assert!(lives(pid));
    task.open();
    within(LONG, "the end of the supervisor", || supervisors(&flock.cluster.dir(1)).is_empty());
    flock.cluster.boot(1).unwrap();
    flock.cluster.await_ready(1).unwrap();
    flock.at(1, &["wait", "--timeout", "60s", &job]).exits(7);
    assert_eq!(task.starts(), [(pid, 1)]);
    assert_eq!(flock.at(1, &["logs", &job]).exits(0).out, "before\nafter\n");
}

#[test]
fn a_time_limit_holds_while_no_daemon_is_there() {
    let mut flock = Flock::of(1, SMALL);
    let task = Waiting::new(&flock);
    let job = flock.submit(1, &[&["--timeout", "4s"], &task.command()[..]].concat());
    let pid = task.await_start(1);
    flock.cluster.kill(1).unwrap();
    assert!(lives(pid));
    within(LONG, "the end of the task", || !lives(pid));
    flock.cluster.boot(1).unwrap();
    flock.cluster.await_ready(1).unwrap();
    flock.at(1, &["wait", "--timeout", "60s", &job]).exits(124);
    let info = flock.at(1, &["job", "info", &job]).exits(0).out;
    assert!(info.contains("ran past its time limit"), "{info}");
    assert_eq!(task.starts(), [(pid, 1)]);
}

#[test]
fn a_cancel_reaches_a_task_whose_daemon_was_restarted() {
    let mut flock = Flock::of(2, SMALL);
    let (task, two) = (Waiting::new(&flock), flock.name(2));
    let job = flock.submit(1, &[&["--node", &two], &task.command()[..]].concat());
    let pid = task.await_start(1);
    flock.cluster.kill(2).unwrap();
    // While it is away, so that it hears of it from the other node's log.
    flock.at(1, &["cancel", &job]).exits(0);
    flock.cluster.boot(2).unwrap();
    within(LONG, "the end of the task", || !lives(pid));
    flock.cluster.await_ready(2).unwrap();
    flock.at(1, &["wait", "--timeout", "60s", &job]).exits(125);
    assert_eq!(task.starts(), [(pid, 1)]);
}

#[test]
fn restarting_every_node_in_turn_loses_and_repeats_nothing() {
    let _alone = alone();
    let mut flock = Flock::of(3, PAIR);
    let file = flock.file("starts");
    let script = format!("echo $STARLING_TASK >> {}; sleep 0.2", file.display());
    let array = format!("1-{TASKS}");
    let job = flock.submit(1, &["--array", &array, "--", "sh", "-c", &script]);
    for number in 1..=3 {
        let before = lines(&file).len();
        within(LONG, "some tasks", || lines(&file).len() > before + 10);
        if number == 2 {
            flock.cluster.kill(number).unwrap();
        } else {
            flock.cluster.stop(number).unwrap();
        }
        flock.cluster.boot(number).unwrap();
        flock.cluster.await_ready(3).unwrap();
    }
    assert_ne!(flock.state(2, &job), "done", "the restarts were to happen under load");
    flock.at(2, &["wait", "--timeout", "60s", &job]).exits(0);
    let mut starts = BTreeMap::new();
    for task in lines(&file) {
        *starts.entry(task).or_insert(0_usize) += 1;
    }
    assert_eq!(starts.len(), TASKS, "every task ran");
    let extra = lines(&file).len() - TASKS;
    // On a machine so busy that a restart takes longer than the others wait, they may have held a node for dead.
    let suspicions = (1..=3).map(|number| flock.log(number).matches("node is silent").count()).sum::<usize>();
    assert!(extra <= suspicions * 2, "{extra} extra starts, {suspicions} suspicions");
}

#[test]
fn down_with_kill_jobs_ends_them_and_their_owner_grants_them_again() {
    let mut flock = Flock::of(2, SMALL);
    let (task, one) = (Waiting::new(&flock), flock.name(1));
    let blocker = flock.submit(1, &["--node", &one, "--", "sleep", "600"]);
    within(LONG, "the blocker's start", || flock.state(1, &blocker) == "running");
    let job = flock.submit(1, &task.command());
    let pid = task.await_start(1);
    flock.at(2, &["down", "--kill-jobs"]).exits(0).says("1 task killed");
    assert!(!lives(pid), "ended before the answer");
    flock.cluster.stop(2).unwrap();
    flock.at(1, &["cancel", &blocker]).exits(0);
    task.await_start(2);
    task.open();
    flock.at(1, &["wait", "--timeout", "60s", &job]).exits(7);
    let attempts: Vec<u32> = task.starts().iter().map(|start| start.1).collect();
    assert!(attempts.len() == 2 && attempts[0] == 1 && attempts[1] > 1, "{attempts:?}");
}

#[test]
fn only_users_of_the_machine_may_stop_a_node() {
    let flock = Flock::of(1, SMALL);
    let info = flock.one(1, &["cluster", "info"]);
    let api = info["api_addresses"][0].as_str().unwrap().to_owned();
    let mut command = flock.cluster.cli(1, &["down"]);
    let output = command.env("STARLING_VIA", &api).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Unix socket"), "{output:?}");
    flock.at(1, &["run", "--", "true"]).exits(0);
}

#[test]
fn tasks_of_a_wiped_data_directory_are_reported_and_left_alone() {
    let mut flock = Flock::of(1, SMALL);
    let task = Waiting::new(&flock);
    flock.submit(1, &task.command());
    let pid = task.await_start(1);
    flock.cluster.kill(1).unwrap();
    fs::remove_dir_all(flock.cluster.dir(1)).unwrap();
    flock.cluster.boot(1).unwrap();
    flock.cluster.await_ready(1).unwrap();
    let doctor = flock.at(1, &["doctor"]);
    assert!(doctor.out.contains(&format!("{pid}")) && doctor.out.contains("was here before"), "{}", doctor.out);
    assert!(lives(pid));
    // Its output has nowhere to go, and it ends all the same.
    task.open();
    within(LONG, "the end of the orphans", || {
        flock.at(1, &["doctor"]).out.contains("no task runs that this node does not know")
    });
}

#[test]
fn a_killed_supervisor_takes_its_task_along_and_the_task_runs_again() {
    let flock = Flock::of(1, SMALL);
    let task = Waiting::new(&flock);
    let job = flock.submit(1, &task.command());
    let pid = task.await_start(1);
    for supervisor in supervisors(&flock.cluster.dir(1)) {
        kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    }
    task.await_start(2);
    assert!(!lives(pid), "it was dead before anybody was told that it is lost");
    task.open();
    flock.at(1, &["wait", "--timeout", "60s", &job]).exits(7);
}
