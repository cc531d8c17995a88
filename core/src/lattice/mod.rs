//! Join-semilattices: values that only grow, so that merging in any order, any number of times, gives the same result.
//!
//! Invariants: `join` is associative, commutative and idempotent, and says whether it changed anything; `laws::check_laws` tests it.
//! Source: Shapiro et al., "Conflict-free Replicated Data Types", 2011.

mod interval_set;
#[cfg(test)]
pub(crate) mod laws;
mod numbers;
mod registers;
mod vec_map;

use std::collections::{BTreeMap, BTreeSet};

pub use interval_set::{IntervalSet, IntervalSetError, Range};
pub use numbers::Numbers;
pub use registers::{Max, Min, WriteOnce};
pub use vec_map::VecMap;

/// Whether a join added anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Change {
    /// The left side already contained the right one.
    None,
    /// The left side grew.
    Grew,
}

impl Change {
    /// `Grew` if either is.
    pub fn or(self, other: Self) -> Self {
        match self {
            Self::Grew => Self::Grew,
            Self::None => other,
        }
    }

    /// Whether something grew.
    #[must_use]
    pub fn grew(self) -> bool {
        matches!(self, Self::Grew)
    }
}

impl From<bool> for Change {
    fn from(grew: bool) -> Self {
        if grew { Self::Grew } else { Self::None }
    }
}

/// A value with a least upper bound. `Default` is the bottom.
pub trait Lattice: Default {
    /// Replaces `self` by the least upper bound of both.
    fn join(&mut self, other: Self) -> Change;
}

impl<K: Ord, V: Lattice> Lattice for BTreeMap<K, V> {
    fn join(&mut self, other: Self) -> Change {
        let mut change = Change::None;
        for (key, value) in other {
            match self.entry(key) {
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    change = change.or(entry.get_mut().join(value));
                }
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(value);
                    change = Change::Grew;
                }
            }
        }
        change
    }
}

impl<T: Ord> Lattice for BTreeSet<T> {
    fn join(&mut self, other: Self) -> Change {
        let before = self.len();
        self.extend(other);
        Change::from(self.len() > before)
    }
}

/// A part that is mostly absent. Absent is below everything; a present bottom must not be made, it would be unequal to an absent one.
impl<T: Lattice> Lattice for Option<Box<T>> {
    fn join(&mut self, other: Self) -> Change {
        match (self.as_mut(), other) {
            (_, None) => Change::None,
            (Some(ours), Some(theirs)) => ours.join(*theirs),
            (None, theirs @ Some(_)) => {
                *self = theirs;
                Change::Grew
            }
        }
    }
}

/// A statement that is either made or not, and never withdrawn.
impl Lattice for bool {
    fn join(&mut self, other: Self) -> Change {
        let grew = other && !*self;
        *self |= other;
        Change::from(grew)
    }
}
