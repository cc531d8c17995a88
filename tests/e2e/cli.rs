//! The verbs of the command line against a real cluster.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use starling_testnet::local::until;

use crate::support::{Flock, LONG, SMALL, lines, within};

#[test]
fn cancel_ends_a_running_and_a_pending_job() {
    let flock = Flock::of(2, SMALL);
    let (mark, one) = (flock.file("mark"), flock.name(1));
    // A grandchild, so that killing the shell alone would leave it.
    let script = format!("echo $$ >> {}; sleep 600 & wait", mark.display());
    let running = flock.submit(1, &["--node", &one, "--", "sh", "-c", &script]);
    within(LONG, "the start", || !lines(&mark).is_empty());
    let pending = flock.submit(1, &["--node", &one, "--", "true"]);
    assert_eq!(flock.state(1, &pending), "pending");
    // Asked at the node that neither owns nor runs them.
    within(LONG, "both known", || !flock.state(2, &pending).is_empty());
    flock.at(2, &["cancel", "--reason", "no longer needed", &pending, &running]).exits(0);
    flock.at(1, &["wait", "--timeout", "30s", &running, &pending]).exits(125);
    for job in [&running, &pending] {
        assert_eq!(flock.one(1, &["jobs", job])["state"], "cancelled");
    }
    let group: i32 = lines(&mark)[0].parse().unwrap();
    let gone = || rustix::process::test_kill_process_group(Pid::from_raw(group).unwrap()).is_err();
    within(LONG, "the whole process group to end", gone);
    flock.at(1, &["cancel", &running]).exits(1);
}

#[test]
fn wait_and_run_exit_with_the_documented_codes() {
    let flock = Flock::of(1, SMALL);
    flock.at(1, &["run", "--timeout", "200ms", "--", "sleep", "600"]).exits(124).says("time limit");
    let job = flock.submit(1, &["--", "sleep", "600"]);
    flock.at(1, &["wait", "--timeout", "100ms", &job]).exits(124);
    flock.at(1, &["cancel", &job]).exits(0);
    flock.at(1, &["wait", &job]).exits(125);
    flock.at(1, &["run", "--", "sh", "-c", "kill -9 $$"]).exits(128 + 9);
    let (good, bad) = (flock.submit(1, &["--", "true"]), flock.submit(1, &["--", "sh", "-c", "exit 3"]));
    flock.at(1, &["wait", &good]).exits(0);
    flock.at(1, &["wait", &good, &bad]).exits(3);
    flock.at(1, &["submit", "--wait", "--", "sh", "-c", "exit 4"]).exits(4);
    flock.at(1, &["submit", "--wait", "--", "true"]).exits(0);
    flock.at(1, &["wait", "nobody-77"]).exits(1);
}

#[test]
fn submit_prints_an_id_that_every_verb_takes() {
    let flock = Flock::of(1, SMALL);
    let job = flock.submit(1, &["--name", "first", "--", "true"]);
    assert_eq!(job, format!("{}-1", flock.name(1)));
    flock.at(1, &["wait", &job]).exits(0);
    let told = flock.at(1, &["submit", "--", "true"]).exits(0);
    assert!(told.out.contains("1 task"), "{}", told.out);
    let told = flock.at(1, &["submit", "--json", "--ack", "local", "--array", "0-9", "--", "true"]).exits(0);
    let told: serde_json::Value = serde_json::from_str(&told.line()).unwrap();
    assert_eq!((&told["v"], &told["tasks"], &told["acked"]), (&1.into(), &10.into(), &"local".into()));
}

#[test]
fn each_task_gets_its_index_or_its_line() {
    let flock = Flock::of(1, SMALL);
    let done = flock
        .at(1, &["submit", "--parsable", "--wait", "--array", "1-3,7", "--", "sh", "-c", "echo task $STARLING_TASK"])
        .exits(0);
    let logs = flock.at(1, &["logs", &done.line()]).exits(0);
    let mut seen: Vec<&str> = logs.out.lines().collect();
    seen.sort_unstable();
    assert_eq!(seen, ["task 1", "task 2", "task 3", "task 7"]);
    let one = flock.at(1, &["logs", &done.line(), "7"]).exits(0);
    assert_eq!(one.out, "task 7\n");
    let prefixed = flock.at(1, &["logs", "--prefix", &done.line(), "7"]).exits(0);
    assert!(prefixed.out.contains('7') && prefixed.out.contains("task 7"), "{}", prefixed.out);

    let file = flock.file("lines");
    fs::write(&file, "two words\n\nlast").unwrap();
    let job = flock.submit(1, &["--each-line", file.to_str().unwrap(), "--", "sh", "-c", "echo \"[$STARLING_LINE]\""]);
    flock.at(1, &["wait", &job]).exits(0);
    let logs = flock.at(1, &["logs", &job]).exits(0);
    let mut seen: Vec<&str> = logs.out.lines().collect();
    seen.sort_unstable();
    assert_eq!(seen, ["[]", "[last]", "[two words]"]);
}

