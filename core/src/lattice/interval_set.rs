//! A set of `u32`s as sorted, disjoint, non-touching closed ranges: a million tasks cost as much as their outcomes differ.
//!
//! Invariants: ranges ascend with a gap of at least one between them, so equal sets have equal representations and equal bytes.

use core::fmt;

use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};

use super::{Change, Lattice};

/// A closed range of indexes, `start <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// First index.
    pub start: u32,
    /// Last index, included.
    pub end: u32,
}

impl Range {
    fn len(self) -> u64 {
        u64::from(self.end) - u64::from(self.start) + 1
    }
}

/// Ranges that are out of order, touching, or reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ranges must ascend, with start <= end and a gap between neighbours")]
pub struct IntervalSetError;

/// A set of indexes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct IntervalSet {
    ranges: Vec<Range>,
}

impl fmt::Debug for IntervalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl fmt::Display for IntervalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, range) in self.ranges.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            if range.start == range.end {
                write!(f, "{}", range.start)?;
            } else {
                write!(f, "{}-{}", range.start, range.end)?;
            }
        }
        Ok(())
    }
}

impl IntervalSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// All of `start..=end`; empty if `start > end`.
    #[must_use]
    pub fn from_range(start: u32, end: u32) -> Self {
        if start > end {
            return Self::new();
        }
        Self { ranges: vec![Range { start, end }] }
    }

    /// One index.
    #[must_use]
    pub fn one(index: u32) -> Self {
        Self::from_range(index, index)
    }

    /// Builds a set from ranges that are already in canonical form.
    ///
    /// # Errors
    /// If they are not.
    pub fn from_ranges(ranges: Vec<Range>) -> Result<Self, IntervalSetError> {
        let ordered = ranges.iter().all(|range| range.start <= range.end);
        let apart = ranges.windows(2).all(|pair| u64::from(pair[0].end) + 1 < u64::from(pair[1].start));
        if ordered && apart { Ok(Self { ranges }) } else { Err(IntervalSetError) }
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// How many indexes it holds.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|range| range.len()).sum()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The least index.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.ranges.first().map(|range| range.start)
    }

    /// The greatest index.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.ranges.last().map(|range| range.end)
    }

    /// Whether it holds `index`.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        let after = self.ranges.partition_point(|range| range.start <= index);
        after > 0 && self.ranges[after - 1].end >= index
    }

    /// Whether it holds all of `other`.
    #[must_use]
    pub fn is_superset(&self, other: &Self) -> bool {
        other.ranges.iter().all(|range| {
            let after = self.ranges.partition_point(|own| own.start <= range.start);
            after > 0 && self.ranges[after - 1].end >= range.end
        })
    }

    /// The indexes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|range| range.start..=range.end)
    }

    /// Adds `start..=end`.
    pub fn insert_range(&mut self, start: u32, end: u32) -> Change {
        if start > end {
            return Change::None;
        }
        // The first range that touches the new one, and the first beyond it.
        let low = self.ranges.partition_point(|range| u64::from(range.end) + 1 < u64::from(start));
        let high = self.ranges.partition_point(|range| u64::from(range.start) <= u64::from(end) + 1);
        if low == high {
            self.ranges.insert(low, Range { start, end });
            return Change::Grew;
        }
        let merged = Range { start: start.min(self.ranges[low].start), end: end.max(self.ranges[high - 1].end) };
        if high - low == 1 && self.ranges[low] == merged {
            return Change::None;
        }
        self.ranges[low] = merged;
        self.ranges.drain(low + 1..high);
        Change::Grew
    }

    /// Adds one index.
    pub fn insert(&mut self, index: u32) -> Change {
        self.insert_range(index, index)
    }

    /// Adds all of `other`.
    pub fn union_with(&mut self, other: &Self) -> Change {
        let mut change = Change::None;
        for range in &other.ranges {
            change = change.or(self.insert_range(range.start, range.end));
        }
        change
    }

    /// Removes one index; says whether it was there.
    pub fn remove(&mut self, index: u32) -> bool {
        let had = self.contains(index);
        if had {
            *self = self.difference(&Self::one(index));
        }
        had
    }

    /// Removes all of `other`.
    pub fn subtract(&mut self, other: &Self) {
        if !other.is_empty() && !self.is_empty() {
            *self = self.difference(other);
        }
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len());
        let mut cuts = other.ranges.iter().copied().peekable();
        for range in &self.ranges {
            let mut start = u64::from(range.start);
            let end = u64::from(range.end);
            while cuts.next_if(|cut| u64::from(cut.end) < start).is_some() {}
            let mut ahead = cuts.clone();
            while let Some(cut) = ahead.next_if(|cut| u64::from(cut.start) <= end) {
                push_range(&mut ranges, start, u64::from(cut.start));
                start = start.max(u64::from(cut.end) + 1);
            }
            push_range(&mut ranges, start, end + 1);
        }
        Self { ranges }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let (mut left, mut right) = (0, 0);
        while let (Some(a), Some(b)) = (self.ranges.get(left), other.ranges.get(right)) {
            let (start, end) = (a.start.max(b.start), a.end.min(b.end));
            if start <= end {
                ranges.push(Range { start, end });
            }
            if a.end < b.end {
                left += 1;
            } else {
                right += 1;
            }
        }
        Self { ranges }
    }

    /// Removes and returns the least `count` indexes.
    pub fn take_first(&mut self, count: u64) -> Self {
        let mut taken = Vec::new();
        let mut left = count;
        let mut whole = 0;
        for range in &mut self.ranges {
            if left == 0 {
                break;
            }
            if range.len() <= left {
                left -= range.len();
                taken.push(*range);
                whole += 1;
            } else {
                // `left < len <= 2^32`, so the sum stays within the range.
                let end = range.start + u32::try_from(left - 1).unwrap_or(u32::MAX);
                taken.push(Range { start: range.start, end });
                range.start = end + 1;
                left = 0;
            }
        }
        self.ranges.drain(..whole);
        Self { ranges: taken }
    }
}

