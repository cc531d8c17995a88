//! Whether the cluster kept its promises: the ledger against what every node says at the end, and against what the tasks left behind.
//!
//! Source: DESIGN section 1, and section 11, invariants 7, 9, 10, 11 and 13.
//! Invariants: pure; a finding names the submission, its job, and what was seen.
//! Does not: ask anybody.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Ack, Cancel, Level, Submission};
use super::plan::Fault;
use crate::local::traces::{Start, Traces};

/// After a fault has ended, its effects may show for so long: silence is noticed late, links are dialled again with back-off, a restarted node recovers.
const AFTERMATH_MS: u64 = 10_000;

/// Something that may make nodes doubt each other, as it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) cause: Cause,
    pub(super) from_ms: u64,
    pub(super) until_ms: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was planned.
    Fault(Fault),
    /// The machine ran nobody's program for seconds: neither this one's nor, perhaps, the nodes'.
    Stall,
}

/// How a job stands at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Some task has not ended.
    Open,
    /// All tasks succeeded.
    Done,
    /// Some task failed or was lost.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// What one node says of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Who says so.
    pub(super) node: usize,
    pub(super) state: State,
    /// Tasks whose outcome is sealed.
    pub(super) sealed: u32,
    /// Who owns it now, if that is a node of the run.
    pub(super) owner: Option<usize>,
    /// What it says of why, for people.
    pub(super) reason: String,
}

/// Everything there is to judge.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    pub(super) submissions: BTreeMap<String, Submission>,
    pub(super) traces: Traces,
    pub(super) happened: Vec<Happened>,
    /// By job, what each node that is up says. A node that does not know a job says nothing.
    pub(super) seen: BTreeMap<String, Vec<Seen>>,
    /// Nodes that are up at the end.
    pub(super) up: Vec<usize>,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Broken promises, one sentence each.
    pub(super) findings: Vec<String>,
    pub(super) submitted: usize,
    pub(super) acked: usize,
    pub(super) acked_remote: usize,
    pub(super) cancels: usize,
    pub(super) tasks: u64,
    pub(super) starts: u64,
    pub(super) extra: u64,
    /// Starts of a task under an attempt number under which it had started before.
    pub(super) repeated: u64,
    /// Acknowledged jobs that no fault touched, which must have had one start a task.
    pub(super) untouched: usize,
    /// Submissions that ran though no client was told that they were accepted.
    pub(super) unknown_run: usize,
}

/// Judges.
pub(super) fn judge(story: &Story) -> Verdict {
    let mut verdict = Verdict { submitted: story.submissions.len(), ..Verdict::default() };
    let nothing = Vec::new();
    for (tag, submission) in &story.submissions {
        let starts = story.traces.starts.get(tag).unwrap_or(&nothing);
        verdict.starts += starts.len() as u64;
        verdict.cancels += usize::from(submission.cancel != Cancel::Unasked);
        let Some(ack) = &submission.acked else {
            verdict.unknown_run += usize::from(!starts.is_empty());
            continue;
        };
        verdict.acked += 1;
        verdict.acked_remote += usize::from(ack.level == Level::Remote1);
        verdict.tasks += u64::from(submission.tasks);
        let seen = story.seen.get(&ack.job).unwrap_or(const { &Vec::new() });
        outcome(story, submission, ack, seen, &mut verdict);
        bound(story, submission, ack, seen, starts, &mut verdict);
    }
    let strays = story.traces.starts.keys().filter(|tag| !story.submissions.contains_key(*tag));
    verdict.findings.extend(strays.map(|tag| format!("{tag} ran, and nobody submitted it")));
    verdict
}

