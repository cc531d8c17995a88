//! Workers as processes of their own, one that is called and one that holds a stream: two hundred jobs each, at a node that is not the gateway.
//!
//! Does not: kill a worker or its gateway (`hwp_failover` does the latter).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::hwp::{HOST, WORKED, await_gateway, await_workers, endings, others, seat, start_worker, tasks, url};
use crate::support::{Flock, LONG, alone, lines, within};

/// Tasks of the array that ends in three ways, in turn.
const MIXED: u64 = 180;
/// Jobs that are submitted one by one.
const SINGLE: u64 = 8;
/// Tasks that run past their limit, and tasks that are cancelled.
const LATE: u64 = 6;
const CANCELLED: u64 = 6;

#[test]
fn a_worker_that_is_called_runs_two_hundred_jobs_and_tells_their_ends_apart() {
    two_hundred_jobs("called", &["--listen", "127.0.0.1:0"], "dial-back");
}

#[test]
fn a_worker_that_holds_a_stream_runs_two_hundred_jobs_and_tells_their_ends_apart() {
    two_hundred_jobs("streaming", &[], "stream");
}

fn two_hundred_jobs(id: &str, flags: &[&str], reach: &str) {
    assert_eq!(MIXED + SINGLE + LATE + CANCELLED, 200);
    let _alone = alone();
    let flock = Flock::of(3, HOST);
    let gateway = await_gateway(&flock, &[1, 2, 3]);
    let others = others(&flock, &gateway);
    let (at, elsewhere) = (others[0], others[1]);
    let _worker = start_worker(&flock, id, &[&url(&flock, &gateway, at)], &[&["--slots", "8"], flags].concat());
    await_workers(&flock, at, 1);
    let worker = workers(&flock, elsewhere).remove(0);
    assert_eq!((&worker["name"], &worker["reach"], &worker["slots"]), (&id.into(), &reach.into(), &8.into()));

    let label = format!("only={id}");
    let submit = |args: &[&str], script: &str| {
        let all = [&["--cpus", "0.01", "--constraint", &label], args, &["--", "sh", "-c", script]].concat();
        flock.submit(at, &all)
    };
    let range = |count: u64| format!("0-{}", count - 1);
    // Cancelled while they run, so they come first and leave two slots to the others.
    let began = flock.file("began");
    let cancelled = submit(&["--array", &range(CANCELLED)], &format!("echo x >> {}; exec sleep 600", began.display()));
    let mixed = "echo task $STARLING_TASK; echo trouble >&2; case $((STARLING_TASK % 3)) in 0) exit 0;; 1) exit 3;; 2) kill -9 $$;; esac";
    let mixed = submit(&["--array", &range(MIXED)], mixed);
    within(LONG, "tasks to be cancelled", || lines(&began).len() as u64 == CANCELLED);
    flock.at(elsewhere, &["cancel", &cancelled]).exits(0);
    let late = submit(&["--array", &range(LATE), "--timeout", "1s"], "echo too long; exec sleep 600");
    let single: Vec<String> = (0..SINGLE).map(|code| submit(&[], &format!("echo single; exit {}", code % 2))).collect();

    let done =
        |job: &str| within(WORKED, job, || ["failed", "done", "cancelled"].contains(&&*flock.state(elsewhere, job)));
    for job in [&cancelled, &mixed, &late].into_iter().chain(&single) {
        done(job);
    }
    let third = MIXED / 3;
    let expected = [("exited 0", third), ("exited 3", third), ("signalled 137", third)];
    assert_ended(&flock, elsewhere, &mixed, &expected);
    assert_ended(&flock, elsewhere, &late, &[("timed_out 124", LATE)]);
    assert_ended(&flock, elsewhere, &cancelled, &[("cancelled 125", CANCELLED)]);
    for (code, job) in single.iter().enumerate() {
        assert_ended(&flock, elsewhere, job, &[(["exited 0", "exited 1"][code % 2], 1)]);
        assert_eq!(flock.at(elsewhere, &["logs", job]).exits(0).out, "single\n");
    }
    assert_all_by(&flock, elsewhere, &mixed, id);
    assert_output(&flock, elsewhere, &mixed, &late);
    within(LONG, "free slots", || seat(&flock, elsewhere).slots_free == 8);
    assert!(workers(&flock, at)[0]["tasks"].as_array().is_none_or(Vec::is_empty), "nothing is left to it");
}

/// The gateway's workers as a node lists them.
fn workers(flock: &Flock, number: usize) -> Vec<Value> {
    flock.json(number, &["nodes"]).into_iter().filter(|line| line["kind"] == "worker").collect()
}

#[track_caller]
fn assert_ended(flock: &Flock, number: usize, job: &str, expected: &[(&str, u64)]) {
    let expected: BTreeMap<String, u64> = expected.iter().map(|(how, count)| ((*how).to_owned(), *count)).collect();
    assert_eq!(endings(flock, number, job), expected, "{job}");
}

/// Each task was tried once, by this worker, and people can read how they ended.
#[track_caller]
fn assert_all_by(flock: &Flock, number: usize, job: &str, id: &str) {
    let detail = flock.one(number, &["job", "info", job]);
    let attempts = detail["attempts"].as_array().unwrap();
    assert!(attempts.iter().all(|attempt| attempt["worker"] == id && attempt["attempt"] == 1), "{attempts:?}");
    assert_eq!(attempts.iter().map(tasks).sum::<u64>(), MIXED);
    assert_eq!(detail["seal"]["tasks"], MIXED, "all sealed");
    let shown = flock.at(number, &["job", "info", job]).exits(0).out;
    for words in [&format!("/{id}"), "ended by signal 9", "exit 3"] {
        assert!(shown.contains(words), "no `{words}` in:\n{shown}");
    }
}

/// Some of the output, and no more than the commands wrote, except for the mark of how they were ended.
#[track_caller]
fn assert_output(flock: &Flock, number: usize, mixed: &str, late: &str) {
    for task in [0, 1, 2, MIXED - 1] {
        let task = task.to_string();
        let logs = flock.at(number, &["logs", mixed, &task]).exits(0);
        // The protocol has one log for both streams, and no order between them.
        let mut lines: Vec<&str> = logs.out.lines().filter(|line| !line.starts_with("[starling: ")).collect();
        lines.sort_unstable();
        assert_eq!(lines, [format!("task {task}").as_str(), "trouble"], "{logs:?}");
    }
    let all = flock.at(number, &["logs", mixed]).exits(0).out;
    assert_eq!(all.lines().filter(|line| line.starts_with("task ")).count() as u64, MIXED);
    assert!(flock.at(number, &["logs", late, "0"]).exits(0).out.starts_with("too long\n"));
}
