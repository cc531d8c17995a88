//! Reasons: why a job waits or how it failed, in words.
//!
//! Invariants: says only what this node knows.
//! Does not: decide whether a node takes a job (`schedule::explain` does).

use starling_core::facts::view::{self, JobView, State};
use starling_core::facts::{Facts, Job, Outcome};
use starling_core::ids::JobId;
use starling_core::machine::{Machine, Outlook};
use starling_core::resources::Resources;
use starling_core::schedule::{Explanation, Health, NodeReason, explain};
use starling_core::time::Now;

/// What to do where no label is.
const SEE_LABELS: &str = "`starling nodes --wide` shows labels";
/// What to do where no relay is.
const START_ONE: &str = "start one (see docs/guide.md)";

/// One clause: why the job waits or how it failed; empty if there is nothing to say.
pub(super) fn of_job(machine: &Machine, now: Now, view: &JobView<'_>, job: &Job) -> String {
    match view.state {
        State::Pending if job.cancel.0.is_none() => {
            let owner = machine.facts().owner_of(&view.id);
            let succession = succession(machine, now, view.id);
            waiting(&explain(now.mono, &owner, job, machine.fleet()), job, &succession)
        }
        State::Pending | State::Running | State::Done | State::Failed | State::Cancelled | State::Lost => {
            by_facts(machine.facts(), view, job)
        }
    }
}

/// As far as Facts alone tell it, which know nothing of why a job waits.
pub(super) fn by_facts(facts: &Facts, view: &JobView<'_>, job: &Job) -> String {
    match view.state {
        State::Done => String::new(),
        State::Failed | State::Lost => view.worst.as_ref().map(of_outcome).unwrap_or_default(),
        State::Cancelled => cancelled(facts, job),
        State::Pending | State::Running if job.cancel.0.is_some() => "being cancelled".to_owned(),
        State::Pending | State::Running => String::new(),
    }
}

fn cancelled(facts: &Facts, job: &Job) -> String {
    job.cancel.0.map_or_else(String::new, |cancel| format!("cancelled at {}", view::node_name(facts, &cancel.by)))
}

/// How a task ended, where its exit code does not say it all.
pub(super) fn of_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Exit(_) | Outcome::Cancelled => String::new(),
        Outcome::Signal(signal) => format!("ended by signal {signal}"),
        Outcome::NotStarted(_, reason) | Outcome::Broke(reason) => reason.to_string(),
        Outcome::TimedOut => "ran past its time limit".to_owned(),
        Outcome::Lost => "its node went down and nobody knows how it ended".to_owned(),
    }
}

/// What becomes of a job whose owner is silent: who takes over and when, or why nobody does.
pub(super) fn succession(machine: &Machine, now: Now, job: JobId) -> String {
    let owner = machine.facts().owner_of(&job);
    let name = view::node_name(machine.facts(), &owner);
    match machine.outlook(now, &owner) {
        Outlook::Lives => format!("its owner {name} is not heard at the moment, and only the owner places its tasks"),
        Outlook::NeverHeard => format!(
            "its owner {name} was never heard here, so nobody can tell whether it is gone; start it, or say that it is gone for good: \
             starling cluster forget NODE"
        ),
        Outlook::Soon(0) => format!("its owner {name} is silent; another node is about to take over"),
        Outlook::Soon(ms) => format!("its owner {name} is silent; another node takes over in {} s", ms.div_ceil(1_000)),
        Outlook::TooFew { live, roster } => format!(
            "its owner {name} is silent, and with {live} of {roster} nodes in sight nobody here takes over; start the others, or say who is gone for good: \
             starling cluster forget NODE"
        ),
    }
}

