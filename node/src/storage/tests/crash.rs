//! A writer process killed with SIGKILL, and one on a file system that fills up and turns read-only.
//!
//! Invariants: the child is this very test binary running one named test; without its environment variable that test
//! passes at once.
//! Does not: cut power. What a lost page cache does to a file is built by hand in `damage`.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::{Error, Options, WriteError};
use super::{DEADLINE, Log, batch, fast_dir, first_segment, key, local};

const CHILD_DIR: &str = "STARLING_TEST_STORAGE_DIR";

fn test_name(name: &str) -> String {
    let (_, module) = module_path!().split_once("::").unwrap();
    format!("{module}::{name}")
}

#[test]
fn child_writes_until_killed() {
    let Some(dir) = env::var_os(CHILD_DIR) else {
        return;
    };
    let log = Log::open_with(Path::new(&dir), Options { segment_bytes: 20_000, ..Options::default() }).unwrap();
    let first = log.recovery.records;
    let mut out = io::stdout().lock();
    for next in first.. {
        log.store.write(next, vec![batch(key(1, 1), next + 1, 1, &format!("batch {next}"))]).unwrap();
        // Eight in flight, so that the kill falls into groups of several writes.
        if next >= first + 8 {
            let done = log.done.recv_timeout(DEADLINE).unwrap();
            done.result.unwrap();
            writeln!(out, "durable {}", done.id).unwrap();
        }
    }
}

#[test]
fn nothing_completed_is_lost_by_kill_9() {
    let tmp = fast_dir();
    for round in 0..5 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", &test_name("child_writes_until_killed")])
            .env(CHILD_DIR, tmp.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let durable =
            |line: io::Result<String>| line.unwrap().strip_prefix("durable ").map(|id| id.parse::<u64>().unwrap());
        let mut last = lines.by_ref().filter_map(durable).nth(150 + round).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it managed to report before it died counts too.
        last = lines.filter_map(durable).last().unwrap_or(last);
        let log = Log::open(tmp.path());
        assert!(!log.recovery.clean);
        assert!(log.recovery.records > last, "{} recovered, {last} was reported durable", log.recovery.records);
        let all = log.store.read(key(1, 1), 1, usize::MAX).unwrap();
        assert_eq!(all.len() as u64, log.recovery.records);
        for (place, (seq, bytes)) in all.iter().enumerate() {
            assert_eq!((*seq, &bytes[..]), (place as u64 + 1, format!("batch {place}").as_bytes()));
        }
    }
}

#[test]
fn child_fills_its_file_system() {
    let Some(dir) = env::var_os(CHILD_DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let log = Log::open(dir);
    let filler = dir.join("filler");
    let mut kept = 0;
    for round in 0..3 {
        std::fs::write(&filler, vec![1; 200 << 10]).unwrap();
        let error = loop {
            log.store.write(0, vec![local(&"x".repeat(3000))]).unwrap();
            match log.done.recv_timeout(DEADLINE).unwrap().result {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
            assert!(kept < 1000, "the file system never filled up");
        };
        assert!(matches!(error, WriteError::Full { .. }), "round {round}: {error}");
        assert!(error.to_string().contains("full"), "{error}");
        let len = first_segment(dir).metadata().unwrap().len();
        assert_eq!(len, log.store.stats().bytes, "the failed write was cut away");
        std::fs::remove_file(&filler).unwrap();
        log.put(vec![local("there is room again")]);
        kept += 1;
    }
    std::fs::write(&filler, vec![1; 10 << 20]).unwrap_err();
    drop(log);
    let log = Log::open(dir);
    assert_eq!((log.recovery.records, &log.recovery.torn), (kept, &None), "a full disk still opens");
    drop(log);
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(dir).status().unwrap().success());
    let error = Log::open_with(dir, Options::default()).err().unwrap();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem),
        "{error}"
    );
}

#[test]
fn full_disk_fails_writes_and_keeps_what_was_durable() {
    let tmp = tempfile::tempdir().unwrap();
    // The mount is private to the child and goes with it.
    let script = r#"mount -t tmpfs -o size=400k none "$0" || exit 77; exec "$@""#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(tmp.path())
        .arg(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &test_name("child_fills_its_file_system")])
        .env(CHILD_DIR, tmp.path())
        .output();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output {
        Ok(output) if output.status.success() => assert!(text(&output.stdout).contains("1 passed")),
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}{}", text(&output.stdout), text(&output.stderr));
        }
        skipped => {
            // Mounting needs root; say so where people look.
            writeln!(io::stderr(), "SKIPPED full_disk: cannot mount a private tmpfs: {skipped:?}").unwrap();
        }
    }
}
