//! Values from texts: programs written against a hub say everything as text, and the schema says what it means.
//!
//! `cpu` is in cores, maybe with a fraction (`0.5`), or in thousandths with `m` (`500m`); `memory` in bytes, or with `K`, `M`, `G` or `T`, powers of 1,024 with or
//! without `B` or `iB` after them. Lists are words as a shell splits them (`words`), or a JSON list of texts; `lines` is one text a line. Maps are a JSON object of
//! texts, or words `NAME=VALUE`. Booleans are `true`, `false`, `yes`, `no`, `1`, `0`. JSON values that have the right type already are taken too.
//! Invariants: a value that is refused names its field, what was expected, and what was found; one that is taken fits its type.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use smol_str::SmolStr;
use starling_core::event::{Value, WorkSpec};
use starling_core::namespace::{FieldReq, FieldType, SchemaError};

use super::words;

/// Fields as a program sends them.
pub(super) type Texts = BTreeMap<String, Json>;

/// Reads all fields.
///
/// # Errors
/// The first, by name, that the schema does not know or that does not fit it. Missing ones are the Machine's to name.
pub(super) fn spec(texts: &Texts, fields: &[FieldReq], of: &str) -> Result<WorkSpec, SchemaError> {
    let mut spec = WorkSpec::new();
    for (key, json) in texts {
        let wrong = |expected: String, found: String| SchemaError { field: key.as_str().into(), expected, found };
        let Some(field) = fields.iter().find(|field| field.key == *key) else {
            return Err(wrong(format!("a field of {of}"), "an unknown one".to_owned()));
        };
        let value = value(key, field.field_type, json).map_err(|expected| wrong(expected, found(json)))?;
        if !field.field_type.admits(&value) {
            return Err(wrong(field.field_type.to_string(), found(json)));
        }
        spec = spec.with(key, value);
    }
    Ok(spec)
}

fn found(json: &Json) -> String {
    match json {
        Json::String(text) if text.len() <= 40 => format!("text {text:?}"),
        Json::String(text) => format!("text of {} bytes", text.len()),
        Json::Array(items) => format!("a list of {}", items.len()),
        Json::Object(map) => format!("a map of {}", map.len()),
        Json::Null | Json::Bool(_) | Json::Number(_) => json.to_string(),
    }
}

/// The value, or what was expected.
fn value(key: &str, field_type: FieldType, json: &Json) -> Result<Value, String> {
    let expected = || field_type.to_string();
    let text = match json {
        Json::String(text) => text.as_str(),
        // A number or boolean stands for its text.
        Json::Number(_) | Json::Bool(_) => return value(key, field_type, &Json::String(json.to_string())),
        Json::Array(_) if matches!(field_type, FieldType::Texts { .. }) => {
            return texts(json).map(list).ok_or_else(expected);
        }
        Json::Object(_) if matches!(field_type, FieldType::TextMap) => return map(json).ok_or_else(expected),
        Json::Null | Json::Array(_) | Json::Object(_) => return Err(expected()),
    };
    match field_type {
        FieldType::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Ok(Value::Bool(true)),
            "false" | "no" | "0" => Ok(Value::Bool(false)),
            _ => Err("true or false".to_owned()),
        },
        FieldType::Int { .. } if key == "cpu" => {
            milli(text).map(Value::Int).ok_or_else(|| "cores, such as 2, 0.5 or 500m".to_owned())
        }
        FieldType::Int { .. } if key == "memory" => {
            bytes(text).map(Value::Int).ok_or_else(|| "bytes, such as 1048576, 512M or 2GiB".to_owned())
        }
        FieldType::Int { .. } => text.trim().parse().map(Value::Int).map_err(|_not_one| expected()),
        FieldType::Text { .. } => Ok(Value::text(text)),
        FieldType::Bytes { .. } => Ok(Value::Bytes(text.as_bytes().to_vec())),
        FieldType::Texts { .. } if key == "lines" => Ok(list(text.lines().map(SmolStr::new))),
        FieldType::Texts { .. } => match embedded(text, '[').as_ref().and_then(texts) {
            Some(items) => Ok(list(items)),
            None => words::split(text).map(list).map_err(words::WordsError::expected),
        },
        FieldType::TextMap => match embedded(text, '{').as_ref().and_then(map) {
            Some(map) => Ok(map),
            None => pairs(text),
        },
    }
}

/// The JSON that a text holds, if it begins like it.
fn embedded(text: &str, begin: char) -> Option<Json> {
    if text.trim_start().starts_with(begin) { serde_json::from_str(text).ok() } else { None }
}

fn list<T: Into<SmolStr>>(items: impl IntoIterator<Item = T>) -> Value {
    Value::List(items.into_iter().map(Value::text).collect())
}

fn texts(json: &Json) -> Option<Vec<SmolStr>> {
    json.as_array()?.iter().map(|item| item.as_str().map(SmolStr::new)).collect()
}

fn map(json: &Json) -> Option<Value> {
    let entries = json.as_object()?.iter();
    let entries = entries.map(|(key, value)| Some((SmolStr::new(key), Value::text(value.as_str()?))));
    entries.collect::<Option<_>>().map(Value::Map)
}

