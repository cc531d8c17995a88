//! A command line as words, by the quoting rules of a POSIX shell and nothing else of it.
//!
//! Invariants: no word is expanded: `$`, `*`, `~` and `|` are letters like others. Who wants a shell writes `sh -c '…'`.

/// Why a text has no words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WordsError {
    /// A quotation that does not end.
    Quote(char),
    /// A backslash with nothing after it.
    Backslash,
}

impl WordsError {
    /// What would have been accepted.
    pub(super) fn expected(self) -> String {
        match self {
            Self::Quote(quote) => format!("words, each quotation closed; one that begins with {quote} is not"),
            Self::Backslash => "words; the last letter is a backslash with nothing to stand before".to_owned(),
        }
    }
}

/// Splits at blanks outside of quotations. Single quotes keep everything, double quotes all but `\"`, `\\`, `\$`, `` \` `` and a line's end.
///
/// # Errors
/// If a quotation does not end, or the text ends in a lone backslash.
pub(super) fn split(text: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or(WordsError::Quote('\''))? {
                        '\'' => break,
                        inner => word.push(inner),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or(WordsError::Quote('"'))? {
                        '"' => break,
                        '\\' => match letters.next().ok_or(WordsError::Quote('"'))? {
                            '\n' => {}
                            escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        inner => word.push(inner),
                    }
                }
            }
            '\\' => match letters.next().ok_or(WordsError::Backslash)? {
                '\n' => {}
                escaped => word.get_or_insert_default().push(escaped),
            },
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        let cases: [(&str, &[&str]); 10] = [
            ("", &[]),
            ("  \t\n", &[]),
            ("echo hello  world", &["echo", "hello", "world"]),
            ("sh -c 'echo \"$HOME\" | wc'", &["sh", "-c", "echo \"$HOME\" | wc"]),
            (r#"a"b c"d 'e'f"#, &["ab cd", "ef"]),
            (r#"'' """#, &["", ""]),
            (r"a\ b \'c", &["a b", "'c"]),
            (r#""a\"b\\c\n""#, &["a\"b\\c\\n"]),
            ("a\\\nb \"c\\\nd\"", &["ab", "cd"]),
            ("*.txt ~ $X", &["*.txt", "~", "$X"]),
        ];
        for (text, words) in cases {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
    }

    #[test]
    fn what_does_not_end_is_refused() {
        assert_eq!(split("echo 'a"), Err(WordsError::Quote('\'')));
        assert_eq!(split("echo \"a"), Err(WordsError::Quote('"')));
        assert_eq!(split("echo \"a\\"), Err(WordsError::Quote('"')));
        assert_eq!(split("echo \\"), Err(WordsError::Backslash));
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
