//! Exit codes, refusals with their reasons, environment, usage, many tasks at once.
//!
//! Invariants: each reason names what the user has to look at.
//! Does not: kill (`kills`) or check output beyond a line (`streams`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

#[test]
fn exit_codes_and_signals_are_reported_as_they_are() {
    let rig = Rig::new();
    assert_eq!(rig.run(rig.task(1, &["true"])).end, End::Exit(0));
    assert_eq!(rig.run(rig.task(2, &["/bin/false"])).end, End::Exit(1));
    assert_eq!(rig.run(rig.sh(3, "exit 77")).end, End::Exit(77));
    assert_eq!(rig.run(rig.sh(4, "kill -SEGV $$")).end, End::Signal(11));
    assert_eq!(rig.executor.running(), 0);
}

#[test]
fn missing_program_is_127_and_named() {
    let rig = Rig::new();
    let (code, reason) = rig.refused(rig.task(1, &["no-such-program", "x"]));
    assert_eq!(code, 127);
    assert!(reason.contains("command not found: no-such-program") && reason.contains("PATH="), "{reason}");
    let (code, reason) = rig.refused(rig.task(2, &["./no/such"]));
    assert_eq!((code, reason.as_str()), (127, "command not found: ./no/such"));
    let (code, reason) = rig.refused(rig.task(3, &["/bin/true/x"]));
    assert_eq!((code, reason.as_str()), (127, "command not found: /bin/true/x"));
    assert_eq!(rig.refused(rig.task(4, &[])).0, 127);
    assert_eq!(rig.refused(rig.task(5, &[""])).0, 127);
    assert_eq!(rig.executor.running(), 0);
}

/// Written by a shell: a descriptor of ours, open for writing, could leak into a task that another test is just starting,
/// and then the kernel would call the script busy.
fn script(dir: &Path, text: &str, mode: u32) -> PathBuf {
    let path = dir.join(format!("script-{mode:o}-{}", text.len()));
    let write = r#"printf %s "$1" > "$2" && chmod "$3" "$2""#;
    let status = Command::new("sh").args(["-c", write, "sh", text]).arg(&path).arg(format!("{mode:o}")).status();
    assert!(status.unwrap().success());
    path
}

#[test]
fn program_that_cannot_be_executed_is_126_with_the_cause() {
    let rig = Rig::new();
    let dir = rig.tmp.path();
    let refused = |path: &Path| rig.refused(rig.task(1, &[path.to_str().unwrap()]));
    let (code, reason) = refused(&script(dir, "#!/bin/sh\n", 0o644));
    assert!(code == 126 && reason.contains("script-644-10 is not executable"), "{reason}");
    let (code, reason) = refused(dir);
    assert!(code == 126 && reason.contains("is a directory"), "{reason}");
    let (code, reason) = refused(&script(dir, "#!/no/such/interpreter\n", 0o755));
    assert!(code == 126 && reason.contains("the interpreter"), "{reason}");
    let (code, reason) = refused(&script(dir, "echo no line\n", 0o755));
    assert!(code == 126 && reason.contains("#! line"), "{reason}");
    let mut launch = rig.task(2, &["script-644-10"]);
    launch.env = vec![("PATH".into(), dir.to_str().unwrap().into())];
    let (code, reason) = rig.refused(launch);
    assert!(code == 126 && reason.contains("not executable"), "{reason}");
}

#[test]
fn bad_working_directory_is_named() {
    let rig = Rig::new();
    let mut launch = rig.task(1, &["true"]);
    launch.cwd = Some("/no/such/dir".into());
    let (code, reason) = rig.refused(launch.clone());
    assert!(code == 126 && reason.contains("/no/such/dir"), "{reason}");
    launch.cwd = Some("/bin/true".into());
    let (code, reason) = rig.refused(launch);
    assert!(code == 126 && reason.contains("/bin/true is not a directory"), "{reason}");
}

#[test]
fn values_that_no_process_can_be_given_are_refused() {
    let rig = Rig::new();
    assert!(rig.refused(rig.task(1, &["echo", "a\0b"])).1.contains("zero byte"));
    let mut launch = rig.task(2, &["true"]);
    launch.env = vec![("A=B".into(), "c".into())];
    assert!(rig.refused(launch).1.contains("A=B"));
    let (code, reason) = rig.refused(rig.task(3, &["true", &"x".repeat(4 << 20)]));
    assert!(code == 126 && reason.contains("too long"), "{reason}");
}

