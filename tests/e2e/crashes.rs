//! Kill -9: of one executor, and of all nodes at once.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Flock, LONG, PAIR, SMALL, alone, lines, within};

/// The script of a task that tells of its start, then works for a while.
fn telling(file: &std::path::Path, seconds: &str) -> String {
    format!("echo \"$STARLING_TASK $STARLING_ATTEMPT\" >> {}; sleep {seconds}", file.display())
}

/// Starts per task.
fn starts(file: &std::path::Path) -> BTreeMap<u32, usize> {
    let mut starts = BTreeMap::new();
    for line in lines(file) {
        let task = line.split_once(' ').unwrap().0.parse().unwrap();
        *starts.entry(task).or_default() += 1;
    }
    starts
}

#[test]
fn a_killed_executor_costs_at_most_the_tasks_that_ran_there() {
    let _alone = alone();
    let mut flock = Flock::of(3, PAIR);
    let file = flock.file("starts");
    let job = flock.submit(1, &["--array", "1-200", "--", "sh", "-c", &telling(&file, "0.1")]);
    within(LONG, "a third of the tasks", || lines(&file).len() > 60);
    flock.cluster.kill(3).unwrap();
    flock.at(1, &["wait", "--timeout", "60s", &job]).exits(0);

    let starts = starts(&file);
    assert_eq!(starts.len(), 200, "every task ran");
    let extra = starts.values().sum::<usize>() - 200;
    assert!(extra <= 2, "{extra} extra starts, but the node had two slots");
    let detail = flock.one(2, &["job", "info", &job]);
    assert_eq!(detail["summary"]["counts"]["done"], 200);
    assert_eq!(detail["seal"]["tasks"], 200, "all sealed");
    let attempts = detail["attempts"].as_array().unwrap();
    assert!(attempts.iter().any(|attempt| attempt["attempt"] == 2), "no second attempt: {attempts:?}");
    assert!(attempts.iter().all(|attempt| attempt["attempt"].as_u64() <= Some(2)));
    let down = flock.json(1, &["nodes"]).into_iter().filter(|node| node["state"] == "down").count();
    assert_eq!(down, 1);
}

#[test]
fn without_faults_every_task_starts_once() {
    let _alone = alone();
    let flock = Flock::of(3, PAIR);
    let file = flock.file("starts");
    let job = flock.submit(1, &["--array", "1-300", "--", "sh", "-c", &telling(&file, "0")]);
    flock.at(2, &["wait", "--timeout", "60s", &job]).exits(0);
    assert_eq!(lines(&file).len(), 300);
    assert!(starts(&file).values().all(|count| *count == 1));
    assert!(lines(&file).iter().all(|line| line.ends_with(" 1")));
}

#[test]
fn all_nodes_killed_at_once_lose_no_acknowledged_job() {
    let _alone = alone();
    let mut flock = Flock::of(3, SMALL);
    let file = flock.file("starts");
    let mut jobs = Vec::new();
    for number in 1..=3 {
        // The first of each is soon running, the others wait behind it.
        jobs.push(flock.submit(number, &["--array", "1-10", "--", "sh", "-c", &telling(&file, "0.2")]));
        jobs.push(flock.submit(number, &["--", "true"]));
        jobs.push(flock.submit(number, &["--each-line", write_lines(&flock).as_str(), "--", "true"]));
    }
    within(LONG, "running tasks", || lines(&file).len() > 3);
    for number in 1..=3 {
        flock.cluster.kill(number).unwrap();
    }
    for number in 1..=3 {
        flock.cluster.boot(number).unwrap();
    }
    flock.cluster.await_ready(3).unwrap();
    let all: Vec<&str> = jobs.iter().map(String::as_str).collect();
    flock.at(2, &[&["wait", "--timeout", "60s"], &all[..]].concat()).exits(0);
    // What node 2 knows is on its way to node 3.
    flock.await_equal(&[1, 2, 3]);
    let seen = flock.json(3, &["jobs", "--all"]);
    assert_eq!(seen.len(), jobs.len());
    assert!(seen.iter().all(|job: &Value| job["state"] == "done"), "{seen:?}");
    flock.at(1, &["doctor"]).exits(0);
}

#[test]
fn what_two_nodes_acknowledged_outlives_one_of_them() {
    let _alone = alone();
    let mut flock = Flock::of(2, SMALL);
    // Behind one that fills the only wanted node, so that they wait.
    let one = flock.name(1);
    let mut jobs = vec![flock.submit(1, &["--node", &one, "--", "sleep", "600"])];
    for _ in 0..20 {
        jobs.push(flock.submit(1, &["--node", &one, "--ack", "remote1", "--", "true"]));
    }
    let last = flock.at(1, &["submit", "--ack", "remote1", "--node", &one, "--", "true"]).exits(0);
    flock.cluster.kill(1).unwrap();
    assert!(last.out.contains("safe on two nodes"), "{}", last.out);
    let seen = flock.json(2, &["jobs", "--all"]);
    assert_eq!(seen.len(), jobs.len() + 1, "at once, from its own disk");
    flock.cluster.boot(1).unwrap();
    flock.cluster.await_ready(2).unwrap();
    flock.at(2, &["cancel", &jobs[0]]).exits(0);
    let rest: Vec<&str> = jobs[1..].iter().map(String::as_str).collect();
    flock.at(2, &[&["wait", "--timeout", "60s"], &rest[..]].concat()).exits(0);
}

fn write_lines(flock: &Flock) -> String {
    let path = flock.file("lines");
    std::fs::write(&path, "a\nb\nc\n").unwrap();
    path.display().to_string()
}
