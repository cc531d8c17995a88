//! A full disk: the node says so, keeps what it acknowledged, and goes on when there is room.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use starling_testnet::local::{Cluster, Options};
use tempfile::TempDir;

use crate::support::{BINARY, Flock, LONG, SMALL, refused_start, scratch, skip, within};

/// A small file system, unmounted when the test ends.
#[derive(Debug)]
struct Small {
    at: TempDir,
}

impl Small {
    /// None without the right to mount.
    fn mount(options: &str) -> Option<Self> {
        let at = scratch();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self { at })
    }

    /// Leaves no room for another page.
    fn fill(&self) -> PathBuf {
        let path = self.at.path().join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4_096]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a node that still runs keeps it busy.
        let _left = Command::new("umount").arg("--lazy").arg(self.at.path()).status();
    }
}

/// Input that makes a submission large.
fn home_file(flock: &Flock) -> String {
    let path = flock.file("input");
    fs::write(&path, [b'x'; 8_000]).unwrap();
    path.display().to_string()
}

#[test]
fn a_full_disk_refuses_new_jobs_and_keeps_the_acknowledged() {
    let Some(small) = Small::mount("size=4m") else {
        skip("full disk: no right to mount a file system");
        return;
    };
    let home = scratch();
    // The log that a person reads is on the full disk too.
    symlink(small.at.path(), home.path().join("node-1")).unwrap();
    let options = Options::uniform(Path::new(BINARY), home.path(), 2, SMALL);
    let flock = Flock::with(home, Cluster::start(options).unwrap());
    let two = flock.name(2);
    let mut jobs = vec![flock.submit(1, &["--node", &two, "--", "true"])];
    let ballast = small.fill();
    let mut refused = None;
    let input = home_file(&flock);
    // The log has reserved some room beforehand.
    within(LONG, "a refusal", || {
        let done = flock.at(1, &["submit", "--parsable", "--stdin", &input, "--node", &two, "--", "true"]);
        match done.code {
            Some(0) => jobs.push(done.line()),
            _ => refused = Some(done),
        }
        refused.is_some()
    });
    refused.take().unwrap().says("is full");
    // Small ones may still fit into what the last page leaves, and then the node is open again for a moment.
    within(LONG, "a refusal of a small job", || {
        let done = flock.at(1, &["submit", "--parsable", "--node", &two, "--", "true"]);
        match done.code {
            Some(0) => jobs.push(done.line()),
            _ => refused = Some(done.says("is full")),
        }
        refused.is_some()
    });
    flock.at(1, &["doctor"]).exits(1);
    within(LONG, "the other node to know", || {
        // As long as small writes fit, the node closes only for a moment after each refusal.
        let done = flock.at(1, &["submit", "--parsable", "--stdin", &input, "--node", &two, "--", "true"]);
        jobs.extend((done.code == Some(0)).then(|| done.line()));
        flock.at(2, &["nodes"]).out.contains(" CLOSED ")
    });
    // The other node works on alone, and queries are served.
    let elsewhere = flock.submit(2, &["--array", "1-5", "--", "true"]);
    flock.at(2, &["wait", "--timeout", "30s", &elsewhere]).exits(0);
    assert!(flock.json(1, &["jobs", "--all"]).len() >= jobs.len());

    fs::remove_file(ballast).unwrap();
    within(LONG, "room to be noticed", || flock.at(1, &["run", "--", "true"]).code == Some(0));
    let all: Vec<&str> = jobs.iter().map(String::as_str).chain([elsewhere.as_str()]).collect();
    flock.at(1, &[&["wait", "--timeout", "30s"], &all[..]].concat()).exits(0);
    flock.await_equal(&[1, 2]);
    flock.at(1, &["doctor"]).exits(0);
    assert!(!flock.log(1).contains("panicked"), "{}", flock.log(1));
}

#[test]
fn a_read_only_disk_is_named_at_the_start() {
    let Some(small) = Small::mount("size=1m,ro") else {
        skip("read-only disk: no right to mount a file system");
        return;
    };
    let home = scratch();
    let dir = small.at.path().join("node");
    let flags = [SMALL, &["--dir", dir.to_str().unwrap()]].concat();
    let done = refused_start(home.path(), &flags).says("Read-only file system");
    assert!(done.err.contains(dir.to_str().unwrap()), "{}", done.err);
}