/// Pushes `start..end` (half open) if it is not empty. Both ends come from `u32` ranges, so they fit.
fn push_range(ranges: &mut Vec<Range>, start: u64, end: u64) {
    if start < end
        && let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end - 1))
    {
        ranges.push(Range { start, end });
    }
}

impl Lattice for IntervalSet {
    fn join(&mut self, other: Self) -> Change {
        if self.is_empty() {
            let grew = !other.is_empty();
            *self = other;
            return Change::from(grew);
        }
        self.union_with(&other)
    }
}

impl FromIterator<u32> for IntervalSet {
    fn from_iter<T: IntoIterator<Item = u32>>(indexes: T) -> Self {
        let mut set = Self::new();
        for index in indexes {
            let _ = set.insert(index);
        }
        set
    }
}

/// Wire form: a flat array `[start, end, start, end, …]`.
impl<C> Encode<C> for IntervalSet {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(self.ranges.len() as u64 * 2)?;
        for range in &self.ranges {
            e.u32(range.start)?.u32(range.end)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for IntervalSet {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let len = d.array()?.ok_or_else(|| DecodeError::message("interval set of unknown length"))?;
        if len % 2 == 1 {
            return Err(DecodeError::message("interval set with a lone end"));
        }
        // The length is a claim of the sender; the vector grows only with bytes that are really there.
        let mut ranges = Vec::new();
        for _ in 0..len / 2 {
            ranges.push(Range { start: d.u32()?, end: d.u32()? });
        }
        Self::from_ranges(ranges).map_err(|error| DecodeError::message(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::laws::check_laws;
    use super::*;

    fn set(indexes: &[u32]) -> IntervalSet {
        indexes.iter().copied().collect()
    }

    #[test]
    fn interval_sets_are_lawful() {
        check_laws(&[set(&[]), set(&[1, 2, 3]), set(&[3, 4]), set(&[0, 9]), set(&[u32::MAX, 5])]);
    }

    #[test]
    fn touching_ranges_merge() {
        let mut ranges = IntervalSet::from_range(1, 3);
        let _ = ranges.insert_range(4, 9);
        assert_eq!(ranges.to_string(), "1-9");
        let _ = ranges.insert(u32::MAX);
        assert_eq!(ranges.last(), Some(u32::MAX));
        assert_eq!(ranges.len(), 10);
    }

    #[test]
    fn ranges_out_of_order_are_refused() {
        let reversed = minicbor::to_vec([5_u32, 1]).unwrap();
        assert!(minicbor::decode::<IntervalSet>(&reversed).is_err());
        let touching = minicbor::to_vec([1_u32, 2, 3, 4]).unwrap();
        assert!(minicbor::decode::<IntervalSet>(&touching).is_err());
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(
            left in prop::collection::btree_set(0_u32..60, 0..40),
            right in prop::collection::btree_set(0_u32..60, 0..40),
            count in 0_usize..50,
        ) {
            let (a, b): (IntervalSet, IntervalSet) = (left.iter().copied().collect(), right.iter().copied().collect());
            let plain = |set: &IntervalSet| set.iter().collect::<BTreeSet<u32>>();
            prop_assert_eq!(plain(&a), left.clone());
            prop_assert_eq!(plain(&a.difference(&b)), left.difference(&right).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(plain(&a.intersection(&b)), left.intersection(&right).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(a.is_superset(&b), left.is_superset(&right));
            let mut union = a.clone();
            let _ = union.union_with(&b);
            prop_assert_eq!(plain(&union), left.union(&right).copied().collect::<BTreeSet<_>>());
            prop_assert!(IntervalSet::from_ranges(union.ranges().to_vec()).is_ok());
            let mut rest = a.clone();
            let taken = rest.take_first(count as u64);
            prop_assert_eq!(plain(&taken), left.iter().take(count).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(plain(&rest), left.iter().skip(count).copied().collect::<BTreeSet<_>>());
            let bytes = minicbor::to_vec(&a).unwrap();
            prop_assert_eq!(minicbor::decode::<IntervalSet>(&bytes).unwrap(), a);
        }
    }
}
