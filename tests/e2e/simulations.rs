//! Simulations: an environment and a policy that play together on some node, with the cart-pole examples.
//!
//! Invariants: as in `main`; whatever a node started is known by STARLING_RUN_OWNER in its environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

use crate::support::{BINARY, Done, Flock, LONG, PAIR, SMALL, alone, within};

/// An example's program, quoted for a command. `cargo test` builds the examples along with the tests.
fn example(name: &str) -> String {
    let path = Path::new(BINARY).with_file_name("examples").join(name);
    assert!(path.exists(), "{} is missing: build it by `cargo build -p starling-node --examples`", path.display());
    format!("'{}'", path.display())
}

/// Submits simulations and returns the job's id.
#[track_caller]
fn submit(flock: &Flock, flags: &[&str], env: &str, policy: &str) -> String {
    let all = [&["sim", "submit", "--parsable", "--env", env, "--policy", policy], flags].concat();
    flock.at(1, &all).exits(0).line()
}

/// A policy that plays until the file is there.
fn until_exists(gate: &Path) -> String {
    format!("sh -c 'until test -e {}; do sleep 0.05; done'", gate.display())
}

/// The ids of the nodes by their names.
fn ids(flock: &Flock) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    flock.json(1, &["nodes"]).iter().map(|node| (text(&node["name"]), text(&node["id"]))).collect()
}

/// The process groups that this node started and that are still there.
fn groups_of(id: &str) -> BTreeSet<i32> {
    let mark = format!("STARLING_RUN_OWNER={id}").into_bytes();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_marked = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == mark)
    };
    let group = |pid: i32| rustix::process::getpgid(rustix::process::Pid::from_raw(pid)).ok();
    pids.filter(is_marked).filter_map(group).map(|group| group.as_raw_pid()).collect()
}

/// The events of one kind of a job, as node 1 has them.
fn events(flock: &Flock, job: &str, kind: &str) -> Vec<Value> {
    let mut events = flock.json(1, &["events", "--job", job]);
    events.retain(|event| event["kind"] == kind);
    events
}

/// Host and port that a `PortAllocated` tells.
fn address(event: &Value) -> (String, u16) {
    let text = event["text"].as_str().unwrap();
    let field = |key: &str| text.split(' ').find_map(|word| word.strip_prefix(key)).unwrap();
    (field("host=").to_owned(), field("port=").parse().unwrap())
}

/// The tasks that an event speaks of.
fn tasks(event: &Value) -> impl Iterator<Item = u64> {
    let bound = |range: &Value, key: &str| range[key].as_u64().unwrap();
    let ranges: Vec<_> =
        event["tasks"].as_array().unwrap().iter().map(|range| bound(range, "start")..=bound(range, "end")).collect();
    ranges.into_iter().flatten()
}

#[test]
fn a_simulation_plays_elsewhere_and_is_read_anywhere() {
    let flock = Flock::of(2, SMALL);
    let two = flock.name(2);
    // Without the file it prints its port first.
    let env = format!("env -u STARLING_PORT_FILE {}", example("cartpole_env"));
    let policy = format!("{} {{host}}:{{port}} --episodes 2 --seed 7", example("cartpole_policy"));
    let run = ["sim", "run", "--node", &two, "-n", "pole", "-e", "GREETING=hi", "--env", &env, "--policy", &policy];
    let done = flock.at(1, &run).exits(0).says("env| PORT=");
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!((lines.len(), &lines[0][..10]), (3, "episode 7:"), "{}", done.out);
    assert!(lines[2].starts_with("mean return"), "{}", done.out);
    let job = format!("{}-1", flock.name(1));
    within(LONG, "the end at node 2", || flock.state(2, &job) == "done");
    let stream = |name: &str| flock.at(2, &["logs", &job, "--stream", name]).exits(0).out;
    assert_eq!(stream("out"), done.out);
    let told = stream("env-out");
    let detail = flock.one(2, &["job", "info", &job]);
    let attempt = &detail["attempts"][0];
    let port = &attempt["ports"][0];
    assert_eq!(
        (told.lines().next().unwrap(), &port["host"]),
        (format!("PORT={}", port["port"]).as_str(), &"127.0.0.1".into())
    );
    assert_eq!((stream("err"), stream("env-err")), (String::new(), String::new()));
    assert_eq!((&attempt["node"], &detail["simulation"]["policy_command"][2]), (&two.into(), &"--episodes".into()));
    assert!(attempt["usage"]["wall_ms"].as_u64() > Some(0), "{attempt}");
    let page = flock.at(1, &["job", "info", &job]).exits(0);
    assert!(page.out.contains(&format!("127.0.0.1:{}", port["port"])) && page.out.contains(" wall"), "{}", page.out);
    let line = flock.at(2, &["events", "--job", &job]).exits(0);
    assert!(line.out.contains("simulation.PortAllocated"), "{}", line.out);
    assert!(line.out.contains(&format!("host=127.0.0.1 port={}", port["port"])), "{}", line.out);
    assert_eq!(flock.one(2, &["jobs", &job])["name"], "pole");
    // The policy's code is the command's own.
    let asks_much = format!("{policy} --at-least 501");
    flock.at(2, &["sim", "run", "--env", &env, "--policy", &asks_much]).exits(1);
    flock.at(2, &["sim", "run", "--env", &env, "--policy", "x 'y"]).exits(2).says("each quotation closed");
}

