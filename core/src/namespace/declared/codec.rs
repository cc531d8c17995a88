//! The bytes of a declaration.
//!
//! Wire form: the CBOR array `[1, name, version, preemptible, handler, durability, [phase, …], submit kind | null, [field, …], [rule, …]]`;
//! a field is `[key, required, type, default | null]`, a type `[tag, bounds …]`, a rule `[kind, speaker, phase | null, ends | null, [[register, field,
//! policy], …], [[label, value], …], [field, …]]`.
//! Invariants: one declaration, one encoding; bytes that encode to others when read and written again are refused.

use minicbor::data::Type;
use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError};
use smol_str::SmolStr;

use super::check::unfit;
use super::{Declaration, DeclarationError, Ends, Policy, RegisterRule, Rule, Speaker, SubmitKinds};
use crate::event::Value;
use crate::limits;
use crate::namespace::{Durability, FieldReq, FieldType, NamespaceSpec};

const FORM: u8 = 1;

type Out = Encoder<Vec<u8>>;
type Written = Result<(), EncodeError<core::convert::Infallible>>;

impl Declaration {
    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        write(self, &mut encoder).expect("writing to memory cannot fail");
        encoder.into_writer()
    }

    /// Reads canonical bytes, and checks what they say (`check`).
    ///
    /// # Errors
    /// If they are too many, not a declaration, not canonical, or say what `check` refuses.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DeclarationError> {
        if bytes.len() > limits::DECLARATION_BYTES_MAX {
            return Err(too_large(bytes.len()));
        }
        let mut decoder = Decoder::new(bytes);
        let declaration =
            read(&mut decoder).map_err(|error| unfit(&[], "the bytes of a declaration", format!("others: {error}")))?;
        if declaration.to_bytes() != bytes {
            return Err(unfit(&[], "canonical bytes", "another encoding"));
        }
        declaration.check()?;
        Ok(declaration)
    }
}

pub(super) fn too_large(bytes: usize) -> DeclarationError {
    let expected = format!("at most {} bytes when encoded", limits::DECLARATION_BYTES_MAX);
    unfit(&[], expected, format!("{bytes} bytes"))
}

fn write(declaration: &Declaration, e: &mut Out) -> Written {
    let spec = &declaration.spec;
    e.array(10)?
        .u8(FORM)?
        .str(&spec.name)?
        .u32(declaration.version)?
        .bool(spec.preemptible)?
        .str(&spec.handler_type)?;
    e.u8(match spec.durability {
        Durability::Logged => 0,
        Durability::Ephemeral => 1,
    })?;
    write_all(&declaration.phases, e, |phase, e| e.str(phase)?.ok())?;
    match &declaration.submit {
        SubmitKinds::One(kind) => e.str(kind)?,
        SubmitKinds::Any => e.null()?,
    };
    write_all(&spec.schema, e, write_field)?;
    write_all(&declaration.rules, e, write_rule)
}

fn write_all<T>(items: &[T], e: &mut Out, mut one: impl FnMut(&T, &mut Out) -> Written) -> Written {
    e.array(items.len() as u64)?;
    items.iter().try_for_each(|item| one(item, e))
}

fn write_field(field: &FieldReq, e: &mut Out) -> Written {
    e.array(4)?.str(&field.key)?.bool(field.required)?;
    match field.field_type {
        FieldType::Bool => e.array(1)?.u8(0)?,
        FieldType::Int { min, max } => e.array(3)?.u8(1)?.i64(min)?.i64(max)?,
        FieldType::Text { bytes_max } => e.array(2)?.u8(2)?.u64(bytes_max as u64)?,
        FieldType::Bytes { bytes_max } => e.array(2)?.u8(3)?.u64(bytes_max as u64)?,
        FieldType::Texts { min, max } => e.array(3)?.u8(4)?.u64(min as u64)?.u64(max as u64)?,
        FieldType::TextMap => e.array(1)?.u8(5)?,
    };
    match &field.default {
        Some(value) => value.encode(e, &mut ()),
        None => e.null()?.ok(),
    }
}

fn write_rule(rule: &Rule, e: &mut Out) -> Written {
    e.array(7)?.str(&rule.kind)?.u8(match rule.by {
        Speaker::Executor => 0,
        Speaker::Anyone => 1,
    })?;
    match &rule.phase {
        Some(phase) => e.str(phase)?,
        None => e.null()?,
    };
    match &rule.outcome {
        None => e.null()?,
        Some(Ends::Success) => e.array(1)?.u8(0)?,
        Some(Ends::Failure) => e.array(1)?.u8(1)?,
        Some(Ends::ExitFrom(field)) => e.array(2)?.u8(2)?.str(field)?,
    };
    write_all(&rule.registers, e, |register, e| {
        e.array(3)?.str(&register.register)?.str(&register.field)?.u8(match register.policy {
            Policy::Max => 0,
            Policy::Last => 1,
            Policy::Set => 2,
            Policy::Counter => 3,
        })?;
        Ok(())
    })?;
    write_all(&rule.labels, e, |(key, value), e| e.array(2)?.str(key)?.str(value)?.ok())?;
    write_all(&rule.fields, e, write_field)
}

