//! What the rules of a declared namespace make of a job's events: phases, registers, labels.
//!
//! Invariants: a lattice in every part. Which merge a register uses is told by the value itself; two registers of one name and unlike policies (a forged or
//! mistaken event) merge to the one whose policy is listed later, everywhere.
//! Does not: know rules (`namespace::declared` does).

use std::collections::{BTreeMap, BTreeSet};

use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};
use smol_str::SmolStr;

use crate::event::Value;
use crate::ids::Dot;
use crate::lattice::{Change, IntervalSet, Lattice, Max, VecMap};
use crate::time::Hlc;

/// A text that orders and encodes as text, for keys of maps.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Key(#[cbor(with = "crate::facts::text")] pub SmolStr);

/// A phase that tasks reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub struct Phase {
    /// Its place in the namespace's list of phases; a task is in the highest that it reached.
    #[n(0)]
    pub rank: u16,
    /// Its name.
    #[cbor(n(1), with = "crate::facts::text")]
    pub name: SmolStr,
}

/// A value and when it was written. The dot breaks ties.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub struct Written {
    /// When, by the author's clock.
    #[n(0)]
    pub hlc: Hlc,
    /// By which event.
    #[n(1)]
    pub dot: Dot,
    /// What.
    #[n(2)]
    pub value: Value,
}

/// A named value, merged by its policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Register {
    /// The greatest integer.
    Max(i64),
    /// The value written last.
    Last(Written),
    /// Every value that was ever written.
    Set(BTreeSet<Value>),
    /// A sum: what each event adds to it.
    Counter(BTreeMap<Dot, i64>),
}

impl Register {
    fn policy(&self) -> u8 {
        match self {
            Self::Max(_) => 0,
            Self::Last(_) => 1,
            Self::Set(_) => 2,
            Self::Counter(_) => 3,
        }
    }

    /// What a reader sees: a sum saturates.
    #[must_use]
    pub fn value(&self) -> Value {
        match self {
            Self::Max(number) => Value::Int(*number),
            Self::Last(written) => written.value.clone(),
            Self::Set(values) => Value::List(values.iter().cloned().collect()),
            Self::Counter(parts) => Value::Int(parts.values().fold(0, |sum: i64, part| sum.saturating_add(*part))),
        }
    }

    fn merge(&mut self, other: Self) -> Change {
        match (&mut *self, other) {
            (Self::Max(ours), Self::Max(theirs)) => {
                let grew = theirs > *ours;
                *ours = theirs.max(*ours);
                Change::from(grew)
            }
            (Self::Last(ours), Self::Last(theirs)) => {
                let grew = theirs > *ours;
                if grew {
                    *ours = theirs;
                }
                Change::from(grew)
            }
            (Self::Set(ours), Self::Set(theirs)) => ours.join(theirs),
            (Self::Counter(ours), Self::Counter(theirs)) => {
                let mut change = Change::None;
                for (dot, part) in theirs {
                    // One event, one part; a forked author's lesser statement gives way.
                    let own = ours.get(&dot).copied();
                    if own.is_none_or(|own| part > own) {
                        ours.insert(dot, part);
                        change = Change::Grew;
                    }
                }
                change
            }
            (Self::Max(_) | Self::Last(_) | Self::Set(_) | Self::Counter(_), other) => {
                let grew = other.policy() > self.policy();
                if grew {
                    *self = other;
                }
                Change::from(grew)
            }
        }
    }
}

impl<C> Encode<C> for Register {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(2)?.u8(self.policy())?;
        match self {
            Self::Max(number) => e.i64(*number)?.ok(),
            Self::Last(written) => written.encode(e, ctx),
            Self::Set(values) => values.encode(e, ctx),
            Self::Counter(parts) => parts.encode(e, ctx),
        }
    }
}

impl<'b, C> Decode<'b, C> for Register {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        if d.array()? != Some(2) {
            return Err(DecodeError::message("register must be an array of 2"));
        }
        match d.u8()? {
            0 => d.i64().map(Self::Max),
            1 => Written::decode(d, ctx).map(Self::Last),
            2 => BTreeSet::decode(d, ctx).map(Self::Set),
            3 => BTreeMap::decode(d, ctx).map(Self::Counter),
            _ => Err(DecodeError::message("unknown merge policy")),
        }
    }
}

/// Phases, registers and labels under one authority: an executor's word under its grant, or anybody's about the job.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub struct State {
    /// Which tasks reached which phase. A statement about the whole job has the empty set.
    #[n(0)]
    pub phases: VecMap<Phase, IntervalSet>,
    /// Registers by name.
    #[n(1)]
    pub registers: VecMap<Key, Merged>,
    /// Labels by key; the one written last counts.
    #[n(2)]
    pub labels: VecMap<Key, Max<Written>>,
}

impl State {
    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.phases.is_empty() && self.registers.is_empty() && self.labels.is_empty()
    }

    /// The value of a register.
    #[must_use]
    pub fn register(&self, name: &str) -> Option<Value> {
        self.registers.lookup(&Key(SmolStr::new(name))).and_then(|merged| merged.0.as_ref()).map(Register::value)
    }
}

impl Lattice for State {
    fn join(&mut self, other: Self) -> Change {
        let parts = self.phases.join(other.phases).or(self.registers.join(other.registers));
        parts.or(self.labels.join(other.labels))
    }
}

/// A register in a map; absent at the bottom.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Merged(#[n(0)] pub Option<Register>);

impl Lattice for Merged {
    fn join(&mut self, other: Self) -> Change {
        match (&mut self.0, other.0) {
            (_, None) => Change::None,
            (Some(ours), Some(theirs)) => ours.merge(theirs),
            (ours @ None, theirs @ Some(_)) => {
                *ours = theirs;
                Change::Grew
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, LogId, NodeId, Seq};
    use crate::lattice::laws::check_laws;

    fn dot(seq: u64) -> Dot {
        Dot { log: LogId { node: NodeId([1; 32]), epoch: Epoch(1) }, seq: Seq(seq) }
    }

    fn register(register: Register) -> State {
        State { registers: VecMap::one(Key("r".into()), Merged(Some(register))), ..State::default() }
    }

    #[test]
    fn states_are_lawful_even_where_policies_clash() {
        let written =
            |ms, text: &str| Written { hlc: Hlc { wall_ms: ms, count: 0 }, dot: dot(ms), value: Value::text(text) };
        check_laws(&[
            State::default(),
            register(Register::Max(3)),
            register(Register::Max(4)),
            register(Register::Last(written(1, "b"))),
            register(Register::Last(written(2, "a"))),
            register(Register::Set(BTreeSet::from([Value::Int(1)]))),
            register(Register::Set(BTreeSet::from([Value::Int(2)]))),
            register(Register::Counter(BTreeMap::from([(dot(1), 5)]))),
            register(Register::Counter(BTreeMap::from([(dot(1), 6), (dot(2), -1)]))),
            State {
                phases: VecMap::one(Phase { rank: 1, name: "up".into() }, IntervalSet::one(3)),
                labels: VecMap::one(Key("k".into()), Max::new(written(5, "v"))),
                ..State::default()
            },
        ]);
    }

    #[test]
    fn a_counter_adds_each_event_once() {
        let mut sum = register(Register::Counter(BTreeMap::from([(dot(1), 5)])));
        let _ = sum.join(register(Register::Counter(BTreeMap::from([(dot(2), 7)]))));
        let _ = sum.join(register(Register::Counter(BTreeMap::from([(dot(2), 7)]))));
        assert_eq!(sum.register("r"), Some(Value::Int(12)));
    }
}
