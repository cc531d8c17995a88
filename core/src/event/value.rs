//! WorkSpec: the open part of an Event, a map of names to values.
//!
//! Invariants: values are totally ordered (no floating point) and encode in one way only; nesting is bounded on decode.
//! Does not: know any schema (`namespace::schema` does).

use std::collections::BTreeMap;

use minicbor::data::Type;
use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};
use smol_str::SmolStr;

use crate::limits;

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// UTF-8 text.
    Text(SmolStr),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Self>),
    /// A map.
    Map(BTreeMap<SmolStr, Self>),
}

impl Value {
    /// Text from anything text-like.
    pub fn text(text: impl Into<SmolStr>) -> Self {
        Self::Text(text.into())
    }

    /// An integer; values beyond `i64` saturate.
    pub fn int(number: impl TryInto<i64>) -> Self {
        Self::Int(number.try_into().unwrap_or(i64::MAX))
    }

    /// The word for this value's type, as error messages use it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Int(_) => "integer",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }
}

impl<C> Encode<C> for Value {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        match self {
            Self::Bool(value) => e.bool(*value)?.ok(),
            Self::Int(value) => e.i64(*value)?.ok(),
            Self::Text(value) => e.str(value)?.ok(),
            Self::Bytes(value) => e.bytes(value)?.ok(),
            Self::List(values) => {
                e.array(values.len() as u64)?;
                values.iter().try_for_each(|value| value.encode(e, ctx))
            }
            Self::Map(map) => encode_map(map, e, ctx),
        }
    }
}

fn encode_map<C, W: Write>(
    map: &BTreeMap<SmolStr, Value>,
    e: &mut Encoder<W>,
    ctx: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    e.map(map.len() as u64)?;
    for (key, value) in map {
        e.str(key)?;
        value.encode(e, ctx)?;
    }
    Ok(())
}

fn decode_value(d: &mut Decoder<'_>, depth: usize) -> Result<Value, DecodeError> {
    if depth == 0 {
        return Err(DecodeError::message("value nested too deeply"));
    }
    match d.datatype()? {
        Type::Bool => d.bool().map(Value::Bool),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
            d.i64().map(Value::Int)
        }
        Type::String => Ok(Value::text(d.str()?)),
        Type::Bytes => Ok(Value::Bytes(d.bytes()?.to_vec())),
        Type::Array => {
            let len = d.array()?.ok_or_else(|| DecodeError::message("list of unknown length"))?;
            let mut values = Vec::new();
            for _ in 0..len {
                values.push(decode_value(d, depth - 1)?);
            }
            Ok(Value::List(values))
        }
        Type::Map => Ok(Value::Map(decode_map(d, depth)?)),
        Type::Null
        | Type::Undefined
        | Type::F16
        | Type::F32
        | Type::F64
        | Type::Simple
        | Type::BytesIndef
        | Type::StringIndef
        | Type::ArrayIndef
        | Type::MapIndef
        | Type::Tag
        | Type::Break
        | Type::Unknown(_) => Err(DecodeError::message("value of a type that specs do not hold")),
    }
}

fn decode_map(d: &mut Decoder<'_>, depth: usize) -> Result<BTreeMap<SmolStr, Value>, DecodeError> {
    let len = d.map()?.ok_or_else(|| DecodeError::message("map of unknown length"))?;
    let mut map = BTreeMap::new();
    for _ in 0..len {
        let key = SmolStr::new(d.str()?);
        if map.insert(key, decode_value(d, depth - 1)?).is_some() {
            return Err(DecodeError::message("map with a key twice"));
        }
    }
    Ok(map)
}

/// What a namespace's events say: names to values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkSpec(pub BTreeMap<SmolStr, Value>);

impl WorkSpec {
    /// The empty spec.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This spec with one more field.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.0.insert(SmolStr::new(key), value);
        self
    }

    /// The field's value.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The field as text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&SmolStr> {
        match self.field(key) {
            Some(Value::Text(text)) => Some(text),
            Some(Value::Bool(_) | Value::Int(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_)) | None => None,
        }
    }

    /// The field as an integer.
    #[must_use]
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.field(key) {
            Some(Value::Int(number)) => Some(*number),
            Some(Value::Bool(_) | Value::Text(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_)) | None => None,
        }
    }

    /// The field as an unsigned integer; negative counts as absent.
    #[must_use]
    pub fn uint(&self, key: &str) -> Option<u64> {
        self.int(key).and_then(|number| u64::try_from(number).ok())
    }

    /// The field as bytes.
    #[must_use]
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        match self.field(key) {
            Some(Value::Bytes(bytes)) => Some(bytes),
            Some(Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_) | Value::Map(_)) | None => None,
        }
    }

    /// The field as a list.
    #[must_use]
    pub fn list(&self, key: &str) -> Option<&[Value]> {
        match self.field(key) {
            Some(Value::List(items)) => Some(items),
            Some(Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::Bytes(_) | Value::Map(_)) | None => None,
        }
    }

    /// The texts of a list field; other items are left out.
    pub fn texts(&self, key: &str) -> impl Iterator<Item = &SmolStr> {
        let items = match self.field(key) {
            Some(Value::List(items)) => items.as_slice(),
            Some(Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::Bytes(_) | Value::Map(_)) | None => &[],
        };
        items.iter().filter_map(|item| match item {
            Value::Text(text) => Some(text),
            Value::Bool(_) | Value::Int(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => None,
        })
    }

    /// The text-valued entries of a map field.
    pub fn entries(&self, key: &str) -> impl Iterator<Item = (&SmolStr, &SmolStr)> {
        let map = match self.field(key) {
            Some(Value::Map(map)) => Some(map),
            Some(Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::Bytes(_) | Value::List(_)) | None => None,
        };
        map.into_iter().flatten().filter_map(|(key, value)| match value {
            Value::Text(text) => Some((key, text)),
            Value::Bool(_) | Value::Int(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => None,
        })
    }
}

impl<'b, C> Decode<'b, C> for Value {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        decode_value(d, limits::VALUE_DEPTH_MAX)
    }
}

impl<C> Encode<C> for WorkSpec {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        encode_map(&self.0, e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for WorkSpec {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        decode_map(d, limits::VALUE_DEPTH_MAX).map(Self)
    }
}
