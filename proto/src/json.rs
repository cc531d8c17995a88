//! Codecs of the JSON form: enum values as words, bytes as base64, embedded JSON as itself.
//!
//! Invariants: what these write they read back to the same value; an enum number that this version
//! does not know is written as its default word.
//! Does not: know any message; the build script attaches the codecs to fields.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::Serializer;

use crate::Word;

fn word_of<E: Word + TryFrom<i32> + Default>(number: i32) -> &'static str {
    E::try_from(number).unwrap_or_default().word()
}

fn number_of<E: Word + Into<i32>, X: de::Error>(word: &str) -> Result<i32, X> {
    E::from_word(word).map(Into::into).ok_or_else(|| {
        let known: Vec<&str> = E::WORDS.iter().map(|(_, known)| *known).collect();
        X::custom(format_args!("expected one of {}, got {word:?}", known.join(", ")))
    })
}

macro_rules! enum_codec {
    ($module:ident, $kind:ident) => {
        #[doc = concat!("A `", stringify!($kind), "` as its word.")]
        pub mod $module {
            use super::{Deserialize, Deserializer, Serializer, number_of, word_of};
            use crate::v1::$kind as Kind;

            /// Writes the word.
            ///
            /// # Errors
            /// Only those of the serializer.
            pub fn serialize<S: Serializer>(number: &i32, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(word_of::<Kind>(*number))
            }

            /// Reads a word, whatever its case.
            ///
            /// # Errors
            /// A word that is not a value of the enum.
            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
                let word = String::deserialize(from)?;
                number_of::<Kind, D::Error>(&word)
            }

            /// A list of words.
            pub mod list {
                use super::{Deserialize, Deserializer, Kind, Serializer, number_of, word_of};

                /// Writes the words.
                ///
                /// # Errors
                /// Only those of the serializer.
                pub fn serialize<S: Serializer>(numbers: &[i32], to: S) -> Result<S::Ok, S::Error> {
                    to.collect_seq(numbers.iter().map(|number| word_of::<Kind>(*number)))
                }

                /// Reads a list of words, whatever their case.
                ///
                /// # Errors
                /// A word that is not a value of the enum.
                pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<i32>, D::Error> {
                    let words = Vec::<String>::deserialize(from)?;
                    words.iter().map(|word| number_of::<Kind, D::Error>(word)).collect()
                }
            }
        }
    };
}

enum_codec!(ack_level, AckLevel);
enum_codec!(job_state, JobState);
enum_codec!(ending, Ending);
enum_codec!(log_stream, LogStream);
enum_codec!(node_state, NodeState);
enum_codec!(worker_state, WorkerState);
enum_codec!(check_state, CheckState);

/// Bytes as standard base64 with padding, as protobuf's own JSON form has it.
pub mod base64_bytes {
    use super::{Deserializer, Engine, STANDARD, Serializer, Text, de};

    /// Writes base64.
    ///
    /// # Errors
    /// Only those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    /// Reads base64.
    ///
    /// # Errors
    /// Text that is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = from.deserialize_str(Text)?;
        STANDARD.decode(&text).map_err(|error| de::Error::custom(format_args!("expected base64: {error}")))
    }
}

/// JSON kept as text, which in JSON stands for itself. Empty text is the empty object.
pub mod embedded {
    use super::{Deserialize, Deserializer, Serializer};

    /// Writes the JSON that the text holds.
    ///
    /// # Errors
    /// Text that is not JSON.
    pub fn serialize<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::{Error as _, Serialize as _};
        let text = if text.is_empty() { "{}" } else { text };
        let value: serde_json::Value = serde_json::from_str(text).map_err(S::Error::custom)?;
        value.serialize(to)
    }

    /// Keeps any JSON as text.
    ///
    /// # Errors
    /// Only those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
        serde_json::Value::deserialize(from).map(|value| value.to_string())
    }
}

/// Reads any string, borrowed or not.
struct Text;

impl de::Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a base64 string")
    }

    fn visit_str<X: de::Error>(self, text: &str) -> Result<String, X> {
        Ok(text.to_owned())
    }
}
