//! Simulations on the command line.
//!
//! Invariants: as in `tests`. Does not: run any.

use starling_proto::v1::{Attempt, Ending, IndexRange, JobState, SubmitRequest, TaskPort, Usage};

use super::super::args::{SimVerb, Verb};
use super::super::table::Colour;
use super::super::{jobs, sim, submit};
use super::Cli;
use clap::Parser as _;

fn sim_verb(words: &[&str]) -> Result<SimVerb, String> {
    match Cli::try_parse_from([&["starling", "sim"], words].concat()) {
        Ok(Cli { verb: Verb::Sim(verb), .. }) => Ok(verb),
        Ok(other) => panic!("not sim: {other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

fn request(words: &[&str]) -> SubmitRequest {
    match sim_verb(words).unwrap() {
        SimVerb::Run(args) => sim::pair_request(args.pair).unwrap(),
        SimVerb::Submit(args) => submit::multiply(sim::pair_request(args.pair).unwrap(), args.many).unwrap(),
    }
}

#[test]
fn commands_become_words_and_flags_are_as_for_other_jobs() {
    let words = ["submit", "-a", "1-3", "--wait", "-n", "pole", "-c", "0.5", "-m", "1G", "-e", "A=b", "-C", "/tmp"];
    let more = ["--priority", "-5", "--retries", "2", "--timeout", "5m", "--node", "wren", "--port-wait", "90s"];
    let pair = ["--env", "python3 'my env.py' --port-file {port_file}", "--policy", r#"sh -c "play {port}""#];
    let asked = request(&[&words[..], &more, &pair].concat());
    let simulation = asked.simulation.unwrap();
    assert_eq!(simulation.env_command, ["python3", "my env.py", "--port-file", "{port_file}"]);
    assert_eq!(simulation.policy_command, ["sh", "-c", "play {port}"]);
    assert_eq!(simulation.port_wait_ms, 90_000);
    assert_eq!(asked.array, [IndexRange { start: 1, end: 3 }]);
    assert_eq!((asked.name.as_str(), asked.cpus_milli, asked.mem_bytes), ("pole", Some(500), 1 << 30));
    assert_eq!((asked.env["A"].as_str(), asked.cwd.as_str(), asked.node.as_str()), ("b", "/tmp", "wren"));
    assert_eq!((asked.priority, asked.retries, asked.timeout_ms), (-5, 2, 300_000));
    assert!(asked.command.is_empty() && asked.request_id.len() == 16);
    let asked = request(&["run", "--env", "env", "--policy", "policy {host}:{port}"]);
    assert_eq!(asked.simulation.unwrap().policy_command, ["policy", "{host}:{port}"]);
}

#[test]
fn what_is_no_command_is_refused_by_name() {
    for (env, policy, flag, expected) in [
        ("env 'x", "policy", "--env", "each quotation closed"),
        ("env", "policy \\", "--policy", "backslash"),
        ("", "policy", "--env", "a program and its arguments"),
        ("env", "'' x", "--policy", "a program and its arguments"),
    ] {
        let error = sim_verb(&["run", "--env", env, "--policy", policy]).unwrap_err();
        assert!(error.contains(flag) && error.contains(expected), "{error}");
    }
    let error = sim_verb(&["submit", "--env", "env"]).unwrap_err();
    assert!(error.contains("--policy"), "{error}");
    assert!(sim_verb(&["run", "--env", "e", "--policy", "p", "-a", "1-2"]).is_err(), "an array is submitted");
}

#[test]
fn attempts_show_usage_and_ports() {
    let port = |task, port| TaskPort { task, host: "127.0.0.1".into(), port };
    let usage = Usage { cpu_user_ms: 1_200, cpu_sys_ms: 300, wall_ms: 9_000, max_rss_bytes: 12 << 20, tasks: 4 };
    let done = Attempt {
        tasks: vec![IndexRange { start: 0, end: 2 }],
        attempt: 1,
        node: "wren".into(),
        state: JobState::Done.into(),
        exit: Some(0),
        ending: Ending::Exited.into(),
        started_unix_ms: 1_795_692_621_304,
        ended_unix_ms: 1_795_692_624_304,
        ports: vec![port(0, 40_001), port(1, 40_002), port(2, 40_003)],
        usage: Some(usage),
        ..Attempt::default()
    };
    let broke = Attempt {
        tasks: vec![IndexRange { start: 3, end: 3 }],
        state: JobState::Failed.into(),
        exit: Some(70),
        ending: Ending::Broke.into(),
        reason: "the env exited with code 3 while the policy ran".into(),
        ports: vec![TaskPort { host: "::1".into(), ..port(3, 40_004) }],
        usage: None,
        ..done.clone()
    };
    expect_test::expect![[r#"
        TASKS  ATTEMPT  NODE  STATE   EXIT  STARTED                   ELAPSED     CPU  MAXRSS  LISTENS                            REASON
        3            1  wren  FAILED    70  2026-11-26T11:30:21.304Z     3.0s       -       -  [::1]:40004                        the env exited with code 3 while the policy ran
        0-2          1  wren  DONE       0  2026-11-26T11:30:21.304Z     3.0s  1.5s/4     12M  127.0.0.1:40001,127.0.0.1:40002+1  -
    "#]].assert_eq(&jobs::attempts_table(&[done.clone(), broke]).render(Colour::Off));
    let plain = Attempt { ports: vec![], usage: Some(Usage { tasks: 3, ..usage }), ..done };
    expect_test::expect![[r#"
        TASKS  ATTEMPT  NODE  STATE  EXIT  STARTED                   ELAPSED   CPU  MAXRSS  REASON
        0-2          1  wren  DONE      0  2026-11-26T11:30:21.304Z     3.0s  1.5s     12M  -
    "#]]
    .assert_eq(&jobs::attempts_table(&[plain]).render(Colour::Off));
}
