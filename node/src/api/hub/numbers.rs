//! Numbers for cursors: programs written against a hub parse cursors as numbers.
//!
//! Invariants: a number is this node's, of this run, and one client's: none is ever given to two cursors, so an unknown one (of another node, an earlier run, or
//! long ago) means everything, which is safe, because telling a job twice does no harm. At most `CLIENTS_MAX` clients with `KEPT` cursors each are remembered.

use std::collections::{BTreeMap, VecDeque};

use crate::api::facts::Cursor;

/// Clients remembered. More: the one that was away longest gets everything again.
const CLIENTS_MAX: usize = 256;
/// Cursors remembered of a client, which may ask again with an old one when an answer was lost.
const KEPT: usize = 8;
/// Bits for the numbers of one run. What lies above is drawn by lot at its start; together they stay below 2^53, so that JavaScript reads them.
const RUN_BITS: u32 = 32;

/// The table.
#[derive(Debug)]
pub(super) struct Numbers {
    next: u64,
    clients: BTreeMap<String, VecDeque<(u64, Cursor)>>,
}

impl Numbers {
    /// An empty table, whose numbers begin with `lot`, of which 20 bits count.
    pub(super) fn new(lot: u32) -> Self {
        let lot = u64::from(lot & 0x000f_ffff);
        Self { next: (lot << RUN_BITS) + 1, clients: BTreeMap::new() }
    }

    /// The cursor that a client was given as `number`; everything if it was not.
    pub(super) fn cursor(&self, client: &str, number: u64) -> Cursor {
        let known = self.clients.get(client).and_then(|kept| kept.iter().find(|(own, _)| *own == number));
        known.map(|(_, cursor)| cursor.clone()).unwrap_or_default()
    }

    /// A number for a cursor: the last one, if nothing has changed since.
    pub(super) fn number(&mut self, client: &str, cursor: Cursor) -> u64 {
        if let Some((number, last)) = self.clients.get(client).and_then(VecDeque::back)
            && *last == cursor
        {
            return *number;
        }
        if !self.clients.contains_key(client) && self.clients.len() >= CLIENTS_MAX {
            let oldest = self.clients.iter().min_by_key(|(_, kept)| kept.back().map(|(number, _)| *number));
            let oldest = oldest.map(|(client, _)| client.clone());
            self.clients.retain(|client, _| Some(client) != oldest.as_ref());
        }
        let number = self.next;
        self.next += 1;
        let kept = self.clients.entry(client.to_owned()).or_default();
        kept.push_back((number, cursor));
        if kept.len() > KEPT {
            kept.pop_front();
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use starling_core::ids::{Epoch, LogId, NodeId, Seq};

    use super::*;

    fn at(seq: u64) -> Cursor {
        let mut cursor = Cursor::default();
        cursor.advance(&LogId { node: NodeId([1; 32]), epoch: Epoch(1) }, Seq(seq));
        cursor
    }

    #[test]
    fn a_number_is_known_to_its_client_for_a_while() {
        let mut numbers = Numbers::new(7);
        let first = numbers.number("a", at(1));
        assert_eq!(numbers.number("a", at(1)), first, "nothing has changed");
        assert_eq!(numbers.cursor("a", first), at(1));
        assert_eq!(numbers.cursor("b", first), Cursor::default());
        assert_eq!(numbers.cursor("a", 0), Cursor::default());
        for seq in 2..=10 {
            numbers.number("a", at(seq));
        }
        assert_eq!(numbers.cursor("a", first), Cursor::default(), "long ago");
    }

    #[test]
    fn numbers_of_two_runs_differ_and_stay_readable() {
        let (mut one, mut other) = (Numbers::new(u32::MAX), Numbers::new(1));
        let (left, right) = (one.number("a", at(1)), other.number("a", at(1)));
        assert!(left != right && left < 1 << 53 && right < 1 << 53);
    }

    #[test]
    fn of_too_many_clients_the_one_longest_away_is_forgotten() {
        let mut numbers = Numbers::new(0);
        let first = numbers.number("first", at(1));
        let second = numbers.number("second", at(1));
        for client in 2..=CLIENTS_MAX {
            numbers.number(&format!("c{client}"), at(1));
        }
        assert_eq!(numbers.cursor("first", first), Cursor::default());
        assert_eq!(numbers.cursor("second", second), at(1));
        assert_eq!(numbers.clients.len(), CLIENTS_MAX);
    }
}
