//! Frames on a lane: a length, a kind, a payload.
//!
//! On the wire: u32 big-endian length of kind and payload, one byte kind, payload.
//!
//! Invariants: no frame larger than the lane's limit is written, or read into memory; a reader allocates at most one
//! frame; a payload owns exactly its bytes and pins nothing else.
//! Does not: know what a payload means.

use std::io;

use bytes::Bytes;
use futures::{AsyncBufRead, AsyncReadExt};

use crate::lanes::Lane;
use crate::limits;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For the application.
    Data,
    /// A sign of life, without payload.
    Beat,
    /// The first frame on Control: where the sender listens.
    Hello,
    /// Other peers and where they listen.
    Introductions,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Beat => 1,
            Self::Hello => 2,
            Self::Introductions => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Data, Self::Beat, Self::Hello, Self::Introductions].into_iter().find(|kind| kind.code() == code)
    }
}

/// Why a lane cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the stream ended or broke")]
    Io(#[from] io::Error),
    #[error("the peer sent a frame that the lane does not allow")]
    Violation,
}

impl Lane {
    /// Largest payload, in bytes.
    pub(crate) fn bytes_max(self) -> usize {
        match self {
            Self::Control => limits::CONTROL_FRAME_BYTES_MAX,
            Self::Bulk => limits::BULK_FRAME_BYTES_MAX,
        }
    }
}

/// Appends a frame. The caller has checked the size.
pub(crate) fn encode(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len() + 1).expect("payloads are checked against the lane's limit");
    out.extend(length.to_be_bytes());
    out.push(kind.code());
    out.extend(payload);
}

/// Reads one frame.
///
/// Cancel safety: not cancel safe; the caller must not give up on a frame and go on.
pub(crate) async fn read<R>(lane: Lane, reader: &mut R) -> Result<(Kind, Bytes), ReadError>
where
    R: AsyncBufRead + Unpin,
{
    let mut header = [0; 5];
    reader.read_exact(&mut header).await?;
    let [a, b, c, d, code] = header;
    let Ok(length) = usize::try_from(u32::from_be_bytes([a, b, c, d])) else {
        return Err(ReadError::Violation);
    };
    let (Some(kind), Some(length)) = (Kind::from_code(code), length.checked_sub(1)) else {
        return Err(ReadError::Violation);
    };
    if length > lane.bytes_max() {
        return Err(ReadError::Violation);
    }
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await?;
    Ok((kind, payload.into()))
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::{Kind, ReadError, encode, read};
    use crate::lanes::Lane;
    use crate::limits;

    #[tokio::test]
    async fn frames_survive_the_wire() {
        let mut wire = Vec::new();
        encode(Kind::Hello, b"where", &mut wire);
        encode(Kind::Beat, b"", &mut wire);
        encode(Kind::Data, &vec![7; limits::CONTROL_FRAME_BYTES_MAX], &mut wire);
        let mut reader = Cursor::new(wire);
        assert_eq!(read(Lane::Control, &mut reader).await.unwrap(), (Kind::Hello, "where".into()));
        assert_eq!(read(Lane::Control, &mut reader).await.unwrap(), (Kind::Beat, "".into()));
        let (_, data) = read(Lane::Control, &mut reader).await.unwrap();
        assert_eq!(data.len(), limits::CONTROL_FRAME_BYTES_MAX);
        assert!(matches!(read(Lane::Control, &mut reader).await, Err(ReadError::Io(_))));
    }

    #[tokio::test]
    async fn frames_that_break_the_rules_are_violations() {
        let too_long = u32::try_from(limits::CONTROL_FRAME_BYTES_MAX + 2).unwrap().to_be_bytes();
        for (length, code) in [(too_long, 0), ([0, 0, 0, 0], 0), ([0, 0, 0, 1], 99), ([255; 4], 0)] {
            let wire = [&length[..], &[code]].concat();
            let result = read(Lane::Control, &mut Cursor::new(wire)).await;
            assert!(matches!(result, Err(ReadError::Violation)));
        }
    }
}
