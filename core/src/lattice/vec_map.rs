//! A small map as one sorted vector: most jobs have a handful of grants and outcomes, and a tree node for each would cost ten times the bytes.
//!
//! Invariants: keys ascend strictly, so equal maps have equal bytes. Lookup is a binary search, insertion moves what follows.

use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};

use super::{Change, Lattice};

/// A sorted vector of entries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VecMap<K, V> {
    entries: Vec<(K, V)>,
}

impl<K, V> Default for VecMap<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<K: Ord, V> VecMap<K, V> {
    /// A map of one entry.
    pub fn one(key: K, value: V) -> Self {
        Self { entries: vec![(key, value)] }
    }

    /// The value of `key`.
    pub fn lookup(&self, key: &K) -> Option<&V> {
        self.position(key).ok().map(|found| &self.entries[found].1)
    }

    /// The entries, keys ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// The values, in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn position(&self, key: &K) -> Result<usize, usize> {
        // Keys mostly arrive in order, so look at the end first.
        match self.entries.last() {
            Some((last, _)) if last < key => Err(self.entries.len()),
            Some(_) | None => self.entries.binary_search_by(|(own, _)| own.cmp(key)),
        }
    }
}

impl<K: Ord, V: Lattice> Lattice for VecMap<K, V> {
    fn join(&mut self, other: Self) -> Change {
        let mut change = Change::None;
        for (key, value) in other.entries {
            match self.position(&key) {
                Ok(found) => change = change.or(self.entries[found].1.join(value)),
                Err(place) => {
                    self.entries.insert(place, (key, value));
                    change = Change::Grew;
                }
            }
        }
        change
    }
}

impl<C, K: Encode<C>, V: Encode<C>> Encode<C> for VecMap<K, V> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.map(self.entries.len() as u64)?;
        for (key, value) in &self.entries {
            key.encode(e, ctx)?;
            value.encode(e, ctx)?;
        }
        Ok(())
    }
}

impl<'b, C, K: Decode<'b, C> + Ord, V: Decode<'b, C>> Decode<'b, C> for VecMap<K, V> {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let len = d.map()?.ok_or_else(|| DecodeError::message("map of unknown length"))?;
        let mut entries: Vec<(K, V)> = Vec::new();
        for _ in 0..len {
            let entry = (K::decode(d, ctx)?, V::decode(d, ctx)?);
            if entries.last().is_some_and(|last| last.0 >= entry.0) {
                return Err(DecodeError::message("map keys out of order"));
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::check_laws;
    use super::super::{IntervalSet, Max};
    use super::*;

    #[test]
    fn maps_of_lattices_are_lawful() {
        check_laws(&[
            VecMap::default(),
            VecMap::one(1, Max::new(3)),
            VecMap::one(1, Max::new(4)),
            VecMap::one(2, Max::new(1)),
        ]);
        check_laws(&[VecMap::one("a", IntervalSet::one(1)), VecMap::one("a", IntervalSet::one(2)), VecMap::default()]);
    }
}
