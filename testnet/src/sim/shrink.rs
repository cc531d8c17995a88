//! Shrinking: from a run that breaks a rule to a small one that breaks the same rule.
//!
//! Greedy, as in delta debugging (Zeller and Hildebrandt, 2002): one thing less at a time, as long as the same invariant breaks, until nothing can be left out.
//! Invariants: the result breaks the rule that the original broke; every step leaves less.

use super::campaign::{Repeats, run_seed};
use super::options::{Keep, Options, PerMille};
use super::scenario::Field;
use super::scenario::fields;

/// Runs that shrinking may take.
const RUNS_MAX: u32 = 400;
/// The rule that needs two runs to be seen.
const SAME_TRACE: u8 = 23;

/// What shrinking came to.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The small run.
    pub options: Options,
    /// Runs that it took.
    pub runs: u32,
}

/// Leaves out what is not needed to break invariant `number`. `options` must break it.
#[must_use]
pub fn shrink(options: &Options, number: u8) -> Shrunk {
    let mut best = Options { lines: 0, ..options.clone() };
    let mut runs = 0;
    loop {
        let mut smaller = None;
        for candidate in candidates(&best) {
            if runs == RUNS_MAX {
                break;
            }
            runs += 1;
            if breaks(&candidate, number) {
                smaller = Some(candidate);
                break;
            }
        }
        match smaller {
            Some(candidate) => best = candidate,
            None => return Shrunk { options: best, runs },
        }
    }
}

/// Whether a run breaks the rule.
#[must_use]
pub fn breaks(options: &Options, number: u8) -> bool {
    let repeats = if number == SAME_TRACE { Repeats::Twice } else { Repeats::Once };
    run_seed(options.clone(), repeats).failure.is_some_and(|failure| failure.violation.number == number)
}

/// Runs with one thing less, the greatest savings first.
fn candidates(options: &Options) -> Vec<Options> {
    let mut all = Vec::new();
    let mut try_with = |candidate: Options| all.push(candidate);
    let without = |change: &dyn Fn(&mut Options)| {
        let mut candidate = options.clone();
        change(&mut candidate);
        candidate
    };
    for nodes in
        [2, options.nodes / 2, options.nodes - 1].into_iter().filter(|nodes| (2..options.nodes).contains(nodes))
    {
        try_with(without(&|one| one.nodes = nodes));
    }
    if options.safety_ms > 1_000 {
        try_with(without(&|one| one.safety_ms /= 2));
        try_with(without(&|one| one.safety_ms -= one.safety_ms / 4));
    }
    for index in 0..fields(&mut options.faults.clone()).len() {
        let mut candidate = options.clone();
        let is_less = match fields(&mut candidate.faults).swap_remove(index).1 {
            Field::Chance(chance) => std::mem::take(chance) > PerMille(0),
            Field::Every(every) => every.take().is_some(),
            Field::Ms(ms) => std::mem::replace(ms, 1) > 1,
        };
        if is_less {
            try_with(candidate);
        }
    }
    if options.keep != Keep::ALL {
        try_with(without(&|one| one.keep = Keep::ALL));
    }
    if options.workers > 0 {
        try_with(without(&|one| one.workers = 0));
    }
    if options.tasks_max > 1 {
        try_with(without(&|one| one.tasks_max /= 2));
    }
    if options.as_bytes > PerMille(0) {
        try_with(without(&|one| one.as_bytes = PerMille(0)));
    }
    if options.submit_every_ms < options.safety_ms {
        try_with(without(&|one| one.submit_every_ms *= 2));
    }
    all
}
