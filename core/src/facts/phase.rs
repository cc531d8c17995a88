//! Phases: how far a job's tasks have come, in the words of their namespace.
//!
//! Invariants: pure queries; every task is counted once. A phase may fall when a task is tried again: what counts is the latest attempt that says one.
//! Does not: know rules (`namespace::declared` does).

use smol_str::SmolStr;

use super::state::{Phase, State};
use super::{Facts, Job, Submit, view};
use crate::ids::{Attempt, GrantNo};
use crate::lattice::{IntervalSet, Lattice as _};
use crate::namespace::Declaration;

/// One statement: these tasks reached this phase.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reached {
    /// Under which attempt and grant, and which phase; the greatest counts.
    at: (Attempt, GrantNo, Phase),
    tasks: IntervalSet,
}

/// In which phases a job's tasks are, and how many in each, earliest first; phases without tasks are left out. Nothing while the submission has not arrived.
///
/// In a declared namespace with phases a task is in the highest that it reached under its latest attempt that says one, or that was remarked of it, whichever
/// is higher; before that in the first of all. Elsewhere tasks are `pending`, `running`, `done`, `failed` or `cancelled`.
#[must_use]
pub fn phases(facts: &Facts, job: &Job) -> Vec<(SmolStr, u64)> {
    let Some(submit) = job.submit.as_ref() else {
        return Vec::new();
    };
    let declaration = submit.schema().and_then(|hash| facts.declarations().by_hash(&hash));
    match declaration {
        Some(declaration) if !declaration.phases.is_empty() => declared(declaration, job, &submit.tasks),
        Some(_) | None => usual(job, submit),
    }
}

/// What the rules of a job's namespace made of all words that count: those of executors under their grants, and remarks.
#[must_use]
pub fn state(job: &Job) -> State {
    let mut all = job.remarks.as_deref().cloned().unwrap_or_default();
    for said in job.grants.values().filter_map(|grant| grant.run()?.state()) {
        let _ = all.join(said.clone());
    }
    all
}

/// By the states of tasks, as every namespace has them.
fn usual(job: &Job, submit: &Submit) -> Vec<(SmolStr, u64)> {
    let counts = view::counts(job, submit, &job.outcomes());
    let all = [
        ("pending", counts.pending),
        ("running", counts.running),
        ("done", counts.done),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
    ];
    all.into_iter().filter(|(_, tasks)| *tasks > 0).map(|(word, tasks)| (SmolStr::new_static(word), tasks)).collect()
}

fn declared(declaration: &Declaration, job: &Job, tasks: &IntervalSet) -> Vec<(SmolStr, u64)> {
    let mut by_rank = vec![IntervalSet::new(); declaration.phases.len()];
    let mut left = tasks.clone();
    for reached in said_by_executors(job) {
        let now = reached.tasks.intersection(&left);
        left.subtract(&now);
        if let Some(place) = by_rank.get_mut(usize::from(reached.at.2.rank)) {
            let _ = place.union_with(&now);
        }
    }
    if let Some(first) = by_rank.first_mut() {
        let _ = first.union_with(&left);
    }
    let remarks = job.remarks.iter().flat_map(|remarks| remarks.phases.iter());
    for (phase, about) in remarks {
        raise(&mut by_rank, usize::from(phase.rank), about);
    }
    let named = declaration.phases.iter().zip(&by_rank).filter(|(_, tasks)| !tasks.is_empty());
    named.map(|(name, tasks)| (name.clone(), tasks.len())).collect()
}

/// What executors say that counts, latest attempt first, in each the highest phase first.
fn said_by_executors(job: &Job) -> Vec<Reached> {
    let mut said = Vec::new();
    for (no, grant) in job.grants.iter() {
        let (Some(placed), Some(state)) = (grant.placed.as_ref(), grant.run().and_then(super::Run::state)) else {
            continue;
        };
        for (phase, about) in state.phases.iter() {
            let tasks = if about.is_empty() { placed.tasks.clone() } else { about.intersection(&placed.tasks) };
            said.push(Reached { at: (placed.attempt, *no, phase.clone()), tasks });
        }
    }
    said.sort_unstable_by(|left, right| right.cmp(left));
    said
}

/// Lifts the tasks that a remark is about (none: all of them) to `rank`, where they are below it.
fn raise(by_rank: &mut [IntervalSet], rank: usize, about: &IntervalSet) {
    let Some((lower, rest)) = by_rank.split_at_mut_checked(rank) else {
        return;
    };
    let Some(place) = rest.first_mut() else {
        return;
    };
    for tasks in lower {
        let lifted = if about.is_empty() { tasks.clone() } else { tasks.intersection(about) };
        tasks.subtract(&lifted);
        let _ = place.union_with(&lifted);
    }
}
