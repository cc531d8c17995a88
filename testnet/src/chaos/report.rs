//! What a run prints: where it stands, its plan, and a table at the end.
#![expect(clippy::print_stdout, reason = "this is the output of a command")]

use std::collections::BTreeMap;
use std::time::Duration;

use super::judge::{Cause, Happened};
use super::plan::Plan;
use super::run::Outcome;

/// Findings shown; the rest is counted.
const SHOWN: usize = 40;

/// One line, now.
pub(super) fn say(text: &str) {
    println!("{text}");
}

/// The plan, one fault a line.
pub(super) fn show_plan(plan: &Plan) {
    say("   from        for  what               nodes");
    for fault in &plan.faults {
        say(&fault.to_string());
    }
    let calms: Vec<String> = plan.calms_ms.iter().map(|calm| format!("{:.1}", *calm as f64 / 1_000.0)).collect();
    say(&format!(
        "{} faults in {:.1} s; calm from {} s",
        plan.faults.len(),
        plan.length_ms as f64 / 1_000.0,
        calms.join(", ")
    ));
}

/// The table, and what was found.
pub(super) fn show(outcome: &Outcome) {
    let verdict = &outcome.verdict;
    let row = |name: &str, value: String| say(&format!("  {name:<34} {value}"));
    say("");
    row("time", format!("{:.1} min", outcome.lasted.as_secs_f64() / 60.0));
    row("faults", by_kind(&outcome.happened));
    let acked = format!("{}, {} of them on two disks at once", verdict.acked, verdict.acked_remote);
    row("jobs acknowledged", acked);
    row(
        "submissions not acknowledged",
        format!("{}, of which {} ran", verdict.submitted - verdict.acked, verdict.unknown_run),
    );
    row("cancels", verdict.cancels.to_string());
    row("tasks of acknowledged jobs", verdict.tasks.to_string());
    row("starts", format!("{}, {} of them extra", verdict.starts, verdict.extra));
    row("starts under a known attempt", verdict.repeated.to_string());
    row("executors called dead", outcome.suspicions.to_string());
    row("jobs that no fault touched", format!("{}, one start a task each", verdict.untouched));
    let longest = outcome.healings.iter().max().copied().unwrap_or(Duration::ZERO);
    row("longest healing after a storm", format!("{:.1} s (of {})", longest.as_secs_f64(), outcome.healings.len()));
    row("all sealed and equal at the end", format!("{:.1} s after the last client", outcome.settled_in.as_secs_f64()));
    for finding in verdict.findings.iter().take(SHOWN) {
        say(&format!("BROKEN: {finding}"));
    }
    if verdict.findings.len() > SHOWN {
        say(&format!("… and {} more", verdict.findings.len() - SHOWN));
    }
}

/// `3 kill -9, 2 pause`.
fn by_kind(happened: &[Happened]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for happened in happened {
        let word = match &happened.cause {
            Cause::Fault(fault) => fault.kind.word(),
            Cause::Stall => "stalls of this machine (not planned)",
        };
        *counts.entry(word).or_default() += 1;
    }
    let counts: Vec<String> = counts.into_iter().map(|(word, count)| format!("{count} {word}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}
