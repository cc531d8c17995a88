//! The event queue: what happens next in virtual time.
//!
//! A calendar: one list per millisecond for the near future, a map for the rest. Time is whole milliseconds and most events are near, so this is cheaper
//! than a heap, and events never move in memory once they are near.
//! Invariants: events of one moment come out in the order they went in, so a run is a function of its seed; time never goes back.

use std::collections::{BTreeMap, VecDeque};

use starling_core::time::Mono;

/// Milliseconds with a list of their own; a power of two, so that a place is found by masking.
const NEAR_MS: u64 = 4_096;

/// Events by time, then by arrival.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    /// Nothing lies before this moment.
    cursor: u64,
    near: Vec<VecDeque<E>>,
    /// Beyond `cursor + NEAR_MS`.
    far: BTreeMap<u64, VecDeque<E>>,
}

fn place(at: u64) -> usize {
    usize::try_from(at % NEAR_MS).unwrap_or(0)
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        let near = (0..NEAR_MS).map(|_| VecDeque::new()).collect();
        Self { cursor: 0, near, far: BTreeMap::new() }
    }

    /// What is due in the past is due now.
    pub(crate) fn push(&mut self, at: Mono, event: E) {
        let at = at.0.max(self.cursor);
        if at < self.cursor + NEAR_MS {
            self.near[place(at)].push_back(event);
        } else {
            self.far.entry(at).or_default().push_back(event);
        }
    }

    /// The next event, if it is due at `until` or before.
    pub(crate) fn pop(&mut self, until: Mono) -> Option<(Mono, E)> {
        loop {
            if let Some(event) = self.near[place(self.cursor)].pop_front() {
                return Some((Mono(self.cursor), event));
            }
            if self.cursor >= until.0 {
                return None;
            }
            self.cursor += 1;
            // The moment that has just come near: its list is empty, and nobody can have pushed to it before.
            let newest = self.cursor + NEAR_MS - 1;
            if self.far.first_key_value().is_some_and(|(at, _)| *at == newest)
                && let Some((_, events)) = self.far.pop_first()
            {
                self.near[place(newest)] = events;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_moment_keep_their_order() {
        let mut queue = Queue::new();
        for (at, what) in [(5, 'c'), (1, 'a'), (9_000, 'f'), (5, 'd'), (1, 'b'), (9, 'e')] {
            queue.push(Mono(at), what);
        }
        let mut seen = String::new();
        while let Some((_, what)) = queue.pop(Mono(5)) {
            seen.push(what);
        }
        assert_eq!(seen, "abcd");
        assert_eq!(queue.pop(Mono(9)), Some((Mono(9), 'e')));
        queue.push(Mono(3), 'x');
        assert_eq!(queue.pop(Mono(9)), Some((Mono(9), 'x')));
        assert_eq!(queue.pop(Mono(8_000)), None);
        queue.push(Mono(9_000), 'g');
        assert_eq!(queue.pop(Mono(10_000)), Some((Mono(9_000), 'f')));
        assert_eq!(queue.pop(Mono(10_000)), Some((Mono(9_000), 'g')));
        assert_eq!(queue.pop(Mono(10_000)), None);
    }
}
