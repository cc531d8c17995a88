//! Registers: one value, and a rule for which of two wins.
//!
//! Invariants: all three rest on a total order of the value, so ties cannot differ between nodes.

use minicbor::{Decode, Encode};

use super::{Change, Lattice};

/// The greatest value seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Max<T: Ord>(#[n(0)] pub Option<T>);

// Derived `Default` would ask it of `T`; the bottom is "no value".
impl<T: Ord> Default for Max<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Ord> Default for Min<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Ord> Default for WriteOnce<T> {
    fn default() -> Self {
        Self(Min(None))
    }
}

impl<T: Ord> Max<T> {
    /// A register that holds `value`.
    pub fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Ord> Lattice for Max<T> {
    fn join(&mut self, other: Self) -> Change {
        let grew = other.0 > self.0;
        if grew {
            self.0 = other.0;
        }
        Change::from(grew)
    }
}

/// The least value seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Min<T: Ord>(#[n(0)] pub Option<T>);

impl<T: Ord> Min<T> {
    /// A register that holds `value`.
    pub fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Ord> Lattice for Min<T> {
    fn join(&mut self, other: Self) -> Change {
        let grew = match (&self.0, &other.0) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(ours), Some(theirs)) => theirs < ours,
        };
        if grew {
            self.0 = other.0;
        }
        Change::from(grew)
    }
}

/// A value that has one writer and is written once. Should two values meet all the same (a fork), the lesser stays, everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct WriteOnce<T: Ord>(#[n(0)] Min<T>);

impl<T: Ord> WriteOnce<T> {
    /// A register written with `value`.
    pub fn new(value: T) -> Self {
        Self(Min(Some(value)))
    }

    /// The value, if it was written.
    pub fn as_ref(&self) -> Option<&T> {
        self.0.0.as_ref()
    }
}

impl<T: Ord> Lattice for WriteOnce<T> {
    fn join(&mut self, other: Self) -> Change {
        self.0.join(other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::check_laws;
    use super::*;

    #[test]
    fn registers_are_lawful() {
        check_laws(&[Max(None), Max(Some(1)), Max(Some(2)), Max(Some(9))]);
        check_laws(&[Min(None), Min(Some(1)), Min(Some(2)), Min(Some(9))]);
        check_laws(&[WriteOnce::default(), WriteOnce::new(4), WriteOnce::new(2)]);
    }

    #[test]
    fn a_register_that_keeps_the_latest_arrival_breaks_the_laws() {
        #[derive(Clone, Debug, Default, PartialEq)]
        struct Latest(u8);
        impl Lattice for Latest {
            fn join(&mut self, other: Self) -> Change {
                let grew = self.0 != other.0;
                self.0 = other.0;
                Change::from(grew)
            }
        }
        let outcome = std::panic::catch_unwind(|| check_laws(&[Latest(0), Latest(1), Latest(2)]));
        assert!(outcome.is_err(), "check_laws must catch an unlawful join");
    }
}
