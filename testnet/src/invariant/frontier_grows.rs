//! 5: what a node holds durably it holds for ever, over crashes too (DESIGN section 4).

use starling_core::log::Frontier;

use super::Violation;
use crate::sim::Seat;

/// The last frontier seen of each node.
#[derive(Debug)]
pub(crate) struct FrontierGrows {
    last: Vec<Frontier>,
}

impl FrontierGrows {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { last: vec![Frontier::default(); nodes] }
    }

    /// The node's disk has lost what it held: what is claimed from now on must last again.
    pub(crate) fn forget(&mut self, seat: Seat) {
        self.last[seat.0] = Frontier::default();
    }

    /// Looks at a node's frontier after a step, or after a start.
    pub(crate) fn look(&mut self, seat: Seat, frontier: &Frontier) -> Option<Violation> {
        let last = &mut self.last[seat.0];
        if last.digest() == frontier.digest() {
            return None;
        }
        let lost = last.tips().find(|(log, tip)| frontier.tip(log).is_none_or(|now| now.len < tip.len));
        let found = lost.map(|(log, tip)| {
            let now = frontier.tip(log).map_or(0, |tip| tip.len.0);
            Violation::new(5, format!("{seat:?} held {} events of {log:?}, now {now}", tip.len))
        });
        *last = frontier.clone();
        found
    }
}