fn read(d: &mut Decoder<'_>) -> Result<Declaration, DecodeError> {
    array_of(d, 10)?;
    if d.u8()? != FORM {
        return Err(DecodeError::message("unknown form"));
    }
    let (name, version, preemptible, handler_type) = (text(d)?, d.u32()?, d.bool()?, text(d)?);
    let durability = match d.u8()? {
        0 => Durability::Logged,
        1 => Durability::Ephemeral,
        _ => return Err(DecodeError::message("unknown durability")),
    };
    let phases = read_all(d, text)?;
    let submit = optional(d, text)?.map_or(SubmitKinds::Any, SubmitKinds::One);
    let schema = read_all(d, read_field)?;
    let rules = read_all(d, read_rule)?;
    let spec = NamespaceSpec { name, preemptible, handler_type, schema, durability };
    Ok(Declaration { spec, version, phases, submit, rules })
}

fn array_of(d: &mut Decoder<'_>, len: u64) -> Result<(), DecodeError> {
    if d.array()? == Some(len) { Ok(()) } else { Err(DecodeError::message("array of another length")) }
}

fn text(d: &mut Decoder<'_>) -> Result<SmolStr, DecodeError> {
    d.str().map(SmolStr::new)
}

fn optional<'b, T>(
    d: &mut Decoder<'b>,
    some: impl FnOnce(&mut Decoder<'b>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if d.datatype()? == Type::Null {
        d.null()?;
        return Ok(None);
    }
    some(d).map(Some)
}

fn read_all<'b, T>(
    d: &mut Decoder<'b>,
    one: impl Fn(&mut Decoder<'b>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let len = d.array()?.ok_or_else(|| DecodeError::message("array of unknown length"))?;
    // The length is a claim of the sender; the vector grows only with bytes that are really there.
    let mut items = Vec::new();
    for _ in 0..len {
        items.push(one(d)?);
    }
    Ok(items)
}

fn size(d: &mut Decoder<'_>) -> Result<usize, DecodeError> {
    usize::try_from(d.u64()?).map_err(|_beyond| DecodeError::message("size out of range"))
}

fn read_field(d: &mut Decoder<'_>) -> Result<FieldReq, DecodeError> {
    array_of(d, 4)?;
    let (key, required) = (text(d)?, d.bool()?);
    let field_type = match (d.array()?, d.u8()?) {
        (Some(1), 0) => FieldType::Bool,
        (Some(3), 1) => FieldType::Int { min: d.i64()?, max: d.i64()? },
        (Some(2), 2) => FieldType::Text { bytes_max: size(d)? },
        (Some(2), 3) => FieldType::Bytes { bytes_max: size(d)? },
        (Some(3), 4) => FieldType::Texts { min: size(d)?, max: size(d)? },
        (Some(1), 5) => FieldType::TextMap,
        _ => return Err(DecodeError::message("unknown field type")),
    };
    let default = optional(d, |d| Value::decode(d, &mut ()))?;
    Ok(FieldReq { key, required, field_type, default })
}

fn read_rule(d: &mut Decoder<'_>) -> Result<Rule, DecodeError> {
    array_of(d, 7)?;
    let kind = text(d)?;
    let by = match d.u8()? {
        0 => Speaker::Executor,
        1 => Speaker::Anyone,
        _ => return Err(DecodeError::message("unknown speaker")),
    };
    let phase = optional(d, text)?;
    let outcome = optional(d, |d| match (d.array()?, d.u8()?) {
        (Some(1), 0) => Ok(Ends::Success),
        (Some(1), 1) => Ok(Ends::Failure),
        (Some(2), 2) => text(d).map(Ends::ExitFrom),
        _ => Err(DecodeError::message("unknown outcome")),
    })?;
    let registers = read_all(d, |d| {
        array_of(d, 3)?;
        let (register, field) = (text(d)?, text(d)?);
        let policy = match d.u8()? {
            0 => Policy::Max,
            1 => Policy::Last,
            2 => Policy::Set,
            3 => Policy::Counter,
            _ => return Err(DecodeError::message("unknown merge policy")),
        };
        Ok(RegisterRule { register, field, policy })
    })?;
    let labels = read_all(d, |d| {
        array_of(d, 2)?;
        Ok((text(d)?, text(d)?))
    })?;
    let fields = read_all(d, read_field)?;
    Ok(Rule { kind, by, phase, outcome, registers, labels, fields })
}
