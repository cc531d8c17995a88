//! Environment servers and their policies: how they find each other, fail, and are ended.
//!
//! Servers and clients that need a socket are this very test binary, started again with only `serve` or `ask` to run.
//! Invariants: after each end nothing of either group lives.
//! Does not: wait for a grace of the executor more than it must.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::{env, fs};

use super::super::EnvServer;
use super::super::orphans::kill_orphans;
use super::*;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const KEY: TaskKey = TaskKey { run: 1 };
/// Says its process id, then serves.
const SERVER: &str = "echo $$; SERVE=1 exec \"$EXE\" exec::tests::pairs::serve --exact --nocapture";
/// Says $SAY to the server, and prints the answer among the lines of the test harness.
const ASK: &str = "\"$EXE\" exec::tests::pairs::ask --exact --nocapture";

/// No test of its own: the server's side of those below.
#[test]
fn serve() {
    if env::var_os("SERVE").is_none() {
        return;
    }
    let listener = TcpListener::bind((LOCAL, 0)).unwrap();
    fs::write(env::var("STARLING_PORT_FILE").unwrap(), listener.local_addr().unwrap().port().to_string()).unwrap();
    for mut client in listener.incoming().map(Result::unwrap) {
        let mut line = String::new();
        BufReader::new(&client).read_line(&mut line).unwrap();
        match line.trim() {
            "quit" => return,
            "crash" => panic!("as told"),
            other => client.write_all(format!("you said {other}\n").as_bytes()).unwrap(),
        }
    }
}

