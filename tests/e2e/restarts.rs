//! Nodes that stop, in order or not, and come back to what they had.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use starling_testnet::local::{Cluster, Options};

use crate::support::{BINARY, Flock, LONG, SMALL, lines, scratch, skip, within};

/// The epoch in which a node's own last events are, as another node or itself sees them.
pub(crate) fn epochs(flock: &Flock, number: usize, author: &str) -> Vec<u64> {
    let info = flock.one(number, &["cluster", "info"]);
    let entries = info["frontier"].as_array().unwrap();
    entries.iter().filter(|entry| entry["author"] == author).map(|entry| entry["epoch"].as_u64().unwrap()).collect()
}

#[test]
fn a_node_asked_to_stop_stops_soon_and_goes_on_in_its_epoch() {
    let mut flock = Flock::of(2, SMALL);
    let (mark, two) = (flock.file("mark"), flock.name(2));
    let gate = flock.file("gate");
    let script =
        format!("echo $STARLING_ATTEMPT >> {}; until [ -e {} ]; do sleep 0.05; done", mark.display(), gate.display());
    let job = flock.submit(1, &["--node", &two, "--", "sh", "-c", &script]);
    within(LONG, "the start", || lines(&mark).len() == 1);
    let before = epochs(&flock, 2, &two);
    let begun = Instant::now();
    flock.cluster.stop(2).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(12));
    assert_eq!(flock.state(1, &job), "running");
    flock.cluster.boot(2).unwrap();
    flock.cluster.await_ready(2).unwrap();
    fs::write(&gate, "").unwrap();
    flock.at(2, &["wait", "--timeout", "60s", &job]).exits(0);
    assert_eq!(lines(&mark), ["1"], "it ran on");
    flock.at(2, &["run", "--node", &two, "--", "true"]).exits(0);
    assert_eq!(epochs(&flock, 2, &two), before, "a clean stop needs no new epoch");
    // A crash does, once there is something to write.
    flock.cluster.kill(2).unwrap();
    flock.cluster.boot(2).unwrap();
    flock.cluster.await_ready(2).unwrap();
    flock.at(2, &["run", "--node", &two, "--", "true"]).exits(0);
    assert_eq!(epochs(&flock, 2, &two).len(), before.len() + 1);
    flock.await_equal(&[1, 2]);
}

/// Cuts bytes off the end of what a node's newest segment holds; behind that it is reserved space.
fn tear(flock: &Flock, number: usize, bytes: u64) {
    let segments = fs::read_dir(flock.cluster.dir(number).join("log")).unwrap().map(|entry| entry.unwrap().path());
    let last = segments.filter(|path| path.extension().is_some_and(|end| end == "log")).max().unwrap();
    let held = fs::read(&last).unwrap();
    let len = held.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    fs::OpenOptions::new().write(true).open(&last).unwrap().set_len(len - bytes).unwrap();
}

#[test]
fn a_torn_log_keeps_every_whole_record() {
    let mut flock = Flock::of(1, SMALL);
    let mut jobs = Vec::new();
    for bytes in [1, 3, 17, 60] {
        let job = flock.submit(1, &["--", "true"]);
        flock.at(1, &["wait", &job]).exits(0);
        jobs.push(job);
        // Parted from the last one by whole records, which a tear may take.
        flock.at(1, &["run", "--", "true"]).exits(0);
        flock.cluster.kill(1).unwrap();
        tear(&flock, 1, bytes);
        flock.cluster.boot(1).unwrap();
        flock.cluster.await_ready(1).unwrap();
        for job in &jobs {
            assert_eq!(flock.state(1, job), "done");
        }
    }
    assert!(flock.log(1).contains("torn tail"), "{}", flock.log(1));
    flock.at(1, &["run", "--", "true"]).exits(0);
}

#[test]
fn what_a_torn_log_lost_comes_back_from_the_others() {
    let mut flock = Flock::of(2, SMALL);
    let two = flock.name(2);
    let job = flock.submit(2, &["--array", "1-20", "--", "true"]);
    flock.at(1, &["wait", &job]).exits(0);
    flock.await_equal(&[1, 2]);
    flock.cluster.kill(2).unwrap();
    tear(&flock, 2, 700);
    flock.cluster.boot(2).unwrap();
    flock.cluster.await_ready(2).unwrap();
    flock.await_equal(&[1, 2]);
    assert_eq!(flock.state(2, &job), "done");
    flock.at(1, &["run", "--node", &two, "--", "true"]).exits(0);
    flock.at(2, &["run", "--", "true"]).exits(0);
    flock.await_equal(&[1, 2]);
    flock.at(1, &["doctor"]).exits(0);
}

/// Shifts the wall clock of whoever loads it, as a wrong hardware clock would.
const SHIFT: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, at);
    const char *shift = getenv("CLOCK_SHIFT");
    if (result == 0 && id == CLOCK_REALTIME && shift) at->tv_sec += atol(shift);
    return result;
}
"#;

fn build_shift(dir: &Path) -> Option<std::path::PathBuf> {
    let (source, library) = (dir.join("shift.c"), dir.join("shift.so"));
    fs::write(&source, SHIFT).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    built.is_ok_and(|status| status.success()).then_some(library)
}

#[test]
fn a_node_whose_clock_is_an_hour_off_works_and_doctor_tells() {
    let home = scratch();
    let Some(library) = build_shift(home.path()) else {
        skip("a clock an hour off: no C compiler to build the shifted clock with");
        return;
    };
    let mut options = Options::uniform(Path::new(BINARY), home.path(), 3, SMALL);
    let preload = |shift: &str| {
        vec![("LD_PRELOAD".to_owned(), library.display().to_string()), ("CLOCK_SHIFT".to_owned(), shift.to_owned())]
    };
    options.env[1] = preload("3600");
    options.env[2] = preload("-3600");
    let flock = Flock::with(home, Cluster::start(options).unwrap());
    for owner in 1..=3 {
        for executor in 1..=3 {
            flock.at(owner, &["run", "--node", &flock.name(executor), "--", "true"]).exits(0);
        }
    }
    flock.await_equal(&[1, 2, 3]);
    let told = flock.at(1, &["doctor"]);
    assert!(told.out.contains("all 3 facts roots are equal"), "{}", told.out);
    within(LONG, "a word about the clocks", || {
        let told = flock.at(1, &["doctor"]).out;
        told.lines().any(|line| line.starts_with("clocks") && !line.contains(" OK "))
    });
}
