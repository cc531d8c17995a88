//! After the faults: how long the nodes take to hold the same, and what they say once everything is quiet.
//!
//! Invariants: waits `SETTLE` at most, and says what it waits for.
//! Does not: judge what a job came to (`judge`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::judge::Seen;
use super::ledger::Submission;
use super::report::say;
use super::view::{Frontier, View};
use crate::local::pause;

/// In which everything must be sealed and equal after the last fault.
const SETTLE: Duration = Duration::from_secs(90);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);
/// Of things of one kind so many are named.
const SHOWN: usize = 5;
/// Between two words on what is waited for.
const TALK: Duration = Duration::from_secs(5);

/// Waits for all nodes to hold what any held when the storm ended.
#[derive(Debug)]
pub(super) struct Healing {
    since: Instant,
    looked: Option<Instant>,
    /// What all nodes together held when all could first be asked.
    goal: Option<Frontier>,
}

impl Healing {
    pub(super) fn start() -> Self {
        Self { since: Instant::now(), looked: None, goal: None }
    }

    /// How long it took, once they do. Looks a few times a second, however often it is called.
    pub(super) fn look(&mut self, view: &View, nodes: &[usize]) -> Option<Duration> {
        if self.looked.is_some_and(|looked| looked.elapsed() < PAUSE) {
            return None;
        }
        self.looked = Some(Instant::now());
        // A node that has just been started does not answer yet.
        let held: Vec<Frontier> = nodes.iter().map(|node| view.frontier(*node)).collect::<anyhow::Result<_>>().ok()?;
        let goal = self.goal.get_or_insert_with(|| all_of(&held));
        held.iter().all(|held| holds(held, goal)).then(|| self.since.elapsed())
    }
}

fn all_of(frontiers: &[Frontier]) -> Frontier {
    let mut all = Frontier::new();
    for (log, len) in frontiers.iter().flatten() {
        let most = all.entry(log.clone()).or_insert(0);
        *most = (*len).max(*most);
    }
    all
}

fn holds(held: &Frontier, goal: &Frontier) -> bool {
    goal.iter().all(|(log, len)| held.get(log).is_some_and(|held| held >= len))
}

/// What each node says of each acknowledged job, by job.
type Said = BTreeMap<String, Vec<Seen>>;

/// Waits until every acknowledged job is sealed at every node and all nodes hold the same; then says what each says of each job, and what is still wrong.
///
/// # Errors
/// If somebody interrupts.
pub(super) fn settle(
    view: &View,
    nodes: &[usize],
    submissions: &BTreeMap<String, Submission>,
    interrupted: impl Fn() -> bool,
) -> anyhow::Result<(Said, Vec<String>)> {
    let start = Instant::now();
    let (mut talked, mut told) = (start, String::new());
    let mut asked = Asked::of(submissions);
    loop {
        if interrupted() {
            bail!("interrupted");
        }
        let late = start.elapsed() > SETTLE;
        let mut waits = waits_for(view, nodes);
        if waits.is_empty() || late {
            waits.extend(asked.ask(view, nodes));
        }
        if waits.is_empty() || late {
            let troubles =
                waits.into_iter().map(|wait| format!("after {} s still waiting for {wait}", SETTLE.as_secs()));
            return Ok((asked.said, troubles.collect()));
        }
        if talked.elapsed() >= TALK {
            talked = Instant::now();
            let tell = format!("          waiting for {}", waits.join("; "));
            if tell != told {
                say(&tell);
                told = tell;
            }
        }
        pause(PAUSE);
    }
}

/// Jobs that are asked for until they are sealed at every node, since then nothing changes any more.
struct Asked<'a> {
    /// With how many tasks each has.
    unsealed: BTreeMap<&'a str, u32>,
    said: Said,
}

impl<'a> Asked<'a> {
    fn of(submissions: &'a BTreeMap<String, Submission>) -> Self {
        let acked = submissions.values().filter_map(|one| Some((one.acked.as_ref()?.job.as_str(), one.tasks)));
        Self { unsealed: acked.collect(), said: Said::new() }
    }

    /// Asks for those that were not sealed everywhere so far; says what is missing, in words.
    fn ask(&mut self, view: &View, nodes: &[usize]) -> Vec<String> {
        let jobs: Vec<&str> = self.unsealed.keys().copied().collect();
        let answers = view.jobs(nodes, &jobs);
        for job in jobs {
            self.said.insert(job.to_owned(), Vec::new());
        }
        for (job, seen) in answers.said {
            self.said.entry(job).or_default().push(seen);
        }
        let said = &self.said;
        self.unsealed.retain(|job, tasks| {
            let sealed = said.get(*job).map_or(0, |said| said.iter().filter(|seen| seen.sealed >= *tasks).count());
            sealed < nodes.len()
        });
        let mut waits: Vec<String> = answers.silent.iter().map(|node| format!("an answer of node {node}")).collect();
        waits.extend(answers.refusals.into_iter().take(SHOWN).map(|refusal| format!("an answer of {refusal}")));
        if !self.unsealed.is_empty() {
            let some: Vec<&str> = self.unsealed.keys().copied().take(SHOWN).collect();
            waits.push(format!("{} jobs to be sealed at every node: {} …", self.unsealed.len(), some.join(" ")));
        }
        waits
    }
}

/// What is not yet as it must be, in words.
fn waits_for(view: &View, nodes: &[usize]) -> Vec<String> {
    let mut waits = Vec::new();
    let mut held = BTreeSet::new();
    let mut open: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for node in nodes {
        match view.open_jobs(*node) {
            Ok(0) => {}
            Ok(jobs) => open.entry(jobs).or_default().push(node.to_string()),
            Err(error) => waits.push(format!("an answer of node {node} ({error:#})")),
        }
        match view.info(*node) {
            Ok(info) => _ = held.insert((info.events, info.facts_root)),
            Err(error) => waits.push(format!("an answer of node {node} ({error:#})")),
        }
    }
    for (jobs, nodes) in open {
        waits.push(format!("{jobs} jobs to end, as nodes {} see it", nodes.join(" ")));
    }
    if held.len() > 1 {
        let held: Vec<String> =
            held.into_iter().map(|(events, root)| format!("{events} events, root {root:.8}")).collect();
        waits.push(format!("equal logs and roots (now {})", held.join(" / ")));
    }
    if waits.is_empty() {
        for node in nodes {
            match view.complaints(*node) {
                Ok(complaints) => {
                    waits.extend(
                        complaints.into_iter().map(|what| format!("node {node}'s doctor to be content ({what})")),
                    );
                }
                Err(error) => waits.push(format!("an answer of node {node}'s doctor ({error:#})")),
            }
        }
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frontier(lens: &[(&str, u64)]) -> Frontier {
        lens.iter().map(|(author, len)| (((*author).to_owned(), 1), *len)).collect()
    }

    #[test]
    fn the_goal_is_what_any_node_held() {
        let (one, two) = (frontier(&[("a", 3), ("b", 1)]), frontier(&[("a", 2), ("c", 9)]));
        let goal = all_of(&[one.clone(), two]);
        assert_eq!(goal, frontier(&[("a", 3), ("b", 1), ("c", 9)]));
        assert!(!holds(&one, &goal));
        assert!(holds(&frontier(&[("a", 4), ("b", 1), ("c", 9), ("d", 1)]), &goal));
    }
}
