//! The shape of files: each opens with its header and stays short.

use crate::source::Source;

/// Lines that a file may have.
const LINES_MAX: usize = 500;
/// How far a listed file may fall below its entry before the entry must follow.
const SLACK: usize = 25;

/// Files that were longer when the ratchet came, and how long they may be. A number here only ever falls; at `LINES_MAX` its line goes.
const LONGER: &[(&str, usize)] = &[];

/// Every file says what it is.
pub(crate) fn headers(sources: &[Source]) -> Vec<String> {
    let bare = sources.iter().filter(|source| !source.text.starts_with("//! "));
    bare.map(|source| {
        format!(
            "{}:1: no header: open with `//! What it is.`, then `Invariants:` and `Does not:` where they apply",
            source.path
        )
    })
    .collect()
}

/// Long files may only become shorter.
pub(crate) fn lengths(sources: &[Source]) -> Vec<String> {
    lengths_against(LONGER, sources)
}

fn lengths_against(longer: &[(&str, usize)], sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let lines = source.text.lines().count();
        let listed = longer.iter().find(|(path, _)| *path == source.path);
        let path = &source.path;
        match listed {
            Some((_, cap)) if lines > *cap => findings.push(format!(
                "{path}: {lines} lines, it had {cap}: split it where an interface is narrow; the ratchet only turns one way"
            )),
            Some((_, cap)) if lines <= LINES_MAX || lines + SLACK < *cap => findings.push(format!(
                "{path}: {lines} lines, the table says {cap}: lower (or drop) its entry in tests/tidy/shape.rs"
            )),
            None if lines > LINES_MAX => findings.push(format!(
                "{path}: {lines} lines, at most {LINES_MAX}: split it where an interface is narrow"
            )),
            Some(_) | None => {}
        }
    }
    for (path, _) in longer {
        if sources.iter().all(|source| source.path != *path) {
            findings.push(format!("{path}: no such file: drop its entry in tests/tidy/shape.rs"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings_in;

    #[test]
    fn a_file_without_a_header_is_found() {
        assert_eq!(findings_in("core/src/x.rs", "use x;\n", headers).len(), 1);
        assert_eq!(findings_in("core/src/x.rs", "// X.\n", headers).len(), 1);
        assert!(findings_in("core/src/x.rs", "//! X.\n", headers).is_empty());
    }

    #[test]
    fn a_file_that_grew_is_found() {
        let of = |lines: usize| [Source::new("core/src/x.rs", &"\n".repeat(lines))];
        assert_eq!(lengths_against(&[], &of(501)).len(), 1);
        assert!(lengths_against(&[], &of(500)).is_empty());
        let table = [("core/src/x.rs", 600)];
        assert_eq!(lengths_against(&table, &of(601)).len(), 1);
        assert!(lengths_against(&table, &of(600)).is_empty());
    }

    #[test]
    fn an_entry_of_the_ratchet_that_is_out_of_date_is_found() {
        let of = |lines: usize| [Source::new("core/src/x.rs", &"\n".repeat(lines))];
        assert_eq!(lengths_against(&[("core/src/x.rs", 600)], &of(574)).len(), 1);
        assert_eq!(lengths_against(&[("core/src/y.rs", 600)], &of(5)).len(), 1);
    }

    #[test]
    fn the_ratchet_lists_long_files_only() {
        assert!(LONGER.iter().all(|(_, lines)| *lines > LINES_MAX));
    }
}
