//! Three hosts on a bridge that share nothing but the secret: found by mDNS alone, parted, and healed.

use std::path::Path;

use starling_testnet::local::{Cluster, Namespaces, Options, Port, can_make_namespaces, share_secret};

use crate::support::{BINARY, Flock, LONG, alone, scratch, skip, within};

#[test]
fn hosts_that_share_only_the_secret_find_each_other_and_heal() {
    if !can_make_namespaces() {
        skip("network namespaces: no right to make them, or no iproute2");
        return;
    }
    let _alone = alone();
    let home = scratch();
    let hosts = Namespaces::make("e2e", 3).unwrap();
    share_secret(Path::new(BINARY), home.path(), 3).unwrap();
    let options = Options::uniform(Path::new(BINARY), home.path(), 3, &["--cpus", "1"]);
    let flock = Flock::with(home, Cluster::start_in_namespaces(options, hosts).unwrap());
    for number in 1..=3 {
        assert!(flock.at(number, &["nodes"]).out.contains("10.99.0."), "over the bridge");
    }
    let three = flock.name(3);
    let job = flock.submit(1, &["--node", &three, "--", "echo", "from the third"]);
    flock.at(2, &["wait", "--timeout", "30s", &job]).exits(0);
    assert_eq!(flock.at(2, &["logs", &job]).exits(0).out, "from the third\n");

    let hosts = flock.cluster.namespaces().unwrap();
    let state = |at: usize, of: &str| {
        let nodes = flock.json(at, &["nodes"]);
        let node = nodes.iter().find(|node| node["name"] == of).unwrap();
        node["state"].as_str().unwrap().to_owned()
    };
    hosts.set_port(3, Port::Down).unwrap();
    within(LONG, "the others to miss it", || (1..=2).all(|at| state(at, &three) == "down"));
    within(LONG, "it to miss the others", || state(3, &flock.name(1)) == "down");
    // Both sides go on.
    flock.at(1, &["run", "--", "true"]).exits(0);
    let apart = flock.submit(3, &["--", "echo", "alone"]);
    flock.at(3, &["wait", "--timeout", "30s", &apart]).exits(0);
    hosts.set_port(3, Port::Up).unwrap();
    flock.cluster.await_ready(3).unwrap();
    flock.await_equal(&[1, 2, 3]);
    assert_eq!(flock.at(1, &["logs", &apart]).exits(0).out, "alone\n");
    flock.at(2, &["doctor"]).exits(0);
}
