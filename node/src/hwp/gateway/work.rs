//! Work: a task as a worker is told of it.
//!
//! Workers of others may ignore the environment, the working directory and the limit of an assignment, so these are made part of the command:
//! `env -C DIR K=V… timeout -k 5 T CMD…`, words and never a shell's line. Our own worker, which says so by the label `starling`, keeps to what it is told; only a
//! working directory, for which the protocol has no field, is wrapped for it too.
//! Invariants: the words of the command reach the program as they were submitted.

use std::collections::BTreeMap;

use starling_core::ids::NodeId;
use starling_core::machine::{Errand, Spawn, Work};
use starling_core::namespace::batch::Launch;
use starling_proto::hwp;

/// How long after its limit a command that does not end by itself is killed, seconds.
const KILL_AFTER_S: u64 = 5;

/// How much of a task a worker looks after by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It runs the command, that is all.
    Command,
    /// It sees to the environment and the limit too.
    Own,
}

/// A task for a worker.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Assignment {
    /// What to run.
    pub(super) spec: hwp::JobSpec,
    /// The limit that timeout(1) watches over; 0 if it does not.
    pub(super) wrapped_ms: u64,
}

/// What a spawn is for a worker.
///
/// # Errors
/// Why it cannot be told to one, for people.
pub(super) fn assignment(spawn: &Spawn, errand: &Errand, trust: Trust, me: &NodeId) -> Result<Assignment, String> {
    let Launch { command, env, cwd, stdin, image, timeout_ms } = &errand.launch;
    if stdin.as_ref().is_some_and(|stdin| !stdin.is_empty()) {
        return Err("workers take no standard input; put it into a file that the command reads".to_owned());
    }
    if let Some((name, _)) =
        env.iter().find(|(name, _)| name.is_empty() || name.starts_with('-') || name.contains(['=', '\0']))
    {
        return Err(format!("{name:?} cannot be the name of an environment variable"));
    }
    let mut env = env.clone();
    env.push(("STARLING_ATTEMPT".to_owned(), spawn.attempt.to_string()));
    if trust == Trust::Command {
        // Our own worker marks its processes itself, and stops those that it left behind.
        env.push(("STARLING_RUN_OWNER".to_owned(), me.to_hex()));
    }
    let (wrapped_ms, command) = match trust {
        Trust::Own => (0, wrap(command, cwd.as_deref(), &[], 0)),
        Trust::Command => (*timeout_ms, wrap(command, cwd.as_deref(), &env, *timeout_ms)),
    };
    let resources =
        hwp::Resources { cpu_m: errand.need.cpu_milli, memory_mb: errand.need.mem_bytes.div_ceil(1 << 20), gpu: 0 };
    let spec = hwp::JobSpec {
        name: errand.name.to_string(),
        image: image.clone().unwrap_or_default(),
        command,
        resources: Some(resources),
        timeout_ms: *timeout_ms,
        // Starling tries again itself.
        retries: 0,
        env: env.into_iter().collect::<BTreeMap<_, _>>(),
        secret_refs: Vec::new(),
    };
    Ok(Assignment { spec, wrapped_ms })
}

/// The errand of a spawn, if it is one.
pub(super) fn errand(spawn: &Spawn) -> Option<&Errand> {
    match &spawn.work {
        Work::Worker(errand) => Some(errand),
        Work::Process(_) | Work::Pair(_) | Work::Relay(_) => None,
    }
}

fn wrap(command: &[String], cwd: Option<&str>, env: &[(String, String)], timeout_ms: u64) -> Vec<String> {
    let mut words = Vec::new();
    if cwd.is_some() || !env.is_empty() {
        words.push("env".to_owned());
        words.extend(cwd.into_iter().flat_map(|dir| ["-C".to_owned(), dir.to_owned()]));
        words.extend(env.iter().map(|(name, value)| format!("{name}={value}")));
    }
    if timeout_ms > 0 {
        words.extend(["timeout".to_owned(), "-k".to_owned(), KILL_AFTER_S.to_string(), seconds(timeout_ms)]);
    } else if !words.is_empty() && command.first().is_some_and(|program| program.contains('=')) {
        // env(1) would take such a program for a variable; nohup-like helpers are not everywhere, this is.
        words.extend(["timeout".to_owned(), "0".to_owned()]);
    }
    words.extend(command.iter().cloned());
    words
}

/// As timeout(1) reads it; fractions only where they are needed, because not every one of its kind reads them.
fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { (ms / 1_000).to_string() } else { format!("{}.{:03}", ms / 1_000, ms % 1_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_command_is_wrapped_word_by_word() {
        let env = [("A".to_owned(), "x y".to_owned())];
        let command = words(&["sh", "-c", "echo $A; exit 3"]);
        let all = wrap(&command, Some("/tmp/a b"), &env, 1_500);
        let expected = ["env", "-C", "/tmp/a b", "A=x y", "timeout", "-k", "5", "1.500", "sh", "-c", "echo $A; exit 3"];
        assert_eq!(all, expected);
        assert_eq!(wrap(&command, None, &[], 0), command);
        assert_eq!(wrap(&command, None, &[], 2_000)[..4], words(&["timeout", "-k", "5", "2"]));
        assert_eq!(wrap(&words(&["a=b"]), None, &env, 0), words(&["env", "A=x y", "timeout", "0", "a=b"]));
    }
}