/// No test of its own: the policy's side of those below.
#[test]
fn ask() {
    let Ok(word) = env::var("SAY") else {
        return;
    };
    let (host, port) = (env::var("STARLING_HOST").unwrap(), env::var("STARLING_PORT").unwrap());
    let mut server = TcpStream::connect((host.as_str(), port.parse().unwrap())).unwrap();
    server.write_all(format!("{word}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    // A server that crashed gives none.
    let _ = server.read_to_string(&mut answer);
    std::io::stdout().write_all(format!("\n{answer}\n").as_bytes()).unwrap();
}

fn pair(rig: &Rig, env: &str, policy: &str) -> Launch {
    let mut launch = rig.sh(1, policy);
    let exe = env::current_exe().unwrap().to_str().unwrap().to_owned();
    launch.env = vec![("EXE".into(), exe)];
    let argv = ["sh", "-c", env].map(str::to_owned).to_vec();
    launch.env_server = Some(EnvServer { argv, port_wait: DEADLINE, host: LOCAL });
    launch
}

fn port(rig: &Rig) -> u16 {
    match rig.event() {
        ExecEvent::Port { key: KEY, host: LOCAL, port, .. } => port,
        other => panic!("{other:?}"),
    }
}

/// Process ids that the server printed.
fn env_pids(rig: &Rig) -> Vec<u32> {
    rig.text(1, Stream::EnvOut).lines().filter_map(|line| line.parse().ok()).collect()
}

/// Why the policy was never started.
fn failed(rig: &Rig, launch: Launch) -> (i32, String) {
    let refused = rig.refused(launch);
    assert!(env_pids(rig).iter().all(|pid| !lives(*pid)), "{refused:?}");
    assert!(!exists(&rig.prefix(1).with_extension("port")));
    refused
}

#[test]
fn policy_is_told_where_the_server_listens_and_its_end_is_the_outcome() {
    let rig = Rig::new();
    let policy = format!("echo {{port}} {{host}}:{{port}} $STARLING_HOST:$STARLING_PORT; SAY=hello {ASK}; exit 7");
    rig.executor.launch(pair(&rig, SERVER, &policy));
    let port = port(&rig);
    rig.started();
    let ended = rig.ended();
    assert_eq!(ended.end, End::Exit(7));
    assert_eq!(rig.executor.running(), 0);
    let text = rig.text(1, Stream::Out);
    assert!(text.starts_with(&format!("{port} 127.0.0.1:{port} 127.0.0.1:{port}\n")), "{text}");
    assert!(text.contains("\nyou said hello\n"), "{text}");
    assert_eq!(env_pids(&rig).iter().filter(|pid| lives(**pid)).count(), 0);
    assert!(!exists(&rig.prefix(1).with_extension("port")));
    assert_eq!(ended.output.env_out.len, rig.text(1, Stream::EnvOut).len() as u64);
    assert!(ended.output.env_out.len > 0 && ended.output.out.len > 0 && ended.output.env_err.len == 0);
}

#[test]
fn both_groups_of_a_pair_are_listed_under_its_run() {
    let rig = Rig::new();
    rig.executor.launch(pair(&rig, SERVER, "sleep 100"));
    port(&rig);
    let policy = rig.started();
    let mut groups = rig.executor.groups();
    groups.sort_unstable_by_key(|(_, group)| *group == policy);
    assert_eq!(groups, [(KEY, env_pids(&rig)[0]), (KEY, policy)]);
    rig.executor.kill(KEY, Kill::Hard);
    rig.ended();
    assert_eq!(rig.executor.groups(), []);
}

#[test]
fn port_may_be_printed_first_and_the_file_be_named_in_the_arguments() {
    let rig = Rig::new();
    // The file that the server knows is another one, so only the line can tell.
    let env = format!(
        "exec 3>&1; file=$STARLING_PORT_FILE.own; export STARLING_PORT_FILE=$file; ({SERVER}) >&2 & \
         until [ -s $file ]; do sleep 0.01; done; echo PORT=$(cat $file) >&3; rm $file; wait"
    );
    rig.executor.launch(pair(&rig, &env, "true"));
    let given = port(&rig);
    rig.started();
    assert_eq!(rig.ended().end, End::Exit(0));
    assert_eq!(rig.text(1, Stream::EnvOut), format!("PORT={given}\n"));
    let pid: u32 = rig.text(1, Stream::EnvErr).lines().next().unwrap().parse().unwrap();
    assert!(!lives(pid), "it was no leader");
    let (_, reason) = failed(&rig, pair(&rig, "echo {port_file} >&2; echo x > {port_file}; sleep 100", "true"));
    assert!(reason.contains("wrote \"x\" to its port file"), "{reason}");
    assert_eq!(rig.text(1, Stream::EnvErr), format!("{}.port\n", rig.prefix(1).display()));
}

#[test]
fn server_that_gives_no_port_fails_the_task_with_the_reason() {
    let rig = Rig::new();
    let because = |env: &str| failed(&rig, pair(&rig, env, "echo never"));
    let exited = (126, "the env exited with code 3 before it gave a port".to_owned());
    assert_eq!(because("echo $$; exit 3"), exited);
    let killed = (126, "the env was killed by signal 9 before it gave a port".to_owned());
    assert_eq!(because("echo $$; kill -9 $$"), killed);
    for (env, what) in [
        ("echo PORT=many; sleep 100", "the env printed \"PORT=many\", which is no port"),
        ("echo $$; echo 99999 > $STARLING_PORT_FILE; sleep 100", "the env wrote \"99999\" to its port file"),
        ("echo $$; printf 0 > $STARLING_PORT_FILE; sleep 100", "the env wrote \"0\" to its port file"),
        ("echo $$; printf 0 > $STARLING_PORT_FILE; exit 1", "the env wrote \"0\" to its port file"),
    ] {
        let (code, reason) = because(env);
        assert!(code == 126 && reason.starts_with(what), "{reason}");
    }
    assert_eq!(rig.text(1, Stream::Out), "");
    let mut launch = pair(&rig, "echo hello; sleep 100 & echo $!; wait", "echo never");
    launch.env_server.as_mut().unwrap().port_wait = Duration::from_millis(300);
    let (_, reason) = failed(&rig, launch);
    assert!(reason.starts_with("the env gave no port within 0.3 s: "), "{reason}");
    assert!(reason.ends_with("its first line is \"hello\""), "{reason}");
}

#[test]
fn port_where_somebody_else_or_nobody_listens_fails_the_task() {
    let rig = Rig::new();
    let other = TcpListener::bind((LOCAL, 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    // Whether the server goes on or ends, as most do when they cannot bind, the reason is the same.
    for then in ["sleep 100", "exit 98"] {
        let (code, reason) = failed(&rig, pair(&rig, &format!("echo PORT={port}; {then}"), "echo never"));
        let who = format!("(process {})", std::process::id());
        let taken = format!("port {port} is already taken: ");
        assert!(code == 126 && reason.starts_with(&taken) && reason.contains(&who), "{reason}");
    }
    drop(other);
    let mut launch = pair(&rig, &format!("echo PORT={port}; sleep 100"), "echo never");
    launch.env_server.as_mut().unwrap().port_wait = Duration::from_millis(100);
    let (_, reason) = failed(&rig, launch);
    let nobody = format!("the env gave port {port}, but nothing listened on 127.0.0.1:{port} within 0.1 s");
    assert_eq!(reason, nobody);
}

#[test]
fn program_of_either_that_cannot_start_is_named() {
    let rig = Rig::new();
    let mut launch = pair(&rig, SERVER, "true");
    launch.env_server.as_mut().unwrap().argv = vec!["no-such-env".into()];
    let (code, reason) = failed(&rig, launch);
    assert!(code == 127 && reason.starts_with("the env: command not found: no-such-env"), "{reason}");
    let mut launch = pair(&rig, SERVER, "true");
    launch.argv = vec!["no-such-policy".into()];
    rig.executor.launch(launch);
    port(&rig);
    let End::NotStarted { code, reason } = rig.ended().end else { panic!("it started") };
    assert!(code == 127 && reason.starts_with("the policy: command not found: no-such-policy"), "{reason}");
    assert!(env_pids(&rig).iter().all(|pid| !lives(*pid)));
}

#[test]
fn server_that_is_lost_takes_its_policy_along() {
    let rig = Rig::new();
    let run = |policy: &str| {
        rig.executor.launch(pair(&rig, SERVER, policy));
        port(&rig);
        rig.started();
        rig.ended().end
    };
    let policy = format!("SAY=crash {ASK}; echo $$; sleep 100 & echo $!; wait");
    let reason = "the env exited with code 101 while the policy ran; then the policy was killed";
    assert_eq!(run(&policy), End::EnvLost { reason: reason.into() });
    let pids: Vec<u32> = rig.text(1, Stream::Out).lines().filter_map(|line| line.parse().ok()).collect();
    assert!(pids.len() == 2 && pids.iter().chain(&env_pids(&rig)).all(|pid| !lives(*pid)), "{pids:?}");
    let reason = "the env exited with code 101 while the policy ran; then the policy exited with code 4";
    let until_gone = "while [ -d /proc/$env ]; do sleep 0.01; done";
    let env = "env=$(head -n1 $OUT.env.out)";
    let noticed = |code: &str| {
        let mut launch = pair(&rig, SERVER, &format!("{env}; SAY=crash {ASK}; {code}"));
        launch.env.push(("OUT".into(), rig.prefix(1).to_str().unwrap().into()));
        launch
    };
    let ends = |launch| {
        rig.executor.launch(launch);
        port(&rig);
        rig.started();
        rig.ended().end
    };
    // A zombie still has its directory, so the state is looked at.
    let is_dead = until_gone.replace("[ -d /proc/$env ]", "! grep -q 'State:.Z' /proc/$env/status");
    assert_eq!(ends(noticed(&format!("{is_dead}; exit 4"))), End::EnvLost { reason: reason.into() });
    assert_eq!(ends(noticed(&format!("{is_dead}; exit 0"))), End::Exit(0), "it had what it wanted");
    let quit = noticed(&format!("{is_dead}; sleep 0.5; exit 5"));
    let quit = Launch { argv: quit.argv.iter().map(|word| word.replace("SAY=crash", "SAY=quit")).collect(), ..quit };
    assert_eq!(ends(quit), End::Exit(5), "the server was told to quit, and did");
}

#[test]
fn server_that_ignores_sigterm_is_killed_after_a_grace() {
    let rig = Rig::new();
    let begin = Instant::now();
    rig.executor.launch(pair(&rig, &format!("trap '' TERM; {SERVER}"), "exit 3"));
    port(&rig);
    rig.started();
    assert_eq!(rig.ended().end, End::Exit(3));
    assert!(begin.elapsed() >= Duration::from_secs(2));
    assert!(env_pids(&rig).iter().all(|pid| !lives(*pid)));
}

#[test]
fn server_may_say_its_last_words() {
    let rig = Rig::new();
    let env = format!("trap 'sleep 0.1; echo saved; exit 0' TERM; (trap - TERM; {SERVER}) & wait");
    rig.executor.launch(pair(&rig, &env, "exit 0"));
    port(&rig);
    rig.started();
    assert_eq!(rig.ended().end, End::Exit(0));
    assert!(rig.text(1, Stream::EnvOut).ends_with("saved\n"), "{}", rig.text(1, Stream::EnvOut));
}

#[test]
fn kill_ends_both_whether_the_server_listens_yet_or_not() {
    for (how, number) in [(Kill::Gentle, 15), (Kill::Hard, 9)] {
        let rig = Rig::new();
        rig.executor.launch(pair(&rig, "sleep 100 & echo $!; echo $$; wait", "true"));
        rig.until("the pids", || env_pids(&rig).len() == 2);
        let pids = env_pids(&rig);
        rig.executor.kill(KEY, how);
        let killed = "it was killed before it started".to_owned();
        assert_eq!(rig.ended().end, End::NotStarted { code: 128 + number, reason: killed });
        assert!(pids.iter().all(|pid| !lives(*pid)));

        // Output of its own: what a reader sees of a stream that is begun anew is undefined.
        let rig = Rig::new();
        rig.executor.launch(pair(&rig, SERVER, "echo $$; sleep 100"));
        port(&rig);
        let policy = rig.started();
        rig.executor.kill(KEY, how);
        assert_eq!(rig.ended().end, End::Signal(number));
        assert!(!lives(policy) && env_pids(&rig).iter().all(|pid| !lives(*pid)));
    }
}

#[test]
fn gently_killed_policy_has_its_server_until_it_ends() {
    let rig = Rig::new();
    let policy = format!("trap 'SAY=bye {ASK}; exit 6' TERM; echo ready; while :; do sleep 0.01; done");
    rig.executor.launch(pair(&rig, SERVER, &policy));
    port(&rig);
    rig.started();
    rig.until("the policy's trap", || rig.text(1, Stream::Out).starts_with("ready\n"));
    rig.executor.kill(KEY, Kill::Gentle);
    assert_eq!(rig.ended().end, End::Exit(6));
    assert!(rig.text(1, Stream::Out).contains("you said bye\n"), "{}", rig.text(1, Stream::Out));
}

#[test]
fn shutdown_ends_both() {
    let rig = Rig::new();
    rig.executor.launch(pair(&rig, &format!("trap '' TERM; {SERVER}"), "trap '' TERM; sleep 100"));
    port(&rig);
    let policy = rig.started();
    let begin = Instant::now();
    rig.executor.shutdown();
    assert!(begin.elapsed() < Duration::from_secs(2), "no grace is waited for");
    assert_eq!(rig.ended().end, End::Signal(9));
    assert!(!lives(policy) && env_pids(&rig).iter().all(|pid| !lives(*pid)));
}

#[test]
fn orphaned_pair_is_found_by_its_mark() {
    let rig = Rig::new();
    let owner = format!("pair-{}", std::process::id());
    let mut launch = pair(&rig, SERVER, "sleep 100");
    launch.env.push(("STARLING_RUN_OWNER".into(), owner.clone()));
    rig.executor.launch(launch);
    port(&rig);
    let policy = rig.started();
    let env = env_pids(&rig)[0];
    let killed = kill_orphans(&format!("STARLING_RUN_OWNER={owner}"));
    assert!(killed.contains(&policy) && killed.contains(&env), "{killed:?}");
    rig.ended();
}

#[test]
fn both_fill_their_pipes_and_neither_blocks() {
    let rig = Rig::new();
    let fill = "head -c 300000 /dev/zero | tr '\\0' x";
    let env = format!("{fill} >&2; {fill}; echo; {SERVER}");
    rig.executor.launch(pair(&rig, &env, &format!("{fill}; {fill} >&2")));
    port(&rig);
    rig.started();
    let ended = rig.ended();
    assert_eq!((ended.end, ended.lens), (End::Exit(0), (300_000, 300_000)));
    assert!(ended.output.env_err.len == 300_000 && ended.output.env_out.len > 300_000, "{:?}", ended.output);
}

#[test]
fn many_pairs_side_by_side_have_ports_of_their_own() {
    let rig = Rig::new();
    for run in 0..20 {
        let launch = pair(&rig, SERVER, "echo {port}");
        rig.executor.launch(Launch { key: TaskKey { run }, out: rig.prefix(run), ..launch });
    }
    let mut ended = 0;
    while ended < 20 {
        match rig.event() {
            ExecEvent::Port { key, port, .. } => {
                fs::write(rig.prefix(key.run).with_extension("seen"), format!("{port}\n"))
            }
            ExecEvent::Started { .. } => Ok(()),
            ExecEvent::Ended { key, end, .. } => {
                assert_eq!(end, End::Exit(0));
                let seen = fs::read_to_string(rig.prefix(key.run).with_extension("seen")).unwrap();
                assert_eq!(rig.text(key.run, Stream::Out), seen);
                ended += 1;
                Ok(())
            }
        }
        .unwrap();
    }
}

#[test]
fn usage_of_a_pair_is_that_of_both() {
    let rig = Rig::new();
    let work = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    rig.executor.launch(pair(&rig, &format!("{work}; {SERVER}"), work));
    port(&rig);
    rig.started();
    let both = rig.ended().usage;
    let one = rig.run(rig.sh(2, work)).usage;
    let ms = |usage: Usage| usage.cpu.map(|cpu| cpu.user_ms + cpu.sys_ms).unwrap();
    assert!(ms(both) > ms(one) && both.max_rss_kib.is_some(), "{both:?} {one:?}");
}
