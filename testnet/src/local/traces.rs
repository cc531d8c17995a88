//! What tasks leave behind: one line when they start and one when they have run to their end, in a file that all nodes share.
//!
//! Invariants: lines are appended whole (far below the size that appends may tear at).
//! Does not: trust the cluster for anything; the lines are written by the tasks' own shells.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::Context as _;

/// What a task runs: `sh -c SCRIPT sh FILE TAG SECONDS`. The kernel's clock since boot is one for all hosts, and no fault changes it.
pub(crate) const SCRIPT: &str = concat!(
    r#"read now rest </proc/uptime; echo "start $2 $STARLING_TASK $STARLING_ATTEMPT $STARLING_NODE_ID $now" >>"$1"; "#,
    r#"sleep "$3"; echo "end $2 $STARLING_TASK $STARLING_ATTEMPT" >>"$1""#
);

/// One start of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) task: u32,
    pub(crate) attempt: u32,
    /// The node's number.
    pub(crate) node: usize,
    /// Since the start of the run.
    pub(crate) at_ms: u64,
}

impl fmt::Display for Start {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "attempt {} at node {} at {:.1} s", self.attempt, self.node, self.at_ms as f64 / 1_000.0)
    }
}

/// All lines, by submission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traces {
    pub(crate) starts: BTreeMap<String, Vec<Start>>,
    /// Tasks that ran to their end at least once.
    pub(crate) ends: BTreeMap<String, BTreeSet<u32>>,
}

/// Milliseconds since the machine started.
///
/// # Errors
/// Without `/proc`.
pub(crate) fn uptime_ms() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/uptime").context("reading /proc/uptime")?;
    millis(text.split(' ').next().unwrap_or("")).with_context(|| format!("/proc/uptime says {text}"))
}

/// `12.34` seconds as milliseconds.
fn millis(seconds: &str) -> Option<u64> {
    let (whole, hundredths) = seconds.split_once('.')?;
    let hundredths: u64 = if hundredths.len() == 2 { hundredths.parse().ok()? } else { return None };
    Some(whole.parse::<u64>().ok()? * 1_000 + hundredths * 10)
}

/// Reads the lines. `began_ms` is the uptime at the start of the run; `numbers` are the nodes' by their public keys in hex.
///
/// # Errors
/// If a line is none of ours.
pub(crate) fn read(path: &Path, began_ms: u64, numbers: &BTreeMap<String, usize>) -> anyhow::Result<Traces> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let mut traces = Traces::default();
    for line in text.lines() {
        add(&mut traces, line, began_ms, numbers).with_context(|| format!("not a line of a task: {line}"))?;
    }
    Ok(traces)
}

fn add(traces: &mut Traces, line: &str, began_ms: u64, numbers: &BTreeMap<String, usize>) -> Option<()> {
    let fields: Vec<&str> = line.split(' ').collect();
    match fields[..] {
        ["start", tag, task, attempt, node, at] => {
            let node = *numbers.get(node)?;
            let at_ms = millis(at)?.saturating_sub(began_ms);
            let start = Start { task: task.parse().ok()?, attempt: attempt.parse().ok()?, node, at_ms };
            traces.starts.entry(tag.to_owned()).or_default().push(start);
        }
        ["end", tag, task, _attempt] => {
            traces.ends.entry(tag.to_owned()).or_default().insert(task.parse().ok()?);
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_script_leaves_lines_that_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("traces");
        let before = uptime_ms().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sh"]).arg(&path).args(["2-7", "0"]);
        shell.envs([("STARLING_TASK", "3"), ("STARLING_ATTEMPT", "2"), ("STARLING_NODE_ID", "ab12")]);
        assert!(shell.status().unwrap().success());
        let traces = read(&path, before, &[("ab12".to_owned(), 4)].into()).unwrap();
        let starts = &traces.starts["2-7"];
        assert_eq!((starts[0].task, starts[0].attempt, starts[0].node), (3, 2, 4));
        assert!(starts[0].at_ms < 60_000, "{starts:?}");
        assert_eq!(traces.ends, [("2-7".to_owned(), [3].into())].into());
        read(&path, before, &BTreeMap::new()).unwrap_err();
    }

    #[test]
    fn no_file_is_no_lines() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&dir.path().join("none"), 0, &BTreeMap::new()).unwrap(), Traces::default());
    }
}
