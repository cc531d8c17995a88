//! From the bytes of an output stream to lines of log.
//!
//! Invariants: at most `LINE_BYTES_MAX` bytes of an unfinished line are held; a longer one is told in pieces of that size, cut between characters; every byte is
//! in some line, those that are no UTF-8 as U+FFFD.

/// Longest line of log, bytes.
pub(super) const LINE_BYTES_MAX: usize = 16 << 10;
/// Bytes of the longest character after its first.
const CONTINUATIONS_MAX: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes what the stream says next; hands out every line that is complete, without its line end.
    pub(super) fn take(&mut self, bytes: &[u8], to: &mut Vec<String>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(part);
            let is_whole = self.partial.pop_if(|last| *last == b'\n').is_some();
            while self.partial.len() > LINE_BYTES_MAX {
                let rest = self.partial.split_off(cut(&self.partial));
                to.push(text(&self.partial));
                self.partial = rest;
            }
            if is_whole {
                to.push(text(&self.partial));
                self.partial.clear();
            }
        }
    }

    /// What stands there without a line end, now that nothing follows.
    pub(super) fn finish(&mut self, to: &mut Vec<String>) {
        if !self.partial.is_empty() {
            to.push(text(&self.partial));
            self.partial.clear();
        }
    }
}

/// Where to cut a line that is too long.
fn cut(line: &[u8]) -> usize {
    let is_start = |at: &usize| line[*at] & 0b1100_0000 != 0b1000_0000;
    (LINE_BYTES_MAX - CONTINUATIONS_MAX..=LINE_BYTES_MAX).rev().find(is_start).unwrap_or(LINE_BYTES_MAX)
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut to) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.take(chunk, &mut to);
        }
        lines.finish(&mut to);
        to
    }

    #[test]
    fn lines_are_whole_wherever_the_chunks_end() {
        assert_eq!(lines(&[b"a\nb", b"c\n", b"\n", b"d"]), ["a", "bc", "", "d"]);
        assert_eq!(lines(&["é\n".as_bytes().split_at(1).0, "é\n".as_bytes().split_at(1).1]), ["é"]);
        assert_eq!(lines(&[b"\xff\xfeok\n"]), ["\u{fffd}\u{fffd}ok"]);
        assert_eq!(lines(&[b""]), [""; 0]);
    }

    #[test]
    fn a_long_line_comes_in_pieces_cut_between_characters() {
        let long = format!("a{}", "é".repeat(LINE_BYTES_MAX));
        let pieces = lines(&[long.as_bytes(), b"\n"]);
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= LINE_BYTES_MAX));
        assert_eq!(pieces.concat(), long);
        let exact = "x".repeat(LINE_BYTES_MAX);
        assert_eq!(lines(&[exact.as_bytes(), b"\n"]), [exact]);
    }
}