/// Known everywhere, sealed everywhere, alike everywhere, and true.
fn outcome(story: &Story, submission: &Submission, ack: &Ack, seen: &[Seen], verdict: &mut Verdict) {
    // Only its own disk had it, and that is gone.
    if ack.level == Level::Local && !story.up.contains(&submission.node) && seen.is_empty() {
        return;
    }
    let name = format!("{} ({}, {:?} at node {})", ack.job, submission.tag, ack.level, submission.node);
    let missing: Vec<usize> =
        story.up.iter().filter(|node| seen.iter().all(|seen| seen.node != **node)).copied().collect();
    if !missing.is_empty() {
        verdict.findings.push(format!("{name} is lost: nodes {missing:?} do not know it"));
    }
    for one in seen {
        if one.sealed < submission.tasks {
            let (node, sealed, tasks) = (one.node, one.sealed, submission.tasks);
            let why = &one.reason;
            verdict.findings.push(format!(
                "{name} is not sealed: node {node} has it {:?} with {sealed} of {tasks} tasks sealed ({why})",
                one.state
            ));
        }
    }
    let states: BTreeSet<State> = seen.iter().map(|seen| seen.state).collect();
    if states.len() > 1 {
        verdict.findings.push(format!("{name} ended differently at different nodes: {states:?}"));
    }
    let may_be_cancelled = submission.cancel != Cancel::Unasked;
    match seen.first() {
        Some(Seen { state: State::Done, .. }) => {
            let ran = story.traces.ends.get(&submission.tag).map_or(0, BTreeSet::len);
            if ran != submission.tasks as usize {
                let tasks = submission.tasks;
                verdict.findings.push(format!("{name} is done, but {ran} of its {tasks} tasks ran to their end"));
            }
        }
        Some(Seen { state: State::Cancelled, .. }) if may_be_cancelled => {}
        Some(Seen { state: state @ (State::Failed | State::Cancelled), reason, .. }) => {
            verdict.findings.push(format!("{name} is {state:?}, and nothing in it fails or was cancelled ({reason})"));
        }
        Some(Seen { state: State::Open, .. }) | None => {}
    }
}

/// At most one more start of a task for each time that somebody may have doubted an executor of its job.
fn bound(story: &Story, submission: &Submission, ack: &Ack, seen: &[Seen], starts: &[Start], verdict: &mut Verdict) {
    let owners: BTreeSet<usize> =
        [submission.node].into_iter().chain(seen.iter().filter_map(|seen| seen.owner)).collect();
    let executors: BTreeSet<usize> = starts.iter().map(|start| start.node).collect();
    let last_ms = starts.iter().map(|start| start.at_ms).max().unwrap_or(0).max(ack.at_ms);
    let mut doubts = 0_u64;
    for happened in &story.happened {
        let lasted = happened.from_ms..=happened.until_ms.saturating_add(AFTERMATH_MS);
        if *lasted.start() > last_ms || *lasted.end() < submission.tried_ms {
            continue;
        }
        let touched =
            executors.iter().filter(|executor| owners.iter().any(|owner| happened.touches(*owner, **executor)));
        doubts += touched.count() as u64 * happened.doubts();
    }
    verdict.untouched += usize::from(doubts == 0 && !starts.is_empty());
    let mut by_task: BTreeMap<u32, Vec<&Start>> = BTreeMap::new();
    for start in starts {
        by_task.entry(start.task).or_default().push(start);
    }
    for (task, starts) in by_task {
        let extra = starts.len() as u64 - 1;
        let attempts: BTreeSet<u32> = starts.iter().map(|start| start.attempt).collect();
        verdict.extra += extra;
        verdict.repeated += (starts.len() - attempts.len()) as u64;
        if extra > doubts {
            let places: Vec<String> = starts.iter().map(|start| start.to_string()).collect();
            verdict.findings.push(format!(
                "task {task} of {} ({}) started {} times, and faults explain {doubts} extra starts: {}",
                ack.job,
                submission.tag,
                starts.len(),
                places.join(", ")
            ));
        }
    }
}

impl Happened {
    fn touches(&self, owner: usize, executor: usize) -> bool {
        match &self.cause {
            Cause::Fault(fault) => fault.kind.comes_between(owner, executor),
            Cause::Stall => true,
        }
    }

