//! Source files as tidy sees them: with comments and literals blanked, and test code told apart.
//!
//! Invariants: blanking keeps every line break, so that line numbers hold.
//! Does not: understand macros or conditional compilation beyond `#[cfg(test)] mod name { … }`.

use std::fs;
use std::path::{Path, PathBuf};

/// The folders that hold the project's code.
const FOLDERS: [&str; 5] = ["core", "node", "proto", "testnet", "tests"];

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// From the root of the workspace, with `/`.
    pub(crate) path: String,
    /// As it is on disk.
    pub(crate) text: String,
    /// With comments, strings and characters blanked.
    pub(crate) code: String,
    /// `code` without inline test modules; empty in files that hold tests alone.
    pub(crate) production: String,
    /// `code` without what is production.
    pub(crate) tests: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = blanked(text);
        let (production, tests) = if is_test_file(path) { (String::new(), code.clone()) } else { split_tests(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), code, production, tests }
    }

    /// `path:line` of a place in any of the texts.
    pub(crate) fn place(&self, within: &str, at: usize) -> String {
        let line = within[..at].matches('\n').count() + 1;
        format!("{}:{line}", self.path)
    }
}

/// Every `.rs` file of the workspace, in order of their paths.
pub(crate) fn workspace() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member lies one level below the root");
    let mut paths = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut paths);
    }
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a source file is readable text");
        let relative = path.strip_prefix(root).expect("found below the root");
        Source::new(&relative.to_string_lossy().replace('\\', "/"), &text)
    };
    paths.iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, paths);
            }
        } else if path.extension().is_some_and(|end| end == "rs") {
            paths.push(path);
        }
    }
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/")
        || path.contains("/tests/")
        || path.ends_with("tests.rs")
        || path.ends_with("/testing.rs")
}

/// Replaces comments and literals by spaces.
pub(crate) fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end == at {
            code.push(bytes[at]);
            at += 1;
        } else {
            let keep_breaks = |byte: &u8| if *byte == b'\n' { b'\n' } else { b' ' };
            code.extend(bytes[at..end].iter().map(keep_breaks));
            at = end;
        }
    }
    // Only whole literals are replaced, and outside of them nothing changes.
    String::from_utf8(code).expect("blanking keeps text valid")
}

/// Where the comment or literal that begins at `at` ends; `at` if none begins there.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
    } else if rest.starts_with(b"/*") {
        at + block_comment(rest)
    } else if rest[0] == b'"' {
        at + quoted(rest, b'"')
    } else if rest[0] == b'\'' {
        at + character(rest)
    } else if rest[0] == b'r' && (!after_word || bytes[at - 1] == b'b') {
        at + raw_string(rest)
    } else {
        at
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character literal, not a lifetime.
fn character(rest: &[u8]) -> usize {
    let escaped = rest.get(1) == Some(&b'\\');
    let wide = rest.iter().skip(1).take(5).position(|byte| *byte == b'\'');
    match wide {
        _ if escaped => quoted(rest, b'\''),
        // One character of up to four bytes; `'a, 'b` has a comma or a space before the second quote.
        Some(len @ 1..=4) if len == 1 || rest[1] >= 0x80 => len + 2,
        Some(_) | None => 0,
    }
}

fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let body = 2 + hashes;
    let found = rest[body..].windows(close.len()).position(|window| window == close);
    found.map_or(rest.len(), |found| body + found + close.len())
}

/// Production code, then the inline test modules, each with the other blanked.
fn split_tests(code: &str) -> (String, String) {
    const MARK: &str = "#[cfg(test)]";
    let blank = |text: &str| -> String {
        let space = |each: char| {
            if each == '\n' { "\n".to_owned() } else { " ".repeat(each.len_utf8()) }
        };
        text.chars().map(space).collect()
    };
    let (mut production, mut tests) = (String::new(), String::new());
    let mut rest = code;
    while let Some(found) = rest.find(MARK) {
        let item = item_end(&rest[found + MARK.len()..]) + found + MARK.len();
        production += &rest[..found];
        production += &blank(&rest[found..item]);
        tests += &blank(&rest[..found]);
        tests += &rest[found..item];
        rest = &rest[item..];
    }
    production += rest;
    tests += &blank(rest);
    (production, tests)
}

/// Where an item ends: at its `;`, or at the brace that closes it.
fn item_end(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in item.bytes().enumerate() {
        match byte {
            b';' if depth == 0 => return at + 1,
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    item.len()
}

/// Where `word` stands in `text` with no letter, digit or `_` beside it.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let joins = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let (first, last) = (word.bytes().next(), word.bytes().last());
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let bytes = text.as_bytes();
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        let after = bytes.get(at + word.len());
        let goes_on_left = joins(before) && joins(first.as_ref());
        let goes_on_right = joins(after) && joins(last.as_ref());
        !goes_on_left && !goes_on_right
    })
}

#[test]
fn comments_and_literals_are_blanked_and_lines_kept() {
    let text = "a /* x /* y */ z */ b // c\n\"d\\\"e\nf\" g 'h' '\\'' r#\"i\"j\"# br\"k\" <'l> m";
    let code = blanked(text);
    let kept: String = code.split_whitespace().collect();
    assert_eq!(kept, "abgb<'l>m");
    assert_eq!(code.matches('\n').count(), text.matches('\n').count());
    assert_eq!(code.len(), text.len());
}

#[test]
fn inline_tests_are_told_apart() {
    let source =
        Source::new("core/src/x.rs", "fn one() {}\n#[cfg(test)]\nmod tests {\n fn two() { {} }\n}\nfn three() {}\n");
    assert!(source.production.contains("one") && source.production.contains("three"));
    assert!(!source.production.contains("two"));
    assert!(source.tests.contains("two") && !source.tests.contains("three"));
    let at = source.production.find("three").expect("it is there");
    assert_eq!(source.place(&source.production, at), "core/src/x.rs:6");
}

#[test]
fn words_are_whole() {
    let found: Vec<usize> = words("sleep( asleep( sleepy( x.sleep(", "sleep(").collect();
    assert_eq!(found, [0, 25]);
}
