//! The users' guide: every command in `docs/guide.md` is typed as it stands there, in one shell, and must succeed.
//!
//! Invariants: nothing is left out: a shell block of a kind that this file does not know fails the test. Blocks marked `background` start programs that
//! stay; each line is one terminal.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use starling_testnet::local::{can_make_namespaces, until};

use crate::support::{BINARY, alone, scratch, skip};

const GUIDE: &str = include_str!("../../docs/guide.md");
/// The whole guide, on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(240);

/// A block of commands.
struct Block<'a> {
    /// Where it begins in the guide.
    line: usize,
    stays: bool,
    text: Vec<&'a str>,
}

fn blocks() -> Vec<Block<'static>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    let mut other = false;
    for (index, line) in GUIDE.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(""), Some(_)) => blocks.extend(open.take()),
            (Some(""), None) => other = false,
            (Some("sh"), None) if !other => open = Some(Block { line: index + 1, stays: false, text: Vec::new() }),
            (Some("sh background"), None) if !other => {
                open = Some(Block { line: index + 1, stays: true, text: Vec::new() });
            }
            (Some("toml" | "json" | "text" | "rust" | "python"), None) => other = true,
            (Some(info), _) => panic!("docs/guide.md:{}: a block of an unknown kind: {info}", index + 1),
            (None, Some(block)) => block.text.push(line),
            (None, None) => {}
        }
    }
    blocks
}

/// One script of all blocks. It says where it is, so that a failure names the line of the guide.
fn script() -> String {
    let mut script = "set -eu\nnodes=0\nready() { test \"$(starling nodes --json 2>/dev/null | grep -c '\"state\":\"ready\"')\" = \"$nodes\"; }\n".to_owned();
    script += "settle() { for _ in $(seq 600); do ready && return; sleep 0.1; done; echo \"not ready: $nodes nodes\" >&2; exit 1; }\n";
    for Block { line, stays, text } in blocks() {
        writeln!(script, "echo 'docs/guide.md:{line}' >&2").unwrap();
        for command in text {
            if !stays || command.trim().is_empty() || command.trim_start().starts_with('#') {
                writeln!(script, "{command}").unwrap();
                continue;
            }
            if command.starts_with("starling up") {
                script += "nodes=$((nodes + 1))\n";
            }
            writeln!(script, "({command}) >>\"$STARLING_HOME/background.log\" 2>&1 &").unwrap();
        }
        if stays {
            script += "settle\n";
        }
    }
    script
}

/// A directory that looks like the project's, with the binaries under test where a release build would put them.
fn stage(home: &Path) -> PathBuf {
    let project = home.join("project");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::create_dir_all(project.join("target")).unwrap();
    fs::create_dir_all(project.join("node")).unwrap();
    symlink(root.join("node/examples"), project.join("node/examples")).unwrap();
    symlink(Path::new(BINARY).parent().unwrap(), project.join("target/release")).unwrap();
    project
}

#[test]
fn every_command_of_the_guide_works() {
    if Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skip("the guide's relay is a Python program, and there is no python3");
    }
    let _alone = alone();
    let home = scratch();
    let project = stage(home.path());
    let state = home.path().join("state");
    fs::create_dir_all(&state).unwrap();
    let said = fs::File::create(home.path().join("said")).unwrap();
    let mut command = Command::new("setsid");
    let script = script();
    if can_make_namespaces() {
        // A network of its own: the guide names the usual ports, which somebody may be using.
        let script = format!("ip link set lo up\n{script}");
        command.args(["--wait", "unshare", "--net", "bash", "-c", &script]);
    } else if usual_ports_are_free() {
        command.args(["--wait", "bash", "-c", &script]);
    } else {
        return skip("the guide names the usual ports, which are in use, and this user may make no network namespace");
    }
    command.current_dir(&project).stdin(Stdio::null());
    command.env("STARLING_HOME", &state).env("STARLING_CPUS", "2").env_remove("STARLING_VIA").env("NO_COLOR", "1");
    command.stdout(said.try_clone().unwrap()).stderr(said);
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut status = None;
    until(DEADLINE, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    end_nodes(&state);
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let said = fs::read_to_string(home.path().join("said")).unwrap();
    let last: Vec<&str> = said.lines().rev().take(40).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    let succeeded = status.is_some_and(|status| status.success());
    assert!(succeeded, "{status:?} after {:?}; the last lines:\n{}", begun.elapsed(), last.join("\n"));
}

fn usual_ports_are_free() -> bool {
    (7450..=7452).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

/// Stops whatever was started with this state directory, gently: nodes, and programs in the background.
fn end_nodes(state: &Path) {
    let mark = format!("STARLING_HOME={}", state.display());
    let ours = || -> Vec<i32> {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
        let is_ours = |pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
        };
        pids.filter(is_ours).collect()
    };
    let signal = |signal| {
        for pid in ours().into_iter().filter_map(rustix::process::Pid::from_raw) {
            // It may have ended by itself.
            let _gone = rustix::process::kill_process(pid, signal);
        }
    };
    signal(rustix::process::Signal::TERM);
    if !until(Duration::from_secs(15), || ours().is_empty()) {
        signal(rustix::process::Signal::KILL);
    }
}

#[test]
fn the_guide_has_commands_for_each_lesson() {
    let all = blocks();
    assert!(all.iter().any(|block| block.stays), "nodes are started");
    for word in
        ["starling run", "starling sim run", "starling ns put", "starling facts", "starling relays", "starling top"]
    {
        assert!(all.iter().flat_map(|block| &block.text).any(|line| line.contains(word)), "no `{word}`");
    }
}