/// One clause about all nodes: what the job waits for; empty if it does not wait. `succession` is said where its owner is silent.
pub(super) fn waiting(explanation: &Explanation, job: &Job, succession: &str) -> String {
    let Explanation::Waiting { need, owner, nodes, .. } = explanation else {
        return String::new();
    };
    let (need, owner) = (*need, *owner);
    let has = |wanted: fn(&NodeReason) -> bool| nodes.iter().any(|(_, _, reason)| wanted(reason));
    let wanted = job.submit.as_ref().and_then(|submit| submit.wishes().node);
    let unlabelled = nodes.iter().find_map(|(_, _, reason)| match reason {
        NodeReason::NoLabel { label } => Some(label),
        NodeReason::CouldRun
        | NodeReason::Busy { .. }
        | NodeReason::TooSmall { .. }
        | NodeReason::NotWanted
        | NodeReason::NotForWorkers
        | NodeReason::NoRelay { .. }
        | NodeReason::Silent { .. }
        | NodeReason::NotAccepting => None,
    });
    let unserved = nodes.iter().find_map(|(_, _, reason)| match reason {
        NodeReason::NoRelay { ns } => Some(ns),
        NodeReason::CouldRun
        | NodeReason::Busy { .. }
        | NodeReason::TooSmall { .. }
        | NodeReason::NotWanted
        | NodeReason::NoLabel { .. }
        | NodeReason::NotForWorkers
        | NodeReason::Silent { .. }
        | NodeReason::NotAccepting => None,
    });
    if owner != Health::Live {
        succession.to_owned()
    } else if has(|reason| matches!(reason, NodeReason::CouldRun)) {
        "about to be placed".to_owned()
    } else if has(|reason| matches!(reason, NodeReason::Busy { .. })) {
        match wanted {
            Some(node) => format!("node {node} is full at the moment"),
            None => "every node that is big enough is full at the moment".to_owned(),
        }
    } else if let Some(node) = wanted {
        let known = nodes.iter().find(|(_, name, _)| *name == node);
        match known.map(|(_, _, reason)| reason) {
            Some(NodeReason::TooSmall { .. }) => {
                format!("node {node} has less than {}", resources(need))
            }
            Some(NodeReason::NotAccepting) => format!("node {node} takes no work now"),
            Some(NodeReason::NoRelay { ns }) => format!("no relay serves namespace {ns} at node {node}; {START_ONE}"),
            Some(NodeReason::NoLabel { label }) => format!("node {node} has no label {label}"),
            Some(_) => format!("node {node} is silent"),
            None => format!("no node is called {node}"),
        }
    } else if let Some(label) = unlabelled {
        let wanted = job.submit.as_ref().map(|submit| submit.wishes().labels).unwrap_or_default();
        match wanted.as_slice() {
            [] | [_] => format!("no node and no worker that could run it has label {label}; {SEE_LABELS}"),
            many => {
                format!("no node and no worker that could run it has all of labels {}; {SEE_LABELS}", many.join(", "))
            }
        }
    } else if let Some(ns) = unserved {
        format!("no relay serves namespace {ns}; {START_ONE}")
    } else if has(|reason| matches!(reason, NodeReason::NotAccepting)) {
        "no node that is big enough takes work now".to_owned()
    } else {
        format!("no live node has {}", resources(need))
    }
}

/// What stands between a job and one node: whether it would take it now, and why.
pub(super) fn of_node(reason: &NodeReason, need: Resources) -> (bool, String) {
    match reason {
        NodeReason::CouldRun => (true, "has room now".to_owned()),
        NodeReason::Busy { free } if *free == Resources::default() => (false, "full: nothing free".to_owned()),
        NodeReason::Busy { free } => (false, format!("full: {} free", resources(*free))),
        NodeReason::TooSmall { total } => {
            let text = format!("too small: has {}, a task needs {}", resources(*total), resources(need));
            (false, text)
        }
        NodeReason::NotWanted => (false, "the job asks for another node".to_owned()),
        NodeReason::NoLabel { label } => (false, format!("has no label {label}")),
        NodeReason::NotForWorkers => (false, "workers take single commands without standard input".to_owned()),
        NodeReason::Silent { for_ms } => (false, format!("silent for {} s", for_ms / 1_000)),
        NodeReason::NoRelay { ns } => (false, format!("no relay there serves namespace {ns}")),
        NodeReason::NotAccepting => (false, "takes no work now: its disk refuses, or it is stopping".to_owned()),
    }
}

/// `2 cpus and 64 GiB`.
pub(super) fn resources(resources: Resources) -> String {
    let cpus = match (resources.cpu_milli / 1_000, resources.cpu_milli % 1_000) {
        (1, 0) => "1 cpu".to_owned(),
        (whole, 0) => format!("{whole} cpus"),
        (whole, milli) => {
            let digits = format!("{whole}.{milli:03}");
            format!("{} cpus", digits.trim_end_matches('0'))
        }
    };
    match resources.mem_bytes {
        // Workers that do not say have room for any task.
        0 | u64::MAX => cpus,
        bytes => format!("{cpus} and {}", size(bytes)),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.iter().find(|(unit, _)| bytes >= *unit);
    match unit {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}
