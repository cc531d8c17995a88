//! A node that was away takes what it missed.

use std::thread;

use serde_json::json;

use crate::http::Http;
use crate::support::{Flock, LONG, PAIR, alone, within};

/// Submissions, and connections that make them.
const JOBS: usize = 1_000;
const CLIENTS: usize = 4;

#[test]
fn a_node_down_during_5000_events_catches_up() {
    let _alone = alone();
    let mut flock = Flock::of(3, PAIR);
    flock.cluster.kill(3).unwrap();
    let before = flock.one(1, &["cluster", "info"])["events"].as_u64().unwrap();
    let api: Vec<String> = [1, 2].map(|number| api_of(&flock, number)).into();
    let submit = |client: usize| {
        let mut http = Http::open(&api[client % 2]);
        for _ in 0..JOBS / CLIENTS {
            let (status, reply) = http.post("/v1/submit", &json!({"command": ["/bin/true"]}));
            assert_eq!(status, 200, "{reply}");
        }
    };
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || submit(client));
        }
    });
    let job = flock.submit(1, &["--array", "1-500", "--", "true"]);
    flock.at(1, &["wait", "--timeout", "60s", &job]).exits(0);
    within(LONG, "all jobs done", || {
        let (status, list) = Http::open(&api[0]).get("/v1/jobs?states=done&limit=1");
        assert_eq!(status, 200, "{list}");
        list["total"].as_u64() == Some(JOBS as u64 + 1)
    });
    let events = flock.one(1, &["cluster", "info"])["events"].as_u64().unwrap() - before;
    assert!(events >= 5_000, "only {events} events");

    flock.cluster.boot(3).unwrap();
    flock.cluster.await_ready(3).unwrap();
    flock.await_equal(&[1, 2, 3]);
    for number in 1..=3 {
        // A node that has just come back may not have been heard of everywhere yet.
        within(LONG, "agreement of all three", || {
            let done = flock.at(number, &["doctor"]).exits(0);
            done.out.contains("all 3 facts roots are equal")
        });
    }
    assert_eq!(flock.state(3, &job), "done");
    flock.at(3, &["run", "--", "true"]).exits(0);
}

/// Where a node serves its API.
pub(crate) fn api_of(flock: &Flock, number: usize) -> String {
    flock.one(number, &["cluster", "info"])["api_addresses"][0].as_str().unwrap().to_owned()
}

/// Where a node listens for links.
pub(crate) fn link_of(flock: &Flock, number: usize) -> String {
    flock.one(number, &["cluster", "info"])["p2p_addresses"][0].as_str().unwrap().to_owned()
}