#[test]
fn a_task_gets_its_input_its_environment_and_its_directory() {
    let flock = Flock::of(2, SMALL);
    let dir = flock.file("work");
    fs::create_dir(&dir).unwrap();
    let two = flock.name(2);
    let mut command =
        flock.cluster.cli(1, &["run", "--node", &two, "--stdin", "-", "-e", "GIVEN=a=b c", "-e", "HANDED", "-C"]);
    command.arg(&dir).args(["--", "sh", "-c", "cat; echo \"$GIVEN|$HANDED\"; pwd"]);
    command.env("HANDED", "on").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from stdin\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected = format!("from stdin\na=b c|on\n{}\n", dir.display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    // The caller's directory is the default.
    let output = flock.cluster.cli(1, &["run", "--", "pwd"]).current_dir(&dir).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n", dir.display()));
}

#[test]
fn a_failed_task_is_tried_again_within_its_retries() {
    let flock = Flock::of(1, SMALL);
    let mark = flock.file("mark");
    let script = format!("echo $STARLING_ATTEMPT >> {0}; test $(wc -l < {0}) -ge 2", mark.display());
    let job = flock.submit(1, &["--retries", "3", "--", "sh", "-c", &script]);
    flock.at(1, &["wait", "--timeout", "30s", &job]).exits(0);
    assert_eq!(lines(&mark), ["1", "2"]);
    let detail = flock.one(1, &["job", "info", &job]);
    let attempts = detail["attempts"].as_array().unwrap();
    assert!(attempts.iter().any(|attempt| attempt["attempt"] == 2 && attempt["state"] == "done"), "{attempts:?}");
    let job = flock.submit(1, &["--retries", "1", "--", "sh", "-c", "exit 9"]);
    flock.at(1, &["wait", "--timeout", "30s", &job]).exits(9);
}

#[test]
fn logs_follow_a_running_task_at_another_node() {
    let flock = Flock::of(2, SMALL);
    let (gate, two) = (flock.file("gate"), flock.name(2));
    let script = format!("echo before; until test -e {}; do sleep 0.05; done; echo after", gate.display());
    let job = flock.submit(1, &["--node", &two, "--", "sh", "-c", &script]);
    let mut child = flock.cluster.cli(1, &["logs", "-f", &job]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "before\n", "arrives while the task runs");
    assert_ne!(flock.state(1, &job), "done");
    fs::write(&gate, "").unwrap();
    line.clear();
    out.read_to_string(&mut line).unwrap();
    assert_eq!(line, "after\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn events_tell_a_jobs_story_in_order() {
    let flock = Flock::of(2, SMALL);
    let job = flock.submit(1, &["--", "true"]);
    flock.at(1, &["wait", &job]).exits(0);
    let kinds: Vec<String> = flock
        .json(1, &["job", "events", &job])
        .iter()
        .map(|event| event["kind"].as_str().unwrap().to_owned())
        .collect();
    let place =
        |kind: &str| kinds.iter().position(|seen| seen == kind).unwrap_or_else(|| panic!("no {kind} in {kinds:?}"));
    assert!(
        place("SubmitJob") < place("JobStarted")
            && place("JobStarted") < place("JobFinished")
            && place("JobFinished") < place("Seal")
    );
    let mut child = flock.cluster.cli(2, &["events", "-f", "-n", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    out.next().unwrap().unwrap();
    let next = flock.submit(1, &["--", "true"]);
    let seen = out.by_ref().map(Result::unwrap).find(|line| line.contains(&next));
    assert!(seen.is_some());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_that_is_interrupted_cancels_its_job() {
    let flock = Flock::of(1, SMALL);
    let mark = flock.file("mark");
    let script = format!("echo >> {}; sleep 600", mark.display());
    let mut child = flock.cluster.cli(1, &["run", "--", "sh", "-c", &script]).stderr(Stdio::null()).spawn().unwrap();
    within(LONG, "the start", || !lines(&mark).is_empty());
    let begun = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(until(LONG, || matches!(child.try_wait(), Ok(Some(_)))), "run did not end");
    assert_eq!(child.wait().unwrap().code(), Some(125));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(flock.json(1, &["jobs"])[0]["state"], "cancelled");
}

#[test]
fn a_wait_that_comes_before_its_job_is_patient_for_a_moment() {
    let flock = Flock::of(1, SMALL);
    let job = format!("{}-1", flock.name(1));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| flock.at(1, &["wait", "--timeout", "30s", &job]));
        // Meanwhile the wait has begun.
        flock.at(1, &["nodes"]).exits(0);
        assert_eq!(flock.submit(1, &["--", "true"]), job);
        waits.join().unwrap().exits(0);
    });
    flock.at(1, &["wait", "nobody-7"]).exits(1).says("no job is called `nobody-7`");
}
