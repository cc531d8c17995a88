//! A job's result, made from its outcome and the files that hold its output.
//!
//! Invariants: a result as a message stays below 4 MiB, which is what servers accept unless they are told to accept more; memory is bounded by the same.

use std::io::{self, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use starling_proto::hwp::StreamedResult;

use super::outcome::{Outcome, Stderr};
use super::results::Kept;
use crate::exec::output::{self, Stream};

/// Of each stream, its end.
const TAIL_BYTES: usize = 64 << 10;
/// Of the compressed output. With two tails, whose every byte may take three (U+FFFD), this is below 4 MiB.
const COMPRESSED_BYTES_MAX: usize = 3 << 20;
const CHUNK_BYTES: usize = 64 << 10;
const CUT: &[u8] = b"\n[starling: the rest of the output is not kept here]\n";

/// Reads what the job wrote; blocks for the disk. `prefix` is that of its launch.
pub(super) fn make(job_id: String, prefix: &Path, outcome: Outcome) -> Kept {
    let stderr = match outcome.stderr {
        Stderr::Own => tail(prefix, Stream::Err),
        Stderr::Empty => String::new(),
        Stderr::Reason(reason) => reason,
    };
    let compressed = compressed(prefix).unwrap_or_else(|error| {
        tracing::warn!(%error, job = job_id, "the output of a job cannot be read and is not in its result");
        Vec::new()
    });
    let result = StreamedResult {
        stdout: tail(prefix, Stream::Out),
        job_id,
        exit_code: outcome.exit_code,
        stderr,
        compressed_logs: compressed.into(),
    };
    Kept { result, note: outcome.note }
}

/// The end of a stream, as text.
fn tail(prefix: &Path, stream: Stream) -> String {
    let length = |offset, max| output::read(prefix, stream, offset, max);
    let bytes = length(0, 0).and_then(|(_, total)| length(total.saturating_sub(TAIL_BYTES as u64), TAIL_BYTES));
    match bytes {
        Ok((bytes, _)) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            tracing::warn!(%error, "the output of a job cannot be read");
            String::new()
        }
    }
}

/// gzip of standard output and then standard error, as far as there is room.
fn compressed(prefix: &Path) -> io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    for stream in Stream::PLAIN {
        let mut offset = 0;
        loop {
            let (bytes, _) = output::read(prefix, stream, offset, CHUNK_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            // The encoder holds back less than two chunks.
            if gzip.get_ref().len() + 3 * CHUNK_BYTES > COMPRESSED_BYTES_MAX {
                gzip.write_all(CUT)?;
                return gzip.finish();
            }
            offset += bytes.len() as u64;
            gzip.write_all(&bytes)?;
        }
    }
    gzip.finish()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use prost::Message as _;

    use super::*;

    fn unpacked(kept: &Kept) -> Vec<u8> {
        let mut bytes = Vec::new();
        GzDecoder::new(&kept.result.compressed_logs[..]).read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn exit(exit_code: i32) -> Outcome {
        Outcome { exit_code, stderr: Stderr::Own, note: None }
    }

    #[test]
    fn a_result_has_the_ends_of_both_streams_and_all_of_the_output() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("1");
        let long = "0123456789\n".repeat(10_000);
        fs::write(dir.path().join("1.out"), &long).unwrap();
        fs::write(dir.path().join("1.err"), "oh\n").unwrap();
        let kept = make("j".to_owned(), &prefix, exit(3));
        assert_eq!((kept.result.exit_code, kept.result.stderr.as_str()), (3, "oh\n"));
        assert_eq!(kept.result.stdout, long[long.len() - TAIL_BYTES..]);
        assert_eq!(unpacked(&kept), format!("{long}oh\n").into_bytes());
        let silent = make("j".to_owned(), &dir.path().join("2"), exit(0));
        assert_eq!((silent.result.stdout.as_str(), unpacked(&silent).len()), ("", 0));
    }

    #[test]
    fn a_result_fits_into_what_servers_accept() {
        let dir = tempfile::tempdir().unwrap();
        let noise: Vec<u8> = (0..4 << 20).map(|_| rand::random::<u8>() | 0x80).collect();
        fs::write(dir.path().join("1.out"), &noise).unwrap();
        fs::write(dir.path().join("1.err"), &noise).unwrap();
        let kept = make("j".to_owned(), &dir.path().join("1"), exit(0));
        assert!(kept.result.encoded_len() < 4 << 20, "{}", kept.result.encoded_len());
        let unpacked = unpacked(&kept);
        assert!(unpacked.ends_with(CUT) && unpacked.len() > 2 << 20);
        assert_eq!(unpacked[..1 << 20], noise[..1 << 20]);
    }
}
