//! Values of specs as people and JSON write them.
//!
//! Invariants: what a type cannot read becomes the value that was written, so that the schema's own refusal names it; JSON that no value stands for is refused.
//! Does not: check bounds, or know which fields there are (`starling_core::namespace` does).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;
use starling_core::event::Value;
use starling_core::namespace::FieldType;

/// A value as JSON; bytes are base64.
#[must_use]
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::Int(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::Bytes(bytes) => BASE64.encode(bytes).into(),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(map) => Json::Object(map.iter().map(|(key, value)| (key.to_string(), to_json(value))).collect()),
    }
}

/// Reads JSON for a field of this type, or for one that the schema does not know: only bytes, which are base64, depend on the type.
///
/// # Errors
/// With what was found, if it is `null` or a number that is no integer of 64 bits, or holds one.
pub fn from_json(field_type: Option<FieldType>, json: &Json) -> Result<Value, String> {
    match json {
        Json::Null => Err("null".to_owned()),
        Json::Bool(flag) => Ok(Value::Bool(*flag)),
        Json::Number(number) => number.as_i64().map(Value::Int).ok_or_else(|| format!("number {number}")),
        Json::String(text) => Ok(match (field_type, BASE64.decode(text)) {
            (Some(FieldType::Bytes { .. }), Ok(bytes)) => Value::Bytes(bytes),
            (_, _) => Value::text(text.as_str()),
        }),
        Json::Array(items) => items.iter().map(|item| from_json(None, item)).collect::<Result<_, _>>().map(Value::List),
        Json::Object(map) => {
            let entry = |(key, value): (&String, &Json)| Ok((key.as_str().into(), from_json(None, value)?));
            map.iter().map(entry).collect::<Result<_, String>>().map(Value::Map)
        }
    }
}

/// Reads what was written for a field of this type on a command line: a list by one text for each item or by one JSON array, a map by a JSON object, the
/// rest by one text.
///
/// # Errors
/// With what was found, if a field of one value is given several.
pub fn from_texts(field_type: FieldType, texts: &[&str]) -> Result<Value, String> {
    let as_texts = || Value::List(texts.iter().map(|text| Value::text(*text)).collect());
    let [text] = texts else {
        return match field_type {
            FieldType::Texts { .. } => Ok(as_texts()),
            FieldType::Bool
            | FieldType::Int { .. }
            | FieldType::Text { .. }
            | FieldType::Bytes { .. }
            | FieldType::TextMap => Err(format!("{} values", texts.len())),
        };
    };
    let as_written = || Value::text(*text);
    let json = || serde_json::from_str::<Json>(text).ok().and_then(|json| from_json(None, &json).ok());
    Ok(match field_type {
        FieldType::Bool => text.parse().map_or_else(|_| as_written(), Value::Bool),
        FieldType::Int { .. } => text.parse().map_or_else(|_| as_written(), Value::Int),
        FieldType::Text { .. } => as_written(),
        FieldType::Bytes { .. } => BASE64.decode(text).map_or_else(|_| as_written(), Value::Bytes),
        FieldType::Texts { .. } => json().filter(|value| matches!(value, Value::List(_))).unwrap_or_else(as_texts),
        FieldType::TextMap => json().filter(|value| matches!(value, Value::Map(_))).unwrap_or_else(as_written),
    })
}

/// Reads `SUB=VALUE` entries of a map.
#[must_use]
pub fn from_entries<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.into(), Value::text(value))).collect())
}
