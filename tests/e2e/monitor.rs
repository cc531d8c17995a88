//! Monitoring: what a node's machine and its running jobs do is seen at every node, and leaves no trace in the log.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::Command;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::http::Http;
use crate::support::{BINARY, Flock, LONG, Running, SMALL, alone, lines, within};

/// The node's line as `nodes` has it at `number`.
fn line(flock: &Flock, number: usize, name: &str) -> Value {
    let mut lines = flock.json(number, &["nodes"]);
    lines.retain(|line| line["name"] == name);
    assert!(lines.len() <= 1, "{lines:?}");
    lines.pop().unwrap_or_default()
}

/// What the running tasks of `job` use at the node, as seen at `number`.
fn used(flock: &Flock, number: usize, name: &str, job: &str) -> Value {
    let detail = flock.one(number, &["node", "info", name]);
    let jobs = detail["node"]["jobs"].as_array().cloned().unwrap_or_default();
    jobs.into_iter().find(|used| used["job"] == job).unwrap_or_default()
}

#[test]
fn a_burning_job_is_seen_from_another_node() {
    let _alone = alone();
    let flock = Flock::of(2, SMALL);
    let (one, two) = (flock.name(1), flock.name(2));
    let stop = flock.file("stop");
    // The shell waits for a child that burns: only the process group as a whole shows it.
    let script = format!("(while [ ! -e {} ]; do :; done); exit 7", stop.display());
    let job = flock.submit(1, &["--name", "burn", "--node", &one, "--", "sh", "-c", &script]);
    within(LONG, "the reading of node 1 at node 2", || {
        let usage = &line(&flock, 2, &one)["usage"];
        usage["cpu_milli"].as_u64() > Some(100) && usage["mem_used_bytes"].as_u64() > Some(0)
    });
    within(LONG, "the job's usage at node 2", || {
        let used = used(&flock, 2, &one, &job);
        used["cpu_milli"].as_u64() > Some(100) && used["cpu_ms"].as_u64() > Some(500) && used["rss_bytes"] != 0
    });
    let seen = used(&flock, 2, &one, &job);
    assert_eq!((&seen["name"], &seen["tasks"]), (&"burn".into(), &1.into()), "{seen}");
    assert_eq!(used(&flock, 2, &two, &job), Value::Null, "it runs on one node only");
    let page = flock.at(2, &["top", "--once"]).exits(0).says("as seen by");
    assert!(page.out.contains(&job) && page.out.contains("burn") && page.out.contains('%'), "{}", page.out);
    assert!(!page.out.contains('\u{1b}'), "a pipe gets plain text: {:?}", page.out);
    let page = flock.at(2, &["node", "info", &one]).exits(0);
    assert!(page.out.contains(&job) && page.out.contains("last 10m00s"), "{}", page.out);
    fs::write(&stop, "").unwrap();
    flock.at(2, &["wait", &job]).exits(7);
    within(LONG, "the job gone from the reading", || used(&flock, 2, &one, &job) == Value::Null);
}

#[test]
fn top_goes_on_until_it_is_interrupted() {
    let flock = Flock::of(1, SMALL);
    let path = flock.file("frames");
    let mut command = Command::new(BINARY);
    command.arg("--via").arg(flock.cluster.dir(1).join("api.sock")).arg("top");
    let mut top = Running::start(command.stdout(File::create(&path).unwrap()));
    let frames = || lines(&path).iter().filter(|line| line.starts_with("1 of 1 nodes")).count();
    within(LONG, "three frames with a reading", || frames() >= 3);
    kill_process(top.pid(), Signal::INT).unwrap();
    within(LONG, "the end of it", || top.ended() == Some(0));
}

#[test]
fn the_past_is_kept_everywhere_and_nothing_is_logged() {
    let flock = Flock::of(2, SMALL);
    flock.at(1, &["run", "--", "true"]).exits(0);
    // The first claim to be the gateway is an event too.
    crate::hwp::await_gateway(&flock, &[1, 2]);
    flock.await_equal(&[1, 2]);
    let events = |number: usize| flock.one(number, &["cluster", "info"])["events"].clone();
    let before = [events(1), events(2)];
    let past = |number: usize, of: &str, since: &str| -> Vec<Value> {
        let detail = flock.one(number, &["node", "info", of, "--since", since]);
        detail["history"].as_array().cloned().unwrap_or_default()
    };
    let names = [flock.name(1), flock.name(2)];
    for number in [1, 2] {
        for name in &names {
            within(LONG, "three readings", || past(number, name, "1h").len() >= 3);
        }
    }
    let samples = past(2, &names[0], "1h");
    let times: BTreeSet<u64> = samples.iter().map(|sample| sample["at_unix_ms"].as_u64().unwrap()).collect();
    assert_eq!(times.len(), samples.len(), "each reading once: {samples:?}");
    assert!(samples.iter().all(|sample| sample["mem_used_bytes"].as_u64() > Some(0)), "{samples:?}");
    assert!(past(2, &names[0], "0s").is_empty());
    let address = line(&flock, 2, &names[1])["addresses"][0].as_str().unwrap().to_owned();
    let (status, detail) = Http::open(&address).get(&format!("/v1/nodes/{}?since_ms=3600000", names[0]));
    assert_eq!(status, 200, "{detail}");
    assert!(detail["history"].as_array().unwrap().len() >= samples.len(), "{detail}");
    assert_eq!([events(1), events(2)], before, "monitoring is never logged");
    flock.at(1, &["node", "info", "nobody"]).exits(1).says("no node is called `nobody`").says("starling nodes");
    flock.at(1, &["node", "info", "--since", "2h"]).exits(2).says("1h or less");
}
