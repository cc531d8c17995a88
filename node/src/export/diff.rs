//! How two places differ: for each log, what one has and the other lacks, and where they part.
//!
//! Invariants: symmetric; what a node holds in a snapshot counts as held.
//! Does not: say who is right: where an author signed two different things both are.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::ids::{LogId, Seq};
use starling_core::log::{Span, Survey};

/// One of the two.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// Its batches.
    pub survey: Survey,
    /// Up to where it holds logs whose batches it does not have all: in a snapshot.
    pub held: BTreeMap<LogId, Seq>,
}

/// One log, compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub log: LogId,
    /// The name that its author gave itself; may be empty.
    pub name: String,
    /// The position of its last event here and there; 0 without any.
    pub len: [Seq; 2],
    /// Events that the first has and the second lacks, and the other way round.
    pub only: [u64; 2],
    /// The first position where they have different batches: the author signed two different things.
    pub parts_at: Option<Seq>,
    /// Whether one knows of batches on other branches that the other does not.
    pub branches_differ: bool,
}

impl Line {
    /// Whether both have the same.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.only == [0, 0] && self.parts_at.is_none() && !self.branches_differ
    }
}

/// Compares all logs of both.
#[must_use]
pub fn compare(first: &Side, second: &Side) -> Vec<Line> {
    let logs: BTreeSet<LogId> = first.logs().chain(second.logs()).copied().collect();
    logs.into_iter().map(|log| line(log, first, second)).collect()
}

impl Side {
    fn logs(&self) -> impl Iterator<Item = &LogId> {
        self.survey.logs().map(|(log, _)| log).chain(self.held.keys())
    }

    /// What it has of a log: ranges, ascending, disjoint.
    fn has(&self, log: &LogId) -> Vec<(u64, u64)> {
        let held = self.held.get(log).map_or(0, |seq| seq.0);
        let mut ranges = if held > 0 { vec![(1, held)] } else { Vec::new() };
        let mut next = 1;
        if let Some(span) = self.survey.log(log) {
            let end = span.len().0 + 1;
            for (from, to) in span.holes().iter().copied().chain([(Seq(end), Seq(end))]) {
                let (start, stop) = (next.max(held + 1), from.0 - 1);
                if start <= stop {
                    ranges.push((start, stop));
                }
                next = to.0 + 1;
            }
        }
        ranges
    }

    fn len(&self, log: &LogId) -> Seq {
        Seq(self.has(log).last().map_or(0, |(_, last)| *last))
    }
}

fn line(log: LogId, first: &Side, second: &Side) -> Line {
    let (one, two) = (first.has(&log), second.has(&log));
    let spans = [first.survey.log(&log), second.survey.log(&log)];
    let name = spans.iter().flatten().map(|span| span.name()).find(|name| !name.is_empty());
    let mut parts_at = None;
    let mut branches_differ = false;
    let shared = common(&one, &two);
    let mut only = [count(&one) - shared, count(&two) - shared];
    if let [Some(a), Some(b)] = spans {
        // Which of two branches counts as the log itself is for each place to say.
        if a.branches().next().is_some() && heads(a) == heads(b) && a.holes() == b.holes() {
            only = [0, 0];
        }
        let parted = [unknown(a, b), unknown(b, a)];
        parts_at = parted.into_iter().flatten().min();
        branches_differ = lacks_branch(a, b) || lacks_branch(b, a);
    }
    Line {
        log,
        name: name.unwrap_or_default().to_owned(),
        len: [first.len(&log), second.len(&log)],
        only,
        parts_at,
        branches_differ,
    }
}

fn heads(span: &Span) -> BTreeSet<u64> {
    span.marks().map(|(_, head)| head).chain(span.branches()).collect()
}

/// The first batch of `a` at a place that `b` has and fills otherwise.
fn unknown(a: &Span, b: &Span) -> Option<Seq> {
    let known = heads(b);
    let is_there = |seq: Seq| seq <= b.len() && !b.holes().iter().any(|(from, to)| (*from..=*to).contains(&seq));
    a.marks().find(|(seq, head)| is_there(*seq) && !known.contains(head)).map(|(seq, _)| seq)
}

fn lacks_branch(a: &Span, b: &Span) -> bool {
    let known = heads(b);
    a.branches().any(|head| !known.contains(&head))
}

fn count(ranges: &[(u64, u64)]) -> u64 {
    ranges.iter().map(|(from, to)| to - from + 1).sum()
}

/// How many positions lie in both.
fn common(one: &[(u64, u64)], two: &[(u64, u64)]) -> u64 {
    let (mut at, mut other, mut sum) = (0, 0, 0);
    while let (Some((a, b)), Some((c, d))) = (one.get(at), two.get(other)) {
        let (from, to) = ((*a).max(*c), (*b).min(*d));
        if from <= to {
            sum += to - from + 1;
        }
        if b < d { at += 1 } else { other += 1 }
    }
    sum
}
