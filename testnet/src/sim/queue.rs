//! The event queue: what happens next in virtual time.
//!
//! Invariants: events of one moment come out in the order they went in, so a run is a function of its seed; time never goes back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use starling_core::time::Mono;

/// Events by time, then by arrival. The heap holds small keys; the events themselves stay put in a slab.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    slab: Vec<Option<E>>,
    free: Vec<usize>,
    pushed: u64,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), slab: Vec::new(), free: Vec::new(), pushed: 0 }
    }

    pub(crate) fn push(&mut self, at: Mono, event: E) {
        let place = match self.free.pop() {
            Some(place) => {
                self.slab[place] = Some(event);
                place
            }
            None => {
                self.slab.push(Some(event));
                self.slab.len() - 1
            }
        };
        self.pushed += 1;
        self.heap.push(Reverse((at.0, self.pushed, place)));
    }

    /// The next event, if it is due at `until` or before.
    pub(crate) fn pop(&mut self, until: Mono) -> Option<(Mono, E)> {
        let Reverse((at, _, place)) = *self.heap.peek()?;
        if at > until.0 {
            return None;
        }
        self.heap.pop();
        let event = self.slab[place].take()?;
        self.free.push(place);
        Some((Mono(at), event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_moment_keep_their_order() {
        let mut queue = Queue::new();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b'), (9, 'e')] {
            queue.push(Mono(at), what);
        }
        let mut seen = String::new();
        while let Some((_, what)) = queue.pop(Mono(5)) {
            seen.push(what);
        }
        assert_eq!(seen, "abcd");
        assert_eq!(queue.pop(Mono(9)), Some((Mono(9), 'e')));
    }
}
