//! A command line as words, by the quoting rules of a POSIX shell and nothing else of it.
//!
//! Invariants: nothing is expanded: `$`, `*`, `~`, `|` and `;` are letters like others. Who wants a shell writes `sh -c '…'`.

use std::str::Chars;

/// Why a text has no words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordsError {
    /// A quotation, begun with this mark, does not end.
    Quote(char),
    /// A backslash has nothing after it.
    Backslash,
}

impl WordsError {
    /// What would have been accepted.
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::Quote(mark) => format!("words, each quotation closed; one that begins with {mark} is not"),
            Self::Backslash => "words; the last letter is a backslash with nothing to stand before".to_owned(),
        }
    }
}

/// Splits at blanks outside of quotations. Single quotes keep everything as it is, double quotes all but `\"`, `\\`, `\$`, `` \` `` and `\`
/// before a line's end, which vanishes. Elsewhere a backslash keeps the letter after it.
///
/// # Errors
/// If a quotation does not end, or the text ends in a lone backslash.
pub fn split(text: &str) -> Result<Vec<String>, WordsError> {
    let (mut words, mut open) = (Vec::new(), None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\r' | '\n' => words.extend(open.take()),
            '\'' => single(&mut letters, open.get_or_insert_default())?,
            '"' => double(&mut letters, open.get_or_insert_default())?,
            '\\' => match letters.next().ok_or(WordsError::Backslash)? {
                '\n' => {}
                kept => open.get_or_insert_default().push(kept),
            },
            plain => open.get_or_insert_default().push(plain),
        }
    }
    words.extend(open);
    Ok(words)
}

/// Reads to the end of a single quotation.
fn single(letters: &mut Chars<'_>, word: &mut String) -> Result<(), WordsError> {
    loop {
        match letters.next().ok_or(WordsError::Quote('\''))? {
            '\'' => return Ok(()),
            kept => word.push(kept),
        }
    }
}

/// Reads to the end of a double quotation.
fn double(letters: &mut Chars<'_>, word: &mut String) -> Result<(), WordsError> {
    let mut next = || letters.next().ok_or(WordsError::Quote('"'));
    loop {
        match next()? {
            '"' => return Ok(()),
            '\\' => match next()? {
                '\n' => {}
                kept @ ('"' | '\\' | '$' | '`') => word.push(kept),
                other => word.extend(['\\', other]),
            },
            kept => word.push(kept),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        let cases: [(&str, &[&str]); 12] = [
            ("", &[]),
            (" \t\n", &[]),
            ("python3 env.py  --fast\n", &["python3", "env.py", "--fast"]),
            ("policy {port} --host={host}", &["policy", "{port}", "--host={host}"]),
            (r#"sh -c 'echo "$HOME" | wc'"#, &["sh", "-c", r#"echo "$HOME" | wc"#]),
            (r#"a"b c"d'e'f g"#, &["ab cdef", "g"]),
            (r#"'' """#, &["", ""]),
            (r"a\ b \'c \\", &["a b", "'c", r"\"]),
            (r#""a\"b\\c\n\$x""#, &[r#"a"b\c\n$x"#]),
            (r"'a\' b", &[r"a\", "b"]),
            ("a\\\nb \"c\\\nd\"", &["ab", "cd"]),
            ("*.txt ~ $X;y é", &["*.txt", "~", "$X;y", "é"]),
        ];
        for (text, words) in cases {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
    }

    #[test]
    fn what_does_not_end_is_refused() {
        for (text, error) in [
            ("echo 'a", WordsError::Quote('\'')),
            ("echo \"a", WordsError::Quote('"')),
            ("echo \"a\\", WordsError::Quote('"')),
            ("echo \\", WordsError::Backslash),
        ] {
            assert_eq!(split(text), Err(error), "{text}");
        }
        assert!(WordsError::Quote('"').expected().contains('"'));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn quoted_words_come_back(words in prop::collection::vec(any::<String>(), 0..6)) {
            let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
            prop_assert_eq!(split(&quoted.join(" ")).unwrap(), words);
        }
    }
}