fn pairs(text: &str) -> Result<Value, String> {
    let words = words::split(text).map_err(words::WordsError::expected)?;
    let entries = words.iter().map(|word| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((SmolStr::new(name), Value::text(value))),
        Some(_) | None => Err("words NAME=VALUE, or a JSON object of texts".to_owned()),
    });
    entries.collect::<Result<_, _>>().map(Value::Map)
}

/// Cores as thousandths: digits, maybe a point and one to three more.
fn milli(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Some(milli) = text.strip_suffix('m') {
        return natural(milli);
    }
    if !text.contains(|letter: char| letter.is_ascii_digit()) {
        return None;
    }
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    // What is beyond a thousandth must say nothing: 0.5000 is 0.5.
    let part = if part.len() > 3 { part.trim_end_matches('0') } else { part };
    if part.len() > 3 {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { natural(whole)? };
    let part = natural(&format!("{part:0<3}"))?;
    whole.checked_mul(1_000)?.checked_add(part)
}

fn bytes(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let number = natural(&text[..text.len() - unit.len()])?;
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// Digits only: no sign, no blanks.
fn natural(text: &str) -> Option<i64> {
    if text.bytes().all(|letter| letter.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use starling_core::namespace::Registry;

    use super::*;

    /// What `batch` makes of one field.
    fn batch(key: &str, value: Json) -> Result<Value, String> {
        let registry = Registry::built_in();
        let schema = &registry.namespace("batch").unwrap().spec().schema;
        let texts = Texts::from([(key.to_owned(), value)]);
        let spec = spec(&texts, schema, "namespace `batch`").map_err(|error| error.to_string())?;
        Ok(spec.field(key).unwrap().clone())
    }

    #[test]
    fn cpu_is_in_cores() {
        let cases = [("2", 2_000), ("0.5", 500), (".25", 250), ("1.", 1_000), ("1.5000", 1_500), ("250m", 250)];
        for (text, milli) in cases {
            assert_eq!(batch("cpu", json!(text)), Ok(Value::Int(milli)), "{text}");
        }
        assert_eq!(batch("cpu", json!(0.5)), Ok(Value::Int(500)));
        for text in ["", ".", "-1", "two", "0.0001", "1e3", "9223372036854775807", "99999999"] {
            assert!(batch("cpu", json!(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_is_in_bytes_or_with_a_unit() {
        let cases = [("1048576", 1 << 20), ("512M", 512 << 20), ("2GiB", 2 << 30), ("1 kb", 1_024), ("0", 0)];
        for (text, bytes) in cases {
            assert_eq!(batch("memory", json!(text)), Ok(Value::Int(bytes)), "{text}");
        }
        for text in ["", "M", "-5", "1.5G", "7X", "99999999999T"] {
            assert!(batch("memory", json!(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_are_words_or_json() {
        let words = |words: &[&str]| Ok(list(words.iter().copied()));
        assert_eq!(batch("command", json!("sh -c 'exit 3'")), words(&["sh", "-c", "exit 3"]));
        assert_eq!(batch("command", json!(["a b", "c"])), words(&["a b", "c"]));
        assert_eq!(batch("command", json!(r#"["a b", "c"]"#)), words(&["a b", "c"]));
        assert_eq!(batch("command", json!("[ -e x ]")), words(&["[", "-e", "x", "]"]), "the program `[`");
        assert_eq!(batch("lines", json!("one two\nthree")), words(&["one two", "three"]));
    }

    #[test]
    fn maps_are_pairs_or_json() {
        let map = Value::Map(BTreeMap::from([("A".into(), Value::text("b c")), ("D".into(), Value::text(""))]));
        for form in [json!("A='b c' D="), json!({"A": "b c", "D": ""}), json!(r#"{"A": "b c", "D": ""}"#)] {
            assert_eq!(batch("env", form), Ok(map.clone()));
        }
        assert_eq!(
            batch("env", json!("A")).unwrap_err(),
            "field `env`: expected words NAME=VALUE, or a JSON object of texts, got text \"A\""
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |key, value| batch(key, value).unwrap_err();
        assert_eq!(
            refused("comand", json!("true")),
            "field `comand`: expected a field of namespace `batch`, got an unknown one"
        );
        assert_eq!(refused("retries", json!("99")), "field `retries`: expected integer from 0 to 15, got text \"99\"");
        assert_eq!(
            refused("retries", json!("few")),
            "field `retries`: expected integer from 0 to 15, got text \"few\""
        );
        assert_eq!(refused("cwd", json!(["/"])), "field `cwd`: expected text of at most 4096 bytes, got a list of 1");
        assert_eq!(
            refused("command", json!("echo 'a")),
            "field `command`: expected words, each quotation closed; one that begins with ' is not, got text \"echo 'a\""
        );
        assert_eq!(refused("cwd", Json::Null), "field `cwd`: expected text of at most 4096 bytes, got null");
        assert_eq!(batch("retries", json!(3)), Ok(Value::Int(3)));
    }
}
