//! Words that must not appear: in core, what reads the world; anywhere, unfinished work; in tests, waiting by the clock.

use crate::source::{Source, words};

/// What would make core impure, and what to use instead.
const IMPURE: [(&str, &str); 14] = [
    ("HashMap", "its order is not deterministic; use `BTreeMap`"),
    ("HashSet", "its order is not deterministic; use `BTreeSet`"),
    ("Instant", "time is an input; take `now: Now`"),
    ("SystemTime", "time is an input; take `now: Now`"),
    ("std::fs", "files belong to `node::storage`; emit an Effect"),
    ("std::net", "sockets belong to `starling-net`; emit an Effect"),
    ("std::io", "IO belongs to the edges; emit an Effect"),
    ("std::process", "processes belong to `node::exec`; emit an Effect"),
    ("std::env", "settings are an input; add a field to `Config`"),
    ("std::thread", "core is one thread; emit an Effect"),
    ("std::sync::Mutex", "core owns its state; share nothing"),
    ("async", "core waits for nothing; completion returns as an Input"),
    ("await", "core waits for nothing; completion returns as an Input"),
    ("println!", "core prints nothing; return data"),
];

/// Core reads no clock, entropy, file or socket, and waits for nothing.
pub(crate) fn purity(sources: &[Source]) -> Vec<String> {
    let core = sources.iter().filter(|source| source.path.starts_with("core/src/"));
    core.flat_map(|source| {
        IMPURE.iter().flat_map(move |(word, instead)| {
            words(&source.production, word).map(move |at| {
                let place = source.place(&source.production, at);
                format!("{place}: `{word}` in core: {instead}")
            })
        })
    })
    .collect()
}

/// Marks of work that is not done.
pub(crate) fn unfinished(sources: &[Source]) -> Vec<String> {
    const IN_CODE: [(&str, &str); 4] = [
        ("todo!", "write it, or leave it out"),
        ("unimplemented!", "write it, or leave it out"),
        ("#[ignore", "a test that is not run tests nothing; fix it or delete it"),
        ("should_panic", "any panic would pass; match on the error, or use `catch_unwind`"),
    ];
    // Split, so that this file does not hold the word itself.
    const IN_COMMENTS: &str = concat!("FIX", "ME");
    let mut findings = Vec::new();
    for source in sources {
        for (word, instead) in IN_CODE {
            for at in words(&source.code, word) {
                let place = source.place(&source.code, at);
                findings.push(format!("{place}: `{word}`: {instead}"));
            }
        }
        for at in words(&source.text, IN_COMMENTS) {
            let place = source.place(&source.text, at);
            findings.push(format!("{place}: `{IN_COMMENTS}`: fix it, or file an issue and write `TODO(#n)`"));
        }
    }
    findings
}

/// Tests that wait by the clock are slow when all is well and fail when the machine is busy.
pub(crate) fn sleeps(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for word in ["sleep(", "sleep_until("] {
            for at in words(&source.tests, word) {
                let place = source.place(&source.tests, at);
                findings.push(format!(
                    "{place}: `{word}…)` in a test: wait for a condition with a deadline (a channel, `Notify`, `recv_timeout`)"
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings_in;

    #[test]
    fn impure_code_in_core_is_found() {
        for line in [
            "use std::collections::HashMap;",
            "let now = Instant::now();",
            "let now = SystemTime::now();",
            "std::fs::read(path)",
            "std::thread::spawn(work)",
            "async fn wait() {}",
        ] {
            assert_eq!(findings_in("core/src/x.rs", line, purity).len(), 1, "{line}");
            assert!(findings_in("node/src/x.rs", line, purity).is_empty());
        }
    }

    #[test]
    fn words_in_comments_strings_and_tests_are_no_impurity() {
        let text = "// HashMap\nlet x = \"async\";\n#[cfg(test)]\nmod tests { use std::fs; }\n";
        assert!(findings_in("core/src/x.rs", text, purity).is_empty());
        assert!(findings_in("core/src/x/tests.rs", "std::fs", purity).is_empty());
    }

    #[test]
    fn unfinished_work_is_found_with_its_line() {
        let text = concat!("fn a() {}\nfn b() { to", "do!() }\n");
        assert_eq!(
            findings_in("node/src/x.rs", text, unfinished),
            ["node/src/x.rs:2: `todo!`: write it, or leave it out"]
        );
        for text in [
            concat!("unimpl", "emented!()"),
            concat!("#[igno", "re = \"slow\"]"),
            concat!("#[should_", "panic]"),
            concat!("// FIX", "ME: later"),
        ] {
            assert_eq!(findings_in("tests/e2e/x.rs", text, unfinished).len(), 1);
        }
    }

    #[test]
    fn sleeps_in_tests_are_found_and_others_left() {
        let nap = "std::thread::sleep(ms)";
        assert_eq!(findings_in("node/tests/x.rs", nap, sleeps).len(), 1);
        assert_eq!(findings_in("node/src/x/tests.rs", nap, sleeps).len(), 1);
        let inline = format!("#[cfg(test)]\nmod tests {{ fn f() {{ {nap} }} }}");
        assert_eq!(findings_in("node/src/x.rs", &inline, sleeps).len(), 1);
        assert!(findings_in("node/src/x.rs", nap, sleeps).is_empty());
        assert!(findings_in("node/tests/x.rs", "run(\"sleep(1)\")", sleeps).is_empty());
    }
}
