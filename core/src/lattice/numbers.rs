//! A set of 64-bit numbers as disjoint, non-touching closed ranges: retired jobs are many, and mostly one range.
//!
//! Invariants: ranges ascend with a gap of at least one between them, so equal sets have equal bytes.

use std::collections::BTreeMap;

use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};

use super::{Change, Lattice};

/// A set of numbers: the last of each range by its first.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbers {
    ranges: BTreeMap<u64, u64>,
}

impl Numbers {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many it holds; saturates.
    #[must_use]
    pub fn len(&self) -> u64 {
        let sizes = self.ranges().map(|(start, end)| (end - start).saturating_add(1));
        sizes.fold(0, u64::saturating_add)
    }

    /// Whether it holds `number`.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, end)| *end >= number)
    }

    /// The greatest.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.ranges.last_key_value().map(|(_, end)| *end)
    }

    /// Its ranges, both ends included, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(start, end)| (*start, *end))
    }

    /// How many ranges it has.
    #[must_use]
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// Adds one number.
    pub fn insert(&mut self, number: u64) -> Change {
        self.insert_range(number, number)
    }

    /// Adds `start..=end`.
    pub fn insert_range(&mut self, start: u64, end: u64) -> Change {
        if start > end {
            return Change::None;
        }
        let (mut low, mut high) = (start, end);
        let before = self.ranges.range(..=start).next_back().map(|(first, last)| (*first, *last));
        if let Some((first, last)) = before {
            if last >= end {
                return Change::None;
            }
            if last.saturating_add(1) >= start {
                low = first;
            }
        }
        while let Some((first, last)) = self.ranges.range(low..).next().map(|(first, last)| (*first, *last)) {
            if first > high.saturating_add(1) {
                break;
            }
            self.ranges.remove(&first);
            high = high.max(last);
        }
        self.ranges.insert(low, high);
        Change::Grew
    }
}

impl Lattice for Numbers {
    fn join(&mut self, other: Self) -> Change {
        let mut change = Change::None;
        for (start, end) in other.ranges() {
            change = change.or(self.insert_range(start, end));
        }
        change
    }
}

impl FromIterator<u64> for Numbers {
    fn from_iter<T: IntoIterator<Item = u64>>(numbers: T) -> Self {
        let mut set = Self::new();
        for number in numbers {
            let _ = set.insert(number);
        }
        set
    }
}

/// Wire form: a flat array `[start, end, start, end, …]`.
impl<C> Encode<C> for Numbers {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(self.ranges.len() as u64 * 2)?;
        for (start, end) in self.ranges() {
            e.u64(start)?.u64(end)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Numbers {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let len = d.array()?.ok_or_else(|| DecodeError::message("set of numbers of unknown length"))?;
        if len % 2 == 1 {
            return Err(DecodeError::message("set of numbers with a lone end"));
        }
        let mut set = Self::new();
        let mut least = Some(0);
        for _ in 0..len / 2 {
            let (start, end) = (d.u64()?, d.u64()?);
            if least.is_none_or(|least| start < least) || start > end {
                return Err(DecodeError::message("ranges must ascend, with a gap between neighbours"));
            }
            // Nothing may touch the range before.
            least = end.checked_add(2);
            set.ranges.insert(start, end);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::laws::check_laws;
    use super::*;

    fn set(numbers: &[u64]) -> Numbers {
        numbers.iter().copied().collect()
    }

    #[test]
    fn sets_of_numbers_are_lawful() {
        check_laws(&[set(&[]), set(&[1, 2, 3]), set(&[3, 4]), set(&[0, 9]), set(&[u64::MAX, 5]), set(&[u64::MAX - 1])]);
    }

    #[test]
    fn ranges_that_touch_or_descend_are_refused() {
        for wrong in [&[5_u64, 1][..], &[1, 2, 3, 4], &[1, u64::MAX, 7, 8], &[1]] {
            assert!(minicbor::decode::<Numbers>(&minicbor::to_vec(wrong).unwrap()).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(ranges in prop::collection::vec((0_u64..60, 0_u64..6), 0..30)) {
            let (mut set, mut plain) = (Numbers::new(), BTreeSet::new());
            for (start, more) in ranges {
                let grew = set.insert_range(start, start + more).grew();
                let before = plain.len();
                plain.extend(start..=start + more);
                prop_assert_eq!(grew, plain.len() > before);
            }
            let all: BTreeSet<u64> = set.ranges().flat_map(|(start, end)| start..=end).collect();
            prop_assert_eq!(&all, &plain);
            prop_assert_eq!(set.len(), plain.len() as u64);
            prop_assert!((0..80).all(|number| set.contains(number) == plain.contains(&number)));
            prop_assert_eq!(minicbor::decode::<Numbers>(&minicbor::to_vec(&set).unwrap()).unwrap(), set);
        }
    }
}
