//! Cursors: how much of every log a reader of Facts has seen, as a text that any node understands (ADR 11).
//!
//! Invariants: text to cursor to text and back is the same; a cursor only ever grows (`advance`); a damaged one, or one of another cluster, is refused.
//! Does not: read logs (`changed` does).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use starling_core::ids::{ClusterId, Epoch, LogId, Seq};

/// The form that this version writes.
const VERSION: u8 = 1;
/// Bytes of the check at the end.
const CHECK_BYTES: usize = 4;
/// Longest text. A cursor takes about 15 characters a log.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// A place in all logs. Authors are known by the first 8 bytes of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct Cursor {
    seen: BTreeMap<(u64, u64), u64>,
}

/// Why a text is no cursor here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::api) enum CursorError {
    /// Too long.
    #[error("a text of at most {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// Other letters.
    #[error("base64url without padding, as an earlier answer gave it")]
    NotBase64,
    /// Too short or cut.
    #[error("a whole cursor; this one is cut off")]
    Cut,
    /// Of another version.
    #[error("a cursor of form {VERSION}, not of form {0}")]
    Version(u8),
    /// Changed on its way, or of another cluster.
    #[error("a cursor of this cluster, unchanged")]
    Check,
}

impl Cursor {
    /// Whether nothing was seen.
    pub(in crate::api) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// How far `log` was seen; 0 for not at all.
    pub(in crate::api) fn seen(&self, log: &LogId) -> Seq {
        Seq(self.seen.get(&key(log)).copied().unwrap_or(0))
    }

    /// `log` was seen up to `seq`, if not further.
    pub(in crate::api) fn advance(&mut self, log: &LogId, seq: Seq) {
        let place = self.seen.entry(key(log)).or_default();
        *place = seq.0.max(*place);
    }

    /// As text: base64url of the version, then by author its prefix, the count of its logs, and of each the epoch's and the length's varint, then a check.
    pub(in crate::api) fn to_text(&self, cluster: &ClusterId) -> String {
        let mut bytes = vec![VERSION];
        let mut authors: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
        for ((author, epoch), seq) in &self.seen {
            authors.entry(*author).or_default().push((*epoch, *seq));
        }
        for (author, logs) in authors {
            bytes.extend(author.to_be_bytes());
            put_varint(&mut bytes, logs.len() as u64);
            for (epoch, seq) in logs {
                put_varint(&mut bytes, epoch);
                put_varint(&mut bytes, seq);
            }
        }
        let check = check(cluster, &bytes);
        bytes.extend(check);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what `to_text` wrote; empty text is the empty cursor.
    ///
    /// # Errors
    /// If it is no such text, or was written in another cluster.
    pub(in crate::api) fn from_text(text: &str, cluster: &ClusterId) -> Result<Self, CursorError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(CursorError::TooLong);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_letters| CursorError::NotBase64)?;
        let (body, found) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(CursorError::Cut)?;
        let (version, mut rest) = body.split_first().ok_or(CursorError::Cut)?;
        if *version != VERSION {
            return Err(CursorError::Version(*version));
        }
        if *found != check(cluster, body) {
            return Err(CursorError::Check);
        }
        let mut cursor = Self::default();
        while !rest.is_empty() {
            let (author, tail) = rest.split_first_chunk().ok_or(CursorError::Cut)?;
            rest = tail;
            for _ in 0..take_varint(&mut rest)? {
                let (epoch, seq) = (take_varint(&mut rest)?, take_varint(&mut rest)?);
                cursor.seen.insert((u64::from_be_bytes(*author), epoch), seq);
            }
        }
        Ok(cursor)
    }
}

fn key(log: &LogId) -> (u64, u64) {
    let Epoch(epoch) = log.epoch;
    (log.node.prefix(), epoch)
}

fn check(cluster: &ClusterId, body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(&cluster.0);
    hasher.update(body);
    let hash = *hasher.finalize().as_bytes();
    std::array::from_fn(|at| hash[at])
}

/// LEB128.
fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, CursorError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(CursorError::Cut)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(CursorError::Cut)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use starling_core::ids::NodeId;

    use super::*;

    const HOME: ClusterId = ClusterId([7; 32]);

    fn any_cursor() -> impl Strategy<Value = Cursor> {
        prop::collection::btree_map((any::<u64>(), any::<u64>()), any::<u64>(), 0..20).prop_map(|seen| Cursor { seen })
    }

    fn log(author: u8, epoch: u64) -> LogId {
        LogId { node: NodeId([author; 32]), epoch: Epoch(epoch) }
    }

    #[test]
    fn a_cursor_of_three_nodes_is_short() {
        let mut cursor = Cursor::default();
        for author in 1..=3 {
            cursor.advance(&log(author, 1), Seq(100_000));
        }
        assert_eq!(cursor.to_text(&HOME).len(), 59);
    }

    #[test]
    fn a_cursor_never_goes_back() {
        let mut cursor = Cursor::default();
        cursor.advance(&log(1, 1), Seq(5));
        cursor.advance(&log(1, 1), Seq(3));
        assert_eq!((cursor.seen(&log(1, 1)), cursor.seen(&log(1, 2))), (Seq(5), Seq(0)));
    }

    #[test]
    fn what_is_wrong_with_a_text_is_told() {
        let mut cursor = Cursor::default();
        cursor.advance(&log(1, 1), Seq(5));
        let text = cursor.to_text(&HOME);
        let read = |text: &str| Cursor::from_text(text, &HOME).unwrap_err();
        assert_eq!(read("no cursor!"), CursorError::NotBase64);
        assert_eq!(read("AQ"), CursorError::Cut);
        assert_eq!(read(&text[..text.len() - 6]), CursorError::Check);
        assert_eq!(read(&format!("Ag{}", &text[2..])), CursorError::Version(2));
        assert_eq!(read(&"A".repeat(TEXT_BYTES_MAX + 1)), CursorError::TooLong);
        assert_eq!(Cursor::from_text(&text, &ClusterId([8; 32])).unwrap_err(), CursorError::Check);
        assert_eq!(Cursor::from_text("", &HOME), Ok(Cursor::default()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn text_reads_back(cursor in any_cursor()) {
            prop_assert_eq!(Cursor::from_text(&cursor.to_text(&HOME), &HOME), Ok(cursor));
        }

        #[test]
        fn no_text_panics(text in "[A-Za-z0-9_-]{0,80}") {
            let _either = Cursor::from_text(&text, &HOME);
        }

        #[test]
        fn no_bytes_with_a_right_check_panic(body in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = [&[VERSION], body.as_slice()].concat();
            let end = check(&HOME, &bytes);
            bytes.extend(end);
            let _either = Cursor::from_text(&URL_SAFE_NO_PAD.encode(bytes), &HOME);
        }
    }
}
