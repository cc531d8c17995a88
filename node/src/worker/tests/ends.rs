//! How jobs end, and what of it the server is told.
//!
//! Invariants: each end is told apart from every other one.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use flate2::read::GzDecoder;
use starling_proto::hwp::JobSpec;

use super::*;

fn unpacked(result: &StreamedResult) -> String {
    let mut text = String::new();
    GzDecoder::new(&result.compressed_logs[..]).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_output_and_environment_are_the_jobs_own() {
    let mut rig = Rig::start(Choice::default()).await;
    let zero = rig.run("zero", "echo one; echo two >&2; printf three").await;
    assert_eq!((zero.exit_code, zero.stdout.as_str(), zero.stderr.as_str()), (0, "one\nthree", "two\n"));
    assert_eq!(unpacked(&zero), "one\nthreetwo\n");
    let mut lines = rig.lines("zero");
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "two"]);
    assert_eq!(rig.accepted, ["zero"]);
    assert_eq!(rig.run("three", "exit 3").await.exit_code, 3);
    let mut spec = sh("echo $GREETING");
    spec.env.insert("GREETING".to_owned(), "hello".to_owned());
    rig.assign("env", spec);
    assert_eq!(rig.result("env").await.stdout, "hello\n");
    assert!(rig.worker.stop().await < Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn signal_timeout_cancel_and_no_start_are_told_apart() {
    let mut rig = Rig::start(Choice::default()).await;
    let killed = rig.run("killed", "echo last words; echo on stderr >&2; kill -9 $$").await;
    assert_eq!((killed.exit_code, killed.stderr.as_str()), (-1, ""));
    assert_eq!(killed.stdout, "last words\n");
    assert_eq!(rig.lines("killed").last(), Some(&"[starling: signal 9]"));
    rig.assign("late", JobSpec { timeout_ms: 100, ..sh("echo on; exec sleep 600") });
    let late = rig.result("late").await;
    assert_eq!((late.exit_code, late.stderr.as_str()), (-1, ""));
    // On a busy machine it may not have come to its first word.
    assert_eq!(rig.lines("late").last(), Some(&"[starling: timed out]"));
    rig.assign("cancelled", sh("trap 'exit 0' TERM; echo on; while :; do sleep 0.01; done"));
    rig.line("cancelled", "on").await;
    rig.cancel("cancelled");
    let cancelled = rig.result("cancelled").await;
    assert_eq!((cancelled.exit_code, cancelled.stderr.as_str()), (-1, ""));
    assert_eq!(rig.lines("cancelled").last(), Some(&"[starling: cancelled]"));
    rig.assign("absent", argv(&["no-such-program"]));
    let absent = rig.result("absent").await;
    assert!(absent.exit_code == -1 && absent.stderr.contains("command not found: no-such-program"), "{absent:?}");
    assert_eq!(rig.lines("absent"), [""; 0]);
    rig.assign("empty", argv(&[]));
    assert!(rig.result("empty").await.stderr.contains("empty"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_the_whole_process_group_and_what_waits() {
    let mut rig = Rig::start(Choice { slots: 1, ..Choice::default() }).await;
    rig.assign("family", sh("sleep 600 & echo $!; wait"));
    rig.hear("the child's id", |heard| matches!(heard, Heard::Said(Payload::LogEntry(_)))).await;
    let child: u32 = rig.lines("family")[0].parse().unwrap();
    assert!(lives(child));
    rig.assign("waiting", sh("echo never"));
    rig.cancel("waiting");
    assert_eq!(rig.result("waiting").await.exit_code, -1);
    assert_eq!(rig.lines("waiting"), ["[starling: cancelled]"]);
    rig.cancel("family");
    assert_eq!(rig.result("family").await.exit_code, -1);
    assert!(!lives(child));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_can_wait_are_refused() {
    let mut rig = Rig::start(Choice { slots: 1, ..Choice::default() }).await;
    for at in 0..5 {
        rig.assign(&format!("j{at}"), sh("exec sleep 600"));
    }
    rig.assign("j0", sh("echo again"));
    rig.assign("j5", sh("true"));
    let refused = rig.result("j5").await;
    assert_eq!((refused.exit_code, refused.stderr.as_str()), (-1, "worker is full"));
    assert_eq!(rig.accepted, ["j0", "j1", "j2", "j3", "j4", "j0", "j5"]);
    assert!(rig.results.values().all(Vec::is_empty), "what runs goes on: {:?}", rig.results);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_run_by_the_given_program_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let docker = dir.path().join("docker");
    // Written by a shell: a descriptor of ours, open for writing, could leak into a process that another test is just starting.
    let write = r#"printf '#!/bin/sh\nfor word; do echo "<$word>"; done\n' > "$1" && chmod 755 "$1""#;
    let status = std::process::Command::new("sh").args(["-c", write, "sh"]).arg(&docker).status().unwrap();
    assert!(status.success() && fs::metadata(&docker).unwrap().permissions().mode() & 0o111 != 0);
    let program = docker.to_str().unwrap().to_owned();
    let mut rig = Rig::start(Choice { image_program: Some(program), ..Choice::default() }).await;
    let mut spec = JobSpec { image: "debian:12".to_owned(), ..argv(&["echo", "a b"]) };
    spec.env.insert("K".to_owned(), "v w".to_owned());
    rig.assign("boxed", spec.clone());
    assert_eq!(rig.result("boxed").await.stdout, "<run>\n<--rm>\n<-e>\n<K=v w>\n<debian:12>\n<echo>\n<a b>\n");
    let mut rig = Rig::start(Choice::default()).await;
    rig.assign("boxed", spec);
    let refused = rig.result("boxed").await;
    assert!(refused.exit_code == -1 && refused.stderr.contains("runs no images"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_short_jobs_over_four_slots_end_once_each() {
    let mut rig = Rig::start(Choice { slots: 4, ..Choice::default() }).await;
    let count = 100;
    for at in 0..count {
        // As many as run or wait at once.
        if at >= 20 {
            assert_eq!(rig.result(&format!("j{}", at - 20)).await.exit_code, (at - 20) % 7);
        }
        rig.assign(&format!("j{at}"), sh(&format!("echo {at}; exit {}", at % 7)));
    }
    for at in count - 20..count {
        assert_eq!(rig.result(&format!("j{at}")).await.exit_code, at % 7);
    }
    assert!(rig.results.values().all(Vec::is_empty), "each result came once");
    for at in 0..count {
        assert_eq!(rig.lines(&format!("j{at}")), [at.to_string()]);
    }
}
