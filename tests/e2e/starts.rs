//! Starts that cannot work say why, and what to do.

use std::net::TcpListener;

use crate::catch_up::{api_of, link_of};
use crate::support::{Flock, SMALL, client, refused_start, scratch};

#[test]
fn a_data_directory_in_use_is_refused() {
    let flock = Flock::of(1, SMALL);
    let home = scratch();
    let dir = flock.cluster.dir(1);
    let done = refused_start(home.path(), &["--no-mdns", "--dir", dir.to_str().unwrap()]);
    let done = done.says("is in use by process").says("--dir");
    assert!(done.err.contains(&flock.cluster.pid(1).unwrap().to_string()), "{}", done.err);
    flock.at(1, &["run", "--", "true"]).exits(0);
}

#[test]
fn ports_in_use_are_refused() {
    let flock = Flock::of(1, SMALL);
    let home = scratch();
    let link = link_of(&flock, 1);
    refused_start(home.path(), &["--listen", &link]).says(&link).says("in use").says("--listen");
    let api = api_of(&flock, 1);
    refused_start(home.path(), &["--listen", "127.0.0.1:0", "--api", &api]).says(&api).says("in use").says("--api");
    // A port that something else holds.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    refused_start(home.path(), &["--listen", &taken]).says(&taken);
    flock.at(1, &["doctor"]).exits(0);
}

#[test]
fn a_node_without_a_secret_does_not_listen_to_the_world() {
    let home = scratch();
    refused_start(home.path(), &["--listen", "0.0.0.0:0"]).says("starling cluster init");
    let absent = home.path().join("absent");
    refused_start(home.path(), &["--secret-file", absent.to_str().unwrap()]).says("absent");
    std::fs::write(&absent, "not hex").unwrap();
    refused_start(home.path(), &["--secret-file", absent.to_str().unwrap()]).says("absent");
}

#[test]
fn without_a_daemon_clients_exit_with_69() {
    let home = scratch();
    for args in [&["nodes"][..], &["submit", "--", "true"], &["run", "--", "true"], &["jobs"], &["doctor"]] {
        client(home.path(), args).exits(69).says("starling up");
    }
    client(home.path(), &["--via", "127.0.0.1:1", "nodes"]).exits(69).says("127.0.0.1:1");
    client(home.path(), &["--via", "nightjar", "nodes"]).exits(69).says("nightjar");
}

#[test]
fn the_data_of_another_cluster_is_refused() {
    let mut flock = Flock::of(1, SMALL);
    flock.submit(1, &["--", "true"]);
    flock.cluster.stop(1).unwrap();
    let home = scratch();
    client(home.path(), &["cluster", "init"]).exits(0);
    let dir = flock.cluster.dir(1);
    let flags = ["--no-mdns", "--listen", "127.0.0.1:0", "--dir", dir.to_str().unwrap()];
    refused_start(home.path(), &flags).says("another cluster");
    flock.cluster.boot(1).unwrap();
    flock.cluster.await_ready(1).unwrap();
    assert_eq!(flock.json(1, &["jobs"]).len(), 1, "and left as it was");
}
