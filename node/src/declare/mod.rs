//! Declarations of namespaces as people write them: TOML for `starling ns put`, and the JSON of programs written against a hub.
//!
//! Invariants: text to declaration to text and back gives the same declaration; every refusal shows line, column and the line itself.
//! Does not: send or keep declarations (`cli` and `api` do), or decide what one may say (`starling_core::namespace::declared` does).

mod form;
pub mod hub;
#[cfg(test)]
mod tests;
mod values;

use std::fmt;
use std::ops::Range;

use starling_core::namespace::declared::{Declaration, DeclarationError};
use toml::de::{DeTable, DeValue};

pub(crate) use self::form::{ANY_SUBMIT, type_word};
pub use self::values::{from_entries, from_json, from_texts, to_json};

/// Bytes of a `text` or `bytes` field that says no `max_bytes`.
const FIELD_BYTES_DEFAULT: usize = 4_096;
/// Items of a `texts` field that says no `max_items`.
const FIELD_ITEMS_DEFAULT: usize = 1_024;

/// Why a text is no declaration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TextError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What was expected, and what was found.
    pub reason: String,
    /// The line itself.
    pub text: String,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.reason)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, "\n  {}", self.text) }
    }
}

impl TextError {
    fn new(text: &str, at: usize, reason: String) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = text[start..].lines().next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            reason,
            text: line.trim_end().to_owned(),
        }
    }

    fn from_toml(text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start);
        // One line is enough: the message may go on with what else could have been.
        let reason = error.message().lines().collect::<Vec<_>>().join(", ");
        Self::new(text, at, reason)
    }
}

/// Reads and checks a declaration.
///
/// # Errors
/// If the text is no TOML, has keys or types that declarations do not, or says what `Declaration::check` refuses.
pub fn from_toml(text: &str) -> Result<Declaration, TextError> {
    let table = DeTable::parse(text).map_err(|error| TextError::from_toml(text, &error))?;
    let form: form::Document = toml::from_str(text).map_err(|error| TextError::from_toml(text, &error))?;
    let located = |error: DeclarationError| {
        let at = place_of(table.get_ref(), &error).map_or(0, |span| span.start);
        TextError::new(text, at, error.to_string())
    };
    let declaration = form.read().map_err(located)?;
    declaration.check().map_err(located)?;
    Ok(declaration)
}

/// Writes a declaration as `from_toml` reads it.
#[must_use]
pub fn to_toml(declaration: &Declaration) -> String {
    toml::to_string(&form::Document::write(declaration)).expect("the form has texts for keys only")
}

/// Where the text says what the error is about: the value, or the key nearest to it.
fn place_of(table: &DeTable<'_>, error: &DeclarationError) -> Option<Range<usize>> {
    let mut found = None;
    let mut here = Some(table);
    for part in &error.place {
        let entry = here.and_then(|table| table.iter().find(|(key, _)| key.get_ref() == part.as_str()));
        let Some((key, value)) = entry else {
            return found;
        };
        here = value.get_ref().as_table();
        found = match value.get_ref() {
            DeValue::Table(_) => Some(key.span()),
            _ => Some(value.span()),
        };
    }
    found
}