    fn doubts(&self) -> u64 {
        match &self.cause {
            Cause::Fault(fault) => u64::from(fault.doubts()),
            Cause::Stall => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Kind;
    use super::*;

    const JOB: &str = "wren-1";

    /// Two nodes, one job of two tasks submitted at node 1 and run at node 2, all well.
    fn well() -> Story {
        let ack = Ack { at_ms: 20_100, job: JOB.to_owned(), level: Level::Remote1 };
        let submission = Submission {
            tag: "1-1".to_owned(),
            node: 1,
            tasks: 2,
            tried_ms: 20_000,
            acked: Some(ack),
            cancel: Cancel::Unasked,
        };
        let seen = |node| Seen { node, state: State::Done, sealed: 2, owner: Some(1), reason: String::new() };
        let start = |task| Start { task, attempt: 1, node: 2, at_ms: 20_200 };
        Story {
            submissions: [("1-1".to_owned(), submission)].into(),
            traces: Traces {
                starts: [("1-1".to_owned(), vec![start(0), start(1)])].into(),
                ends: [("1-1".to_owned(), [0, 1].into())].into(),
            },
            happened: Vec::new(),
            seen: [(JOB.to_owned(), vec![seen(1), seen(2)])].into(),
            up: vec![1, 2],
        }
    }

    fn kill(node: usize, from_ms: u64) -> Happened {
        let fault = Fault { kind: Kind::Kill { node }, start_ms: from_ms, end_ms: from_ms + 1_000 };
        Happened { cause: Cause::Fault(fault), from_ms, until_ms: from_ms + 1_000 }
    }

    fn finds(story: &Story, words: &str) {
        let findings = judge(story).findings;
        assert!(findings.iter().any(|finding| finding.contains(words)), "no `{words}` in {findings:?}");
    }

    #[test]
    fn a_good_run_has_no_findings() {
        let verdict = judge(&well());
        let expected = Verdict {
            submitted: 1,
            acked: 1,
            acked_remote: 1,
            tasks: 2,
            starts: 2,
            untouched: 1,
            ..Verdict::default()
        };
        assert_eq!(verdict, expected);
    }

    #[test]
    fn a_job_that_a_node_does_not_know_is_lost() {
        let mut story = well();
        story.seen.get_mut(JOB).unwrap().pop();
        finds(&story, "is lost: nodes [2]");
        story.seen.clear();
        finds(&story, "is lost: nodes [1, 2]");
    }

    #[test]
    fn only_what_one_disk_had_may_go_with_that_disk() {
        let mut story = well();
        story.seen.clear();
        story.up = vec![2];
        finds(&story, "is lost");
        story.submissions.get_mut("1-1").unwrap().acked.as_mut().unwrap().level = Level::Local;
        assert_eq!(judge(&story).findings, Vec::<String>::new());
    }

    #[test]
    fn an_unsealed_task_is_found() {
        let mut story = well();
        story.seen.get_mut(JOB).unwrap()[1].sealed = 1;
        finds(&story, "node 2 has it Done with 1 of 2 tasks sealed");
    }

    #[test]
    fn outcomes_must_agree_and_be_true() {
        let mut story = well();
        story.seen.get_mut(JOB).unwrap()[1].state = State::Failed;
        finds(&story, "ended differently");
        let mut story = well();
        story.traces.ends.get_mut("1-1").unwrap().remove(&1);
        finds(&story, "1 of its 2 tasks ran to their end");
        let mut story = well();
        for seen in story.seen.get_mut(JOB).unwrap() {
            seen.state = State::Cancelled;
        }
        finds(&story, "nothing in it fails or was cancelled");
        story.submissions.get_mut("1-1").unwrap().cancel = Cancel::Asked;
        assert_eq!(judge(&story).findings, Vec::<String>::new());
    }

    #[test]
    fn one_more_start_needs_one_more_fault_that_touches_the_job() {
        let mut story = well();
        let again = Start { task: 0, attempt: 2, node: 2, at_ms: 30_000 };
        story.traces.starts.get_mut("1-1").unwrap().push(again.clone());
        finds(&story, "task 0 of wren-1 (1-1) started 2 times, and faults explain 0");
        // Of another node, too early, too late.
        for other in [kill(3, 25_000), kill(2, 8_000), kill(2, 30_100)] {
            story.happened = vec![other];
            finds(&story, "faults explain 0");
        }
        for fault in [kill(2, 25_000), kill(1, 10_000)] {
            story.happened = vec![fault];
            let verdict = judge(&story);
            assert_eq!((verdict.findings.len(), verdict.extra, verdict.untouched), (0, 1, 0));
        }
        story.traces.starts.get_mut("1-1").unwrap().push(again);
        finds(&story, "started 3 times, and faults explain 1");
        assert_eq!(judge(&story).repeated, 1);
    }

    #[test]
    fn a_start_that_nobody_asked_for_is_found() {
        let mut story = well();
        story.submissions.clear();
        finds(&story, "1-1 ran, and nobody submitted it");
    }

    #[test]
    fn what_was_never_acknowledged_may_run_or_not() {
        let mut story = well();
        story.submissions.get_mut("1-1").unwrap().acked = None;
        story.seen.clear();
        let verdict = judge(&story);
        assert_eq!((verdict.findings.len(), verdict.acked, verdict.unknown_run), (0, 0, 1));
    }
}