#[test]
fn environment_is_clean_but_for_the_basics_and_what_was_given() {
    let rig = Rig::new();
    let mut launch = rig.task(1, &["env"]);
    launch.env = vec![("GIVEN".into(), "one\ntwo".into()), ("HOME".into(), "/given".into())];
    rig.run(launch);
    let text = rig.text(1, Stream::Out);
    assert!(text.contains("GIVEN=one\ntwo\n") && text.contains("HOME=/given\n") && text.contains("PATH="), "{text}");
    assert!(!text.contains("CARGO"), "{text}");
}

#[test]
fn directory_argv0_and_relative_programs_are_the_tasks_own() {
    let rig = Rig::new();
    let dir = fs::canonicalize(rig.tmp.path()).unwrap();
    let path = script(&dir, "#!/bin/sh\npwd; echo $0\n", 0o700);
    let name = path.file_name().unwrap().to_str().unwrap();
    for (run, argv0, path) in [(1, format!("./{name}"), "/bin"), (2, name.to_owned(), "nowhere:.:/bin")] {
        let mut launch = rig.task(run, &[&argv0]);
        launch.cwd = Some(dir.clone());
        launch.env = vec![("PATH".into(), path.into())];
        assert_eq!(rig.run(launch).end, End::Exit(0));
        assert_eq!(rig.text(run, Stream::Out), format!("{}\n./{name}\n", dir.display()));
    }
    rig.run(rig.task(3, &["sh", "-c", "tr '\\0' ' ' < /proc/$$/cmdline"]));
    assert!(rig.text(3, Stream::Out).starts_with("sh -c "));
}

#[test]
fn usage_of_a_longer_task_is_known() {
    let rig = Rig::new();
    let usage = rig.run(rig.sh(1, "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")).usage;
    let cpu = usage.cpu.unwrap();
    assert!(usage.wall_ms >= 50 && cpu.user_ms + cpu.sys_ms >= 30, "{usage:?}");
    assert!(usage.max_rss_kib.unwrap() > 100, "{usage:?}");
    // CPU of a child that was waited for counts.
    let script = "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; true";
    let cpu = rig.run(rig.sh(2, script)).usage.cpu.unwrap();
    assert!(cpu.user_ms + cpu.sys_ms >= 30, "{cpu:?}");
}

#[test]
fn many_tasks_are_each_started_and_ended_once() {
    let rig = Rig::with_threads(8);
    for run in 0..500 {
        rig.executor.launch(rig.task(run, &["/bin/true"]));
    }
    let mut seen = BTreeMap::new();
    for _ in 0..1000 {
        match rig.event() {
            ExecEvent::Started { key, .. } => assert_eq!(seen.insert(key, 's'), None),
            other @ ExecEvent::Port { .. } => panic!("{other:?}"),
            ExecEvent::Ended { key, end, .. } => {
                assert_eq!(end, End::Exit(0));
                assert_eq!(seen.insert(key, 'e'), Some('s'));
            }
        }
    }
    assert_eq!(seen.len(), 500);
    rig.executor.shutdown();
    assert!(rig.events.try_recv().is_err());
    assert_eq!(fs::read_dir(rig.tmp.path()).unwrap().count(), 0, "silent tasks make no files");
}

#[test]
fn no_more_tasks_run_at_once_than_threads_are_allowed() {
    let rig = Rig::with_threads(3);
    for run in 0..5 {
        rig.executor.launch(rig.task(run, &["sleep", "100"]));
    }
    let pids = [rig.started(), rig.started(), rig.started()];
    assert_eq!(rig.executor.running(), 5);
    // The two that wait can start only after one of the three ended.
    for run in 0..2 {
        let key = TaskKey { run };
        rig.executor.kill(key, Kill::Hard);
        assert_eq!(rig.ended().key, key);
        rig.started();
    }
    rig.executor.shutdown();
    assert_eq!((rig.ended().end, rig.ended().end, rig.ended().end), (End::Signal(9), End::Signal(9), End::Signal(9)));
    assert!(pids.iter().all(|pid| !lives(*pid)));
}