#[test]
fn fifty_simulations_side_by_side_never_meet_on_a_port() {
    let _alone = alone();
    let flock = Flock::of(3, PAIR);
    // Several at once on each node, all nodes on this one host.
    let policy = format!("{} --episodes 1", example("cartpole_policy"));
    let job = submit(&flock, &["-a", "0-49", "-c", "0.5"], &example("cartpole_env"), &policy);
    flock.at(2, &["wait", "--timeout", "60s", &job]).exits(0);
    flock.await_equal(&[1, 2, 3]);
    let detail = flock.one(3, &["job", "info", &job]);
    assert_eq!((&detail["summary"]["counts"]["done"], &detail["seal"]["tasks"]), (&50.into(), &50.into()));

    let opened = events(&flock, &job, "PortAllocated");
    let of_task: BTreeSet<u64> = opened.iter().flat_map(tasks).collect();
    assert_eq!((opened.len(), of_task.len()), (50, 50));
    let at = |event: &Value| event["at_unix_ms"].as_u64().unwrap();
    let finished = events(&flock, &job, "SimulationFinished");
    let ended: BTreeMap<u64, u64> =
        finished.iter().flat_map(|event| tasks(event).map(move |task| (task, at(event)))).collect();
    assert_eq!(ended.len(), 50);
    let mut lives: BTreeMap<(String, u16), Vec<(u64, u64)>> = BTreeMap::new();
    for event in &opened {
        let task = tasks(event).next().unwrap();
        lives.entry(address(event)).or_default().push((at(event), ended[&task]));
    }
    for (address, lives) in &mut lives {
        lives.sort_unstable();
        assert!(lives.windows(2).all(|two| two[0].1 <= two[1].0), "two at once on {address:?}: {lives:?}");
    }
    let nodes: BTreeSet<&str> = opened.iter().map(|event| event["author"].as_str().unwrap()).collect();
    assert!(nodes.len() > 1, "all on {nodes:?}");
    for (name, id) in ids(&flock) {
        assert_eq!(groups_of(&id), BTreeSet::new(), "left by {name}");
    }
}

