//! A copied data directory: beside its original it ends, without it it goes on, and neither says anything twice.

use std::fs;
use std::path::Path;

use crate::restarts::epochs;
use crate::support::{Flock, LONG, SMALL, alone, within};

/// All files below a directory; sockets are left behind, as by most programs that copy.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_copy_beside_its_original_ends_and_says_why_and_goes_on_once_that_has_gone() {
    let _alone = alone();
    let mut flock = Flock::of(3, SMALL);
    let first = flock.submit(3, &["--", "true"]);
    flock.at(3, &["wait", "--timeout", "60s", &first]).exits(0);
    flock.cluster.stop(3).unwrap();
    copy(&flock.cluster.dir(3), &flock.cluster.dir(4));
    flock.cluster.boot(3).unwrap();
    flock.cluster.await_ready(3).unwrap();
    let copied = flock.cluster.grow(SMALL).unwrap();
    let said = |flock: &Flock| fs::read_to_string(flock.cluster.log(copied)).unwrap_or_default();
    let started = || flock.at(copied, &["submit", "--parsable", "--ack", "remote1", "--", "true"]);
    let mut asked = None;
    within(LONG, "the copy to answer", || {
        let answer = started();
        let is_up = answer.code != Some(69);
        asked = Some(answer);
        is_up
    });

    let mut ended = None;
    within(LONG * 2, "the copy to end", || {
        ended = flock.cluster.ended(copied).unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(1), "{}", said(&flock));
    for words in
        ["was copied or restored", "another process runs with this node's identity", "start with an empty --dir"]
    {
        assert!(said(&flock).contains(words), "no `{words}` in:\n{}", said(&flock));
    }

    // What two disks had is not lost with it, and nothing was said twice.
    flock.cluster.await_ready(3).unwrap();
    let asked = asked.unwrap();
    if asked.code == Some(0) && !asked.err.contains("alone") {
        within(LONG, "the job of the copy at another node", || {
            flock.at(1, &["job", "info", &asked.line()]).code == Some(0)
        });
    }
    let beside = flock.submit(3, &["--", "true"]);
    // Its links may be on their way back still.
    within(LONG, "the job at another node", || flock.at(1, &["job", "info", &beside]).code == Some(0));
    flock.at(1, &["wait", "--timeout", "60s", &beside]).exits(0);
    let name = flock.name(3);
    assert!(epochs(&flock, 1, &name).contains(&1), "the original had stopped cleanly");
    flock.at(1, &["doctor"]).exits(0);

    // Alone it is the node.
    flock.cluster.stop(3).unwrap();
    flock.cluster.boot(copied).unwrap();
    flock.cluster.await_ready(3).unwrap();
    let alone = flock.submit(copied, &["--", "true"]);
    within(LONG, "the copy's job at another node", || flock.at(1, &["job", "info", &alone]).code == Some(0));
    flock.at(1, &["wait", "--timeout", "60s", &alone]).exits(0);
    flock.await_equal(&[1, 2, copied]);
    let epochs = epochs(&flock, 1, &name);
    assert!(epochs.iter().all(|epoch| *epoch == 1 || *epoch > 16) && epochs.len() > 1, "{epochs:?}");
    flock.at(1, &["doctor"]).exits(0);
}
