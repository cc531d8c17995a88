//! Succession: the node that was submitted to dies for good, and its jobs go on elsewhere.

use std::path::Path;

use crate::support::{Flock, LONG, PAIR, SMALL, alone, lines, say, within};

/// Of a task that tells of its start, then works for a while.
fn telling(file: &Path, seconds: &str) -> String {
    format!("echo \"$STARLING_TASK $STARLING_ATTEMPT\" >> {}; sleep {seconds}", file.display())
}

#[test]
fn a_queue_goes_on_without_the_node_that_took_it() {
    let _alone = alone();
    let mut flock = Flock::of(3, PAIR);
    let file = flock.file("starts");
    let (one, two, three) = (flock.name(1), flock.name(2), flock.name(3));
    // Everybody is busy, so that the queue is long when its owner goes.
    let job = flock.submit(1, &["--array", "1-150", "--", "sh", "-c", &telling(&file, "0.5")]);
    let last = flock.submit(1, &["--node", &three, "--", "sh", "-c", "echo survived"]);
    within(LONG, "some tasks", || lines(&file).len() > 12);
    flock.cluster.kill(1).unwrap();
    let killed = std::time::Instant::now();
    let before = lines(&file).len();

    let explained = flock.at(2, &["job", "explain", &job]).exits(0).out;
    within(LONG, "the queue to move again", || flock.one(2, &["job", "info", &job])["owner_term"] == 2);
    let moved = killed.elapsed();
    flock.at(3, &["wait", "--timeout", "120s", &job, &last]).exits(0);
    assert!(before < 150, "nothing was left to adopt: {explained}");

    let detail = flock.one(2, &["job", "info", &job]);
    assert_eq!(detail["summary"]["counts"]["done"], 150);
    assert_eq!(detail["seal"]["term"], 2, "{detail}");
    let owner = detail["summary"]["owner"].as_str().unwrap();
    assert!(owner == two || owner == three, "{owner}");
    let starts = lines(&file);
    let extra = starts.len() - 150;
    // What ran on its two slots, what its last words did not say, and as much again where a slow machine takes a live node for dead.
    assert!(extra <= 8, "{extra} extra starts: the dead node had two slots");
    assert!(detail["extra_starts"].as_u64().unwrap_or(0) <= extra as u64, "{detail}");
    assert_eq!(flock.at(2, &["logs", &last]).exits(0).out, "survived\n");
    say(&format!("MEASURED: adopted {:.1} s after the kill, {extra} extra starts of 150", moved.as_secs_f64()));

    // It comes back, defers, and takes jobs of its own again.
    flock.cluster.boot(1).unwrap();
    flock.cluster.await_ready(3).unwrap();
    flock.await_equal(&[1, 2, 3]);
    assert_eq!(flock.one(1, &["job", "info", &job])["summary"]["owner"], owner);
    assert_eq!(flock.at(1, &["run", "--", "true"]).code, Some(0));
    let fresh = flock.submit(1, &["--", "true"]);
    flock.at(2, &["wait", "--timeout", "30s", &fresh]).exits(0);
    assert_eq!(flock.one(2, &["job", "info", &fresh])["summary"]["owner"], one.as_str());
    flock.at(1, &["doctor"]).exits(0);
}

#[test]
fn one_of_three_waits_for_the_others_or_for_the_operators_word() {
    let _alone = alone();
    let mut flock = Flock::of(3, SMALL);
    let (one, two) = (flock.name(1), flock.name(2));
    // Everybody is in the log before two of them go.
    for number in 1..=3 {
        flock.at(number, &["run", "--", "true"]).exits(0);
    }
    let job = flock.submit(1, &["--ack", "remote1", "--node", &flock.name(3), "--array", "1-3", "--", "sleep", "2"]);
    flock.await_equal(&[1, 2, 3]);
    flock.cluster.kill(1).unwrap();
    flock.cluster.kill(2).unwrap();
    let explains = |words: &str| flock.at(3, &["job", "explain", &job]).exits(0).out.contains(words);
    within(LONG, "the reason why nobody takes over", || explains("with 1 of 3 nodes in sight nobody here takes over"));
    flock.at(3, &["cluster", "forget", "nobody"]).says("nobody");
    flock.at(3, &["cluster", "forget", &flock.name(3)]).says("is not gone");
    within(LONG, "silence enough to forget a node", || flock.at(3, &["cluster", "forget", &two]).code == Some(0));
    assert!(flock.at(3, &["nodes"]).exits(0).out.contains("gone for good"));
    // Of two members one is half.
    flock.at(3, &["wait", "--timeout", "60s", &job]).exits(0);
    assert_eq!(flock.one(3, &["job", "info", &job])["summary"]["owner"], flock.name(3).as_str());
    // A node that comes back counts again.
    flock.cluster.boot(1).unwrap();
    flock.cluster.boot(2).unwrap();
    flock.cluster.await_ready(3).unwrap();
    flock.await_equal(&[1, 2, 3]);
    assert_eq!(flock.state(1, &job), "done", "as {one} sees it");
}

#[test]
fn a_drained_node_finishes_what_it_has_and_takes_nothing_new() {
    let flock = Flock::of(2, SMALL);
    let two = flock.name(2);
    let running = flock.submit(1, &["--node", &two, "--", "sleep", "3"]);
    within(LONG, "a running task", || flock.state(1, &running) == "running");
    let said = flock.at(1, &["node", "drain", &two, "--reason", "new disk"]).exits(0).out;
    assert!(said.contains("takes no new work"), "{said}");
    within(LONG, "the word to arrive", || flock.at(2, &["nodes"]).out.contains("draining: new disk"));
    let waiting = flock.submit(2, &["--node", &two, "--", "true"]);
    flock.at(1, &["wait", "--timeout", "30s", &running]).exits(0);
    within(LONG, "the reason", || flock.at(1, &["job", "explain", &waiting]).out.contains("takes no work now"));
    assert_eq!(flock.state(1, &waiting), "pending");
    flock.at(2, &["node", "resume"]).exits(0);
    flock.at(1, &["wait", "--timeout", "30s", &waiting]).exits(0);
    flock.at(1, &["node", "drain", "nobody"]).says("nobody");
}