#[test]
fn a_pair_of_a_killed_node_plays_again_elsewhere() {
    let _alone = alone();
    let mut flock = Flock::of(3, SMALL);
    let (gate, one) = (flock.file("gate"), flock.name(1));
    let ids = ids(&flock);
    // Node 1 owns the simulation and has no room for it.
    let blocker = flock.submit(1, &["--node", &one, "--", "sleep", "600"]);
    within(LONG, "the blocker's start", || flock.state(1, &blocker) == "running");
    let job = submit(&flock, &[], &example("cartpole_env"), &until_exists(&gate));
    let ports = || events(&flock, &job, "PortAllocated");
    within(LONG, "the first port", || ports().len() == 1);
    let first = ports().remove(0);
    let victim = first["author"].as_str().unwrap().to_owned();
    let number = (1..=3).find(|number| flock.name(*number) == victim).unwrap();
    within(LONG, "both processes of the pair", || groups_of(&ids[&victim]).len() == 2);
    flock.cluster.kill(number).unwrap();

    let ports = || events(&flock, &job, "PortAllocated");
    within(LONG, "the second port", || ports().len() == 2);
    assert_eq!(groups_of(&ids[&victim]).len(), 2, "the killed node's pair plays on, and nobody listens to it");
    fs::write(&gate, "").unwrap();
    flock.at(1, &["wait", "--timeout", "60s", &job]).exits(0);
    let told = ports();
    assert_eq!((told.len(), &told[0]), (2, &first), "what was said stays said");
    assert_ne!(told[1]["author"], first["author"]);

    let other = (2..=3).find(|other| *other != number).unwrap();
    within(LONG, "the end at the other node", || flock.state(other, &job) == "done");
    let detail = flock.one(other, &["job", "info", &job]);
    let shown: Vec<_> = detail["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| (attempt["attempt"].clone(), attempt["node"].clone(), attempt["ports"][0]["port"].clone()))
        .collect();
    let expected = [(1, &told[0]), (2, &told[1])]
        .map(|(attempt, event)| (Value::from(attempt), event["author"].clone(), Value::from(address(event).1)));
    assert_eq!(shown, expected);
    assert_eq!(groups_of(&ids[&flock.name(other)]), BTreeSet::new());

    // The pair of the node that is away ends in order, too: its policy first, then its environment.
    within(LONG, "the end of the first pair", || groups_of(&ids[&victim]).is_empty());
    flock.cluster.boot(number).unwrap();
    flock.cluster.await_ready(3).unwrap();
    flock.await_equal(&[1, 2, 3]);
    assert_eq!(flock.one(number, &["jobs", &job])["state"], "done");
    flock.at(1, &["cancel", &blocker]).exits(0);
}

#[test]
fn what_goes_wrong_is_told_and_leaves_nothing() {
    let flock = Flock::of(1, SMALL);
    let (gate, started) = (flock.file("gate"), flock.file("started"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (env, gate) = (example("cartpole_env"), gate.display());
    let small = |wait| ["-c", "0.1", "--port-wait", wait];
    let touch = format!("touch {}", started.display());
    let dies = format!("sh -c \"{env} & until test -e {gate}; do sleep 0.05; done; kill \\$!; exit 5\"");
    let cases = [
        (
            "sh -c 'exit 3'".to_owned(),
            &*touch,
            "60s",
            126,
            "the env exited with code 3 before it gave a port".to_owned(),
        ),
        ("sleep 600".to_owned(), &touch, "200ms", 126, "the env gave no port within 0.2 s".to_owned()),
        (
            "sh -c 'echo rubbish > $STARLING_PORT_FILE; sleep 600'".to_owned(),
            &touch,
            "60s",
            126,
            "which is no port: expected 1 to 65535".to_owned(),
        ),
        (
            format!("sh -c 'echo {port} > {{port_file}}; sleep 600'"),
            &touch,
            "60s",
            126,
            format!("port {port} is already taken"),
        ),
        ("no-such-env".to_owned(), &touch, "60s", 127, "the env: command not found: no-such-env".to_owned()),
        (
            dies,
            &format!("sh -c 'touch {gate}; sleep 600'"),
            "60s",
            70,
            "the env exited with code 5 while the policy ran".to_owned(),
        ),
    ];
    let jobs: Vec<String> =
        cases.iter().map(|(env, policy, wait, ..)| submit(&flock, &small(wait), env, policy)).collect();
    for (job, (_, _, _, code, reason)) in jobs.iter().zip(&cases) {
        flock.at(1, &["wait", "--timeout", "60s", job]).exits(*code);
        let attempt = flock.one(1, &["job", "info", job])["attempts"][0].clone();
        assert_eq!((&attempt["exit"], &attempt["state"]), (&(*code).into(), &"failed".into()), "{attempt}");
        assert!(attempt["reason"].as_str().unwrap().contains(reason.as_str()), "{reason}: {attempt}");
        let told: Done = flock.at(1, &["job", "info", job]).exits(0);
        assert!(told.out.contains(reason.as_str()), "{}", told.out);
    }
    assert!(!started.exists(), "no policy without a port");
    let id = ids(&flock).remove(&flock.name(1)).unwrap();
    assert_eq!(groups_of(&id), BTreeSet::new());

    let job = submit(&flock, &[], &env, "sleep 600");
    within(LONG, "both groups", || groups_of(&id).len() == 2);
    flock.at(1, &["cancel", &job]).exits(0);
    flock.at(1, &["wait", "--timeout", "60s", &job]).exits(125);
    assert_eq!(groups_of(&id), BTreeSet::new());
}
