//! Years in small: jobs are retired, the log is bounded, history answers, and an empty node joins a snapshot.

use std::path::Path;

use serde_json::json;
use starling_testnet::local::{Cluster, Options};

use crate::catch_up::api_of;
use crate::http::Http;
use crate::support::{BINARY, Flock, LONG, PAIR, alone, scratch, within};

/// Little is kept, so that little is enough for all of it to happen.
const KEEP: [(&str, &str); 5] = [
    ("STARLING_RETAIN", "1s"),
    ("STARLING_SNAPSHOT_LOG", "256K"),
    ("STARLING_SNAPSHOT_EVERY", "1s"),
    ("STARLING_LOG_KEEP", "256K"),
    ("STARLING_LOG_KEEP_FOR", "1ms"),
];

#[test]
fn history_answers_for_what_is_retired_and_an_empty_node_joins_a_snapshot() {
    let _alone = alone();
    let home = scratch();
    let mut options = Options::uniform(Path::new(BINARY), home.path(), 3, PAIR);
    for env in &mut options.env {
        env.extend(KEEP.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
    let mut flock = Flock::with(home, Cluster::start(options).unwrap());
    let first = flock.submit(1, &["--name", "old", "--", "echo", "kept"]);
    flock.at(1, &["wait", "--timeout", "30s", &first]).exits(0);
    flock.cluster.kill(3).unwrap();
    std::fs::remove_dir_all(flock.cluster.dir(3)).unwrap();

    // Until both others have dropped the beginning of their logs.
    let mut http = Http::open(&api_of(&flock, 1));
    let gone = |flock: &Flock, number| !flock.cluster.dir(number).join("log/00000001.log").exists();
    let mut submitted = 1;
    within(LONG, "logs without their beginnings", || {
        for _ in 0..50 {
            let (status, reply) = http.post("/v1/submit", &json!({"command": ["/bin/true"], "name": "x".repeat(120)}));
            assert_eq!(status, 200, "{reply}");
        }
        submitted += 50;
        gone(&flock, 1) && gone(&flock, 2)
    });
    flock.cluster.boot(3).unwrap();
    flock.cluster.await_ready(3).unwrap();
    flock.await_equal(&[1, 2, 3]);
    assert!(flock.log(3).contains("took over a snapshot"), "{}", flock.log(3));

    // All of it is sealed and retired before long.
    within(LONG, "every job done", || {
        let list = http.get("/v1/jobs?states=done&limit=1").1;
        list["total"].as_u64() == Some(submitted)
    });
    within(LONG, "the first job retired", || {
        flock.one(1, &["job", "info", &first])["summary"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("retired"))
    });
    for number in [1, 2] {
        assert_eq!(flock.state(number, &first), "done");
        let logs = flock.at(number, &["logs", &first]).exits(0);
        assert_eq!(logs.line(), "kept");
        flock.at(number, &["wait", "--timeout", "5s", &first]).exits(0);
    }
    let told = flock.at(3, &["job", "info", &first]).exits(0);
    assert!(told.out.contains("ask a node that was there"), "{}", told.out);

    // Neither a crash nor a start from the snapshot brings anything back.
    flock.cluster.kill(1).unwrap();
    flock.cluster.boot(1).unwrap();
    flock.cluster.await_ready(3).unwrap();
    assert_eq!(flock.state(1, &first), "done");
    let next = flock.submit(1, &["--", "true"]);
    let number = |job: &str| job.rsplit_once('-').unwrap().1.parse::<u64>().unwrap();
    assert!(number(&next) > submitted, "{next} after {submitted} jobs");
    flock.at(1, &["wait", "--timeout", "30s", &next]).exits(0);
    flock.await_equal(&[1, 2, 3]);
}
