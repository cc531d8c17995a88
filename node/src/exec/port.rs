//! The port that an environment server gives: in its file, or as the first line it prints.
//!
//! Invariants: a file that may be half written is not believed; what is believed is a port, 1 to 65535.
//! Does not: know whether anybody listens there (`listener`).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::output::with_suffix;

/// A file without a newline is taken for complete when it stays as it is for so long.
const SETTLED: Duration = Duration::from_millis(50);
/// No port is longer than this, whatever surrounds it.
const TEXT_BYTES_MAX: u64 = 64;
const LINE_MARK: &str = "PORT=";

/// What a look showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    NotYet,
    Port(u16),
    /// What was given instead, and where.
    Rubbish(String),
}

/// Whether what a file says may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    Runs,
    /// It has ended: its file is complete as it is.
    Ended,
}

/// Looks at a port file again and again.
#[derive(Debug)]
pub(super) struct PortFile {
    path: PathBuf,
    seen: Vec<u8>,
    since: Instant,
}

impl PortFile {
    /// The file of the task with this output prefix.
    ///
    /// Errors: its absolute path is not known, or one that lies there already cannot be removed.
    pub(super) fn new(prefix: &Path) -> io::Result<Self> {
        // Absolute, because the server may run in another directory.
        let path = std::path::absolute(with_suffix(prefix, ".port"))?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(Self { path, seen: Vec::new(), since: Instant::now() }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says at `now`.
    pub(super) fn look(&mut self, writer: Writer, now: Instant) -> Given {
        let mut text = Vec::new();
        // What cannot be read is not there yet; the deadline tells.
        let read = File::open(&self.path).and_then(|file| file.take(TEXT_BYTES_MAX).read_to_end(&mut text));
        if read.is_err() {
            text.clear();
        }
        if text != self.seen {
            (self.seen, self.since) = (text, now);
        }
        if self.seen.is_empty() {
            return Given::NotYet;
        }
        let is_settled = writer == Writer::Ended || now.saturating_duration_since(self.since) >= SETTLED;
        match parse(&self.seen) {
            Some(port) if is_settled || self.seen.ends_with(b"\n") => Given::Port(port),
            None if is_settled => Given::Rubbish(format!("wrote {} to its port file", shown(&self.seen))),
            Some(_) | None => Given::NotYet,
        }
    }
}

impl Drop for PortFile {
    fn drop(&mut self) {
        // Mostly it is there; if it stays it is removed with the output.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What the first line of output says; `head` is its beginning. Other lines than `PORT=n` are no port, and no rubbish.
pub(super) fn in_line(head: &[u8]) -> Given {
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
        return Given::NotYet;
    };
    let Some(text) = head[..end].strip_prefix(LINE_MARK.as_bytes()) else {
        return Given::NotYet;
    };
    parse(text).map_or_else(|| Given::Rubbish(format!("printed {}", shown(&head[..end]))), Given::Port)
}

/// A decimal number from 1 to 65535 and white space.
fn parse(text: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_decimal && *port > 0)
}

/// Bytes for people, in quotes.
pub(super) fn shown(text: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(text).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_believed_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = PortFile::new(&dir.path().join("1")).unwrap();
        let begin = Instant::now();
        let mut look = |text: &str, after_ms: u64| {
            std::fs::write(dir.path().join("1.port"), text).unwrap();
            file.look(Writer::Runs, begin + Duration::from_millis(after_ms))
        };
        assert_eq!(look("", 0), Given::NotYet);
        assert_eq!(look("80", 1), Given::NotYet);
        assert_eq!(look("80", 40), Given::NotYet);
        assert_eq!(look("8080", 60), Given::NotYet, "it grew, so it was not complete");
        assert_eq!(look("8080", 110), Given::Port(8080));
        assert_eq!(look("8081\n", 111), Given::Port(8081));
        assert_eq!(look(" 8082 \r\n", 112), Given::Port(8082));
        assert_eq!(look("x", 113), Given::NotYet);
        assert_eq!(look("x\n", 114), Given::NotYet);
        assert_eq!(look("x\n", 164), Given::Rubbish("wrote \"x\" to its port file".to_owned()));
        drop(file);
        assert!(!dir.path().join("1.port").exists());
    }

    #[test]
    fn the_file_of_one_that_has_ended_is_believed_at_first_sight() {
        let dir = tempfile::tempdir().unwrap();
        for (text, given) in
            [("8080", Given::Port(8080)), ("0", Given::Rubbish("wrote \"0\" to its port file".to_owned()))]
        {
            let mut file = PortFile::new(&dir.path().join("1")).unwrap();
            std::fs::write(dir.path().join("1.port"), text).unwrap();
            assert_eq!(file.look(Writer::Ended, Instant::now()), given);
        }
    }

    #[test]
    fn only_ports_are_ports() {
        for text in ["0", "65536", "-1", "+80", "80 80", "0x50", "eighty", "8\u{661}", ""] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!((parse(b"1"), parse(b"65535\n"), parse(b"\xff")), (Some(1), Some(65535), None));
    }

    #[test]
    fn only_a_whole_first_line_gives_a_port() {
        assert_eq!(in_line(b"PORT=80"), Given::NotYet);
        assert_eq!(in_line(b"PORT=8080\nhello"), Given::Port(8080));
        assert_eq!(in_line(b"PORT=8080\r\n"), Given::Port(8080));
        assert_eq!(in_line(b"hello\nPORT=8080\n"), Given::NotYet);
        assert_eq!(in_line(b"PORT=many\n"), Given::Rubbish("printed \"PORT=many\"".to_owned()));
    }
}
