//! Three nodes on one host: they find each other, and any of them serves any job.

use std::fs::File;
use std::process::Command;

use crate::support::{BINARY, Done, Flock, LONG, Running, SMALL, alone, client, scratch, up, within};

#[test]
fn three_nodes_without_flags_find_each_other() {
    // Whoever else uses the usual ports waits.
    let _alone = alone();
    let home = scratch();
    let start = |number: usize| {
        let log = File::create(home.path().join(format!("log-{number}"))).unwrap();
        // Nothing but the home, which keeps this apart from the user's own nodes.
        Running::start(up(home.path(), &[]).stdout(log.try_clone().unwrap()).stderr(log))
    };
    let nodes: Vec<Running> = (1..=3).map(start).collect();
    let at = |number: usize, args: &[&str]| -> Done {
        let mut command = Command::new(BINARY);
        command.env("STARLING_HOME", home.path()).args(["--via", &number.to_string()]).args(args);
        command.output().unwrap().into()
    };
    for number in 1..=3 {
        within(LONG, "three ready nodes", || at(number, &["nodes"]).out.matches(" READY ").count() == 3);
    }
    let done = client(home.path(), &["run", "--", "echo", "hello"]).exits(0);
    assert_eq!(done.out, "hello\n");
    drop(nodes);
    client(home.path(), &["nodes"]).exits(69);
}

#[test]
fn run_streams_both_apart_and_exits_with_the_jobs_code() {
    let flock = Flock::of(2, SMALL);
    let done = flock.at(1, &["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).exits(7);
    assert_eq!(done.out, "out\n");
    assert_eq!(done.err, "err\n");
    let elsewhere = flock.name(2);
    let done = flock.at(1, &["run", "--node", &elsewhere, "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).exits(7);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("out\n", "err\n"));
}

#[test]
fn a_job_for_another_node_runs_there_and_its_output_is_read_at_a_third() {
    let flock = Flock::of(3, SMALL);
    let two = flock.name(2);
    let job = flock.submit(1, &["--node", &two, "--", "sh", "-c", "echo from $STARLING_SUPERVISOR; echo trouble >&2"]);
    flock.at(3, &["wait", &job]).exits(0);
    let logs = flock.at(3, &["logs", &job]).exits(0);
    let spool = flock.cluster.dir(2).join("spool").canonicalize().unwrap();
    assert!(logs.out.starts_with(&format!("from {}/", spool.display())), "not of the second node: {}", logs.out);
    assert!(logs.err.contains("trouble"), "{}", logs.err);
    let summary = flock.one(3, &["jobs", &job]);
    assert_eq!(summary["nodes"], serde_json::json!([two]));
    assert_eq!(summary["owner"], flock.name(1));
}

#[test]
fn every_node_tells_the_same_of_every_job() {
    let flock = Flock::of(3, SMALL);
    for number in 1..=3 {
        let job = flock.submit(number, &["--array", "1-4", "--", "sh", "-c", "exit $((STARLING_TASK % 3))"]);
        flock.at(number, &["wait", &job]).exits(2);
    }
    flock.await_equal(&[1, 2, 3]);
    let seen: Vec<_> = (1..=3).map(|number| flock.json(number, &["jobs"])).collect();
    assert_eq!(seen[0].len(), 3);
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    assert!(seen[0].iter().all(|job| job["state"] == "failed" && job["exit"] == 2 && job["tasks"] == 4));
    for args in [&["nodes"][..], &["cluster", "info"], &["doctor"], &["events", "-n", "10"], &["job", "info", "1"]] {
        if args[0] == "job" {
            let id = seen[0][0]["id"].as_str().unwrap();
            flock.one(2, &["job", "info", id]);
            flock.one(2, &["job", "explain", id]);
        } else {
            assert!(!flock.json(2, args).is_empty(), "{args:?}");
        }
    }
    let done = flock.at(1, &["doctor"]).exits(0);
    assert!(done.out.contains("all 3 facts roots are equal"), "{}", done.out);
}
